"""A repaired gap → PostgreSQL, and the hot store for readers of the gap ledger."""

from typing import Any

import boto3
import msgspec

from tickcast.adapters.lake.windows import WindowLake
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.gap_store import GapStore
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.settings import MarkRepairedSettings
from tickcast.adapters.telemetry import structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.mark_repaired import fetched_rows, lacking, mark_repaired
from tickcast.market.fetch_plan import Window

logger = structured_logger()
settings = read(MarkRepairedSettings)
database = Database(settings.database)
client = connect(settings.redis)
s3 = boto3.client("s3")
lake = WindowLake(s3, settings.bucket)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    window = msgspec.convert(event["window"], Window)
    store = GapStore(database.connection())
    withheld = lake.withheld(window)
    fetched = fetched_rows(s3, settings.bucket, window, lacking(window, withheld, store))
    marked = mark_repaired(window, withheld, store, client, fetched)
    answer: dict[str, Any] = msgspec.to_builtins(marked)
    if marked.missing_trades:
        logger.warning("trades of a repaired gap are still missing", extra=answer)
    return answer

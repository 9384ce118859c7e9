"""A gap that was filled → PostgreSQL, and the readers of the gap ledger."""

from typing import Any

import boto3
from aws_lambda_powertools.metrics import MetricUnit

from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.history_store import OpenStore
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.settings import MarkRepairedSettings
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.mark_repaired import mark_repaired, withheld_in

logger = structured_logger()
metrics = Metrics()
settings = read(MarkRepairedSettings)
open_store = OpenStore(Database(settings.database))
client = connect(settings.redis)
s3 = boto3.client("s3")


@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    window = event["window"]
    withheld = withheld_in(s3, settings.bucket, window)
    marked = mark_repaired(window, withheld, open_store(), client)
    metrics.add_metric("RepairedTrades", MetricUnit.Count, marked["repaired_trades"])
    if marked["missing_trades"]:
        logger.warning("trades of a repaired gap are still missing", extra=marked)
    return marked

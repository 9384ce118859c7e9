"""Bronze → PostgreSQL: trades, one-second bars, labelled feature rows."""

import time
from typing import Any

import boto3
import msgspec

from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.history_store import OpenStore
from tickcast.adapters.settings import LoadHistorySettings
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.load_history import LoadHistory

logger = structured_logger()
metrics = Metrics()
settings = read(LoadHistorySettings)
load_history = LoadHistory(
    settings.history,
    boto3.client("s3"),
    settings.bucket,
    OpenStore(Database(settings.database)),
    lambda: time.time_ns() // 1000,
)


@metrics.flushed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    started_s = time.monotonic()
    loaded = load_history(event, context.get_remaining_time_in_millis)
    metrics.count("Quarantined", len(loaded.quarantined))
    for problem in (*loaded.quarantined, *loaded.problems):
        logger.warning(problem)
    document: dict[str, Any] = msgspec.to_builtins(loaded)
    return document | {"seconds": round(time.monotonic() - started_s, 3)}

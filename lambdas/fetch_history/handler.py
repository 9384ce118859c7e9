"""Binance REST → S3 bronze: one window of history."""

import time
from typing import Any

import boto3
import msgspec

from tickcast.adapters.rest.binance import BinanceRest
from tickcast.adapters.settings import FetchHistorySettings
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.fetch_history import FetchHistory

logger = structured_logger()
metrics = Metrics()
settings = read(FetchHistorySettings)
rest = BinanceRest(settings.rest_url)
fetch_history = FetchHistory(rest, boto3.client("s3"), settings.bucket, lambda: time.time_ns() // 1000)


@metrics.flushed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    started_s = time.monotonic()
    fetched = fetch_history(event, context.get_remaining_time_in_millis)
    metrics.count("Quarantined", fetched.quarantined)
    document: dict[str, Any] = msgspec.to_builtins(fetched)
    names = (
        "status",
        "trades",
        "rows",
        "files",
        "withheld_trades",
        "refused_rows",
        "quarantined",
        "retry_after_s",
    )
    logger.info("fetched", extra={"window": event.get("window"), **{name: document[name] for name in names}})
    return document | {"seconds": round(time.monotonic() - started_s, 3)}

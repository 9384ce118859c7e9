"""Binance REST → S3 bronze: one window of history."""

import time
from typing import Any

import boto3
import msgspec
from aws_lambda_powertools.metrics import MetricUnit

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


@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    requests_before, started_s = rest.requests, time.monotonic()
    try:
        fetched = fetch_history(event, context.get_remaining_time_in_millis)
    finally:
        metrics.add_metric("RestRequests", MetricUnit.Count, rest.requests - requests_before)
        metrics.add_metric("UsedWeight", MetricUnit.Count, rest.used_weight)  # a gauge: read its maximum
    metrics.add_metric("RateLimited", MetricUnit.Count, fetched.status == "rate_limited")
    metrics.add_metric("RefusedRows", MetricUnit.Count, fetched.refused_rows)
    document: dict[str, Any] = msgspec.to_builtins(fetched)
    names = ("status", "trades", "rows", "withheld_trades", "refused_rows", "retry_after_s")
    logger.info("fetched", extra={"window": event["window"], **{name: document[name] for name in names}})
    return document | {"seconds": round(time.monotonic() - started_s, 3)}

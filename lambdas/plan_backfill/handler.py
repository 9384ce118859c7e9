"""Which windows of history to fetch: what is requested, less what bronze has, and the gaps."""

import time
from typing import Any

import boto3
import msgspec

from tickcast.adapters.redis.connection import connect
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.settings import PlanBackfillSettings
from tickcast.adapters.telemetry import structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.plan_backfill import PlanBackfill

logger = structured_logger()
settings = read(PlanBackfillSettings)
store = HotStore(connect(settings.redis), settings.lateness_us)
plan_backfill = PlanBackfill(boto3.client("s3"), settings.bucket, store, settings.symbols)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    planned = plan_backfill(event["request"], event.get("execution_id", ""), time.time_ns() // 1000)
    logger.info("planned", extra={"windows": planned.windows, **msgspec.to_builtins(planned.totals)})
    return dict(msgspec.to_builtins(planned))

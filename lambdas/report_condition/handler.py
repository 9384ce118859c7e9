"""The condition of every symbol's data by day, into the lake."""

from typing import Any

import boto3
import msgspec

from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.redis.hot_store import HotStore, now_ms
from tickcast.adapters.settings import ReportConditionSettings
from tickcast.adapters.telemetry import structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.report_condition import ReportCondition

logger = structured_logger()
settings = read(ReportConditionSettings)
report = ReportCondition(
    settings,
    HotStore(connect(settings.redis), settings.lateness_us),
    boto3.client("s3"),
    Database(settings.database),
    now_ms,
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    result = report(context.get_remaining_time_in_millis)
    for symbol, why in result.failures.items():
        logger.error("the condition of a symbol was not reported", extra={"symbol": symbol, "why": why})
    for problem in result.problems:
        logger.warning(problem)
    answer: dict[str, Any] = msgspec.to_builtins(result)
    return answer

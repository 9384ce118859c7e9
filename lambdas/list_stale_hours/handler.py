"""The hours of history that PostgreSQL lacks, or has of less than bronze: what load_history is to derive."""

import time
from typing import Any

import boto3
import msgspec

from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.settings import ListStaleHoursSettings
from tickcast.adapters.telemetry import structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.list_stale_hours import ListStaleHours

logger = structured_logger()
settings = read(ListStaleHoursSettings)
list_stale_hours = ListStaleHours(
    settings.history,
    boto3.client("s3"),
    settings.bucket,
    Database(settings.database).connection,
    lambda: time.time_ns() // 1000,
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    found = list_stale_hours(event, context.get_remaining_time_in_millis)
    logger.info(
        "stale hours", extra={"hours": found.hours, "windows": len(found.windows), "left": found.left}
    )
    answer: dict[str, Any] = msgspec.to_builtins(found)
    return answer

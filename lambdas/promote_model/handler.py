"""The gate's decision → the pointer to the active model."""

from datetime import UTC, datetime
from typing import Any

import boto3

from tickcast.adapters.settings import PromoteModelSettings
from tickcast.adapters.telemetry import structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.promote_model import promote_model

logger = structured_logger()
s3 = boto3.client("s3")
settings = read(PromoteModelSettings)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    moved = promote_model(event, s3, settings.bucket, datetime.now(UTC))
    logger.info(moved["status"], extra={name: moved[name] for name in ("in_force", "challenger")})
    return moved

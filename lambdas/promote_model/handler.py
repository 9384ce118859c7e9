"""The gate's decision → the pointer to the active model."""

from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools.metrics import MetricUnit

from tickcast.adapters.settings import PromoteModelSettings
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.promote_model import promote_model

logger = structured_logger()
metrics = Metrics()
s3 = boto3.client("s3")
settings = read(PromoteModelSettings)


@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    moved = promote_model(event, s3, settings.bucket, datetime.now(UTC))
    metrics.add_metric("Promotions", MetricUnit.Count, moved["status"] == "promoted")
    logger.info(moved["status"], extra={name: moved[name] for name in ("in_force", "challenger")})
    return moved

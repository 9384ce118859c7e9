"""A verdict → the pointer to the model in force."""

import os
from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from tickcast.adapters.promote_model import promote_model

logger = Logger()
metrics = Metrics()
s3 = boto3.client("s3")
BUCKET = os.environ["BUCKET"]


@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    moved = promote_model(event, s3, BUCKET, datetime.now(UTC))
    metrics.add_metric("Promotions", MetricUnit.Count, moved["status"] == "promoted")
    logger.info(moved["status"], extra={name: moved[name] for name in ("in_force", "challenger")})
    return moved

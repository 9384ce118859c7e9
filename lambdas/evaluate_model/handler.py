"""Challengers against the champion, on rows that none was trained on → the gate's decision."""

from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools.metrics import MetricUnit

from tickcast.adapters import json_text
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.settings import EvaluateModelSettings
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.evaluate_model import evaluate_model

logger = structured_logger()
metrics = Metrics()
settings = read(EvaluateModelSettings)
s3 = boto3.client("s3")
database = Database(settings.database)


@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    decision = evaluate_model(
        event, s3, settings.bucket, database.connection(), settings.symbols, datetime.now(UTC)
    )
    metrics.add_metric("JudgedSeconds", MetricUnit.Seconds, decision["seconds"])
    logger.info(decision["sentence"], extra={name: decision[name] for name in ("model_id", "reasons")})
    return dict(json_text.finite(decision))

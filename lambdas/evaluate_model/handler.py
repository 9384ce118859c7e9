"""Challengers against the champion, on rows that none was trained on → the gate's decision."""

from datetime import UTC, datetime
from typing import Any

import boto3

from tickcast.adapters import json_text
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.registry.served_symbols import served_or
from tickcast.adapters.settings import EvaluateModelSettings
from tickcast.adapters.telemetry import structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.evaluate_model import evaluate_model

logger = structured_logger()
settings = read(EvaluateModelSettings)
s3 = boto3.client("s3")
database = Database(settings.database)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    symbols = served_or(s3, settings.bucket, settings.symbols)
    decision = evaluate_model(event, s3, settings.bucket, database.connection(), symbols, datetime.now(UTC))
    logger.info(decision["sentence"], extra={name: decision[name] for name in ("model_id", "reasons")})
    return dict(json_text.finite(decision))

"""A sample of the predictions, recomputed from bronze: a difference is an alarm."""

from typing import Any

import boto3

from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.redis.hot_store import now_ms
from tickcast.adapters.settings import AuditPredictionsSettings
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.audit_predictions import AuditPredictions

logger = structured_logger()
metrics = Metrics()
settings = read(AuditPredictionsSettings)
database = Database(settings.database)
audit = AuditPredictions(settings, connect(settings.redis), boto3.client("s3"), database, now_ms)


@metrics.flushed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    result = audit(context.get_remaining_time_in_millis)
    metrics.count("AuditDifferences", len(result.differences))
    for prediction_id in result.differences:
        logger.error("differs from bronze", extra={"id": prediction_id})
    for prediction_id, why in result.pending.items():
        logger.info("inconclusive", extra={"id": prediction_id, "why": why})
    for problem in (*result.problems, *result.failures):
        logger.warning(problem)
    return {"audited": result.audited, "differences": result.differences, "pending": result.pending}

"""Outcomes → PostgreSQL; accuracy → the hot store and metrics; drift → whether to retrain."""

from typing import Any

import boto3

from tickcast.adapters import json_text
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.redis.hot_store import now_ms
from tickcast.adapters.settings import ScorePredictionsSettings
from tickcast.adapters.telemetry import structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.score_metrics import write_score_metrics
from tickcast.functions.score_predictions import ScorePredictions

logger = structured_logger()
settings = read(ScorePredictionsSettings)
database = Database(settings.database)
score_predictions = ScorePredictions(
    settings, settings.scores, connect(settings.redis), boto3.client("s3"), database, now_ms
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    result = score_predictions(context.get_remaining_time_in_millis)
    write_score_metrics(result, settings.primary_horizon_s, result.symbols)
    for problem in result.problems:
        logger.warning(problem)
    answer: dict[str, Any] = json_text.finite(result.as_dict(settings.scores))
    logger.info("scored", extra=answer)
    return answer

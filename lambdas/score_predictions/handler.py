"""Outcomes → PostgreSQL; accuracy → the hot store and metrics; drift → whether to retrain."""

import math
from typing import Any

import boto3
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from tickcast.adapters import json_text
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.redis.hot_store import now_ms
from tickcast.adapters.settings import ScorePredictionsSettings
from tickcast.adapters.telemetry import structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.score_predictions import ScorePredictions
from tickcast.market.symbols import ascii_name

logger = structured_logger()
settings = read(ScorePredictionsSettings)
database = Database(settings.database)
score_predictions = ScorePredictions(
    settings, settings.scores, connect(settings.redis), boto3.client("s3"), database, now_ms
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    result = score_predictions(context.get_remaining_time_in_millis)
    for symbol, hour in result.hours.items():
        figures, state = hour.horizons[settings.primary_horizon_s], result.drift.get(symbol)
        skill, linear = figures.skill, figures.skill_vs_linear
        _measure(symbol, "Scored", MetricUnit.Count, figures.count)
        _measure(symbol, "Availability", MetricUnit.Percent, _percent(hour.availability))
        _measure(symbol, "FallbackShare", MetricUnit.Percent, _percent(figures.fallback_share))
        _measure(symbol, "LiveSkill", MetricUnit.NoUnit, skill.value if skill else None)
        _measure(symbol, "LiveSkillVsLinear", MetricUnit.NoUnit, linear.value if linear else None)
        _measure(symbol, "Direction", MetricUnit.Percent, _percent(figures.direction))
        _measure(symbol, "Coverage", MetricUnit.Percent, _percent(figures.coverage))
        _measure(symbol, "CalibrationError", MetricUnit.NoUnit, figures.calibration_error)
        _measure(symbol, "Drifting", MetricUnit.Count, float(state.is_drifting) if state else None)
    for problem in result.problems:
        logger.warning(problem)
    answer: dict[str, Any] = json_text.finite(result.as_dict(settings.scores))
    logger.info("scored", extra=answer)
    return answer


def _measure(symbol: str, name: str, unit: MetricUnit, value: float | None) -> None:
    """A metric of one symbol; none where the value is unknown."""
    if value is not None and math.isfinite(value):
        # CloudWatch takes dimensions in ASCII alone.
        with single_metric(name, unit, value, default_dimensions={"symbol": ascii_name(symbol)}):
            pass


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share

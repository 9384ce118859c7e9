"""The REST API: the newest prediction of a symbol, and the system's health."""

from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from tickcast.adapters.hot_store import HotStore, now_ms
from tickcast.adapters.redis_connection import connect
from tickcast.adapters.serve_predictions import ServePredictions
from tickcast.adapters.settings import Settings

logger = Logger()
metrics = Metrics()
settings = Settings.from_environment()
serve = ServePredictions(settings, HotStore(connect(settings), settings.lateness_us), now_ms)


@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    answer = serve(event)
    is_fallback = answer.body.get("source") == "fallback"
    metrics.add_metric("FallbacksServed", MetricUnit.Count, is_fallback)
    metrics.add_metric("ServerErrors", MetricUnit.Count, answer.status >= 500)
    return answer.as_proxy_response()

"""Kinesis → bars → features → model → Redis, in one invocation; outcomes as they become known."""

from typing import Any

import boto3
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config

from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.redis.hot_store import HotStore, StoreFull, StoreWentBack, now_ms
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.adapters.settings import PredictStreamSettings
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.predict_stream import PredictStream, Result, settle

logger = structured_logger()
metrics = Metrics()
settings = read(PredictStreamSettings)
s3 = boto3.client("s3", config=Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 2}))
predict_stream = PredictStream(
    settings=settings,
    store=HotStore(connect(settings.redis, timeout_s=0.5, retries=1), settings.lateness_us),
    models=ModelWatcher(s3, settings.bucket, now_ms),
    schemas=SchemaRegistry(s3, settings.bucket),
    s3=s3,
    clock_ms=now_ms,
)


@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    try:
        report(predict_stream(event))
    except (StoreFull, StoreWentBack) as error:
        name = "StoreFull" if isinstance(error, StoreFull) else "StoreWentBack"
        metrics.add_metric(name, MetricUnit.Count, 1)
        raise
    settle()
    return {"batchItemFailures": []}


def report(result: Result) -> None:
    """Metrics of one prediction a second, for log lines cost; a log line for each problem."""
    for prediction in result.kept:
        metrics.add_metric("Predictions", MetricUnit.Count, 1)
        metrics.add_metric("Fallbacks", MetricUnit.Count, prediction.source == "fallback")
        if prediction.reason:
            metrics.add_metric(f"Fallbacks:{prediction.reason}", MetricUnit.Count, 1)
        metrics.add_metric("LatencyMs", MetricUnit.Milliseconds, prediction.latency_ms or 0)
        if prediction.inference_ms is not None:
            metrics.add_metric("InferenceMs", MetricUnit.Milliseconds, prediction.inference_ms)
    for missing in result.missing_trades.values():  # a gauge: read it by its maximum
        metrics.add_metric("MissingTrades", MetricUnit.Count, missing)
    for name, count in result.counts().items():
        if count:
            metrics.add_metric(name, MetricUnit.Count, count)
    for problem in (*result.problems, *result.quarantined):
        logger.warning(problem)

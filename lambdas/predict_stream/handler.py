"""Kinesis → bars → features → model → Redis, in one invocation; outcomes as they become known."""

from typing import Any

import boto3
from botocore.config import Config

from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.redis.hot_store import HotStore, now_ms
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.adapters.settings import PredictStreamSettings
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.admitted_symbols import AdmittedSymbols
from tickcast.functions.predict_stream import PredictStream, settle
from tickcast.functions.prediction_metrics import PredictionMetrics

logger = structured_logger()
metrics = PredictionMetrics(Metrics(), now_ms)
settings = read(PredictStreamSettings)
s3 = boto3.client("s3", config=Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 2}))
store = HotStore(connect(settings.redis, timeout_s=0.5, retries=1), settings.lateness_us)
predict_stream = PredictStream(
    settings=settings,
    store=store,
    symbols=AdmittedSymbols(
        s3, settings.bucket, settings.symbols, store, now_ms, check_s=settings.symbols_check_s
    ),
    models=ModelWatcher(s3, settings.bucket, now_ms),
    schemas=SchemaRegistry(s3, settings.bucket),
    s3=s3,
    clock_ms=now_ms,
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    result = predict_stream(event)
    metrics.add(result)
    for problem in (*result.problems, *result.quarantined):
        logger.warning(problem)
    settle()
    return {"batchItemFailures": []}

"""The REST API: predictions, their receipts and accuracy, the models, the system's health, the dashboard."""

from functools import cache
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from tickcast.adapters.http import routes
from tickcast.adapters.http.responses import if_none_match
from tickcast.adapters.lake.condition_reports import ConditionReports
from tickcast.adapters.lake.receipt_archive import ReceiptArchive
from tickcast.adapters.lake.tally_archive import TallyArchive
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.redis.hot_store import HotStore, now_ms
from tickcast.adapters.registry.model_catalog import ModelCatalog
from tickcast.adapters.settings import ServePredictionsSettings
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.serve_predictions import STORE_RETRIES, STORE_TIMEOUT_S, ServePredictions


@cache
def s3_client() -> Any:
    """Made on the first request for what is in S3: boto3 is most of a cold start, and few callers ask."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3", config=Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 2})
    )


logger = structured_logger()
metrics = Metrics()
settings = read(ServePredictionsSettings)
redis_client = connect(settings.redis, timeout_s=STORE_TIMEOUT_S, retries=STORE_RETRIES)
serve = ServePredictions(
    settings,
    HotStore(redis_client, settings.lateness_us),
    ModelCatalog(s3_client, settings.bucket, now_ms),
    ReceiptArchive(s3_client, settings.bucket),
    TallyArchive(s3_client, settings.bucket),
    now_ms,
    reports=ConditionReports(s3_client, settings.bucket),
)


@metrics.flushed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    response = serve(event)
    answer = response.as_proxy_response(if_none_match(event))
    for age_ms in response.ages_ms:
        metrics.add_metric("AgeWhenReadMs", MetricUnit.Milliseconds, age_ms)
    # A 503 of /health is its answer, not an error: what is unhealthy has an alarm of its own.
    if event.get("resource") != routes.HEALTH.path:
        metrics.count("ServerErrors", answer["statusCode"] >= 500)
    return answer

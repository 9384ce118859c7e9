"""Kinesis → S3 bronze, as Avro container files."""

from typing import Any

import boto3

from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.settings import ArchiveTicksSettings
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.archive_ticks import archive

logger = structured_logger()
metrics = Metrics()
s3 = boto3.client("s3")
settings = read(ArchiveTicksSettings)
schemas = SchemaRegistry(s3, settings.bucket)


@metrics.flushed
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    outcome = archive(event, s3, settings.bucket, schemas)
    metrics.count("Quarantined", len(outcome.quarantined))
    for reason in outcome.quarantined:
        logger.warning("record quarantined", extra={"reason": reason})
    for problem in outcome.problems:
        logger.warning(problem)
    return {"batchItemFailures": []}

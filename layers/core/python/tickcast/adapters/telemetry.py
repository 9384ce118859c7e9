"""Logs and metrics of every process: valid JSON lines without secrets.

CloudWatch drops a line of its embedded metric format that is not valid JSON, with all the metrics in it: so a
metric that is not finite is left out, and such a number in a log line is null.
"""

from __future__ import annotations

import math
from typing import Any

import aws_lambda_powertools
from aws_lambda_powertools.metrics import MetricResolution, MetricUnit

from tickcast.adapters import json_text
from tickcast.adapters.redaction import redact


class Metrics(aws_lambda_powertools.Metrics):
    """Powertools' metrics without values that are not finite. Their namespace is
    POWERTOOLS_METRICS_NAMESPACE, which the settings of every process check."""

    def add_metric(
        self, name: str, unit: MetricUnit | str, value: float, resolution: MetricResolution | int = 60
    ) -> None:
        if math.isfinite(value):
            super().add_metric(name, unit, value, resolution)


def structured_logger(service: str | None = None) -> aws_lambda_powertools.Logger:
    """Powertools' logger, writing `log_line`."""
    return aws_lambda_powertools.Logger(service=service, json_serializer=log_line)


def log_line(record: dict[str, Any]) -> str:
    """A log record as a line of JSON; all texts in it are redacted."""
    return json_text.text(_redacted(record), default=lambda value: redact(str(value)))


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _redacted(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_redacted(inner) for inner in value]
    return value

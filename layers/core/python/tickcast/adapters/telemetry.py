"""Logs and metrics as every process writes them: JSON lines without secrets, and figures that are numbers.

CloudWatch drops a line of its embedded metric format that is no JSON, with all the metrics in it; a metric
whose value is not finite is therefore left out, and in a log line it is null.
"""

from __future__ import annotations

import math
from typing import Any

import aws_lambda_powertools
from aws_lambda_powertools.metrics import MetricResolution, MetricUnit

from tickcast.adapters import json_text
from tickcast.adapters.redaction import redact

Logger = aws_lambda_powertools.Logger


class Metrics(aws_lambda_powertools.Metrics):
    """Powertools' metrics without values that are not finite. Their namespace is
    POWERTOOLS_METRICS_NAMESPACE, which the settings of every process check."""

    def add_metric(
        self, name: str, unit: MetricUnit | str, value: float, resolution: MetricResolution | int = 60
    ) -> None:
        if math.isfinite(value):
            super().add_metric(name, unit, value, resolution)


def structured_logger(service: str | None = None) -> Logger:
    """Powertools' logger with this module's lines."""
    return Logger(service=service, json_serializer=log_line)


def log_line(record: dict[str, Any]) -> str:
    """A log record as a line: whatever text is in it, a library's or a stack trace, is redacted."""
    return json_text.text(_redacted(record), default=lambda value: redact(str(value)))


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _redacted(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_redacted(inner) for inner in value]
    return value

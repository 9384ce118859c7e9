"""Logs and metrics of every process: valid JSON lines without secrets.

CloudWatch drops a line of its embedded metric format that is not valid JSON, with all the metrics in it: so a
metric that is not finite is left out, and such a number in a log line is null.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import aws_lambda_powertools
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricResolution, MetricUnit

from tickcast.adapters import json_text
from tickcast.adapters.redaction import redact

Handler = Callable[[dict[str, Any], Any], Any]


class Metrics(aws_lambda_powertools.Metrics):
    """Powertools' metrics without values that are not finite, and without lines that hold none. Their
    namespace is POWERTOOLS_METRICS_NAMESPACE, which the settings of every process check.

    What is added is written by `flush`. A line of log costs, and so does a metric in each hour in which it
    has a value: counts of what seldom happens are added only when it does.
    """

    def add_metric(
        self, name: str, unit: MetricUnit | str, value: float, resolution: MetricResolution | int = 60
    ) -> None:
        if math.isfinite(value):
            super().add_metric(name, unit, value, resolution)

    def count(self, name: str, count: int) -> None:
        """Add a count, unless it is 0."""
        if count:
            self.add_metric(name, MetricUnit.Count, count)

    def flush(self) -> None:
        """Write a line with all that was added, if anything was."""
        if self.metric_set:
            self.flush_metrics()

    def flushed(self, handler: Handler) -> Handler:
        """`handler`, which flushes when it returns and when it raises. (Powertools' own `log_metrics` warns
        of every invocation without metrics, which is the usual case here.)"""

        @functools.wraps(handler)
        def flushing(event: dict[str, Any], context: Any) -> Any:
            try:
                return handler(event, context)
            finally:
                self.flush()

        return flushing


def write_metrics(values: Mapping[str, tuple[MetricUnit, float | None]], **dimensions: str) -> None:
    """Write a line of metrics under `dimensions`, in addition to the service; without those whose value is
    unknown. CloudWatch takes dimensions in ASCII alone."""
    known = {name: each for name, each in values.items() if each[1] is not None and math.isfinite(each[1])}
    if not known:
        return
    metrics = EphemeralMetrics()
    for name, value in dimensions.items():
        metrics.add_dimension(name, value)
    for name, (unit, number) in known.items():
        metrics.add_metric(name, unit, number or 0.0)
    metrics.flush_metrics()


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

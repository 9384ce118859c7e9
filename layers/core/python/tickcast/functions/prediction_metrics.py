"""The metrics of `predict_stream`, written a few times a minute: at tens of invocations a second a line for
each would be most of its log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from aws_lambda_powertools.metrics import MetricUnit

from tickcast.adapters.telemetry import Metrics, write_metrics
from tickcast.functions.predict_stream import Result
from tickcast.serving.records import Prediction

EVERY_MS = 10_000  # a process that ends takes at most so much with it; alarms look at minutes


class PredictionMetrics:
    """Collects what `add` is given, of all symbols together, and writes it every `EVERY_MS`."""

    def __init__(self, metrics: Metrics, clock_ms: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._written_ms = clock_ms()
        self._fallbacks: Counter[str] = Counter()

    def add(self, result: Result) -> None:
        """Of the predictions that are kept, one a second and symbol; and of what went wrong."""
        for prediction in result.kept:
            self._add_latency(prediction)
            if prediction.reason:
                self._fallbacks[prediction.reason] += 1
        for missing in result.missing_trades.values():  # a gauge: read it by its maximum
            self._metrics.add_metric("MissingTrades", MetricUnit.Count, missing)
        self._metrics.count("Predictions", len(result.kept))
        self._metrics.count("ModelRefused", result.model_refused)
        self._metrics.count("Quarantined", len(result.quarantined))
        self._metrics.count("SymbolFailures", len(result.failed))
        if self._clock_ms() - self._written_ms >= EVERY_MS:
            self.write()

    def write(self) -> None:
        """Write what was collected, each reason of fallbacks in a line of its own."""
        self._metrics.flush()
        for reason, count in self._fallbacks.items():
            write_metrics({"Fallbacks": (MetricUnit.Count, count)}, reason=reason)
        self._fallbacks.clear()
        self._written_ms = self._clock_ms()

    def _add_latency(self, prediction: Prediction) -> None:
        """The latency, and its hops outside the function: what is left is the function's."""
        milliseconds = MetricUnit.Milliseconds
        self._metrics.add_metric("LatencyMs", milliseconds, prediction.latency_ms or 0)
        if prediction.timing_ms:
            self._metrics.add_metric("ToKinesisMs", milliseconds, prediction.timing_ms.to_kinesis)
            self._metrics.add_metric("ToFunctionMs", milliseconds, prediction.timing_ms.to_function)

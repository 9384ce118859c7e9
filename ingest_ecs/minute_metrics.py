"""The task's metrics in CloudWatch's embedded metric format: a line a minute, and one when it stops."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from ingest_ecs.producer import Producer
from tickcast.adapters.telemetry import Metrics

METRICS_EVERY_S = 60
REFERENCE_LATE_S = 10


class MinuteMetrics:
    """What was lost since the last line, and, by `report`, two ages: that of the newest tick of the symbol
    where it is oldest and the market is not quiet, and that of the perpetuals' quotes where it is long.

    Reasons are a field of the line, for queries: as metrics their number would be unbounded.
    """

    def __init__(self, metrics: Metrics, producer: Producer, report: Callable[[], dict[str, Any]]) -> None:
        self._metrics = metrics
        self._producer = producer
        self._report = report
        self._written: Counter[str] = Counter()
        self._written_reasons: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(METRICS_EVERY_S)
            self._add_ages()
            self.write_losses()

    def write_losses(self) -> None:
        """Write a line with what was lost since the last one, and with what was added."""
        counts, bad_frames = self._producer.counts, self._producer.bad_frames
        now = Counter(put=counts.put_failures, dropped=counts.dropped_ticks, bad=bad_frames.total())
        since = now - self._written
        self._metrics.count("PutFailures", since["put"])
        self._metrics.count("DroppedTicks", since["dropped"])
        self._metrics.count("BadFrames", since["bad"])
        if reasons := Counter(bad_frames) - self._written_reasons:
            self._metrics.add_metadata("bad_frames", dict(reasons))
        self._written, self._written_reasons = now, Counter(bad_frames)
        self._metrics.flush()

    def _add_ages(self) -> None:
        report = self._report()
        ages_s = [about["last_tick_age_s"] for about in report["symbols"].values() if not about["quiet"]]
        self._metrics.add_metric("LastTickAgeSeconds", MetricUnit.Seconds, _greatest(ages_s))
        reference_s = _greatest(report["reference"]["age_s"].values())
        if reference_s > REFERENCE_LATE_S:  # seldom, and a metric costs for each hour in which it has a value
            self._metrics.add_metric("ReferenceAgeSeconds", MetricUnit.Seconds, reference_s)


def _greatest(ages_s: Iterable[float | None]) -> float:
    """The greatest of the ages that are known; not a number, which is no metric, if none is."""
    return max((age_s for age_s in ages_s if age_s is not None), default=math.nan)

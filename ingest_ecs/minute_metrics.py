"""The task's metrics in CloudWatch's embedded metric format: a line a minute, and one when it stops."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from ingest_ecs.producer import Producer
from tickcast.adapters.telemetry import Metrics

METRICS_EVERY_S = 60


class MinuteMetrics:
    """What was lost since the last line, and the age of the newest tick of the symbol where it is oldest and
    the market is not quiet, by `report`.

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
        now = Counter(
            PutFailures=counts.put_failures,
            DroppedTicks=counts.dropped_ticks,
            BadFrames=bad_frames.total(),
        )
        for name, count in now.items():
            self._metrics.count(name, count - self._written[name])
        if reasons := Counter(bad_frames) - self._written_reasons:
            self._metrics.add_metadata("bad_frames", dict(reasons))
        self._written, self._written_reasons = now, Counter(bad_frames)
        self._metrics.flush()

    def _add_ages(self) -> None:
        symbols = self._report()["symbols"].values()
        ages_s = [about["last_tick_age_s"] for about in symbols if not about["quiet"]]
        if known := [age_s for age_s in ages_s if age_s is not None]:
            self._metrics.add_metric("LastTickAgeSeconds", MetricUnit.Seconds, max(known))

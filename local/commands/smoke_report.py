"""The figures of a smoke test: computed from observations, with limits, as a table and as the last line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from local.commands.observer import Reply, Sighting

INTERVAL_MAX_S = 2.0
INFERENCE_MAX_MS = 100.0
FRESH_MIN = 0.99


@dataclass
class Report:
    """The figures of the last line. Percentiles are those of the slowest symbol."""

    feed: str
    seconds: int
    ticks_in: int = 0  # trades and quotes, since the start
    ticks_lost: int = 0  # trades that were sent and are not in bronze
    predictions: int = 0
    interval_s_p50: float | None = None
    interval_s_p99: float | None = None
    inference_ms_p50: float | None = None
    inference_ms_p99: float | None = None
    event_to_prediction_ms_p50: float | None = None
    event_to_prediction_ms_p99: float | None = None
    api_ms_p50: float | None = None
    api_ms_p99: float | None = None
    fresh_share: float = 0.0
    fallbacks: int = 0
    model_id: str | None = None
    errors: list[str] = field(default_factory=list)
    lateness_ms: int = 0  # how long a bar waits for late ticks; not in the last line

    @property
    def failures(self) -> list[str]:
        """The reasons why the test does not pass."""
        failed = list(self.errors)
        if self.interval_s_p99 is None or self.interval_s_p99 > INTERVAL_MAX_S:
            failed.append(f"the interval between predictions should be at most {INTERVAL_MAX_S:g} s")
        if self.inference_ms_p99 is None or self.inference_ms_p99 >= INFERENCE_MAX_MS:
            failed.append(f"inference should take less than {INFERENCE_MAX_MS:g} ms")
        if self.ticks_lost:
            failed.append(f"{self.ticks_lost} trades were lost")
        if self.fresh_share < FRESH_MIN:
            failed.append(f"the model should answer in {FRESH_MIN:.0%} of the seconds")
        return failed

    @property
    def ok(self) -> bool:
        return not self.failures

    def last_line(self) -> dict[str, Any]:
        """The fields of the last line, in order."""
        values = dataclasses.asdict(self)
        del values["lateness_ms"]
        return {"ok": self.ok, **values}


def fill_in(
    report: Report,
    symbols: Sequence[str],
    sightings: Iterable[Sighting],
    replies: Iterable[Reply],
    start_ms: float,
    end_ms: float,
) -> None:
    """Set the figures of a measurement window from what the observer saw in it."""
    sightings, replies = list(sightings), list(replies)
    predictions = [seen.prediction for seen in sightings]
    report.predictions = len(predictions)
    report.fallbacks = sum(p["source"] == "fallback" for p in predictions)
    models = [p["model_id"] for p in predictions if p["model_id"]]
    report.model_id = models[-1] if models else None

    # The edges of the window count as sightings: predictions that stop show as one long interval.
    per_symbol = [
        np.diff(
            [start_ms, *(each.seen_ms for each in sightings if each.prediction["symbol"] == symbol), end_ms]
        )
        / 1000
        for symbol in symbols
    ]
    report.interval_s_p50 = _slowest(per_symbol, 50)
    report.interval_s_p99 = _slowest(per_symbol, 99)
    inference = [p["inference_ms"] for p in predictions if p["inference_ms"] is not None]
    report.inference_ms_p50, report.inference_ms_p99 = _percentiles(inference)
    delays = [seen.seen_ms - seen.prediction["timestamp"] for seen in sightings]
    report.event_to_prediction_ms_p50, report.event_to_prediction_ms_p99 = _percentiles(delays)
    report.api_ms_p50, report.api_ms_p99 = _percentiles([reply.took_ms for reply in replies])
    fresh = [reply.status == 200 and reply.body["source"] == "model" for reply in replies]
    report.fresh_share = round(sum(fresh) / len(fresh), 4) if fresh else 0.0
    report.errors += sorted(
        {f"API: {r.symbol} returned {r.status}: {r.body}" for r in replies if r.status != 200}
    )


def table(report: Report) -> Table:
    """The report, for people."""
    shown = Table(title=f"{report.feed}, {report.seconds} s: {'passed' if report.ok else 'FAILED'}")
    for title in ("figure", "p50", "p99", "limit"):
        shown.add_column(title, justify="left" if title == "figure" else "right")
    rows = (
        ("interval_s", "seconds between predictions", f"≤ {INTERVAL_MAX_S:g} s"),
        ("inference_ms", "inference, ms", f"< {INFERENCE_MAX_MS:g} ms"),
        ("event_to_prediction_ms", f"bar closed to prediction seen, ms (lateness {report.lateness_ms})", ""),
        ("api_ms", "API response, ms", ""),
    )
    for name, title, limit in rows:
        p50, p99 = getattr(report, f"{name}_p50"), getattr(report, f"{name}_p99")
        shown.add_row(title, *("-" if value is None else f"{value:.2f}" for value in (p50, p99)), limit)
    shown.add_section()
    shown.add_row("seconds answered by the model", f"{report.fresh_share:.2%}", "", f"≥ {FRESH_MIN:.0%}")
    shown.add_row("ticks sent / trades lost", f"{report.ticks_in}", f"{report.ticks_lost}", "0 lost")
    shown.add_row("predictions / fallbacks", f"{report.predictions}", f"{report.fallbacks}", "")
    shown.add_row("model", report.model_id or "none")
    shown.caption = "\n".join(report.failures)
    return shown


def _percentiles(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    p50, p99 = np.percentile(values, [50, 99])
    return round(float(p50), 3), round(float(p99), 3)


def _slowest(per_symbol: Sequence[Any], percent: int) -> float | None:
    return round(max(float(np.percentile(values, percent)) for values in per_symbol), 3)

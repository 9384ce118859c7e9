"""`make smoke`: start a temporary system and measure it by an observer outside of it.

The measurement begins once every symbol has had a prediction by the model. All figures but `inference_ms` are
the observer's own: when it first saw each prediction, how the API responded each second, how old its answers
were at random moments and how they did against the recording, which of the trades that the exchange sent are
in bronze. The test passes if predictions came at least every 2 s, inference took less than 100 ms, no trade
was lost, a fresh prediction of the model was served in at least 99 % of the seconds, and there was no other
error. With ADD and REMOVE the symbols are changed meanwhile (`local.commands.symbol_changes`). The marks of
ages and delays at the default configuration are shown; they decide nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from local.commands.command import (
    Command,
    ExitStatus,
    add_system_arguments,
    number_of,
    passed,
    print_last_line,
    symbols_of,
    system_options,
)
from local.commands.observer import Observer, Reply, Sighting
from local.commands.recorded_mids import mids_of, price_errors, skill_as_read
from local.commands.symbol_changes import SymbolChanges
from local.system import http_json, progress
from local.system.archived_trades import sent_so_far, trades_lost
from local.system.options import OptionsError
from local.system.processes import ProcessFailed
from local.system.progress import Progress
from local.system.system import System, temporary_system

INTERVAL_MAX_S = 2.0
INFERENCE_MAX_MS = 100.0
FRESH_MIN = 0.99
MAX_SECONDS = 86_400
_WARM_UP_S = 120
AGE_MARKS_MS = (250, 350)  # p50 and p90
DELAY_MARK_MS = 150  # p50


class WarmUpFailed(RuntimeError):
    """The model made no prediction in time; the message says what came instead."""


@dataclass
class Report:
    """The figures of the last line. Percentiles of intervals are those of the slowest symbol, all others are
    of all symbols. `as_read` is None without a recording."""

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
    age_when_read_ms_p50: float | None = None
    age_when_read_ms_p90: float | None = None
    as_read: dict[str, dict[str, Any]] | None = None  # by horizon, see `skill_as_read`
    fresh_share: float = 0.0
    fallbacks: int = 0
    model_id: str | None = None
    symbols: dict[str, Any] | None = None  # how changes of them were followed; None without any
    errors: list[str] = field(default_factory=list)

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
        return {"ok": self.ok, **asdict(self)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_system_arguments(parser)
    parser.add_argument("--seconds", type=number_of("SECONDS"), default=60, help="to measure, after warm-up")
    parser.add_argument("--add", default="", help="symbols to add while it is measured")
    parser.add_argument("--remove", default="", help="symbols to remove while it is measured")


def run(given: argparse.Namespace) -> ExitStatus:
    """Measure a temporary system; the last line is the report."""
    options, seconds = system_options(given), given.seconds
    if not 1 <= seconds <= MAX_SECONDS:
        raise OptionsError(f"SECONDS is {seconds}; it should be a whole number from 1 to {MAX_SECONDS}")
    changes = SymbolChanges(symbols_of("ADD", given.add), symbols_of("REMOVE", given.remove))
    if changes:
        changes.check(options)
    steps = progress.to_stderr()
    steps.say(f"[bold]tickcast smoke test[/bold]: {seconds} s, feed: {options.label}")
    with temporary_system("smoke", options, steps) as system:
        report = measure(system, seconds, steps, changes)
        system.state.keeps_logs = not report.ok
    Console().print(table(report))
    print_last_line(report.last_line())
    return passed(report.ok)


COMMAND = Command(
    "smoke",
    "start a temporary system, measure it from outside, stop it; the last line is JSON",
    add_arguments,
    run,
)


def measure(system: System, seconds: int, progress: Progress, changes: SymbolChanges | None = None) -> Report:
    """`observe`, then stop ingest, which flushes its buffer, and count the trades that arrived."""
    changes = changes or SymbolChanges()
    report = observe(system, seconds, progress, changes)
    if system.exchange_url:
        sent = changes.due(sent_so_far(system, changes.add))
        try:
            system.stop_ingest()
        except ProcessFailed as failure:
            report.errors.append(str(failure).partition("\n")[0])
        with progress.step("comparing sent trades with those in S3"):
            report.ticks_in = sum(each["trades"] + each["quotes"] for each in sent.values())
            report.ticks_lost = trades_lost(system, sent)
    return report


def observe(system: System, seconds: int, progress: Progress, changes: SymbolChanges | None = None) -> Report:
    """Watch `system` for `seconds` after warm-up; all figures but those of ticks sent and lost. Changes are
    made after half of them, and take time of their own.

    Raises `WarmUpFailed`, or `ProcessFailed` when a process ends meanwhile.
    """
    changes = changes or SymbolChanges()
    staying = changes.staying(system.symbols)
    with Observer(system, staying) as observer:
        with progress.step("warm-up: the model's first predictions"):
            wait_for_model(system, observer, staying)
        start_ms = observer.now_ms()
        with progress.step(f"measuring for {seconds} s"):
            _wait(system, observer, seconds / 2)
            changes.make(system, progress)
            _wait(system, observer, seconds / 2)
        end_ms = observer.now_ms()
    report = Report(system.options.feed, seconds, errors=list(observer.errors))
    sightings = [seen for seen in observer.sightings if start_ms <= seen.seen_ms <= end_ms]
    replies = [reply for reply in observer.replies if start_ms <= reply.asked_ms <= end_ms]
    readings = [reading for reading in observer.readings if start_ms <= reading.asked_ms <= end_ms]
    if changes:
        report.symbols = changes.changed.as_json()
        report.errors += changes.changed.failures
    fill_in(report, staying, sightings, replies, start_ms, end_ms)
    fill_in_ages(report, readings)
    report.errors += access_errors(system, staying[0])
    if system.exchange_url and system.options.feed == "replay":
        with progress.step("comparing answers with the recording"):
            compare_with_recording(report, system.exchange_url, sightings, [*replies, *readings], readings)
    return report


def wait_for_model(system: System, observer: Observer, symbols: Sequence[str]) -> None:
    """Wait until the observer has seen a prediction of the model for each of `symbols`. Raises
    `WarmUpFailed`."""
    deadline = time.monotonic() + _WARM_UP_S
    while True:
        newest = {seen.prediction["symbol"]: seen.prediction for seen in list(observer.sightings)}
        if all(s in newest and newest[s]["source"] == "model" for s in symbols):
            return
        if time.monotonic() > deadline or observer.errors:
            reasons = [
                f"{s}: {newest[s]['reason'] if s in newest else 'no prediction at all'}" for s in symbols
            ]
            raise WarmUpFailed("; ".join([f"no prediction of the model within {_WARM_UP_S} s", *reasons]))
        _wait(system, observer, 0.2)


def access_errors(system: System, symbol: str) -> list[str]:
    """Errors of access: the API has to refuse a caller without a key, and `/health` has to be ok."""
    errors = []
    without_key = http_json.get(f"{system.api_url}predictions/{symbol}")
    if without_key.status != 403:
        errors.append(f"API: a request without a key returned {without_key.status}, not 403")
    health = http_json.get(f"{system.api_url}health")
    if health.status != 200:
        errors.append(f"API: /health returned {health.status}: {health.body}")
    return errors


def _wait(system: System, observer: Observer, seconds: float) -> None:
    """Wait while all processes run and the observer has no error."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not observer.errors:
        system.check()
        time.sleep(0.1)


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
    report.inference_ms_p50, report.inference_ms_p99 = _percentiles(inference, 50, 99)
    delays = [seen.seen_ms - seen.prediction["timestamp"] for seen in sightings]
    report.event_to_prediction_ms_p50, report.event_to_prediction_ms_p99 = _percentiles(delays, 50, 99)
    report.api_ms_p50, report.api_ms_p99 = _percentiles([r.took_ms for r in replies], 50, 99)
    fresh = [reply.status == 200 and reply.body["source"] == "model" for reply in replies]
    report.fresh_share = round(sum(fresh) / len(fresh), 4) if fresh else 0.0
    report.errors += _api_errors(replies)


def fill_in_ages(report: Report, readings: Iterable[Reply]) -> None:
    """Set the ages of the answers that were read at random moments."""
    readings = list(readings)
    ages = [each.age_ms for each in readings if each.status == 200]
    report.age_when_read_ms_p50, report.age_when_read_ms_p90 = _percentiles(ages, 50, 90)
    report.errors += _api_errors(readings)


def compare_with_recording(
    report: Report,
    exchange_url: str,
    sightings: Iterable[Sighting],
    replies: Iterable[Reply],
    readings: Iterable[Reply],
) -> None:
    """Set the skill of `readings`; a wrong basis price of `sightings` or `replies` is an error."""
    recording = mids_of(exchange_url)
    served = [reply.body for reply in replies if reply.status == 200]
    report.errors += price_errors(recording, [*served, *(seen.prediction for seen in sightings)])
    report.as_read = skill_as_read(recording, [each.body for each in readings if each.status == 200])


def table(report: Report) -> Table:
    """The report, for people."""
    shown = Table(title=f"{report.feed}, {report.seconds} s: {'passed' if report.ok else 'FAILED'}")
    for title in ("figure", "p50", "p90", "p99", "limit"):
        shown.add_column(title, justify="left" if title == "figure" else "right", overflow="fold")
    rows = (
        ("interval_s", "seconds between predictions", f"≤ {INTERVAL_MAX_S:g} s"),
        ("inference_ms", "inference, ms", f"< {INFERENCE_MAX_MS:g} ms"),
        ("event_to_prediction_ms", "event to prediction seen, ms", f"mark ≤ {DELAY_MARK_MS}"),
        ("age_when_read_ms", "age when read, ms", "mark ≤ {} / {}".format(*AGE_MARKS_MS)),
        ("api_ms", "API response, ms", ""),
    )
    for name, title, limit in rows:
        figures = (getattr(report, f"{name}_{each}", None) for each in ("p50", "p90", "p99"))
        shown.add_row(title, *("-" if value is None else f"{value:.2f}" for value in figures), limit)
    if report.as_read is not None:
        shown.add_section()
    for horizon_s, read in (report.as_read or {}).items():
        if read["n"]:
            low, high = read["skill_ci"]
            shown.add_row(
                f"skill as read at {horizon_s} s, of {read['n']}",
                f"{read['skill']:+.3f}",
                *("", "", f"{low:+.3f} to {high:+.3f}"),
            )
    shown.add_section()
    shown.add_row("seconds answered by the model", f"{report.fresh_share:.2%}", "", "", f"≥ {FRESH_MIN:.0%}")
    shown.add_row("ticks sent / trades lost", f"{report.ticks_in}", f"{report.ticks_lost}", "", "0 lost")
    shown.add_row("predictions / fallbacks", f"{report.predictions}", f"{report.fallbacks}")
    for name, seconds in (report.symbols or {}).items():
        shown.add_row(f"symbols, {name}", ", ".join(f"{symbol} {s}" for symbol, s in seconds.items()) or "-")
    shown.add_row("model", report.model_id or "none")
    shown.caption = "\n".join(report.failures)
    return shown


def _api_errors(replies: Iterable[Reply]) -> list[str]:
    return sorted({f"API: {r.symbol} returned {r.status}: {r.body}" for r in replies if r.status != 200})


def _percentiles(values: Sequence[float], low: int, high: int) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    below, above = np.percentile(values, [low, high])
    return round(float(below), 3), round(float(above), 3)


def _slowest(per_symbol: Sequence[Any], percent: int) -> float | None:
    return round(max(float(np.percentile(values, percent)) for values in per_symbol), 3)

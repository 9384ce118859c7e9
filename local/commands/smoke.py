"""The smoke test: a running system, measured for some seconds by an observer outside of it.

The window opens once every symbol has had a prediction by the model. All figures but `inference_ms` are the
observer's own: when it first saw each prediction, what the API answered each second, what the exchange says
it sent against what then stands in bronze. The test passes if predictions came every 1 to 2 s, inference
took less than 100 ms, no trade was lost, at least 99 % of the seconds were answered by a fresh prediction of
the model, and nothing else was wrong.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro
import numpy as np
from rich.table import Table

from local.commands.observer import Observer, Reply, Sight
from local.system import http_json
from local.system.processes import ProcessFailed
from local.system.progress import Progress
from local.system.system import System
from tickcast.adapters.lake.objects import list_objects

INTERVAL_MAX_S = 2.0
INFERENCE_MAX_MS = 100.0
FRESH_MIN = 0.99
_WARM_UP_S = 120
_SETTLE_S = 1.0  # for what the exchange has just sent to reach ingest
_ARCHIVE_IDLE_S = 15  # none of the missing came for so long: they will not
_PRICE_TOLERANCE = 1e-9  # relative: both sides are the same decimals, summed in floating point


class WarmUpFailed(RuntimeError):
    """The model's first predictions did not come; the message says what came instead."""


@dataclass
class Report:
    """The result, under the names of the JSON line. Percentiles are those of the slowest symbol."""

    feed: str
    seconds: int
    ticks_in: int = 0  # trades and quotes, since the start
    ticks_lost: int = 0  # trades that were sent and do not stand in bronze
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
    lateness_ms: int = 0  # not in the JSON line: what a bar waits for late ticks

    @property
    def failures(self) -> list[str]:
        """What keeps the test from passing."""
        failed = list(self.errors)
        if self.interval_s_p99 is None or self.interval_s_p99 > INTERVAL_MAX_S:
            failed.append(f"predictions should come every {INTERVAL_MAX_S:g} s at the latest")
        if self.inference_ms_p99 is None or self.inference_ms_p99 >= INFERENCE_MAX_MS:
            failed.append(f"inference should take less than {INFERENCE_MAX_MS:g} ms")
        if self.ticks_lost:
            failed.append(f"{self.ticks_lost} trades were lost")
        if self.fresh_share < FRESH_MIN:
            failed.append(f"{FRESH_MIN:.0%} of the seconds should be answered by the model")
        return failed

    @property
    def ok(self) -> bool:
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        del values["lateness_ms"]
        return {"ok": self.ok, **values}


def measure(system: System, seconds: int, progress: Progress) -> Report:
    """`observe`, then stop ingest and count what arrived: what it holds by then, it has to put first."""
    report = observe(system, seconds, progress)
    if system.exchange_url:
        sent = sent_so_far(system)
        try:
            system.stop_ingest()
        except ProcessFailed as failure:
            report.errors.append(str(failure).partition("\n")[0])
        with progress.step("what was sent against what stands in bronze"):
            report.ticks_in = sum(each["trades"] + each["quotes"] for each in sent.values())
            report.ticks_lost = trades_lost(system, sent)
    return report


def observe(system: System, seconds: int, progress: Progress) -> Report:
    """Watch `system` for `seconds` after warm-up; all figures but those of what was sent and lost.

    Raises `WarmUpFailed`, or `PartFailed` when a part ends meanwhile.
    """
    with Observer(system) as observer:
        with progress.step("warm-up: the model's first predictions"):
            wait_for_model(system, observer)
        start_ms = time.time() * 1000
        with progress.step(f"measuring for {seconds} s"):
            _wait(system, observer, seconds)
        end_ms = time.time() * 1000
    report = Report(system.options.feed, seconds, errors=list(observer.errors))
    sights = [sight for sight in observer.sights if start_ms <= sight.seen_ms <= end_ms]
    replies = [reply for reply in observer.replies if start_ms <= reply.asked_ms <= end_ms]
    fill_in(report, system.symbols, sights, replies, start_ms, end_ms)
    function = system.outputs["PredictStreamFunction"]
    report.lateness_ms = int(system.cloud.function_environment(function)["LATENESS_MS"])
    report.errors += gate_errors(system)
    if system.exchange_url and system.options.feed == "replay":
        served = [reply.body for reply in replies if reply.status == 200]
        seen = [sight.prediction for sight in sights]
        report.errors += price_errors(system.exchange_url, [*served, *seen])
    return report


def wait_for_model(system: System, observer: Observer) -> None:
    """Wait until the observer has seen a prediction of the model for every symbol. Raises `WarmUpFailed`."""
    deadline = time.monotonic() + _WARM_UP_S
    while True:
        newest = {sight.prediction["symbol"]: sight.prediction for sight in list(observer.sights)}
        if all(s in newest and newest[s]["source"] == "model" for s in system.symbols):
            return
        if time.monotonic() > deadline or observer.errors:
            told = [
                f"{s}: {newest[s]['reason'] if s in newest else 'no prediction at all'}"
                for s in system.symbols
            ]
            raise WarmUpFailed("; ".join([f"no prediction of the model within {_WARM_UP_S} s", *told]))
        _wait(system, observer, 0.2)


def fill_in(
    report: Report,
    symbols: Sequence[str],
    sights: Iterable[Sight],
    replies: Iterable[Reply],
    start_ms: float,
    end_ms: float,
) -> None:
    """Work out the figures of the window from what was seen in it."""
    sights, replies = list(sights), list(replies)
    predictions = [sight.prediction for sight in sights]
    report.predictions = len(predictions)
    report.fallbacks = sum(p["source"] == "fallback" for p in predictions)
    models = [p["model_id"] for p in predictions if p["model_id"]]
    report.model_id = models[-1] if models else None

    # The edges of the window count as sights, so that predictions that stop coming show as one long interval.
    per_symbol = [
        np.diff([start_ms, *(s.seen_ms for s in sights if s.prediction["symbol"] == symbol), end_ms]) / 1000
        for symbol in symbols
    ]
    report.interval_s_p50 = _slowest(per_symbol, 50)
    report.interval_s_p99 = _slowest(per_symbol, 99)
    inference = [p["inference_ms"] for p in predictions if p["inference_ms"] is not None]
    report.inference_ms_p50, report.inference_ms_p99 = _percentiles(inference)
    delays = [sight.seen_ms - sight.prediction["timestamp"] for sight in sights]
    report.event_to_prediction_ms_p50, report.event_to_prediction_ms_p99 = _percentiles(delays)
    report.api_ms_p50, report.api_ms_p99 = _percentiles([reply.took_ms for reply in replies])
    fresh = [reply.status == 200 and reply.body["source"] == "model" for reply in replies]
    report.fresh_share = round(sum(fresh) / len(fresh), 4) if fresh else 0.0
    report.errors += sorted(
        {f"API: {r.symbol} answered {r.status}: {r.body}" for r in replies if r.status != 200}
    )


def gate_errors(system: System) -> list[str]:
    """What is wrong at the gate: it should refuse who has no key, and say that the system is well."""
    errors = []
    without_key = http_json.get(f"{system.api_url}predictions/{system.symbols[0]}")
    if without_key.status != 403:
        errors.append(f"API: without a key the answer was {without_key.status}, not 403")
    health = http_json.get(f"{system.api_url}health")
    if health.status != 200:
        errors.append(f"API: /health answered {health.status}: {health.body}")
    return errors


def price_errors(exchange_url: str, predictions: Iterable[dict[str, Any]]) -> list[str]:
    """Basis prices that differ from the middle of the quote the recording has for that instant."""
    errors = []
    served = {(p["symbol"], p["timestamp"]): p["basis_price"] for p in predictions}
    for (symbol, time_ms), price in sorted(served.items()):
        answer = http_json.get(f"{exchange_url}/local/quote?symbol={symbol}&time_ms={time_ms}")
        quote = answer.body["quote"] if answer.status == 200 else None
        if quote is None:
            errors.append(f"{symbol} at {time_ms}: the recording has no quote: {answer.body}")
            continue
        recorded = (float(quote["bid_price"]) + float(quote["ask_price"])) / 2
        if abs(price - recorded) > recorded * _PRICE_TOLERANCE:
            errors.append(f"{symbol} at {time_ms}: basis price {price}, but {recorded} in the recording")
    return errors


def sent_so_far(system: System) -> dict[str, dict[str, Any]]:
    """The exchange's count of what it sent, by symbol; ingest has had the time to receive it since."""
    symbols: dict[str, dict[str, Any]] = http_json.get(f"{system.exchange_url}/local/sent").body["symbols"]
    time.sleep(_SETTLE_S)
    return symbols


def trades_lost(system: System, sent: dict[str, dict[str, Any]]) -> int:
    """How many of the trades `sent` do not stand in bronze once no more of them come."""
    files: set[str] = set()
    missing = {
        symbol: set(range(each["first_id"], each["last_id"] + 1))
        for symbol, each in sent.items()
        if each["trades"]
    }
    # A replay may have holes in its ids: the exchange's own count says how many there really were.
    holes: int = sum(len(missing[symbol]) - sent[symbol]["trades"] for symbol in missing)
    left, since_s = sum(len(ids) for ids in missing.values()), time.monotonic()
    while left > holes and time.monotonic() - since_s < _ARCHIVE_IDLE_S:
        for symbol, ids in missing.items():
            fresh = bronze_files(system, symbol) - files
            files |= fresh
            for key in fresh:
                ids -= trade_ids(system, key)
        if (still := sum(len(ids) for ids in missing.values())) < left:
            left, since_s = still, time.monotonic()
        time.sleep(0.5)
    return left - holes


def bronze_files(system: System, symbol: str) -> set[str]:
    """The keys of what was archived of `symbol` from the feed."""
    prefix = f"bronze/source={system.options.source}/symbol={symbol}/"
    found = list_objects(system.cloud.client("s3"), system.outputs["BucketName"], prefix)
    return {stored.key for stored in found}


def trade_ids(system: System, key: str) -> set[int]:
    """The ids of the trades in one Avro file."""
    body = system.cloud.client("s3").get_object(Bucket=system.outputs["BucketName"], Key=key)["Body"].read()
    ids: set[int] = set()
    for record in fastavro.reader(io.BytesIO(body)):
        assert isinstance(record, dict)
        if record["kind"] == "trade":
            ids.update(range(record["first_trade_id"], record["last_trade_id"] + 1))
    return ids


def table(report: Report) -> Table:
    """The report for people."""
    shown = Table(title=f"{report.feed}, {report.seconds} s: {'passed' if report.ok else 'FAILED'}")
    for title in ("figure", "p50", "p99", "limit"):
        shown.add_column(title, justify="left" if title == "figure" else "right")
    rows = (
        ("interval_s", "seconds between predictions", f"≤ {INTERVAL_MAX_S:g} s"),
        ("inference_ms", "inference, ms", f"< {INFERENCE_MAX_MS:g} ms"),
        ("event_to_prediction_ms", f"bar closed to first sight, ms (lateness {report.lateness_ms})", ""),
        ("api_ms", "API answer, ms", ""),
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


def _wait(system: System, observer: Observer, seconds: float) -> None:
    """Let time pass while all parts run and the observer sees."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not observer.errors:
        system.check()
        time.sleep(0.1)

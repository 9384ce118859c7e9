"""`make smoke`: start a temporary system and measure it by an observer outside of it.

The measurement begins once every symbol has had a prediction by the model. All figures but `inference_ms` are
the observer's own: when it first saw each prediction, how the API responded each second, which of the trades
that the exchange sent are in bronze. The test passes if predictions came every 1 to 2 s, inference took less
than 100 ms, no trade was lost, a fresh prediction of the model was served in at least 99 % of the seconds,
and there was no other error.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from local.commands.command import (
    Command,
    ExitStatus,
    add_system_arguments,
    number_of,
    passed,
    print_last_line,
    system_options,
)
from local.commands.observer import Observer
from local.commands.smoke_report import Report, fill_in, table
from local.system import http_json, progress
from local.system.archived_trades import sent_so_far, trades_lost
from local.system.options import OptionsError
from local.system.processes import ProcessFailed
from local.system.progress import Progress
from local.system.system import System, temporary_system

MAX_SECONDS = 86_400
_WARM_UP_S = 120
_PRICE_TOLERANCE = 1e-9  # relative: both sides are the same decimals, summed in floating point


class WarmUpFailed(RuntimeError):
    """The model's first predictions did not come; the message says what came instead."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_system_arguments(parser)
    parser.add_argument("--seconds", type=number_of("SECONDS"), default=60, help="to measure, after warm-up")


def run(given: argparse.Namespace) -> ExitStatus:
    """Measure a temporary system; the last line is the report."""
    options, seconds = system_options(given), given.seconds
    if not 1 <= seconds <= MAX_SECONDS:
        raise OptionsError(f"SECONDS is {seconds}; it should be a whole number from 1 to {MAX_SECONDS}")
    steps = progress.to_stderr()
    steps.say(f"[bold]tickcast smoke test[/bold]: {seconds} s, feed: {options.label}")
    with temporary_system("smoke", options, steps) as system:
        report = measure(system, seconds, steps)
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


def measure(system: System, seconds: int, progress: Progress) -> Report:
    """`observe`, then stop ingest, which puts what it holds, and count the trades that arrived."""
    report = observe(system, seconds, progress)
    if system.exchange_url:
        sent = sent_so_far(system)
        try:
            system.stop_ingest()
        except ProcessFailed as failure:
            report.errors.append(str(failure).partition("\n")[0])
        with progress.step("comparing sent trades with bronze"):
            report.ticks_in = sum(each["trades"] + each["quotes"] for each in sent.values())
            report.ticks_lost = trades_lost(system, sent)
    return report


def observe(system: System, seconds: int, progress: Progress) -> Report:
    """Watch `system` for `seconds` after warm-up; all figures but those of ticks sent and lost.

    Raises `WarmUpFailed`, or `ProcessFailed` when a process ends meanwhile.
    """
    with Observer(system) as observer:
        with progress.step("warm-up: the model's first predictions"):
            wait_for_model(system, observer)
        start_ms = time.time() * 1000
        with progress.step(f"measuring for {seconds} s"):
            _wait(system, observer, seconds)
        end_ms = time.time() * 1000
    report = Report(system.options.feed, seconds, errors=list(observer.errors))
    sightings = [seen for seen in observer.sightings if start_ms <= seen.seen_ms <= end_ms]
    replies = [reply for reply in observer.replies if start_ms <= reply.asked_ms <= end_ms]
    fill_in(report, system.symbols, sightings, replies, start_ms, end_ms)
    function = system.outputs["PredictStreamFunction"]
    report.lateness_ms = int(system.cloud.function_environment(function)["LATENESS_MS"])
    report.errors += access_errors(system)
    if system.exchange_url and system.options.feed == "replay":
        served = [reply.body for reply in replies if reply.status == 200]
        seen = [sighting.prediction for sighting in sightings]
        report.errors += price_errors(system.exchange_url, [*served, *seen])
    return report


def wait_for_model(system: System, observer: Observer) -> None:
    """Wait until the observer has seen a prediction of the model for every symbol. Raises `WarmUpFailed`."""
    deadline = time.monotonic() + _WARM_UP_S
    while True:
        newest = {seen.prediction["symbol"]: seen.prediction for seen in list(observer.sightings)}
        if all(s in newest and newest[s]["source"] == "model" for s in system.symbols):
            return
        if time.monotonic() > deadline or observer.errors:
            reasons = [
                f"{s}: {newest[s]['reason'] if s in newest else 'no prediction at all'}"
                for s in system.symbols
            ]
            raise WarmUpFailed("; ".join([f"no prediction of the model within {_WARM_UP_S} s", *reasons]))
        _wait(system, observer, 0.2)


def access_errors(system: System) -> list[str]:
    """Errors of access: the API has to refuse a caller without a key, and `/health` has to be ok."""
    errors = []
    without_key = http_json.get(f"{system.api_url}predictions/{system.symbols[0]}")
    if without_key.status != 403:
        errors.append(f"API: a request without a key returned {without_key.status}, not 403")
    health = http_json.get(f"{system.api_url}health")
    if health.status != 200:
        errors.append(f"API: /health returned {health.status}: {health.body}")
    return errors


def price_errors(exchange_url: str, predictions: Iterable[dict[str, Any]]) -> list[str]:
    """Basis prices that differ from the mid of the recording's quote at that instant."""
    errors = []
    served = {(p["symbol"], p["timestamp"]): p["basis_price"] for p in predictions}
    for (symbol, time_ms), price in sorted(served.items()):
        answer = http_json.get(f"{exchange_url}/local/quote?symbol={symbol}&time_ms={time_ms}")
        quote = answer.body["quote"] if answer.status == 200 else None
        if quote is None:
            errors.append(f"{symbol} at {time_ms}: no quote in the recording: {answer.body}")
            continue
        recorded = (float(quote["bid_price"]) + float(quote["ask_price"])) / 2
        if abs(price - recorded) > recorded * _PRICE_TOLERANCE:
            errors.append(f"{symbol} at {time_ms}: basis price {price}, but mid {recorded} in the recording")
    return errors


def _wait(system: System, observer: Observer, seconds: float) -> None:
    """Wait while all processes run and the observer has no error."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not observer.errors:
        system.check()
        time.sleep(0.1)

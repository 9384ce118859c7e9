"""What commands share: how one is declared, its exit status, its last line, and its arguments, which messages
name as `make` does."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from local.exchange.recording import inspect
from local.exchange.reference import refuse_useless
from local.exchange.simulator import LISTED
from local.system.options import Options, OptionsError
from tickcast.adapters import json_text
from tickcast.adapters.variables import Secret, SettingsError, Symbols, value


class ExitStatus(IntEnum):
    OK = 0  # also when `run` is stopped by a signal
    FAILED = 1  # the work failed, a test did not pass, or nothing runs that the command could work on
    USAGE = 2  # the arguments, or the files they name, cannot be used
    INCONCLUSIVE = 3  # of `explain`: bronze does not hold enough to compare
    INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """One whose errors are a line, as all others are: who calls `make` has not typed the arguments that a
    usage would list."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitStatus.USAGE, f"tickcast: {re.sub(r'^argument --[a-z-]+: ', '', message)}\n")


class Command(NamedTuple):
    """One command of `python -m local`."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], ExitStatus]


def passed(ok: bool) -> ExitStatus:
    return ExitStatus.OK if ok else ExitStatus.FAILED


def print_last_line(report: Any) -> None:
    """Print a command's result, JSON's own types, as the last line on stdout."""
    print(json_text.text(report), flush=True)


def number_of(name: str, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """A `type` for argparse whose error names the argument as `make` does."""

    def read(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            what = "a whole number, like 1000" if kind is int else "a number, like 1000 or 0.5"
            raise argparse.ArgumentTypeError(f"{name} is {text!r}; it should be {what}") from None

    return read


def symbols(text: str) -> tuple[str, ...]:
    """The symbols in `text`, none if it is empty. Raises `OptionsError`."""
    return symbols_of("SYMBOLS", text)


def symbols_of(name: str, text: str) -> tuple[str, ...]:
    """The same of the argument `name`."""
    return tuple(_checked(name, text, Symbols)) if text else ()


def secret_variable(name: str) -> str:
    """The secret in the environment variable `name`, empty if unset. Raises `OptionsError`."""
    return str(_checked(name, os.environ.get(name, ""), Secret))


def _checked(name: str, text: str, kind: Any) -> Any:
    try:
        return value(name, text, kind)
    except SettingsError as error:
        raise OptionsError(str(error)) from None


def add_system_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `system_options` reads."""
    parser.add_argument("--feed", default="sim", help="sim (default), replay or live")
    parser.add_argument("--symbols", default="", help="like BTCUSDT,ETHUSDT, sim: or how many; default: all")
    parser.add_argument(
        "--replay", nargs="+", type=Path, default=[], metavar="FILE", help="recordings to replay"
    )
    parser.add_argument(
        "--train", nargs="+", type=Path, default=[], metavar="FILE", help="recordings to train on"
    )
    add_reference(parser)
    parser.add_argument("--speed", type=number_of("SPEED", float), default=1.0, help="of a replay (1)")
    parser.add_argument("--signals", type=Path, metavar="FILE", help="rules and destinations of signals")
    parser.add_argument("--destinations", type=Path, metavar="FILE", help="receivers of the destinations")
    offset_ms = number_of("the clock offset")
    parser.add_argument("--clock-offset-ms", type=offset_ms, default=0, help="of the exchange's clock (0)")


def _markets(feed: str, text: str) -> tuple[str, ...]:
    """The symbols in `text`; of a simulated market it may be how many."""
    if feed != "sim" or not text.strip().isdecimal():
        return symbols(text)
    count = int(text)
    if not 1 <= count <= len(LISTED):
        raise OptionsError(f"SYMBOLS is {count}; as a number it should be from 1 to {len(LISTED)}")
    return LISTED[:count]


def add_reference(parser: argparse.ArgumentParser) -> None:
    help_ = "recordings of the USD-M perpetuals, of the minutes of the others"
    parser.add_argument("--reference", nargs="+", type=Path, default=[], metavar="FILE", help=help_)


def system_options(given: argparse.Namespace) -> Options:
    """Raises `OptionsError`, `RecordingError`, `UnusableReference`."""
    options = Options(
        given.feed,
        _markets(given.feed, given.symbols),
        tuple(given.replay),
        tuple(given.train),
        tuple(given.reference),
        given.speed,
        clock_offset_ms=given.clock_offset_ms,
        live_key=secret_variable("BINANCE_API_KEY"),
        signals=given.signals,
        destinations=given.destinations,
    )
    if options.reference:
        markets = [inspect(path) for path in (*options.replay, *options.train)]
        refuse_useless([inspect(path) for path in options.reference], markets)
    return options

"""Arguments that several commands share, named in messages as `make` names them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from local.system.options import Options, OptionsError
from tickcast.adapters.variables import Secret, SettingsError, Symbols, value


def number_of(name: str, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """A `type` for argparse whose error names the argument as `make` does."""

    def read(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{name} is {text!r}; it should be {what}") from None

    return read


def symbols(text: str) -> tuple[str, ...]:
    """The symbols in `text`, none if it is empty. Raises `OptionsError`."""
    try:
        return tuple(value("SYMBOLS", text, Symbols)) if text else ()
    except SettingsError as error:
        raise OptionsError(str(error)) from None


def secret_variable(name: str) -> str:
    """The secret in the environment variable `name`, empty if unset. Raises `OptionsError`."""
    try:
        return str(value(name, os.environ.get(name, ""), Secret))
    except SettingsError as error:
        raise OptionsError(str(error)) from None


def add_system_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `system_options` reads."""
    parser.add_argument("--feed", default="sim", help="sim (default), replay or live")
    parser.add_argument("--symbols", default="", help="like BTCUSDT,ETHUSDT; default: all of the feed")
    parser.add_argument(
        "--replay", nargs="+", type=Path, default=[], metavar="FILE", help="recordings to replay"
    )
    parser.add_argument(
        "--train", nargs="+", type=Path, default=[], metavar="FILE", help="recordings to train on"
    )
    parser.add_argument("--speed", type=number_of("SPEED", float), default=1.0, help="of a replay (1)")


def system_options(given: argparse.Namespace) -> Options:
    """Raises `OptionsError`."""
    return Options(
        given.feed,
        symbols(given.symbols),
        tuple(given.replay),
        tuple(given.train),
        given.speed,
        live_key=secret_variable("BINANCE_API_KEY"),
    )

"""What a run is asked to be, checked before anything is started."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tickcast.adapters.variables import Secret, SettingsError, Symbols, value

FEEDS = ("sim", "replay", "live")
HISTORY_S = 1800  # of the simulated past: what the exchange's REST gives, and a first model learns from
MAX_HISTORY_S = 7 * 86_400  # to simulate a day takes a minute and a half
MAX_SPEED = 1000
LIVE_SYMBOLS = ("BTCUSDT", "ETHUSDT")


class OptionsError(ValueError):
    """Options that do not fit together; the message says what to do."""


@dataclass(frozen=True)
class Options:
    """`symbols` is empty for all the feed has. Without `train` the first model learns from the simulator."""

    feed: str = "sim"
    symbols: tuple[str, ...] = ()
    replay: tuple[Path, ...] = ()
    train: tuple[Path, ...] = ()
    speed: float = 1.0
    seed: int = 7
    history_s: int = HISTORY_S
    live_key: str = field(default="", repr=False)  # of the binary stream; the public mirror wants none

    def __post_init__(self) -> None:
        """Raises `OptionsError`."""
        if self.feed not in FEEDS:
            raise OptionsError(f"FEED is {self.feed!r}; it should be one of {', '.join(FEEDS)}")
        if self.feed == "replay" and not self.replay:
            raise OptionsError('FEED=replay needs recordings: REPLAY="a.gz b.gz"')
        if not math.isfinite(self.speed) or self.speed <= 0 or self.speed > MAX_SPEED:
            raise OptionsError(f"SPEED is {self.speed:g}; it should be above 0 and at most {MAX_SPEED:g}")
        if self.feed != "replay" and (self.replay or self.speed != 1):
            raise OptionsError("REPLAY and SPEED are for FEED=replay")
        if not HISTORY_S <= self.history_s <= MAX_HISTORY_S:
            days = MAX_HISTORY_S // 86_400
            raise OptionsError(f"the simulated market is at most {days} days old: ask for less, or FEED=live")
        for path in (*self.replay, *self.train):
            if not path.is_file():
                raise OptionsError(f"there is no recording {path}")
        shared = {path.resolve() for path in self.replay} & {path.resolve() for path in self.train}
        if shared:
            names = ", ".join(sorted(path.name for path in shared))
            raise OptionsError(
                f"{names}: a model is never trained on what it will be shown; leave it out of TRAIN"
            )

    @property
    def source(self) -> str:
        """What the ticks' `source` says in bronze."""
        return self.protocol if self.feed == "live" else self.feed

    @property
    def protocol(self) -> str:
        """What ingest speaks: the live feed without a key is the public mirror's JSON."""
        return "json" if self.feed == "live" and not self.live_key else "sbe"

    @property
    def label(self) -> str:
        """The feed as people should read it."""
        names = " ".join(path.name for path in self.replay)
        pace = f", {self.speed:g} times as fast" if self.speed != 1 else ""
        return {
            "sim": "SIMULATED market",
            "replay": f"REPLAY of {names}{pace}, times moved to now",
            "live": f"live from Binance ({'SBE' if self.live_key else 'public mirror, no key'})",
        }[self.feed]


def number_of(name: str, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """How argparse reads a number: what is none is an error that names it as `make` does."""

    def read(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{name} is {text!r}; it should be {what}") from None

    return read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `from_arguments` reads."""
    parser.add_argument("--feed", default="sim", help="sim (default), replay or live")
    parser.add_argument("--symbols", default="", help="like BTCUSDT,ETHUSDT; default: all the feed has")
    parser.add_argument("--replay", nargs="+", type=Path, default=[], metavar="FILE", help="to be replayed")
    parser.add_argument(
        "--train", nargs="+", type=Path, default=[], metavar="FILE", help="to train the first model on"
    )
    parser.add_argument("--speed", type=number_of("SPEED", float), default=1.0, help="of a replay")


def from_arguments(given: argparse.Namespace) -> Options:
    """Raises `OptionsError`."""
    try:
        symbols = value("SYMBOLS", given.symbols, Symbols) if given.symbols else ()
        live_key = value("BINANCE_API_KEY", os.environ.get("BINANCE_API_KEY", ""), Secret)
    except SettingsError as error:
        raise OptionsError(str(error)) from None
    return Options(
        given.feed,
        symbols,
        tuple(given.replay),
        tuple(given.train),
        given.speed,
        live_key=live_key,
    )

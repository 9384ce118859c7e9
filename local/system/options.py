"""The options of a local system, checked before anything is started."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

FEEDS = ("sim", "replay", "live")
EMULATORS = ("ministack", "localstack")  # of AWS; see local.system.emulator
HISTORY_S = 1800  # simulated: served by the exchange's REST API, and a first model's training data
MAX_HISTORY_S = 7 * 86_400  # simulating a day takes a minute and a half
MAX_SPEED = 1000
MAX_CLOCK_OFFSET_MS = 4_000  # ticks that seem to be 5 s ahead are refused
LIVE_SYMBOLS = SIM_SYMBOLS = ("BTCUSDT", "ETHUSDT")  # without others


class OptionsError(ValueError):
    """Options that cannot be used, or not together; the message says what to do."""


def emulator_requested() -> str:
    """The emulator that the variable EMULATOR names, by default the first."""
    return os.environ.get("EMULATOR") or EMULATORS[0]


@dataclass(frozen=True)
class Options:
    """No `symbols`: all that the feed has. No `train`: the first model is trained on simulated history.

    `reference` has the perpetuals of the minutes of `replay` and `train` together. `signals` are the rules in
    that file instead of the configuration's, `destinations` their receivers."""

    feed: str = "sim"
    symbols: tuple[str, ...] = ()
    replay: tuple[Path, ...] = ()
    train: tuple[Path, ...] = ()
    reference: tuple[Path, ...] = ()
    speed: float = 1.0
    seed: int = 7
    history_s: int = HISTORY_S
    clock_offset_ms: int = 0  # the exchange's clock less this machine's
    live_key: str = field(default="", repr=False)  # of the binary stream; the public mirror needs none
    emulator: str = field(default_factory=emulator_requested)
    signals: Path | None = None
    destinations: Path | None = None

    def __post_init__(self) -> None:
        """Raises `OptionsError`."""
        _check_choice("FEED", self.feed, FEEDS)
        _check_choice("EMULATOR", self.emulator, EMULATORS)
        if self.feed == "replay" and not self.replay:
            raise OptionsError('FEED=replay needs recordings: REPLAY="a.gz b.gz"')
        if not math.isfinite(self.speed) or self.speed <= 0 or self.speed > MAX_SPEED:
            raise OptionsError(f"SPEED is {self.speed:g}; it should be above 0 and at most {MAX_SPEED:g}")
        if self.feed != "replay" and (self.replay or self.speed != 1):
            raise OptionsError("REPLAY and SPEED are for FEED=replay")
        if abs(self.clock_offset_ms) > MAX_CLOCK_OFFSET_MS or (self.clock_offset_ms and self.feed == "live"):
            raise OptionsError(
                f"the clock offset is {self.clock_offset_ms} ms; it should be at most {MAX_CLOCK_OFFSET_MS}, "
                "and 0 with FEED=live"
            )
        if not HISTORY_S <= self.history_s <= MAX_HISTORY_S:
            days = MAX_HISTORY_S // 86_400
            raise OptionsError(f"simulated history goes back at most {days} days: use fewer, or FEED=live")
        if self.reference and not (self.replay or self.train):
            raise OptionsError("REFERENCE is for recordings: FEED=replay with REPLAY, or TRAIN")
        self._check_files()
        shared = {path.resolve() for path in self.replay} & {path.resolve() for path in self.train}
        if shared:
            names = ", ".join(sorted(path.name for path in shared))
            raise OptionsError(
                f"{names}: a model is never trained on the recording it is replayed on; remove it from TRAIN"
            )

    def _check_files(self) -> None:
        for path in (*self.replay, *self.train, *self.reference):
            if not path.is_file():
                raise OptionsError(f"no recording {path}")
        for name, each in (("SIGNALS", self.signals), ("DESTINATIONS", self.destinations)):
            if each and not each.is_file():
                raise OptionsError(f"{name}: there is no file {each}")

    @property
    def source(self) -> str:
        """The `source` of the ticks in bronze."""
        return self.protocol if self.feed == "live" else self.feed

    @property
    def protocol(self) -> str:
        """The protocol of ingest: the live feed without a key is the public mirror's JSON."""
        return "json" if self.feed == "live" and not self.live_key else "sbe"

    @property
    def label(self) -> str:
        """The feed, for people."""
        names = " ".join(path.name for path in self.replay)
        pace = f" at {self.speed:g}x" if self.speed != 1 else ""
        return {
            "sim": "SIMULATED market",
            "replay": f"REPLAY of {names}{pace}, timestamps shifted to now",
            "live": f"live from Binance ({'SBE' if self.live_key else 'public mirror, no key'})",
        }[self.feed]


def _check_choice(name: str, chosen: str, known: tuple[str, ...]) -> None:
    if chosen not in known:
        raise OptionsError(f"{name} is {chosen!r}; it should be one of {', '.join(known)}")

"""An observer outside of the components: the predictions and responses of a running system, and their times.

One thread watches the newest prediction of each symbol in the hot store and notes when it first sees it;
another asks the API about every symbol once a second; a third reads it at random moments, as users do.
All times are ms since the epoch on the exchange's clock.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from types import TracebackType
from typing import Any

import redis

from local.system.system import System
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis import keys

_LOOK_EVERY_S = 0.005
_ASK_EVERY_S = 1.0
_READS_PER_S = 5.0
# What is kept of each prediction: a path ten times a second would fill the memory.
_SEEN = ("id", "symbol", "timestamp", "basis_price", "source", "reason", "model_id", "inference_ms")
_READ = ("symbol", "timestamp", "as_of", "basis_price", "source", "horizons")


@dataclass(frozen=True)
class Sighting:
    """A prediction and when it was first seen."""

    seen_ms: float
    prediction: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """A response of the API, when it was requested and how long it took (ms)."""

    asked_ms: float
    took_ms: float
    symbol: str
    status: int
    body: Any

    @property
    def age_ms(self) -> float:
        """How old the prediction was when it was there to be read; of status 200 only."""
        return self.asked_ms + self.took_ms - float(self.body["timestamp"])


class Observer:
    """Watches `symbols` of `system`, by default all, while entered. `sightings`, `replies` of the API once a
    second and `readings` at random moments grow meanwhile; `errors` end a thread."""

    def __init__(self, system: System, symbols: Sequence[str] = ()) -> None:
        self.sightings: list[Sighting] = []
        self.replies: list[Reply] = []
        self.readings: list[Reply] = []
        self.errors: list[str] = []
        self._system = system
        self._symbols = symbols or system.symbols
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=[work], name=work.__name__, daemon=True)
            for work in (self._watch_predictions, self._ask_api, self._read_at_random)
        ]

    def __enter__(self) -> Observer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def now_ms(self) -> float:
        """The exchange's clock, as far as its offset from this machine's is an option of the system."""
        return time.time() * 1000 + self._system.options.clock_offset_ms

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, ValueError, KeyError, redis.RedisError) as error:
            self.errors.append(f"observer: {work.__name__.strip('_')}: {describe(error)}")

    def _watch_predictions(self) -> None:
        names = [keys.latest_prediction(symbol) for symbol in self._symbols]
        with self._system.redis() as store:
            # What was there before was written at an unknown time: it is no sighting.
            newest: list[bytes | None] = store.mget(names)
            ids = [value and json.loads(value)["id"] for value in newest]
            while not self._stop.wait(_LOOK_EVERY_S):
                found: list[bytes | None] = store.mget(names)
                seen_ms = self.now_ms()
                for place, (old, new) in enumerate(zip(newest, found, strict=True)):
                    if new is None or new == old:
                        continue
                    prediction = _some(json.loads(new), _SEEN)
                    if prediction["id"] != ids[place]:  # else written once more, by a repeated invocation
                        ids[place] = prediction["id"]
                        self.sightings.append(Sighting(seen_ms, prediction))
                newest = found

    def _ask_api(self) -> None:
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s += _ASK_EVERY_S
            for symbol in self._symbols:
                self.replies.append(self._ask(symbol))

    def _read_at_random(self) -> None:
        """Moments at memoryless intervals, so that they cannot fall into step with the predictions."""
        moments, due_s = random.Random(), time.monotonic()
        for symbol in cycle(self._symbols):
            due_s += moments.expovariate(_READS_PER_S)
            if self._stop.wait(max(0.0, due_s - time.monotonic())):
                return
            self.readings.append(self._ask(symbol))

    def _ask(self, symbol: str) -> Reply:
        asked_ms, started_s = self.now_ms(), time.perf_counter()
        answer = self._system.api.get(f"predictions/{symbol}")
        took_ms = (time.perf_counter() - started_s) * 1000
        body = _some(answer.body, _READ) if answer.status == 200 else answer.body
        return Reply(asked_ms, took_ms, symbol, answer.status, body)


def _some(record: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The named members of `record`, which has all of them. Raises KeyError."""
    return {name: record[name] for name in names}

"""An observer outside of the components: the predictions and responses of a running system, and their times.

One thread looks at the newest answers in the hot store and notes when it first sees each; another asks the
API about every symbol once a second; a third reads predictions as a user does, at random moments.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import redis

from local.system.system import System
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis import keys

_LOOK_EVERY_S = 0.005  # answers follow each other by 100 ms or more
_ASK_EVERY_S = 1.0
_READS_PER_S = 5.0  # of all symbols together


@dataclass(frozen=True)
class Sighting:
    """A prediction and when it was first seen (ms since the epoch)."""

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
    def received_ms(self) -> float:
        return self.asked_ms + self.took_ms


class Observer:
    """Watches `system` while entered. `sightings`, `replies` (once a second) and `reads` (at random
    moments) grow meanwhile; `errors` end a thread."""

    def __init__(self, system: System) -> None:
        self.sightings: list[Sighting] = []
        self.replies: list[Reply] = []
        self.reads: list[Reply] = []
        self.errors: list[str] = []
        self._system = system
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=[work], name=work.__name__, daemon=True)
            for work in (self._watch_answers, self._ask_api, self._read_at_random)
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

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, ValueError, redis.RedisError) as error:
            self.errors.append(f"observer: {work.__name__.strip('_')}: {describe(error)}")

    def _watch_answers(self) -> None:
        names = [keys.latest_prediction(symbol) for symbol in self._system.symbols]
        with self._system.redis() as store:
            last: Any = store.mget(names)  # made before the observer came
            while not self._stop.wait(_LOOK_EVERY_S):
                found: Any = store.mget(names)
                seen_ms = time.time() * 1000
                for before, answer in zip(last, found, strict=True):
                    if answer is not None and answer != before:
                        self.sightings.append(Sighting(seen_ms, json.loads(answer)))
                last = found

    def _ask_api(self) -> None:
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s += _ASK_EVERY_S
            self.replies += [self._asked(symbol) for symbol in self._system.symbols]

    def _read_at_random(self) -> None:
        rng = random.Random(1)
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            # Independent of the system's rhythm; a slow response does not shift the moments to come.
            due_s = max(due_s + rng.expovariate(_READS_PER_S), time.monotonic() - 1)
            self.reads.append(self._asked(rng.choice(self._system.symbols)))

    def _asked(self, symbol: str) -> Reply:
        asked_ms, started_s = time.time() * 1000, time.perf_counter()
        answer = self._system.api.get(f"predictions/{symbol}")
        took_ms = (time.perf_counter() - started_s) * 1000
        return Reply(asked_ms, took_ms, symbol, answer.status, answer.body)

"""An observer outside of the components: the predictions and responses of a running system, and their times.

One thread waits on the hot store's streams of predictions and notes when it first sees each; another asks the
API about every symbol once a second.
"""

from __future__ import annotations

import json
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

_BLOCK_MS = 100
_ASK_EVERY_S = 1.0


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


class Observer:
    """Watches `system` while entered. `sightings` and `replies` grow meanwhile; `errors` end a thread."""

    def __init__(self, system: System) -> None:
        self.sightings: list[Sighting] = []
        self.replies: list[Reply] = []
        self.errors: list[str] = []
        self._system = system
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=[work], name=work.__name__, daemon=True)
            for work in (self._read_predictions, self._ask_api)
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

    def _read_predictions(self) -> None:
        with self._system.redis() as store:
            newest: dict[Any, Any] = {keys.predictions(symbol): "$" for symbol in self._system.symbols}
            # `$` is "from now on" in each single call: an entry between two calls would be missed.
            for name in newest:
                last: Any = store.xrevrange(name, count=1)
                newest[name] = last[0][0] if last else "0"
            while not self._stop.is_set():
                found: Any = store.xread(newest, block=_BLOCK_MS)
                seen_ms = time.time() * 1000
                for name, entries in dict(found or {}).items():
                    for entry_id, fields in entries:
                        self.sightings.append(Sighting(seen_ms, json.loads(fields[b"json"])))
                        newest[name.decode()] = entry_id

    def _ask_api(self) -> None:
        api = self._system.api
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s += _ASK_EVERY_S
            for symbol in self._system.symbols:
                asked_ms, started_s = time.time() * 1000, time.perf_counter()
                answer = api.get(f"predictions/{symbol}")
                took_ms = (time.perf_counter() - started_s) * 1000
                self.replies.append(Reply(asked_ms, took_ms, symbol, answer.status, answer.body))

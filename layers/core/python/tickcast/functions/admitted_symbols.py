"""Which symbols `predict_stream` folds: the served ones, admitted and retired while it runs.

Ingest follows `symbols/current.json` too, and may be quicker: when a record comes of a symbol that is not
known, the newest set is read before the record is refused. Of a symbol that was served before, the last
records may still be under way: they are not refused but left out.

What is read is written to the hot store, for the functions that read nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters.redaction import describe
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.registry.polling import NEVER_MS, Polling, Start, in_background
from tickcast.adapters.registry.served_symbols import (
    SERVED,
    ServedSymbols,
    SymbolsError,
    SymbolsWatcher,
    hot_served,
    hot_text,
    read_served,
)

WRITE_EVERY_MS = 60_000
ASK_AGAIN_MS = 1000  # after which a symbol that was not served is looked up again
ASK_AFTER_FAILURE_MS = 10_000  # each attempt may take seconds


class AdmittedSymbols:
    """The symbols served by `bucket`, by default the `configured` ones. For one thread alone; `start` runs a
    poll, every `check_s` and when a record shows that there are others, by default in another."""

    def __init__(
        self,
        s3: Any,
        bucket: str,
        configured: tuple[str, ...],
        store: HotStore,
        clock_ms: Callable[[], float],
        start: Start = in_background,
        *,
        check_s: int,
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._store = store
        self._clock_ms = clock_ms
        self._watcher = SymbolsWatcher(s3, bucket, configured)
        self._polling = Polling(self._watcher.refresh, SERVED, clock_ms, start, 1000 * check_s)
        self._served = self._watcher.served
        self._known = frozenset(configured)  # a record is looked up in it, so no list
        self._asked: set[str] = set()  # served according to an answer, until the next poll decides
        self._retired: set[str] = set()
        self._leaving: set[str] = set()  # retired, but not yet forgotten by the hot store
        self._ask_from_ms: dict[str, float] = {}  # by symbol that was not served
        self._polled_ms = self._polling.read_ms  # the poll that `_known` is of
        self._written: ServedSymbols | None = None
        self._written_ms = NEVER_MS

    @property
    def symbols(self) -> tuple[str, ...]:
        return self._served.symbols

    def update(self) -> frozenset[str]:
        """Take over what was polled since. Returns the symbols that are no longer served."""
        polled_ms = self._polling.read_ms
        served, before = self._watcher.served, self._known
        if served is not self._served:
            self._served, self._known = served, frozenset(served.symbols)
        self._leaving = (self._leaving | before) - self._known
        if polled_ms != self._polled_ms:
            self._polled_ms = polled_ms
            if not self._watcher.problem:
                before |= self._asked  # one may have been removed before the poll
            self._asked.clear()
        self._retired = (self._retired | before) - self._known
        return before - self._known

    def admits(self, symbol: str) -> bool:
        """Whether `symbol` is served; one that is not known is looked up. Raises what Redis raises."""
        if symbol in self._known or symbol in self._asked:
            return True
        now_ms = self._clock_ms()
        if now_ms < self._ask_from_ms.get(symbol, now_ms):
            return False
        is_served, again_ms = self._ask(symbol)
        if is_served:
            self._asked.add(symbol)
            self._polling.hasten()
        else:
            self._ask_from_ms[symbol] = now_ms + again_ms
        return is_served

    def is_retired(self, symbol: str) -> bool:
        """Whether `symbol` was served before, and is no longer."""
        return symbol in self._retired

    def poll(self) -> list[str]:
        """Start a poll if it is due, and write what the newest one found to the hot store: to be called after
        the results were written. Returns what is wrong."""
        self._polling.poll_if_due()
        problems = [each for each in (self._watcher.problem, self._polling.problem()) if each]
        now_ms, served = self._clock_ms(), self._watcher.served
        # Only what was just read is written: where S3 does not answer, or the object was damaged before this
        # process began, others may know of a newer set.
        is_read = self._polling.read_ms > self._written_ms and not (
            self._watcher.problem and not served.version
        )
        try:
            if leaving := sorted(self._leaving - self._asked):
                self._store.forget_newest(leaving)
            self._leaving.clear()
            if is_read and (served != self._written or now_ms - self._written_ms >= WRITE_EVERY_MS):
                if not self._is_outdated(served):
                    self._store.put_text(keys.symbols(), hot_text(served))
                self._written, self._written_ms = served, now_ms
        except redis.RedisError as error:  # the event's results are written: it need not be tried again
            return [*problems, f"the symbols were not written: {describe(error)}"]
        return problems

    def _is_outdated(self, served: ServedSymbols) -> bool:
        """Whether the hot store has newer ones than `served`: another invocation, of another shard, may have
        read the object later. An object that was created again counts its versions from 1."""
        (text,) = self._store.values([keys.symbols()])
        known, before = hot_served(text), self._written
        if known is None or known.version <= served.version:
            return False
        return before is not None and before.version <= served.version

    def _ask(self, symbol: str) -> tuple[bool, int]:
        """Whether `symbol` is served: by a newer set that another invocation found, or else by the one in S3;
        and after how many ms to ask again."""
        (text,) = self._store.values([keys.symbols()])
        known = hot_served(text)
        if known and known.version > self._served.version and symbol in known.symbols:
            return True, 0
        try:
            served = read_served(self._s3, self._bucket)
        except (BotoCoreError, ClientError, SymbolsError, OSError):
            return False, ASK_AFTER_FAILURE_MS  # `poll` reports it
        return served is not None and symbol in served.symbols, ASK_AGAIN_MS

"""The symbols that are served, for functions that read the hot store.

`predict_stream`, which follows the object in S3 (`registry.served_symbols`), stores them under
`keys.symbols()`. Whoever reads the store takes them in with what it reads anyway, so that a change needs
neither a request of its own nor a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tickcast.adapters import json_text
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.registry.pointer import time_of
from tickcast.adapters.registry.served_symbols import served_from


class SymbolSet:
    """The symbols as read last; those `configured` until something was stored.

    What cannot be read changes nothing, nor does a store that has lost them: they are stored again within a
    minute.
    """

    def __init__(self, configured: Sequence[str]) -> None:
        self.symbols = tuple(configured)
        self._since: datetime | None = None

    def __contains__(self, symbol: str) -> bool:
        return symbol in self.symbols

    def take(self, data: bytes | None) -> bool:
        """Take in the value of `keys.symbols()`; returns whether the symbols are others now."""
        if data is None:
            return False
        try:
            served = served_from(json_text.read(data))
        except ValueError:
            return False
        before, self.symbols = self.symbols, served.symbols
        self._since = time_of(served.since) if served.since else None
        return self.symbols != before

    def read(self, store: HotStore) -> tuple[str, ...]:
        """Read them from `store`, and return them. Raises what Redis raises."""
        self.take(store.values([keys.symbols()])[0])
        return self.symbols

    def is_new(self, now_ms: float, within_ms: float) -> bool:
        """Whether they changed `within_ms` of `now_ms`: one that was added may have no data yet."""
        return self._since is not None and now_ms - self._since.timestamp() * 1000 < within_ms

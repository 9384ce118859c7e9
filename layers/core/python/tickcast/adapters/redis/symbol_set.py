"""The symbols that are served, for functions that read the hot store.

`predict_stream`, which follows the object in S3 (`registry.served_symbols`), stores them under
`keys.SYMBOLS`. Whoever reads the store takes them in with what it reads anyway, so that a change needs
neither a request of its own nor a restart.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore, readable
from tickcast.market.symbols import is_symbol
from tickcast.serving.records import TimeMs


class StoredSymbols(Struct, frozen=True, kw_only=True):
    """What is stored: the version of the object in S3 (0: there is none, the configuration decides), its
    symbols, and since when they are served."""

    version: int = 0
    symbols: list[str]
    since_ms: TimeMs | None = None


class SymbolSet:
    """The symbols as read last; those `configured` until something was stored.

    What cannot be read changes nothing, nor does a store that has lost them: they are stored again within a
    minute.
    """

    def __init__(self, configured: Sequence[str]) -> None:
        self.symbols = tuple(configured)
        self.since_ms: int | None = None

    def __contains__(self, symbol: str) -> bool:
        return symbol in self.symbols

    def take(self, data: bytes | None) -> bool:
        """Take in the value of `keys.SYMBOLS`; returns whether the symbols are others now."""
        stored = readable(StoredSymbols, data)
        if stored is None or not stored.symbols or not all(map(is_symbol, stored.symbols)):
            return False
        before, self.symbols = self.symbols, tuple(dict.fromkeys(stored.symbols))
        self.since_ms = stored.since_ms
        return self.symbols != before

    def read(self, store: HotStore) -> tuple[str, ...]:
        """Read them from `store`, and return them. Raises what Redis raises."""
        self.take(store.values([keys.SYMBOLS])[0])
        return self.symbols

    def is_new(self, now_ms: float, within_ms: float) -> bool:
        """Whether they changed `within_ms` of `now_ms`: one that was added may have no data yet."""
        return self.since_ms is not None and now_ms - self.since_ms < within_ms

"""Evidence of whether a silent stream is quiet or dead: data that the exchange's REST has and the stream did
not deliver.

Silence alone does not tell a quiet stream from a dead one. `ProbeSchedule` decides which symbols to ask REST
about, `StreamProgress` compares the answer with what the stream delivered. A stream is dead only if the
exchange is ahead of it.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tickcast.market.reconnect import backoff
from tickcast.market.ticks import Book
from tickcast.market.watermark import SymbolStream

# A wholly silent symbol is probed early enough for readers to know that it is quiet; a single stream after
# many times its usual pause.
PROBE_SYMBOL_AFTER_S = 2.5
PROBE_INTERVAL_S = 2.0
PROBE_AFTER_PAUSES = 10.0
PROBE_AFTER_MIN_S = 5.0
PROBE_AFTER_MAX_S = 60.0
PROBE_BACKOFF_CAP_S = 60.0
IN_FLIGHT_S = 1.0  # data that the exchange had at the probe may still be under way on the stream
# REST's answers may be this old. Trade ids show it, a book does not: a differing book counts as newer only if
# no quote has come for longer than this, and the next probe finds the same.
REST_LAG_S = 5.0


class Newest(NamedTuple):
    """The newest trade id and book (1e-8) of a symbol; None: not known."""

    trade_id: int | None = None
    book: Book | None = None


class Stall(NamedTuple):
    """A stream delivered nothing for `seconds` although its connection is open and it should have."""

    symbol: str
    kind: str
    seconds: float


@dataclass
class StreamProgress:
    """One stream on one connection; times in seconds of the session's clock."""

    last_s: float  # when data last came; before the first, when the connection was opened
    first_s: float | None = None
    behind_since_s: float | None = None  # when a probe found the exchange ahead of it
    differs_since_s: float | None = None  # when a probe first found another book
    baseline: Newest = Newest()  # what the exchange had before the connection delivered anything
    is_dead: bool = False

    def probed(self, kind: str, exchange: Newest, delivered: Newest, asked_s: float) -> bool:
        """Compare what the `exchange` had of the symbol at `asked_s` with what the connection `delivered`.
        Returns whether the stream, of `kind`, is known to be complete."""
        is_behind = self._is_behind(kind, exchange, delivered, asked_s)
        if is_behind and self.behind_since_s is None:
            self.behind_since_s = asked_s
        return is_behind is False

    def _is_behind(self, kind: str, exchange: Newest, delivered: Newest, asked_s: float) -> bool | None:
        """Whether the exchange has data that should have come; None: not known.

        Data from before the connection is not missing on it: while it has delivered nothing, the exchange is
        compared with what it had some time after the opening.
        """
        if kind == "trades":
            known = [each for each in (delivered.trade_id, self.baseline.trade_id) if each is not None]
            if exchange.trade_id is None:
                return None
            if known:
                return exchange.trade_id > max(known)
            if asked_s - self.last_s > REST_LAG_S:
                self.baseline = self.baseline._replace(trade_id=exchange.trade_id)
            return None
        if exchange.book is None or asked_s - self.last_s <= REST_LAG_S:
            return None
        book = delivered.book or self.baseline.book
        if book is None:
            self.baseline = self.baseline._replace(book=exchange.book)
            return None
        if exchange.book == book:
            return False
        self.differs_since_s = asked_s if self.differs_since_s is None else self.differs_since_s
        return asked_s - self.differs_since_s >= PROBE_INTERVAL_S or None

    def died(self, now_s: float) -> bool:
        """Whether the stream is found dead now: what the exchange had at a probe has had time to arrive, and
        did not."""
        if self.behind_since_s is None or now_s - self.behind_since_s <= IN_FLIGHT_S:
            return False
        has_died = self.last_s < self.behind_since_s and not self.is_dead
        self.is_dead |= has_died
        self.behind_since_s = None
        return has_died

    def revived(self) -> bool:
        """Data came, or the exchange has nothing newer. Returns whether the stream was dead."""
        was_dead, self.is_dead = self.is_dead, False
        self.behind_since_s = self.differs_since_s = None
        return was_dead


@dataclass
class _Pauses:
    """The usual pause between a stream's data, on all connections that carried it."""

    mean_s: float = 0.0
    count: int = 0

    def add(self, pause_s: float) -> None:
        self.count += 1
        self.mean_s += (pause_s - self.mean_s) / min(self.count, 100)

    @property
    def probe_after_s(self) -> float:
        return min(max(PROBE_AFTER_PAUSES * self.mean_s, PROBE_AFTER_MIN_S), PROBE_AFTER_MAX_S)


class ProbeSchedule:
    """When to ask the exchange's REST about which symbols."""

    def __init__(self, streams: Collection[SymbolStream], rng: random.Random) -> None:
        self._rng = rng
        self._pauses: dict[SymbolStream, _Pauses] = {}
        self._probed_s: dict[str, float] = {}
        self._next_s = float("-inf")
        self.follow(streams)
        self.answered()

    def follow(self, streams: Collection[SymbolStream]) -> None:
        """Ask about the symbols of `streams` from now on; what is known of those followed before is kept."""
        self._pauses = {stream: self._pauses.get(stream) or _Pauses() for stream in streams}
        self._streams_of: dict[str, list[SymbolStream]] = {}
        for stream in streams:
            self._streams_of.setdefault(stream[0], []).append(stream)
        self._probed_s = {
            symbol: at_s for symbol, at_s in self._probed_s.items() if symbol in self._streams_of
        }

    def add_pause(self, stream: SymbolStream, pause_s: float) -> None:
        """Of a stream that is followed; others, which a connection still brings, are ignored."""
        if stream in self._pauses:
            self._pauses[stream].add(pause_s)

    def due(self, now_s: float, connections: list[Mapping[SymbolStream, StreamProgress]]) -> list[str]:
        """The symbols to probe now, given the streams of every open connection; they count as probed."""
        if now_s < self._next_s or not connections:
            return []
        symbols = [symbol for symbol in self._streams_of if self._is_due(symbol, now_s, connections)]
        if symbols:
            self._next_s = now_s + PROBE_INTERVAL_S
            self._probed_s |= dict.fromkeys(symbols, now_s)
        return symbols

    def answered(self) -> None:
        self._delays = backoff(self._rng, PROBE_INTERVAL_S, PROBE_BACKOFF_CAP_S)

    def failed(self, now_s: float, retry_after_s: float) -> None:
        self._next_s = now_s + max(next(self._delays), retry_after_s)

    def _is_due(
        self, symbol: str, now_s: float, connections: Iterable[Mapping[SymbolStream, StreamProgress]]
    ) -> bool:
        of_stream = {
            stream: found
            for stream in self._streams_of[symbol]
            if (found := [each[stream] for each in connections if stream in each])
        }
        if not of_stream:  # the connection that is to carry it is not open yet
            return False
        if any(each.differs_since_s is not None for found in of_stream.values() for each in found):
            return True
        last_s = {stream: max(each.last_s for each in found) for stream, found in of_stream.items()}
        probed_s = self._probed_s.get(symbol, float("-inf"))
        return now_s - max(last_s.values()) > PROBE_SYMBOL_AFTER_S or any(
            now_s - max(at_s, probed_s) > self._pauses[stream].probe_after_s
            for stream, at_s in last_s.items()
        )

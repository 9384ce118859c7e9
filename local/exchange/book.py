"""The order book behind `/api/v3/depth`: from a recording's depth messages, or synthetic."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from local.exchange.events import BookDiff, BookSnapshot, Levels, Quote
from local.exchange.simulator import LOT, TICK

_MAX_PENDING = 1_000


class Book:
    """One symbol's book from a snapshot and the diffs that follow it (Binance's own procedure).

    Diffs that arrive before the snapshot wait for it. A hole in the update ids makes the book unusable
    until the next snapshot.
    """

    def __init__(self) -> None:
        self.update_id: int | None = None  # None: there is no usable book
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}
        self._pending: deque[BookDiff] = deque(maxlen=_MAX_PENDING)

    def apply(self, event: BookSnapshot | BookDiff) -> None:
        if isinstance(event, BookSnapshot):
            self.update_id = event.update_id
            self._bids, self._asks = dict(event.bids), dict(event.asks)
            waiting = list(self._pending)
            self._pending.clear()
            for diff in waiting:
                self._follow(diff)
        else:
            self._follow(event)

    def levels(self, limit: int) -> tuple[Levels, Levels]:
        """The best `limit` bids and asks, best first."""
        bids = sorted(self._bids.items(), reverse=True)[:limit]
        asks = sorted(self._asks.items())[:limit]
        return tuple(bids), tuple(asks)

    def _follow(self, diff: BookDiff) -> None:
        if self.update_id is None or diff.first_update_id > self.update_id + 1:
            self.update_id = None
            self._pending.append(diff)
        elif diff.last_update_id > self.update_id:
            self.update_id = diff.last_update_id
            _change(self._bids, diff.bids)
            _change(self._asks, diff.asks)


def _change(side: dict[int, int], levels: Levels) -> None:
    for price, qty in levels:
        if qty:
            side[price] = qty
        else:
            side.pop(price, None)


def synthetic_levels(quote: Quote, limit: int) -> tuple[Levels, Levels]:
    """A plausible book of `limit` levels a side around a simulated quote, the same for the same prices.

    The orders at a price depend on the price alone, so that a level stays the same while the market moves
    towards it.
    """
    bids = _deeper(quote.bid_price, quote.bid_qty, -TICK, limit)
    return bids, _deeper(quote.ask_price, quote.ask_qty, TICK, limit)


def _deeper(price: int, qty: int, step: int, limit: int) -> Levels:
    if not qty:  # this side is empty
        return ()
    levels = [(price, qty)]
    for distance in _distances(price, step, limit):
        level = price + step * distance
        levels.append((level, _resting_qty(level)))
    return tuple(levels)


def _distances(price: int, step: int, limit: int) -> Iterable[int]:
    """How many ticks away the levels behind the best one are: about every third price has orders."""
    distance, found = 0, 1
    while found < limit and price + step * (distance + 1) > 0:
        distance += 1
        if _mixed(price + step * distance) % 3 == 0:
            found += 1
            yield distance


def _resting_qty(price: int) -> int:
    """Log-uniform between 0.001 and 1 unit at 1e-8."""
    share = (_mixed(price) >> 8) % 1_000 / 1_000
    return int(math.exp(math.log(1_000) * share) * 100) * LOT


def _mixed(price: int) -> int:
    """Scrambled bits of a price in ticks (multiplicative hashing by 2^64 over the golden ratio)."""
    return (price // TICK * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 20

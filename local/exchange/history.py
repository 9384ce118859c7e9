"""The exchange's history: the newest trades and quotes, as compact columns of bounded size."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from local.exchange.events import Quote, Trade

# Half a day of a simulated market's trades, or its initial history: a backfill reports older ones as not
# kept. A quarter of an hour of its quotes.
MAX_AGG_TRADES = 500_000
AGG_TRADES_PER_S = 40
MAX_QUOTES = 150_000
# The newest aggregate may grow while fills of its order can follow: until then it is not served.
SETTLED_AFTER_US = 1_000_000


class AggTrade(NamedTuple):
    """Consecutive trades of one taker order at one price. Mantissas at 1e-8, time in µs."""

    id: int
    price: int
    qty: int
    first_id: int
    last_id: int
    time_us: int
    is_buyer_maker: bool


class Columns:
    """Rows of integers in parallel arrays; beyond `capacity` the oldest are dropped in slices."""

    def __init__(self, width: int, capacity: int) -> None:
        self.columns = [array("q") for _ in range(width)]
        self.forgotten = 0
        self._capacity = capacity

    def __len__(self) -> int:
        return len(self.columns[0])

    def append(self, row: Sequence[int]) -> None:
        for column, value in zip(self.columns, row, strict=True):
            column.append(value)
        if len(self) > self._capacity + self._capacity // 8:
            excess = len(self) - self._capacity
            self.forgotten += excess
            for column in self.columns:
                del column[:excess]

    def row(self, index: int) -> list[int]:
        return [column[index] for column in self.columns]


class TradeHistory:
    """Aggregate trades with ids without holes, from `first_agg_id` on or else from the first trade's id."""

    def __init__(self, capacity: int = MAX_AGG_TRADES, first_agg_id: int | None = None) -> None:
        self._rows = Columns(6, capacity)  # price, qty, first_id, last_id, time_us, is_buyer_maker
        self._first_agg_id = first_agg_id

    def append(self, trade: Trade) -> None:
        if self._first_agg_id is None:
            self._first_agg_id = trade.id
        price, qty, _, last_id, time_us, maker = self._rows.columns
        if (
            time_us
            and time_us[-1] == trade.time_us
            and price[-1] == trade.price
            and maker[-1] == trade.is_buyer_maker
            and last_id[-1] == trade.id - 1
        ):
            qty[-1] += trade.qty
            last_id[-1] = trade.id
        else:
            self._rows.append(
                (trade.price, trade.qty, trade.id, trade.id, trade.time_us, trade.is_buyer_maker)
            )

    def from_id(self, agg_id: int, limit: int, now_us: int) -> list[AggTrade]:
        """At most `limit` aggregates from `agg_id` on, ascending."""
        start = max(agg_id - self._id(0), 0)
        return list(self._rows_between(start, min(start + limit, self._settled(now_us))))

    def between(self, start_us: int | None, end_us: int | None, limit: int, now_us: int) -> list[AggTrade]:
        """Aggregates within start and end, both inclusive: the first `limit`, the last without a start."""
        times = self._rows.columns[4]
        end = self._settled(now_us)
        if end_us is not None:
            end = min(end, bisect_right(times, end_us))
        if start_us is None:
            return list(self._rows_between(max(end - limit, 0), end))
        start = bisect_left(times, start_us)
        return list(self._rows_between(start, min(start + limit, end)))

    def last_before(self, time_us: int) -> AggTrade | None:
        """The newest aggregate at or before `time_us`."""
        index = bisect_right(self._rows.columns[4], time_us) - 1
        return next(self._rows_between(index, index + 1), None) if index >= 0 else None

    @property
    def newest(self) -> AggTrade | None:
        """The newest aggregate, though it may still grow."""
        return next(self._rows_between(len(self._rows) - 1, len(self._rows)), None) if self._rows else None

    def _id(self, index: int) -> int:
        return (self._first_agg_id or 0) + self._rows.forgotten + index

    def _settled(self, now_us: int) -> int:
        count = len(self._rows)
        if count and now_us - self._rows.columns[4][-1] < SETTLED_AFTER_US:
            return count - 1
        return count

    def _rows_between(self, start: int, end: int) -> Iterator[AggTrade]:
        for index in range(start, end):
            price, qty, first_id, last_id, time_us, is_buyer_maker = self._rows.row(index)
            agg_id = self._id(index)
            yield AggTrade(agg_id, price, qty, first_id, last_id, time_us, is_buyer_maker == 1)


class QuoteHistory:
    """The newest quotes of one symbol."""

    def __init__(self, symbol: str, capacity: int = MAX_QUOTES) -> None:
        self.last: Quote | None = None
        self._symbol = symbol
        self._rows = Columns(6, capacity)

    def append(self, quote: Quote) -> None:
        self.last = quote
        self._rows.append(quote[1:])

    def as_of(self, time_us: int) -> Quote | None:
        """The last quote of an event time not after `time_us`."""
        index = bisect_right(self._rows.columns[0], time_us) - 1
        return Quote(self._symbol, *self._rows.row(index)) if index >= 0 else None

    def mids_within(self, from_us: int, to_us: int) -> list[float]:
        """The mids that were the newest at some instant from `from_us` to `to_us`, each once; empty before
        the first quote."""
        times, _, bids, _, asks, _ = self._rows.columns
        start = max(bisect_right(times, from_us) - 1, 0)
        stop = bisect_right(times, to_us)
        return list(dict.fromkeys((bids[row] + asks[row]) / 2e8 for row in range(start, stop)))

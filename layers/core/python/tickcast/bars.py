"""Event-time bars: the memory of one symbol that features are a pure function of.

Time is cut into bars of 100 ms of the exchange's clock. A bar stays *open*, holding its ticks, until the
watermark (how far the stream is known to have got) has passed its end by the allowed lateness; then it is
summarised once, from its ticks sorted by id, into one row of `BAR`. All sums are integers. So the bits of
a row depend only on which ticks fell into the bar and on the row before it: not on how the stream was cut
into batches, in which order connections delivered, or how often. Live and history run this same code.

A tick that comes after its bar was closed is *late*: it is counted and its id listed, never folded into
the past. With disorder in the stream below `lateness_us` no tick is ever late, whatever the batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.intervals import IntervalSet
from tickcast.ticks import QUOTE, SCALE, TRADE, Quotes, Trades
from tickcast.wire import TickBatch

BAR_US = 100_000
WINDOW_BARS = 600  # one minute: the longest look-back of any feature
MAX_LATE_IDS = 100

# Quantities and prices are mantissas at 1e-8, times µs. Everything after `notional` but the sums is the
# state at the bar's end and is carried from bar to bar; 0 means "not seen yet".
BAR = np.dtype(
    [
        ("end_us", "<i8"),
        ("trade_count", "<i8"),
        ("buy_qty", "<i8"),
        ("sell_qty", "<i8"),
        ("notional", "<i8"),  # sum of price times quantity
        ("last_trade_id", "<i8"),
        ("last_trade_price", "<i8"),
        ("last_trade_us", "<i8"),
        ("quote_count", "<i8"),
        ("ofi", "<i8"),  # order-flow imbalance (Cont, Kukanov, Stoikov 2014)
        ("imbalance_us", "<i8"),  # integral of the book imbalance (1e-6) over the bar's time
        ("quoted_us", "<i8"),  # how much of the bar had a quote in force
        ("update_id", "<i8"),
        ("bid_price", "<i8"),
        ("bid_qty", "<i8"),
        ("ask_price", "<i8"),
        ("ask_qty", "<i8"),
        ("last_quote_us", "<i8"),
        ("mid_change_us", "<i8"),  # when the mid last moved
    ]
)
_IMBALANCE_SCALE = 10**6

Bars = npt.NDArray[Any]  # of BAR


def bar_index(time_us: int) -> int:
    """The bar that `time_us` falls into: bar k covers [k, k + 1) times 100 ms since the epoch."""
    return time_us // BAR_US


@dataclass
class BarRing:
    """The last minute of closed bars of one symbol, the ticks of the open ones, and what was seen."""

    lateness_us: int
    next_bar: int = -1  # the first open bar; -1 until the first tick
    bars: Bars = field(default_factory=lambda: np.empty(0, BAR))
    open_trades: Trades = field(default_factory=lambda: np.empty(0, TRADE))
    open_quotes: Quotes = field(default_factory=lambda: np.empty(0, QUOTE))
    watermark_us: int = -1
    received_us: int = -1  # when ingest received the newest tick
    trade_ids: IntervalSet = field(default_factory=IntervalSet)
    late_ids: list[int] = field(default_factory=list)  # the newest trade ids that came late
    late_trades: int = 0
    late_quotes: int = 0

    @property
    def closed_us(self) -> int:
        """The instant up to which bars are closed, µs."""
        return self.next_bar * BAR_US

    def fold(self, batch: TickBatch, every_us: int) -> Iterator[int]:
        """Take in `batch` and close what is due; yields each closed multiple of `every_us`, in order.

        While the caller holds a yielded instant, the newest row of `bars` is the bar that ends there.
        """
        self._take(batch.trades, batch.quotes)
        self.watermark_us = max(self.watermark_us, batch.watermark_us)
        due = bar_index(self.watermark_us - self.lateness_us)
        if self.next_bar < 0 or due <= self.next_bar:
            return
        if due - self.next_bar > WINDOW_BARS:
            # Nothing of the ring would survive the jump and nobody waits for the instants in between.
            self._close(due)
            return
        step = every_us // BAR_US
        for instant in range(-(-(self.next_bar + 1) // step) * step, due + 1, step):
            self._close(instant)
            yield instant * BAR_US
        self._close(due)

    def _take(self, trades: Trades, quotes: Quotes) -> None:
        if self.next_bar < 0 and len(trades) + len(quotes):
            first_us = min(int(rows["time_us"].min()) for rows in (trades, quotes) if len(rows))
            # Bars before the first tick are empty; starting below it leaves room for disorder.
            self.next_bar = bar_index(first_us - self.lateness_us)
        for rows in (trades, quotes):
            if len(rows):
                self.received_us = max(self.received_us, int(rows["receive_time_us"].max()))
        if len(trades):
            self._take_trades(trades)
        if len(quotes):
            self._take_quotes(quotes)

    def _take_trades(self, trades: Trades) -> None:
        fresh = [not self.trade_ids.add(int(t["first_id"]), int(t["last_id"])) for t in trades]
        trades = trades[fresh]
        late = trades["time_us"] < self.closed_us
        if late.any():
            self.late_trades += int(late.sum())
            self.late_ids = (self.late_ids + trades["first_id"][late].tolist())[-MAX_LATE_IDS:]
            trades = trades[~late]
        self.open_trades = np.concatenate([self.open_trades, trades])

    def _take_quotes(self, quotes: Quotes) -> None:
        late = quotes["time_us"] < self.closed_us
        if late.any():
            # A second connection repeats old quotes: only what the closed bars had not reached is news.
            reached = int(self.bars[-1]["update_id"]) if len(self.bars) else 0
            self.late_quotes += int((quotes["update_id"][late] > reached).sum())
            quotes = quotes[~late]
        known = np.concatenate([self.open_quotes, quotes])
        _, first_seen = np.unique(known["update_id"], return_index=True)
        self.open_quotes = known[first_seen]

    def _close(self, until_bar: int) -> None:
        """Summarise the open bars before `until_bar` and keep the newest minute."""
        if until_bar <= self.next_bar:
            return
        end_us = until_bar * BAR_US
        trades_due = self.open_trades["time_us"] < end_us
        quotes_due = self.open_quotes["time_us"] < end_us
        before = self.bars[-1] if len(self.bars) else np.zeros(1, BAR)[0]
        rows = summarise(
            self.open_trades[trades_due],
            self.open_quotes[quotes_due],
            self.next_bar,
            until_bar - self.next_bar,
            before,
        )
        self.bars = np.concatenate([self.bars, rows])[-WINDOW_BARS:]
        self.open_trades = self.open_trades[~trades_due]
        self.open_quotes = self.open_quotes[~quotes_due]
        self.next_bar = until_bar


def summarise(trades: Trades, quotes: Quotes, first_bar: int, count: int, before: np.void) -> Bars:
    """The `count` bars from `first_bar` on, made of ticks that all fall into them; `before` is the row
    just ahead of them (all zero where there is none). Shape (count,)."""
    bars = np.zeros(count, BAR)
    edges_us = np.arange(first_bar, first_bar + count + 1) * BAR_US
    bars["end_us"] = edges_us[1:]
    _summarise_trades(bars, trades, edges_us, before)
    _summarise_quotes(bars, quotes, edges_us, before)
    return bars


def _summarise_trades(bars: Bars, trades: Trades, edges_us: npt.NDArray[Any], before: np.void) -> None:
    bar_of = trades["time_us"] // BAR_US
    order = np.lexsort((trades["first_id"], bar_of))
    trades = trades[order]
    starts = np.searchsorted(bar_of[order] * BAR_US, edges_us)
    is_buy = trades["side"] > 0
    # Rounded trade by trade in IEEE arithmetic, then summed as integers: exact to 1e-8 a trade, and the
    # same in any order. The plain integer product would overflow 64 bits.
    notional = np.rint(trades["price"].astype(float) * trades["qty"].astype(float) / SCALE).astype(np.int64)
    bars["trade_count"] = np.diff(starts)
    bars["buy_qty"] = _sums(np.where(is_buy, trades["qty"], 0), starts)
    bars["sell_qty"] = _sums(np.where(is_buy, 0, trades["qty"]), starts)
    bars["notional"] = _sums(notional, starts)
    last = _last_rows(starts)
    _carry(bars, "last_trade_id", trades["last_id"], last, before)
    _carry(bars, "last_trade_price", trades["price"], last, before)
    _carry(bars, "last_trade_us", trades["time_us"], last, before)


def _summarise_quotes(bars: Bars, quotes: Quotes, edges_us: npt.NDArray[Any], before: np.void) -> None:
    bar_of = quotes["time_us"] // BAR_US
    order = np.lexsort((quotes["update_id"], bar_of))
    quotes = quotes[order]
    starts = np.searchsorted(bar_of[order] * BAR_US, edges_us)
    # Update ids give the order, and time may not run against it (replayed quote times are estimates).
    time_us = np.maximum.accumulate(quotes["time_us"]) if len(quotes) else quotes["time_us"]

    # Each quote beside the one it replaced; the very first of a symbol replaces nothing.
    bid, bid_qty, ask, ask_qty = (
        np.concatenate([[before[name]], quotes[name]])
        for name in ("bid_price", "bid_qty", "ask_price", "ask_qty")
    )
    replaces = np.ones(len(quotes), bool)
    if len(quotes) and not before["update_id"]:
        replaces[0] = False

    ofi = (
        np.where(bid[1:] >= bid[:-1], bid_qty[1:], 0)
        - np.where(bid[1:] <= bid[:-1], bid_qty[:-1], 0)
        - np.where(ask[1:] <= ask[:-1], ask_qty[1:], 0)
        + np.where(ask[1:] >= ask[:-1], ask_qty[:-1], 0)
    )
    bars["quote_count"] = np.diff(starts)
    bars["ofi"] = _sums(np.where(replaces, ofi, 0), starts)

    # Integrals up to each edge of the step function that the quotes are, then their differences.
    since_us = np.concatenate([[edges_us[0]], time_us])
    depth = bid_qty + ask_qty
    level = np.rint((bid_qty - ask_qty) / np.maximum(depth, 1) * _IMBALANCE_SCALE).astype(np.int64)
    in_force = (depth > 0).astype(np.int64)
    bars["imbalance_us"] = np.diff(_integral(level, since_us, edges_us))
    bars["quoted_us"] = np.diff(_integral(in_force, since_us, edges_us))

    last = _last_rows(starts)
    for name in ("update_id", "bid_price", "bid_qty", "ask_price", "ask_qty"):
        _carry(bars, name, quotes[name], last, before)
    _carry(bars, "last_quote_us", time_us, last, before)
    moved = (bid[1:] + ask[1:] != bid[:-1] + ask[:-1]) | ~replaces
    last_move = (
        np.maximum.accumulate(np.where(moved, np.arange(len(quotes)), -1)) if len(quotes) else last[:0]
    )
    move_us = (
        np.where(last_move >= 0, time_us[last_move], before["mid_change_us"]) if len(quotes) else time_us
    )
    _carry(bars, "mid_change_us", move_us, last, before)


def _sums(values: npt.NDArray[Any], starts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integer sums of `values` between consecutive `starts`."""
    return np.diff(np.concatenate([[0], np.cumsum(values)])[starts])


def _last_rows(starts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """For each bar the row of its newest tick, or of an earlier bar's; -1 before the first tick."""
    return np.maximum.accumulate(np.where(np.diff(starts) > 0, starts[1:] - 1, -1))


def _carry(bars: Bars, name: str, values: npt.NDArray[Any], last: npt.NDArray[Any], before: np.void) -> None:
    """Set `name` to the newest of `values` as of each bar's end, or to the row before's."""
    bars[name] = np.where(last >= 0, values[last], before[name]) if len(values) else before[name]


def _integral(
    level: npt.NDArray[Any], since_us: npt.NDArray[Any], edges_us: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Integral from `since_us[0]` to each edge of the step function worth `level[k]` from `since_us[k]`."""
    whole = np.concatenate([[0], np.cumsum(level[:-1] * np.diff(since_us))])
    at = np.searchsorted(since_us, edges_us, side="right") - 1
    return np.asarray(whole[at] + level[at] * (edges_us - since_us[at]))

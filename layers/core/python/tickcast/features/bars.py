"""Event-time bars: the memory of one symbol that features are a pure function of.

Time is cut into bars of 100 ms of the exchange's clock. A bar stays *open*, holding its ticks, until it is
asked for and the watermark (how far the stream is known to have got: the least that any live connection
claims) has passed its end by the allowed lateness; then it is summarised once, from its ticks sorted by id,
into one row of `BAR`. All sums are exact integers, of quantities wider than 64 bits (`market.sums`). So the
bits of a row depend only on which ticks fell into the bar and on the row before it: not on how the stream was
cut into batches, in which order connections delivered, or how often. Live and history run this same code.

Memory is short in two ways: bars are kept for the five seconds that need their resolution, and summed up
into whole seconds (`SECOND`) for the minute that volatility, depth and volume are measured over. A silence
of more than a minute ends a stretch: the next tick begins anew, as if it were the first.

A tick that comes after its bar was closed is *late*: it is counted and its id listed, never folded into
the past. With disorder in the stream below `lateness_us` no tick is ever late, whatever the batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.market.gaps import QUOTES_MISSING_US, GapLedger, Restart
from tickcast.market.id_ranges import IdRanges
from tickcast.market.plausibility import IdSeries, Row, quote_series, trade_series
from tickcast.market.sums import products, ratio, running, split
from tickcast.market.ticks import QUOTE, TRADE, Quotes, Trades, raw, span_us
from tickcast.market.wire import NEVER_QUIET, WITHDRAWN, TickBatch
from tickcast.units import SECOND_US

BAR_US = 100_000
BARS_PER_S = SECOND_US // BAR_US
KEPT_BARS = 5 * BARS_PER_S + 1  # five seconds, and the bar that their returns start from
KEPT_SECONDS = 61  # a minute, and the second that its returns start from
SILENCE_US = 60 * SECOND_US  # so long without a tick ends a stretch
PROXY_LIFE_US = 10 * SECOND_US
MAX_OPEN_TICKS = 500
MAX_HELD_TICKS = 10_000  # open ones; about half a second of all that a shard can carry
MAX_LATE_IDS = 100
# A claim so far behind the newest one is that of a connection that ended without a word.
CLAIM_LIFE_US = 2 * SECOND_US
_FEW_IDS = 3  # fewer than that above where a series goes on were far off, not a series

# Quantities and prices are mantissas at 1e-8, times µs. Sums of quantities, and of price times quantity at
# 1e-16, are limbs (`market.sums`). Everything after `notional` but the sums is the state at the bar's end
# and is carried from bar to bar; 0 means "not seen yet".
BAR = np.dtype(
    [
        ("end_us", "<i8"),
        ("trade_count", "<i8"),
        ("buy_qty", "<i8", 2),
        ("sell_qty", "<i8", 2),
        ("notional", "<i8", 4),  # sum of price times quantity
        ("last_trade_id", "<i8"),
        ("last_trade_price", "<i8"),
        ("last_trade_us", "<i8"),
        ("last_buy_price", "<i8"),  # of the last trade that a buyer began
        ("last_sell_price", "<i8"),
        ("quote_count", "<i8"),
        ("ofi", "<i8", 2),  # order-flow imbalance (Cont, Kukanov, Stoikov 2014)
        ("imbalance_us", "<i8"),  # integral of the book imbalance (1e-6) over the bar's time
        ("quoted_us", "<i8"),  # how much of the bar had a book with both sides
        ("update_id", "<i8"),
        ("bid_price", "<i8"),
        ("bid_qty", "<i8"),
        ("ask_price", "<i8"),
        ("ask_qty", "<i8"),
        ("last_quote_us", "<i8"),
        ("mid_change_us", "<i8"),  # when the mid last moved, was lost, or came back
    ]
)
_IMBALANCE_SCALE = 10**6
_BOOK = ("update_id", "bid_price", "bid_qty", "ask_price", "ask_qty")

# A whole second of bars, by the same units. `mid2` and `proxy2` are twice the price at its end; 0: unknown.
SECOND = np.dtype(
    [
        ("end_us", "<i8"),
        ("trade_count", "<i8"),
        ("buy_qty", "<i8", 2),
        ("sell_qty", "<i8", 2),
        ("notional", "<i8", 4),
        ("quote_count", "<i8"),
        ("depth", "<i8", 2),  # sum of bid and ask quantity over the quoted bars
        ("quoted_bars", "<i8"),
        ("mid2", "<u8"),
        ("proxy2", "<u8"),
    ]
)
_SUMMED = ("trade_count", "buy_qty", "sell_qty", "notional", "quote_count")

Bars = npt.NDArray[Any]  # of BAR
Seconds = npt.NDArray[Any]  # of SECOND
Ints = npt.NDArray[np.int64]
TwicePrices = npt.NDArray[np.uint64]  # the sum of two prices needs the 64th bit

_NOTHING = np.zeros(1, BAR)[0]  # the row before the first


def is_quoted(bars: Bars) -> npt.NDArray[np.bool_]:
    """Whether the book at each bar's end is known and has both sides. A book that stands still while nothing
    is traded is a quiet one; trades without quotes mean that quotes are missing. Shape (bars,)."""
    stalled = bars["last_trade_us"] - bars["last_quote_us"] > QUOTES_MISSING_US
    return np.asarray((bars["bid_price"] > 0) & (bars["ask_price"] > 0) & ~stalled)


def twice_mids(bars: Bars) -> TwicePrices:
    """Twice the mid at each bar's end, 1e-8; 0 where it is not known. Shape (bars,)."""
    return np.where(is_quoted(bars), _added(bars["bid_price"], bars["ask_price"]), 0)


def twice_proxy_mids(bars: Bars) -> TwicePrices:
    """Twice the mean of the last price that a buyer paid and the last that a seller got, 1e-8: what stands
    in for the mid without quotes. 0 where one is not known or the last trade is too old. Shape (bars,)."""
    buy, sell = bars["last_buy_price"], bars["last_sell_price"]
    is_known = (buy > 0) & (sell > 0) & (bars["end_us"] - bars["last_trade_us"] <= PROXY_LIFE_US)
    return np.where(is_known, _added(buy, sell), 0)


def mids(bars: Bars) -> npt.NDArray[np.float64]:
    """The mid at each bar's end, 1e-8; NaN where it is not known. Shape (bars,)."""
    return _prices(twice_mids(bars))


def proxy_mids(bars: Bars) -> npt.NDArray[np.float64]:
    """What stands in for the mid without quotes, 1e-8; NaN where it is not known. Shape (bars,)."""
    return _prices(twice_proxy_mids(bars))


def _added(price: Ints, other: Ints) -> TwicePrices:
    return np.asarray(price.view(np.uint64) + other.view(np.uint64))


def _prices(twice: TwicePrices) -> npt.NDArray[np.float64]:
    return np.where(twice > 0, twice / 2, np.nan)


def whole_seconds(bars: Bars) -> Seconds:
    """The seconds that end within `bars`, which follow each other without a hole; the first may have begun
    before them. Shape (seconds,)."""
    ends = np.flatnonzero(bars["end_us"] % SECOND_US == 0)
    rows = np.zeros(len(ends), SECOND)
    if not len(ends):
        return rows
    at_end, quoted = bars[ends], is_quoted(bars)
    starts = np.concatenate([[max(0, ends[0] + 1 - BARS_PER_S)], ends[:-1] + 1])
    sums = {name: bars[name] for name in _SUMMED}
    sums["depth"] = ((split(bars["bid_qty"]) + split(bars["ask_qty"])) * quoted).T
    sums["quoted_bars"] = quoted.astype(np.int64)
    for name, values in sums.items():
        rows[name] = np.add.reduceat(values[: ends[-1] + 1], starts)
    rows["end_us"] = at_end["end_us"]
    rows["mid2"], rows["proxy2"] = twice_mids(at_end), twice_proxy_mids(at_end)
    return rows


def segments(trades: Trades, quotes: Quotes) -> list[Bars]:
    """The bars of history: one array for each stretch of ticks without a silence of a minute.

    Ticks may come in any order and more than once, by their ids.
    """
    trades = trades[np.unique(trades["first_id"], return_index=True)[1]]
    quotes = quotes[np.unique(quotes["update_id"], return_index=True)[1]]
    times_us = np.sort(np.concatenate([trades["time_us"], quotes["time_us"]]))
    breaks = np.flatnonzero(np.diff(times_us) > SILENCE_US) + 1
    found = []
    for times in np.split(times_us, breaks):
        if not len(times):
            continue
        start_us, end_us = times[0], times[-1]
        first = bar_index(int(start_us))
        count = bar_index(int(end_us)) + 1 - first
        some_trades, some_quotes = (
            _chosen(ticks, (ticks["time_us"] >= start_us) & (ticks["time_us"] <= end_us))
            for ticks in (trades, quotes)
        )
        found.append(summarise(some_trades, some_quotes, first, count, _NOTHING))
    return found


def bar_index(time_us: int) -> int:
    """The bar that `time_us` falls into: bar k covers [k, k + 1) times 100 ms since the epoch."""
    return time_us // BAR_US


class Refused(NamedTuple):
    """A tick whose id cannot be, as a row of TRADE or QUOTE, and why."""

    dtype: np.dtype[Any]
    row: Row
    reason: str


@dataclass
class BarRing:
    """The newest closed bars and seconds of one symbol, the ticks of the open ones, and what was seen."""

    lateness_us: int
    next_bar: int = -1  # the first open bar; -1 until the first tick
    history_from_us: int = -1  # where the stretch begins that `bars` and `seconds` belong to
    bars: Bars = field(default_factory=lambda: np.empty(0, BAR))
    seconds: Seconds = field(default_factory=lambda: np.empty(0, SECOND))
    open_trades: Trades = field(default_factory=lambda: np.empty(0, TRADE))
    open_quotes: Quotes = field(default_factory=lambda: np.empty(0, QUOTE))
    watermark_us: int = -1
    claims_us: dict[str, int] = field(default_factory=dict)  # how far each live connection says to have come
    quiet_us: int = NEVER_QUIET  # when REST last had no newer tick than had come, by ingest's clock
    received_us: int = -1  # when ingest received the newest tick
    trade_ids: IdRanges = field(default_factory=IdRanges)
    gaps: GapLedger = field(default_factory=GapLedger)
    newest_trade_us: int = -1  # of the highest trade id seen
    newest_quote_us: int = -1
    late_ids: list[int] = field(default_factory=list)  # the newest trade ids that came late
    late_update_ids: list[int] = field(default_factory=list)  # and of quotes
    late_trades: int = 0
    late_quotes: int = 0
    trade_series: IdSeries = field(default_factory=trade_series)
    quote_series: IdSeries = field(default_factory=quote_series)
    closed_update_id: int = 0  # the newest quote of its series that closed bars hold
    refused_trades: int = 0
    refused_quotes: int = 0
    refused: list[Refused] = field(default_factory=list)  # since the caller last took them; not kept

    @property
    def closed_us(self) -> int:
        """The instant up to which bars are closed, µs."""
        return self.next_bar * BAR_US

    def fold(self, batch: TickBatch, every_us: int) -> Iterator[int]:
        """Take in `batch` and close what is due; yields each closed multiple of `every_us`, in order.

        While the caller holds a yielded instant, the newest row of `bars` is the bar that ends there.
        Instants within a silence of a minute or more are not yielded: nobody waits for them.
        """
        self.gaps.noticed(batch.notices)
        self._take(batch.trades, batch.quotes)
        self._take_claim(batch.connection, batch.watermark_us)
        self.quiet_us = max(self.quiet_us, batch.quiet_us)
        due = max(bar_index(self.watermark_us - self.lateness_us), self._due_by_count())
        if self.next_bar < 0:
            return
        step = every_us // BAR_US
        while self.next_bar < due:
            self._skip_silence(due)
            instant = (self.next_bar // step + 1) * step
            if instant > due:
                # Nobody asks before the next instant, and one pass over its ticks costs what a pass over a
                # tenth of them does; but a burst shall not be carried from state to state.
                if len(self.open_trades) + len(self.open_quotes) > MAX_OPEN_TICKS:
                    self._close(due)
                return
            self._close(instant)
            yield instant * BAR_US

    def _take_claim(self, connection: str, claim_us: int) -> None:
        """Move the watermark to the least claim of the connections that are alive; never back."""
        if claim_us == WITHDRAWN:
            self.claims_us.pop(connection, None)
        elif claim_us >= 0:
            self.claims_us[connection] = max(claim_us, self.claims_us.get(connection, -1))
        if self.claims_us:
            oldest_us = max(self.claims_us.values()) - CLAIM_LIFE_US
            self.claims_us = {name: us for name, us in self.claims_us.items() if us >= oldest_us}
            self.watermark_us = max(self.watermark_us, min(self.claims_us.values()))

    def _due_by_count(self) -> int:
        """The bar up to which bars are closed although nobody claims that they are complete: so far that at
        most `MAX_HELD_TICKS` newer ticks stay open. 0 while there are no more than that.

        While claims are missing (no connection is known to be caught up) the state would grow without end. It
        is the ticks' number that decides, not the newest one's time, which may be far off.
        """
        if len(self.open_trades) + len(self.open_quotes) <= MAX_HELD_TICKS:
            return 0
        times_us = np.concatenate([self.open_trades["time_us"], self.open_quotes["time_us"]])
        return bar_index(int(np.partition(times_us, -MAX_HELD_TICKS)[-MAX_HELD_TICKS])) + 1

    def _skip_silence(self, due: int) -> None:
        """Where more than a minute without a tick is due, go on at the next tick, or at the end."""
        open_span = span_us(self.open_trades, self.open_quotes)
        until = min(due, bar_index(open_span[0])) if open_span else due
        if (until - self.next_bar) * BAR_US > SILENCE_US:
            self._begin(until)

    def _begin(self, bar: int) -> None:
        """Begin anew at `bar`: features look at nothing from before it."""
        self.next_bar, self.history_from_us = bar, bar * BAR_US
        self.bars, self.seconds = np.empty(0, BAR), np.empty(0, SECOND)

    def _take(self, trades: Trades, quotes: Quotes) -> None:
        if self.next_bar < 0 and (span := span_us(trades, quotes)):
            # Bars before the first tick are empty; starting below it leaves room for disorder.
            self._begin(bar_index(span[0] - self.lateness_us))
        for rows in (trades, quotes):
            if len(rows):
                self.received_us = max(self.received_us, int(rows["receive_time_us"].max()))
        if len(trades):
            self._take_trades(trades)
        if len(quotes):
            self._take_quotes(quotes)

    def _take_trades(self, trades: Trades) -> None:
        if not self._see_run(trades):
            judged = self.trade_series.judge(trades, self.trade_ids.is_missing)
            self.refused_trades += len(judged.refused)
            ids = [row[2] for row, _ in judged.refused]
            self.late_ids = (self.late_ids + ids)[-MAX_LATE_IDS:]  # not folded, whatever the reason
            self.refused += [Refused(TRADE, row, reason) for row, reason in judged.refused]
            runs = []
            for n, run in enumerate(judged.runs):
                if n:
                    self._restart_trades(run)
                runs.append(self._see_each(run))
            trades = np.concatenate(runs) if len(runs) > 1 else runs[0]
        late = trades["time_us"] < self.closed_us
        if late.any():
            self.late_trades += int(late.sum())
            self.late_ids = (self.late_ids + trades["first_id"][late].tolist())[-MAX_LATE_IDS:]
            trades = _chosen(trades, ~late)
        self.open_trades = _joined(self.open_trades, trades)

    def _see_run(self, trades: Trades) -> bool:
        """Note the ids of trades that follow what was seen without a hole, in order; False if they do not.

        That is nearly always so, and then it is what `_see_each` would do.
        """
        # Copies: numpy is slow with integers astride machine words, which those of a row of TRADE are.
        first_ids, last_ids = trades["first_id"].copy(), trades["last_id"].copy()
        newest_id = self.trade_ids.newest
        if newest_id is None or first_ids[0] != newest_id + 1 or self.trade_series.suspects:
            return False
        if (first_ids[1:] != last_ids[:-1] + 1).any() or (last_ids < first_ids).any():
            return False
        newest_id, newest_us = int(last_ids[-1]), int(trades["time_us"][-1])
        self.trade_ids.add(int(first_ids[0]), newest_id)
        self.trade_series.advance(newest_id, newest_us, len(trades))
        self.newest_trade_us = newest_us
        return True

    def _see_each(self, trades: Trades) -> Trades:
        """Note the ids of `trades`, one after the other; those that are news, by id."""
        trades = _chosen(trades, np.argsort(trades["first_id"], kind="stable"))
        is_new = np.ones(len(trades), bool)
        for row, (time_us, _, first_id, last_id, *_rest) in enumerate(trades.tolist()):
            is_new[row] = self._see_trade(time_us, first_id, last_id)
        return _chosen(trades, is_new)

    def _restart_trades(self, run: Trades) -> None:
        """The trades of `run` are another series of ids than what was seen, or what was seen last was off."""
        first_id, time_us = int(run["first_id"][0]), int(run["time_us"][0])
        before_us, self.newest_trade_us = self.newest_trade_us, time_us
        before_id = self.trade_ids.newest
        if self.trade_ids.continues(first_id):
            dropped = self.trade_ids.cut(first_id)
            self.gaps.cut((self.trade_ids.newest or 0) + 1)  # it is seen again with the run
            if dropped < _FEW_IDS:
                self.newest_trade_us = min(before_us, time_us)
                return
        else:
            dropped = self.trade_ids.cut(0)
        if before_id is not None and dropped >= _FEW_IDS:
            self.gaps.restarted(Restart("trades", before_id, first_id, before_us, time_us))

    def _see_trade(self, time_us: int, first_id: int, last_id: int) -> bool:
        """Note the ids; False when all of them were seen before."""
        newest_id = self.trade_ids.newest
        if self.trade_ids.add(first_id, last_id):
            return False
        if newest_id is None or first_id > newest_id:
            if newest_id is not None and first_id > newest_id + 1:
                self.gaps.missing(newest_id + 1, first_id - 1, self.newest_trade_us, time_us)
            self.newest_trade_us = time_us
        else:
            self.gaps.arrived(first_id, last_id)
        return True

    def _take_quotes(self, quotes: Quotes) -> None:
        quotes = self._in_series(quotes)
        if not len(quotes):
            return
        first_us, last_us = int(quotes["time_us"].min()), int(quotes["time_us"].max())
        if self.newest_quote_us >= 0:
            self.gaps.quotes_resumed(self.newest_quote_us, first_us)
        self.newest_quote_us = max(self.newest_quote_us, last_us)
        late = quotes["time_us"] < self.closed_us
        if late.any():
            # A second connection repeats old quotes: only what the closed bars had not reached is news.
            late_ids = quotes["update_id"][late & (quotes["update_id"] > self.closed_update_id)].tolist()
            self.late_quotes += len(late_ids)
            self.late_update_ids = (self.late_update_ids + late_ids)[-MAX_LATE_IDS:]
            quotes = _chosen(quotes, ~late)
        if (quotes["update_id"] <= self.closed_update_id).any():
            # Known by another connection, which estimated its time differently.
            quotes = _chosen(quotes, quotes["update_id"] > self.closed_update_id)
        known = _joined(self.open_quotes, quotes)
        ids = known["update_id"]
        if (ids[1:] <= ids[:-1]).any():
            _, first_seen = np.unique(ids, return_index=True)
            known = _chosen(known, first_seen)
        self.open_quotes = known

    def _in_series(self, quotes: Quotes) -> Quotes:
        """Those of `quotes` whose update ids can be, of the newest series only if a new one begins."""
        before_id, before_us = self.quote_series.newest_id, self.quote_series.newest_us
        judged = self.quote_series.judge(quotes)
        if judged.refused:
            self.refused_quotes += len(judged.refused)
            ids = [row[2] for row, _ in judged.refused]
            self.late_update_ids = (self.late_update_ids + ids)[-MAX_LATE_IDS:]
            self.refused += [Refused(QUOTE, row, reason) for row, reason in judged.refused]
        if len(judged.runs) == 1:
            return judged.runs[0]
        run = judged.runs[-1]
        first_id, first_us = int(run["update_id"][0]), int(run["time_us"][0])
        if before_id >= 0:
            self.gaps.restarted(Restart("quotes", before_id, first_id, before_us, first_us))
        # Ids order the quotes of a bar: in the one that both share, the old series has nothing more to say.
        old = np.concatenate([self.open_quotes, *judged.runs[:-1]])
        self.open_quotes = old[old["time_us"] < first_us // BAR_US * BAR_US]
        self.closed_update_id = 0
        return run

    def _close(self, until_bar: int) -> None:
        """Summarise the open bars before `until_bar` and keep what features look back at."""
        if until_bar <= self.next_bar:
            return
        end_us = until_bar * BAR_US
        trades_due = self.open_trades["time_us"] < end_us
        quotes_due = self.open_quotes["time_us"] < end_us
        trades, quotes = _chosen(self.open_trades, trades_due), _chosen(self.open_quotes, quotes_due)
        if len(self.bars) and (span := span_us(trades, quotes)):
            newest_us = max(int(self.bars[-1]["last_trade_us"]), int(self.bars[-1]["last_quote_us"]))
            if span[0] - newest_us > SILENCE_US:
                self._begin(bar_index(span[0]))
        before = self.bars[-1] if len(self.bars) else _NOTHING
        rows = summarise(trades, quotes, self.next_bar, until_bar - self.next_bar, before)
        known = _joined(self.bars, rows)
        # From the start of the second that was open: `KEPT_BARS` reaches back further than that.
        of_new = known[-(len(rows) + self.next_bar % BARS_PER_S) :]
        self.seconds = _joined(self.seconds, whole_seconds(of_new))[-KEPT_SECONDS:]
        self.bars = known[-KEPT_BARS:]
        self.open_trades = _chosen(self.open_trades, ~trades_due)
        self.open_quotes = _chosen(self.open_quotes, ~quotes_due)
        self.next_bar = until_bar
        ids = quotes["update_id"]
        of_series = ids[ids <= self.quote_series.newest_id]  # one that began over has lower ids
        if len(of_series):
            self.closed_update_id = max(self.closed_update_id, int(of_series.max()))


def summarise(trades: Trades, quotes: Quotes, first_bar: int, count: int, before: np.void) -> Bars:
    """The `count` bars from `first_bar` on, made of ticks that all fall into them; `before` is the row
    just ahead of them (all zero where there is none). Shape (count,)."""
    bars = np.zeros(count, BAR)
    edges_us = np.arange(first_bar, first_bar + count + 1) * BAR_US
    bars["end_us"] = edges_us[1:]
    _summarise_trades(bars, trades, edges_us, before)
    _summarise_quotes(bars, quotes, edges_us, before)
    return bars


def _summarise_trades(bars: Bars, trades: Trades, edges_us: Ints, before: np.void) -> None:
    trades, starts = _by_bar(trades, "first_id", edges_us)
    price, qty = np.ascontiguousarray(trades["price"]), np.ascontiguousarray(trades["qty"])
    is_buy, limbs = trades["side"] > 0, split(qty)
    bought = limbs * is_buy
    sums = _sums(np.concatenate([bought, limbs - bought, products(price, qty)]), starts)
    bars["buy_qty"], bars["sell_qty"], bars["notional"] = sums[0:2].T, sums[2:4].T, sums[4:].T
    bars["trade_count"] = starts[1:] - starts[:-1]
    at_end = starts[1:]
    bars["last_trade_id"] = _after(before["last_trade_id"], trades["last_id"])[at_end]
    bars["last_trade_price"] = _after(before["last_trade_price"], price)[at_end]
    bars["last_trade_us"] = _after(before["last_trade_us"], trades["time_us"])[at_end]
    for name, of_side in (("last_buy_price", is_buy), ("last_sell_price", ~is_buy)):
        newest = _after(0, np.maximum.accumulate(np.where(of_side, np.arange(1, len(trades) + 1), 0)))
        bars[name] = _after(before[name], price)[newest[at_end]]


def _summarise_quotes(bars: Bars, quotes: Quotes, edges_us: Ints, before: np.void) -> None:
    quotes, starts = _by_bar(quotes, "update_id", edges_us)
    # Update ids give the order, and time may not run against it (replayed quote times are estimates).
    time_us = np.maximum.accumulate(quotes["time_us"])

    # Each quote beside the one it replaced. A side that is gone has no price to compare with, so only a book
    # with both sides that replaces another such one is flow; the very first of a symbol replaces nothing.
    book = {name: _after(before[name], quotes[name]) for name in _BOOK}
    bid, bid_qty, ask, ask_qty = (book[name] for name in ("bid_price", "bid_qty", "ask_price", "ask_qty"))
    is_whole = (bid > 0) & (ask > 0)
    # The order flow of each side fits into 64 bits, but not their difference.
    bids = np.where(bid[1:] >= bid[:-1], bid_qty[1:], 0) - np.where(bid[1:] <= bid[:-1], bid_qty[:-1], 0)
    asks = np.where(ask[1:] <= ask[:-1], ask_qty[1:], 0) - np.where(ask[1:] >= ask[:-1], ask_qty[:-1], 0)
    mid = _added(bid, ask)
    level = np.rint(_imbalances(bid_qty, ask_qty) * _IMBALANCE_SCALE).astype(np.int64)
    if not is_whole.all():
        is_flow = is_whole[1:] & is_whole[:-1]
        bids, asks = np.where(is_flow, bids, 0), np.where(is_flow, asks, 0)
        mid, level = np.where(is_whole, mid, 0), np.where(is_whole, level, 0)
    has_moved = mid[1:] != mid[:-1]
    bars["quote_count"] = starts[1:] - starts[:-1]
    bars["ofi"] = _sums(split(bids) - split(asks), starts).T

    # Integrals up to each edge of the step function that the quotes are, then their differences.
    since_us = _after(edges_us[0], time_us)
    bars["imbalance_us"] = _integrals(level, since_us, edges_us)
    bars["quoted_us"] = _integrals(is_whole.astype(np.int64), since_us, edges_us)

    at_end = starts[1:]
    for name in _BOOK:
        bars[name] = book[name][at_end]
    bars["last_quote_us"] = _after(before["last_quote_us"], time_us)[at_end]
    last_move = _after(0, np.maximum.accumulate(np.where(has_moved, np.arange(1, len(mid)), 0)))
    bars["mid_change_us"] = _after(before["mid_change_us"], time_us)[last_move[at_end]]


def _imbalances(bid_qty: Ints, ask_qty: Ints) -> npt.NDArray[np.float64]:
    """(bid - ask) / (bid + ask) of quantities, correctly rounded; 0 of none. Shape (quotes,)."""
    if (bid_qty | ask_qty).max(initial=0) < 2**52:  # then the sums are exact as doubles
        return np.asarray((bid_qty - ask_qty) / np.maximum(bid_qty + ask_qty, 1))
    bid, ask = split(bid_qty), split(ask_qty)
    return ratio(bid - ask, bid + ask)


def _by_bar(rows: npt.NDArray[Any], ids: str, edges_us: Ints) -> tuple[npt.NDArray[Any], Ints]:
    """`rows` by bar and within it by id, and how many of them come before each edge."""
    bar_of, id_of = rows["time_us"] // BAR_US, rows[ids]
    if (bar_of[1:] < bar_of[:-1]).any() or (id_of[1:] < id_of[:-1]).any():
        order = np.lexsort((id_of, bar_of))
        rows, bar_of = _chosen(rows, order), bar_of[order]
    return rows, np.searchsorted(bar_of, edges_us // BAR_US)


def _after(before: Any, values: Ints) -> Ints:
    """`values` behind `before`: entry n is what holds once n of them have come."""
    column = np.empty(len(values) + 1, np.int64)
    column[0], column[1:] = before, values
    return column


def _sums(values: Ints, starts: Ints) -> Ints:
    """Sums of the columns of `values`, (columns, N), between consecutive `starts`. Shape (columns, sums)."""
    edges = running(values)[:, starts]
    return np.asarray(edges[:, 1:] - edges[:, :-1])


def _integrals(level: Ints, since_us: Ints, edges_us: Ints) -> Ints:
    """Integrals between consecutive edges of the step function worth `level[k]` from `since_us[k]` on."""
    whole = _after(0, np.cumsum(level[:-1] * (since_us[1:] - since_us[:-1])))
    at = np.searchsorted(since_us, edges_us, side="right") - 1
    running = whole[at] + level[at] * (edges_us - since_us[at])
    return np.asarray(running[1:] - running[:-1])


def _chosen(rows: npt.NDArray[Any], which: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(raw(rows)[which].view(rows.dtype))


def _joined(rows: npt.NDArray[Any], more: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([raw(rows), raw(more)]).view(rows.dtype)

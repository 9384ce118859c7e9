"""Event-time bars: what a bar is, how ticks are summarised into it, and its prices.

Time is cut into bars of 100 ms of the exchange's clock. A bar is summarised once, from its ticks sorted by
id, into one row of `BAR`. All sums are exact integers, of quantities wider than 64 bits (`market.sums`). So
the bits of a row depend only on which ticks fell into the bar and on the row before it: not on how the stream
was cut into batches, in which order connections delivered, or how often. Serving (`features.ring`) and
history (`segments`) run the same code.

Each bar also has the newest reference quote before its end: the best prices of the USD-M perpetual of the
same base, by the exchange's time. Reference quotes neither begin a segment nor prolong one, and those from
before the bar of its first spot tick are left out.

Bars of 100 ms are summed up into whole seconds (`SECOND`) for the minute that volatility, depth and volume
are measured over. A silence of more than a minute ends a segment: the next tick starts another, as if it were
the first.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.market.gaps import QUOTES_MISSING_US
from tickcast.market.sums import products, ratio, running, split
from tickcast.market.ticks import NO_QUOTES, QUOTE, Quotes, Trades, selected
from tickcast.units import SECOND_US

BAR_US = 100_000
BARS_PER_S = SECOND_US // BAR_US
SILENCE_US = 60 * SECOND_US  # this long without a tick ends a segment
PROXY_LIFE_US = 10 * SECOND_US
REFERENCE_LIFE_US = 2 * SECOND_US  # an older reference quote is as good as none
BASIS_STEPS = 10_000  # to a bp: the basis is a whole number of them, so that its sums are exact
_BASIS_LIMIT = 500 * BASIS_STEPS  # a perpetual further from spot is an error
_DEVIATION_LIMIT = 50 * BASIS_STEPS  # a minute's squares, with weights up to 2^10, stay below 2^63
_MEAN_BARS, _MEAN_HALF_LIFE = 50, 20  # of the basis

# Quantities and prices are mantissas at 1e-8, times µs of the exchange's clock. Sums of quantities, and of
# price times quantity at 1e-16, are limbs, lowest first (`market.sums`). Everything after `notional` but the
# sums is the state at the bar's end and is carried from bar to bar; 0 means "not seen yet".
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
        ("last_buy_price", "<i8"),  # of the last trade with a buyer as the aggressor
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
        # The newest reference quote, and its time.
        ("reference_bid_price", "<i8"),
        ("reference_bid_qty", "<i8"),
        ("reference_ask_price", "<i8"),
        ("reference_ask_qty", "<i8"),
        ("reference_us", "<i8"),
    ]
)
_IMBALANCE_SCALE = 10**6
_BOOK = ("update_id", "bid_price", "bid_qty", "ask_price", "ask_qty")
_OF_REFERENCE = ("bid_price", "bid_qty", "ask_price", "ask_qty", "time_us")
_REFERENCE = slice(-len(_OF_REFERENCE), None)  # the last words of a bar
_IN_QUOTE = [(QUOTE.names or ()).index(name) for name in _OF_REFERENCE]  # which words of a quote these are

# A whole second of bars, by the same units. `mid2` and `proxy2` are twice the price at its end; 0: unknown.
# So is `deviation`, that of the basis from its mean (`deviations`); known where `deviation_known` is 1.
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
        ("deviation", "<i8"),
        ("deviation_known", "<i8"),
    ]
)
_SUMMED = ("trade_count", "buy_qty", "sell_qty", "notional", "quote_count")

Bars = npt.NDArray[Any]  # of BAR, shape (bars,)
Seconds = npt.NDArray[Any]  # of SECOND, shape (seconds,)
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
TwicePrices = npt.NDArray[np.uint64]  # the sum of two prices needs the 64th bit

NO_BAR = np.zeros(1, BAR)[0]  # the row before the first


def is_quoted(bars: Bars) -> npt.NDArray[np.bool_]:
    """Whether the book at each bar's end is known and has both sides. A book that does not change while
    nothing is traded is a quiet one; trades without quotes mean that quotes are missing. Shape (bars,)."""
    stalled = bars["last_trade_us"] - bars["last_quote_us"] > QUOTES_MISSING_US
    return np.asarray((bars["bid_price"] > 0) & (bars["ask_price"] > 0) & ~stalled)


def twice_mids(bars: Bars) -> TwicePrices:
    """Twice the mid at each bar's end, 1e-8; 0 where it is not known. Shape (bars,)."""
    return np.where(is_quoted(bars), _added(bars["bid_price"], bars["ask_price"]), 0)


def twice_proxy_mids(bars: Bars) -> TwicePrices:
    """Twice the mean of the last price that a buyer paid and the last that a seller got, 1e-8: the substitute
    for the mid without quotes. 0 where one is not known or the last trade is too old. Shape (bars,)."""
    buy, sell = bars["last_buy_price"], bars["last_sell_price"]
    is_known = (buy > 0) & (sell > 0) & (bars["end_us"] - bars["last_trade_us"] <= PROXY_LIFE_US)
    return np.where(is_known, _added(buy, sell), 0)


def mids(bars: Bars) -> npt.NDArray[np.float64]:
    """The mid at each bar's end, 1e-8; NaN where it is not known. Shape (bars,)."""
    return _prices(twice_mids(bars))


def spreads_bp(bars: Bars) -> npt.NDArray[np.float64]:
    """The spread at each bar's end in bp of the mid; NaN where that is not known. Shape (bars,)."""
    return np.asarray((bars["ask_price"] - bars["bid_price"]) / mids(bars) * 1e4)


def proxy_mids(bars: Bars) -> npt.NDArray[np.float64]:
    """The substitute for the mid without quotes, 1e-8; NaN where it is not known. Shape (bars,)."""
    return _prices(twice_proxy_mids(bars))


def _added(price: Ints, other: Ints) -> TwicePrices:
    return np.asarray(price.view(np.uint64) + other.view(np.uint64))


def _prices(twice: TwicePrices) -> npt.NDArray[np.float64]:
    return np.where(twice > 0, twice / 2, np.nan)


def basis(bars: Bars, twice: TwicePrices) -> tuple[Ints, Ints]:
    """How far the perpetual's mid is above the spot mid at each bar's end, ln(perpetual / spot) in steps of
    1/`BASIS_STEPS` bp, and 1 where it is known: both mids are, the reference quote is fresh, and the two are
    within 500 bp. `twice` are the `twice_mids`. Shapes (bars,)."""
    bid, ask = bars["reference_bid_price"], bars["reference_ask_price"]
    is_fresh = bars["end_us"] - bars["reference_us"] <= REFERENCE_LIFE_US
    known = is_fresh & (bid > 0) & (ask > 0) & (twice > 0)
    ratios = np.where(known, _added(bid, ask) / np.maximum(twice, 1), 1.0)
    steps = np.rint(np.log(ratios) * (1e4 * BASIS_STEPS))
    known &= np.abs(steps) <= _BASIS_LIMIT
    return np.where(known, steps, 0).astype(np.int64), known.astype(np.int64)


def deviations(steps: Ints, known: Ints) -> Floats:
    """The `basis` of each bar less its exponential mean (half-life 2 s) over the five seconds of bars up to
    and with it, as far as they are known, in steps; 0 where it is not known itself. Shape (bars,)."""
    padded = np.zeros((2, _MEAN_BARS - 1 + len(steps)), np.int64)
    padded[0, _MEAN_BARS - 1 :], padded[1, _MEAN_BARS - 1 :] = steps, known
    total, weight = (np.correlate(row, mean_weights(0)) for row in padded)
    return np.where(known > 0, steps - total / np.maximum(weight, 1), 0.0)


@functools.cache
def mean_weights(elapsed_ms: int) -> Ints:
    """The weights of bars in the mean basis of five seconds, the newest last. Where that bar is partial, of
    `elapsed_ms`, it counts by its share of a bar, and a bar more by the rest. Shape (50,), then (51,)."""
    share = (elapsed_ms or BAR_US // 1000) / (BAR_US // 1000)
    weights = [share, *(0.5 ** ((share + n) / _MEAN_HALF_LIFE) for n in range(_MEAN_BARS - 1))]
    if elapsed_ms:
        weights.append((1 - share) * 0.5 ** ((share + _MEAN_BARS - 1) / _MEAN_HALF_LIFE))
    return np.array([round(2**20 * weight) for weight in weights[::-1]], np.int64)


def whole_seconds(bars: Bars, newest: int | None = None) -> Seconds:
    """The seconds that end within the `newest` rows of `bars` (by default all), which follow each other
    without a hole; the first may have begun before them. Shape (seconds,)."""
    before, bars = bars, bars if newest is None else bars[len(bars) - newest :]
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
    if at_end["reference_us"].any():
        steps, known = basis(before, twice_mids(before))
        at = ends + (len(before) - len(bars))
        found = np.clip(np.rint(deviations(steps, known)[at]), -_DEVIATION_LIMIT, _DEVIATION_LIMIT)
        rows["deviation"], rows["deviation_known"] = found.astype(np.int64), known[at]
    return rows


def segments(trades: Trades, quotes: Quotes, reference: Quotes = NO_QUOTES) -> list[Bars]:
    """The bars of history: one array for each segment of ticks without a silence of a minute.

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
        until_us = (bar_index(int(end_us)) + 1) * BAR_US
        some_trades, some_quotes = (
            selected(ticks, (ticks["time_us"] >= start_us) & (ticks["time_us"] <= end_us))
            for ticks in (trades, quotes)
        )
        is_within = (reference["time_us"] >= first * BAR_US) & (reference["time_us"] < until_us)
        some_reference = selected(reference, is_within)
        found.append(summarise(some_trades, some_quotes, first, until_us, NO_BAR, some_reference))
    return found


def bar_index(time_us: int) -> int:
    """The bar of `time_us`: bar k covers [k, k + 1) times 100 ms since the epoch."""
    return time_us // BAR_US


def bars_until(time_us: int) -> int:
    """The number of bars since the epoch that begin before `time_us`: the last of them may end after it."""
    return -(-time_us // BAR_US)


def summarise(
    trades: Trades,
    quotes: Quotes,
    first_bar: int,
    end_us: int,
    before: np.void,
    reference: Quotes = NO_QUOTES,
) -> Bars:
    """The bars from `first_bar` up to `end_us`, of ticks that all fall into them; of `reference`, those from
    before the segment's first tick are ignored. Where `end_us` lies within a bar, the last one is *partial*:
    it ends there. `before` is the row just before them (`NO_BAR` where there is none). Shape (bars,)."""
    count = bars_until(end_us) - first_bar
    bars = np.zeros(count, BAR)
    edges_us = np.arange(first_bar, first_bar + count + 1) * BAR_US
    edges_us[-1] = end_us
    bars["end_us"] = edges_us[1:]
    _summarise_trades(bars, trades, edges_us, before)
    _summarise_quotes(bars, quotes, edges_us, before)
    _summarise_reference(bars, reference, before)
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

    # Each quote with the one it replaced. A missing side has no price to compare with, so only a book with
    # both sides that replaces another such one is flow; the first of a symbol replaces nothing.
    book = {name: _after(before[name], quotes[name]) for name in _BOOK}
    bid, bid_qty, ask, ask_qty = (book[name] for name in ("bid_price", "bid_qty", "ask_price", "ask_qty"))
    is_whole = (bid > 0) & (ask > 0)
    # The order flow of each side fits into 64 bits, their difference does not.
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

    # Integrals of the quotes' step function up to each edge, then their differences.
    since_us = _after(edges_us[0], time_us)
    bars["imbalance_us"] = _integrals(level, since_us, edges_us)
    bars["quoted_us"] = _integrals(is_whole.astype(np.int64), since_us, edges_us)

    at_end = starts[1:]
    for name in _BOOK:
        bars[name] = book[name][at_end]
    bars["last_quote_us"] = _after(before["last_quote_us"], time_us)[at_end]
    last_move = _after(0, np.maximum.accumulate(np.where(has_moved, np.arange(1, len(mid)), 0)))
    bars["mid_change_us"] = _after(before["mid_change_us"], time_us)[last_move[at_end]]


def _summarise_reference(bars: Bars, reference: Quotes, before: np.void) -> None:
    if not len(reference) and not before["reference_us"]:
        return
    columns = bars.view(np.int64).reshape(len(bars), BAR.itemsize // 8)[:, _REFERENCE]
    columns[:] = np.frombuffer(before.tobytes(), np.int64)[_REFERENCE]
    if len(reference) and not (before["last_trade_us"] or before["last_quote_us"]):
        has_tick = (bars["trade_count"] > 0) | (bars["quote_count"] > 0)
        begun = int(np.argmax(has_tick)) if has_tick.any() else len(bars)
        first = bar_index(int(bars["end_us"][0]) - 1) + begun
        reference = selected(reference, reference["time_us"] >= first * BAR_US)
    if len(reference):
        times_us = reference["time_us"]
        if (times_us[1:] <= times_us[:-1]).any():
            reference = selected(reference, np.lexsort((reference["update_id"], times_us)))
        count = np.searchsorted(reference["time_us"], bars["end_us"])
        has_one = count > 0
        newest = selected(reference, count[has_one] - 1)
        columns[has_one] = newest.view(np.int64).reshape(len(newest), -1)[:, _IN_QUOTE]


def _imbalances(bid_qty: Ints, ask_qty: Ints) -> npt.NDArray[np.float64]:
    """(bid - ask) / (bid + ask) of quantities, correctly rounded; 0 of none. Shape (quotes,)."""
    if (bid_qty | ask_qty).max(initial=0) < 2**52:  # then the sums are exact as doubles
        return np.asarray((bid_qty - ask_qty) / np.maximum(bid_qty + ask_qty, 1))
    bid, ask = split(bid_qty), split(ask_qty)
    return ratio(bid - ask, bid + ask)


def _by_bar(rows: npt.NDArray[Any], ids: str, edges_us: Ints) -> tuple[npt.NDArray[Any], Ints]:
    """`rows` sorted by bar and within it by id, and how many of them come before each edge."""
    bar_of, id_of = rows["time_us"] // BAR_US, rows[ids]
    if (bar_of[1:] < bar_of[:-1]).any() or (id_of[1:] < id_of[:-1]).any():
        order = np.lexsort((id_of, bar_of))
        rows, bar_of = selected(rows, order), bar_of[order]
    return rows, np.searchsorted(bar_of, -(-edges_us // BAR_US))


def _after(before: Any, values: Ints) -> Ints:
    """`before` followed by `values`: entry n holds after n of them. Shape (values + 1,)."""
    column = np.empty(len(values) + 1, np.int64)
    column[0], column[1:] = before, values
    return column


def _sums(values: Ints, starts: Ints) -> Ints:
    """Sums of the columns of `values`, (columns, N), between consecutive `starts`. Shape (columns, sums)."""
    edges = running(values)[:, starts]
    return np.asarray(edges[:, 1:] - edges[:, :-1])


def _integrals(level: Ints, since_us: Ints, edges_us: Ints) -> Ints:
    """Integrals between consecutive edges of the step function that is `level[k]` from `since_us[k]` on."""
    whole = _after(0, np.cumsum(level[:-1] * (since_us[1:] - since_us[:-1])))
    at = np.searchsorted(since_us, edges_us, side="right") - 1
    running = whole[at] + level[at] * (edges_us - since_us[at])
    return np.asarray(running[1:] - running[:-1])

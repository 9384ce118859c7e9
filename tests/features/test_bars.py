"""Bars: every field compared with a loop in plain Python."""

from typing import Any

import numpy as np
import pytest

from tests.fixtures.market import START_US, random_ticks
from tickcast.features.bars import (
    BAR,
    BAR_US,
    NO_BAR,
    Bars,
    bar_index,
    is_quoted,
    mids,
    summarise,
)
from tickcast.market.sums import integers
from tickcast.market.ticks import Quotes, Trades


def whole(trades: Trades, quotes: Quotes, count: int) -> Bars:
    return summarise(trades, quotes, bar_index(START_US), START_US + count * BAR_US, NO_BAR)


def plain(rows: np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]], name: str) -> list[int]:
    """A field as Python's integers, sums put together from their limbs."""
    column = rows[name]
    values: list[int] = integers(column.T) if column.ndim == 2 else column.tolist()
    return values


def bars_by_loop(
    trades: Trades, quotes: Quotes, count: int, end_us: int | None = None
) -> list[dict[str, Any]]:
    """An oracle that shares nothing with the code: one tick after the other, one µs span after the other.
    The last bar ends at `end_us`, if that is given."""
    state = {name: 0 for name in BAR.names or ()}
    bars = []
    for k in range(bar_index(START_US), bar_index(START_US) + count):
        start, end = k * BAR_US, (k + 1) * BAR_US
        if end_us is not None and k == bar_index(START_US) + count - 1:
            end = end_us
        sums = (
            "trade_count",
            "buy_qty",
            "sell_qty",
            "notional",
            "quote_count",
            "ofi",
            "imbalance_us",
            "quoted_us",
        )
        state |= dict.fromkeys(sums, 0) | {"end_us": end}
        for t in sorted(
            (t for t in trades.tolist() if start <= t[0] < end), key=lambda t: t[2]
        ):  # time, receive, first, last, price, qty, side
            state["trade_count"] += 1
            state["buy_qty" if t[6] > 0 else "sell_qty"] += t[5]
            state["notional"] += t[4] * t[5]
            state |= {"last_trade_id": t[3], "last_trade_price": t[4], "last_trade_us": t[0]}
            state["last_buy_price" if t[6] > 0 else "last_sell_price"] = t[4]
        clock = start
        for q in sorted((q for q in quotes.tolist() if start <= q[0] < end), key=lambda q: q[2]):
            clock = pass_time(state, clock, max(clock, q[0]))
            apply_quote(state, q, clock)
        pass_time(state, clock, end)
        bars.append(dict(state))
    return bars


def pass_time(state: dict[str, Any], since_us: int, until_us: int) -> int:
    if state["bid_price"] and state["ask_price"]:
        depth = state["bid_qty"] + state["ask_qty"]
        level = int(np.rint((state["bid_qty"] - state["ask_qty"]) / depth * 1e6))
        state["imbalance_us"] += level * (until_us - since_us)
        state["quoted_us"] += until_us - since_us
    return until_us


def apply_quote(state: dict[str, Any], quote: tuple[int, ...], time_us: int) -> None:
    _, _, update_id, bid, bid_qty, ask, ask_qty = quote
    state["quote_count"] += 1
    was_whole, is_whole = state["bid_price"] and state["ask_price"], bid and ask
    if was_whole and is_whole:
        state["ofi"] += bid_qty if bid >= state["bid_price"] else 0
        state["ofi"] -= state["bid_qty"] if bid <= state["bid_price"] else 0
        state["ofi"] -= ask_qty if ask <= state["ask_price"] else 0
        state["ofi"] += state["ask_qty"] if ask >= state["ask_price"] else 0
    if (bid + ask if is_whole else 0) != (state["bid_price"] + state["ask_price"] if was_whole else 0):
        state["mid_change_us"] = time_us
    state |= {"bid_price": bid, "bid_qty": bid_qty, "ask_price": ask, "ask_qty": ask_qty}
    state |= {"update_id": update_id, "last_quote_us": time_us}


@pytest.mark.parametrize("rates", [(30, 60), (2, 3), (200, 5), (0.5, 300)])
def test_every_field_equals_the_loop(rates: tuple[float, float]) -> None:
    trades, quotes = random_ticks(7, 6, *rates)
    bars = whole(trades, quotes, 60)
    expected = bars_by_loop(trades, quotes, 60)
    for name in BAR.names or ():
        assert plain(bars, name) == [bar[name] for bar in expected], name


@pytest.mark.parametrize("side", ["bid", "ask"])
def test_after_a_quote_that_lacks_a_side_there_is_no_mid(side: str) -> None:
    trades, quotes = random_ticks(14, 6)
    gone = slice(100, 160)
    for name in (f"{side}_price", f"{side}_qty"):
        quotes[name][gone] = 0
    bars = whole(trades, quotes, 60)
    expected = bars_by_loop(trades, quotes, 60)
    for name in BAR.names or ():
        assert plain(bars, name) == [bar[name] for bar in expected], name
    newest = np.searchsorted(quotes["time_us"], bars["end_us"]) - 1
    is_gone = (newest >= 100) & (newest < 160)
    assert is_gone.any()
    assert is_quoted(bars).tolist() == (~is_gone & (newest >= 0)).tolist()
    assert np.isnan(mids(bars)[is_gone]).all()

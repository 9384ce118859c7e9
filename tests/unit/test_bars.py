"""Bars: every field against a loop over plain Python, and the promises about order, repeats and lateness."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.market import START_US, batch, batches, random_ticks
from tickcast.bars import BAR, BAR_US, WINDOW_BARS, BarRing, Bars, bar_index, summarise
from tickcast.ticks import Quotes, Trades

EMPTY = np.zeros(1, BAR)[0]
LATENESS_US = 100_000


def whole(trades: Trades, quotes: Quotes, count: int) -> Bars:
    return summarise(trades, quotes, bar_index(START_US), count, EMPTY)


def folded(stream: list, lateness_us: int = LATENESS_US) -> BarRing:
    ring = BarRing(lateness_us)
    for piece in stream:
        list(ring.fold(piece, 1_000_000))
    return ring


def bars_by_loop(trades: Trades, quotes: Quotes, count: int) -> list[dict]:
    """An oracle that shares nothing with the code: one tick after the other, one µs span after the other."""
    state = {name: 0 for name in BAR.names}
    bars = []
    for k in range(bar_index(START_US), bar_index(START_US) + count):
        start, end = k * BAR_US, (k + 1) * BAR_US
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
            state["notional"] += round(float(t[4]) * float(t[5]) / 1e8)
            state |= {"last_trade_id": t[3], "last_trade_price": t[4], "last_trade_us": t[0]}
        clock = start
        for q in sorted((q for q in quotes.tolist() if start <= q[0] < end), key=lambda q: q[2]):
            clock = pass_time(state, clock, max(clock, q[0]))
            apply_quote(state, q, clock)
        pass_time(state, clock, end)
        bars.append(dict(state))
    return bars


def pass_time(state: dict, since_us: int, until_us: int) -> int:
    if state["update_id"]:
        depth = state["bid_qty"] + state["ask_qty"]
        level = int(np.rint((state["bid_qty"] - state["ask_qty"]) / depth * 1e6))
        state["imbalance_us"] += level * (until_us - since_us)
        state["quoted_us"] += until_us - since_us
    return until_us


def apply_quote(state: dict, quote: tuple, time_us: int) -> None:
    _, _, update_id, bid, bid_qty, ask, ask_qty = quote
    state["quote_count"] += 1
    if state["update_id"]:
        state["ofi"] += bid_qty if bid >= state["bid_price"] else 0
        state["ofi"] -= state["bid_qty"] if bid <= state["bid_price"] else 0
        state["ofi"] -= ask_qty if ask <= state["ask_price"] else 0
        state["ofi"] += state["ask_qty"] if ask >= state["ask_price"] else 0
    if not state["update_id"] or bid + ask != state["bid_price"] + state["ask_price"]:
        state["mid_change_us"] = time_us
    state |= {"bid_price": bid, "bid_qty": bid_qty, "ask_price": ask, "ask_qty": ask_qty}
    state |= {"update_id": update_id, "last_quote_us": time_us}


@pytest.mark.parametrize("rates", [(30, 60), (2, 3), (200, 5), (0.5, 300)])
def test_every_field_equals_the_loop(rates: tuple[float, float]) -> None:
    trades, quotes = random_ticks(7, 6, *rates)
    bars = whole(trades, quotes, 60)
    expected = bars_by_loop(trades, quotes, 60)
    for name in BAR.names:
        assert bars[name].tolist() == [bar[name] for bar in expected], name


def test_no_ticks_make_empty_bars() -> None:
    none = random_ticks(1, 0.1)
    bars = whole(none[0][:0], none[1][:0], 3)
    assert not bars["quoted_us"].any()
    assert not bars["bid_price"].any()
    assert len(bars) == 3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(START_US, START_US + 8_000_000), max_size=60), st.randoms())
def test_same_bits_for_any_batches_order_and_repeats(seed: int, cuts_us: list[int], rng: object) -> None:
    trades, quotes = random_ticks(seed, 8)
    expected = folded([batch(trades, quotes)])
    stream = []
    for piece in batches(trades, quotes, cuts_us):
        t, q = list(piece.trades), list(piece.quotes)
        rng.shuffle(t)
        rng.shuffle(q)
        stream.append(piece._replace(trades=np.array(t, trades.dtype), quotes=np.array(q, quotes.dtype)))
        if rng.random() < 0.5:
            stream.append(rng.choice(stream))  # an earlier batch once more, by another connection
    got = folded(stream)
    assert got.bars.tobytes() == expected.bars.tobytes()
    assert got.next_bar == expected.next_bar
    assert (got.late_trades, got.late_quotes) == (0, 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(START_US, START_US + 8_000_000), min_size=1, max_size=60))
def test_disorder_below_the_lateness_changes_nothing(seed: int, cuts_us: list[int]) -> None:
    """Each tick is delayed by less than the lateness, so that batches overlap in event time."""
    trades, quotes = random_ticks(seed, 8)
    rng = np.random.default_rng(seed)
    arrive = [rows["time_us"] + rng.integers(0, LATENESS_US, len(rows)) for rows in (trades, quotes)]
    stream, newest_us = [], 0
    edges = [START_US, *sorted(cuts_us), 2**62]
    for start, stop in zip(edges, edges[1:], strict=False):
        t, q = (rows[(at >= start) & (at < stop)] for rows, at in zip((trades, quotes), arrive, strict=True))
        if len(t) + len(q):
            newest_us = max(newest_us, batch(t, q).watermark_us)
            stream.append(batch(t, q, newest_us))
    got, expected = folded(stream), folded([batch(trades, quotes)])
    assert (got.late_trades, got.late_quotes) == (0, 0)
    assert got.bars[-60:].tobytes() == expected.bars[-60:].tobytes()


def test_a_late_trade_is_counted_and_named_not_folded() -> None:
    trades, quotes = random_ticks(3, 5)
    victim = trades[10:11]
    rest = np.delete(trades, 10)
    ring = folded([batch(rest, quotes)])
    before = ring.bars.tobytes()
    list(ring.fold(batch(victim, quotes[:0], ring.watermark_us), 1_000_000))
    assert ring.bars.tobytes() == before
    assert (ring.late_trades, ring.late_ids) == (1, [int(victim["first_id"][0])])
    list(ring.fold(batch(victim, quotes[:0], ring.watermark_us), 1_000_000))
    assert ring.late_trades == 1  # the second time it is a repeat


def test_a_lost_trade_is_a_hole() -> None:
    trades, quotes = random_ticks(3, 5)
    ring = folded([batch(np.delete(trades, [7, 8]), quotes)])
    assert ring.trade_ids.holes() == [(int(trades["first_id"][7]), int(trades["first_id"][8]))]


def test_a_repeated_old_quote_is_not_late() -> None:
    trades, quotes = random_ticks(3, 5)
    ring = folded([batch(trades, quotes)])
    list(ring.fold(batch(trades[:0], quotes[:5], ring.watermark_us), 1_000_000))
    assert ring.late_quotes == 0


def test_fold_yields_each_second_once_with_its_bar_newest() -> None:
    trades, quotes = random_ticks(4, 6)
    ring, seconds = BarRing(LATENESS_US), []
    for piece in batches(trades, quotes, [START_US + k * 370_000 for k in range(1, 16)]):
        for instant_us in ring.fold(piece, 1_000_000):
            assert int(ring.bars[-1]["end_us"]) == instant_us == ring.closed_us
            seconds.append(instant_us)
    first = -(-START_US // 1_000_000) * 1_000_000
    assert seconds == list(range(first, seconds[-1] + 1, 1_000_000))
    assert len(seconds) >= 5


def test_a_watermark_closes_bars_of_a_quiet_market() -> None:
    trades, quotes = random_ticks(4, 2)
    ring = folded([batch(trades, quotes)])
    end_us = START_US + 9_000_000
    silent = batch(trades[:0], quotes[:0], end_us)
    assert list(ring.fold(silent, 1_000_000))[-1] <= end_us - LATENESS_US
    assert ring.closed_us == end_us - LATENESS_US
    assert int(ring.bars[-1]["update_id"]) == int(quotes["update_id"][-1])


def test_the_ring_keeps_a_minute_and_survives_a_long_gap() -> None:
    trades, quotes = random_ticks(5, 70, 3, 5)
    ring = folded([batch(trades, quotes)])
    assert len(ring.bars) == WINDOW_BARS
    later = ring.watermark_us + 3600 * 1_000_000
    assert list(ring.fold(batch(trades[:0], quotes[:0], later), 1_000_000)) == []
    assert ring.closed_us == (later - LATENESS_US) // BAR_US * BAR_US
    assert not ring.bars["quote_count"].any()


def test_a_batch_before_any_tick_does_nothing() -> None:
    trades, quotes = random_ticks(5, 1)
    ring = folded([batch(trades[:0], quotes[:0], START_US)])
    assert ring.next_bar == -1

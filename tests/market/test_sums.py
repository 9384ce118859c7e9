"""Sums are exact and never wrap: compared with Python's integers, and for one market in any unit."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.features.test_bars import bars_by_loop, plain
from tests.fixtures.market import START_US, batch, batches
from tests.fixtures.receipts import CHALLENGER, MODEL, receipts_of, through_bronze
from tickcast.features.bars import (
    BAR,
    NO_BAR,
    SECOND,
    bar_index,
    is_quoted,
    mids,
    proxy_mids,
    segments,
    summarise,
    whole_seconds,
)
from tickcast.features.ring import BarRing
from tickcast.features.vector import FEATURE_NAMES
from tickcast.market.sources import Origin
from tickcast.market.sums import integers, products, ratio, running, single, split, total
from tickcast.market.ticks import NO_QUOTES, Quotes, Trades, quotes_array, trades_array
from tickcast.market.trade_ledger import LEDGER_ROW, TradesContradict, ledger_rows, merged
from tickcast.market.wire import QUIET_UNKNOWN, TickBatch
from tickcast.model.dataset import rows_of_hour
from tickcast.serving.prediction import Row, features_record, row_of
from tickcast.serving.records import encode
from tickcast.serving.reproduce import Surroundings, reproduce
from tickcast.units import HOUR_US, SECOND_US

MOST = 2**63 - 1
HOUR = START_US // HOUR_US * HOUR_US
any_int = st.one_of(st.integers(-(2**63), MOST), st.integers(-3, 3))
mantissas = st.one_of(st.integers(1, MOST), st.integers(MOST - 3, MOST), st.integers(1, 3))


# The arithmetic


@given(st.lists(any_int, max_size=5))
def test_limbs_represent_the_number_and_its_sums(values: list[int]) -> None:
    limbs = split(np.array(values, np.int64))
    assert integers(limbs) == values
    assert integers(running(limbs)[:, -1:]) == [sum(values)]
    assert total(limbs.T) == sum(values)


@given(st.lists(st.tuples(st.integers(0, MOST), st.integers(0, MOST)), min_size=1, max_size=5))
@example([(MOST, MOST)] * 3)
def test_products_are_exact(pairs: list[tuple[int, int]]) -> None:
    limbs = products(*np.array(pairs, np.int64).T)
    assert integers(limbs) == [a * b for a, b in pairs]
    assert total(limbs.T) == sum(a * b for a, b in pairs)


@given(st.integers(0, MOST), st.lists(st.integers(0, MOST), max_size=4))
def test_a_remainder_is_never_negative(whole: int, parts: list[int]) -> None:
    limbs = split(np.array([whole])) - running(split(np.array(parts, np.int64)))[:, -1:]
    assert single(limbs).tolist() == [max(whole - sum(parts), 0)]


@given(st.lists(st.tuples(any_int, st.integers(0, MOST), st.integers(0, 1200)), min_size=1, max_size=6))
@example([(2**53 + 1, 1, 1), (1, 3, 1)])
@example([(9, 2**53 + 1, 1000), (5, 0, 7)])
@example([(2**44 + 1, 3, 1025), (0, 0, 1)])
def test_a_ratio_is_the_nearest_double_to_the_exact_quotient(rows: list[tuple[int, int, int]]) -> None:
    above, below, times = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    exact = [float(Fraction(a * t, b)) if b else 0.0 for a, b, t in rows]
    together = ratio(split(above), split(below), times)
    assert together.tolist() == exact
    one_by_one = [
        ratio(split(above[n : n + 1]), split(below[n : n + 1]), times[n : n + 1]) for n in range(len(rows))
    ]
    assert np.concatenate(one_by_one).tobytes() == together.tobytes()
    stacked = ratio(np.stack([split(above), split(-(above // 2))], axis=1), split(below), times)
    assert stacked.shape == (2, len(rows))
    assert stacked[0].tobytes() == together.tobytes()


def test_limbs_beyond_what_a_double_holds_cancel_exactly() -> None:
    """Low limbs that many addends made large, against a high one."""
    limbs = np.array([[2**53 + 1, 2**60 + 1], [-(2**21), -(2**28)]])
    assert ratio(limbs, split(np.array([1, 1]))).tolist() == [1.0, 1.0]


# Every sum over ticks

times_us = st.integers(START_US, START_US + 2_300_000 - 1)
trade_rows = st.lists(st.tuples(times_us, mantissas, mantissas, st.sampled_from([-1, 1])), max_size=8)
quote_rows = st.lists(st.tuples(times_us, mantissas, mantissas, mantissas, mantissas), max_size=8)


def ticks_of(trades: list[Any], quotes: list[Any]) -> tuple[Trades, Quotes]:
    """Ticks in time order, ids in that order; the higher of two prices is the ask."""
    trades, quotes = sorted(trades), sorted(quotes)
    return (
        trades_array((t, t, n, n, price, qty, side) for n, (t, price, qty, side) in enumerate(trades, 1)),
        quotes_array(
            (t, t, n, min(one, other), bid_qty, max(one, other), ask_qty)
            for n, (t, one, bid_qty, other, ask_qty) in enumerate(quotes, 1)
        ),
    )


@given(trade_rows, quote_rows)
@example([(START_US, MOST, MOST, 1)] * 5, [(START_US + n, MOST - n, MOST, MOST, MOST) for n in range(5)])
@example([], [(START_US, 5, MOST, 9, 1), (START_US + 1, 4, 1, 8, MOST), (START_US + 2, 4, MOST, 8, 1)])
def test_bars_seconds_history_and_live_hold_the_true_sums(
    trade_list: list[Any], quote_list: list[Any]
) -> None:
    trades, quotes = ticks_of(trade_list, quote_list)
    truth = bars_by_loop(trades, quotes, 30)
    bars = summarise(trades, quotes, bar_index(START_US), START_US + 3_000_000, NO_BAR)
    for name in BAR.names or ():
        assert plain(bars, name) == [bar[name] for bar in truth], name
    for bar, mid, proxy in zip(truth, mids(bars).tolist(), proxy_mids(bars).tolist(), strict=True):
        assert mid == (bar["bid_price"] + bar["ask_price"]) / 2 or not bar["bid_price"]
        assert proxy == (bar["last_buy_price"] + bar["last_sell_price"]) / 2 or np.isnan(proxy)

    quoted = is_quoted(bars).tolist()
    seconds = whole_seconds(bars)
    of_seconds = [second_by_loop(truth[n : n + 10], quoted[n : n + 10]) for n in (0, 10, 20)]
    assert not seconds["deviation_known"].any()
    for name in set(SECOND.names or ()) - {"deviation", "deviation_known"}:
        assert plain(seconds, name) == [second[name] for second in of_seconds], name
    if not len(trades) + len(quotes):
        return
    columns = rows_of_hour(trades, quotes, NO_QUOTES, HOUR, SECOND_US, SECOND_US).bars.columns
    by_end = {second["end_us"]: second for second in of_seconds}
    for name in ("trade_count", "buy_qty", "sell_qty", "notional", "quote_count"):
        assert plain(columns, name) == [by_end[end][name] for end in columns["end_us"].tolist()], name

    ring = BarRing(0)
    rows = [
        row_as_of_the_end(ring) for _ in ring.fold(batch(trades, quotes, START_US + 3 * SECOND_US), SECOND_US)
    ]
    live = ring.seconds[np.isin(ring.seconds["end_us"], list(by_end))]
    assert live.tobytes() == seconds[-len(live) :].tobytes()
    volume = sum(qty for _, _, qty, _ in trade_list)
    assert rows[-1] is not None
    record = features_record(rows[-1])
    assert record.volume == volume / 10**8
    notional = sum(price * qty for _, price, qty, _ in trade_list)
    assert record.vwap == (notional / (volume * 10**8) if volume else None)


def second_by_loop(bars: list[dict[str, Any]], quoted: list[bool]) -> dict[str, int]:
    sums = ("trade_count", "buy_qty", "sell_qty", "notional", "quote_count")
    last = bars[-1]
    known = last["last_buy_price"] and last["last_sell_price"]
    return {name: sum(bar[name] for bar in bars) for name in sums} | {
        "end_us": last["end_us"],
        "depth": sum(
            bar["bid_qty"] + bar["ask_qty"] for bar, is_so in zip(bars, quoted, strict=True) if is_so
        ),
        "quoted_bars": sum(quoted),
        "mid2": last["bid_price"] + last["ask_price"] if quoted[-1] else 0,
        "proxy2": last["last_buy_price"] + last["last_sell_price"] if known else 0,
    }


@given(
    st.lists(mantissas, min_size=2, max_size=6), st.integers(1, MOST), st.sets(st.integers(0, 5), max_size=6)
)
def test_the_remainder_of_an_aggregate_is_exact(quantities: list[int], whole: int, alone: set[int]) -> None:
    singles = [n for n in sorted(alone) if n < len(quantities)]
    rows = trades_array((n, n, n, n, 7, quantities[n], 1) for n in singles)
    aggregate = trades_array([(0, 0, 0, len(quantities) - 1, 7, whole, 1)])
    found = merged(
        merged(np.empty(0, LEDGER_ROW), ledger_rows(rows, Origin.STREAM)), ledger_rows(aggregate, Origin.REST)
    )
    left = found[found["aggregate_first_id"] != found["aggregate_last_id"]]
    expected = [max(whole - sum(quantities[n] for n in singles), 0)] * (len(singles) < len(quantities))
    assert left["qty"].tolist() == expected


@pytest.mark.parametrize(("first", "last"), [(1, 2**31), (0, MOST), (-5, MOST), (7, 6)])
def test_an_aggregate_of_too_many_trades_is_refused(first: int, last: int) -> None:
    with pytest.raises(TradesContradict, match=rf"trades {first}\.\.{last} came as one aggregate"):
        ledger_rows(trades_array([(1, 1, first, last, 1, 1, 1)]), Origin.REST)


# The same market in any unit

POWERS = range(-3, 10)
MARKET_S = 75


@cache
def market(power: int) -> tuple[Trades, Quotes]:
    """Ticks at prices about 0.00001, quantities times 10^power: at 9 the largest nearly fill 64 bits."""
    rng = np.random.default_rng(4)
    trades, quotes, bid = [], [], 1000
    for n in range(MARKET_S * 20):
        time_us = HOUR + n * 50_000 + int(rng.integers(40_000))
        bid += int(rng.choice([-1, 0, 0, 0, 0, 1]))
        sizes = [
            qty * 10 ** (power + 3) for qty in np.rint(9e6 ** rng.uniform(0.3, 1, 3)).astype(int).tolist()
        ]
        quotes.append((time_us, time_us, n + 1, bid, sizes[0], bid + int(rng.integers(1, 3)), sizes[1]))
        if rng.random() < 0.5 and n % 400 > 40:
            side = int(rng.choice([-1, 1]))
            trades.append((time_us + 9, time_us + 9, n, n, bid + (side > 0), sizes[2], side))
    for n, trade in enumerate(trades, 1):
        trades[n - 1] = (*trade[:2], n, n, *trade[4:])
    return trades_array(trades), quotes_array(quotes)


def seconds_of(power: int) -> Iterator[TickBatch]:
    return batches(*market(power), [HOUR + n * SECOND_US for n in range(1, MARKET_S)])


def row_as_of_the_end(ring: BarRing) -> Row | None:
    """Of the newest closed bar."""
    return row_of("X", ring.view(ring.closed_us), QUIET_UNKNOWN)


@cache
def live(power: int) -> list[Row]:
    ring = BarRing(100_000)
    rows = [row_as_of_the_end(ring) for piece in seconds_of(power) for _ in ring.fold(piece, SECOND_US)]
    return [row for row in rows if row]


@pytest.mark.parametrize("power", POWERS)
def test_features_in_the_ring_are_the_same_bits_in_any_unit(power: int) -> None:
    assert sum(row.vector is not None for row in live(0)) > 60
    for one, other in zip(live(0), live(power), strict=True):
        assert one.vector == other.vector
        base, record = features_record(one), features_record(other)
        volume = round(base.volume * 10**8) * Fraction(10) ** power
        assert record.volume == float(volume / 10**8)
        assert encode(replace(record, volume=base.volume)) == encode(base)


@pytest.mark.parametrize("power", POWERS)
def test_history_is_the_same_bits_in_any_unit(power: int) -> None:
    base, other = (rows_of_hour(*market(p), NO_QUOTES, HOUR, 100_000, 100_000) for p in (0, power))
    assert len(base.rows.end_us) > 480 and base.rows.features.shape[1] == len(FEATURE_NAMES)
    for one, same in zip(base.rows, other.rows, strict=True):
        assert one.tobytes() == same.tobytes()
    for name in ("buy_qty", "sell_qty", "notional"):
        scaled = [value * Fraction(10) ** power for value in plain(base.bars.columns, name)]
        assert plain(other.bars.columns, name) == scaled, name


@pytest.mark.parametrize("power", [0, 9])
def test_live_and_history_are_the_same_bits_in_any_unit(power: int) -> None:
    (bars,) = segments(*market(power))
    history = rows_of_hour(*market(power), NO_QUOTES, HOUR, SECOND_US, SECOND_US).rows
    rows = dict(zip(history.end_us.tolist(), history.features.astype(np.float32), strict=True))
    compared = 0
    for each in live(power):
        row = rows.get(each.view.as_of_us)
        if row is not None and each.vector:
            assert np.array(each.vector, np.float32).tobytes() == row.tobytes()
            compared += 1
    assert compared > 40 and len(bars)


@pytest.mark.parametrize("power", [-3, 9])
def test_predictions_can_be_recomputed_from_bronze_in_any_unit(power: int) -> None:
    stream = list(seconds_of(power))
    receipts = receipts_of(stream)
    ticks = through_bronze(stream)
    for rows, true in zip(ticks, market(power), strict=True):
        assert rows.tobytes() == true.tobytes()
    same = [
        reproduce(receipt, Surroundings(*ticks, receipts, []), MODEL, CHALLENGER).same
        for receipt in receipts[12:]
    ]
    assert same == [True] * len(same) and len(same) > 50

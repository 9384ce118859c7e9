"""The cost of a second's features: from bars summed up once, compared with masking a minute of ticks each
time.

Both compute the same row. Ours is `feature_rows` of the ring; the usual one (`benchmarks.usual_features`)
turns a deque of ticks into arrays and masks them. Also measured: the masks alone, with the arrays given, and
a second including the intake of its ticks: for us one batch, with all the checks of the ring.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np

from benchmarks.side_by_side import Comparison, Effort, Work, comparison, side_by_side
from benchmarks.usual_features import Tick, UsualFeatures, row_of
from tickcast.features.ring import BarRing
from tickcast.features.vector import FEATURE_NAMES, feature_rows
from tickcast.market import wire
from tickcast.market.ticks import SCALE, Quotes, Trades, quotes_array, trades_array
from tickcast.units import SECOND_US

START_US = 1_754_000_000 * SECOND_US
WARM_UP_S, SECONDS = 70, 20
LATENESS_US = 100_000
TRADES_S, QUOTES_S = 30, 113  # the recorded average of BTCUSDT


def measure(effort: Effort) -> list[Comparison]:
    trades, quotes = market(WARM_UP_S + SECONDS)
    batches = [second_of(trades, quotes, s) for s in range(WARM_UP_S + SECONDS)]
    plain = [(_plain_trades(b.trades), _plain_quotes(b.quotes)) for b in batches]
    warm, usual = BarRing(LATENESS_US), UsualFeatures()
    for batch, ticks in itertools.islice(zip(batches, plain, strict=True), WARM_UP_S):
        for _ in warm.fold(batch, SECOND_US):
            pass
        usual.update(*ticks)

    def ours() -> list[np.ndarray]:
        ring = copy.deepcopy(warm)
        rows = []
        for batch in batches[WARM_UP_S:]:
            for _ in ring.fold(batch, SECOND_US):
                rows.append(feature_rows(ring.bars, ring.seconds, 1)[0])
        return rows

    def theirs() -> list[dict[str, float]]:
        kept = copy.deepcopy(usual)
        rows = []
        for second, ticks in enumerate(plain[WARM_UP_S:], START_US // SECOND_US + WARM_UP_S + 1):
            kept.update(*ticks)
            rows.append(kept.row(float(second)))
        return rows

    for mine, other in zip(ours(), theirs(), strict=True):
        expected = [other[name] for name in FEATURE_NAMES]
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-3)
    now_s = float(START_US // SECOND_US + WARM_UP_S)
    arrays = np.array(usual.trades), np.array(usual.quotes)
    choices = {
        "a row": Work(lambda: feature_rows(warm.bars, warm.seconds, 1), 1),
        "usual row": Work(lambda: usual.row(now_s), 1),
        "usual row, arrays at hand": Work(lambda: row_of(*arrays, now_s), 1),
        "a second": Work(ours, SECONDS),
        "usual second": Work(theirs, SECONDS),
    }
    times = side_by_side(choices, effort)
    return [
        comparison(times, "features_vs_naive_numpy", "a row", "usual row", 3),
        comparison(times, "features_vs_arrays", "a row", "usual row, arrays at hand"),
        comparison(times, "features_with_bars_vs_naive_numpy", "a second", "usual second"),
    ]


def market(seconds: int) -> tuple[Trades, Quotes]:
    """Trades and quotes of a walk by single ticks, from START_US on, in time order."""
    rng = np.random.default_rng(3)
    span_us = seconds * SECOND_US
    trade_us, quote_us = (
        np.sort(rng.integers(0, span_us, rate * seconds)) + START_US for rate in (TRADES_S, QUOTES_S)
    )
    bid = 6_000_000 + np.cumsum(rng.choice([-1, 0, 0, 0, 1], len(quote_us)))
    qtys = rng.integers(1, 10**6, (len(quote_us), 2)) * 1000
    quotes = quotes_array(
        (at, at + 900, 3 * n + 1, price * 10**6, bid_qty, (price + 1) * 10**6, ask_qty)
        for n, (at, price, (bid_qty, ask_qty)) in enumerate(
            zip(quote_us.tolist(), bid.tolist(), qtys.tolist(), strict=True)
        )
    )
    before = np.maximum(np.searchsorted(quote_us, trade_us) - 1, 0)
    sides = rng.choice([-1, 1], len(trade_us))
    trades = trades_array(
        (at, at + 700, n + 1, n + 1, price * 10**6, qty, side)
        for n, (at, price, qty, side) in enumerate(
            zip(
                trade_us.tolist(),
                (bid[before] + (sides > 0)).tolist(),
                rng.integers(1, 10**9, len(trade_us)).tolist(),
                sides.tolist(),
                strict=True,
            )
        )
    )
    return trades, quotes


def second_of(trades: Trades, quotes: Quotes, second: int) -> wire.TickBatch:
    """The ticks of one second; its watermark closes it."""
    start_us = START_US + second * SECOND_US
    mine_trades, mine_quotes = (
        rows[(rows["time_us"] >= start_us) & (rows["time_us"] < start_us + SECOND_US)]
        for rows in (trades, quotes)
    )
    watermark_us = start_us + SECOND_US + LATENESS_US
    return wire.TickBatch("BTCUSDT", "sim", "a", watermark_us, mine_trades, mine_quotes)


def _plain_trades(rows: Trades) -> list[Tick]:
    columns = rows["time_us"] / 1e6, rows["price"] / SCALE, rows["qty"] / SCALE, rows["side"].astype(float)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _plain_quotes(rows: Quotes) -> list[Tick]:
    names = ("bid_price", "bid_qty", "ask_price", "ask_qty")
    columns = rows["time_us"] / 1e6, *(rows[name] / SCALE for name in names)
    return list(zip(*(column.tolist() for column in columns), strict=True))

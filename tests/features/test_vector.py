"""Each feature compared with its definition computed row by row, and no feature uses the future."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.examples import examples
from tests.fixtures.market import START_US, batch, batches, random_ticks
from tickcast.features.bars import NO_BAR, Bars, bar_index, segments, summarise, whole_seconds
from tickcast.features.ring import BarRing
from tickcast.features.vector import (
    FEATURE_NAMES,
    MIN_RETURNS,
    ODD_FEATURES,
    QUOTE_FEATURES,
    TRADE_FEATURES,
    feature_rows,
    history_rows,
)
from tickcast.market.sums import integers
from tickcast.market.ticks import Quotes, Trades

LATENESS_US = 100_000


def market_bars(seed: int, seconds: int, trades_s: float = 30, quotes_s: float = 60) -> Bars:
    (bars,) = segments(*random_ticks(seed, seconds, trades_s, quotes_s))
    return bars


def by_definition(trades: Trades, quotes: Quotes, end_us: int) -> dict[str, float]:  # noqa: C901
    """The features as of `end_us` straight from the ticks: no bars, no seconds, no running sums."""
    t = [row for row in trades.tolist() if row[0] < end_us]  # time, receive, first, last, price, qty, side
    q = [row for row in quotes.tolist() if row[0] < end_us]  # time, receive, id, bid, bid qty, ask, ask qty
    minute_us = end_us // 1_000_000 * 1_000_000

    def twice_mid(quote: tuple[int, ...]) -> int:
        return quote[3] + quote[5] if quote[3] and quote[5] else 0

    def book(at_us: int) -> tuple[int, ...] | None:
        """Bid, bid qty, ask, ask qty just before `at_us`, unless trades show that quotes are missing, or a
        side is gone."""
        known = [row for row in q if row[0] < at_us]
        traded = [row for row in t if row[0] < at_us]
        if not known or (traded and traded[-1][0] - known[-1][0] > 5_000_000):
            return None
        newest: tuple[int, ...] = known[-1][3:]
        return newest if twice_mid(known[-1]) else None

    def proxy(at_us: int) -> float | None:
        sides = [[row[4] for row in t if row[0] < at_us and row[6] == side] for side in (1, -1)]
        traded = [row[0] for row in t if row[0] < at_us]
        if not all(sides) or at_us - traded[-1] > 10_000_000:
            return None
        return float(sides[0][-1] + sides[1][-1]) / 2

    def mid(at_us: int) -> float | None:
        now = book(at_us)
        return (now[0] + now[2]) / 2 if now else None

    def return_bp(start_us: int, until_us: int) -> float | None:
        for price in (mid, proxy):
            start, end = price(start_us), price(until_us)
            if start and end:
                return (end / start - 1) * 1e4
        return None

    def within(rows: list[Any], width_us: int, until_us: int = end_us) -> list[Any]:
        return [row for row in rows if until_us - width_us <= row[0] < until_us]

    def volume(width_us: int) -> int:
        return sum(row[5] for row in within(t, width_us))

    def flow(width_us: int) -> float:
        signed = sum(row[5] * row[6] for row in within(t, width_us))
        return math.asinh(signed / (volume_s * (width_us / 1e6) ** 0.5)) / 2 if volume_s else 0.0

    def ofi(width_us: int) -> float:
        total = 0
        for before, (at, _, _, bid, bid_qty, ask, ask_qty) in zip(q, q[1:], strict=False):
            if at < end_us - width_us or not (bid and ask and twice_mid(before)):
                continue
            _, _, _, bid0, bid_qty0, ask0, ask_qty0 = before
            total += (bid_qty if bid >= bid0 else 0) - (bid_qty0 if bid <= bid0 else 0)
            total -= (ask_qty if ask <= ask0 else 0) - (ask_qty0 if ask >= ask0 else 0)
        return math.asinh(total / depth) / 2 if depth else 0.0

    first_us = min(rows[0][0] for rows in (t, q) if rows) // 100_000 * 100_000
    seconds = [minute_us - k * 1_000_000 for k in range(60)]
    spans = max(1, sum(1 for s in seconds if mid(s) or proxy(s)))
    returns = [return_bp(s - 1_000_000, s) if s - 1_000_000 > first_us else None for s in seconds]
    weights = [0.5 ** (k / 30) for k, r in enumerate(returns) if r is not None]
    squares = [round(min(max(r, -500), 500), 4) ** 2 for r in returns if r is not None]
    variance = sum(w * r for w, r in zip(weights, squares, strict=True)) / max(sum(weights), 1.0)
    sigma = (variance + 0.05**2) ** 0.5
    minute = within(t, 60_000_000, minute_us)
    volume_s = sum(row[5] for row in minute) / spans
    vwap = sum(row[4] * row[5] for row in minute) / sum(row[5] for row in minute) if minute else 0
    bars = [b for b in range(minute_us - 60_000_000 + 100_000, minute_us + 1, 100_000) if b > first_us]
    books = [now for b in bars if (now := book(b))]
    depth = sum(now[1] + now[3] for now in books) / 2 / max(1, len(books))
    now, price = book(end_us), mid(end_us) or proxy(end_us)
    assert price is not None

    def scaled_return(width_us: int) -> float:
        start = (mid if now else proxy)(end_us - width_us) if end_us - width_us > first_us else None
        move = (price / start - 1) * 1e4 if start else 0.0
        return float(max(-6.0, min(6.0, move / (sigma * (width_us / 1e6) ** 0.5))))

    def usual(rows: list[Any], width_us: int) -> float:
        rate = len(within(rows, 60_000_000, minute_us)) / spans
        return math.log1p(len(within(rows, width_us))) - math.log1p(rate * width_us / 1e6)

    def age(since_us: int) -> float:
        return math.log(min(end_us - since_us, 60_000_000) / 1e6 + 0.05) / 2

    squared = 0.0
    for k in range(50):
        until_us = end_us - k * 100_000
        if until_us - 100_000 > first_us and (step := return_bp(until_us - 100_000, until_us)):
            squared += round(step, 4) ** 2
    has_trades = bool(t) and end_us - t[-1][0] <= 60_000_000
    values = dict.fromkeys(FEATURE_NAMES, 0.0)
    if now:
        bid, bid_qty, ask, ask_qty = now
        moves = [b[0] for a, b in zip([None, *q], q, strict=False) if not a or twice_mid(a) != twice_mid(b)]
        level, quoted_us, clock = 0.0, 0, max(end_us - 500_000, q[0][0])
        while clock < end_us:
            force = [row for row in q if row[0] <= clock][-1]
            until = min([row[0] for row in q if row[0] > clock] + [end_us])
            if twice_mid(force):
                level += (force[4] - force[6]) / (force[4] + force[6]) * (until - clock)
                quoted_us += until - clock
            clock = until
        spread = (ask - bid) / price * 1e4 / sigma
        micro = (bid_qty * ask + ask_qty * bid) / (bid_qty + ask_qty)
        values |= {
            "imbalance": (bid_qty - ask_qty) / (bid_qty + ask_qty),
            "log_imbalance": max(-6.0, min(6.0, math.log(bid_qty / ask_qty))) / 3,
            "microprice": max(-6.0, min(6.0, (micro / price - 1) * 1e4 / sigma)),
            "imbalance_500ms": level / quoted_us,
            "ofi_200ms": ofi(200_000),
            "ofi_1s": ofi(1_000_000),
            "ofi_5s": ofi(5_000_000),
            "spread": spread,
            "quote_intensity": usual(q, 1_000_000),
            "mid_age": age(moves[-1]),
            "quote_age": age(q[-1][0]),
            "has_quotes": 1.0,
        }
    if has_trades:
        values |= {
            "trade_flow_500ms": flow(500_000),
            "trade_flow_1s": flow(1_000_000),
            "trade_flow_5s": flow(5_000_000),
            "vwap_distance": max(-6.0, min(6.0, (price / vwap - 1) * 1e4 / (sigma * 60**0.5))) if vwap else 0,
            "trade_intensity": usual(t, 5_000_000),
            "volume_intensity": math.log1p(volume(1_000_000) / volume_s) if volume_s else 0.0,
            "trade_age": age(t[-1][0]),
            "has_trades": 1.0,
        }
    return values | {
        "return_500ms": scaled_return(500_000),
        "return_1s": scaled_return(1_000_000),
        "return_5s": scaled_return(5_000_000),
        "volatility_5s": math.log(((squared / 5) ** 0.5 + 0.05) / sigma) / 2,
        "sigma_bp": sigma,
    }


CASES = {
    "lively": (1, 75, (30, 60)),
    "short history": (2, 15, (30, 60)),
    "few quotes": (3, 70, (1, 3)),
    "few trades": (4, 64, (0.05, 50)),
    "quotes missing": (5, 40, (20, 20)),
    "trades only": (6, 40, (20, 20)),
    "a minute without volume": (7, 75, (30, 60)),
    "quotes came just now": (8, 70, (30, 60)),
    "asks gone for seconds": (9, 40, (20, 20)),
    "bids gone since": (10, 40, (20, 20)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_feature_equals_its_definition(case: str) -> None:
    seed, seconds, rates = CASES[case]
    trades, quotes = random_ticks(seed, seconds, *rates)
    if case == "quotes missing":
        quotes = quotes[quotes["time_us"] < START_US + 25_000_000]
    if case == "trades only":
        quotes = quotes[:0]
    # In these two, what the minute is measured by is not there yet, while the newest bars have it.
    if case == "a minute without volume":
        trades = trades[trades["time_us"] >= START_US + 74_000_000]
    if case == "quotes came just now":
        quotes = quotes[quotes["time_us"] >= START_US + 69_000_000]
    side, until_s = {"asks gone for seconds": ("ask", 37.3), "bids gone since": ("bid", 99)}.get(
        case, ("", 0)
    )
    if side:
        since_us = quotes["time_us"] - START_US
        gone = (since_us > 33_700_000) & (since_us < until_s * 1e6)
        quotes[f"{side}_price"][gone] = quotes[f"{side}_qty"][gone] = 0
    (bars,) = segments(trades, quotes)
    for end in (len(bars), len(bars) - 7, len(bars) - 31):
        row = feature_rows(bars[:end], whole_seconds(bars[:end]), 1)[0]
        expected = by_definition(trades, quotes, int(bars[end - 1]["end_us"]))
        assert not np.isnan(row).any()
        for name, value in zip(FEATURE_NAMES, row, strict=True):
            # Bars keep imbalance in millionths; weights of volatility in 1/1024.
            assert value == pytest.approx(expected[name], rel=2e-4, abs=2e-5), name


def test_one_row_and_many_are_the_same_bits() -> None:
    bars = market_bars(5, 100)
    many = history_rows(bars)
    for end in range(1, len(bars) + 1):
        upto = bars[max(0, end - 51) : end]
        alone = feature_rows(upto, whole_seconds(bars[:end])[-61:], 1)[0]
        assert alone.tobytes() == many[end - 1].tobytes()


@examples(25)
@given(
    st.integers(0, 5),
    st.lists(st.integers(START_US, START_US + 20_000_000), max_size=60),
    st.integers(0, 2**32),
    st.sampled_from([(30, 60), (2, 3), (20, 0.5)]),
)
def test_same_bits_for_any_batches_order_and_repeats(
    seed: int, cuts_us: list[int], shuffled: int, rates: tuple[float, float]
) -> None:
    """Any split of the stream, any interleaving inside a batch, batches repeated: live is history."""
    trades, quotes = random_ticks(seed, 20, *rates)
    rng = np.random.default_rng(shuffled)
    ring, live = BarRing(LATENESS_US), {}
    for piece in batches(trades, quotes, cuts_us):
        mixed = piece._replace(trades=rng.permutation(piece.trades), quotes=rng.permutation(piece.quotes))
        for again in range(1 + int(rng.integers(2))):
            for instant_us in ring.fold(mixed, 1_000_000):
                live[instant_us] = feature_rows(ring.bars, ring.seconds, 1)[0].tobytes()
                assert not again
    (bars,) = segments(trades, quotes)
    history = dict(zip(bars["end_us"].tolist(), history_rows(bars), strict=True))
    compared = [instant_us for instant_us in live if instant_us in history]
    assert len(compared) >= 18
    for instant_us in compared:
        assert live[instant_us] == history[instant_us].tobytes()


@pytest.mark.parametrize("seed", [6, 7])
def test_the_future_changes_nothing(seed: int) -> None:
    """Ticks from the bar's end on may be anything."""
    trades, quotes = random_ticks(seed, 80)
    rng = np.random.default_rng(seed)
    (bars,) = segments(trades, quotes)
    expected = history_rows(bars)
    for cut in (250, 700):
        cut_us = int(bars[cut - 1]["end_us"])
        changed_trades, changed_quotes = trades.copy(), quotes.copy()
        for rows, names in (
            (changed_trades, ("price", "qty")),
            (changed_quotes, ("bid_price", "bid_qty", "ask_price", "ask_qty")),
        ):
            later = rows["time_us"] >= cut_us
            for name in names:
                rows[name][later] = rng.integers(1, 10**12, int(later.sum()))
        (changed,) = segments(changed_trades, changed_quotes)
        assert history_rows(changed)[:cut].tobytes() == expected[:cut].tobytes()
        assert history_rows(changed)[cut:].tobytes() != expected[cut:].tobytes()


def test_swapping_buyers_and_sellers_flips_the_odd_features_and_no_other() -> None:
    """Mirror the market: bids become asks, buys become sells, prices run the other way."""
    bars = market_bars(7, 70)
    mirror, around = bars.copy(), 2 * 60_000 * 10**8
    for one, other in (("buy_qty", "sell_qty"), ("bid_qty", "ask_qty")):
        mirror[one], mirror[other] = bars[other], bars[one]
    mirror["bid_price"], mirror["ask_price"] = around - bars["ask_price"], around - bars["bid_price"]
    mirror["ofi"], mirror["imbalance_us"] = -bars["ofi"], -bars["imbalance_us"]
    volume = bars["buy_qty"] + bars["sell_qty"]
    notional = [
        around * qty - at for qty, at in zip(integers(volume.T), integers(bars["notional"].T), strict=True)
    ]
    mirror["notional"] = [[at >> 32 * n & 2**32 - 1 for n in range(4)] for at in notional]
    ours, theirs = (feature_rows(b, whole_seconds(b), 50) for b in (bars, mirror))
    odd = len(ODD_FEATURES)
    np.testing.assert_allclose(theirs[:, :odd], -ours[:, :odd], atol=2e-3)  # a mirrored price is another base
    np.testing.assert_allclose(theirs[:, odd:], ours[:, odd:], atol=2e-3)


def test_scale_of_prices_does_not_matter() -> None:
    """The same market at a thousandth of the price; of quantities see `test_sums`."""
    trades, quotes = random_ticks(8, 70)
    small_trades, small_quotes = trades.copy(), quotes.copy()
    for rows, prices in ((small_trades, ("price",)), (small_quotes, ("bid_price", "ask_price"))):
        for name in prices:
            rows[name] //= 1000
    ours, theirs = (
        history_rows(segments(*ticks)[0])[-1] for ticks in ((trades, quotes), (small_trades, small_quotes))
    )
    np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-6)


def test_too_little_history_is_nan() -> None:
    bars = market_bars(8, 20)
    rows = history_rows(bars)
    known = np.asarray(~np.isnan(rows).any(axis=1))
    assert (known == ~np.isnan(rows).all(axis=1)).all()
    first_us = int(bars[int(np.flatnonzero(known)[0])]["end_us"])
    quoted_us = int(bars[int(np.flatnonzero(bars["bid_price"])[0])]["end_us"])
    assert first_us == -(-quoted_us // 1_000_000) * 1_000_000 + MIN_RETURNS * 1_000_000
    assert known[int(np.flatnonzero(known)[0]) :].all()


def test_absent_groups_are_zero_and_so_is_their_flag() -> None:
    trades, quotes = random_ticks(9, 20)
    (no_trades,), (no_quotes,) = segments(trades[:0], quotes), segments(trades, quotes[:0])
    for bars, flag, group in (
        (no_trades, "has_trades", TRADE_FEATURES),
        (no_quotes, "has_quotes", QUOTE_FEATURES),
    ):
        row = dict(zip(FEATURE_NAMES, history_rows(bars)[-1].tolist(), strict=True))
        assert row[flag] == 0
        assert all(row[name] == 0 for name in group)
        other = "has_quotes" if flag == "has_trades" else "has_trades"
        assert row[other] == 1


def test_without_prices_rows_are_nan() -> None:
    trades, quotes = random_ticks(1, 1)
    empty = summarise(trades[:0], quotes[:0], bar_index(START_US), START_US + 30_000_000, NO_BAR)
    assert np.isnan(history_rows(empty)).all()
    ring = BarRing(LATENESS_US)
    list(ring.fold(batch(*random_ticks(1, 0.3)), 1_000_000))
    assert np.isnan(feature_rows(ring.bars, ring.seconds, len(ring.bars))).all()


def test_more_rows_than_bars_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 rows of features requested of 2 bars"):
        bars = market_bars(1, 1)[:2]
        feature_rows(bars, whole_seconds(bars), 3)

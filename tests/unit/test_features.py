"""Each feature against its definition written out row by row, and the promise that the future is unseen."""

import numpy as np
import pytest

from tests.market import START_US, random_ticks
from tickcast.bars import BAR, BAR_US, WINDOW_BARS, Bars, bar_index, summarise
from tickcast.features import FEATURE_NAMES, MIN_QUOTED_BARS, ODD_FEATURES, feature_rows

EMPTY = np.zeros(1, BAR)[0]


def market_bars(seed: int, seconds: int, trades_s: float = 30, quotes_s: float = 60) -> Bars:
    trades, quotes = random_ticks(seed, seconds, trades_s, quotes_s)
    return summarise(trades, quotes, bar_index(START_US), seconds * 1_000_000 // BAR_US, EMPTY)


def by_definition(bars: Bars) -> dict[str, float]:
    """The features of the newest bar, one formula a line, in exact integers as far as they carry."""
    minute = bars[-WINDOW_BARS:]
    quoted = minute[minute["bid_price"] > 0]
    span_s = len(quoted) / 10
    bid, ask = int(bars[-1]["bid_price"]), int(bars[-1]["ask_price"])
    bid_qty, ask_qty = int(bars[-1]["bid_qty"]), int(bars[-1]["ask_qty"])
    mids = [(int(b["bid_price"]) + int(b["ask_price"])) / 2 if b["bid_price"] else None for b in minute]
    returns = [  # newest first
        (mids[-1 - 10 * k] / mids[-11 - 10 * k] - 1) * 1e4
        for k in range(59)
        if 11 + 10 * k <= len(mids) and mids[-11 - 10 * k] is not None
    ]
    weights = [0.5 ** (k / 30) for k in range(len(returns))]
    variance = sum(w * r * r for w, r in zip(weights, returns, strict=True)) / max(sum(weights), 1.0)
    sigma = (variance + 0.05**2) ** 0.5

    def total(name: str, width: int) -> int:
        return sum(int(bar[name]) for bar in bars[-width:])

    depth = sum(int(b["bid_qty"]) + int(b["ask_qty"]) for b in quoted) / 2 / len(quoted)
    volume_s = (sum(int(b["buy_qty"]) + int(b["sell_qty"]) for b in minute)) / span_s
    trades_s = sum(int(b["trade_count"]) for b in minute) / span_s
    half = 0.5**0.5
    return {
        "imbalance": (bid_qty - ask_qty) / (bid_qty + ask_qty),
        "log_imbalance": max(-6.0, min(6.0, np.log(bid_qty / ask_qty))) / 3,
        "imbalance_500ms": total("imbalance_us", 5) / total("quoted_us", 5) / 1e6,
        "ofi_200ms": np.arcsinh(total("ofi", 2) / depth) / 2,
        "ofi_1s": np.arcsinh(total("ofi", 10) / depth) / 2,
        "trade_flow_500ms": np.arcsinh(
            (total("buy_qty", 5) - total("sell_qty", 5)) / (max(volume_s, 1) * half)
        )
        / 2,
        "return_500ms": max(-6.0, min(6.0, (mids[-1] / mids[-6] - 1) * 1e4 / (sigma * half))),
        "spread": (ask - bid) / ((ask + bid) / 2) * 1e4 / sigma,
        "trade_intensity": np.log1p(total("trade_count", 50)) - np.log1p(5 * trades_s),
        "volume_intensity": np.log1p((total("buy_qty", 10) + total("sell_qty", 10)) / max(volume_s, 1)),
        "mid_age": np.log((int(bars[-1]["end_us"]) - int(bars[-1]["mid_change_us"])) / 1e6 + 0.05) / 2,
        "sigma_bp": sigma,
    }


@pytest.mark.parametrize(
    ("seed", "seconds", "rates"), [(1, 90, (30, 60)), (2, 15, (30, 60)), (3, 70, (1, 3)), (4, 61, (0.1, 50))]
)
def test_every_feature_equals_its_definition(seed: int, seconds: int, rates: tuple[float, float]) -> None:
    bars = market_bars(seed, seconds, *rates)
    for end in (len(bars), len(bars) - 7, len(bars) - 31):
        row = feature_rows(bars[:end], 1)[0]
        expected = by_definition(bars[:end])
        for name, value in zip(FEATURE_NAMES, row, strict=True):
            assert value == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name


def test_one_row_and_many_are_the_same_bits() -> None:
    bars = market_bars(5, 100)
    many = feature_rows(bars, len(bars))
    for end in range(1, len(bars) + 1):
        alone = feature_rows(bars[max(0, end - WINDOW_BARS) : end], 1)[0]
        assert alone.tobytes() == many[end - 1].tobytes()


def test_the_future_changes_nothing() -> None:
    bars = market_bars(6, 80)
    cut = 700
    expected = feature_rows(bars, len(bars))[:cut]
    perturbed = bars.copy()
    rng = np.random.default_rng(0)
    for name in BAR.names:
        perturbed[name][cut:] = rng.integers(1, 10**9, len(bars) - cut)
    assert feature_rows(perturbed, len(perturbed))[:cut].tobytes() == expected.tobytes()


def test_swapping_buyers_and_sellers_flips_the_odd_features_and_no_other() -> None:
    """Mirror the market: bids become asks, buys become sells, prices run the other way."""
    bars = market_bars(7, 70)
    mirror, around = bars.copy(), 2 * 60_000 * 10**8
    for one, other in (("buy_qty", "sell_qty"), ("bid_qty", "ask_qty")):
        mirror[one], mirror[other] = bars[other], bars[one]
    mirror["bid_price"], mirror["ask_price"] = around - bars["ask_price"], around - bars["bid_price"]
    mirror["ofi"], mirror["imbalance_us"] = -bars["ofi"], -bars["imbalance_us"]
    ours, theirs = feature_rows(bars, 50), feature_rows(mirror, 50)
    odd = len(ODD_FEATURES)
    np.testing.assert_allclose(theirs[:, :odd], -ours[:, :odd], atol=2e-3)  # a mirrored price is another base
    np.testing.assert_allclose(theirs[:, odd:], ours[:, odd:], atol=2e-3)


def test_too_little_history_is_nan() -> None:
    bars = market_bars(8, 20)
    rows = feature_rows(bars, len(bars))
    first_known = int(np.flatnonzero(~np.isnan(rows).any(axis=1))[0])
    assert first_known == int(np.flatnonzero(bars["bid_price"])[0]) + MIN_QUOTED_BARS - 1
    assert np.isfinite(rows[first_known:]).all()


def test_a_market_without_trades_has_features() -> None:
    trades, quotes = random_ticks(9, 20)
    bars = summarise(trades[:0], quotes, bar_index(START_US), 200, EMPTY)
    assert np.isfinite(feature_rows(bars, 10)).all()


def test_more_rows_than_bars_is_an_error() -> None:
    with pytest.raises(ValueError, match="features of 3 rows asked of 2 bars"):
        feature_rows(market_bars(1, 1)[:2], 3)

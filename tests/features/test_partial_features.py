"""Features as of an instant within a bar, by their definition: windows keep their length."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from tests.features.test_bars import plain
from tests.fixtures.market import START_US, batches, random_ticks
from tickcast.features.bars import BAR_US, mids
from tickcast.features.ring import BarRing, View
from tickcast.features.vector import FEATURE_NAMES, feature_rows
from tickcast.market.sums import integers
from tickcast.units import SECOND_US

LATENESS_US = 100_000


def viewed(seed: int, as_of_us: int) -> View:
    trades, quotes = random_ticks(seed, 70)
    ring = BarRing(LATENESS_US)
    cuts = [START_US + k * 100_000 for k in range(1, 700)]
    for piece in batches(trades, quotes, cuts):
        if piece.watermark_us >= as_of_us:
            break
        list(ring.fold(piece, SECOND_US))
    return ring.view(as_of_us)


def features_of(view: View) -> dict[str, float]:
    (row,) = feature_rows(view.bars, view.seconds, 1)
    return dict(zip(FEATURE_NAMES, row.tolist(), strict=True))


def in_window(view: View, name: str, width: int) -> Fraction:
    """The sum of `name` over so many bars' time: of the oldest bar the share that lies in the window."""
    values = plain(view.bars, name)
    share = 1 - Fraction(view.as_of_us % BAR_US, BAR_US)
    return sum(values[-width:], Fraction(0)) + share * values[-width - 1]


@pytest.mark.parametrize("elapsed_us", [1_000, 37_000, 99_000])
@pytest.mark.parametrize("seed", range(3))
def test_windows_of_a_partial_bar_keep_their_length(seed: int, elapsed_us: int) -> None:
    view = viewed(seed, START_US + 65 * SECOND_US + 400_000 + elapsed_us)
    found, minute = features_of(view), view.seconds[-60:]
    assert int(view.bars["end_us"][-1]) == view.as_of_us
    depth = sum(integers(minute["depth"].T))
    volume = sum(integers((minute["buy_qty"] + minute["sell_qty"]).T))
    flow = in_window(view, "ofi", 2) * 2 * int(minute["quoted_bars"].sum()) / depth
    assert found["ofi_200ms"] == pytest.approx(math.asinh(flow) / 2, rel=1e-12)
    signed = in_window(view, "buy_qty", 50) - in_window(view, "sell_qty", 50)
    assert found["trade_flow_5s"] == pytest.approx(
        math.asinh(float(signed * 60 / volume) / math.sqrt(5)) / 2, rel=1e-12
    )
    level = in_window(view, "imbalance_us", 5) / in_window(view, "quoted_us", 5) / 10**6
    assert found["imbalance_500ms"] == pytest.approx(float(level), rel=1e-12)
    quotes = float(in_window(view, "quote_count", 10))
    usual = float(minute["quote_count"].mean())
    assert found["quote_intensity"] == pytest.approx(math.log1p(quotes) - math.log1p(usual), abs=1e-12)
    price = mids(view.bars)
    begun = price[-12] + (price[-11] - price[-12]) * elapsed_us / BAR_US
    moved = (price[-1] / begun - 1) * 1e4 / found["sigma_bp"]
    assert found["return_1s"] == pytest.approx(moved, rel=1e-9)
    squares = (np.diff(price[-52:]) / price[-52:-1] * 1e4) ** 2
    squares[0] *= 1 - elapsed_us / BAR_US
    spread = math.sqrt(squares.sum() / 5)
    assert found["volatility_5s"] == pytest.approx(
        math.log((spread + 0.05) / found["sigma_bp"]) / 2, abs=1e-3
    )
    age_us = view.as_of_us - int(view.bars["last_quote_us"][-1])
    assert found["quote_age"] == pytest.approx(math.log(age_us / 1e6 + 0.05) / 2, rel=1e-12)


def test_the_features_at_a_bars_end_are_those_of_the_closed_bar() -> None:
    as_of_us = START_US + 65 * SECOND_US + 400_000
    view = viewed(3, as_of_us)
    trades, quotes = random_ticks(3, 70)
    ring, expected = BarRing(0), None
    for piece in batches(trades, quotes, [START_US + k * 100_000 for k in range(1, 700)]):
        for instant_us in ring.fold(piece, BAR_US):
            if instant_us == as_of_us:
                expected = feature_rows(ring.bars, ring.seconds, 1)
    assert expected is not None
    assert feature_rows(view.bars, view.seconds, 1).tobytes() == expected.tobytes()


def test_only_the_newest_row_may_be_partial() -> None:
    view = viewed(3, START_US + 30 * SECOND_US + 57_000)
    with pytest.raises(ValueError, match="the last bar is partial"):
        feature_rows(view.bars, view.seconds, 2)

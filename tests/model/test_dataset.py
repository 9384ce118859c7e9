"""The training row: from which price to which a label moves, and one row whichever way ticks are read."""

from __future__ import annotations

import numpy as np
import pytest

from tests.features.test_vector import market_bars
from tests.fixtures.market import START_US, random_ticks
from tickcast.features.bars import mids, proxy_mids, segments
from tickcast.features.vector import FEATURE_NAMES, QUOTE_FEATURES
from tickcast.market.ticks import NO_QUOTES, QUOTE
from tickcast.model.dataset import (
    mask_quotes,
    pool,
    rows_from_bars,
    rows_of_hour,
    rows_without_quotes,
    training_rows,
)
from tickcast.model.forecast import PATH_S
from tickcast.units import HOUR_US, SECOND_US


def test_labels_look_forward_by_exactly_the_instants_of_a_path() -> None:
    bars = market_bars(1, 60)
    rows = rows_from_bars(bars)
    mid = (bars["bid_price"] + bars["ask_price"]) / 2
    start = len(bars) - 150 - len(rows.features)  # the tail that a path takes is left off
    for row in (0, 57, len(rows.features) - 1):
        for at, time_s in enumerate(PATH_S):
            now, then = mid[start + row], mid[start + row + round(10 * time_s)]
            assert rows.moves_bp[row, at] == pytest.approx((then / now - 1) * 1e4, abs=1e-9)


def test_rows_without_quotes_are_masked_and_move_from_the_proxy_to_the_true_mid() -> None:
    bars = market_bars(1, 60)
    rows = rows_without_quotes(bars)
    assert len(rows.end_us) > 300 and not rows.has_quotes.any()
    assert not rows.features[:, [FEATURE_NAMES.index(name) for name in QUOTE_FEATURES]].any()
    assert rows.features[:, FEATURE_NAMES.index("trade_flow_1s")].any()
    at = np.searchsorted(bars["end_us"], rows.end_us)
    expected = (mids(bars)[at + 20] / proxy_mids(bars)[at] - 1) * 1e4
    np.testing.assert_allclose(rows.moves_bp[:, PATH_S.index(2.0)], expected, atol=1e-9)
    assert (bars["bid_price"] > 0).any()  # the bars themselves kept their quotes


def test_masking_rows_clears_the_features_from_quotes_only() -> None:
    rows = rows_from_bars(market_bars(1, 60))
    twins = mask_quotes(rows)
    assert (twins.end_us == rows.end_us).all() and (twins.moves_bp == rows.moves_bp).all()
    assert rows.has_quotes.all() and not twins.has_quotes.any()
    from_quotes = [FEATURE_NAMES.index(name) for name in (*QUOTE_FEATURES, "has_quotes")]
    assert not twins.features[:, from_quotes].any()
    others = np.setdiff1d(np.arange(len(FEATURE_NAMES)), from_quotes)
    assert (twins.features[:, others] == rows.features[:, others]).all()
    assert not len(mask_quotes(twins).end_us)


def test_rows_of_trades_alone_move_from_proxy_to_proxy() -> None:
    trades, _ = random_ticks(1, 60)
    (bars,) = segments(trades, np.empty(0, QUOTE))
    rows = training_rows(bars)
    assert len(rows.end_us) > 300 and not rows.has_quotes.any()
    at = np.searchsorted(bars["end_us"], rows.end_us)
    expected = (proxy_mids(bars)[at + 50] / proxy_mids(bars)[at] - 1) * 1e4
    np.testing.assert_allclose(rows.moves_bp[:, PATH_S.index(5.0)], expected, atol=1e-9)
    assert len(rows.end_us) == len(np.unique(rows.end_us))  # there were no quotes to take away


def test_a_row_with_quotes_has_no_outcome_by_proxy() -> None:
    trades, quotes = random_ticks(1, 90)
    quotes = quotes[quotes["time_us"] < trades["time_us"][0] + 40_000_000]
    (bars,) = segments(trades, quotes)
    rows = rows_from_bars(bars)
    quoted = rows.chosen(rows.has_quotes)
    lost_us = int(bars["end_us"][~np.isnan(mids(bars))][-1])
    assert quoted.end_us.max() <= lost_us - max(PATH_S) * SECOND_US
    assert rows.chosen(~rows.has_quotes).end_us.min() > lost_us


def test_a_row_without_quotes_ends_at_the_mid_where_there_is_one() -> None:
    trades, quotes = random_ticks(1, 90)
    back_us = trades["time_us"][0] + 40_000_000  # the first quote comes 40 s after the first trade
    (bars,) = segments(trades, quotes[quotes["time_us"] >= back_us])
    mid, proxy = mids(bars), proxy_mids(bars)
    rows = rows_from_bars(bars)
    blind = rows.chosen(~rows.has_quotes)
    at = np.searchsorted(bars["end_us"], blind.end_us)
    reaches_quotes = 0
    for column, time_s in enumerate(PATH_S):
        then = at + round(10 * time_s)
        end = np.where(np.isnan(mid[then]), proxy[then], mid[then])
        reaches_quotes += int((~np.isnan(mid[then])).sum())
        np.testing.assert_allclose(blind.moves_bp[:, column], (end / proxy[at] - 1) * 1e4, atol=1e-9)
    assert 100 < reaches_quotes < blind.moves_bp.size


def test_the_rows_of_an_hour_are_those_of_the_bars() -> None:
    trades, quotes = random_ticks(3, 300)
    quotes = quotes[
        (quotes["time_us"] < START_US + 100_000_000) | (quotes["time_us"] > START_US + 180_000_000)
    ]
    (bars,) = segments(trades, quotes)
    whole = rows_from_bars(bars)
    hours = range(START_US // HOUR_US * HOUR_US, START_US + HOUR_US, HOUR_US)
    stored = pool([rows_of_hour(trades, quotes, NO_QUOTES, hour, 100_000, 100_000).rows for hour in hours])
    assert 0 < whole.has_quotes.sum() < len(whole.end_us)
    for one, same in zip(whole, stored, strict=True):
        np.testing.assert_array_equal(one, same)

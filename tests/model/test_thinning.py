"""Thinning: equal shares of markets and kinds, drawn from all of the span, the same each time."""

import numpy as np
import pytest

from tests.model.test_training import planted
from tickcast.model.dataset import pool
from tickcast.model.thinning import by_symbol, drawn, equal_shares, sample


@pytest.mark.parametrize(
    ("counts", "most", "expected"),
    [
        ([100, 100], 200, [100, 100]),
        ([100, 100], 60, [30, 30]),
        ([10, 500, 100], 210, [10, 100, 100]),
        ([0, 7], 5, [0, 5]),
        ([5, 5, 5], 10, [3, 3, 4]),
        ([], 10, []),
    ],
)
def test_shares_are_equal_and_what_one_lacks_goes_to_the_others(
    counts: list[int], most: int, expected: list[int]
) -> None:
    assert equal_shares(counts, most) == expected


@pytest.mark.parametrize("step", [1, 2, 3, 7, 152])
def test_rows_are_drawn_from_all_of_the_span_whatever_their_grid(step: int) -> None:
    rows = planted(1, 5000, 0.5)._replace(end_us=np.arange(5000) * 100_000 * step)
    markets = {"BTC": rows, "ETH": rows._replace(end_us=rows.end_us + 50_000)}
    thinned = sample(markets, 1000, seed=1)
    assert thinned.by_market == {"BTC": (500, 0), "ETH": (500, 0)}
    assert (np.diff(thinned.rows.end_us) > 0).all()
    of_tenths = np.histogram(thinned.rows.end_us, 10, (0, rows.end_us[-1]))[0]
    assert of_tenths.min() > 60 and of_tenths.max() < 150
    again, other = sample(markets, 1000, seed=1), sample(markets, 1000, seed=2)
    assert (again.rows.end_us == thinned.rows.end_us).all()
    assert (other.rows.end_us != thinned.rows.end_us).any()


def test_each_kind_has_its_own_limit() -> None:
    both = pool([planted(1, 300, 0.5), planted(2, 300, 0.5, has_quotes=0.0)])
    thinned = sample({"BTC": both, "ETH": planted(3, 50, 0.5)}, 200, seed=1)
    assert thinned.by_market == {"BTC": (150, 200), "ETH": (50, 0)}
    assert (thinned.rows.has_quotes.sum(), len(thinned.rows.end_us)) == (200, 400)


def test_few_rows_are_all_kept_in_their_order() -> None:
    assert drawn(4, 10, 1).tolist() == [0, 1, 2, 3]
    assert sample({}, 10, 1).rows.end_us.tolist() == []


def test_segments_of_a_symbol_are_one_market() -> None:
    rows = planted(1, 20, 0.5)
    markets = by_symbol(
        [("BTC", rows.chosen(slice(10, 20))), ("ETH", rows), ("BTC", rows.chosen(slice(0, 10)))]
    )
    assert {symbol: len(each.end_us) for symbol, each in markets.items()} == {"BTC": 20, "ETH": 20}
    assert (np.diff(markets["BTC"].end_us) > 0).all()

"""The study of waiting, on a market whose order is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.waiting import CLOSING_MS, Market, remaining_bp, variants
from tickcast.market.ticks import quotes_array, trades_array
from tickcast.model.forecast import PATH_S, Path, remaining

START_US = 1_700_000_000_000_000


def made(delay_ms: int) -> Market:
    """A quote each 10 ms that arrives at once, a trade each 50 ms that arrives `delay_ms` later."""
    quotes_us = START_US + np.arange(0, 5_000_000, 10_000)
    trades_us = START_US + np.arange(0, 5_000_000 - delay_ms * 1000, 50_000)
    quotes = [(int(us), int(us), n, 10_000, 5, 10_002, 5) for n, us in enumerate(quotes_us)]
    trades = [(int(us), int(us), n, n, 10_002, 1, 1) for n, us in enumerate(trades_us)]
    return Market(trades_array(trades), quotes_array(quotes), trades_us + delay_ms * 1000, quotes_us)


@pytest.mark.parametrize("lateness_ms", [0, 100, 200])
def test_only_what_waits_long_enough_has_no_late_ticks(lateness_ms: int) -> None:
    at_us = START_US + np.arange(1_000_000, 4_000_000, 100_000) + 5_000
    found = variants(made(delay_ms=170), at_us, lateness_ms, linger_ms=0)
    assert (found[0].late == 0) == (lateness_ms == 200)


def test_what_does_not_wait_is_newer() -> None:
    at_us = START_US + np.arange(1_000_000, 4_000_000, 100_000) + 55_000
    wait, bars, newest = variants(made(delay_ms=0), at_us, CLOSING_MS, linger_ms=0)
    ages_us = [np.unique(at_us - each.as_of_us).tolist() for each in (wait, bars, newest)]
    assert ages_us == [[155_000], [55_000], [4_000]]  # as of the end of the newest quote's millisecond


def test_a_path_is_read_as_in_serving() -> None:
    rng = np.random.default_rng(1)
    paths, ages_s = rng.normal(size=(20, len(PATH_S))), rng.uniform(0, 2, 20)
    for horizon_s in (1, 10):
        expected = [
            remaining(Path(path, [1.0] * len(PATH_S), [0.5] * len(PATH_S)), age_s, horizon_s).move_bp
            for path, age_s in zip(paths.tolist(), ages_s.tolist(), strict=True)
        ]
        assert remaining_bp(paths, ages_s, horizon_s) == pytest.approx(expected)

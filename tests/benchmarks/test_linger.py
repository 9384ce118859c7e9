"""The study of the linger, on a market whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.latency_budget import PREDICT_EVERY_MS
from benchmarks.linger import READY_MS, Market, study


def test_on_a_dense_random_walk_only_lingers_above_the_pace_of_predictions_cost() -> None:
    """A reader is then `READY_MS` and half the time between two answers behind."""
    steps = np.random.default_rng(2).normal(size=60_000)
    rows = {row.linger_ms: row for row in study(Market(np.arange(60_000.0) * 5, steps.cumsum()), 50_000)}
    for linger_ms in (10, 25, 50, 100):
        assert rows[linger_ms].equivalent_ms == pytest.approx(READY_MS + PREDICT_EVERY_MS / 2, abs=15)
        assert rows[linger_ms].answers_per_s == pytest.approx(1000 / PREDICT_EVERY_MS, rel=0.05)
    assert rows[150].equivalent_ms == pytest.approx(READY_MS + 150 / 2, abs=15)


def test_a_market_that_stands_still_costs_nothing() -> None:
    rows = study(Market(np.arange(10_000.0) * 5, np.zeros(10_000)), 1_000)
    assert {row.missed_bp for row in rows} == {0.0}

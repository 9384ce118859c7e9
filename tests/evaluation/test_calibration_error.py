"""The calibration error by hand, and its floor by formula against simulation."""

import numpy as np
import pytest

from tickcast.evaluation.calibration_error import calibration_error, floor_of_bins, of_bins, simulated_floor


def test_calibration_error_by_hand() -> None:
    confidence = np.repeat([0.55, 0.75, 0.95], 100)
    right = np.concatenate([np.repeat([1, 0], [45, 55]), np.repeat([1, 0], [75, 25]), np.ones(100)])
    shuffle = np.random.default_rng(0).permutation(300)
    # Bins of 30 mix neighbours of one probability alone, so the order within them does not matter on average.
    assert calibration_error(confidence, np.repeat([0.55, 0.75, 0.95], 100)) == pytest.approx(0)
    assert calibration_error(confidence[:100], np.zeros(100)) == pytest.approx(0.55)
    assert calibration_error(confidence[shuffle], right[shuffle]) > 0.04
    assert calibration_error(np.empty(0), np.empty(0)) == 0


def test_the_error_of_bins_is_that_of_their_rows() -> None:
    confidence, right = np.repeat([0.6, 0.9], 50), np.concatenate([np.ones(40), np.zeros(10), np.ones(50)])
    surplus = np.array([(confidence - right)[:50].sum(), (confidence - right)[50:].sum()])
    assert of_bins(surplus, 100) == pytest.approx((0.2 + 0.1) / 2)


def test_both_floors_agree_on_independent_outcomes() -> None:
    confidence, moved = np.linspace(0.5, 0.95, 2000), np.ones(2000, bool)
    simulated = simulated_floor(confidence, np.ones(2000), moved, 1, np.random.default_rng(0))
    sums = np.array([each.sum() for each in np.array_split(confidence, 10)])
    assert floor_of_bins(sums, np.full(10, 200.0)) == pytest.approx(simulated, rel=0.15)

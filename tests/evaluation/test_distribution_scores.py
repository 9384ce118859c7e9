"""Proper scores: against their definitions, and best for the true distribution."""

import numpy as np
import pytest

from tickcast.evaluation.distribution_scores import SCALE_OF_HALF_WIDTH, crps, interval_score


def test_an_interval_of_a_laplace_distribution_holds_four_in_five() -> None:
    drawn = np.random.default_rng(1).laplace(0, 1, 200_000)
    assert (np.abs(drawn) <= 1 / SCALE_OF_HALF_WIDTH).mean() == pytest.approx(0.8, abs=0.003)


@pytest.mark.parametrize("outcome", [0.0, 0.3, -2.0])
@pytest.mark.parametrize("expected", [0.0, 0.4, -1.0])
@pytest.mark.parametrize("p_flat", [0.0, 0.3, 0.95, 1.0])
def test_the_crps_is_the_integral_over_all_thresholds(outcome: float, expected: float, p_flat: float) -> None:
    """Of the squared distance between the forecast's distribution function and the outcome's step."""
    half_width = 1.7
    scale, step = half_width * SCALE_OF_HALF_WIDTH, 1e-3
    at = np.arange(-40, 40, step) + step / 2
    tail = 0.5 * np.exp(-np.abs(at - expected) / scale)
    distribution = p_flat * (at >= 0) + (1 - p_flat) * np.where(at < expected, tail, 1 - tail)
    integral = ((distribution - (at >= outcome)) ** 2).sum() * step
    given = (np.array([each]) for each in (outcome, expected, half_width, p_flat))
    assert crps(*given)[0] == pytest.approx(integral, abs=1e-3)


def test_a_miss_counts_ten_times_its_distance_from_the_interval() -> None:
    found = interval_score(np.array([0.5, -1.0, 1.5]), np.array([1.0, 1.0, 1.0]))
    assert found == pytest.approx([2.0, 2.0, 2.0 + 10 * 0.5])


def test_the_true_width_and_chance_of_no_move_score_best() -> None:
    rng = np.random.default_rng(2)
    moves = rng.laplace(0, 1, 100_000)
    factors, true_width = (0.5, 0.8, 1.0, 1.25, 2.0), 1 / SCALE_OF_HALF_WIDTH
    widths = {factor: np.full(len(moves), factor * true_width) for factor in factors}
    intervals = {factor: interval_score(moves, width).mean() for factor, width in widths.items()}
    assert min(intervals, key=intervals.__getitem__) == 1.0
    outcomes, zeros = np.where(rng.random(len(moves)) < 0.4, 0.0, moves), np.zeros(len(moves))
    means = {
        (factor, p_flat): crps(outcomes, zeros, width, zeros + p_flat).mean()
        for factor, width in widths.items()
        for p_flat in (0.0, 0.2, 0.4, 0.6)
    }
    assert min(means, key=means.__getitem__) == (1.0, 0.4)

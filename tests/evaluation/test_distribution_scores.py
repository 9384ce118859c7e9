"""Proper scores: against their definitions, and best for the true distribution."""

import numpy as np
import pytest

from tickcast.evaluation.distribution_scores import SCALE_OF_HALF_WIDTH, crps, interval_score


def test_an_interval_of_a_laplace_distribution_holds_four_in_five() -> None:
    drawn = np.random.default_rng(1).laplace(0, 1, 200_000)
    assert (np.abs(drawn) <= 1 / SCALE_OF_HALF_WIDTH).mean() == pytest.approx(0.8, abs=0.003)


@pytest.mark.parametrize("miss", [0.0, 0.3, -2.0])
def test_the_crps_is_the_integral_over_all_thresholds(miss: float) -> None:
    """Of the squared distance between the forecast's distribution function and the outcome's step."""
    half_width = 1.7
    scale, step = half_width * SCALE_OF_HALF_WIDTH, 1e-3
    at = np.arange(-40, 40, step) + step / 2
    distribution = np.where(at < 0, 0.5 * np.exp(at / scale), 1 - 0.5 * np.exp(-at / scale))
    integral = ((distribution - (at >= miss)) ** 2).sum() * step
    assert crps(np.array([miss]), np.array([half_width]))[0] == pytest.approx(integral, abs=1e-3)


def test_a_miss_counts_ten_times_its_distance_from_the_interval() -> None:
    found = interval_score(np.array([0.5, -1.0, 1.5]), np.array([1.0, 1.0, 1.0]))
    assert found == pytest.approx([2.0, 2.0, 2.0 + 10 * 0.5])


@pytest.mark.parametrize("score", [crps, interval_score])
def test_the_true_width_scores_best(score: object) -> None:
    outcomes = np.random.default_rng(2).laplace(0, 1, 100_000)
    true_width = 1 / SCALE_OF_HALF_WIDTH
    means = {
        factor: score(outcomes, np.full(len(outcomes), factor * true_width)).mean()  # type: ignore[operator]
        for factor in (0.5, 0.8, 1.0, 1.25, 2.0)
    }
    assert min(means, key=lambda factor: means[factor]) == 1.0

"""Skill and its interval: by hand, and that the interval accounts for correlation."""

from __future__ import annotations

import numpy as np
import pytest

from tickcast.evaluation.skill import share, skill, skill_of_squares


def test_skill_by_hand() -> None:
    outcomes, expected = np.array([2.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    assert skill(outcomes, expected, np.zeros(3), 1)[0] == pytest.approx(1 - 5 / 9)
    assert skill(outcomes, outcomes, np.zeros(3), 1) == (1.0, [1.0, 1.0])
    assert skill(outcomes, expected, expected, 1)[0] == pytest.approx(0)
    assert skill_of_squares(np.ones(3), np.full(3, 2.0), 1) == (0.5, [0.5, 0.5])


def test_a_share_of_zero_is_one() -> None:
    assert share(np.zeros(3), np.zeros(3), 1) == (1.0, [1.0, 1.0])
    assert share(np.zeros(0), np.zeros(0), 1) == (1.0, [1.0, 1.0])


def test_correlated_errors_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    single = rng.normal(size=2000) ** 2
    together = np.repeat(rng.normal(size=200) ** 2, 10)
    widths = [np.diff(share(part, np.ones(2000), 20)[1])[0] for part in (single, together)]
    assert widths[1] > 2 * widths[0]


def test_the_interval_covers() -> None:
    """Of 200 samples about 95 % have the truth in their interval."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(200):
        low, high = share(rng.normal(size=400) ** 2, np.ones(400), 10)[1]
        hits += low < 1 < high
    assert 0.88 <= hits / 200 <= 0.99


def test_the_interval_of_the_bootstrap_covers_the_truth_as_often_as_claimed() -> None:
    """Over many samples whose rows are correlated: too narrow where blocks of single rows are drawn."""
    covered = {1: 0, 100: 0}
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(size=1029)
        correlated = np.convolve(noise, np.ones(30) / 30, "valid")  # (1000,), of mean 0
        for block_rows in covered:
            _, (low, high) = share(correlated + 1, np.ones(1000), block_rows)
            covered[block_rows] += low <= 1 <= high
    assert covered[100] / 60 > 0.85
    assert covered[1] / 60 < 0.5

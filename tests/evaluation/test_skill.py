"""Skill and its interval: by hand, and that the interval accounts for correlation."""

from __future__ import annotations

import numpy as np
import pytest

from tickcast.evaluation.skill import (
    UNKNOWN,
    block_count,
    by_instant,
    share,
    skill,
    skill_of_blocks,
    skill_of_squares,
    t_quantile,
    t_tails,
)


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


def test_quantiles_of_student_s_t_are_those_of_the_tables() -> None:
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 7: 2.365, 9: 2.262, 30: 2.042}
    for freedom, quantile in table.items():
        assert t_quantile(0.05, freedom) == pytest.approx(quantile, abs=5e-4)
        assert t_tails(-quantile, freedom) == pytest.approx(0.05, abs=5e-5)
    assert t_tails(0.0, 4) == 1.0
    assert t_tails(np.inf, 3) == t_tails(np.inf, 4) == 0.0
    assert t_tails(2.0, 1) == pytest.approx(1 - 2 / np.pi * np.arctan(2))  # Cauchy's distribution


def test_the_number_of_blocks_follows_the_span() -> None:
    hours = {0.1: 4, 1: 4, 1.5: 6, 2.5: 10, 10: 10, 72: 10}
    assert {h: block_count(h * 3600) for h in hours} == hours


def test_skill_of_blocks_by_hand() -> None:
    ours, theirs = np.array([1.0, 2.0, 3.0]), np.array([4.0, 4.0, 4.0])
    found = skill_of_blocks(ours, theirs)
    without = 1 - np.array([5, 4, 3]) / 8
    half = 4.3027 * np.sqrt(2 / 3 * ((without - 0.5) ** 2).sum())
    assert found[:3] == pytest.approx((0.5, 0.5 - half, 0.5 + half), rel=1e-4)
    assert skill_of_blocks(theirs, theirs) == (0.0, 0.0, 0.0, 1.0)
    assert skill_of_blocks(0 * theirs, theirs) == (1.0, 1.0, 1.0, 0.0)


def test_one_block_that_holds_anything_tells_nothing() -> None:
    assert skill_of_blocks(np.array([1.0, 0.0]), np.array([2.0, 0.0])) == (0.5, *UNKNOWN, 1.0)
    assert skill_of_blocks(np.zeros(4), np.zeros(4)) == (0.0, *UNKNOWN, 1.0)


def test_few_unequal_blocks_are_covered_as_claimed() -> None:
    """Ten blocks whose variances differ by orders of magnitude."""
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(400):
        theirs = np.exp(rng.normal(0, 0.7, 10))
        found = skill_of_blocks(theirs * (1 + 0.1 * rng.normal(size=10)), theirs)
        hits += found.low <= 0 <= found.high
    assert hits / 400 >= 0.92


def test_rows_of_one_instant_are_one() -> None:
    end_us, values = np.array([5, 7, 5]), np.array([1.0, 10.0, 100.0])
    assert by_instant(end_us, values).tolist() == [101.0, 10.0]

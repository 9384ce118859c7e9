"""The figures of predictions, against hand-made outcomes and a plain re-computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tickcast.scoring import score, score_horizon, skill


def outcome(
    second: int, horizon_s: int = 2, move: float | None = 1.0, expected: float | None = 0.5, **told: Any
) -> dict[str, Any]:
    right = (move > 0) == (expected > 0) if move and expected else None
    return {
        "timestamp": second * 1000,
        "horizon_s": horizon_s,
        "status": "resolved",
        "why": None,
        "source": "model",
        "abstains": False,
        "move_bp": move,
        "expected_move_bp": expected,
        "inside": None if expected is None else True,
        "right": right,
        "imbalance": 0.5,
        **told,
    }


def market(seconds: int, seed: int = 1) -> list[dict[str, Any]]:
    """Outcomes of a model that knows half of the move, in a market that imbalance tells nothing of."""
    rng = np.random.default_rng(seed)
    known, unknown = rng.normal(size=(2, seconds))
    return [
        outcome(s, move=float(known[s] + unknown[s]), expected=float(known[s]), imbalance=float(rng.normal()))
        for s in range(seconds)
    ]


def test_skill_is_the_share_of_the_error_taken_away() -> None:
    errors, baseline = np.array([1.0, 0.0, 2.0]), np.array([2.0, 1.0, 2.0])
    found = skill(errors, baseline, block_rows=10)
    assert found == {"value": round(1 - 5 / 9, 4), "low": None, "high": None}
    assert skill(np.zeros(3), np.zeros(3), block_rows=1) is None
    assert skill(np.zeros(0), np.zeros(0), block_rows=1) is None


def test_the_interval_holds_the_truth_and_narrows_with_more() -> None:
    few, many = (score_horizon(2, market(seconds))["skill"] for seconds in (300, 3000))
    for found in (few, many):
        assert found["low"] < 0.5 < found["high"]
        assert found["low"] < found["value"] < found["high"]
    assert many["high"] - many["low"] < few["high"] - few["low"]


def test_errors_that_hang_together_are_less_sure() -> None:
    rng = np.random.default_rng(2)
    single = rng.normal(size=(2, 2000))
    together = np.repeat(rng.normal(size=(2, 200)), 10, axis=1)
    widths = []
    for baseline, noise in (single, together):
        found = skill(baseline + noise, baseline, block_rows=20)
        assert found
        widths.append(found["high"] - found["low"])  # type: ignore[operator]
    assert widths[1] > 2 * widths[0]


def test_the_best_line_is_no_match_for_who_knows_and_no_worse_than_nothing() -> None:
    outcomes = market(1000)
    figures = score_horizon(2, outcomes)
    assert figures["skill_vs_linear"]["value"] == pytest.approx(figures["skill"]["value"], abs=0.01)
    line = [each | {"imbalance": each["expected_move_bp"]} for each in outcomes]
    assert score_horizon(2, line)["skill_vs_linear"]["value"] == pytest.approx(0, abs=0.01)
    assert score_horizon(2, [each | {"imbalance": None} for each in outcomes])["skill_vs_linear"] is None


def test_direction_and_coverage_count_only_what_they_are_about() -> None:
    outcomes = [
        outcome(1, move=1.0, expected=0.5),
        outcome(2, move=-1.0, expected=0.5, inside=False),
        outcome(3, move=0.0, expected=0.5),
        outcome(4, move=1.0, expected=0.1, abstains=True),
        outcome(5, move=1.0, expected=None, source="fallback", abstains=True),
        outcome(6, move=None, status="unresolved", why="gap", inside=None, right=None),
        outcome(7, move=None, status="unresolved", why="no_quotes", inside=None, right=None),
    ]
    figures = score_horizon(2, outcomes)
    assert (figures["count"], figures["moved"], figures["fallbacks"]) == (4, 3, 1)
    assert figures["direction"] == round(2 / 3, 4)
    assert figures["coverage"] == 0.75
    assert figures["abstained"] == 1
    assert (figures["decided"]["count"], figures["decided"]["direction"]) == (3, 0.5)
    assert figures["unresolved"] == {"gap": 1, "no_quotes": 1}


def test_each_horizon_by_itself_in_any_order() -> None:
    outcomes = [outcome(s, h, move=float(s % 3 - 1)) for h in (1, 2, 5, 10) for s in range(50)]
    shuffled = [outcomes[i] for i in np.random.default_rng(3).permutation(len(outcomes))]
    assert score(shuffled) == score(outcomes)
    assert list(score(outcomes)) == ["1", "2", "5", "10"]
    assert {figures["count"] for figures in score(outcomes).values()} == {50}


def test_nothing_is_said_of_nothing() -> None:
    for figures in score([]).values():
        assert (figures["count"], figures["skill"], figures["direction"], figures["coverage"]) == (
            0,
            None,
            None,
            None,
        )

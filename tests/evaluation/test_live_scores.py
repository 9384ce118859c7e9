"""The figures of predictions, from hand-made outcomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec import to_builtins

from tests.fixtures.tallies import market, outcome, regimes, steps, tallies
from tickcast.evaluation.baselines import LIVE_DAMPING
from tickcast.evaluation.live_scores import (
    NO_TALLIES,
    availability,
    score,
    score_horizon,
    skill_against_line,
)
from tickcast.evaluation.steps import series
from tickcast.model.card import ScaledLine
from tickcast.model.forecast import HORIZONS_S
from tickcast.units import MINUTE_US

SECOND_US = 1_000_000


def figures(outcomes: list[dict[str, Any]], **how: Any) -> dict[str, Any]:
    found: dict[str, Any] = to_builtins(score_horizon(2, tallies(outcomes, **how)))
    return found


def test_skill_is_the_share_of_squared_error_removed() -> None:
    found = figures([outcome(1, move=2.0, expected=1.0), outcome(2, move=-1.0, expected=1.0)])
    assert found["skill"] == {"value": 0.0, "low": None, "high": None}  # 1 + 4 against 4 + 1
    assert figures([outcome(1, move=2.0, expected=1.0)])["skill"]["value"] == 0.75
    assert figures([outcome(1, move=0.0)])["skill"] is None


def test_the_interval_covers_the_truth_and_narrows_with_more_rows() -> None:
    found = [figures(market(1800, seed))["skill"] for seed in range(40)]
    assert sum(each["low"] < 0.5 < each["high"] for each in found) >= 0.8 * len(found)
    few, many = (figures(market(seconds))["skill"] for seconds in (1800, 18_000))
    assert many["low"] < many["value"] < many["high"]
    assert many["high"] - many["low"] < 0.5 * (few["high"] - few["low"])


def test_too_few_blocks_give_no_interval() -> None:
    found = figures(market(200))
    assert (found["skill"]["low"], found["direction_ci"], found["coverage_ci"]) == (None, None, None)
    assert found["skill"]["value"] is not None


def test_skill_against_the_line_is_relative_to_its_fit() -> None:
    outcomes = market(1000)
    found = figures(outcomes)
    assert found["skill_vs_linear"]["value"] == pytest.approx(found["skill"]["value"], abs=0.01)
    same = [each | {"imbalance": each["expected_move_bp"]} for each in outcomes]
    assert figures(same)["skill_vs_linear"]["value"] == pytest.approx(0, abs=0.01)
    assert figures([each | {"imbalance": None} for each in outcomes])["skill_vs_linear"] is None


def test_the_line_is_that_of_least_squares_scaled_by_volatility() -> None:
    rng = np.random.default_rng(2)
    outcomes = [each | {"scale_bp": float(np.exp(rng.normal()))} for each in market(300)]
    names = ("imbalance", "move_bp", "expected_move_bp", "scale_bp")
    i, m, e, scale = (np.array([o[n] for o in outcomes]) for n in names)
    z = i * scale * (scale / np.sqrt(2)) ** LIVE_DAMPING[2]
    left = m - z * (z @ m) / (z @ z)
    expected = 1 - ((m - e) ** 2).sum() / (left**2).sum()
    assert figures(outcomes)["skill_vs_linear"]["value"] == round(float(expected), 4)


def test_a_line_in_basis_points_is_no_opponent_where_volatility_changes() -> None:
    """The model knows nothing but the scaled line: it is no better, however good a plain line would let it
    look."""
    rng = np.random.default_rng(4)
    outcomes = []
    for each in market(2000):
        sigma, imbalance = float(np.exp(rng.normal())), float(rng.uniform(-1, 1))
        expected = imbalance * sigma * 2**0.5 * sigma ** LIVE_DAMPING[2]
        move = expected + sigma * float(rng.normal())
        of_it = {"imbalance": imbalance, "scale_bp": sigma * 2**0.5}
        outcomes.append(each | of_it | {"expected_move_bp": expected, "move_bp": move})
    found = tallies(outcomes)
    assert figures(outcomes)["skill"]["value"] > 0.1
    assert abs(figures(outcomes)["skill_vs_linear"]["value"]) < 0.005
    usual = 3.0  # the slope on a card is around another volatility
    line = ScaledLine(usual_sigma=usual, slopes={2: usual ** LIVE_DAMPING[2]})
    against = skill_against_line(found, line, 2)
    assert against is not None and against.value == pytest.approx(0, abs=1e-4)


def test_skill_is_by_regime_of_the_minute() -> None:
    """Where the spread is wide the model knows nothing; half of the time it is a single tick."""
    outcomes = []
    for each in market(3600):
        minute = each["target_time"] // 60_000
        wide = minute % 2 == 1
        changed = {"spread_bp": 0.5 + minute / 100 if wide else 0.1}
        changed |= {"expected_move_bp": -each["expected_move_bp"]} if wide else {}
        outcomes.append(each | changed)
    how = score(tallies(outcomes), regimes(outcomes, MINUTE_US))[2].regimes
    found: dict[str, Any] = to_builtins(how)
    assert list(found) == ["volatility", "spread", "hour"]
    assert list(found["hour"]) == ["00-06"]
    low, high = found["spread"]["low"], found["spread"]["high"]
    assert (low["from_bp"], low["to_bp"]) == (0.1, 0.1)
    assert low["skill"]["low"] > 0.4 and high["skill"]["high"] < 0
    assert list(found["volatility"]) == ["low"]  # of equal values none is split
    assert found["volatility"]["low"]["count"] == found["hour"]["00-06"]["count"] == 3600
    assert sum(each["count"] for each in found["spread"].values()) == 3600
    assert score(tallies(outcomes))[2].regimes == {}


def test_skill_in_hindsight_is_of_the_moves_from_the_prediction_s_own_instant_on() -> None:
    outcomes = [outcome(s, move=float(m), expected=float(m)) for s, m in enumerate((1, -2, 3))]
    assert figures(outcomes)["skill"]["value"] == 1
    assert figures(outcomes)["skill_in_hindsight"]["value"] == 0.75  # half of twice the move was expected


def test_a_distribution_in_the_right_place_has_skill_by_both_scores() -> None:
    outcomes = market(1800)
    found = figures(outcomes)
    for name in ("crps", "interval_score"):
        assert found[f"{name}_bp"] > 0
        assert 0 < found[f"{name}_skill"]["low"] < found[f"{name}_skill"]["value"]
    blind = [each | {"expected_move_bp": 0.0} for each in outcomes]
    assert figures(blind)["crps_skill"]["value"] == figures(blind)["interval_score_skill"]["value"] == 0
    wide = [each | {"half_width_bp": 20.0} for each in outcomes]
    assert figures(wide)["interval_score_bp"] > found["interval_score_bp"]


def test_direction_and_coverage_count_only_applicable_outcomes() -> None:
    outcomes = [
        outcome(1, move=1.0, expected=0.5),
        outcome(2, move=-1.0, expected=0.5, inside=False),
        outcome(3, move=0.0, expected=0.5),
        outcome(4, move=1.0, expected=0.1, abstains=True),
        outcome(5, move=1.0, expected=None),
        outcome(6, move=None),
        outcome(7, move=None, why="no_quotes"),
    ]
    found = figures(outcomes)
    assert (found["count"], found["moved"], found["fallbacks"]) == (4, 3, 1)
    assert found["direction"] == round(2 / 3, 4)
    assert found["coverage"] == 0.75
    assert found["abstained"] == 1
    assert (found["decided"]["count"], found["decided"]["direction"]) == (3, 0.5)
    assert found["fallback_share"] == 0.2
    assert found["unresolved"] == {"gap": 1, "no_quotes": 1}


def test_calibration_error_is_the_distance_of_confidence_from_outcomes() -> None:
    def planted(confidence: float, rights: int, of: int) -> list[dict[str, Any]]:
        return [outcome(n, confidence=confidence, right=n < rights) for n in range(of)]

    true = figures([*planted(0.6, 60, 100), *planted(0.9, 90, 100)])
    assert true["calibration_error"] == 0
    wrong = figures([*planted(0.6, 80, 100), *planted(0.9, 90, 100)])
    assert wrong["calibration_error"] == pytest.approx(0.1)
    # In the middle of its bin a perfect model is off by chance: √(2p(1-p)/πn).
    by_chance = 0.5 * (np.sqrt(2 * 0.24 / (np.pi * 100)) + np.sqrt(2 * 0.09 / (np.pi * 100)))
    assert wrong["calibration_floor"] == pytest.approx(by_chance, abs=1e-4)
    rng = np.random.default_rng(1)
    drawn = [
        figures(
            [
                *planted(0.6, rng.binomial(100, 0.6), 100),
                *planted(0.9, rng.binomial(100, 0.9), 100),
            ]
        )
        for _ in range(200)
    ]
    assert np.mean([each["calibration_error"] for each in drawn]) == pytest.approx(by_chance, rel=0.1)


def test_horizons_are_scored_separately_in_any_order_and_blocks() -> None:
    outcomes = [outcome(s, h, move=float(s % 3 - 1)) for h in HORIZONS_S for s in range(50)]
    shuffled = [outcomes[i] for i in np.random.default_rng(3).permutation(len(outcomes))]
    assert score(tallies(shuffled)) == score(tallies(outcomes))
    assert list(score(tallies(outcomes))) == [1, 2, 5, 10]
    assert {found.count for found in score(tallies(outcomes)).values()} == {50}
    coarse = score(tallies(market(600), 10 * MINUTE_US))
    for name in ("count", "direction", "coverage", "calibration_error"):
        assert getattr(coarse[2], name) == getattr(score(tallies(market(600)))[2], name)


def test_no_outcomes_give_no_figures() -> None:
    for found in score(NO_TALLIES).values():
        assert (found.count, found.fallbacks, found.unresolved) == (0, 0, {})
        for name in ("skill", "direction", "coverage", "calibration_error", "fallback_share"):
            assert getattr(found, name) is None


def test_availability_is_the_share_of_seconds_that_a_model_answered() -> None:
    outcomes = [outcome(s, 1) for s in range(90)] + [outcome(s, 1, expected=None) for s in range(90, 100)]
    assert availability(tallies(outcomes), 1 * SECOND_US, 101 * SECOND_US) == 0.9
    assert availability(tallies(outcomes), 1 * SECOND_US, 181 * SECOND_US) == 0.5  # then silence
    lost = [outcome(s, 1, move=None) for s in range(100)]  # answered, although unresolved
    assert availability(tallies(lost), 1 * SECOND_US, 101 * SECOND_US) == 1
    assert availability(NO_TALLIES, 0, 10 * SECOND_US) == 0
    assert availability(NO_TALLIES, 0, 0) is None


def test_bins_are_the_points_of_a_calibration_plot() -> None:
    rows = [outcome(n, confidence=0.62, move=1.0) for n in range(4)]
    rows += [outcome(n, confidence=0.63, move=-1.0) for n in range(4, 6)]
    rows += [outcome(6, confidence=0.97, move=1.0), outcome(7, confidence=0.97, move=0.0)]
    assert figures(rows)["bins"] == [
        {"confidence": 0.6233, "right": 0.6667, "count": 6},
        {"confidence": 0.97, "right": 1.0, "count": 1},  # where it moved
    ]
    assert figures([outcome(1, expected=None)])["bins"] == figures([])["bins"] == []


def test_the_error_of_calibration_is_that_of_the_bins() -> None:
    found = figures(market(2000))
    distance = sum(each["count"] * abs(each["confidence"] - each["right"]) for each in found["bins"])
    assert found["calibration_error"] == pytest.approx(distance / found["moved"], abs=1e-4)
    assert sum(each["count"] for each in found["bins"]) == found["moved"]


def test_the_skill_at_the_delivery_is_the_skill() -> None:
    found = figures(market(700))
    assert found["by_age"] == [{"age_s": 0, "count": 700, "skill": found["skill"]}]
    assert figures([])["by_age"] == []


def test_steps_are_cut_off_at_the_ends_and_missing_without_outcomes() -> None:
    outcomes = market(300) + [each | {"target_time": each["target_time"] + 900_000} for each in market(60)]
    span_us = 60 * SECOND_US, 1000 * SECOND_US
    found = series(steps(outcomes), MINUTE_US, 5 * MINUTE_US, span_us)
    assert [(each.from_ms, each.to_ms, each.count) for each in found[2]] == [
        (60_000, 300_000, 298),
        (300_000, 600_000, 2),
        (900_000, 1_000_000, 60),
    ]
    assert found[1] == []
    first = figures(outcomes[:298])
    assert found[2][0].skill is not None and found[2][0].skill.value == first["skill"]["value"]
    assert found[2][0].skill.low is None  # of five blocks
    assert found[2][0].coverage == first["coverage"]
    (of_hour,) = series(steps(market(3500)), MINUTE_US, 60 * MINUTE_US, (0, 3600 * SECOND_US))[2]
    assert to_builtins(of_hour.skill) == figures(market(3500))["skill"]

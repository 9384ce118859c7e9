"""Figures of a backtest: of a planted signal, of a perfect and of an overconfident model."""

from dataclasses import replace

import numpy as np
import pytest

from tests.fixtures.holdouts import FAST, holdout_of, later
from tests.model.test_training import planted
from tickcast.evaluation.backtest import (
    AGES_MS,
    AtAge,
    BacktestRows,
    EvaluationError,
    _joined,
    train_and_fit_line,
)
from tickcast.evaluation.backtest_figures import figures_by_age, figures_by_horizon, masked_figures
from tickcast.evaluation.baselines import BASELINES
from tickcast.model.forecast import HORIZONS_S

H = len(HORIZONS_S)


def test_a_perfect_model_is_at_the_floor_and_an_overconfident_one_above() -> None:
    rng = np.random.default_rng(1)
    rows = 3000
    true = 0.5 + 0.4 * rng.random((rows, H))
    right = rng.random((rows, H)) < true
    flat = np.zeros((rows, H))
    column = np.zeros(rows)
    end_us = np.arange(rows) * 100_000
    moves = np.where(right, 1.0, -1.0)
    perfect = BacktestRows(
        segment=column.astype(int),
        end_us=end_us,
        sigma_bp=column + 1,
        spread_bp=column,
        confidence=true,
        half_width_bp=np.where(right, 1.0, 0.5),
        p_flat=flat,
        ages=dict.fromkeys(AGES_MS, AtAge(moves, flat + 1, dict.fromkeys(BASELINES, flat), flat)),
    )
    for excess, is_above in ((0.0, False), (0.1, True)):
        figures = figures_by_horizon(perfect._replace(confidence=np.minimum(true + excess, 1.0)), 200)
        for horizon in ("1", "2"):
            surplus = figures[horizon]["calibration_error"] - figures[horizon]["calibration_floor"]
            assert (surplus > 0.02) == is_above
    assert figures["10"]["calibration_floor"] > figures["10"]["calibration_floor_if_independent"]
    assert figures["1"]["coverage80"] == pytest.approx(right[:, 0].mean(), abs=1e-4)


def test_figures_of_a_planted_signal(predicted: BacktestRows) -> None:
    figures = figures_by_horizon(predicted, 200)
    assert figures.keys() == {"1", "2", "5", "10"}
    for found in figures.values():
        low, high = found["skill_ci"]
        assert 0.1 < low < found["skill"] < high < 0.4
        low, high = found["skill_at_delivery_ci"]
        assert 0.03 < low < found["skill_at_delivery"] < high < found["skill"]
        assert found["direction"] > found["direction_at_delivery"] > 0.6
        assert found["coverage80"] == pytest.approx(0.8, abs=0.04)
        assert abs(found["calibration_error"] - found["calibration_floor"]) < 0.03
        for baselines in (found["baselines"], found["baselines_at_delivery"]):
            assert baselines["no_change"] == 0
            assert baselines["linear_imbalance"] > 0.03  # the signal is the imbalance
        for name in ("skill_vs_linear", "skill_vs_linear_at_delivery", "crps_skill", "interval_score_skill"):
            assert found[f"{name}_ci"][0] <= found[name] <= found[f"{name}_ci"][1]
        assert found["crps_bp"] > 0 and found["interval_score_skill"] > 0
        assert found["grid_1s"]["worst"] < found["skill"] < found["grid_1s"]["best"]
        assert found["regimes"].keys() == {"low", "middle", "high"}
        assert sum(regime["rows"] for regime in found["regimes"].values()) == 3000


def test_skill_falls_with_the_age_at_which_a_prediction_is_read(predicted: BacktestRows) -> None:
    by_age = figures_by_age(predicted)
    assert list(by_age) == [str(age_ms) for age_ms in range(0, 1001, 100)]
    figures = figures_by_horizon(predicted, 300)
    for horizon, found in figures.items():
        skills = [each[horizon]["skill"] for each in by_age.values()]
        assert (np.diff(skills) < 0.005).all() and skills[0] > skills[-1] + 0.03
        assert (skills[0], skills[3]) == (found["skill"], found["skill_at_delivery"])
        assert by_age["300"][horizon]["direction_ci"] == found["direction_at_delivery_ci"]


def test_a_move_that_is_over_by_delivery_is_no_longer_to_be_predicted(predicted: BacktestRows) -> None:
    """Against the mid at delivery, the whole move expected counts as an error where nothing is left of it."""
    whole = predicted.ages[0]
    over = whole._replace(moves_bp=whole.moves_bp * 0.1)
    figures = figures_by_horizon(predicted._replace(ages={**predicted.ages, 200: over}), 200)
    assert figures["1"]["skill_at_delivery"] < -1
    assert figures["1"]["skill"] == figures_by_horizon(predicted, 200)["1"]["skill"]


def test_without_rows_there_are_no_figures(predicted: BacktestRows) -> None:
    with pytest.raises(EvaluationError, match="no rows with quotes"):
        figures_by_horizon(predicted.chosen(np.zeros(len(predicted.end_us), bool)), 200)


def test_the_masked_part_is_evaluated_on_rows_with_their_quotes_masked() -> None:
    settings = replace(FAST, members=1)
    flow = 8  # trade_flow_1s
    markets = {"BTC": planted(3, 3000, 0.6), "ETH": planted(4, 3000, 0.6, flow, has_quotes=0.0)}
    trained = train_and_fit_line(markets, settings)
    masked = later(planted(5, 3000, 0.6, flow, has_quotes=0.0), 1000)
    figures = masked_figures(trained, [holdout_of(planted(6, 10, 0.6))._replace(masked=masked)])
    assert figures["2"]["skill"] > 0.03
    assert figures["2"]["coverage80"] == pytest.approx(0.8, abs=0.04)
    assert masked_figures(trained, [holdout_of(planted(6, 10, 0.6))]) == {}


def test_the_same_minutes_of_a_second_market_are_no_further_evidence(predicted: BacktestRows) -> None:
    """A market that moves as the first does: the same figures, with intervals as wide."""
    twice = _joined([predicted, predicted])
    for horizon, found in figures_by_horizon(twice, 200).items():
        alone = figures_by_horizon(predicted, 200)[horizon]
        for name, value in alone.items():
            if name.endswith("_ci") and not name.startswith("calibration"):
                assert found[name] == pytest.approx(value, abs=1e-4)
    assert figures_by_age(twice)["200"]["1"]["skill_ci"] == pytest.approx(
        figures_by_age(predicted)["200"]["1"]["skill_ci"], abs=1e-4
    )

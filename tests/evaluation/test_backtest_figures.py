"""Figures of a backtest: of a planted signal, of a perfect and of an overconfident model."""

from dataclasses import replace

import numpy as np
import pytest

from tests.fixtures.holdouts import FAST, holdout_of, later
from tests.model.test_training import planted
from tickcast.evaluation.backtest import BacktestRows, EvaluationError, train_and_fit_line
from tickcast.evaluation.backtest_figures import figures_by_horizon, masked_figures
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
        moves_bp=moves,
        expected_bp=flat + 1,
        confidence=true,
        inside=right,
        p_flat=flat,
        delivered_bp=column,
        baselines_bp=dict.fromkeys(BASELINES, flat),
    )
    for excess, is_above in ((0.0, False), (0.1, True)):
        figures = figures_by_horizon(perfect._replace(confidence=np.minimum(true + excess, 1.0)))
        for horizon in ("1", "2"):
            surplus = figures[horizon]["calibration_error"] - figures[horizon]["calibration_floor"]
            assert (surplus > 0.02) == is_above
    assert figures["10"]["calibration_floor"] > figures["10"]["calibration_floor_if_independent"]


def test_figures_of_a_planted_signal(predicted: BacktestRows) -> None:
    figures = figures_by_horizon(predicted)
    assert figures.keys() == {"1", "2", "5", "10"}
    for horizon, found in figures.items():
        low, high = found["skill_ci"]
        assert 0.1 < low < found["skill"] < high < 0.35
        assert found["direction"] > 0.65
        assert found["coverage80"] == pytest.approx(0.8, abs=0.04)
        assert abs(found["calibration_error"] - found["calibration_floor"]) < 0.03
        assert found["baselines"]["no_change"] == 0
        assert found["baselines"]["linear_imbalance"] > 0.1  # the signal is the imbalance
        assert found["skill_vs_linear_ci"][0] <= found["skill_vs_linear"] <= found["skill_vs_linear_ci"][1]
        assert found["grid_1s"]["worst"] < found["skill"] < found["grid_1s"]["best"]
        assert found["regimes"].keys() == {"low", "middle", "high"}
        assert sum(regime["rows"] for regime in found["regimes"].values()) == 3000
        assert found["skill_at_delivery"] == found["skill"], horizon  # the mid had not moved by then


def test_at_delivery_the_baseline_is_the_price_then(predicted: BacktestRows) -> None:
    ahead = predicted._replace(delivered_bp=predicted.moves_bp[:, 0] * 0.9)
    assert figures_by_horizon(ahead)["1"]["skill_at_delivery"] < -1  # nearly all of the move was over
    assert figures_by_horizon(ahead)["1"]["skill"] == figures_by_horizon(predicted)["1"]["skill"]


def test_without_rows_there_are_no_figures(predicted: BacktestRows) -> None:
    with pytest.raises(EvaluationError, match="no rows with quotes"):
        figures_by_horizon(predicted.chosen(np.zeros(len(predicted.end_us), bool)))


def test_the_masked_part_is_evaluated_on_rows_with_their_quotes_masked() -> None:
    settings = replace(FAST, members=1)
    flow = 8  # trade_flow_1s
    markets = [planted(3, 3000, 0.6), planted(4, 3000, 0.6, flow, has_quotes=0.0)]
    trained = train_and_fit_line(markets, settings)
    masked = later(planted(5, 3000, 0.6, flow, has_quotes=0.0), 1000)
    figures = masked_figures(trained, [holdout_of(planted(6, 10, 0.6))._replace(masked=masked)])
    assert figures["2"]["skill"] > 0.05
    assert figures["2"]["coverage80"] == pytest.approx(0.8, abs=0.04)
    assert masked_figures(trained, [holdout_of(planted(6, 10, 0.6))]) == {}

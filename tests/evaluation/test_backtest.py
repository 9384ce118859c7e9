"""Figures against cases worked out by hand, labels that mean nothing, and the same answers as served live."""

from dataclasses import replace

import numpy as np
import pytest

from tests.fixtures.market import random_ticks
from tests.model.test_training import planted
from tickcast.evaluation import backtest
from tickcast.evaluation.backtest import (
    BacktestRows,
    EvaluationError,
    Holdout,
    Trained,
    calibration_error,
    detects_leakage,
    fit_line,
    judge,
    masked_figures,
    predict,
    relabelled,
    scene,
    shifted,
    shuffled,
    simulate_online_calibration,
    train_and_fit_line,
    walk_forward,
)
from tickcast.evaluation.skill import share, skill
from tickcast.features.bars import mids, segments
from tickcast.model.calibration import Calibrator
from tickcast.model.dataset import Rows
from tickcast.model.forecast import HORIZONS_S, Calibration
from tickcast.model.network import SIGMA
from tickcast.model.training import TrainingSettings

FAST = TrainingSettings(members=2, epochs=12, test_share=0)
CALIBRATIONS = {h: Calibration(direction_slope=2.0, interval_width=1.0) for h in HORIZONS_S}
H = len(HORIZONS_S)


def later(rows: Rows, seconds: int) -> Rows:
    return rows._replace(end_us=rows.end_us + seconds * 1_000_000)


def stage(rows: Rows) -> Holdout:
    return Holdout(rows, np.zeros(len(rows.end_us)), np.zeros(len(rows.end_us)), 0, rows.chosen(slice(0, 0)))


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train_and_fit_line([planted(3, 6000, 0.6)], FAST)


@pytest.fixture(scope="module")
def told(trained: Trained) -> BacktestRows:
    return predict(trained, [stage(later(planted(4, 3000, 0.6), 1000))])


def test_skill_is_what_is_left_of_the_squares() -> None:
    came, expected = np.array([1.0, -2.0, 0.0, 3.0]), np.array([1.0, -1.0, 0.0, 1.0])
    assert skill(came, expected, np.zeros(4), 1)[0] == pytest.approx(1 - 5 / 14)
    assert skill(came, expected, expected, 1)[0] == pytest.approx(0)
    assert skill(came, came, expected, 1) == (1.0, [1.0, 1.0])


def test_the_bootstrap_s_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Over many samples whose rows hang together: too narrow where blocks of single rows are drawn."""
    held = {1: 0, 100: 0}
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(size=1029)
        hang_together = np.convolve(noise, np.ones(30) / 30, "valid")  # (1000,), of mean 0
        for block_rows in held:
            _, (low, high) = share(hang_together + 1, np.ones(1000), block_rows)
            held[block_rows] += low <= 1 <= high
    assert held[100] / 60 > 0.85
    assert held[1] / 60 < 0.5


def test_calibration_error_by_hand() -> None:
    said = np.repeat([0.55, 0.75, 0.95], 100)
    came = np.concatenate([np.repeat([1, 0], [45, 55]), np.repeat([1, 0], [75, 25]), np.ones(100)])
    shuffle = np.random.default_rng(0).permutation(300)
    # Bins of 30 mix neighbours of one probability alone, so the order within them does not matter on average.
    assert calibration_error(said, np.repeat([0.55, 0.75, 0.95], 100)) == pytest.approx(0)
    assert calibration_error(said[:100], np.zeros(100)) == pytest.approx(0.55)
    assert calibration_error(said[shuffle], came[shuffle]) > 0.04
    assert calibration_error(np.empty(0), np.empty(0)) == 0


def test_a_perfect_model_comes_out_at_the_floor_and_a_boaster_above_it() -> None:
    rng = np.random.default_rng(1)
    rows = 3000
    true = 0.5 + 0.4 * rng.random((rows, H))
    right = rng.random((rows, H)) < true
    flat = np.zeros((rows, H))
    column = np.zeros(rows)
    end_us = np.arange(rows) * 100_000
    moves = np.where(right, 1.0, -1.0)
    perfect = BacktestRows(
        *(
            column.astype(int),
            end_us,
            column + 1,
            moves,
            flat + 1,
            true,
            right,
            flat,
            column,
            flat,
            flat,
            flat,
        )
    )
    for boast, is_above in ((0.0, False), (0.1, True)):
        figures = judge(perfect._replace(confidence=np.minimum(true + boast, 1.0)))
        for horizon in ("1", "2"):
            surplus = figures[horizon]["calibration_error"] - figures[horizon]["calibration_floor"]
            assert (surplus > 0.02) == is_above
    assert figures["10"]["calibration_floor"] > figures["10"]["calibration_floor_if_independent"]


def test_figures_of_a_planted_signal(told: BacktestRows) -> None:
    figures = judge(told)
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
    assert detects_leakage(told)


def test_at_delivery_the_price_then_is_what_is_to_be_beaten(told: BacktestRows) -> None:
    ahead = told._replace(delivered_bp=told.moves_bp[:, 0] * 0.9)
    assert judge(ahead)["1"]["skill_at_delivery"] < -1  # nearly all of the move was over
    assert judge(ahead)["1"]["skill"] == judge(told)["1"]["skill"]


def test_no_rows_are_nothing_to_judge(told: BacktestRows) -> None:
    with pytest.raises(EvaluationError, match="no rows with quotes"):
        judge(told.chosen(np.zeros(len(told.end_us), bool)))


def test_the_line_through_imbalance_is_least_squares() -> None:
    rows = planted(3, 500, 0.6)
    line = fit_line([rows.chosen(slice(0, 200)), rows.chosen(slice(200, None))])
    expected, *_ = np.linalg.lstsq(rows.features[:, :1], rows.moves_bp, rcond=None)
    np.testing.assert_allclose(line, expected[0])


@pytest.mark.parametrize("relabel", [shuffled, shifted])
def test_on_labels_that_mean_nothing_nothing_is_found(relabel: backtest.Callable) -> None:
    rows, session = planted(3, 4000, 0.6), later(planted(4, 3000, 0.6), 1000)
    assert sorted(relabel(rows).moves_bp[:, 0]) == sorted(rows.moves_bp[:, 0])
    np.testing.assert_array_equal(relabel(rows).features, rows.features)
    nothing = predict(train_and_fit_line([relabel(rows)], FAST), [relabelled(stage(session), relabel)])
    assert not detects_leakage(nothing)


def test_a_leak_is_found(trained: Trained) -> None:
    """Had the label crept into a feature, relabelled rows would still be foretold: the check must see it."""
    rows = shuffled(later(planted(4, 3000, 0.6), 1000))
    leaked = rows.features.copy()
    leaked[:, 0] = rows.moves_bp[:, 0] / rows.features[:, SIGMA]
    assert detects_leakage(predict(trained, [stage(rows._replace(features=leaked))]))


def test_shifted_moves_are_those_of_a_minute_later() -> None:
    rows = planted(3, 2000, 0.6)
    np.testing.assert_array_equal(shifted(rows).moves_bp[:1400], rows.moves_bp[600:])


def test_walk_forward_learns_from_the_past_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, seen = planted(3, 6000, 0.6), []

    def watched(markets: list[Rows], settings: TrainingSettings) -> Trained:
        seen.append(max(int(each.end_us.max()) for each in markets))
        return train_and_fit_line(markets, settings)

    monkeypatch.setattr(backtest, "train_and_fit_line", watched)
    told = walk_forward([rows], [stage(rows)], replace(FAST, members=1))
    np.testing.assert_array_equal(told.end_us, rows.end_us[3000:])
    starts_us = [rows.end_us[at] for at in (3000, 4000, 5000)]
    assert all(start - newest > 10_000_000 for newest, start in zip(seen, starts_us, strict=True))


def test_live_calibration_is_that_of_one_prediction_a_second() -> None:
    """Against the calibrator fed by hand, in the order in which outcomes come to be known."""
    rows = planted(5, 600, 0.6)
    expected, scale = rows.moves_bp * 0.3 + 0.1, rows.features[:, SIGMA:] * np.sqrt(HORIZONS_S)
    confidence, inside = simulate_online_calibration(rows, expected, scale, CALIBRATIONS)
    at, horizon_s, grid = 1, 2, np.arange(7, 600, 10)
    calibrator = Calibrator.of(CALIBRATIONS[horizon_s])
    for number, row in enumerate(grid):
        if number >= horizon_s:
            known = grid[number - horizon_s]
            came, told_bp = rows.moves_bp[known, at], expected[known, at]
            right = bool(np.sign(came) == np.sign(told_bp)) if came else None
            calibrator.learn(horizon_s, bool(inside[known, at]), right, abs(told_bp) / scale[known, at])
        now = calibrator.calibration
        assert confidence[row, at] == pytest.approx(now.confidence(expected[row, at], scale[row, at]))
        miss = abs(rows.moves_bp[row, at] - expected[row, at])
        assert inside[row, at] == (miss <= now.interval_width * scale[row, at])
    assert calibrator.outcomes == 58


def test_a_scene_tells_last_trade_and_delivery_against_the_mid() -> None:
    (bars,) = segments(*random_ticks(1, 60))
    staged = scene(bars, 300_000)
    at = np.searchsorted(bars["end_us"], staged.rows.end_us)
    mid = mids(bars)
    np.testing.assert_allclose(staged.delivered_bp, (mid[at + 3] / mid[at] - 1) * 1e4)
    np.testing.assert_allclose(staged.last_trade_bp, (bars["last_trade_price"][at] / mid[at] - 1) * 1e4)
    assert staged.unquoted == 0 and not staged.blind.has_quotes.any()


def test_rows_without_quotes_are_left_out_and_counted() -> None:
    trades, quotes = random_ticks(1, 60)
    (bars,) = segments(trades, quotes[quotes["time_us"] < trades["time_us"][0] + 40_000_000])
    staged = scene(bars, 200_000)
    assert staged.rows.has_quotes.all()
    assert staged.unquoted > 20


def test_the_masked_part_is_judged_on_rows_with_their_quotes_taken_away() -> None:
    settings = replace(FAST, members=1)
    flow = 8  # trade_flow_1s
    markets = [planted(3, 3000, 0.6), planted(4, 3000, 0.6, flow, has_quotes=0.0)]
    trained = train_and_fit_line(markets, settings)
    blind = later(planted(5, 3000, 0.6, flow, has_quotes=0.0), 1000)
    figures = masked_figures(trained, [stage(planted(6, 10, 0.6))._replace(blind=blind)])
    assert figures["2"]["skill"] > 0.05
    assert figures["2"]["coverage80"] == pytest.approx(0.8, abs=0.04)
    assert masked_figures(trained, [stage(planted(6, 10, 0.6))]) == {}

"""The backtest: holdouts, walk-forward, and the calibration as it would have been served."""

from dataclasses import replace

import numpy as np
import pytest

from tests.fixtures.holdouts import FAST, holdout_of
from tests.fixtures.market import random_ticks
from tests.model.test_training import planted
from tickcast.evaluation import backtest
from tickcast.evaluation.backtest import (
    AtAge,
    Trained,
    block_scores,
    holdout,
    simulate_online_calibration,
    train_and_fit_line,
    walk_forward,
)
from tickcast.features.bars import mids, segments
from tickcast.model.calibration import Calibrator
from tickcast.model.card import HorizonScore
from tickcast.model.fit import TrainingSettings
from tickcast.model.forecast import HORIZONS_S, Calibration, remaining_moves
from tickcast.model.network import SIGMA
from tickcast.model.thinning import Markets

CALIBRATIONS = {h: Calibration(direction_slope=2.0, interval_width=1.0) for h in HORIZONS_S}


def test_walk_forward_trains_on_the_past_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = planted(3, 6000, 0.6)
    seen: list[int] = []

    def watched(markets: Markets, settings: TrainingSettings) -> Trained:
        seen.append(max(int(each.end_us.max()) for each in markets.values()))
        return train_and_fit_line(markets, settings)

    monkeypatch.setattr(backtest, "train_and_fit_line", watched)
    predicted = walk_forward({"BTC": rows}, [holdout_of(rows)], replace(FAST, members=1), 200)
    np.testing.assert_array_equal(predicted.end_us, rows.end_us[3000:])
    starts_us = [rows.end_us[at] for at in (3000, 4000, 5000)]
    assert all(start - newest > 15_000_000 for newest, start in zip(seen, starts_us, strict=True))


def test_calibration_is_simulated_at_one_prediction_a_second() -> None:
    """Against a calibrator updated by hand, in the order in which outcomes become known: that of a prediction
    delivered after 200 ms, two seconds ahead, with the third after it."""
    rows = planted(5, 600, 0.6)
    moves, scale = remaining_moves(rows.moves_bp, 0.2), rows.features[:, [SIGMA]] * np.sqrt(HORIZONS_S)
    expected = moves * 0.3 + 0.1
    delivered = AtAge(moves, expected, {}, 0 * moves)
    confidence, half_width = simulate_online_calibration(rows.end_us, delivered, scale, CALIBRATIONS, 200)
    at, horizon_s, grid = 1, 2, np.arange(7, 600, 10)
    calibrator = Calibrator.of(CALIBRATIONS[horizon_s])
    for number, row in enumerate(grid):
        if number >= horizon_s + 1:
            known = grid[number - horizon_s - 1]
            outcome, move_bp = moves[known, at], expected[known, at]
            right = bool(np.sign(outcome) == np.sign(move_bp)) if outcome else None
            is_inside = abs(outcome - move_bp) <= half_width[known, at]
            calibrator.learn(horizon_s, bool(is_inside), right, abs(move_bp) / scale[known, at])
        now = calibrator.calibration
        assert confidence[row, at] == pytest.approx(now.confidence(expected[row, at], scale[row, at]))
        assert half_width[row, at] == pytest.approx(now.interval_width * scale[row, at])
    assert calibrator.outcomes == 57


def test_a_holdout_has_last_trade_and_what_comes_at_each_age_from_the_mid() -> None:
    (bars,) = segments(*random_ticks(1, 60))
    found = holdout(bars)
    at = np.searchsorted(bars["end_us"], found.rows.end_us)
    mid = mids(bars)
    assert found.moved_bp.shape == (len(at), 11) and found.remaining_bp.shape == (len(at), 11, 4)
    np.testing.assert_allclose(found.moved_bp[:, 3], (mid[at + 3] / mid[at] - 1) * 1e4)
    np.testing.assert_allclose(found.remaining_bp[:, 3, 1], (mid[at + 23] / mid[at + 3] - 1) * 1e4)
    of_labels = remaining_moves(found.rows.moves_bp, 0.2)
    np.testing.assert_allclose(found.remaining_bp[:, 2], of_labels, atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(found.last_trade_bp, (bars["last_trade_price"][at] / mid[at] - 1) * 1e4)
    assert found.unquoted == 0 and not found.masked.has_quotes.any()


def test_rows_without_quotes_are_left_out_and_counted() -> None:
    trades, quotes = random_ticks(1, 90)
    (bars,) = segments(trades, quotes[quotes["time_us"] < trades["time_us"][0] + 40_000_000])
    found = holdout(bars)
    assert found.rows.has_quotes.all()
    assert found.unquoted > 20


def test_block_scores_are_by_horizon_and_neutral_without_rows(trained: Trained) -> None:
    rows = planted(4, 3000, 0.6)
    scores = block_scores(trained.training._replace(test={"BTC": rows}))
    assert scores.keys() == set(HORIZONS_S)
    for score in scores.values():
        assert (score.skill or 0) > 0.04 and (score.direction or 0) > 0.6 and score.rows == 3000
    none = block_scores(trained.training._replace(test={"BTC": rows.chosen(slice(0, 0))}))
    assert none[1] == HorizonScore(skill=0.0, direction=0.5, rows=0.0)

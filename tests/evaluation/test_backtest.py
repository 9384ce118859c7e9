"""The backtest: holdouts, walk-forward, and the calibration as it would have been served."""

from dataclasses import replace

import numpy as np
import pytest

from tests.fixtures.holdouts import FAST, holdout_of
from tests.fixtures.market import random_ticks
from tests.model.test_training import planted
from tickcast.evaluation import backtest
from tickcast.evaluation.backtest import (
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
from tickcast.model.dataset import Rows
from tickcast.model.fit import TrainingSettings
from tickcast.model.forecast import HORIZONS_S, Calibration
from tickcast.model.network import SIGMA

CALIBRATIONS = {h: Calibration(direction_slope=2.0, interval_width=1.0) for h in HORIZONS_S}


def test_walk_forward_trains_on_the_past_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = planted(3, 6000, 0.6)
    seen: list[int] = []

    def watched(markets: list[Rows], settings: TrainingSettings) -> Trained:
        seen.append(max(int(each.end_us.max()) for each in markets))
        return train_and_fit_line(markets, settings)

    monkeypatch.setattr(backtest, "train_and_fit_line", watched)
    predicted = walk_forward([rows], [holdout_of(rows)], replace(FAST, members=1))
    np.testing.assert_array_equal(predicted.end_us, rows.end_us[3000:])
    starts_us = [rows.end_us[at] for at in (3000, 4000, 5000)]
    assert all(start - newest > 10_000_000 for newest, start in zip(seen, starts_us, strict=True))


def test_calibration_is_simulated_at_one_prediction_a_second() -> None:
    """Against a calibrator updated by hand, in the order in which outcomes become known."""
    rows = planted(5, 600, 0.6)
    expected, scale = rows.moves_bp * 0.3 + 0.1, rows.features[:, SIGMA:] * np.sqrt(HORIZONS_S)
    confidence, inside = simulate_online_calibration(rows, expected, scale, CALIBRATIONS)
    at, horizon_s, grid = 1, 2, np.arange(7, 600, 10)
    calibrator = Calibrator.of(CALIBRATIONS[horizon_s])
    for number, row in enumerate(grid):
        if number >= horizon_s:
            known = grid[number - horizon_s]
            outcome, move_bp = rows.moves_bp[known, at], expected[known, at]
            right = bool(np.sign(outcome) == np.sign(move_bp)) if outcome else None
            calibrator.learn(horizon_s, bool(inside[known, at]), right, abs(move_bp) / scale[known, at])
        now = calibrator.calibration
        assert confidence[row, at] == pytest.approx(now.confidence(expected[row, at], scale[row, at]))
        miss = abs(rows.moves_bp[row, at] - expected[row, at])
        assert inside[row, at] == (miss <= now.interval_width * scale[row, at])
    assert calibrator.outcomes == 58


def test_a_holdout_has_last_trade_and_delivery_from_the_mid() -> None:
    (bars,) = segments(*random_ticks(1, 60))
    found = holdout(bars, 300_000)
    at = np.searchsorted(bars["end_us"], found.rows.end_us)
    mid = mids(bars)
    np.testing.assert_allclose(found.delivered_bp, (mid[at + 3] / mid[at] - 1) * 1e4)
    np.testing.assert_allclose(found.last_trade_bp, (bars["last_trade_price"][at] / mid[at] - 1) * 1e4)
    assert found.unquoted == 0 and not found.masked.has_quotes.any()


def test_rows_without_quotes_are_left_out_and_counted() -> None:
    trades, quotes = random_ticks(1, 60)
    (bars,) = segments(trades, quotes[quotes["time_us"] < trades["time_us"][0] + 40_000_000])
    found = holdout(bars, 200_000)
    assert found.rows.has_quotes.all()
    assert found.unquoted > 20


def test_block_scores_are_by_horizon_and_neutral_without_rows(trained: Trained) -> None:
    rows = planted(4, 3000, 0.6)
    scores = block_scores(trained.training.network, rows)
    assert scores.keys() == set(HORIZONS_S)
    for score in scores.values():
        assert (score.skill or 0) > 0.1 and (score.direction or 0) > 0.65 and score.rows == 3000
    none = block_scores(trained.training.network, rows.chosen(slice(0, 0)))
    assert none[1] == HorizonScore(skill=0.0, direction=0.5, rows=0.0)

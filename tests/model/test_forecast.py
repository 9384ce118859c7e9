"""Forecasts whose prices, moves and probabilities are consistent."""

import numpy as np
import pytest

from tests.model.test_network import random_features, random_network
from tickcast.model.forecast import HORIZONS_S, Calibration, forecast

CALIBRATIONS = {h: Calibration(direction_slope=3.0, interval_width=1.2) for h in HORIZONS_S}


def test_prices_moves_and_intervals_are_consistent() -> None:
    move, scale, p_flat = random_network(7).forward(random_features(8, 1))
    answers = forecast(60_000.0, move[0], scale[0], p_flat[0], CALIBRATIONS)
    assert [answer.horizon_s for answer in answers] == list(HORIZONS_S)
    for answer, bp in zip(answers, move[0], strict=True):
        assert answer.lower < answer.predicted_price < answer.upper
        assert answer.predicted_price == pytest.approx(60_000 * (1 + bp / 1e4))
        assert 0.5 <= answer.confidence < 1
        assert 0 < answer.p_flat < 1


def test_a_forecast_of_no_move_has_a_confidence_of_one_half() -> None:
    zeros = np.zeros(len(HORIZONS_S))
    answer = forecast(100.0, zeros, zeros + 1, zeros, CALIBRATIONS)[0]
    assert (answer.predicted_price, answer.confidence) == (100.0, 0.5)

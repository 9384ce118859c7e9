"""The baselines: what each expects, and the line fitted by least squares."""

import numpy as np
import pytest

from tests.model.test_training import planted
from tickcast.evaluation.baselines import BASELINES, baselines, fit_line, line_slope, line_squared_error
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.card import ScaledLine
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, remaining_moves


def test_each_baseline_expects_its_move() -> None:
    features: Floats = np.zeros((2, len(FEATURE_NAMES)))
    features[:, FEATURE_NAMES.index("imbalance")] = (0.5, -0.5)
    features[:, FEATURE_NAMES.index("microprice")] = 0.25
    features[:, FEATURE_NAMES.index("sigma_bp")] = 2.0
    moved_bp = np.array([0.2, 0.0])  # by the delivery
    line = ScaledLine(usual_sigma=2.0, slopes={h: 0.1 * h for h in HORIZONS_S})
    expected = baselines(features, np.array([0.1, np.nan]), line, moved_bp)
    scaled = 0.5 * 2.0 * np.array([0.1 * h * h**0.5 for h in HORIZONS_S])  # at the usual σ
    np.testing.assert_allclose(expected["linear_imbalance"], [scaled, -scaled])
    assert expected["microprice"].tolist() == [[0.3] * 4, [0.5] * 4] and (expected["no_change"] == 0).all()
    assert expected["last_trade"][0].tolist() == [-0.1] * 4 and np.isnan(expected["last_trade"][1]).all()
    assert tuple(expected) == BASELINES


def test_the_line_is_fitted_by_least_squares() -> None:
    rows = planted(3, 500, 0.6)
    line = fit_line([rows.chosen(slice(0, 200)), rows.chosen(slice(200, None))])
    expected, *_ = np.linalg.lstsq(
        rows.features[:, :1], remaining_moves(rows.moves_bp, DELIVERY_S), rcond=None
    )
    np.testing.assert_allclose(line, expected[0])


def test_the_line_from_sums_is_that_from_rows() -> None:
    rows = planted(3, 500, 0.6)
    imbalance, moves_bp = rows.features[:, 0], remaining_moves(rows.moves_bp, DELIVERY_S)[:, 1]
    squared_move, imbalance_move, squared_imbalance = (
        np.array([one @ other])
        for one, other in ((moves_bp, moves_bp), (imbalance, moves_bp), (imbalance, imbalance))
    )
    slope = float(line_slope(imbalance_move, float(squared_imbalance[0]))[0])
    assert slope == pytest.approx(fit_line([rows])[1])
    error = line_squared_error(squared_move, imbalance_move, squared_imbalance, slope)
    np.testing.assert_allclose(error, ((moves_bp - slope * imbalance) ** 2).sum())

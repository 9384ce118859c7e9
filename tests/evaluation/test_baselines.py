"""The baselines: what each expects, and the line fitted by least squares."""

import numpy as np
import pytest

from tests.model.test_training import planted
from tickcast.evaluation.baselines import (
    BASELINES,
    LIVE_DAMPING,
    baselines,
    fit_line,
    fit_scaled_line,
    line_moves,
    line_slope,
    line_squared_error,
    live_slope,
)
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.card import ScaledLine
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, PATH_S, remaining_moves


def test_each_baseline_expects_its_move() -> None:
    features: Floats = np.zeros((2, len(FEATURE_NAMES)))
    features[:, FEATURE_NAMES.index("imbalance")] = (0.5, -0.5)
    features[:, FEATURE_NAMES.index("microprice")] = 0.25
    features[:, FEATURE_NAMES.index("sigma_bp")] = 2.0
    moved_bp = np.array([0.2, 0.0])  # by the delivery
    line = ScaledLine(usual_sigma=2.0, slopes={1: 1.0, 2: 2.0, 5: 3.0, 10: 4.0})
    expected = baselines(features, np.array([0.1, np.nan]), line, moved_bp)
    of_line = np.array([1, 2, 3, 4]) * 2 * np.sqrt(HORIZONS_S) * 0.5  # slope · σ√h · imbalance
    np.testing.assert_allclose(expected["linear_imbalance"], [of_line, -of_line])
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


def test_the_scaled_line_follows_volatility_as_the_network_does() -> None:
    """On a market whose slope grows with volatility, one line in basis points is wrong at both ends."""
    rng = np.random.default_rng(3)
    rows = planted(3, 4000, 0.6)
    features = rows.features.copy()
    sigma, imbalance = np.exp(rng.normal(0, 0.8, 4000)), rng.uniform(-1, 1, 4000)
    features[:, FEATURE_NAMES.index("sigma_bp")] = sigma
    features[:, FEATURE_NAMES.index("imbalance")] = imbalance
    noise = rng.normal(size=rows.moves_bp.shape)
    rows = rows._replace(features=features, moves_bp=sigma[:, None] * (imbalance[:, None] + noise))
    moves_bp = remaining_moves(rows.moves_bp, DELIVERY_S)
    # Planted is the whole move at once: nothing remains of it but the noise.
    assert abs(fit_scaled_line([rows]).slopes[1]) < 0.05
    moving = rows._replace(moves_bp=rows.moves_bp + sigma[:, None] * imbalance[:, None] * np.sqrt(PATH_S))
    moves_bp = remaining_moves(moving.moves_bp, DELIVERY_S)
    scaled = ((moves_bp - line_moves(features, fit_scaled_line([moving]))) ** 2).sum()
    plain = ((moves_bp - imbalance[:, None] * fit_line([moving])) ** 2).sum()
    assert scaled < 0.98 * plain
    both = line_moves(features[:1].repeat(2, axis=0), fit_scaled_line([moving]))
    features[1] = features[0]
    features[1, FEATURE_NAMES.index("sigma_bp")] *= 2
    louder = line_moves(features[:2], fit_scaled_line([moving]))
    assert (np.abs(louder[1]) > 1.2 * np.abs(both[0])).all()  # less than in proportion: damped
    assert (np.abs(louder[1]) < 2 * np.abs(both[0])).all()


def test_the_line_from_what_tallies_keep_is_the_scaled_line() -> None:
    features: Floats = np.zeros((9, len(FEATURE_NAMES)))
    features[:, FEATURE_NAMES.index("imbalance")] = np.linspace(-1, 1, 9)
    sigma_bp = np.geomspace(0.5, 8, 9)  # within a quarter and four times the usual one
    features[:, FEATURE_NAMES.index("sigma_bp")] = sigma_bp
    line = ScaledLine(usual_sigma=2.0, slopes={1: 1.0, 2: 2.0, 5: 3.0, 10: 4.0})
    for column, h in enumerate(HORIZONS_S):
        z = features[:, 0] * sigma_bp * np.sqrt(h) * sigma_bp ** LIVE_DAMPING[h]
        np.testing.assert_allclose(z * live_slope(line, h), line_moves(features, line)[:, column])


def test_without_rows_the_scaled_line_expects_no_move() -> None:
    rows = planted(3, 10, 0.6)
    nothing = fit_scaled_line([rows.chosen(slice(0, 0))])
    assert (line_moves(rows.features, nothing) == 0).all()

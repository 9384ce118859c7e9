"""Forecasts whose prices, moves and probabilities are consistent, at every age at which they are read."""

import numpy as np
import pytest

from tests.model.test_network import random_features, random_network
from tickcast.model.forecast import (
    DELIVERY_S,
    HORIZONS_S,
    MAX_AGE_S,
    PATH_S,
    Calibration,
    Path,
    at,
    forecast,
    remaining,
    remaining_flat,
    remaining_moves,
    remaining_scales,
)
from tickcast.model.network import SIGMA

CALIBRATIONS = {h: Calibration(direction_slope=3.0, interval_width=1.2) for h in HORIZONS_S}
AGES_S = (0.0, 0.05, DELIVERY_S, 0.837, 1.0, MAX_AGE_S)


def paths(rows: int = 1) -> tuple[Path, tuple[np.ndarray, ...]]:
    """The first of the paths that a network forecasts, and all of them as arrays."""
    arrays = random_network(7).forward(random_features(8, rows))
    return Path(*(column[0].tolist() for column in arrays)), arrays


def path_of(moves_bp: list[float]) -> Path:
    return Path(moves_bp, np.sqrt(PATH_S).tolist(), [0.0] * len(PATH_S))


def test_a_path_has_the_horizons_fresh_and_at_delivery_and_all_ages_that_are_served() -> None:
    assert list(PATH_S) == sorted(set(PATH_S)) and PATH_S[0] == 0.1
    assert {*HORIZONS_S, *(h + DELIVERY_S for h in HORIZONS_S), DELIVERY_S} <= set(PATH_S)
    assert PATH_S[-1] == max(HORIZONS_S) + MAX_AGE_S
    assert all(10 * time_s == pytest.approx(round(10 * time_s)) for time_s in PATH_S)  # whole bars


@pytest.mark.parametrize("age_s", AGES_S)
def test_prices_moves_and_intervals_are_consistent(age_s: float) -> None:
    path, _ = paths()
    answers = forecast(60_000.0, path, age_s, CALIBRATIONS)
    assert [answer.horizon_s for answer in answers] == list(HORIZONS_S)
    for answer in answers:
        by_now, by_target = (at(path.move_bp, time_s) for time_s in (age_s, age_s + answer.horizon_s))
        assert answer.lower < answer.predicted_price < answer.upper
        assert answer.predicted_price == pytest.approx(60_000 * (1 + by_target / 1e4))
        assert answer.expected_move_bp == pytest.approx(by_target - by_now)
        assert 0.5 <= answer.confidence < 1
        assert 0 < answer.p_flat <= 1


@pytest.mark.parametrize("age_s", AGES_S)
def test_rows_have_the_remaining_moves_of_their_paths(age_s: float) -> None:
    _, (moves_bp, scales_bp, flats) = paths(5)
    found = [
        remaining_moves(moves_bp, age_s),
        remaining_scales(scales_bp, age_s),
        remaining_flat(flats),
    ]
    for row in range(5):
        path = Path(*(column[row].tolist() for column in (moves_bp, scales_bp, flats)))
        for column, horizon_s in enumerate(HORIZONS_S):
            rest = remaining(path, age_s, horizon_s)
            assert [each[row, column] for each in found] == pytest.approx([*rest])
            assert rest.scale_bp == pytest.approx(
                random_features(8, 5)[row, SIGMA] * np.sqrt(horizon_s)
            )  # the scale of a random walk, at every age


def test_an_impulse_that_is_over_leaves_nothing_to_come() -> None:
    path = path_of([min(time_s / 0.5, 1.0) for time_s in PATH_S])  # 1 bp within half a second
    assert [remaining(path, age_s, 1).move_bp for age_s in (0, 0.1, 0.2, 0.5, 1)] == pytest.approx(
        [1, 0.8, 0.6, 0, 0]
    )
    answer = forecast(100.0, path, 1.0, CALIBRATIONS)[0]
    assert answer.predicted_price == pytest.approx(100.01)  # all of it has happened
    assert (answer.expected_move_bp, answer.confidence) == (0.0, 0.5)


def test_a_flipped_path_flips_what_is_still_to_come() -> None:
    path, _ = paths()
    flipped = Path([-move for move in path.move_bp], path.scale_bp, path.p_flat)
    for one, other in zip(*(forecast(100.0, p, 0.3, CALIBRATIONS) for p in (path, flipped)), strict=True):
        assert other.expected_move_bp == -one.expected_move_bp
        assert (other.confidence, other.p_flat, other.scale_bp) == (one.confidence, one.p_flat, one.scale_bp)


@pytest.mark.parametrize("age_s", AGES_S)
def test_no_move_is_as_likely_from_every_age_on(age_s: float) -> None:
    path = Path([0.0] * len(PATH_S), np.sqrt(PATH_S).tolist(), np.exp(-np.array(PATH_S)).tolist())
    assert [remaining(path, age_s, h).p_flat for h in HORIZONS_S] == np.exp(-np.array(HORIZONS_S)).tolist()


def test_a_forecast_of_no_move_has_a_confidence_of_one_half() -> None:
    answer = forecast(100.0, path_of([0.0] * len(PATH_S)), 0.2, CALIBRATIONS)[0]
    assert (answer.predicted_price, answer.confidence) == (100.0, 0.5)

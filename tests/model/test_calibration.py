"""The two online estimators: coverage and confidence hold when the market changes under them."""

from collections import deque

import numpy as np
import pytest
from msgspec import json

from tests.fixtures.market import recorded_ticks
from tests.fixtures.recordings import RECORDINGS
from tickcast.features.bars import BARS_PER_S, mids, segments
from tickcast.features.vector import FEATURE_NAMES, history_rows
from tickcast.model.calibration import LOGIT_OF_NORMAL, MIN_WIDTH, Calibrator
from tickcast.model.forecast import HORIZONS_S, MAX_WIDTH, Calibration

BTC = "spot_btcusdt_20240808.gz"


def coverage(residuals: np.ndarray, horizon_s: int, width: float) -> float:
    """The share of `residuals` (|outcome - move| / σ√h, one a second) inside the interval given at the time,
    each learned from `horizon_s` seconds later."""
    calibrator, waiting, inside = Calibrator(1.0, width), deque[bool](), []
    for residual in residuals:
        waiting.append(bool(residual <= calibrator.interval_width))
        inside.append(waiting[-1])
        if len(waiting) > horizon_s:
            calibrator.learn(horizon_s, waiting.popleft(), None, 0.0)
    assert calibrator.outcomes == len(residuals) - horizon_s
    return float(np.mean(inside))


@pytest.mark.parametrize("horizon_s", HORIZONS_S)
def test_coverage_holds_when_volatility_doubles_half_way(horizon_s: int) -> None:
    """σ is taken not to notice, which is worse than it is: a fixed width covers far too little."""
    half = 600 * horizon_s  # so many moves that do not overlap
    noise = np.abs(np.random.default_rng(horizon_s).normal(size=2 * half))
    noise[half:] *= 2
    assert np.mean(noise[half:] <= 1.2816) < 0.6
    assert 0.77 <= coverage(noise, horizon_s, 1.2816) <= 0.83
    # From a card of another session on: the first minutes count as well.
    assert 0.77 <= coverage(noise[half : half + 600], horizon_s, 1.2816) <= 0.83


def test_the_width_steps_are_divided_by_the_horizon() -> None:
    """Ten outcomes over ten seconds, each sharing nine seconds with the next, say what one over a second
    says; the first ones after training count in full."""
    steps = {}
    for horizon_s in (1, 10):
        calibrator = Calibrator(1.0, 1.0, outcomes=10_000)
        calibrator.learn(horizon_s, False, None, 0.0)
        steps[horizon_s] = np.log(calibrator.interval_width)
    assert steps[1] == pytest.approx(10 * steps[10])
    fresh = Calibrator(1.0, 1.0)
    fresh.learn(10, False, None, 0.0)
    assert np.log(fresh.interval_width) > 0.9 * steps[1]


@pytest.mark.skipif(not (RECORDINGS / BTC).is_file(), reason=f"the recording {BTC} is not there")
@pytest.mark.parametrize("horizon_s", HORIZONS_S)
def test_coverage_holds_on_a_recorded_session(horizon_s: int) -> None:
    """The forecast is no change, the start a card's usual width; all offsets of the seconds are averaged."""
    (bars,) = segments(*recorded_ticks(RECORDINGS / BTC))
    mid, rows, reach = mids(bars), history_rows(bars), horizon_s * BARS_PER_S
    scale_bp = rows[:-reach, FEATURE_NAMES.index("sigma_bp")] * np.sqrt(horizon_s)
    residuals = np.abs(mid[reach:] / mid[:-reach] - 1) * 1e4 / scale_bp
    residuals = residuals[~np.isnan(residuals)]
    shares = [coverage(residuals[offset::BARS_PER_S], horizon_s, 1.1) for offset in range(BARS_PER_S)]
    assert 0.77 <= np.mean(shares) <= 0.83


def test_a_flat_market_does_not_close_the_interval() -> None:
    calibrator = Calibrator(1.0, 1.0)
    for _ in range(2000):
        calibrator.learn(1, True, None, 0.0)
    assert calibrator.interval_width == MIN_WIDTH


def learn_directions(calibrator: Calibrator, slope: float, rows: int, scale: float = 1.0) -> None:
    """Outcomes of forecasts as strong as |N(0, 1)| times `scale`, right as often as `slope` says."""
    rng = np.random.default_rng(1)
    for strength in np.abs(rng.normal(size=rows)) * scale:
        is_right = bool(rng.random() < 1 / (1 + np.exp(-slope * strength)))
        calibrator.learn(1, True, is_right, float(strength))


@pytest.mark.parametrize("scale", [0.05, 1.0])
def test_confidence_converges_to_its_slope_from_either_side_at_any_scale(scale: float) -> None:
    for start in (0.0, 4.0 / scale):
        calibrator = Calibrator(start, 1.0)
        learn_directions(calibrator, 1.5 / scale, 3000, scale)
        assert calibrator.direction_slope == pytest.approx(1.5 / scale, rel=0.25)


def test_a_wrong_model_loses_its_confidence_and_may_recover() -> None:
    calibrator = Calibrator(2.0, 1.0)
    learn_directions(calibrator, -2.0, 2000)
    assert calibrator.direction_slope == pytest.approx(0, abs=0.05)
    assert calibrator.calibration.confidence(3.0, 1.0) < 0.55
    learn_directions(calibrator, 2.0, 2000)
    assert calibrator.direction_slope > 1


def test_a_flat_outcome_leaves_the_confidence_unchanged() -> None:
    calibrator = Calibrator(2.0, 1.0, mean_square=0.5)
    calibrator.learn(2, False, None, 1.0)
    assert (calibrator.direction_slope, calibrator.mean_square, calibrator.outcomes) == (2.0, 0.5, 1)
    assert calibrator.interval_width > 1


@pytest.mark.parametrize("first", [1e-300, 1e-5, 1e-4, 1e-3, 1e-2, 0.15, 1.0, 50.0])
@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("slope", [0.0, 0.5, 3.0, 30.0])
def test_no_single_outcome_moves_confidence_far(first: float, is_right: bool, slope: float) -> None:
    """The very first, one behind many usual ones, and one behind many that forecast next to nothing."""
    for strengths in ((), (0.15,) * 300, (1e-6,) * 3000):
        calibrator = Calibrator.of(Calibration(slope, 1.0))
        for strength in strengths:
            calibrator.learn(1, True, None if slope else True, strength)
            calibrator.mean_square = 0.99 * calibrator.mean_square + 0.01 * strength**2
        before = calibrator.calibration
        calibrator.learn(1, True, is_right, first)
        after = calibrator.calibration
        moved = {s: abs(after.confidence(s, 1.0) - before.confidence(s, 1.0)) for s in (0.05, 0.15, 0.5, 1.0)}
        assert max(moved[0.05], moved[0.15]) <= 0.01
        assert max(moved.values()) <= 0.025


@pytest.mark.parametrize("horizon_s", HORIZONS_S)
def test_the_slope_stays_near_the_truth_from_the_first_outcome_on(horizon_s: int) -> None:
    """Of 200 fresh calibrators, started at a true slope of 3, over an hour of outcomes."""
    rng = np.random.default_rng(horizon_s)
    far = 0
    for _ in range(200):
        calibrator = Calibrator.of(Calibration(3.0, 1.3))
        for strength in np.abs(rng.normal(0, 0.15, 600)):
            is_right = bool(rng.random() < 1 / (1 + np.exp(-3.0 * strength)))
            calibrator.learn(horizon_s, True, is_right if rng.random() > 0.3 else None, float(strength))
            far += calibrator.direction_slope > 6
    assert far / (200 * 600) < 0.001


@pytest.mark.parametrize("horizon_s", HORIZONS_S)
@pytest.mark.parametrize(("card", "session"), [(1.6, 5.0), (5.0, 1.6)])
def test_a_session_three_times_as_steep_is_found_in_minutes_at_every_horizon(
    horizon_s: int, card: float, session: float
) -> None:
    """Outcomes overlap, as those of ten seconds do: after 450 of them three quarters of the way are gone."""
    slopes = []
    for seed in range(30):
        rng, waiting = np.random.default_rng(seed), deque[tuple[float, bool]]()
        path = np.cumsum(rng.normal(size=450 + horizon_s))
        moves = (path[horizon_s:] - path[:-horizon_s]) / np.sqrt(horizon_s)
        calibrator = Calibrator(card, 1.3)
        for forecast, move in zip(rng.normal(0, 0.15, 450), moves, strict=True):
            rises = move > -session * forecast / LOGIT_OF_NORMAL
            waiting.append((abs(forecast), bool(rises == (forecast > 0))))
            if len(waiting) > horizon_s:
                strength, is_right = waiting.popleft()
                calibrator.learn(horizon_s, True, is_right, strength)
        slopes.append(calibrator.direction_slope)
    assert np.mean(slopes) == pytest.approx(session, abs=0.25 * abs(session - card))


def test_a_width_changes_in_small_steps_up_to_a_limit() -> None:
    calibrator = Calibrator(1.0, 1.0)
    for _ in range(1000):
        before = calibrator.interval_width
        calibrator.learn(1, False, None, 0.0)
        assert calibrator.interval_width <= before * 1.07
    assert calibrator.interval_width == MAX_WIDTH


def test_a_calibrator_of_an_older_state_continues() -> None:
    calibrator = Calibrator(direction_slope=2.0, interval_width=1.0, outcomes=0, mean_square=0.0)
    calibrator.learn(1, True, True, 1e-5)
    assert calibrator.direction_slope == pytest.approx(2.0, abs=0.01)


def test_tiny_forecasts_do_not_break_the_slope() -> None:
    calibrator = Calibrator(2.0, 1.0)
    for strength in (1e-300, 5.0, 0.0):
        calibrator.learn(1, True, False, strength)
    assert 0 <= calibrator.direction_slope < 100


def test_a_calibrator_starts_from_the_card() -> None:
    calibrator = Calibrator.of(Calibration(3.0, 1.2))
    assert (calibrator.calibration, calibrator.outcomes) == (Calibration(3.0, 1.2), 0)
    assert json.decode(json.encode(calibrator), type=Calibrator) == calibrator

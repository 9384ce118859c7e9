"""A model's forecast: a path of the mid, and what is still to come of it when the forecast is read.

A model forecasts a *path*: for each instant of `PATH_S` after the newest tick it knows, the expected move of
the mid since then, its scale, and the probability that the mid stands where it stood. Whoever reads the
forecast at age a asks for the *remaining* move over the horizon h: path(a + h) - path(a).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta, Struct

from tickcast.features.vector import Floats

HORIZONS_S = (1, 2, 5, 10)
MAX_AGE_S = 5.0  # older forecasts are not served
# When a prediction is typically read: models are selected, calibrated and evaluated at this age.
DELIVERY_S = 0.2
# The instants of a path, seconds. Each horizon is among them, and each horizon after `DELIVERY_S`; between
# them a path is linear.
PATH_S = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.2, 1.5, 2.0, 2.2, 3.0, 5.0, 5.2, 7.5, 10.0, 10.2, 15.0)

# features (rows, F) -> move_bp, scale_bp, p_flat, each (rows, J)
RunModel = Callable[[Floats], tuple[Floats, Floats, Floats]]

Price = Annotated[float, Meta(gt=0)]  # quote currency
Probability = Annotated[float, Meta(ge=0, le=1)]

# A calibration beyond these cannot have been measured on a market: a slope that makes every move certain, an
# interval of fifty times the usual move of its horizon.
MAX_SLOPE = 1000.0
MAX_WIDTH = 50.0


class Calibration(Struct, frozen=True):
    """What turns a horizon's output into probabilities and an interval, fitted on out-of-fold predictions.

    `direction_slope`: P(direction right | the mid moves) = sigmoid(slope * |move| / σ√h).
    `interval_width`: the 80 % conformal quantile of |outcome - move| / σ√h.
    """

    direction_slope: float
    interval_width: float

    def confidence(self, move_bp: float, scale_bp: float) -> float:
        """The probability that the direction of `move_bp` is right, given that the mid moves."""
        return 1.0 / (1.0 + math.exp(-self.direction_slope * abs(move_bp) / scale_bp))

    def noise_bp(self, scale_bp: float, min_confidence: float) -> float | None:
        """The move at which the confidence reaches `min_confidence` (0.5 to 1): a smaller one is noise.
        None where no move reaches it, because the model's direction has no value."""
        if self.direction_slope == 0:
            return None
        return math.log(min_confidence / (1 - min_confidence)) * scale_bp / self.direction_slope


class HorizonForecast(Struct, frozen=True, kw_only=True):
    """One horizon's answer: prices in quote currency, moves in basis points."""

    horizon_s: int
    predicted_price: Annotated[Price, Meta(description="the mid at the target")]
    expected_move_bp: Annotated[float, Meta(description="still to come, from the moment of delivery on")]
    scale_bp: Annotated[float, Meta(description="σ√h, the usual move over this horizon")]
    confidence: Annotated[
        Probability, Meta(description="that the direction is right, given that the price moves")
    ]
    p_flat: Annotated[Probability, Meta(description="that the mid does not move")]
    lower: Annotated[Price, Meta(description="of the 80 % conformal interval")]
    upper: Annotated[Price, Meta(description="of the 80 % conformal interval")]


class Path(Struct, frozen=True, array_like=True):
    """A model's output on one row: a value for each instant of `PATH_S`, (J,). `move_bp` is the expected move
    of the mid since the row, bp; `scale_bp` its scale, σ√t; `p_flat` the probability that there is none."""

    move_bp: list[float]
    scale_bp: list[float]
    p_flat: list[float]


class Remaining(NamedTuple):
    """What is still to come of a path over a horizon, from the moment of reading on: the expected move (bp),
    its scale (bp), and the probability that the mid does not move."""

    move_bp: float
    scale_bp: float
    p_flat: float


class _Until(NamedTuple):
    """A path from its row to an instant: the expected move (bp), and its scale squared."""

    move_bp: float
    variance: float


def _until(path: Path, time_s: float) -> _Until:
    return _Until(at(path.move_bp, time_s), at([scale_bp**2 for scale_bp in path.scale_bp], time_s))


def remaining(path: Path, age_s: float, horizon_s: float) -> Remaining:
    """What is still to come of `path` over `horizon_s`, read at the age of `age_s` (0 to `MAX_AGE_S`)."""
    return _between(path, _until(path, age_s), _until(path, age_s + horizon_s), horizon_s)


def _between(path: Path, now: _Until, then: _Until, horizon_s: float) -> Remaining:
    """What comes of `path` between two instants that are `horizon_s` apart."""
    # Variances add up: that of the whole path is that up to now and that of the remaining move.
    variance = then.variance - now.variance
    # No move is as likely from the reading on as from the row on. Given that there was none by `age_s` it is
    # likelier, but whether there was is unknown (docs/model.md).
    p_flat = at(path.p_flat, horizon_s)
    return Remaining(then.move_bp - now.move_bp, math.sqrt(max(variance, 0.0)), p_flat)


def _width(calibrations: Mapping[int, Calibration], time_s: float) -> float:
    """The width of the interval over `time_s`, in units of the scale: between those of the horizons."""
    widths = [calibrations[h].interval_width for h in HORIZONS_S]
    return float(np.interp(time_s, HORIZONS_S, widths))


def remaining_moves(moves_bp: Floats, age_s: float) -> Floats:
    """Of paths of moves (N, J), forecast or real, what is still to come at the age of `age_s` over each
    horizon. Shape (N, H)."""
    return np.asarray(moves_bp @ _remaining_weights(age_s))


def remaining_scales(scale_bp: Floats, age_s: float) -> Floats:
    """Of the scales of paths (N, J), those of the remaining moves. Shape (N, H)."""
    return np.asarray(np.sqrt(remaining_moves(scale_bp**2, age_s)))


def remaining_flat(p_flat: Floats) -> Floats:
    """Of the probabilities of paths that there is no move (N, J), those of the remaining moves, at every age.
    Shape (N, H)."""
    return p_flat[:, [PATH_S.index(horizon_s) for horizon_s in HORIZONS_S]]


@cache
def _remaining_weights(age_s: float) -> Floats:
    """The weights of a path's moves in the remaining moves. Shape (J, H)."""
    paths = np.eye(len(PATH_S)).tolist()  # one instant each
    return np.array([[at(path, age_s + h) - at(path, age_s) for h in HORIZONS_S] for path in paths])


def at(values: list[float], time_s: float) -> float:
    """A path's `values` at `time_s`, interpolated linearly; at 0 they are 0."""
    place = bisect_left(PATH_S, time_s)
    if place == len(PATH_S) or PATH_S[place] == time_s:  # to the last bit
        return values[min(place, len(PATH_S) - 1)]
    from_s, from_value = (PATH_S[place - 1], values[place - 1]) if place else (0.0, 0.0)
    share = (time_s - from_s) / (PATH_S[place] - from_s)
    return from_value + share * (values[place] - from_value)


def forecast(
    basis_price: float, path: Path, age_s: float, calibrations: Mapping[int, Calibration]
) -> list[HorizonForecast]:
    """The forecast for every horizon, read at the age of `age_s`. `basis_price` is the mid that `path` starts
    from. The target's price has the whole path's move; its interval has the width of all that is unknown,
    which is more than that of the remaining move."""
    answers, now = [], _until(path, age_s)
    for horizon_s in HORIZONS_S:
        calibration, then = calibrations[horizon_s], _until(path, age_s + horizon_s)
        rest, whole_bp = _between(path, now, then, horizon_s), then.move_bp
        width_bp = _width(calibrations, age_s + horizon_s) * math.sqrt(then.variance)
        answers.append(
            HorizonForecast(
                horizon_s=horizon_s,
                predicted_price=basis_price * (1 + whole_bp / 1e4),
                expected_move_bp=rest.move_bp,
                scale_bp=rest.scale_bp,
                confidence=calibration.confidence(rest.move_bp, rest.scale_bp),
                p_flat=rest.p_flat,
                lower=basis_price * (1 + (whole_bp - width_bp) / 1e4),
                upper=basis_price * (1 + (whole_bp + width_bp) / 1e4),
            )
        )
    return answers


class ModelError(ValueError):
    """A model that must not serve; the message says why."""

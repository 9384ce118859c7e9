"""A model's forecast: moves of a network turned into prices, probabilities and intervals."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta, Struct

from tickcast.features.vector import Floats

HORIZONS_S = (1, 2, 5, 10)

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
    """One horizon's answer: prices in quote currency, moves in basis points of the basis price."""

    horizon_s: int
    predicted_price: Annotated[Price, Meta(description="the mid at the target")]
    expected_move_bp: float
    scale_bp: Annotated[float, Meta(description="σ√h, the usual move over this horizon")]
    confidence: Annotated[
        Probability, Meta(description="that the direction is right, given that the price moves")
    ]
    p_flat: Annotated[Probability, Meta(description="that the mid does not move")]
    lower: Annotated[Price, Meta(description="of the 80 % conformal interval")]
    upper: Annotated[Price, Meta(description="of the 80 % conformal interval")]


def forecast(
    basis_price: float,
    move_bp: Floats,
    scale_bp: Floats,
    p_flat: Floats,
    calibrations: dict[int, Calibration],
) -> list[HorizonForecast]:
    """The forecast for every horizon from one row of model output, each of shape (H,)."""
    answers = []
    for at, horizon_s in enumerate(HORIZONS_S):
        calibration = calibrations[horizon_s]
        move, scale = float(move_bp[at]), float(scale_bp[at])
        width = calibration.interval_width * scale
        answers.append(
            HorizonForecast(
                horizon_s=horizon_s,
                predicted_price=basis_price * (1 + move / 1e4),
                expected_move_bp=move,
                scale_bp=scale,
                confidence=calibration.confidence(move, scale),
                p_flat=float(p_flat[at]),
                lower=basis_price * (1 + (move - width) / 1e4),
                upper=basis_price * (1 + (move + width) / 1e4),
            )
        )
    return answers


class ModelError(ValueError):
    """A model that must not serve; the message says why."""

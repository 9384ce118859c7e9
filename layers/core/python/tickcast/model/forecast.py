"""What a model says, for people: moves of a network turned into prices, probabilities and intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, TypeGuard

from msgspec import Meta, Struct

from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES, Floats

HORIZONS_S = (1, 2, 5, 10)

Price = Annotated[float, Meta(gt=0)]  # quote currency
Probability = Annotated[float, Meta(ge=0, le=1)]

# A calibration beyond these is no measurement of a market: a slope that is sure of every move, an interval of
# fifty times the move that a horizon is used to.
MAX_SLOPE = 1000.0
MAX_WIDTH = 50.0


@dataclass(frozen=True)
class Calibration:
    """What turns a horizon's output into probabilities and an interval, fitted on rows of their own.

    `direction_slope`: P(direction right | the mid moves) = sigmoid(slope * |move| / σ√h).
    `interval_width`: the 80 % conformal quantile of |outcome - move| / σ√h.
    """

    direction_slope: float
    interval_width: float

    def confidence(self, move_bp: float, scale_bp: float) -> float:
        """The probability that the direction of `move_bp` is right, given that the mid moves."""
        return 1.0 / (1.0 + math.exp(-self.direction_slope * abs(move_bp) / scale_bp))

    def noise_bp(self, scale_bp: float, min_confidence: float) -> float | None:
        """The move at which the confidence comes to `min_confidence` (0.5 to 1): a smaller one is noise.
        None where no move ever earns it, because the model's direction is worth nothing."""
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
    """The answers for every horizon from one row of model output, each of shape (H,)."""
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
    """A model that must not serve; the message says what does not fit."""


@dataclass(frozen=True)
class ServingCard:
    """What of a model's card it serves by: checked, and in our own types. `masked_calibrations` is for rows
    without quotes; None where the card has none."""

    provisional: bool
    calibrations: dict[int, Calibration]
    masked_calibrations: dict[int, Calibration] | None
    support: dict[str, tuple[float, float]]


def serving_card(card: Any) -> ServingCard:
    """`card` as it serves. Raises `ModelError` naming the field that is missing, of another type, not finite
    or beyond reason, and when the model was made for other features."""
    if not isinstance(card, dict):
        raise ModelError(f"the card is {str(card)[:40]!r}, it should be a JSON object")
    calibrations = calibrations_from(card)
    provisional = card.get("provisional")
    if not isinstance(provisional, bool):
        raise _unfit(card, "provisional", provisional, "true or false")
    return ServingCard(
        provisional=provisional,
        calibrations=calibrations,
        masked_calibrations=calibrations_from(card, "masked_calibration")
        if card.get("masked_calibration") is not None
        else None,
        support=_support(card),
    )


def calibrations_from(card: dict[str, Any], kind: str = "calibration") -> dict[int, Calibration]:
    """The calibrations of a `kind` on a model's card: `calibration`, or `masked_calibration` for rows without
    quotes. Raises `ModelError` when it was made for other features, lacks a horizon, or has no number that a
    forecast could be calibrated by."""
    if card.get("feature_hash") != FEATURE_HASH:
        raise ModelError(
            f"model {card.get('model_id')} was trained on features {card.get('feature_hash')}, "
            f"this code computes {FEATURE_HASH}"
        )
    found = card.get(kind, {})
    if not isinstance(found, dict):
        raise _unfit(card, kind, found, "an object by horizon")
    if missing := [h for h in HORIZONS_S if str(h) not in found]:
        raise ModelError(f"the card of model {card.get('model_id')} has no {kind} for horizons {missing}")
    return {h: _calibration(card, f"{kind}.{h}", found[str(h)]) for h in HORIZONS_S}


def _calibration(card: dict[str, Any], place: str, found: Any) -> Calibration:
    if not isinstance(found, dict):
        raise _unfit(card, place, found, "an object")
    slope, width = (found.get(name) for name in ("direction_slope", "interval_width"))
    if not _is_number(slope) or not 0 <= slope <= MAX_SLOPE:
        raise _unfit(card, f"{place}.direction_slope", slope, f"a number from 0 to {MAX_SLOPE:g}")
    if not _is_number(width) or not 0 < width <= MAX_WIDTH:
        raise _unfit(card, f"{place}.interval_width", width, f"a number above 0 and up to {MAX_WIDTH:g}")
    return Calibration(float(slope), float(width))


def _support(card: dict[str, Any]) -> dict[str, tuple[float, float]]:
    found = card.get("support", {})
    if not isinstance(found, dict):
        raise _unfit(card, "support", found, "an object by feature")
    if strangers := sorted(set(found) - set(FEATURE_NAMES)):
        raise ModelError(
            f"the support of model {card.get('model_id')} names {strangers}, which are no features"
        )
    for name, ends in found.items():
        if (
            not isinstance(ends, list | tuple)
            or len(ends) != 2
            or not all(_is_number(end) for end in ends)
            or ends[0] > ends[1]
        ):
            raise _unfit(card, f"support.{name}", ends, "the lowest and the highest value")
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unfit(card: dict[str, Any], place: str, value: Any, should: str) -> ModelError:
    return ModelError(
        f"{place} on the card of model {card.get('model_id')} is {str(value)[:40]}, it should be {should}"
    )

"""The model: a small network whose answer flips its sign when buying and selling are exchanged.

For odd features o and even features e it predicts, per horizon h, the move of the mid in units of
σ√h as

    f(o, e) = o·L + ½ [g(o, e) - g(-o, e)],      g(o, e) = silu(o·A + e·B + c)·W

so f(-o, e) = -f(o, e) by construction: no drift can be memorised. The volatility σ is an input and the
output is scaled back to basis points inside the model, which lets one model serve several markets.
A second, even head gives the probability that the mid does not move at all.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.features import FEATURE_HASH, FEATURE_NAMES, ODD_FEATURES

HORIZONS_S = (1, 2, 5, 10)
Floats = npt.NDArray[np.float64]

_ODD = len(ODD_FEATURES)
_SIGMA = FEATURE_NAMES.index("sigma_bp")


@dataclass
class Network:
    """Weights; H horizons, K hidden units. The network's whole state, exported to ONNX as it is."""

    skip: Floats  # L (odd, H)
    hidden_odd: Floats  # A (odd, K)
    hidden_even: Floats  # B (even, K)
    hidden_bias: Floats  # c (K,)
    out: Floats  # W (K, H)
    flat: Floats  # (even, H): logit of "the mid does not move"
    flat_bias: Floats  # (H,)

    def forward(self, features: Floats) -> tuple[Floats, Floats, Floats]:
        """`move_bp`, `scale_bp` (σ√h) and `p_flat`, each (rows, H), of `features` (rows, F)."""
        odd, even = features[:, :_ODD], features[:, _ODD:_SIGMA]
        scale_bp = features[:, _SIGMA:] * np.sqrt(np.array(HORIZONS_S, float))
        driven, shared = odd @ self.hidden_odd, even @ self.hidden_even + self.hidden_bias
        difference = silu(shared + driven) - silu(shared - driven)
        move = odd @ self.skip + 0.5 * difference @ self.out
        p_flat = sigmoid(even @ self.flat + self.flat_bias)
        return move * scale_bp, scale_bp, p_flat


def sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def silu(x: Floats) -> Floats:
    return x * sigmoid(x)


@dataclass(frozen=True)
class Calibration:
    """What turns a horizon's output into probabilities and an interval, fitted on rows of their own.

    `direction_slope`: P(direction right | the mid moves) = sigmoid(slope * |move| / σ√h).
    `interval_width`: the 80 % conformal quantile of |outcome - move| / σ√h.
    """

    direction_slope: float
    interval_width: float


@dataclass(frozen=True)
class HorizonForecast:
    """One horizon's answer: prices in quote currency, moves in basis points of the basis price."""

    horizon_s: int
    predicted_price: float
    expected_move_bp: float
    confidence: float
    p_flat: float
    lower: float
    upper: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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
        confidence = 1.0 / (1.0 + math.exp(-calibration.direction_slope * abs(move) / scale))
        answers.append(
            HorizonForecast(
                horizon_s=horizon_s,
                predicted_price=basis_price * (1 + move / 1e4),
                expected_move_bp=move,
                confidence=confidence,
                p_flat=float(p_flat[at]),
                lower=basis_price * (1 + (move - width) / 1e4),
                upper=basis_price * (1 + (move + width) / 1e4),
            )
        )
    return answers


class ModelError(ValueError):
    """A model that must not serve; the message says what does not fit."""


def calibrations_from(card: dict[str, Any]) -> dict[int, Calibration]:
    """The calibrations on a model's card. Raises `ModelError` when it was made for other features,
    or lacks a horizon."""
    if card.get("feature_hash") != FEATURE_HASH:
        raise ModelError(
            f"model {card.get('model_id')} was trained on features {card.get('feature_hash')}, "
            f"this code computes {FEATURE_HASH}"
        )
    found = card.get("calibration", {})
    missing = [h for h in HORIZONS_S if str(h) not in found]
    if missing:
        raise ModelError(
            f"the card of model {card.get('model_id')} has no calibration for horizons {missing}"
        )
    return {h: Calibration(**found[str(h)]) for h in HORIZONS_S}

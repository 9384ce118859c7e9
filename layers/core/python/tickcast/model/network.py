"""The network: a small MLP with a skip connection whose output is odd in the odd features.

For odd features o and even features e it predicts, per horizon h, the move of the mid in units of
σ√h·d(σ) as

    f(o, e) = o·L + ½ [g(o, e) - g(-o, e)],      g(o, e) = silu(o·A + e·B + c)·W

so f(-o, e) = -f(o, e) by construction: swapping buying and selling flips the sign of the prediction, and no
drift can be memorised. The volatility σ is an input and the output is scaled back to basis points inside the
network, so that one network serves several markets. For the same book the move grows less than in proportion
to σ, which trails the market by half a minute, the less the longer the horizon: d(σ) = (σ / σ₀)^-δ with δ
from ¼ at a second to 0.6 at ten, where σ₀ is the volatility it was trained at. Where quotes are missing, the
signed trades and the returns of a proxy mid, m, remain, and the output is linear, m·M: they predict too
little for a larger model. An even head gives the probability that the mid does not move at all.

The features it reads are part of the network (`Inputs`); it takes the whole vector and picks them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from tickcast.features.vector import EVEN_FEATURES, FEATURE_NAMES, ODD_FEATURES, QUOTE_FEATURES, Floats
from tickcast.model.forecast import HORIZONS_S, PATH_S

HAS_QUOTES = FEATURE_NAMES.index("has_quotes")
SIGMA = FEATURE_NAMES.index("sigma_bp")
# By instant, (J,): measured at the horizons 1, 2, 5 and 10 s (docs/model.md), linear between them.
DAMPING = np.interp(PATH_S, HORIZONS_S, (-0.25, -0.35, -0.5, -0.6))
DAMPED_WITHIN = (0.25, 4.0)  # σ / σ₀; beyond, the move is proportional to σ


@dataclass(frozen=True)
class Inputs:
    """The features that each part of the network reads, by name.

    Raises ValueError where a feature would break the symmetry, or is masked where quotes are missing.
    """

    odd: tuple[str, ...]  # o
    even: tuple[str, ...]  # e
    masked: tuple[str, ...]  # m: odd ones that are known without quotes
    flat: tuple[str, ...]  # even ones, of the head for "does not move"

    def __post_init__(self) -> None:
        allowed = {
            "odd": set(ODD_FEATURES),
            "even": set(EVEN_FEATURES),
            "masked": set(ODD_FEATURES) - set(QUOTE_FEATURES),
            "flat": set(EVEN_FEATURES),
        }
        for part, names in asdict(self).items():
            if strangers := [name for name in names if name not in allowed[part]]:
                raise ValueError(f"{', '.join(strangers)} cannot be among the network's {part} inputs")

    @property
    def names(self) -> list[str]:
        """All of them, in the order of the vector, with the flag and σ, which every network reads."""
        read = {*self.odd, *self.even, *self.masked, *self.flat, "has_quotes", "sigma_bp"}
        return [name for name in FEATURE_NAMES if name in read]


def places(names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """The columns of the features in the vector. Shape (names,)."""
    return np.array([FEATURE_NAMES.index(name) for name in names], np.int64)


@dataclass
class Network:
    """Weights; O, E, M, P inputs, K hidden units, J instants. Exported to ONNX
    (`adapters.registry.onnx_model`)."""

    inputs: Inputs
    skip: Floats  # L (O, J)
    hidden_odd: Floats  # A (O, K)
    hidden_even: Floats  # B (E, K)
    hidden_bias: Floats  # c (K,)
    out: Floats  # W (K, J)
    masked_skip: Floats  # M (M, J)
    usual_sigma: Floats  # σ₀ (1,), bp per √s
    knows_quotes: Floats  # (1,): 1, or 0 where it was trained without quotes: then m·M for all rows
    flat: Floats  # (P, J): logit of "the mid does not move"
    flat_bias: Floats  # (J,)

    @classmethod
    def zeros(cls, inputs: Inputs, hidden: int) -> Network:
        """A network that predicts no move, with a probability of ½ that there is none."""
        odd, even, instants = len(inputs.odd), len(inputs.even), len(PATH_S)
        return cls(
            inputs,
            skip=np.zeros((odd, instants)),
            hidden_odd=np.zeros((odd, hidden)),
            hidden_even=np.zeros((even, hidden)),
            hidden_bias=np.zeros(hidden),
            out=np.zeros((hidden, instants)),
            masked_skip=np.zeros((len(inputs.masked), instants)),
            usual_sigma=np.ones(1),
            knows_quotes=np.zeros(1),
            flat=np.zeros((len(inputs.flat), instants)),
            flat_bias=np.zeros(instants),
        )

    @property
    def weights(self) -> dict[str, Floats]:
        return {name: values for name, values in vars(self).items() if name != "inputs"}

    def forward(self, features: Floats) -> tuple[Floats, Floats, Floats]:
        """`move_bp`, `scale_bp` (σ√t) and `p_flat`, each (N, J), of `features` (N, F)."""
        odd, even, masked, flat = (  # (N, O), (N, E), (N, M), (N, P)
            features[:, places(names)]
            for names in (self.inputs.odd, self.inputs.even, self.inputs.masked, self.inputs.flat)
        )
        scale_bp = features[:, [SIGMA]] * np.sqrt(np.array(PATH_S))  # (N, J)
        has_quotes = features[:, HAS_QUOTES, None] * self.knows_quotes  # (N, 1)
        move = has_quotes * self.quoted_move(odd, even) + (1 - has_quotes) * (masked @ self.masked_skip)
        move_bp = move * scale_bp * damping(features[:, [SIGMA]], self.usual_sigma)  # (N, J)
        return move_bp, scale_bp, sigmoid(flat @ self.flat + self.flat_bias)

    def quoted_move(self, odd: Floats, even: Floats) -> Floats:
        """f(o, e) in units of σ√h·d(σ), (N, J), of `odd` (N, O) and `even` (N, E)."""
        driven, shared = odd @ self.hidden_odd, even @ self.hidden_even + self.hidden_bias  # (N, K)
        difference = silu(shared + driven) - silu(shared - driven)  # (N, K)
        return np.asarray(odd @ self.skip + 0.5 * difference @ self.out)


def damping(sigma_bp: Floats, usual_bp: Floats) -> Floats:
    """d(σ) of volatilities (N, 1), by instant. Shape (N, J)."""
    return np.asarray(np.clip(sigma_bp / usual_bp, *DAMPED_WITHIN) ** DAMPING)


def average(networks: list[Network]) -> Network:
    """One network whose moves are the means of those of `networks`, which read the same inputs: their hidden
    units are concatenated, all other weights averaged."""
    joined = {"hidden_odd": 1, "hidden_even": 1, "hidden_bias": 0, "out": 0}  # the axis of the hidden units
    weights = {
        name: np.concatenate([n.weights[name] for n in networks], axis=joined[name])
        if name in joined
        else np.mean([n.weights[name] for n in networks], axis=0)
        for name in networks[0].weights
    }
    weights["out"] = weights["out"] / len(networks)
    return Network(networks[0].inputs, **weights)


def sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def silu(x: Floats) -> Floats:
    return x * sigmoid(x)


def silu_slope(x: Floats) -> Floats:
    s = sigmoid(x)
    return s * (1 + x * (1 - s))

"""The fit: a few seconds of AdamW (Loshchilov and Hutter 2019) in numpy, and two closed forms.

Huber loss on the move in units of its scale σ√t·d(σ), few inputs, strong weight decay (docs/model.md has the
evidence). Several members, half of which see the book imbalance alone, are averaged by laying their hidden
units side by side. Rows with quotes fit the members; rows without fit the masked part, a ridge regression;
the head for "does not move" is a logistic regression on both.

The scaling of features is in `features.vector`, the symmetry of the network in `model.network`. N rows, O odd
and E even inputs, K hidden units, J instants.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.features.vector import Floats
from tickcast.model.dataset import Rows
from tickcast.model.forecast import PATH_S
from tickcast.model.network import (
    SIGMA,
    Inputs,
    Network,
    average,
    damping,
    places,
    sigmoid,
    silu,
    silu_slope,
)

MIN_QUOTED_ROWS = 200
_ROOT_T = np.sqrt(np.array(PATH_S))  # (J,)
_TARGET_CLIP = 6.0  # units of σ√t
_MOVE_WEIGHTS = ("skip", "hidden_odd", "hidden_even", "hidden_bias", "out")

# Selected by blocked cross-validation: docs/model.md.
INPUTS = Inputs(
    odd=(
        "imbalance",
        "log_imbalance",
        "imbalance_500ms",
        "ofi_200ms",
        "trade_flow_500ms",
        "return_500ms",
    ),
    even=(),  # what they add in the next minutes they cost in other sessions
    masked=("trade_flow_500ms", "trade_flow_1s", "return_500ms", "return_1s"),
    flat=("volatility_5s", "mid_age", "has_quotes"),
)


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is fitted. `seed` makes a run repeatable to the bit on one machine."""

    inputs: Inputs = INPUTS
    imbalance_only: tuple[str, ...] = ("imbalance",)  # the odd inputs that every second member is confined to
    members: int = 8
    hidden: int = 6
    epochs: int = 20  # at most
    least_epochs: int = 12  # blocks of minutes are too noisy to justify an earlier stop
    batch_rows: int = 512
    max_rows: int = 12_000  # of a kind in one fit: neighbours are nearly equal (`model.thinning`)
    learning_rate: float = 1e-2
    weight_decay: float = 1.0
    huber: float = 1.5
    masked_ridge: float = 1.0
    ridge_inputs: tuple[str, ...] = ("imbalance", "log_imbalance")  # of the regression that is averaged in,
    ridge_share: float = 0.5  # with this weight
    ridge: float = 0.1
    test_share: float = 0.15
    seed: int = 1


class Samples(NamedTuple):
    """Rows as the fit sees them: odd inputs (N, O), even inputs (N, E), clipped moves in σ√t·d(σ) (N, J)."""

    odd: Floats
    even: Floats
    target: Floats

    def chosen(self, which: npt.NDArray[np.int64]) -> Samples:
        return Samples(self.odd[which], self.even[which], self.target[which])


class Scaler(NamedTuple):
    """The units of the inputs while fitting: odd ones are divided by their root mean square, for 0 must stay
    0; even ones are standardised. Folded into the weights afterwards."""

    usual_sigma: Floats  # (1,)
    odd_scale: Floats  # (O,)
    even_mean: Floats  # (E,)
    even_scale: Floats  # (E,)

    @classmethod
    def of(cls, rows: Rows, inputs: Inputs) -> Scaler:
        odd, even = rows.features[:, places(inputs.odd)], rows.features[:, places(inputs.even)]
        odd_scale, even_scale = np.sqrt((odd**2).mean(axis=0)), even.std(axis=0)
        # A constant input carries no information: it is not scaled up.
        return cls(
            usual_sigma(rows),
            np.where(odd_scale > 1e-6, odd_scale, 1.0),
            even.mean(axis=0),
            np.where(even_scale > 1e-3, even_scale, 1.0),
        )

    def samples(self, rows: Rows, inputs: Inputs) -> Samples:
        odd, even = rows.features[:, places(inputs.odd)], rows.features[:, places(inputs.even)]
        return Samples(
            odd=odd / self.odd_scale,  # (N, O)
            even=(even - self.even_mean) / self.even_scale,  # (N, E)
            target=target(rows, self.usual_sigma),  # (N, J)
        )

    def folded(self, network: Network) -> Network:
        """The network that predicts from features what `network` predicts from samples."""
        hidden_even = network.hidden_even / self.even_scale[:, None]
        return replace(
            network,
            usual_sigma=self.usual_sigma,
            knows_quotes=np.ones(1),
            skip=network.skip / self.odd_scale[:, None],
            hidden_odd=network.hidden_odd / self.odd_scale[:, None],
            hidden_even=hidden_even,
            hidden_bias=network.hidden_bias - self.even_mean @ hidden_even,
        )


def loss_and_gradients(network: Network, samples: Samples, huber: float) -> tuple[float, dict[str, Floats]]:
    """Huber loss of the move in units of σ√t·d(σ), averaged over rows and summed over instants, and its
    gradients by the network's field names."""
    odd, even, target = samples
    driven = odd @ network.hidden_odd  # (N, K)
    shared = even @ network.hidden_even + network.hidden_bias  # (N, K)
    plus, minus = shared + driven, shared - driven  # (N, K)
    difference = 0.5 * (silu(plus) - silu(minus))  # (N, K)
    error = odd @ network.skip + difference @ network.out - target  # (N, J)
    slope = np.clip(error, -huber, huber) / len(error)  # (N, J), of each instant's mean loss
    back = 0.5 * slope @ network.out.T  # (N, K)
    from_plus, from_minus = back * silu_slope(plus), back * silu_slope(minus)  # (N, K)
    return float(huber_loss(error, huber).sum()) / len(error), {
        "skip": odd.T @ slope,  # (O, J)
        "out": difference.T @ slope,  # (K, J)
        "hidden_odd": odd.T @ (from_plus + from_minus),  # (O, K)
        "hidden_even": even.T @ (from_plus - from_minus),  # (E, K)
        "hidden_bias": (from_plus - from_minus).sum(axis=0),  # (K,)
    }


def initial_network(settings: TrainingSettings, member: int) -> Network:
    """A member before its first step. Every second one sees none of the odd inputs but `imbalance_only`: the
    weights of the others are 0 and, as `_fit_member` zeroes the inputs, stay 0."""
    rng = np.random.default_rng([settings.seed, member])
    network = Network.zeros(settings.inputs, settings.hidden)
    network.hidden_odd = rng.normal(0, 0.5, network.hidden_odd.shape) * _visible(settings, member)[:, None]
    network.hidden_even = rng.normal(0, 0.5, network.hidden_even.shape)
    return network


def _visible(settings: TrainingSettings, member: int) -> Floats:
    """1 for each odd input that the member sees, else 0. Shape (O,)."""
    return np.array(
        [float(member % 2 == 0 or name in settings.imbalance_only) for name in settings.inputs.odd]
    )


def _fit_member(samples: Samples, settings: TrainingSettings, member: int) -> Iterator[Network]:
    """AdamW with a cosine schedule of its step; yields the network after each epoch."""
    samples = samples._replace(odd=samples.odd * _visible(settings, member))
    network, rng = initial_network(settings, member), np.random.default_rng([settings.seed, member, 1])
    first = {name: np.zeros_like(network.weights[name]) for name in _MOVE_WEIGHTS}
    second = {name: np.zeros_like(network.weights[name]) for name in _MOVE_WEIGHTS}
    batches = -(-len(samples.target) // settings.batch_rows)
    step, steps = 0, settings.epochs * batches
    for _ in range(settings.epochs):
        for chosen in np.array_split(rng.permutation(len(samples.target)), batches):
            _, gradients = loss_and_gradients(network, samples.chosen(chosen), settings.huber)
            rate = settings.learning_rate * 0.5 * (1 + np.cos(np.pi * step / steps))
            step += 1
            for name, gradient in gradients.items():
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                pace = (first[name] / (1 - 0.9**step)) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
                weights = network.weights[name]
                weights -= rate * (pace + settings.weight_decay * weights)
        yield deepcopy(network)


def epoch_by_epoch(rows: Rows, settings: TrainingSettings) -> Iterator[Network]:
    """The average of all members after each epoch on `rows` with quotes, its masked part and its head for
    "does not move" still unfitted; where there are too few rows, networks that use no quotes."""
    rows = rows.chosen(rows.has_quotes)
    if len(rows.end_us) < MIN_QUOTED_ROWS:
        yield from (Network.zeros(settings.inputs, 1) for _ in range(settings.epochs))
        return
    scaler = Scaler.of(rows, settings.inputs)
    samples = scaler.samples(rows, settings.inputs)
    skip = fit_ridge(rows, scaler.usual_sigma, settings)
    members = [_fit_member(samples, settings, member) for member in range(settings.members)]
    for networks in zip(*members, strict=True):
        yield with_ridge(scaler.folded(average(list(networks))), skip, settings.ridge_share)


def fit(rows: Rows, settings: TrainingSettings, epochs: int) -> Network:
    """The whole network, its members trained for that many epochs."""
    network = next(islice(epoch_by_epoch(rows, settings), epochs - 1, None))
    return fit_rest(network, rows, settings)


def fit_rest(network: Network, rows: Rows, settings: TrainingSettings) -> Network:
    """`network` with its masked part and its head for "does not move" fitted."""
    masked = rows.chosen(~rows.has_quotes)
    if not network.knows_quotes:
        network = replace(network, usual_sigma=usual_sigma(rows))
    flat, flat_bias = fit_flat(rows, settings.inputs)
    return replace(
        network,
        masked_skip=_fit_masked(masked, network.usual_sigma, settings),
        flat=flat,
        flat_bias=flat_bias,
    )


def fit_ridge(rows: Rows, usual_bp: Floats, settings: TrainingSettings) -> Floats:
    """The ridge regression that is averaged in, as a `skip` of all odd inputs. Shape (O, J)."""
    skip = np.zeros((len(settings.inputs.odd), len(PATH_S)))
    chosen = [settings.inputs.odd.index(name) for name in settings.ridge_inputs]
    inputs = rows.features[:, places(settings.ridge_inputs)]
    skip[chosen] = ridge(inputs, target(rows, usual_bp), settings.ridge)
    return skip


def with_ridge(network: Network, skip: Floats, share: float) -> Network:
    """The weighted mean of the moves of `network` and of the linear o·`skip`, (O, J)."""
    return replace(network, skip=(1 - share) * network.skip + share * skip, out=(1 - share) * network.out)


def _fit_masked(rows: Rows, usual_bp: Floats, settings: TrainingSettings) -> Floats:
    """Ridge regression of the clipped move in σ√t·d(σ). Shape (M, J)."""
    inputs = rows.features[:, places(settings.inputs.masked)]  # (N, M)
    return ridge(inputs, target(rows, usual_bp), settings.masked_ridge)


def ridge(inputs: Floats, targets: Floats, strength: float) -> Floats:
    """Ridge regression through the origin of `targets` (N, T) on `inputs` (N, I) over their root mean
    squares; 0 without rows. Shape (I, T)."""
    if not len(inputs):
        return np.zeros((inputs.shape[1], targets.shape[1]))
    scale = np.sqrt((inputs**2).mean(axis=0))
    scale = np.where(scale > 1e-6, scale, 1.0)
    inputs = inputs / scale
    power = inputs.T @ inputs / len(inputs) + strength * np.eye(len(scale))  # (I, I)
    weights = np.linalg.solve(power, inputs.T @ targets / len(inputs))
    return np.asarray(weights / scale[:, None])


def fit_flat(rows: Rows, inputs: Inputs, steps: int = 25, ridge: float = 1e-3) -> tuple[Floats, Floats]:
    """Logistic regression of "the mid does not move" on the head's inputs, by Newton's method. Weights (P, J)
    and bias (J,)."""
    values = np.column_stack([rows.features[:, places(inputs.flat)], np.ones(len(rows.end_us))])  # (N, P + 1)
    weights = np.zeros((values.shape[1], len(PATH_S)))
    for at in range(len(PATH_S)):
        flat = (rows.moves_bp[:, at] == 0).astype(float)
        for _ in range(steps):
            p = sigmoid(values @ weights[:, at])
            gradient = values.T @ (p - flat) / len(flat) + ridge * weights[:, at]
            curvature = (values.T * (p * (1 - p))) @ values / len(flat) + ridge * np.eye(values.shape[1])
            weights[:, at] -= np.linalg.solve(curvature, gradient)
    return weights[:-1], weights[-1]


def usual_sigma(rows: Rows) -> Floats:
    """The geometric mean of the volatility, bp per √s. Shape (1,)."""
    return np.asarray(np.exp(np.log(rows.features[:, [SIGMA]]).mean(axis=0)))


def target(rows: Rows, usual_bp: Floats) -> Floats:
    """The clipped move in units of σ√t·d(σ). Shape (N, J)."""
    sigma_bp = rows.features[:, [SIGMA]]
    scale_bp = sigma_bp * damping(sigma_bp, usual_bp) * _ROOT_T
    return np.asarray(np.clip(rows.moves_bp / scale_bp, -_TARGET_CLIP, _TARGET_CLIP))


def huber_loss(error: Floats, limit: float) -> Floats:
    """The loss of each `error`, of its shape: quadratic up to `limit`, linear beyond (Huber 1964)."""
    size = np.abs(error)
    return np.where(size <= limit, 0.5 * error**2, limit * (size - 0.5 * limit))

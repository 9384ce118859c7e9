"""The trainer: a few seconds of AdamW, a calibration on rows it had not seen.

What features are scaled by and what the network may not express (a drift) is decided in `features.vector`
and `tickcast.model.network`; here is only the fit: Huber loss on the move in units of its scale σ√h·d(σ), few
inputs, strong weight decay (docs/model.md has the evidence). Several members, half of which see the book
imbalance alone, are averaged by laying their hidden units side by side.

Time runs forward. The newest share of the rows is the *test* block, which nothing here learns from. The rest
is cut into four blocks at the same instants for all markets; each block but the first is foretold by members
trained on what came before it. How long to train (early stopping), and the calibration, come from these
held-out answers together; then the network is fitted once more, for so long, on all four. Between what is
trained on and what is foretold lies a gap of the longest horizon, so no label reaches across, of whatever
market.

Rows with quotes train the network proper; the same instants with their quotes taken away, and history that
never had any, train the masked part.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.features.bars import BAR_US, BARS_PER_S
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES, Floats
from tickcast.model.calibration import COVERAGE
from tickcast.model.dataset import Rows, pool
from tickcast.model.forecast import HORIZONS_S, Calibration
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

MIN_ROWS = 1000
MIN_QUOTED_ROWS = 200
GAP_US = max(HORIZONS_S) * BARS_PER_S * BAR_US
_ROOT_H = np.sqrt(np.array(HORIZONS_S, float))
_FOLDS = 4
_TARGET_CLIP = 6.0  # units of σ√h
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
    even=("volatility_5s", "mid_age"),
    masked=("trade_flow_500ms", "trade_flow_1s", "return_500ms", "return_1s"),
    flat=("volatility_5s", "mid_age", "has_quotes"),
)


class TrainingError(ValueError):
    """Data that cannot train a model; the message says what is missing."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is fitted. `seed` makes a run repeatable to the bit on one machine."""

    inputs: Inputs = INPUTS
    imbalance_only: tuple[str, ...] = ("imbalance",)  # the odd inputs that every second member is confined to
    members: int = 8
    hidden: int = 6
    epochs: int = 20  # at most
    least_epochs: int = 12  # blocks of minutes are too noisy to tell that training was to stop before that
    batch_rows: int = 512
    max_rows: int = 12_000  # in one fit; of more, neighbours say nearly the same
    learning_rate: float = 1e-2
    weight_decay: float = 1.0
    huber: float = 1.5
    masked_ridge: float = 1.0
    test_share: float = 0.15
    seed: int = 1


def train(markets: list[Rows], settings: TrainingSettings | None = None) -> tuple[Network, dict[str, Any]]:
    """Fit a network on pooled `markets`; returns it with the figures that go onto its card.

    Raises `TrainingError` when there are too few rows for blocks with gaps between them.
    """
    settings = settings or TrainingSettings()
    count = sum(len(np.unique(rows.end_us)) for rows in markets)
    if count < MIN_ROWS:
        raise TrainingError(f"{count} usable rows, training needs {MIN_ROWS}")
    pooled = pool(markets)
    learn, test = _newest_apart(pooled, settings.test_share)
    epochs, answers = _walk_forward(learn, settings)
    network = _fit(learn, settings, epochs)
    with_quotes, without = answers.chosen(answers.has_quotes), answers.chosen(~answers.has_quotes)
    figures = {
        "rows": count,
        "rows_with_quotes": int(pooled.has_quotes.sum()),
        "features": list(FEATURE_NAMES),
        "feature_hash": FEATURE_HASH,
        "horizons_s": list(HORIZONS_S),
        "network": network.as_dict(),
        "epochs": epochs,
        "calibration": _calibrate(with_quotes if len(with_quotes.moves) else without),
        "masked_calibration": _calibrate(without if len(without.moves) else with_quotes),
        "support": support(learn, settings.inputs),
        "learned_to_us": int(learn.end_us.max()) + GAP_US,  # no label reaches beyond
        "test": evaluate(network, test.chosen(test.has_quotes == (network.knows_quotes > 0))),
    }
    return network, figures


def evaluate(network: Network, rows: Rows) -> dict[str, dict[str, float]]:
    """Per horizon: skill (1 - MSE / MSE of "no change"), share of moves whose direction was right, rows.

    `tickcast.evaluation.backtest` says more, and how sure it is.
    """
    move_bp, _, _ = network.forward(rows.features)
    figures = {}
    for at, horizon_s in enumerate(HORIZONS_S):
        predicted, actual = move_bp[:, at], rows.moves_bp[:, at]
        moved = actual != 0
        right = np.sign(predicted[moved]) == np.sign(actual[moved])
        figures[str(horizon_s)] = {
            "skill": float(1 - np.mean((actual - predicted) ** 2) / np.mean(actual**2))
            if moved.any()
            else 0.0,
            "direction": float(right.mean()) if moved.any() else 0.5,
            "rows": float(len(actual)),
        }
    return figures


def support(rows: Rows, inputs: Inputs) -> dict[str, list[float]]:
    """The range of each input within which the network may be asked: that of `rows`, widened on both sides by
    twice its width, taken for at least 2. Volatility, which only scales, may be ten times as high.

    A guard against absurd input alone; another market, year or simulator is to be inside.
    """
    ranges = {}
    for name in inputs.names:
        values = rows.features[:, FEATURE_NAMES.index(name)]
        low, high = float(values.min()), float(values.max())
        margin = 2 * max(high - low, 2.0)
        ranges[name] = [0.0, 10 * high] if name == "sigma_bp" else [low - margin, high + margin]
    return ranges


class Samples(NamedTuple):
    """Rows as the fit sees them: odd inputs (N, O), even inputs (N, E), clipped moves in σ√h·d(σ) (N, H)."""

    odd: Floats
    even: Floats
    target: Floats

    def chosen(self, which: npt.NDArray[np.int64]) -> Samples:
        return Samples(self.odd[which], self.even[which], self.target[which])


class Scaler(NamedTuple):
    """What inputs are measured in while fitting: odd ones by their root mean square, for 0 must stay 0; even
    ones by mean and deviation. It is folded into the weights afterwards."""

    usual_sigma: Floats  # (1,)
    odd_scale: Floats  # (O,)
    even_mean: Floats  # (E,)
    even_scale: Floats  # (E,)

    @classmethod
    def of(cls, rows: Rows, inputs: Inputs) -> Scaler:
        odd, even = rows.features[:, places(inputs.odd)], rows.features[:, places(inputs.even)]
        odd_scale, even_scale = np.sqrt((odd**2).mean(axis=0)), even.std(axis=0)
        # What never varied says nothing: left as it is, and not blown up.
        return cls(
            usual_sigma(rows),
            np.where(odd_scale > 1e-6, odd_scale, 1.0),
            even.mean(axis=0),
            np.where(even_scale > 1e-3, even_scale, 1.0),
        )

    def samples(self, rows: Rows, inputs: Inputs) -> Samples:
        odd, even = rows.features[:, places(inputs.odd)], rows.features[:, places(inputs.even)]
        return Samples(
            odd / self.odd_scale, (even - self.even_mean) / self.even_scale, target(rows, self.usual_sigma)
        )

    def folded(self, network: Network) -> Network:
        """The network that does with features what `network` does with samples."""
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
    """Huber loss of the move in units of σ√h·d(σ), its mean over the rows added up over the horizons, and its
    gradients by the network's field names."""
    odd, even, target = samples
    driven, shared = odd @ network.hidden_odd, even @ network.hidden_even + network.hidden_bias
    plus, minus = shared + driven, shared - driven  # (N, K)
    difference = 0.5 * (silu(plus) - silu(minus))
    error = odd @ network.skip + difference @ network.out - target  # (N, H)
    slope = np.clip(error, -huber, huber) / len(error)  # of each horizon's mean loss
    back = 0.5 * slope @ network.out.T  # (N, K)
    from_plus, from_minus = back * silu_slope(plus), back * silu_slope(minus)
    return float(_huber(error, huber).sum()) / len(error), {
        "skip": odd.T @ slope,
        "out": difference.T @ slope,
        "hidden_odd": odd.T @ (from_plus + from_minus),
        "hidden_even": even.T @ (from_plus - from_minus),
        "hidden_bias": (from_plus - from_minus).sum(axis=0),
    }


def initial_network(settings: TrainingSettings, member: int) -> Network:
    """A member before its first step. Every second one is blind to all odd inputs but those it is confined
    to: their weights are 0 and, as `_member` hides the inputs, stay so."""
    rng = np.random.default_rng([settings.seed, member])
    network = Network.zeros(settings.inputs, settings.hidden)
    network.hidden_odd = rng.normal(0, 0.5, network.hidden_odd.shape) * _seen(settings, member)[:, None]
    network.hidden_even = rng.normal(0, 0.5, network.hidden_even.shape)
    return network


def _seen(settings: TrainingSettings, member: int) -> Floats:
    """1 for each odd input that the member sees, else 0."""
    return np.array(
        [float(member % 2 == 0 or name in settings.imbalance_only) for name in settings.inputs.odd]
    )


def _member(samples: Samples, settings: TrainingSettings, member: int) -> Iterator[Network]:
    """AdamW (Loshchilov and Hutter 2019), its step falling by a cosine; yields the network of each epoch."""
    samples = samples._replace(odd=samples.odd * _seen(settings, member))
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
    """The average of all members after each epoch on `rows` with quotes; one that knows nothing of quotes,
    each time, where there are too few."""
    rows = _thinned(rows.chosen(rows.has_quotes), settings.max_rows)
    if len(rows.end_us) < MIN_QUOTED_ROWS:
        yield from (Network.zeros(settings.inputs, 1) for _ in range(settings.epochs))
        return
    standard = Scaler.of(rows, settings.inputs)
    samples = standard.samples(rows, settings.inputs)
    members = [_member(samples, settings, member) for member in range(settings.members)]
    for networks in zip(*members, strict=True):
        yield standard.folded(average(list(networks)))


def _fit(rows: Rows, settings: TrainingSettings, epochs: int) -> Network:
    """The whole network, its members trained for so many epochs."""
    network = next(islice(epoch_by_epoch(rows, settings), epochs - 1, None))
    return _with_the_rest(network, rows, settings)


def _with_the_rest(network: Network, rows: Rows, settings: TrainingSettings) -> Network:
    """`network` with its masked part and its even head fitted."""
    masked = _thinned(rows.chosen(~rows.has_quotes), settings.max_rows)
    if not network.knows_quotes:
        network = replace(network, usual_sigma=usual_sigma(rows))
    flat, flat_bias = _fit_flat(_thinned(rows, settings.max_rows), settings.inputs)
    return replace(
        network,
        masked_skip=_fit_masked(masked, network.usual_sigma, settings),
        flat=flat,
        flat_bias=flat_bias,
    )


def _fit_masked(rows: Rows, usual_bp: Floats, settings: TrainingSettings) -> Floats:
    """Ridge regression of the clipped move in σ√h·d(σ). Shape (M, H)."""
    inputs = rows.features[:, places(settings.inputs.masked)]
    if not len(inputs):
        return np.zeros((inputs.shape[1], len(HORIZONS_S)))
    scale = np.sqrt((inputs**2).mean(axis=0))
    scale = np.where(scale > 1e-6, scale, 1.0)
    inputs = inputs / scale
    power = inputs.T @ inputs / len(inputs) + settings.masked_ridge * np.eye(len(scale))
    weights = np.linalg.solve(power, inputs.T @ target(rows, usual_bp) / len(inputs))
    return np.asarray(weights / scale[:, None])


def _fit_flat(rows: Rows, inputs: Inputs, steps: int = 25, ridge: float = 1e-3) -> tuple[Floats, Floats]:
    """Logistic regression of "the mid does not move" on the head's inputs, by Newton's method."""
    values = np.column_stack([rows.features[:, places(inputs.flat)], np.ones(len(rows.end_us))])
    weights = np.zeros((values.shape[1], len(HORIZONS_S)))
    for at in range(len(HORIZONS_S)):
        flat = (rows.moves_bp[:, at] == 0).astype(float)
        for _ in range(steps):
            p = sigmoid(values @ weights[:, at])
            gradient = values.T @ (p - flat) / len(flat) + ridge * weights[:, at]
            curvature = (values.T * (p * (1 - p))) @ values / len(flat) + ridge * np.eye(values.shape[1])
            weights[:, at] -= np.linalg.solve(curvature, gradient)
    return weights[:-1], weights[-1]


class OutOfFold(NamedTuple):
    """What was foretold of rows that had not been trained on, and what came: both in σ√h, (N, H)."""

    moves: Floats
    outcomes: Floats
    has_quotes: npt.NDArray[np.bool_]  # (N,)

    def chosen(self, which: npt.NDArray[np.bool_]) -> OutOfFold:
        return OutOfFold(self.moves[which], self.outcomes[which], self.has_quotes[which])


def _walk_forward(rows: Rows, settings: TrainingSettings) -> tuple[int, OutOfFold]:
    """For how many epochs to train, and what networks trained for so long foretold of later blocks."""
    folds = list(_folds(rows))
    networks = [list(epoch_by_epoch(past, settings)) for past, _ in folds]  # by fold and epoch
    losses = [_losses(of_fold, block, settings) for of_fold, (_, block) in zip(networks, folds, strict=True)]
    best = int(np.argmin(np.sum(losses, axis=0))) + 1
    epochs = min(max(best, settings.least_epochs), settings.epochs)
    parts = []
    for of_fold, (past, block) in zip(networks, folds, strict=True):
        network = _with_the_rest(of_fold[epochs - 1], past, settings)
        move_bp, scale_bp, _ = network.forward(block.features)
        parts.append(OutOfFold(move_bp / scale_bp, block.moves_bp / scale_bp, block.has_quotes))
    return epochs, OutOfFold(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _losses(networks: list[Network], rows: Rows, settings: TrainingSettings) -> list[float]:
    """The summed Huber loss of each network on `rows` with quotes."""
    rows = rows.chosen(rows.has_quotes)
    odd, even = (rows.features[:, places(names)] for names in (settings.inputs.odd, settings.inputs.even))
    losses = []
    for network in networks:
        error = network.quoted_move(odd, even) - target(rows, network.usual_sigma)
        losses.append(float(_huber(error, settings.huber).sum()))
    return losses


def _folds(rows: Rows) -> Iterator[tuple[Rows, Rows]]:
    """What came before each block but the first, and the block. Raises `TrainingError` where one is empty."""
    shares = np.linspace(0, 1, _FOLDS + 1)[1:-1]
    cuts_us = [*np.quantile(rows.end_us, shares).tolist(), np.inf]
    for cut_us, end_us in zip(cuts_us, cuts_us[1:], strict=False):
        past = rows.chosen(rows.end_us < cut_us - GAP_US)
        block = rows.chosen((rows.end_us >= cut_us) & (rows.end_us < end_us))
        if not len(past.end_us) or not len(block.end_us):
            raise TrainingError("the rows lie too close together in time for blocks with gaps between them")
        yield past, block


def _newest_apart(rows: Rows, share: float) -> tuple[Rows, Rows]:
    """`rows` but for the newest `share` of them and the gap before it, and that share."""
    if share == 0:
        return rows, rows.chosen(slice(0, 0))
    cut_us = float(np.quantile(rows.end_us, 1 - share))
    learn, test = rows.chosen(rows.end_us < cut_us - GAP_US), rows.chosen(rows.end_us >= cut_us)
    if not len(learn.end_us):
        raise TrainingError("the rows lie too close together in time for blocks with gaps between them")
    return learn, test


def _thinned(rows: Rows, most: int) -> Rows:
    """Every n-th of `rows`, so that at most `most` are left."""
    return rows.chosen(slice(None, None, max(1, -(-len(rows.end_us) // most))))


def usual_sigma(rows: Rows) -> Floats:
    """The geometric mean of the volatility, bp per √s. Shape (1,)."""
    return np.asarray(np.exp(np.log(rows.features[:, SIGMA:]).mean(axis=0)))


def target(rows: Rows, usual_bp: Floats) -> Floats:
    """The clipped move in units of σ√h·d(σ). Shape (N, H)."""
    sigma_bp = rows.features[:, SIGMA:]
    scale_bp = sigma_bp * damping(sigma_bp, usual_bp) * _ROOT_H
    return np.asarray(np.clip(rows.moves_bp / scale_bp, -_TARGET_CLIP, _TARGET_CLIP))


def _huber(error: Floats, limit: float) -> Floats:
    """The loss of each `error`, of its shape: squares up to `limit`, straight beyond (Huber 1964)."""
    size = np.abs(error)
    return np.where(size <= limit, 0.5 * error**2, limit * (size - 0.5 * limit))


def _calibrate(answers: OutOfFold) -> dict[str, dict[str, float]]:
    """By horizon, the `Calibration` that fits `answers`."""
    calibration = {}
    for at, horizon_s in enumerate(HORIZONS_S):
        move, outcome = answers.moves[:, at], answers.outcomes[:, at]
        moved = outcome != 0
        right = (np.sign(move[moved]) == np.sign(outcome[moved])).astype(float)
        residual = np.sort(np.abs(outcome - move))
        # The conformal quantile: ceil((n + 1) q) of n residuals (Vovk et al. 2005).
        rank = min(int(np.ceil((len(residual) + 1) * COVERAGE)), len(residual)) - 1
        fitted = Calibration(_direction_slope(np.abs(move[moved]), right), float(residual[rank]))
        calibration[str(horizon_s)] = asdict(fitted)
    return calibration


def _direction_slope(strength: Floats, right: Floats) -> float:
    """The one parameter of P(right) = sigmoid(slope * strength), by bisection of its likelihood's slope.

    Never below 0: a model that is wrong more often than right earns no confidence at all.
    """
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if np.sum((right - sigmoid(middle * strength)) * strength) > 0:
            low = middle
        else:
            high = middle
    return low

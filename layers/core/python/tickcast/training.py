"""The trainer: rows from bars, a few seconds of AdamW, a calibration on rows of their own.

Time runs train → early stopping → calibration → test, cut at the same instants for all markets, with a gap
of the longest horizon between the blocks: no label of one, of whatever market, reaches into the next. What
the features are scaled by and what the network may not express (a drift) is decided in `tickcast.features`
and `tickcast.model`; here is only the fit: Huber loss on the move in units of σ√h, strong weight decay (few
features and strong regularisation beat many and weak on this data), several seeds averaged by laying their
hidden units side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.bars import BAR_US, Bars, mids
from tickcast.features import EVEN_FEATURES, FEATURE_HASH, FEATURE_NAMES, ODD_FEATURES, feature_rows
from tickcast.model import HORIZONS_S, Calibration, Floats, Network, sigmoid, silu

COVERAGE = 0.8
_BARS_PER_S = 1_000_000 // BAR_US
_GAP_ROWS = max(HORIZONS_S) * _BARS_PER_S
_TARGET_CLIP = 6.0  # units of σ√h


class TrainingError(ValueError):
    """Data that cannot train a model; the message says what is missing."""


class Rows(NamedTuple):
    """Training rows of one stretch of one market: when each was known (N,), its features (N, F), and the
    move of the mid over each horizon in bp (N, H)."""

    end_us: npt.NDArray[np.int64]
    features: Floats
    moves_bp: Floats

    def chosen(self, which: npt.NDArray[Any]) -> Rows:
        return Rows(self.end_us[which], self.features[which], self.moves_bp[which])


@dataclass(frozen=True)
class Settings:
    """How a network is fitted. `seed` makes a run repeatable to the bit on one machine."""

    hidden: int = 8
    seeds: int = 4
    epochs: int = 40
    patience: int = 6
    batch_rows: int = 512
    learning_rate: float = 1e-2
    weight_decay: float = 1.0
    huber: float = 1.0
    seed: int = 1


def rows_from_bars(bars: Bars) -> Rows:
    """Every row of `bars` whose features and moves are known; the longest horizon's tail is left off."""
    mid = mids(bars)
    count = len(bars) - _GAP_ROWS
    if count <= 0:
        return Rows(np.empty(0, np.int64), np.empty((0, len(FEATURE_NAMES))), np.empty((0, len(HORIZONS_S))))
    features = feature_rows(bars, len(bars))[:count]
    ends = [mid[h * _BARS_PER_S : h * _BARS_PER_S + count] for h in HORIZONS_S]
    moves_bp = np.stack([(end / mid[:count] - 1) * 1e4 for end in ends], axis=1)
    known = ~(np.isnan(features).any(axis=1) | np.isnan(moves_bp).any(axis=1))
    return Rows(bars["end_us"][:count][known], features[known], moves_bp[known])


def train(markets: list[Rows], settings: Settings | None = None) -> tuple[Network, dict[str, Any]]:
    """Fit a network on pooled `markets`; returns it with the figures that go onto its card.

    Raises `TrainingError` when there are too few rows for four blocks.
    """
    settings = settings or Settings()
    fit, stop, calibrate, test = _split(_pool(markets))
    networks = [_fit(fit, stop, settings, settings.seed + n) for n in range(settings.seeds)]
    network = average(networks)
    network.flat, network.flat_bias = _fit_flat(fit)
    figures = {
        "rows": sum(len(rows.features) for rows in markets),
        "features": list(FEATURE_NAMES),
        "feature_hash": FEATURE_HASH,
        "horizons_s": list(HORIZONS_S),
        "calibration": _calibrate(network, calibrate),
        "test": evaluate(network, test),
    }
    return network, figures


def evaluate(network: Network, rows: Rows) -> dict[str, dict[str, float]]:
    """Per horizon: skill (1 - MSE / MSE of "no change"), share of moves whose direction was right, rows."""
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


def average(networks: list[Network]) -> Network:
    """One network whose output is the mean of `networks`: their hidden units side by side."""
    n = len(networks)
    return Network(
        skip=np.mean([net.skip for net in networks], axis=0),
        hidden_odd=np.concatenate([net.hidden_odd for net in networks], axis=1),
        hidden_even=np.concatenate([net.hidden_even for net in networks], axis=1),
        hidden_bias=np.concatenate([net.hidden_bias for net in networks]),
        out=np.concatenate([net.out for net in networks]) / n,
        flat=np.mean([net.flat for net in networks], axis=0),
        flat_bias=np.mean([net.flat_bias for net in networks], axis=0),
    )


def loss_and_gradients(network: Network, rows: Rows, huber: float) -> tuple[float, dict[str, Floats]]:
    """Mean Huber loss of the move in units of σ√h, and its gradients by the network's field names."""
    odd, even, target = _inputs(rows)
    driven, shared = odd @ network.hidden_odd, even @ network.hidden_even + network.hidden_bias
    plus, minus = shared + driven, shared - driven  # (N, K)
    difference = 0.5 * (silu(plus) - silu(minus))
    error = odd @ network.skip + difference @ network.out - target  # (N, H)
    inside = np.abs(error) <= huber
    loss = np.where(inside, 0.5 * error**2, huber * (np.abs(error) - 0.5 * huber)).mean()
    slope = np.where(inside, error, huber * np.sign(error)) / error.size
    back = 0.5 * slope @ network.out.T  # (N, K)
    from_plus, from_minus = back * _silu_slope(plus), back * _silu_slope(minus)
    return float(loss), {
        "skip": odd.T @ slope,
        "out": difference.T @ slope,
        "hidden_odd": odd.T @ (from_plus + from_minus),
        "hidden_even": even.T @ (from_plus - from_minus),
        "hidden_bias": (from_plus - from_minus).sum(axis=0),
    }


def initial_network(settings: Settings, seed: int) -> Network:
    rng = np.random.default_rng(seed)
    odd, even, horizons = len(ODD_FEATURES), len(EVEN_FEATURES), len(HORIZONS_S)
    return Network(
        skip=np.zeros((odd, horizons)),
        hidden_odd=rng.normal(0, 0.5, (odd, settings.hidden)),
        hidden_even=rng.normal(0, 0.5, (even, settings.hidden)),
        hidden_bias=np.zeros(settings.hidden),
        out=np.zeros((settings.hidden, horizons)),
        flat=np.zeros((even, horizons)),
        flat_bias=np.zeros(horizons),
    )


def _fit(fit: Rows, stop: Rows, settings: Settings, seed: int) -> Network:
    """AdamW (Loshchilov and Hutter 2019) on `fit`, keeping the weights that did best on `stop`."""
    network, rng = initial_network(settings, seed), np.random.default_rng(seed)
    names = ("skip", "hidden_odd", "hidden_even", "hidden_bias", "out")
    moments = {
        name: (np.zeros_like(getattr(network, name)), np.zeros_like(getattr(network, name))) for name in names
    }
    best, best_loss, waited, step = network, np.inf, 0, 0
    for _ in range(settings.epochs):
        order = rng.permutation(len(fit.features))
        for start in range(0, len(order), settings.batch_rows):
            chosen = order[start : start + settings.batch_rows]
            _, gradients = loss_and_gradients(network, fit.chosen(chosen), settings.huber)
            step += 1
            updated = {}
            for name in names:
                weights, gradient = getattr(network, name), gradients[name]
                first = 0.9 * moments[name][0] + 0.1 * gradient
                second = 0.999 * moments[name][1] + 0.001 * gradient**2
                moments[name] = (first, second)
                pace = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
                updated[name] = weights - settings.learning_rate * (pace + settings.weight_decay * weights)
            network = Network(**updated, flat=network.flat, flat_bias=network.flat_bias)
        loss, _ = loss_and_gradients(network, stop, settings.huber)
        if loss < best_loss:
            best, best_loss, waited = network, loss, 0
        else:
            waited += 1
            if waited == settings.patience:
                break
    return best


def _fit_flat(rows: Rows, steps: int = 25, ridge: float = 1e-3) -> tuple[Floats, Floats]:
    """Logistic regression of "the mid does not move" on the even features, by Newton's method."""
    _, even, _ = _inputs(rows)
    inputs = np.column_stack([even, np.ones(len(even))])
    weights = np.zeros((inputs.shape[1], len(HORIZONS_S)))
    for at in range(len(HORIZONS_S)):
        flat = (rows.moves_bp[:, at] == 0).astype(float)
        for _ in range(steps):
            p = sigmoid(inputs @ weights[:, at])
            gradient = inputs.T @ (p - flat) / len(flat) + ridge * weights[:, at]
            curvature = (inputs.T * (p * (1 - p))) @ inputs / len(flat) + ridge * np.eye(inputs.shape[1])
            weights[:, at] -= np.linalg.solve(curvature, gradient)
    return weights[:-1], weights[-1]


def _calibrate(network: Network, rows: Rows) -> dict[str, dict[str, float]]:
    move_bp, scale_bp, _ = network.forward(rows.features)
    calibration = {}
    for at, horizon_s in enumerate(HORIZONS_S):
        move, scale, actual = move_bp[:, at], scale_bp[:, at], rows.moves_bp[:, at]
        moved = actual != 0
        right = (np.sign(move[moved]) == np.sign(actual[moved])).astype(float)
        residual = np.sort(np.abs(actual - move) / scale)
        # The conformal quantile: ceil((n + 1) q) of n residuals (Vovk et al. 2005).
        rank = min(int(np.ceil((len(residual) + 1) * COVERAGE)), len(residual)) - 1
        fitted = Calibration(
            _direction_slope(np.abs(move[moved]) / scale[moved], right), float(residual[rank])
        )
        calibration[str(horizon_s)] = {
            "direction_slope": fitted.direction_slope,
            "interval_width": fitted.interval_width,
        }
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


def _inputs(rows: Rows) -> tuple[Floats, Floats, Floats]:
    """Odd features, even features and the clipped target in units of σ√h."""
    odd = rows.features[:, : len(ODD_FEATURES)]
    even, sigma_bp = rows.features[:, len(ODD_FEATURES) : -1], rows.features[:, -1:]
    target = rows.moves_bp / (sigma_bp * np.sqrt(np.array(HORIZONS_S, float)))
    return odd, even, np.clip(target, -_TARGET_CLIP, _TARGET_CLIP)


def _silu_slope(x: Floats) -> Floats:
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


def _split(rows: Rows) -> list[Rows]:
    """Train, early-stopping, calibration and test rows, in time's order, with purged gaps between.

    Raises `TrainingError` when there are too few rows for four blocks.
    """
    needed = 20 * _GAP_ROWS
    if len(rows.end_us) < needed:
        raise TrainingError(f"{len(rows.end_us)} usable rows, training needs {needed}")
    cuts_us = [0, *np.quantile(rows.end_us, (0.55, 0.7, 0.85)).tolist(), 2.0**62]
    gap_us = _GAP_ROWS * BAR_US
    blocks = [
        rows.chosen((rows.end_us >= start) & (rows.end_us < stop - gap_us))
        for start, stop in zip(cuts_us, cuts_us[1:], strict=False)
    ]
    if not all(len(block.end_us) for block in blocks):
        raise TrainingError("the rows lie too close together in time for blocks with gaps between them")
    return blocks


def _pool(parts: list[Rows]) -> Rows:
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

"""What the perpetual of the same base adds to a forecast: a small linear correction of the path.

The perpetual leads by fractions of a second (docs/model.md): the imbalance of its book, and how far its basis
is from the usual one, say something of the move of the spot mid that the spot's own book does not. How much
differs from asset to asset. So there are weights for each, fitted on what the network leaves of that market's
moves, and used only where they gain on blocks of that market that neither they nor the forecast they correct
were fitted on. They stand on the model's card: the network is one for all markets, and what holds for one is
decided by its own rows (docs/adr/0037-the-perpetual-corrects-by-market.md).

Everything that forecasts goes through `corrected`. N rows, J instants, H horizons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.dataset import Rows
from tickcast.model.fit import TrainingSettings, fit_ridge, ridge, usual_sigma
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, PATH_S, remaining_moves
from tickcast.model.network import HAS_QUOTES, SIGMA, Network, damping, places
from tickcast.model.thinning import Markets, sample

INPUTS = ("log_imbalance", "reference_imbalance", "basis_deviation")
MIN_ROWS = 1000  # of a market, with a reference
_HAS_REFERENCE = FEATURE_NAMES.index("has_reference")
_AT = places(INPUTS)
_RIDGE = 0.3
_CLIP = 6.0  # units of σ√t·d(σ)
_BLOCKS = 6
MAX_WEIGHT = 10.0  # of an input; beyond, a card is damaged
_LEAST_T = 1.476  # of the gains of six blocks: one in ten by chance (Student's t, one-sided)
# A horizon has so many times fewer outcomes of its own.
_WEIGHTS = 1 / np.array(HORIZONS_S)


class ReferenceWeights(Struct, frozen=True):
    """The correction of one market: `weights` (3, J) of `INPUTS`, in units of σ√t·d(σ), where σ₀ is
    `usual_sigma_bp`."""

    usual_sigma_bp: float
    weights: list[list[float]]


class ReferenceGain(NamedTuple):
    """What the perpetual gains in a market on blocks that nothing was fitted on, at delivery: by horizon (s),
    the share of the squared moves by which the squared error is less. `is_clear`: in nearly all blocks."""

    gain: dict[int, float]
    is_clear: bool


class References(NamedTuple):
    """By market: the weights where they are used, the gain wherever there is a reference."""

    weights: dict[str, ReferenceWeights]
    gains: dict[str, ReferenceGain]


def corrected(
    symbols: Sequence[str],
    features: Floats,
    move_bp: Floats,
    scale_bp: Floats,
    weights: Mapping[str, ReferenceWeights],
) -> Floats:
    """The moves (N, J) that a network expects of rows (N, F) of `symbols` (N,), corrected for each row that
    has a reference and whose market has weights; `scale_bp` (N, J) are the network's. The same bits for a row
    alone as among others."""
    if not weights:
        return move_bp
    found = move_bp.copy()
    names = np.array(symbols)
    for symbol, of_market in weights.items():
        at = np.flatnonzero((names == symbol) & has_reference(features))
        if len(at):
            found[at] += _correction_bp(features[at], scale_bp[at], of_market)
    return found


def has_reference(features: Floats) -> npt.NDArray[np.bool_]:
    """Which rows (N, F) have a reference that a correction can be made by. Shape (N,)."""
    return np.asarray((features[:, _HAS_REFERENCE] > 0) & (features[:, HAS_QUOTES] > 0))


def _correction_bp(features: Floats, scale_bp: Floats, of_market: ReferenceWeights) -> Floats:
    units_bp = scale_bp * damping(features[:, [SIGMA]], np.array([of_market.usual_sigma_bp]))  # (N, J)
    terms = (features[:, [at]] * np.array(row) for at, row in zip(_AT, of_market.weights, strict=True))
    return np.asarray(sum(terms) * units_bp)


def fit_references(markets: Markets, network: Network, settings: TrainingSettings, gap_us: int) -> References:
    """The weights and gains of each of `markets` with enough rows that have a reference; `network` was fitted
    on them. Rows that are fitted on and such that are predicted lie `gap_us` apart."""
    found = References({}, {})
    for symbol, rows in markets.items():
        known = rows.chosen(has_reference(rows.features))
        if len(known.end_us) < MIN_ROWS or not network.knows_quotes:
            continue
        gain = _cross_validated(markets, symbol, known, settings, gap_us)
        found.gains[symbol] = gain
        if gain.is_clear:
            found.weights.update(fit_weights({symbol: known}, network))
    return found


def fit_weights(markets: Markets, network: Network) -> dict[str, ReferenceWeights]:
    """The weights of each of `markets` with enough rows that have a reference."""
    found = {}
    for symbol, rows in markets.items():
        known = rows.chosen(has_reference(rows.features))
        if len(known.end_us) >= MIN_ROWS and network.knows_quotes:
            moves_bp, scale_bp, _ = network.forward(known.features)
            found[symbol] = _fit(known, moves_bp, scale_bp, network.usual_sigma)
    return found


def _fit(rows: Rows, expected_bp: Floats, scale_bp: Floats, usual_bp: Floats) -> ReferenceWeights:
    units_bp = scale_bp * damping(rows.features[:, [SIGMA]], usual_bp)
    left = np.clip((rows.moves_bp - expected_bp) / units_bp, -_CLIP, _CLIP)  # (N, J)
    # An input that hardly varies would have weights that no card may have.
    weights = np.clip(ridge(rows.features[:, _AT], left, _RIDGE), -MAX_WEIGHT, MAX_WEIGHT)
    return ReferenceWeights(float(usual_bp[0]), weights.tolist())


def _cross_validated(
    markets: Markets, symbol: str, known: Rows, settings: TrainingSettings, gap_us: int
) -> ReferenceGain:
    """The gain on each of a few blocks of `known`, the rows of `symbol` with a reference, where the ridge
    regression within the network, fitted on all markets outside the block, is the forecast to correct."""
    cuts_us = np.quantile(known.end_us, np.linspace(0, 1, _BLOCKS + 1))
    gains, squares = np.zeros((2, _BLOCKS, len(HORIZONS_S)))
    for number, (from_us, to_us) in enumerate(zip(cuts_us, cuts_us[1:], strict=False)):
        others = {
            name: rows.chosen((rows.end_us < from_us - gap_us) | (rows.end_us > to_us + gap_us))
            for name, rows in {**markets, symbol: known}.items()
        }
        fitted, block = others[symbol], known.chosen((known.end_us >= from_us) & (known.end_us <= to_us))
        past = sample(others, settings.max_rows, settings.seed).rows
        past = past.chosen(past.has_quotes)
        if not len(fitted.end_us):
            return ReferenceGain(dict.fromkeys(HORIZONS_S, 0.0), is_clear=False)
        usual_bp = usual_sigma(past)
        skip = fit_ridge(past, usual_bp, settings)
        weights = _fit(fitted, *_linear(fitted, skip, usual_bp, settings), usual_bp)
        expected_bp, scale_bp = _linear(block, skip, usual_bp, settings)
        improved_bp = expected_bp + _correction_bp(block.features, scale_bp, weights)
        outcome, before, after = (
            remaining_moves(paths, DELIVERY_S) for paths in (block.moves_bp, expected_bp, improved_bp)
        )
        gains[number] = ((outcome - before) ** 2 - (outcome - after) ** 2).sum(axis=0)
        squares[number] = (outcome**2).sum(axis=0)
    shares = gains / np.maximum(squares, 1e-12) @ _WEIGHTS  # (blocks,)
    error = float(shares.std(ddof=1)) / math.sqrt(_BLOCKS)
    total = gains.sum(axis=0) / np.maximum(squares.sum(axis=0), 1e-12)
    return ReferenceGain(
        dict(zip(HORIZONS_S, total.tolist(), strict=True)),
        is_clear=bool(shares.mean() > _LEAST_T * error and float(total @ _WEIGHTS) > 0),
    )


def _linear(rows: Rows, skip: Floats, usual_bp: Floats, settings: TrainingSettings) -> tuple[Floats, Floats]:
    """What a ridge regression alone expects of `rows`, and the scale: bp, (N, J) each."""
    sigma_bp = rows.features[:, [SIGMA]]
    scale_bp = sigma_bp * np.sqrt(np.array(PATH_S))
    odd = rows.features[:, places(settings.inputs.odd)]
    return odd @ skip * scale_bp * damping(sigma_bp, usual_bp), scale_bp

"""The training of a model: what it is fitted on, for how long, and how it is calibrated.

Time runs forward. The newest share of the rows is the *test* block, which nothing here is fitted on. The rest
is cut into four blocks at the same instants for all markets; each block but the first is predicted by
networks fitted on the blocks before it (walk-forward). The number of epochs (early stopping) and the
calibration come from these out-of-fold predictions together, of the move that is left at delivery; then the
network is fitted on all four blocks (`model.fit`). Between the rows that are
fitted on and those that are predicted is a gap as long as a path, so that no label of any market reaches
across.

Rows with quotes train the network proper; the same instants with their quotes masked, and history that never
had any, train the masked part. Each fit takes an equal share of every market (`model.thinning`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.features.bars import BAR_US, BARS_PER_S
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.calibration import fit_calibrations
from tickcast.model.dataset import Rows
from tickcast.model.fit import TrainingSettings, epoch_by_epoch, fit, fit_rest, huber_loss
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, PATH_S, Calibration, remaining_moves
from tickcast.model.network import SIGMA, Network
from tickcast.model.reference import References, ReferenceWeights, corrected, fit_references, fit_weights
from tickcast.model.thinning import Markets, RowsByKind, sample

MIN_ROWS = 1000
GAP_US = round(max(PATH_S) * BARS_PER_S) * BAR_US
_FOLDS = 4

Blocks = list[tuple[Markets, Markets]]  # the rows before each block, and the block


class TrainingError(ValueError):
    """Data that no model can be trained on; the message says what is missing."""


class Training(NamedTuple):
    """A fitted network, and what its card records of the fit."""

    network: Network
    rows: int  # distinct instants, of all markets
    rows_with_quotes: int
    fitted: dict[str, RowsByKind]  # by market: the rows that the network was fitted on
    epochs: int
    references: References
    calibration: dict[int, Calibration]  # by horizon, s
    masked_calibration: dict[int, Calibration]
    support: dict[str, tuple[float, float]]  # by input: lowest and highest value to serve on
    learned_to_us: int  # no label of a row that it was fitted on reaches beyond
    test: Markets  # the newest block, of the kind (with or without quotes) that the network is for


def train(markets: Markets, settings: TrainingSettings | None = None) -> Training:
    """Fit a network on `markets` together.

    Raises `TrainingError` when there are too few rows for blocks with gaps between them.
    """
    settings = settings or TrainingSettings()
    count = _instants(markets)
    if count < MIN_ROWS:
        raise TrainingError(f"{count} usable rows, training needs {MIN_ROWS}")
    learn, test = split_newest(markets, settings.test_share)
    blocks = list(folds(learn))
    networks, epochs = _walk_forward(blocks, settings)
    fitted = sample(learn, settings.max_rows, settings.seed)
    network = fit(fitted.rows, settings, epochs)
    references = fit_references(learn, network, settings, GAP_US)
    predicted = _out_of_fold(networks, blocks, references.weights)
    quoted, masked = predicted.chosen(predicted.has_quotes), predicted.chosen(~predicted.has_quotes)
    return Training(
        network,
        rows=count,
        rows_with_quotes=sum(int(rows.has_quotes.sum()) for rows in markets.values()),
        fitted=fitted.by_market,
        epochs=epochs,
        references=references,
        calibration=fit_calibrations(*(quoted if len(quoted.moves) else masked)[:2]),
        masked_calibration=fit_calibrations(*(masked if len(masked.moves) else quoted)[:2]),
        support=support(learn, settings.inputs.names),
        learned_to_us=_newest_us(learn) + GAP_US,
        test={
            symbol: rows.chosen(rows.has_quotes == (network.knows_quotes > 0))
            for symbol, rows in test.items()
        },
    )


class Refit(NamedTuple):
    """A network fitted on all rows by what was chosen on fewer; see `Training`."""

    network: Network
    rows: int
    rows_with_quotes: int
    fitted: dict[str, RowsByKind]
    weights: dict[str, ReferenceWeights]  # of the markets that had any
    support: dict[str, tuple[float, float]]
    learned_to_us: int


def refit(
    markets: Markets, settings: TrainingSettings, epochs: int, references: Mapping[str, ReferenceWeights]
) -> Refit:
    """Fit on all rows of `markets` for as many `epochs` as were chosen on unseen rows, with a correction by
    the perpetual for the markets of `references` alone.

    Raises `TrainingError` when there are too few rows.
    """
    count = _instants(markets)
    if count < MIN_ROWS:
        raise TrainingError(f"{count} usable rows, training needs {MIN_ROWS}")
    fitted = sample(markets, settings.max_rows, settings.seed)
    network = fit(fitted.rows, settings, epochs)
    return Refit(
        network,
        rows=count,
        rows_with_quotes=sum(int(rows.has_quotes.sum()) for rows in markets.values()),
        fitted=fitted.by_market,
        weights=fit_weights({symbol: markets[symbol] for symbol in references if symbol in markets}, network),
        support=support(markets, settings.inputs.names),
        learned_to_us=_newest_us(markets) + GAP_US,
    )


def _instants(markets: Markets) -> int:
    return sum(len(np.unique(rows.end_us)) for rows in markets.values())


def _newest_us(markets: Markets) -> int:
    return int(_times_us(markets).max())


def fitted_with_quotes(rows: Rows, learned_to_us: int) -> Rows:
    """Those of `rows` with quotes that a network whose labels reach to `learned_to_us` was fitted on."""
    return rows.chosen(rows.has_quotes & (rows.end_us <= learned_to_us - GAP_US))


def support(markets: Markets, inputs: Sequence[str]) -> dict[str, tuple[float, float]]:
    """By input, the range that the network may be used in: that of all rows, widened on both sides by twice
    its width, which counts as at least 2. Volatility, which only scales, may be ten times as high.

    It only guards against absurd input: another market, year or simulator should be inside.
    """
    ranges = {}
    for name in inputs:
        at = FEATURE_NAMES.index(name)
        columns = [rows.features[:, at] for rows in markets.values() if len(rows.end_us)]
        low, high = (float(bound([bound(column) for column in columns])) for bound in (np.min, np.max))
        margin = 2 * max(high - low, 2.0)
        ranges[name] = (0.0, 10 * high) if name == "sigma_bp" else (low - margin, high + margin)
    return ranges


class OutOfFold(NamedTuple):
    """Predictions of rows that were not fitted on, and their outcomes: both are remaining moves at delivery
    in σ√h, (N, H)."""

    moves: Floats
    outcomes: Floats
    has_quotes: npt.NDArray[np.bool_]  # (N,)

    def chosen(self, which: npt.NDArray[np.bool_]) -> OutOfFold:
        return OutOfFold(self.moves[which], self.outcomes[which], self.has_quotes[which])


def _walk_forward(blocks: Blocks, settings: TrainingSettings) -> tuple[list[Network], int]:
    """By block, the network fitted before it, for the number of epochs with the least loss on all blocks."""
    pasts = [sample(past, settings.max_rows, settings.seed).rows for past, _ in blocks]
    networks = [list(epoch_by_epoch(past, settings)) for past in pasts]  # by fold and epoch
    losses = [
        np.sum([_losses(of_fold, rows, settings) for rows in block.values()], axis=0)
        for of_fold, (_, block) in zip(networks, blocks, strict=True)
    ]
    best = int(np.argmin(np.sum(losses, axis=0))) + 1
    epochs = min(max(best, settings.least_epochs), settings.epochs)
    return [
        fit_rest(of_fold[epochs - 1], past, settings) for of_fold, past in zip(networks, pasts, strict=True)
    ], epochs


def _out_of_fold(
    networks: list[Network], blocks: Blocks, references: Mapping[str, ReferenceWeights]
) -> OutOfFold:
    """What the network before each block predicts of it."""
    parts = []
    for network, (_, block) in zip(networks, blocks, strict=True):
        for symbol, rows in block.items():
            expected_bp = paths_bp(network, symbol, rows, references)
            moves, outcomes = (in_sigmas(paths, rows) for paths in (expected_bp, rows.moves_bp))
            parts.append(OutOfFold(moves, outcomes, rows.has_quotes))
    return OutOfFold(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def paths_bp(network: Network, symbol: str, rows: Rows, references: Mapping[str, ReferenceWeights]) -> Floats:
    """What `network` expects of `rows`, corrected by what the perpetual says. Shape (N, J)."""
    move_bp, scale_bp, _ = network.forward(rows.features)
    return corrected([symbol] * len(move_bp), rows.features, move_bp, scale_bp, references)


def _losses(networks: list[Network], rows: Rows, settings: TrainingSettings) -> list[float]:
    """The summed Huber loss, at delivery, of each network on `rows` with quotes."""
    rows = rows.chosen(rows.has_quotes)
    outcomes = in_sigmas(rows.moves_bp, rows)  # (N, H)
    moves = (in_sigmas(network.forward(rows.features)[0], rows) for network in networks)
    return [float(huber_loss(each - outcomes, settings.huber).sum()) for each in moves]


def in_sigmas(moves_bp: Floats, rows: Rows) -> Floats:
    """Paths of moves (N, J) of `rows` as the remaining moves at delivery, in σ√h. Shape (N, H)."""
    scale_bp = rows.features[:, [SIGMA]] * np.sqrt(np.array(HORIZONS_S))
    return np.asarray(remaining_moves(moves_bp, DELIVERY_S) / scale_bp)


def folds(markets: Markets) -> Iterator[tuple[Markets, Markets]]:
    """The rows before each block but the first, less the gap, and the block; cut at the same instants for all
    markets. Raises `TrainingError` where one is empty."""
    shares = np.linspace(0, 1, _FOLDS + 1)[1:-1]
    cuts_us = [*np.quantile(_times_us(markets), shares).tolist(), np.inf]
    for cut_us, end_us in zip(cuts_us, cuts_us[1:], strict=False):
        past = between(markets, -np.inf, cut_us - GAP_US)
        block = between(markets, cut_us, end_us)
        if not len(_times_us(past)) or not len(_times_us(block)):
            raise TrainingError("the rows lie too close together in time for blocks with gaps between them")
        yield past, block


def split_newest(markets: Markets, share: float) -> tuple[Markets, Markets]:
    """`markets` but for the newest `share` of their rows and the gap before it, and that share."""
    if share == 0:
        return markets, between(markets, np.inf, np.inf)
    cut_us = float(np.quantile(_times_us(markets), 1 - share))
    learn, test = between(markets, -np.inf, cut_us - GAP_US), between(markets, cut_us, np.inf)
    if not len(_times_us(learn)):
        raise TrainingError("the rows lie too close together in time for blocks with gaps between them")
    return learn, test


def between(markets: Markets, from_us: float, to_us: float) -> Markets:
    """The rows of each market from `from_us` on and before `to_us`."""
    return {
        symbol: rows.chosen((rows.end_us >= from_us) & (rows.end_us < to_us))
        for symbol, rows in markets.items()
    }


def _times_us(markets: Markets) -> npt.NDArray[np.int64]:
    return np.concatenate([rows.end_us for rows in markets.values()])

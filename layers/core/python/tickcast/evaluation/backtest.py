"""The backtest: what a model and the baselines predict of rows that the model was not trained on.

Only rows with quotes count, every 100 ms. A prediction is read at an *age*: what counts is the move that is
still to come then, against the mid at that moment. Figures are for ages from 0 to a second, and for the
*delivery*, the age that a prediction typically has (`latency_ms`).

Confidence and intervals are those that would have been served at delivery: for each of the ten grids of whole
seconds the calibration starts from training and learns from each outcome once it is known
(`tickcast.model.calibration`). The figures that follow are in `evaluation.backtest_figures`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.evaluation.baselines import BASELINES, baselines, fit_scaled_line
from tickcast.evaluation.skill import point_skill
from tickcast.features.bars import BAR_US, BARS_PER_S, Bars, mids, spreads_bp
from tickcast.features.vector import Floats
from tickcast.model.calibration import Calibrator
from tickcast.model.card import HorizonScore, ScaledLine
from tickcast.model.dataset import Rows, rows_from_bars, rows_without_quotes
from tickcast.model.fit import TrainingSettings
from tickcast.model.forecast import (
    DELIVERY_S,
    HORIZONS_S,
    Calibration,
    remaining_flat,
    remaining_moves,
    remaining_scales,
)
from tickcast.model.network import SIGMA
from tickcast.model.reference import corrected
from tickcast.model.thinning import Markets
from tickcast.model.training import GAP_US, Training, between, fitted_with_quotes, paths_bp, train
from tickcast.units import SECOND_US

_FIRST_SHARE = 0.5  # of a session: what the first walk-forward block is trained on
_WALKS = 3
AGES_MS = tuple(range(0, 1001, 100))
_HORIZON_BARS = np.array(HORIZONS_S) * BARS_PER_S

Bools = npt.NDArray[np.bool_]


class EvaluationError(ValueError):
    """Rows on which nothing can be evaluated; the message says what is missing."""


class Holdout(NamedTuple):
    """A segment of a market to evaluate on: its rows with quotes, and of the same (N,) instants, in bp, the
    price of the last trade from the mid, the spread, and by age of `AGES_MS` how far the mid has moved by
    then (N, A) and still moves over each horizon (N, A, H), and the spread that is paid for entering then and
    leaving a horizon later: half of it each time (N, A, H)."""

    rows: Rows
    last_trade_bp: Floats
    spread_bp: Floats
    moved_bp: Floats
    remaining_bp: Floats
    spread_paid_bp: Floats
    unquoted: int  # rows without quotes, left out
    masked: Rows  # the same segment with its quotes masked
    symbol: str = ""

    def chosen(self, which: Bools) -> Holdout:
        return self._replace(
            rows=self.rows.chosen(which),
            last_trade_bp=self.last_trade_bp[which],
            spread_bp=self.spread_bp[which],
            moved_bp=self.moved_bp[which],
            remaining_bp=self.remaining_bp[which],
            spread_paid_bp=self.spread_paid_bp[which],
        )

    def relabelled(self, relabel: Callable[[Rows], Rows]) -> Holdout:
        """The same with the labels that `relabel` gives its rows."""
        rows = relabel(self.rows)
        ages = [remaining_moves(rows.moves_bp, age_ms / 1000) for age_ms in AGES_MS]
        return self._replace(rows=rows, remaining_bp=np.stack(ages, axis=1))


def holdout(bars: Bars, symbol: str = "") -> Holdout:
    """The holdout of a segment of `symbol`. Rows whose mid is unknown at an age or a target are left out."""
    every = rows_from_bars(bars)
    rows = every.chosen(every.has_quotes)
    at = np.searchsorted(bars["end_us"], rows.end_us)
    mid, spread_bp = mids(bars), spreads_bp(bars)
    last = np.where(bars["last_trade_price"] > 0, bars["last_trade_price"], mid)
    read_at = at[:, None] + np.array(AGES_MS) * 1000 // BAR_US  # (N, A)
    target_at = read_at[..., None] + _HORIZON_BARS  # (N, A, H)
    found = Holdout(
        rows,
        last_trade_bp=(last[at] / mid[at] - 1) * 1e4,
        spread_bp=spread_bp[at],
        moved_bp=(mid[read_at] / mid[at, None] - 1) * 1e4,
        remaining_bp=(mid[target_at] / mid[read_at][..., None] - 1) * 1e4,
        spread_paid_bp=(spread_bp[read_at][..., None] + spread_bp[target_at]) / 2,
        unquoted=len(every.end_us) - len(rows.end_us),
        masked=rows_without_quotes(bars),
        symbol=symbol,
    )
    is_known = np.isfinite(found.moved_bp).all(axis=1) & np.isfinite(found.remaining_bp).all(axis=(1, 2))
    return found.chosen(np.asarray(is_known))


class Trained(NamedTuple):
    """A training, and by age of `AGES_MS` the line through book imbalance fitted on the same rows."""

    training: Training
    lines: Mapping[int, ScaledLine]


def train_and_fit_line(markets: Markets, settings: TrainingSettings) -> Trained:
    """Raises `TrainingError`."""
    training = train(markets, settings)
    fitted = [fitted_with_quotes(rows, training.learned_to_us) for rows in markets.values()]
    return Trained(training, {age_ms: fit_scaled_line(fitted, age_ms / 1000) for age_ms in AGES_MS})


def block_scores(training: Training) -> dict[int, HorizonScore]:
    """The scores of a model on its test block."""
    found = [
        (paths_bp(training.network, symbol, rows, training.references.weights), rows.moves_bp)
        for symbol, rows in training.test.items()
    ]
    return point_scores(*(np.concatenate(paths) for paths in zip(*found, strict=True)))


def point_scores(expected_paths_bp: Floats, paths_bp: Floats) -> dict[int, HorizonScore]:
    """Of each horizon, of paths (N, J) that were expected and that came, at delivery: skill against no
    change, the share of moves whose direction was right, rows."""
    expected_bp, moves_bp = (remaining_moves(paths, DELIVERY_S) for paths in (expected_paths_bp, paths_bp))
    scores = {}
    for at, horizon_s in enumerate(HORIZONS_S):
        expected, outcome = expected_bp[:, at], moves_bp[:, at]
        moved = outcome != 0
        right = np.sign(expected[moved]) == np.sign(outcome[moved])
        scores[horizon_s] = HorizonScore(
            skill=point_skill(outcome, expected),
            direction=float(right.mean()) if moved.any() else 0.5,
            rows=float(len(outcome)),
        )
    return scores


class AtAge(NamedTuple):
    """Remaining moves, forecasts, baselines and the spread that acting on them costs of rows at an age, bp.
    Each (N, H)."""

    moves_bp: Floats  # the outcomes
    expected_bp: Floats
    baselines_bp: Mapping[str, Floats]
    spread_paid_bp: Floats

    def chosen(self, which: npt.NDArray[Any]) -> AtAge:
        baselines_bp = {name: expected_bp[which] for name, expected_bp in self.baselines_bp.items()}
        return AtAge(self.moves_bp[which], self.expected_bp[which], baselines_bp, self.spread_paid_bp[which])


class BacktestRows(NamedTuple):
    """Predictions of rows and their outcomes. `ages` are by age of `AGES_MS`; the served figures, (N, H), are
    at delivery; `segment`, `end_us`, `sigma_bp` and `spread_bp` are (N,)."""

    segment: npt.NDArray[np.int64]
    end_us: npt.NDArray[np.int64]
    sigma_bp: Floats
    spread_bp: Floats
    confidence: Floats
    half_width_bp: Floats  # of the 80 % interval
    p_flat: Floats
    ages: Mapping[int, AtAge]

    def chosen(self, which: npt.NDArray[Any]) -> BacktestRows:
        columns = self._asdict()
        ages = {age_ms: each.chosen(which) for age_ms, each in columns.pop("ages").items()}
        return BacktestRows(**{name: column[which] for name, column in columns.items()}, ages=ages)


def predict(trained: Trained, holdouts: Sequence[Holdout], latency_ms: int) -> BacktestRows:
    """The predictions of every row of `holdouts`, delivered at the age of `latency_ms`, as if the model had
    been active from their beginnings on."""
    network, calibrations = trained.training.network, trained.training.calibration
    references = trained.training.references.weights
    parts = []
    for number, each in enumerate(holdouts):
        rows = each.rows
        moves_bp, scales_bp, flats = network.forward(rows.features)  # (N, J) each
        symbols = [each.symbol] * len(rows.end_us)
        moves_bp = corrected(symbols, rows.features, moves_bp, scales_bp, references)
        ages = {
            age_ms: AtAge(
                each.remaining_bp[:, at],
                remaining_moves(moves_bp, age_ms / 1000),
                baselines(rows.features, each.last_trade_bp, trained.lines[age_ms], each.moved_bp[:, at]),
                each.spread_paid_bp[:, at],
            )
            for at, age_ms in enumerate(AGES_MS)
        }
        scale_bp = remaining_scales(scales_bp, latency_ms / 1000)
        confidence, half_width_bp = simulate_online_calibration(
            rows.end_us, ages[latency_ms], scale_bp, calibrations, latency_ms
        )
        parts.append(
            BacktestRows(
                np.full(len(rows.end_us), number),
                rows.end_us,
                rows.features[:, SIGMA],
                each.spread_bp,
                confidence,
                half_width_bp,
                remaining_flat(flats),
                ages,
            )
        )
    return _joined(parts)


def walk_forward(
    markets: Markets, holdouts: Sequence[Holdout], settings: TrainingSettings, latency_ms: int
) -> BacktestRows:
    """The second half of `holdouts` in blocks, each predicted by a model trained on everything before it.
    `markets` are the rows to train on, of the same segments. Raises `TrainingError`."""
    times_us = np.concatenate([each.rows.end_us for each in holdouts])
    cuts_us = [*np.quantile(times_us, np.linspace(_FIRST_SHARE, 1, _WALKS + 1)[:-1]).tolist(), np.inf]
    parts = []
    for start_us, end_us in zip(cuts_us, cuts_us[1:], strict=False):
        trained = train_and_fit_line(between(markets, -np.inf, start_us - GAP_US), settings)
        blocks = [
            each.chosen((each.rows.end_us >= start_us) & (each.rows.end_us < end_us)) for each in holdouts
        ]
        parts.append(predict(trained, blocks, latency_ms))
    return _joined(parts)


def simulate_online_calibration(
    end_us: npt.NDArray[np.int64],
    delivered: AtAge,
    scale_bp: Floats,
    calibrations: Mapping[int, Calibration],
    latency_ms: int,
) -> tuple[Floats, Floats]:
    """Confidence, and half the width of the interval in bp, of each row and horizon (N, H), as served by a
    system that scores one prediction a second; each of the ten grids of whole seconds separately."""
    confidence, half_width_bp = np.full(scale_bp.shape, 0.5), np.zeros(scale_bp.shape)
    for grid in second_grids(end_us):
        for at, horizon_s in enumerate(HORIZONS_S):
            known_after_us = latency_ms * 1000 + horizon_s * SECOND_US
            calibrator = Calibrator.of(calibrations[horizon_s])
            pending: deque[int] = deque()
            for row in grid:
                while pending and end_us[pending[0]] + known_after_us <= end_us[row]:
                    known = pending.popleft()
                    move_bp, outcome_bp = delivered.expected_bp[known, at], delivered.moves_bp[known, at]
                    right = bool(move_bp * outcome_bp > 0) if move_bp and outcome_bp else None
                    is_inside = abs(outcome_bp - move_bp) <= half_width_bp[known, at]
                    strength = float(abs(move_bp) / scale_bp[known, at])
                    calibrator.learn(horizon_s, bool(is_inside), right, strength)
                now = calibrator.calibration
                confidence[row, at] = now.confidence(delivered.expected_bp[row, at], scale_bp[row, at])
                half_width_bp[row, at] = now.interval_width * scale_bp[row, at]
                pending.append(row)
    return confidence, half_width_bp


def second_grids(end_us: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The rows at each of the ten offsets within the second, in their order."""
    offset = end_us // BAR_US % BARS_PER_S
    grids = [np.flatnonzero(offset == each) for each in range(BARS_PER_S)]
    return [grid for grid in grids if len(grid)]


def _joined(parts: Sequence[BacktestRows]) -> BacktestRows:
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in BacktestRows._fields
        if name != "ages"
    }
    return BacktestRows(
        **columns, ages={age_ms: _joined_ages([p.ages[age_ms] for p in parts]) for age_ms in AGES_MS}
    )


def _joined_ages(parts: Sequence[AtAge]) -> AtAge:
    return AtAge(
        np.concatenate([part.moves_bp for part in parts]),
        np.concatenate([part.expected_bp for part in parts]),
        {name: np.concatenate([part.baselines_bp[name] for part in parts]) for name in BASELINES},
        np.concatenate([part.spread_paid_bp for part in parts]),
    )

"""The backtest: what a model and the baselines predict of rows that the model was not trained on.

Only rows with quotes count, every 100 ms. Confidence and intervals are those that would have been served: for
each of the ten grids of whole seconds the calibration starts from training and learns from each outcome once
it is known (`tickcast.model.calibration`). The figures that follow are in `evaluation.backtest_figures`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.evaluation.baselines import BASELINES, baselines, fit_line
from tickcast.evaluation.skill import point_skill
from tickcast.features.bars import BAR_US, BARS_PER_S, Bars, mids
from tickcast.features.vector import Floats
from tickcast.model.calibration import Calibrator
from tickcast.model.card import HorizonScore
from tickcast.model.dataset import Rows, rows_from_bars, rows_without_quotes
from tickcast.model.fit import TrainingSettings
from tickcast.model.forecast import HORIZONS_S, Calibration
from tickcast.model.network import SIGMA, Network
from tickcast.model.training import GAP_US, Training, fitted_with_quotes, train

_FIRST_SHARE = 0.5  # of a session: what the first walk-forward block is trained on
_WALKS = 3

Bools = npt.NDArray[np.bool_]


class EvaluationError(ValueError):
    """Rows on which nothing can be evaluated; the message says what is missing."""


class Holdout(NamedTuple):
    """A segment of a market to evaluate on: its rows with quotes, and of the same (N,) instants, in bp from
    the mid, the last trade's price and the mid when the prediction is delivered."""

    rows: Rows
    last_trade_bp: Floats
    delivered_bp: Floats
    unquoted: int  # rows without quotes, left out
    masked: Rows  # the same segment with its quotes masked


def holdout(bars: Bars, latency_us: int) -> Holdout:
    """The holdout of a segment. A prediction is delivered `latency_us` after its bar's end, in whole bars."""
    every = rows_from_bars(bars)
    rows = every.chosen(every.has_quotes)
    at = np.searchsorted(bars["end_us"], rows.end_us)
    mid = mids(bars)
    last = np.where(bars["last_trade_price"] > 0, bars["last_trade_price"], mid)
    delivered = mid[at + round(latency_us / BAR_US)]
    delivered = np.where(np.isnan(delivered), mid[at], delivered)
    return Holdout(
        rows,
        last_trade_bp=(last[at] / mid[at] - 1) * 1e4,
        delivered_bp=(delivered / mid[at] - 1) * 1e4,
        unquoted=len(every.end_us) - len(rows.end_us),
        masked=rows_without_quotes(bars),
    )


class Trained(NamedTuple):
    """A training, and the line through book imbalance fitted on the same rows."""

    training: Training
    line: Floats  # (H,), bp


def train_and_fit_line(markets: list[Rows], settings: TrainingSettings) -> Trained:
    """Raises `TrainingError`."""
    training = train(markets, settings)
    return Trained(training, fit_line([fitted_with_quotes(rows, training.learned_to_us) for rows in markets]))


def block_scores(network: Network, rows: Rows) -> dict[int, HorizonScore]:
    """Of each horizon: skill against no change, the share of moves whose direction was right, rows."""
    expected_bp, _, _ = network.forward(rows.features)  # (N, H)
    scores = {}
    for at, horizon_s in enumerate(HORIZONS_S):
        expected, outcome = expected_bp[:, at], rows.moves_bp[:, at]
        moved = outcome != 0
        right = np.sign(expected[moved]) == np.sign(outcome[moved])
        scores[horizon_s] = HorizonScore(
            skill=point_skill(outcome, expected),
            direction=float(right.mean()) if moved.any() else 0.5,
            rows=float(len(outcome)),
        )
    return scores


class BacktestRows(NamedTuple):
    """Predictions of rows and their outcomes, in bp where nothing else is said; (N, H) but for `segment`,
    `end_us`, `sigma_bp` and `delivered_bp`, which are (N,)."""

    segment: npt.NDArray[np.int64]
    end_us: npt.NDArray[np.int64]
    sigma_bp: Floats
    moves_bp: Floats  # the outcomes
    expected_bp: Floats
    confidence: Floats
    inside: Bools  # the 80 % interval
    p_flat: Floats
    delivered_bp: Floats
    baselines_bp: Mapping[str, Floats]

    def chosen(self, which: npt.NDArray[Any]) -> BacktestRows:
        columns = self._asdict()
        baselines_bp = {name: expected_bp[which] for name, expected_bp in columns.pop("baselines_bp").items()}
        return BacktestRows(**{n: column[which] for n, column in columns.items()}, baselines_bp=baselines_bp)


def predict(trained: Trained, holdouts: Sequence[Holdout]) -> BacktestRows:
    """The predictions of every row of `holdouts`, as if the model had been active from their beginnings
    on."""
    network, calibrations = trained.training.network, trained.training.calibration
    parts = []
    for number, (rows, last_trade_bp, delivered_bp, *_) in enumerate(holdouts):
        expected_bp, scale_bp, p_flat = network.forward(rows.features)  # (N, H) each
        confidence, inside = simulate_online_calibration(rows, expected_bp, scale_bp, calibrations)
        parts.append(
            BacktestRows(
                np.full(len(rows.end_us), number),
                rows.end_us,
                rows.features[:, SIGMA],
                rows.moves_bp,
                expected_bp,
                confidence,
                inside,
                p_flat,
                delivered_bp,
                baselines(rows.features, last_trade_bp, trained.line),
            )
        )
    return _joined(parts)


def walk_forward(
    segments: Sequence[Rows], holdouts: Sequence[Holdout], settings: TrainingSettings
) -> BacktestRows:
    """The second half of `holdouts` in blocks, each predicted by a model trained on everything before it.
    `segments` are the rows to train on, of the same segments. Raises `TrainingError`."""
    times_us = np.concatenate([each.rows.end_us for each in holdouts])
    cuts_us = [*np.quantile(times_us, np.linspace(_FIRST_SHARE, 1, _WALKS + 1)[:-1]).tolist(), np.inf]
    parts = []
    for start_us, end_us in zip(cuts_us, cuts_us[1:], strict=False):
        past = [rows.chosen(rows.end_us < start_us - GAP_US) for rows in segments]
        trained = train_and_fit_line([rows for rows in past if len(rows.end_us)], settings)
        parts.append(predict(trained, [_between(each, start_us, end_us) for each in holdouts]))
    return _joined(parts)


def simulate_online_calibration(
    rows: Rows, expected_bp: Floats, scale_bp: Floats, calibrations: dict[int, Calibration]
) -> tuple[Floats, Bools]:
    """Confidence, and whether the outcome was inside the interval, of each row and horizon (N, H), as served
    by a system that predicts once a second; each of the ten grids of whole seconds separately."""
    confidence, inside = np.full(expected_bp.shape, 0.5), np.zeros(expected_bp.shape, bool)
    for grid in second_grids(rows.end_us):
        for at, horizon_s in enumerate(HORIZONS_S):
            calibrator = Calibrator.of(calibrations[horizon_s])
            pending: deque[int] = deque()
            for row in grid:
                while pending and rows.end_us[pending[0]] + horizon_s * 1_000_000 <= rows.end_us[row]:
                    known = pending.popleft()
                    move_bp, outcome_bp = expected_bp[known, at], rows.moves_bp[known, at]
                    right = bool(move_bp * outcome_bp > 0) if move_bp and outcome_bp else None
                    strength = float(abs(move_bp) / scale_bp[known, at])
                    calibrator.learn(horizon_s, bool(inside[known, at]), right, strength)
                now = calibrator.calibration
                confidence[row, at] = now.confidence(expected_bp[row, at], scale_bp[row, at])
                miss_bp = abs(rows.moves_bp[row, at] - expected_bp[row, at])
                inside[row, at] = miss_bp <= now.interval_width * scale_bp[row, at]
                pending.append(row)
    return confidence, inside


def second_grids(end_us: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The rows at each of the ten offsets within the second, in their order."""
    offset = end_us // BAR_US % BARS_PER_S
    grids = [np.flatnonzero(offset == each) for each in range(BARS_PER_S)]
    return [grid for grid in grids if len(grid)]


def _between(each: Holdout, start_us: float, end_us: float) -> Holdout:
    which = (each.rows.end_us >= start_us) & (each.rows.end_us < end_us)
    return each._replace(
        rows=each.rows.chosen(which),
        last_trade_bp=each.last_trade_bp[which],
        delivered_bp=each.delivered_bp[which],
    )


def _joined(parts: Sequence[BacktestRows]) -> BacktestRows:
    names = [name for name in BacktestRows._fields if name != "baselines_bp"]
    columns: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
    baselines_bp = {name: np.concatenate([p.baselines_bp[name] for p in parts]) for name in BASELINES}
    return BacktestRows(**columns, baselines_bp=baselines_bp)

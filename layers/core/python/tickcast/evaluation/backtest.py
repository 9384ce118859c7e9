"""What a model is worth: judged on rows it never saw, beside the obvious guesses, with its uncertainty.

Judged are rows with quotes, every 100 ms. Every figure has an interval (`skill`), from blocks of ten
seconds, or of twice the horizon where that is longer.

Confidence and intervals are those that would have been served: for each of the ten grids of whole seconds
the calibration starts from the model's card and learns from each outcome once it is known
(`tickcast.model.calibration`).

A calibration error is never zero on few rows. Its *floor* is what a perfectly calibrated model with the same
probabilities would have shown on as many rows, by simulation; where horizons overlap, its outcomes hang
together as overlapping moves do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.evaluation.skill import share, skill
from tickcast.features.bars import BAR_US, BARS_PER_S, Bars, mids
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.calibration import Calibrator
from tickcast.model.dataset import Rows, rows_from_bars, rows_without_quotes, training_rows
from tickcast.model.forecast import HORIZONS_S, Calibration
from tickcast.model.network import SIGMA, Network
from tickcast.model.training import GAP_US, TrainingSettings, train

BLOCK_S = 10
SIMULATIONS = 200
REGIMES = ("low", "middle", "high")  # terciles of volatility
SHIFT_ROWS = 60 * BARS_PER_S
_BINS = 10  # of equal counts, for the calibration error
_IMBALANCE = FEATURE_NAMES.index("imbalance")
_MICROPRICE = FEATURE_NAMES.index("microprice")
_FIRST_SHARE = 0.5  # of a session that walk-forward starts from
_WALKS = 3

Bools = npt.NDArray[np.bool_]


class EvaluationError(ValueError):
    """Rows that nothing can be judged on; the message says what is missing."""


class Holdout(NamedTuple):
    """One stretch of a market to be judged on: its rows with quotes, and of the same (N,) instants, relative
    to the mid in bp, the last trade's price and the mid when the prediction is delivered."""

    rows: Rows
    last_trade_bp: Floats
    delivered_bp: Floats
    unquoted: int  # rows without quotes, left out
    blind: Rows  # the same stretch as seen with its quotes taken away


def scene(bars: Bars, latency_us: int) -> Holdout:
    """`latency_us` after its bar's end a prediction is taken to be delivered; counted in whole bars."""
    every = rows_from_bars(bars)
    rows = every.chosen(every.has_quotes)
    at = np.searchsorted(bars["end_us"], rows.end_us)
    mid = mids(bars)
    last = np.where(bars["last_trade_price"] > 0, bars["last_trade_price"], mid)
    delivered = mid[at + round(latency_us / BAR_US)]
    delivered = np.where(np.isnan(delivered), mid[at], delivered)
    return Holdout(
        rows,
        (last[at] / mid[at] - 1) * 1e4,
        (delivered / mid[at] - 1) * 1e4,
        len(every.end_us) - len(rows.end_us),
        rows_without_quotes(bars),
    )


class Trained(NamedTuple):
    """A network with the figures of its card, and the line through book imbalance fitted on the same rows."""

    network: Network
    figures: dict[str, Any]
    line: Floats  # (H,), bp


def train_and_fit_line(markets: list[Rows], settings: TrainingSettings) -> Trained:
    """Raises `TrainingError`."""
    network, figures = train(markets, settings)
    return Trained(network, figures, fit_line([learned_with_quotes(rows, figures) for rows in markets]))


def learned_with_quotes(rows: Rows, figures: dict[str, Any]) -> Rows:
    """Those of `rows` with quotes that a network with such `figures` has learnt from."""
    return rows.chosen(rows.has_quotes & (rows.end_us <= figures["learned_to_us"] - GAP_US))


def fit_line(markets: Sequence[Rows]) -> Floats:
    """Least squares through the origin of the move in bp on book imbalance. Shape (H,)."""
    imbalance = np.concatenate([rows.features[:, _IMBALANCE] for rows in markets])
    moves_bp = np.concatenate([rows.moves_bp for rows in markets])
    return np.asarray(imbalance @ moves_bp / max(float(imbalance @ imbalance), 1e-12))


class BacktestRows(NamedTuple):
    """What was foretold of rows and what came, in bp where nothing else is said; (N, H) but for `stretch`,
    `end_us`, `sigma_bp` and `delivered_bp`, which are (N,)."""

    stretch: npt.NDArray[np.int64]
    end_us: npt.NDArray[np.int64]
    sigma_bp: Floats
    moves_bp: Floats  # what came
    expected_bp: Floats
    confidence: Floats
    inside: Bools  # the 80 % interval
    p_flat: Floats
    delivered_bp: Floats
    last_trade: Floats
    microprice: Floats
    linear_imbalance: Floats

    @property
    def no_change(self) -> Floats:
        return np.zeros_like(self.moves_bp)

    def chosen(self, which: npt.NDArray[Any]) -> BacktestRows:
        return BacktestRows(*(values[which] for values in self))


BASELINES = ("no_change", "last_trade", "microprice", "linear_imbalance")


def predict(trained: Trained, scenes: Sequence[Holdout]) -> BacktestRows:
    """What `trained` says of every row of `scenes`, as if it had been in force from their beginnings on."""
    calibrations = _calibrations(trained.figures["calibration"])
    parts = []
    for stretch, (rows, last_trade_bp, delivered_bp, *_) in enumerate(scenes):
        expected_bp, scale_bp, p_flat = trained.network.forward(rows.features)
        confidence, inside = simulate_online_calibration(rows, expected_bp, scale_bp, calibrations)
        sigma_bp, level = rows.features[:, SIGMA], np.ones(len(HORIZONS_S))
        parts.append(
            BacktestRows(
                np.full(len(rows.end_us), stretch),
                rows.end_us,
                sigma_bp,
                rows.moves_bp,
                expected_bp,
                confidence,
                inside,
                p_flat,
                delivered_bp,
                last_trade_bp[:, None] * level,
                (rows.features[:, _MICROPRICE] * sigma_bp)[:, None] * level,
                rows.features[:, _IMBALANCE, None] * trained.line,
            )
        )
    return _joined(parts)


def walk_forward(
    stretches: Sequence[Rows], scenes: Sequence[Holdout], settings: TrainingSettings
) -> BacktestRows:
    """The second half of `scenes` in blocks, each foretold by a model trained on all before it. `stretches`
    are the rows to learn from, of the same stretches. Raises `TrainingError`."""
    times_us = np.concatenate([each.rows.end_us for each in scenes])
    cuts_us = [*np.quantile(times_us, np.linspace(_FIRST_SHARE, 1, _WALKS + 1)[:-1]).tolist(), np.inf]
    told = []
    for start_us, end_us in zip(cuts_us, cuts_us[1:], strict=False):
        past = [rows.chosen(rows.end_us < start_us - GAP_US) for rows in stretches]
        trained = train_and_fit_line([rows for rows in past if len(rows.end_us)], settings)
        told.append(predict(trained, [_between(each, start_us, end_us) for each in scenes]))
    return _joined(told)


def simulate_online_calibration(
    rows: Rows, expected_bp: Floats, scale_bp: Floats, calibrations: dict[int, Calibration]
) -> tuple[Floats, Bools]:
    """Confidence, and whether the outcome was inside the interval, of each row and horizon (N, H), as said by
    a system that predicts once a second; each of the ten grids of whole seconds for itself."""
    confidence, inside = np.full(expected_bp.shape, 0.5), np.zeros(expected_bp.shape, bool)
    for grid in _grids(rows.end_us):
        for at, horizon_s in enumerate(HORIZONS_S):
            calibrator = Calibrator.of(calibrations[horizon_s])
            waiting: deque[int] = deque()
            for row in grid:
                while waiting and rows.end_us[waiting[0]] + horizon_s * 1_000_000 <= rows.end_us[row]:
                    known = waiting.popleft()
                    move_bp, came_bp = expected_bp[known, at], rows.moves_bp[known, at]
                    right = bool(move_bp * came_bp > 0) if move_bp and came_bp else None
                    strength = float(abs(move_bp) / scale_bp[known, at])
                    calibrator.learn(horizon_s, bool(inside[known, at]), right, strength)
                now = calibrator.calibration
                confidence[row, at] = now.confidence(expected_bp[row, at], scale_bp[row, at])
                miss_bp = abs(rows.moves_bp[row, at] - expected_bp[row, at])
                inside[row, at] = miss_bp <= now.interval_width * scale_bp[row, at]
                waiting.append(row)
    return confidence, inside


def judge(told: BacktestRows) -> dict[str, dict[str, Any]]:
    """The figures of each horizon, "1" to "10" (docs/model.md). Raises `EvaluationError` without rows."""
    if not len(told.end_us):
        raise EvaluationError("no rows with quotes: nothing is judged on a price that is itself a guess")
    return {str(horizon_s): _judge_horizon(told, at, horizon_s) for at, horizon_s in enumerate(HORIZONS_S)}


def calibration_error(confidence: Floats, right: Floats) -> float:
    """The expected calibration error of probabilities (N,) against 0 or 1 (N,): over ten bins of equal
    counts, the mean distance of what was said from what came (Naeini, Cooper, Hauskrecht 2015)."""
    if not len(confidence):
        return 0.0
    order = np.argsort(confidence, kind="stable")
    surplus = (confidence - right)[order]
    bins = np.array_split(surplus, min(_BINS, len(surplus)))
    return float(sum(abs(each.sum()) for each in bins) / len(surplus))


def masked_figures(trained: Trained, scenes: Sequence[Holdout]) -> dict[str, dict[str, float]]:
    """What the model's masked part makes of `scenes` with their quotes taken away: skill, direction,
    coverage. The move is that from the proxy to the true mid. Empty where no proxy was ever known."""
    calibrations = _calibrations(trained.figures["masked_calibration"])
    figures = {}
    features, moves_bp = (np.concatenate(c) for c in zip(*(each.blind[1:] for each in scenes), strict=True))
    if not len(features):
        return {}
    expected_bp, scale_bp, _ = trained.network.forward(features)
    for at, horizon_s in enumerate(HORIZONS_S):
        came, expected = moves_bp[:, at], expected_bp[:, at]
        width_bp = calibrations[horizon_s].interval_width * scale_bp[:, at]
        value, interval = skill(came, expected, np.zeros_like(came), _block_rows(horizon_s))
        figures[str(horizon_s)] = {
            "rows": len(came),
            "skill": _rounded(value),
            "skill_ci": _rounded(interval),
            "direction": _rounded(np.mean(np.sign(expected) == np.sign(came), where=came != 0)),
            "coverage80": _rounded(np.mean(np.abs(came - expected) <= width_bp)),
        }
    return figures


def shuffled(rows: Rows) -> Rows:
    """`rows` with the moves of other rows of the same stretch: there is nothing to learn."""
    return _relabelled(rows, np.random.default_rng(0).permutation)


def shifted(rows: Rows) -> Rows:
    """`rows` with the moves of a minute later, and at its end those of the beginning: again nothing, but what
    hangs together in time still does."""
    return _relabelled(rows, lambda at: np.roll(at, -min(SHIFT_ROWS, len(at) // 2)))


def detects_leakage(told: BacktestRows) -> bool:
    """Whether a skill above .02 shows at any horizon that chance does not explain. With labels that mean
    nothing it must not."""
    for at, horizon_s in enumerate(HORIZONS_S):
        came = told.moves_bp[:, at]
        value, (low, _) = skill(came, told.expected_bp[:, at], np.zeros_like(came), _block_rows(horizon_s))
        if value > 0.02 and low > 0:
            return True
    return False


def of_segments(stretches: Sequence[Bars], latency_us: int) -> tuple[list[Rows], list[Holdout]]:
    """What can be learned from each stretch of bars, and the scene to judge on."""
    return [training_rows(bars) for bars in stretches], [scene(bars, latency_us) for bars in stretches]


def relabelled(each: Holdout, relabel: Callable[[Rows], Rows]) -> Holdout:
    return each._replace(rows=relabel(each.rows))


def _judge_horizon(told: BacktestRows, at: int, horizon_s: int) -> dict[str, Any]:
    came, expected, line = told.moves_bp[:, at], told.expected_bp[:, at], told.linear_imbalance[:, at]
    nothing, blocks = np.zeros_like(came), _block_rows(horizon_s)
    moved = came != 0
    right = moved & (np.sign(expected) == np.sign(came))
    value, interval = skill(came, expected, nothing, blocks)
    against_line, line_interval = skill(came, expected, line, blocks)
    direction, direction_interval = share(right.astype(float), moved.astype(float), blocks)
    coverage, coverage_interval = share(told.inside[:, at].astype(float), nothing + 1, blocks)
    at_delivery, delivery_interval = skill(came, expected, told.delivered_bp, blocks)
    flat_error = float(np.mean((told.p_flat[:, at] - ~moved) ** 2))
    return {
        "skill": _rounded(value),
        "skill_ci": _rounded(interval),
        "skill_vs_linear": _rounded(against_line),
        "skill_vs_linear_ci": _rounded(line_interval),
        "skill_at_delivery": _rounded(at_delivery),
        "skill_at_delivery_ci": _rounded(delivery_interval),
        "direction": _rounded(direction),
        "direction_ci": _rounded(direction_interval),
        "moved": _rounded(moved.mean()),
        "coverage80": _rounded(coverage),
        "coverage80_ci": _rounded(coverage_interval),
        **_calibration_figures(told, at, horizon_s),
        "p_flat_skill": _rounded(1 - flat_error / max(float(np.var(~moved)), 1e-12)),
        "baselines": {
            name: _rounded(skill(came, getattr(told, name)[:, at], nothing, blocks)[0]) for name in BASELINES
        },
        "grid_1s": _on_grids(told, at),
        "regimes": _by_regime(told, at, horizon_s),
    }


def _by_regime(told: BacktestRows, at: int, horizon_s: int) -> dict[str, Any]:
    """Skill by terciles of volatility."""
    edges = np.quantile(told.sigma_bp, (1 / 3, 2 / 3))
    tercile = np.searchsorted(edges, told.sigma_bp, side="right")
    figures = {}
    for number, name in enumerate(REGIMES):
        which = told.chosen(tercile == number)
        if not len(which.end_us):
            continue
        came, expected, blocks = which.moves_bp[:, at], which.expected_bp[:, at], _block_rows(horizon_s)
        value, interval = skill(came, expected, np.zeros_like(came), blocks)
        against_line, line_interval = skill(came, expected, which.linear_imbalance[:, at], blocks)
        figures[name] = {
            "rows": len(came),
            "sigma_bp": _rounded(np.median(which.sigma_bp)),
            "skill": _rounded(value),
            "skill_ci": _rounded(interval),
            "skill_vs_linear": _rounded(against_line),
            "skill_vs_linear_ci": _rounded(line_interval),
        }
    return figures


def _on_grids(told: BacktestRows, at: int) -> dict[str, float]:
    """Skill of one prediction a second: the mean over the ten grids, the worst and the best of them."""
    skills = []
    for grid in _grids(told.end_us):
        came, expected = told.moves_bp[grid, at], told.expected_bp[grid, at]
        if came.any():
            skills.append(1 - float(np.sum((came - expected) ** 2) / np.sum(came**2)))
    skills = skills or [0.0]
    found = {"skill": np.mean(skills), "worst": min(skills), "best": max(skills)}
    return {name: _rounded(value) for name, value in found.items()}


def _calibration_figures(told: BacktestRows, at: int, horizon_s: int) -> dict[str, Any]:
    """The calibration error, its interval and its floor, each the mean over the ten grids."""
    errors, floors, independent, resampled = [], [], [], []
    rng = np.random.default_rng(0)
    for grid in _grids(told.end_us):
        of_grid = told.chosen(grid)
        came, expected = of_grid.moves_bp[:, at], of_grid.expected_bp[:, at]
        confidence, moved = of_grid.confidence[:, at], came != 0
        right = (np.sign(expected) == np.sign(came)).astype(float)
        errors.append(calibration_error(confidence[moved], right[moved]))
        floors.append(_floor(confidence, np.sign(expected), moved, horizon_s, rng))
        independent.append(_floor(confidence, np.sign(expected), moved, 1, rng))
        resampled.append(_resampled_errors(confidence, right, moved, max(BLOCK_S, 2 * horizon_s), rng))
    # Rows that are drawn twice look badly calibrated: how errors scatter counts, not how high they come.
    drawn = np.mean(resampled, axis=0)
    low, high = np.percentile(np.mean(errors) + drawn - drawn.mean(), (2.5, 97.5))
    return {
        "calibration_error": _rounded(np.mean(errors)),
        "calibration_error_ci": _rounded([low, high]),
        "calibration_floor": _rounded(np.mean(floors)),
        "calibration_floor_if_independent": _rounded(np.mean(independent)),
    }


def _floor(
    confidence: Floats, direction: Floats, moved: Bools, horizon_s: int, rng: np.random.Generator
) -> float:
    """The mean calibration error of a perfect model on one grid (N,), by simulation.

    Whether the price goes up is drawn by a normal variable, the sum of `horizon_s` steps of a second: so
    outcomes whose horizons overlap hang together, and each is right with the probability that was claimed.
    """
    normal = NormalDist()
    limit = np.array([normal.inv_cdf(min(max(c, 1e-6), 1 - 1e-6)) for c in confidence.tolist()])
    errors = []
    for _ in range(SIMULATIONS // 10):
        steps = np.cumsum(rng.normal(size=len(confidence) + horizon_s))
        ups = (steps[horizon_s:] - steps[:-horizon_s]) / np.sqrt(horizon_s)
        right = (np.where(direction < 0, -ups, ups) > -limit).astype(float)
        errors.append(calibration_error(confidence[moved], right[moved]))
    return float(np.mean(errors))


def _resampled_errors(
    confidence: Floats, right: Floats, moved: Bools, block_rows: int, rng: np.random.Generator
) -> list[float]:
    """Calibration errors of one grid (N,) with blocks of its rows drawn anew."""
    block_rows = max(1, min(block_rows, len(confidence) // 2))
    blocks = -(-len(confidence) // block_rows)
    errors = []
    for _ in range(SIMULATIONS):
        starts = rng.integers(len(confidence) - block_rows + 1, size=blocks)
        drawn = (starts[:, None] + np.arange(block_rows)).ravel()
        drawn = drawn[moved[drawn]]
        errors.append(calibration_error(confidence[drawn], right[drawn]))
    return errors


def _grids(end_us: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The rows at each of the ten offsets within the second, in their order."""
    offset = end_us // BAR_US % BARS_PER_S
    grids = [np.flatnonzero(offset == each) for each in range(BARS_PER_S)]
    return [grid for grid in grids if len(grid)]


def _block_rows(horizon_s: int) -> int:
    return BARS_PER_S * max(BLOCK_S, 2 * horizon_s)


def _relabelled(rows: Rows, reorder: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]) -> Rows:
    """`rows` with moves reordered among those with quotes, and among those without."""
    moves_bp = rows.moves_bp.copy()
    for which in (rows.has_quotes, ~rows.has_quotes):
        at = np.flatnonzero(which)
        moves_bp[at] = rows.moves_bp[reorder(at)]
    return rows._replace(moves_bp=moves_bp)


def _between(each: Holdout, start_us: float, end_us: float) -> Holdout:
    which = (each.rows.end_us >= start_us) & (each.rows.end_us < end_us)
    return each._replace(
        rows=each.rows.chosen(which),
        last_trade_bp=each.last_trade_bp[which],
        delivered_bp=each.delivered_bp[which],
    )


def _joined(parts: Sequence[BacktestRows]) -> BacktestRows:
    return BacktestRows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _calibrations(figures: dict[str, Any]) -> dict[int, Calibration]:
    return {horizon_s: Calibration(**figures[str(horizon_s)]) for horizon_s in HORIZONS_S}


def _rounded(value: Any) -> Any:
    return [round(float(each), 4) for each in value] if isinstance(value, list) else round(float(value), 4)

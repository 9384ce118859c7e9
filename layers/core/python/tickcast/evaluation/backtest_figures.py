"""The figures of a backtest, with their uncertainty: skill, direction, coverage, calibration (docs/model.md).

Figures named `_at_delivery`, coverage, calibration and the scores of the distribution are of the move that is
still to come when a prediction is delivered; skill, direction and baselines without that name are as of its
row, at the age 0.

Every figure has a 95 % interval (`evaluation.skill`), from blocks of ten seconds, or of twice the horizon
where that is longer. All markets' rows of an instant are drawn together: the same minutes of a second market
are no further evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.evaluation.backtest import (
    AtAge,
    BacktestRows,
    EvaluationError,
    Holdout,
    Trained,
    second_grids,
)
from tickcast.evaluation.baselines import BASELINES, LINE
from tickcast.evaluation.calibration_error import calibration_error, resampled_errors, simulated_floor
from tickcast.evaluation.distribution_scores import crps, interval_score
from tickcast.evaluation.earnings import Acted, Earnings, earned, earnings
from tickcast.evaluation.skill import PERCENT, block_s, by_instant, point_skill, share, skill_of_squares
from tickcast.features.bars import BARS_PER_S
from tickcast.features.vector import Floats
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, remaining_moves, remaining_scales

Times = npt.NDArray[np.int64]

REGIMES = ("low", "middle", "high")  # terciles of volatility


def figures_by_horizon(rows: BacktestRows, latency_ms: int) -> dict[str, dict[str, Any]]:
    """The figures of each horizon, "1" to "10". Raises `EvaluationError` without rows."""
    if not len(rows.end_us):
        raise EvaluationError("no rows with quotes: nothing is evaluated against a price that is an estimate")
    return {
        str(horizon_s): _figures(rows, at, horizon_s, latency_ms) for at, horizon_s in enumerate(HORIZONS_S)
    }


def figures_by_age(rows: BacktestRows) -> dict[str, dict[str, Any]]:
    """By age in ms, "0" to "1000", and horizon, "1" to "10": skill against no change and direction, of the
    move still to come."""
    return {
        str(age_ms): {
            str(horizon_s): _of_moves(rows.end_us, of_age, at, horizon_s)
            for at, horizon_s in enumerate(HORIZONS_S)
        }
        for age_ms, of_age in rows.ages.items()
    }


def earnings_at_delivery(
    rows: BacktestRows, latency_ms: int, fee_bp: float, min_confidence: float
) -> dict[str, list[Earnings]]:
    """By horizon, "1" to "10", what acting on each row at its delivery would have earned by the thresholds of
    `evaluation.earnings`, at a fee of `fee_bp` a side; rows of a confidence below `min_confidence`
    abstain."""
    delivered = rows.ages[latency_ms]
    found = {}
    for at, horizon_s in enumerate(HORIZONS_S):
        expected_bp = delivered.expected_bp[:, at]
        acted = Acted(
            expected_bp,
            delivered.moves_bp[:, at],
            abstains=rows.confidence[:, at] < min_confidence,
            worth_trading=np.abs(expected_bp) > rows.spread_bp + 2 * fee_bp,
            spread_paid_bp=delivered.spread_paid_bp[:, at],
        )
        by_row = earned(rows.end_us, horizon_s, acted, fee_bp)
        found[str(horizon_s)] = earnings(by_row, block_rows(horizon_s))
    return found


def masked_figures(trained: Trained, holdouts: Sequence[Holdout]) -> dict[str, dict[str, Any]]:
    """Of each horizon, skill, direction and coverage of the model's masked part on `holdouts` with their
    quotes masked, at `DELIVERY_S`. Empty where no proxy was ever known."""
    end_us, features, moves_bp = (
        np.concatenate(columns) for columns in zip(*(each.masked for each in holdouts), strict=True)
    )
    if not len(features):
        return {}
    paths_bp, scales_bp, _ = trained.training.network.forward(features)  # (N, J) each
    expected_bp, moves_bp = (remaining_moves(paths, DELIVERY_S) for paths in (paths_bp, moves_bp))  # (N, H)
    scale_bp = remaining_scales(scales_bp, DELIVERY_S)
    figures = {}
    for at, horizon_s in enumerate(HORIZONS_S):
        outcome, expected = moves_bp[:, at], expected_bp[:, at]
        width_bp = trained.training.masked_calibration[horizon_s].interval_width * scale_bp[:, at]
        figures[str(horizon_s)] = {
            "rows": len(outcome),
            **_named("skill", _skill(end_us, (outcome - expected) ** 2, outcome**2, block_rows(horizon_s))),
            "direction": _rounded(np.mean(np.sign(expected) == np.sign(outcome), where=outcome != 0)),
            "coverage80": _rounded(np.mean(np.abs(outcome - expected) <= width_bp)),
        }
    return figures


def block_rows(horizon_s: int) -> int:
    """The rows of a bootstrap's block: there are ten a second."""
    return BARS_PER_S * block_s(horizon_s)


def _figures(rows: BacktestRows, at: int, horizon_s: int, latency_ms: int) -> dict[str, Any]:
    fresh, delivered, size = rows.ages[0], rows.ages[latency_ms], block_rows(horizon_s)
    outcome = delivered.moves_bp[:, at]
    miss, half_width = outcome - delivered.expected_bp[:, at], rows.half_width_bp[:, at]
    is_flat = outcome == 0
    flat_error = float(np.mean((rows.p_flat[:, at] - is_flat) ** 2))  # Brier 1950
    is_inside = np.abs(miss) <= half_width
    return {
        **_compared(rows.end_us, fresh, at, horizon_s),
        **{
            _at_delivery(name): value
            for name, value in _compared(rows.end_us, delivered, at, horizon_s).items()
        },
        "moved": _rounded(1 - is_flat.mean()),
        **_named("coverage80", _share(rows.end_us, is_inside, np.ones_like(outcome), size)),
        **_calibration_figures(rows, delivered, at, horizon_s),
        "p_flat_skill": _rounded(1 - flat_error / max(float(np.var(is_flat)), 1e-12)),
        **_distribution_figures(rows, delivered, at, size),
        "baselines": {name: _rounded(_of_baseline(fresh, name, at)) for name in BASELINES},
        "baselines_at_delivery": {name: _rounded(_of_baseline(delivered, name, at)) for name in BASELINES},
        "grid_1s": _on_grids(rows, fresh, at),
        "regimes": _by_regime(rows, latency_ms, at, horizon_s),
    }


def _at_delivery(name: str) -> str:
    return f"{name.removesuffix('_ci')}_at_delivery{'_ci' if name.endswith('_ci') else ''}"


def _compared(end_us: Times, rows: AtAge, at: int, horizon_s: int) -> dict[str, Any]:
    """Skill against no change and against the line, and direction."""
    outcome, expected = rows.moves_bp[:, at], rows.expected_bp[:, at]
    of_line = (outcome - rows.baselines_bp[LINE][:, at]) ** 2
    against_line = _skill(end_us, (outcome - expected) ** 2, of_line, block_rows(horizon_s))
    return _of_moves(end_us, rows, at, horizon_s) | _named("skill_vs_linear", against_line)


def _of_moves(end_us: Times, rows: AtAge, at: int, horizon_s: int) -> dict[str, Any]:
    """Skill against no change, and direction."""
    outcome, expected, size = rows.moves_bp[:, at], rows.expected_bp[:, at], block_rows(horizon_s)
    moved = outcome != 0
    right = moved & (np.sign(expected) == np.sign(outcome))
    return {
        **_named("skill", _skill(end_us, (outcome - expected) ** 2, outcome**2, size)),
        **_named("direction", _share(end_us, right, moved, size)),
    }


def _skill(end_us: Times, ours: Floats, theirs: Floats, size: int) -> tuple[float, list[float]]:
    """1 - Σ ours / Σ theirs of rows (N,), with its interval by blocks of `size` instants."""
    return skill_of_squares(by_instant(end_us, ours), by_instant(end_us, theirs), size)


def _share(
    end_us: Times, part: npt.NDArray[Any], whole: npt.NDArray[Any], size: int
) -> tuple[float, list[float]]:
    """Σ part / Σ whole of rows (N,), likewise."""
    return share(by_instant(end_us, part.astype(float)), by_instant(end_us, whole.astype(float)), size)


def _of_baseline(rows: AtAge, baseline: str, at: int) -> float:
    return point_skill(rows.moves_bp[:, at], rows.baselines_bp[baseline][:, at])


def _distribution_figures(rows: BacktestRows, delivered: AtAge, at: int, size: int) -> dict[str, Any]:
    """CRPS and the interval score in bp, and their skill against an equally wide distribution around no
    change."""
    outcome, expected = delivered.moves_bp[:, at], delivered.expected_bp[:, at]
    half_width, p_flat = rows.half_width_bp[:, at], rows.p_flat[:, at]
    scores = {
        "crps": [crps(outcome, centre, half_width, p_flat) for centre in (expected, 0 * expected)],
        "interval_score": [
            interval_score(outcome - centre, half_width) for centre in (expected, 0 * expected)
        ],
    }
    figures: dict[str, Any] = {}
    for name, (ours, theirs) in scores.items():
        figures[f"{name}_bp"] = _rounded(ours.mean())
        figures |= _named(f"{name}_skill", _skill(rows.end_us, ours, theirs, size))
    return figures


def _by_regime(rows: BacktestRows, latency_ms: int, at: int, horizon_s: int) -> dict[str, Any]:
    """Skill and direction by terciles of volatility."""
    edges = np.quantile(rows.sigma_bp, (1 / 3, 2 / 3))
    tercile = np.searchsorted(edges, rows.sigma_bp, side="right")
    figures = {}
    for number, name in enumerate(REGIMES):
        regime = rows.chosen(tercile == number)
        if not len(regime.end_us):
            continue
        figures[name] = {
            "rows": len(regime.end_us),
            "sigma_bp": _rounded(np.median(regime.sigma_bp)),
            **_compared(regime.end_us, regime.ages[0], at, horizon_s),
            **{
                _at_delivery(name): value
                for name, value in _compared(regime.end_us, regime.ages[latency_ms], at, horizon_s).items()
            },
        }
    return figures


def _on_grids(rows: BacktestRows, fresh: AtAge, at: int) -> dict[str, float]:
    """Skill of one prediction a second: the mean over the ten grids, the worst and the best of them."""
    pairs = [(fresh.moves_bp[grid, at], fresh.expected_bp[grid, at]) for grid in second_grids(rows.end_us)]
    skills = [point_skill(*pair) for pair in pairs if pair[0].any()] or [0.0]
    return {
        "skill": _rounded(np.mean(skills)),
        "worst": _rounded(min(skills)),
        "best": _rounded(max(skills)),
    }


def _calibration_figures(rows: BacktestRows, delivered: AtAge, at: int, horizon_s: int) -> dict[str, Any]:
    """The calibration error, its interval and its floor, each the mean over the ten grids."""
    errors, floors, independent, resampled = [], [], [], []
    rng = np.random.default_rng(0)
    for grid in second_grids(rows.end_us):
        outcome, expected = delivered.moves_bp[grid, at], delivered.expected_bp[grid, at]
        confidence, moved = rows.confidence[grid, at], outcome != 0
        right = (np.sign(expected) == np.sign(outcome)).astype(float)
        errors.append(calibration_error(confidence[moved], right[moved]))
        floors.append(simulated_floor(confidence, np.sign(expected), moved, horizon_s, rng))
        independent.append(simulated_floor(confidence, np.sign(expected), moved, 1, rng))
        order = np.argsort(rows.end_us[grid], kind="stable")  # all markets' rows of an instant together
        markets = len(grid) / len(np.unique(rows.end_us[grid]))
        drawn_rows = round(block_s(horizon_s) * markets)
        of_sample = resampled_errors(confidence[order], right[order], moved[order], drawn_rows, rng)
        resampled.append(of_sample)
    # Rows that are drawn twice look badly calibrated: the scatter of these errors counts, not their level.
    drawn = np.mean(resampled, axis=0)
    low, high = np.percentile(np.mean(errors) + drawn - drawn.mean(), PERCENT)
    return {
        **_named("calibration_error", (float(np.mean(errors)), [low, high])),
        "calibration_floor": _rounded(np.mean(floors)),
        "calibration_floor_if_independent": _rounded(np.mean(independent)),
    }


def _named(name: str, found: tuple[float, list[float]]) -> dict[str, Any]:
    """A figure, and its interval as `<name>_ci`."""
    value, interval = found
    return {name: _rounded(value), f"{name}_ci": [_rounded(each) for each in interval]}


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)

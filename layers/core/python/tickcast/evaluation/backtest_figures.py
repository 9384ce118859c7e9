"""The figures of a backtest, with their uncertainty: skill, direction, coverage, calibration (docs/model.md).

Every figure has a 95 % interval (`evaluation.skill`), from blocks of ten seconds, or of twice the horizon
where that is longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tickcast.evaluation.backtest import BacktestRows, EvaluationError, Holdout, Trained, second_grids
from tickcast.evaluation.baselines import BASELINES, LINE
from tickcast.evaluation.calibration_error import calibration_error, resampled_errors, simulated_floor
from tickcast.evaluation.skill import PERCENT, block_s, point_skill, share, skill
from tickcast.features.bars import BARS_PER_S
from tickcast.model.forecast import HORIZONS_S

REGIMES = ("low", "middle", "high")  # terciles of volatility


def figures_by_horizon(rows: BacktestRows) -> dict[str, dict[str, Any]]:
    """The figures of each horizon, "1" to "10". Raises `EvaluationError` without rows."""
    if not len(rows.end_us):
        raise EvaluationError("no rows with quotes: nothing is evaluated against a price that is an estimate")
    return {str(horizon_s): _figures(rows, at, horizon_s) for at, horizon_s in enumerate(HORIZONS_S)}


def masked_figures(trained: Trained, holdouts: Sequence[Holdout]) -> dict[str, dict[str, Any]]:
    """Of each horizon, skill, direction and coverage of the model's masked part on `holdouts` with their
    quotes masked. The move is that from the proxy to the true mid. Empty where no proxy was ever known."""
    features, moves_bp = (
        np.concatenate(columns) for columns in zip(*(each.masked[1:] for each in holdouts), strict=True)
    )
    if not len(features):
        return {}
    expected_bp, scale_bp, _ = trained.training.network.forward(features)  # (N, H) each
    figures = {}
    for at, horizon_s in enumerate(HORIZONS_S):
        outcome, expected = moves_bp[:, at], expected_bp[:, at]
        width_bp = trained.training.masked_calibration[horizon_s].interval_width * scale_bp[:, at]
        figures[str(horizon_s)] = {
            "rows": len(outcome),
            **_named("skill", skill(outcome, expected, np.zeros_like(outcome), block_rows(horizon_s))),
            "direction": _rounded(np.mean(np.sign(expected) == np.sign(outcome), where=outcome != 0)),
            "coverage80": _rounded(np.mean(np.abs(outcome - expected) <= width_bp)),
        }
    return figures


def block_rows(horizon_s: int) -> int:
    """The rows of a bootstrap's block: there are ten a second."""
    return BARS_PER_S * block_s(horizon_s)


def _figures(rows: BacktestRows, at: int, horizon_s: int) -> dict[str, Any]:
    outcome, expected = rows.moves_bp[:, at], rows.expected_bp[:, at]
    baselines = {name: rows.baselines_bp[name][:, at] for name in BASELINES}
    zeros, size = np.zeros_like(outcome), block_rows(horizon_s)
    moved = outcome != 0
    right = moved & (np.sign(expected) == np.sign(outcome))
    flat_error = float(np.mean((rows.p_flat[:, at] - ~moved) ** 2))  # Brier 1950
    return {
        **_named("skill", skill(outcome, expected, zeros, size)),
        **_named("skill_vs_linear", skill(outcome, expected, baselines[LINE], size)),
        **_named("skill_at_delivery", skill(outcome, expected, rows.delivered_bp, size)),
        **_named("direction", share(right.astype(float), moved.astype(float), size)),
        "moved": _rounded(moved.mean()),
        **_named("coverage80", share(rows.inside[:, at].astype(float), zeros + 1, size)),
        **_calibration_figures(rows, at, horizon_s),
        "p_flat_skill": _rounded(1 - flat_error / max(float(np.var(~moved)), 1e-12)),
        "baselines": {
            name: _rounded(skill(outcome, baseline, zeros, size)[0]) for name, baseline in baselines.items()
        },
        "grid_1s": _on_grids(rows, at),
        "regimes": _by_regime(rows, at, horizon_s),
    }


def _by_regime(rows: BacktestRows, at: int, horizon_s: int) -> dict[str, Any]:
    """Skill by terciles of volatility."""
    edges = np.quantile(rows.sigma_bp, (1 / 3, 2 / 3))
    tercile = np.searchsorted(edges, rows.sigma_bp, side="right")
    figures = {}
    for number, name in enumerate(REGIMES):
        regime = rows.chosen(tercile == number)
        if not len(regime.end_us):
            continue
        outcome, expected, size = regime.moves_bp[:, at], regime.expected_bp[:, at], block_rows(horizon_s)
        figures[name] = {
            "rows": len(outcome),
            "sigma_bp": _rounded(np.median(regime.sigma_bp)),
            **_named("skill", skill(outcome, expected, np.zeros_like(outcome), size)),
            **_named("skill_vs_linear", skill(outcome, expected, regime.baselines_bp[LINE][:, at], size)),
        }
    return figures


def _on_grids(rows: BacktestRows, at: int) -> dict[str, float]:
    """Skill of one prediction a second: the mean over the ten grids, the worst and the best of them."""
    pairs = [(rows.moves_bp[grid, at], rows.expected_bp[grid, at]) for grid in second_grids(rows.end_us)]
    skills = [point_skill(*pair) for pair in pairs if pair[0].any()] or [0.0]
    return {
        "skill": _rounded(np.mean(skills)),
        "worst": _rounded(min(skills)),
        "best": _rounded(max(skills)),
    }


def _calibration_figures(rows: BacktestRows, at: int, horizon_s: int) -> dict[str, Any]:
    """The calibration error, its interval and its floor, each the mean over the ten grids."""
    errors, floors, independent, resampled = [], [], [], []
    rng = np.random.default_rng(0)
    for grid in second_grids(rows.end_us):
        outcome, expected = rows.moves_bp[grid, at], rows.expected_bp[grid, at]
        confidence, moved = rows.confidence[grid, at], outcome != 0
        right = (np.sign(expected) == np.sign(outcome)).astype(float)
        errors.append(calibration_error(confidence[moved], right[moved]))
        floors.append(simulated_floor(confidence, np.sign(expected), moved, horizon_s, rng))
        independent.append(simulated_floor(confidence, np.sign(expected), moved, 1, rng))
        resampled.append(resampled_errors(confidence, right, moved, block_s(horizon_s), rng))
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

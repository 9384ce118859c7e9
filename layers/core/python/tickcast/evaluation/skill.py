"""Skill with its uncertainty: one definition for training, the gate, backtests and live scores.

Skill is 1 - Σ (outcome - forecast)² / Σ (outcome - baseline)²: the share of the baseline's squared error that
the forecast removes. 0 is no better, 1 is perfect. Errors of neighbouring rows are correlated, so every
interval comes from a bootstrap of moving blocks of time (Künsch 1989): whole blocks are drawn, not single
rows. Comparisons are paired: both errors are of the same rows in the same blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tickcast.features.vector import Floats

BLOCK_S = 10
RESAMPLES = 500
PERCENT = (2.5, 97.5)


def block_s(horizon_s: int) -> int:
    """The length of the blocks for forecasts over `horizon_s`: errors within two horizons are correlated."""
    return max(BLOCK_S, 2 * horizon_s)


def point_skill(outcomes: Floats, expected: Floats) -> float:
    """Skill of (N,) against no change, without an interval; 0 where nothing moved."""
    if not outcomes.any():
        return 0.0
    return float(1 - np.mean((outcomes - expected) ** 2) / np.mean(outcomes**2))


def skill(outcomes: Floats, expected: Floats, baseline: Floats, block_rows: int) -> tuple[float, list[float]]:
    """Skill of `expected` against `baseline` with its 95 % interval; all (N,) in the order of time."""
    return skill_of_squares((outcomes - expected) ** 2, (outcomes - baseline) ** 2, block_rows)


def skill_of_squares(ours: Floats, theirs: Floats, block_rows: int) -> tuple[float, list[float]]:
    """1 - Σ ours / Σ theirs of squared errors (N,) in the order of time, with its 95 % interval."""
    value, interval = share(ours, theirs, block_rows)
    return 1 - value, [1 - interval[1], 1 - interval[0]]


def share(part: Floats, whole: Floats, block_rows: int) -> tuple[float, list[float]]:
    """Σ part / Σ whole of rows (N,) with its 95 % interval; 1 where the whole is 0."""
    rows = len(part)
    block_rows = max(1, min(block_rows, rows // 2))
    sums = np.zeros((2, rows + 1))
    np.cumsum([part, whole], axis=1, out=sums[:, 1:])
    if not sums[1, -1] > 0:
        return 1.0, [1.0, 1.0]
    of_block: npt.NDArray[np.float64] = sums[:, block_rows:] - sums[:, :-block_rows]  # of all blocks
    rng = np.random.default_rng(0)
    starts = rng.integers(of_block.shape[1], size=(RESAMPLES, -(-rows // block_rows)))
    drawn = of_block[:, starts].sum(axis=2)
    drawn = drawn[:, drawn[1] > 0]
    low, high = np.percentile(drawn[0] / drawn[1], PERCENT)
    return float(sums[0, -1] / sums[1, -1]), [float(low), float(high)]

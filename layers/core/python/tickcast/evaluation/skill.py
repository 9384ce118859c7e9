"""Skill, and how sure it is: one way to say it for training, the gate, recordings and what was served.

Skill is 1 - Σ ours² / Σ theirs²: what part of the other's squared error is taken away. 0 is no better, 1 is
perfect. Errors of neighbours hang together, so every interval comes from a bootstrap of moving blocks of time
(Künsch 1989): whole stretches are drawn, not single rows. Comparisons are paired: both err on the same rows
of the same blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tickcast.features.vector import Floats

RESAMPLES = 500
PERCENT = (2.5, 97.5)


def skill(came: Floats, expected: Floats, guess: Floats, block_rows: int) -> tuple[float, list[float]]:
    """1 - Σ(came - expected)² / Σ(came - guess)² with its 95 % interval; all (N,) in the order of time."""
    return skill_of_squares((came - expected) ** 2, (came - guess) ** 2, block_rows)


def skill_of_squares(ours: Floats, theirs: Floats, block_rows: int) -> tuple[float, list[float]]:
    """1 - Σ ours / Σ theirs of squared errors (N,) in the order of time, with its 95 % interval."""
    value, interval = share(ours, theirs, block_rows)
    return 1 - value, [1 - interval[1], 1 - interval[0]]


def share(part: Floats, whole: Floats, block_rows: int) -> tuple[float, list[float]]:
    """Σ part / Σ whole of rows (N,) with its 95 % interval; 1 where the whole is nothing."""
    rows = len(part)
    block_rows = max(1, min(block_rows, rows // 2))
    sums = np.zeros((2, rows + 1))
    np.cumsum([part, whole], axis=1, out=sums[:, 1:])
    if not sums[1, -1] > 0:
        return 1.0, [1.0, 1.0]
    of_block: npt.NDArray[np.float64] = sums[:, block_rows:] - sums[:, :-block_rows]  # every block there is
    rng = np.random.default_rng(0)
    starts = rng.integers(of_block.shape[1], size=(RESAMPLES, -(-rows // block_rows)))
    drawn = of_block[:, starts].sum(axis=2)
    drawn = drawn[:, drawn[1] > 0]
    low, high = np.percentile(drawn[0] / drawn[1], PERCENT)
    return float(sums[0, -1] / sums[1, -1]), [float(low), float(high)]

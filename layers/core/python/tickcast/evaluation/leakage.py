"""The leakage check: the same evaluation on meaningless labels. Skill on these is a leak."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tickcast.evaluation.backtest import BacktestRows
from tickcast.evaluation.backtest_figures import block_rows
from tickcast.evaluation.skill import by_instant, skill_of_squares
from tickcast.features.bars import BARS_PER_S
from tickcast.model.dataset import Rows
from tickcast.model.forecast import HORIZONS_S

SHIFT_ROWS = 60 * BARS_PER_S
_LEAST_SKILL = 0.02

Relabel = Callable[[Rows], Rows]


def shuffled(rows: Rows) -> Rows:
    """`rows` with the moves of other rows of the same segment: there is nothing to learn."""
    return _relabelled(rows, np.random.default_rng(0).permutation)


def shifted(rows: Rows) -> Rows:
    """`rows` with the moves of a minute later, and at the end those of the beginning: there is nothing to
    learn either, but the correlation in time stays."""
    return _relabelled(rows, lambda at: np.roll(at, -min(SHIFT_ROWS, len(at) // 2)))


def detects_leakage(rows: BacktestRows) -> bool:
    """Whether there is a skill above .02 at any horizon, at the age 0, that chance does not explain."""
    for at, horizon_s in enumerate(HORIZONS_S):
        outcome, expected = rows.ages[0].moves_bp[:, at], rows.ages[0].expected_bp[:, at]
        ours, theirs = (by_instant(rows.end_us, each) for each in ((outcome - expected) ** 2, outcome**2))
        value, (low, _) = skill_of_squares(ours, theirs, block_rows(horizon_s))
        if value > _LEAST_SKILL and low > 0:
            return True
    return False


def _relabelled(rows: Rows, reorder: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]) -> Rows:
    """`rows` with moves reordered among those with quotes, and among those without."""
    moves_bp = rows.moves_bp.copy()
    for which in (rows.has_quotes, ~rows.has_quotes):
        at = np.flatnonzero(which)
        moves_bp[at] = rows.moves_bp[reorder(at)]
    return rows._replace(moves_bp=moves_bp)

"""Skill with its uncertainty: one definition for training, the gate, backtests and live scores.

Skill is 1 - Σ (outcome - forecast)² / Σ (outcome - baseline)²: the share of the baseline's squared error that
the forecast removes. 0 is no better, 1 is perfect. Comparisons are paired: both errors are of the same rows.
Errors of neighbouring rows are correlated, so intervals are by blocks of time, never by single rows. There
are two kinds:

- **Of these minutes** (`share`): a bootstrap of moving blocks of seconds (Künsch 1989). It says how well the
  rows at hand determine the figure, for backtests and live scores. Other hours may differ by more.
- **Of the market** (`skill_of_blocks`), for decisions: volatility clusters for minutes, and an input may work
  for an hour and not in the next. So the time is cut into few long blocks; the figure's variance is that of
  leaving out each block in turn (the jackknife by clusters; MacKinnon, Nielsen and Webb 2023), and the
  quantiles are those of Student's t with one degree of freedom less than there are blocks, which stays valid
  with few blocks of unequal variance (Ibragimov and Müller 2010). Drawing few blocks at random instead would
  make the interval too narrow.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from tickcast.features.vector import Floats

BLOCK_S = 10
RESAMPLES = 500
PERCENT = (2.5, 97.5)
UNKNOWN = (-1000.0, 1.0)  # an interval that nothing is known by: no skill is above 1
LEVEL = 0.05  # of a comparison: its interval is of 95 %
MIN_BLOCKS = 10  # of a bootstrap: with fewer its interval would be too narrow
LEAST_BLOCKS, MOST_BLOCKS = 4, 10
LONG_BLOCK_S = (
    900  # less only where four blocks do not fit; ten blocks are of an hour or more from ten hours on
)

Interval = Annotated[
    list[float], Meta(min_length=2, max_length=2, description="95 % by moving-block bootstrap")
]


def block_s(horizon_s: int) -> int:
    """The length of the blocks for forecasts over `horizon_s`: errors within two horizons are correlated."""
    return max(BLOCK_S, 2 * horizon_s)


def point_skill(outcomes: Floats, expected: Floats) -> float:
    """Skill of (N,) against no change, without an interval; 0 where nothing moved."""
    if not outcomes.any():
        return 0.0
    return float(1 - np.mean((outcomes - expected) ** 2) / np.mean(outcomes**2))


class Comparison(NamedTuple):
    """A skill with its 95 % interval. `p` is the probability of one at least as far from 0, on either side,
    if it were 0."""

    skill: float
    low: float
    high: float
    p: float


def block_count(seconds: float) -> int:
    """Into how many blocks `seconds` of rows are cut."""
    return min(max(int(seconds // LONG_BLOCK_S), LEAST_BLOCKS), MOST_BLOCKS)


def skill_of_blocks(ours: Floats, theirs: Floats) -> Comparison:
    """1 - Σ ours / Σ theirs of sums of squares by block (K,). With fewer than two blocks that hold anything
    the interval is `UNKNOWN`."""
    held = theirs > 0
    ours, theirs = ours[held], theirs[held]
    blocks = len(theirs)
    if not blocks:
        return Comparison(0.0, *UNKNOWN, 1.0)
    value = float(1 - ours.sum() / theirs.sum())
    if blocks < 2:
        return Comparison(value, *UNKNOWN, 1.0)
    without = 1 - (ours.sum() - ours) / (theirs.sum() - theirs)  # (K,): each block left out
    error = math.sqrt((blocks - 1) / blocks * float(((without - without.mean()) ** 2).sum()))
    width = t_quantile(LEVEL, blocks - 1) * error
    t = value / error if error > 0 else math.copysign(math.inf, value) if value else 0.0
    return Comparison(value, value - width, value + width, t_tails(t, blocks - 1))


def t_tails(t: float, freedom: int) -> float:
    """The probability that Student's t with `freedom` (whole) degrees is at least as far from 0 as `t`, by
    its finite sum (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = freedom % 2
    term = cosine if is_odd else 1.0
    total = 0.0
    for n in range(1 if is_odd else 0, freedom - 1, 2):
        total += term
        term *= (n + 1) / (n + 2) * cosine**2
    inside = 2 / math.pi * (angle + sine * total) if is_odd else sine * total
    return min(max(1 - inside, 0.0), 1.0)


@cache
def t_quantile(tails: float, freedom: int) -> float:
    """The t of which `t_tails` is `tails` (above 0, below 1)."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if t_tails(middle, freedom) > tails else (low, middle)
    return low


def by_instant(end_us: npt.NDArray[np.int64], values: Floats) -> Floats:
    """The sums of `values` (N,) of rows of several markets over the rows of each instant, in the order of
    time: what a bootstrap is to draw, for markets move together. Shape (instants,)."""
    instants, place = np.unique(end_us, return_inverse=True)
    return np.bincount(place, values, len(instants)).astype(float)


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

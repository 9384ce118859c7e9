"""Proper scores of a forecast distribution: CRPS and the interval score, in the unit of the outcome.

The distribution that is served is that of the remaining move: with the probability `p_flat` there is none,
else the move is around the expected one, with an 80 % interval that reaches `half_width` to both sides. In
between, and in the tails, a Laplace distribution of that interval is assumed: moves over seconds have heavier
tails than a normal one. The interval that is served is of all outcomes, those without a move included, and so
is somewhat narrow for the others; widened to fit exactly it does not score better, and there is no such width
where `p_flat` is above 0.8.

Both scores are errors: 0 is perfect. They are compared with a reference of the same width and `p_flat` around
no change, so that a skill is due to where the distribution lies.
"""

from __future__ import annotations

import math

import numpy as np

from tickcast.features.vector import Floats
from tickcast.model.calibration import COVERAGE

# Of a Laplace distribution exp(-w / b) lies further than w from the centre.
SCALE_OF_HALF_WIDTH = -1 / math.log(1 - COVERAGE)
# A miss counts 2 / (1 - coverage) times (Gneiting and Raftery 2007).
MISS_WEIGHT = 2 / (1 - COVERAGE)


def crps(outcome: Floats, expected: Floats, half_width: Floats, p_flat: Floats) -> Floats:
    """The continuous ranked probability score of mixtures: 0 with the probability `p_flat`, else Laplace
    distributions around `expected` with 80 % intervals of `half_width`. Shape (N,).

    It is E|X - outcome| - ½ E|X - X'| of independent X and X' (Gneiting and Raftery 2007), where two of one
    Laplace distribution are 1.5 scales apart on average.
    """
    scale, p_move = half_width * SCALE_OF_HALF_WIDTH, 1 - p_flat
    to_outcome, to_flat = (_mean_distance(np.abs(at - expected), scale) for at in (outcome, 0.0))
    to_each_other = 2 * p_flat * p_move * to_flat + p_move**2 * 1.5 * scale
    return np.asarray(p_flat * np.abs(outcome) + p_move * to_outcome - 0.5 * to_each_other)


def _mean_distance(size: Floats, scale: Floats) -> Floats:
    """The mean distance of a Laplace distribution to a point that is `size` from its centre."""
    return np.asarray(size + scale * np.exp(-size / scale))


def interval_score(miss: Floats, half_width: Floats) -> Floats:
    """The interval score (Winkler 1972) of 80 % intervals, of the same shapes: their width, and for an
    outcome outside the distance to them, weighted by `MISS_WEIGHT`."""
    return np.asarray(2 * half_width + MISS_WEIGHT * np.maximum(np.abs(miss) - half_width, 0.0))

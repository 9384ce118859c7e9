"""Proper scores of a forecast distribution: CRPS and the interval score, in the unit of the outcome.

The distribution that is served is that of the remaining move: its centre is the expected move, and its 80 %
interval reaches `half_width` to both sides. In between, and in the tails, a Laplace distribution of that
interval is assumed: moves over seconds have heavier tails than a normal one.

Both scores are errors: 0 is perfect. They are compared with a reference of the same width around no change,
so that a skill is due to where the distribution lies.
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


def crps(miss: Floats, half_width: Floats) -> Floats:
    """The continuous ranked probability score of Laplace distributions with 80 % intervals of `half_width`,
    whose centres are `miss` from the outcome: the closed form of Jordan, Krüger and Lerch 2019. Shape
    (N,)."""
    size, scale = np.abs(miss), half_width * SCALE_OF_HALF_WIDTH
    return np.asarray(size + scale * np.exp(-size / scale) - 0.75 * scale)


def interval_score(miss: Floats, half_width: Floats) -> Floats:
    """The interval score (Winkler 1972) of 80 % intervals, of the same shapes: their width, and for an
    outcome outside the distance to them, weighted by `MISS_WEIGHT`."""
    return np.asarray(2 * half_width + MISS_WEIGHT * np.maximum(np.abs(miss) - half_width, 0.0))

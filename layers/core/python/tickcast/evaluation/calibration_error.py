"""The expected calibration error, and how much of it chance alone explains.

The error is the mean distance between the confidence and the share of right directions, over bins of
confidence (Naeini, Cooper, Hauskrecht 2015). On few rows it is never zero. Its *floor* is what a perfectly
calibrated model with the same confidences shows on as many rows.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tickcast.features.vector import Floats

SIMULATIONS = 200
_BINS = 10  # of equal counts

Bools = npt.NDArray[np.bool_]


def of_bins(surplus: Floats, count: float) -> float:
    """The error of `count` rows by bins (B,) of Σ (confidence - right)."""
    return float(np.abs(surplus).sum() / count)


def floor_of_bins(confidence: Floats, counts: Floats) -> float:
    """The expected error were outcomes independent and right with the mean confidence of their bin:
    √(2p(1-p)/πn) of a bin of n. Sums of `confidence` and `counts`, each (B,)."""
    p = confidence / np.maximum(counts, 1)
    return float(np.sqrt(2 / np.pi * np.clip(p * (1 - p), 0, None) * counts).sum() / counts.sum())


def calibration_error(confidence: Floats, right: Floats) -> float:
    """The error of confidences (N,) and whether each direction was right, 0 or 1 (N,), in ten bins of equal
    counts."""
    if not len(confidence):
        return 0.0
    order = np.argsort(confidence, kind="stable")
    surplus = (confidence - right)[order]
    bins = np.array_split(surplus, min(_BINS, len(surplus)))
    return of_bins(np.array([each.sum() for each in bins]), len(surplus))


def simulated_floor(
    confidence: Floats, direction: Floats, moved: Bools, horizon_s: int, rng: np.random.Generator
) -> float:
    """The floor of forecasts made once a second (N,), by simulation.

    Whether the price rises is drawn by a normal variable, the sum of `horizon_s` steps of a second: so
    outcomes whose horizons overlap are correlated as overlapping moves are, and each is right with the
    probability that was claimed.
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


def resampled_errors(
    confidence: Floats, right: Floats, moved: Bools, block_rows: int, rng: np.random.Generator
) -> list[float]:
    """Errors of rows (N,) in the order of time, of bootstrap samples of moving blocks."""
    block_rows = max(1, min(block_rows, len(confidence) // 2))
    blocks = -(-len(confidence) // block_rows)
    errors = []
    for _ in range(SIMULATIONS):
        starts = rng.integers(len(confidence) - block_rows + 1, size=blocks)
        drawn = (starts[:, None] + np.arange(block_rows)).ravel()
        drawn = drawn[moved[drawn]]
        errors.append(calibration_error(confidence[drawn], right[drawn]))
    return errors

"""The regimes of the market that skill is reported by, on cards and in live scores: thirds of the time by
volatility and by spread, and quarters of the day.

Equal values are never parted: where most of the time the spread is a single tick, all of that is `low`. In bp
a tick varies with the price, so that spreads count as equal within a hundredth of a bp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.features.vector import Floats
from tickcast.units import HOUR_US

VOLATILITY, SPREAD, HOUR = "volatility", "spread", "hour"
TERCILES = ("low", "middle", "high")
HOURS = ("00-06", "06-12", "12-18", "18-24")  # UTC
NAMES = {VOLATILITY: TERCILES, SPREAD: TERCILES, HOUR: HOURS}
HOURS_EACH = 24 // len(HOURS)
LIMITS = (1 / 3, 2 / 3)  # of the shares of time
DECIMALS = {VOLATILITY: 4, SPREAD: 2}  # of bp, that values are rounded to

# The sums of the model's outcomes of one regime within a block of time.
REGIME_TALLY = np.dtype(
    [
        ("kind", "U10"),  # of NAMES
        ("regime", "<i4"),  # its place among the names of its kind
        ("block", "<i8"),
        ("horizon_s", "<i4"),
        ("lowest", "<f8"),  # the volatility or spread of its minutes, bp: the lowest and the highest mean
        ("highest", "<f8"),
        *((name, "<f8") for name in ("count", "moved", "rights", "squared_error", "squared_move")),
    ]
)
RegimeTallies = npt.NDArray[Any]  # of REGIME_TALLY
NO_REGIMES = np.empty(0, REGIME_TALLY)


def terciles(kind: str, values_bp: Floats) -> npt.NDArray[np.int64]:
    """The places among `TERCILES` of volatilities or spreads (N,)."""
    values = np.round(values_bp, DECIMALS[kind])
    return np.searchsorted(np.quantile(values, LIMITS, method="inverted_cdf"), values, side="left")


def hours(times_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The places of `times_us` (N,) among `HOURS`."""
    return np.asarray(times_us // HOUR_US % 24 // HOURS_EACH)

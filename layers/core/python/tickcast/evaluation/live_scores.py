"""How good served predictions were: skill with its uncertainty, direction, coverage, calibration.

What is scored are *tallies*: counts and sums over the outcomes of a block of time, apart by horizon, by who
stood for the prediction, by whether it abstained, and by how sure it was. Every figure of an hour, a day or a
week follows from them, so no outcome is looked at twice; and blocks are what their intervals are drawn from
(`evaluation.skill`). Fallbacks are counted apart and never enter a figure; neither does an outcome that a gap
kept from being known.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.evaluation.baselines import line_slope, line_squared_error
from tickcast.evaluation.calibration_error import floor_of_bins, of_bins
from tickcast.evaluation.skill import share, skill_of_squares
from tickcast.features.vector import Floats
from tickcast.model.forecast import HORIZONS_S
from tickcast.units import HOUR_US, MINUTE_US, SECOND_US

BINS = 10  # of confidence, from .5 to 1
MIN_BLOCKS = 10  # of fewer no interval is drawn: it would be too narrow

# Sums are over the outcomes with a known price that a forecast was made for, moves in bp.
SUMS = (
    "moved",  # how many did not stay flat, and had a direction foretold
    "rights",  # of those, with the direction right
    "confidence",  # of those, summed
    "inside",  # how many lie in the interval
    "squared_error",  # (move - expected)²
    "squared_move",
    "squared_imbalance",
    "imbalance_move",  # imbalance · move: what the line through book imbalance is fitted by
    "served_squared_error",  # as `squared_error`, where the mid at delivery is known
    "delivered_squared_error",  # (move - what had moved by delivery)²
)
TALLY = np.dtype(
    [
        ("block", "<i8"),
        ("horizon_s", "<i4"),
        ("is_model", "?"),
        ("abstains", "?"),
        ("why", "U16"),  # "" where the outcome is known
        ("bin", "<i4"),  # of confidence
        ("count", "<f8"),
        *((name, "<f8") for name in SUMS),
    ]
)
Tallies = npt.NDArray[Any]  # of TALLY
NO_TALLIES = np.empty(0, TALLY)


class Span(NamedTuple):
    """A stretch of time that is scored, in blocks of `block_us`."""

    name: str
    length_us: int
    block_us: int


SPANS = (
    Span("hour", HOUR_US, MINUTE_US),
    Span("day", 24 * HOUR_US, 15 * MINUTE_US),
    Span("week", 7 * 24 * HOUR_US, HOUR_US),
)


def score(tallies: Tallies) -> dict[str, dict[str, Any]]:
    """The figures of each horizon, "1" to "10"."""
    return {str(h): score_horizon(h, tallies[tallies["horizon_s"] == h]) for h in HORIZONS_S}


def score_horizon(horizon_s: int, tallies: Tallies) -> dict[str, Any]:
    """The figures of one horizon; each None where nothing can be said.

    `count` model predictions with a known outcome; `moved` of them where the mid moved; `direction` share of
    those that had the sign right; `coverage` share of outcomes inside the interval; `skill` against no
    change, `skill_vs_linear` against the best straight line through book imbalance, fitted in hindsight on
    the very same outcomes (which favours the line), `skill_at_delivery` against the mid when the prediction
    was written; `calibration_error` the mean distance of confidence from the share that was right, over bins
    of confidence, and `calibration_floor` what chance alone makes of it. `decided` is the same without what
    the model abstained from."""
    known = tallies[tallies["why"] == ""]
    by_model = known[known["is_model"]]
    decided = by_model[~by_model["abstains"]]
    blocks = _by_block(by_model)
    fallbacks, count = (float(known["count"][known["is_model"] == who].sum()) for who in (False, True))
    unresolved = tallies[tallies["why"] != ""]
    return {
        "horizon_s": horizon_s,
        **_figures(by_model),
        "direction_ci": _interval(blocks["rights"], blocks["moved"]),
        "coverage": _share(by_model["inside"].sum(), by_model["count"].sum()),
        "coverage_ci": _interval(blocks["inside"], blocks["count"]),
        "skill_vs_linear": _skill(blocks["squared_error"], _best_line_errors(blocks)),
        "skill_at_delivery": _skill(blocks["served_squared_error"], blocks["delivered_squared_error"]),
        **_calibration(by_model),
        "abstained": round(count - float(decided["count"].sum())),
        "decided": _figures(decided),
        "fallbacks": round(fallbacks),
        "fallback_share": _share(fallbacks, fallbacks + count),
        "unresolved": {
            str(why): round(float(unresolved["count"][unresolved["why"] == why].sum()))
            for why in np.unique(unresolved["why"])
        },
    }


def skill_against_line(tallies: Tallies, slope_bp: float) -> dict[str, float | None] | None:
    """Skill, as of `score_horizon`, of one horizon against a line through book imbalance that was fitted
    before: `slope_bp` of move where all of the book is on one side."""
    blocks = _by_block(tallies[tallies["is_model"] & (tallies["why"] == "")])
    return _skill(blocks["squared_error"], _line_errors(blocks, slope_bp))


def availability(tallies: Tallies, from_us: int, to_us: int) -> float | None:
    """The share of the seconds of [from_us, to_us) that a model stood for the prediction of, as its outcomes
    tell; None of a span without length."""
    seconds = (to_us - from_us) // SECOND_US
    if seconds <= 0:
        return None
    first = tallies[(tallies["horizon_s"] == HORIZONS_S[0]) & tallies["is_model"]]
    return min(_share(float(first["count"].sum()), seconds) or 0.0, 1.0)


def _figures(tallies: Tallies) -> dict[str, Any]:
    blocks = _by_block(tallies)
    return {
        "count": round(float(blocks["count"].sum())),
        "moved": round(float(blocks["moved"].sum())),
        "direction": _share(blocks["rights"].sum(), blocks["moved"].sum()),
        "skill": _skill(blocks["squared_error"], blocks["squared_move"]),
    }


def _by_block(tallies: Tallies) -> dict[str, Floats]:
    """Count and sums of each block, in the order of time. Each of shape (blocks,)."""
    blocks, place = np.unique(tallies["block"], return_inverse=True)
    names = ("count", *SUMS)
    return {name: np.bincount(place, tallies[name], len(blocks)).astype(float) for name in names}


def _best_line_errors(blocks: dict[str, Floats]) -> Floats:
    """The squared errors, by block, of the line through book imbalance that fits all of them best."""
    power = float(blocks["squared_imbalance"].sum())
    if not power > 0:
        return np.zeros_like(blocks["count"])
    return _line_errors(blocks, float(line_slope(blocks["imbalance_move"].sum(), power)))


def _line_errors(blocks: dict[str, Floats], slope: float) -> Floats:
    return line_squared_error(
        blocks["squared_move"], blocks["imbalance_move"], blocks["squared_imbalance"], slope
    )


def _calibration(tallies: Tallies) -> dict[str, float | None]:
    """The calibration error over bins of confidence, and its floor."""
    moved, rights, confidence = (
        np.bincount(np.clip(tallies["bin"], 0, BINS - 1), tallies[name], BINS).astype(float)
        for name in ("moved", "rights", "confidence")
    )
    if not moved.sum() > 0:
        return {"calibration_error": None, "calibration_floor": None}
    return {
        "calibration_error": _rounded(of_bins(confidence - rights, float(moved.sum()))),
        "calibration_floor": _rounded(floor_of_bins(confidence, moved)),
    }


def _skill(ours: Floats, theirs: Floats) -> dict[str, float | None] | None:
    """`value`, with its 95 % interval `low`, `high` where there are blocks enough; None where the other made
    no error at all."""
    if not theirs.sum() > 0:
        return None
    value, (low, high) = skill_of_squares(ours, theirs, 1)
    is_sure = len(ours) >= MIN_BLOCKS
    return {
        "value": _rounded(value),
        "low": _rounded(low) if is_sure else None,
        "high": _rounded(high) if is_sure else None,
    }


def _interval(part: Floats, whole: Floats) -> list[float] | None:
    if len(part) < MIN_BLOCKS or not whole.sum() > 0:
        return None
    return [_rounded(each) for each in share(part, whole, 1)[1]]


def _share(part: float, whole: float) -> float | None:
    return _rounded(part / whole) if whole > 0 else None


def _rounded(value: float) -> float:
    return round(float(value), 4)

"""How good served predictions were: skill with its uncertainty, direction, coverage, calibration.

Every figure but `skill_in_hindsight` is of the move that was still to come when a prediction was delivered.
Figures are computed from *tallies*: counts and sums over the outcomes of a block of time, by horizon, by the
source of the prediction (model or fallback), by whether it abstained, and by confidence. Every figure of an
hour, a day or a week follows from them, so no outcome is read twice; and the bootstrap of their intervals
draws blocks (`evaluation.skill`). Fallbacks are counted separately and never enter a figure; neither does an
outcome that is unknown because of a gap.

`AccuracySummary` is stored for each symbol, under the JSON names of docs/contracts.md. A figure is None where
there is too little to compute it from.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct, field
from msgspec.structs import asdict

from tickcast.evaluation.baselines import line_slope, line_squared_error
from tickcast.evaluation.calibration_error import floor_of_bins, of_bins
from tickcast.evaluation.skill import share, skill_of_squares
from tickcast.features.vector import Floats
from tickcast.model.forecast import HORIZONS_S, Probability
from tickcast.units import HOUR_US, MINUTE_US, SECOND_US

BINS = 10  # of confidence, from .5 to 1
MIN_BLOCKS = 10  # with fewer there is no interval: it would be too narrow

# Sums are over the outcomes with a known price that a forecast was made for, moves in bp.
SUMS = (
    "moved",  # how many did not stay flat, and had a direction predicted
    "rights",  # of those, with the direction right
    "confidence",  # of those, summed
    "inside",  # how many lie in the interval
    "squared_error",  # (move - expected)²
    "squared_move",
    "squared_imbalance",
    "imbalance_move",  # imbalance · move: what the line through book imbalance is fitted by
    "crps",  # `distribution_scores`, and what these are of no change
    "crps_of_no_change",
    "interval_score",
    "interval_score_of_no_change",
    "hindsight_squared_error",  # of the moves from the prediction's own instant on
    "hindsight_squared_move",
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
    """A span of time that is scored, in blocks of `block_us`."""

    name: str
    length_us: int
    block_us: int


SPANS = (
    Span("hour", HOUR_US, MINUTE_US),
    Span("day", 24 * HOUR_US, 15 * MINUTE_US),
    Span("week", 7 * 24 * HOUR_US, HOUR_US),
)


Count = Annotated[int, Meta(ge=0)]
Interval = Annotated[
    list[float], Meta(min_length=2, max_length=2, description="95 % by moving-block bootstrap")
]


class Skill(Struct, kw_only=True):
    """1 - squared error / the baseline's, with its 95 % interval where there are blocks enough."""

    value: Annotated[float, Meta(le=1)]
    low: float | None
    high: float | None


class Figures(Struct, kw_only=True):
    """Of a set of the model's predictions with a known outcome."""

    count: Annotated[Count, Meta(description="the model's predictions with a known outcome")]
    moved: Annotated[Count, Meta(description="of those, where the mid moved")]
    direction: Annotated[
        Probability | None, Meta(description="share with the sign right, where the mid moved")
    ]
    skill: Annotated[Skill | None, Meta(description="against no change")]


class HorizonAccuracy(Figures, kw_only=True):
    """The figures of one horizon."""

    horizon_s: int
    direction_ci: Interval | None
    coverage: Annotated[Probability | None, Meta(description="share of outcomes inside the 80 % interval")]
    coverage_ci: Interval | None
    skill_vs_linear: Annotated[
        Skill | None, Meta(description="against a line through book imbalance, fitted in hindsight")
    ]
    skill_in_hindsight: Annotated[
        Skill | None,
        Meta(description="of the move from `timestamp` on, a part of which was over by the delivery"),
    ]
    crps_bp: Annotated[float | None, Meta(description="continuous ranked probability score, mean")]
    crps_skill: Annotated[Skill | None, Meta(description="by that score, against no change, as wide")]
    interval_score_bp: Annotated[float | None, Meta(description="of the 80 % interval, mean")]
    interval_score_skill: Annotated[Skill | None, Meta(description="likewise")]
    calibration_error: Annotated[
        Probability | None,
        Meta(description="mean distance of confidence from the share that was right, over ten bins"),
    ]
    calibration_floor: Annotated[
        Probability | None, Meta(description="what chance alone makes of it, were outcomes independent")
    ]
    abstained: Annotated[Count, Meta(description="of `count`, where the move was within the noise")]
    decided: Annotated[Figures, Meta(description="the same without those")]
    fallbacks: Annotated[Count, Meta(description="not in `count`")]
    fallback_share: Annotated[Probability | None, Meta(description="of both together")]
    unresolved: Annotated[dict[str, int], Meta(description="not in `count`, by why")]


class SpanAccuracy(Struct, kw_only=True):
    """The figures of a span of time, by horizon in seconds; times in ms since 1970."""

    from_ms: Annotated[int, Meta(ge=0)] = field(name="from")
    to_ms: Annotated[int, Meta(ge=0)] = field(name="to")
    first_ms: Annotated[int | None, Meta(description="the first outcome known of it")] = field(name="first")
    availability: Annotated[
        Probability | None, Meta(description="share of the seconds since `first` that a model answered")
    ]
    horizons: dict[int, HorizonAccuracy]


class AccuracySummary(Struct, kw_only=True):
    """How good the predictions of a symbol were, as scored at `scored_ms`."""

    symbol: str
    scored_ms: Annotated[int, Meta(ge=0, description="ms since 1970")]
    hour: SpanAccuracy
    day: SpanAccuracy
    week: SpanAccuracy


def score(tallies: Tallies) -> dict[int, HorizonAccuracy]:
    """The figures of each horizon, by seconds."""
    return {h: score_horizon(h, tallies[tallies["horizon_s"] == h]) for h in HORIZONS_S}


def score_horizon(horizon_s: int, tallies: Tallies) -> HorizonAccuracy:
    """The figures of one horizon.

    Skill against the best straight line through book imbalance favours the line: it is fitted in hindsight on
    the very same outcomes."""
    known = tallies[tallies["why"] == ""]
    by_model = known[known["is_model"]]
    decided = by_model[~by_model["abstains"]]
    blocks = _by_block(by_model)
    fallbacks, count = (
        float(known["count"][known["is_model"] == is_model].sum()) for is_model in (False, True)
    )
    unresolved = tallies[tallies["why"] != ""]
    calibration_error, calibration_floor = _calibration(by_model)
    return HorizonAccuracy(
        horizon_s=horizon_s,
        **asdict(_figures(by_model)),
        direction_ci=_interval(blocks["rights"], blocks["moved"]),
        coverage=_share(by_model["inside"].sum(), by_model["count"].sum()),
        coverage_ci=_interval(blocks["inside"], blocks["count"]),
        skill_vs_linear=_skill(blocks["squared_error"], _best_line_errors(blocks)),
        skill_in_hindsight=_skill(blocks["hindsight_squared_error"], blocks["hindsight_squared_move"]),
        crps_bp=_share(blocks["crps"].sum(), blocks["count"].sum()),
        crps_skill=_skill(blocks["crps"], blocks["crps_of_no_change"]),
        interval_score_bp=_share(blocks["interval_score"].sum(), blocks["count"].sum()),
        interval_score_skill=_skill(blocks["interval_score"], blocks["interval_score_of_no_change"]),
        calibration_error=calibration_error,
        calibration_floor=calibration_floor,
        abstained=round(count - float(decided["count"].sum())),
        decided=_figures(decided),
        fallbacks=round(fallbacks),
        fallback_share=_share(fallbacks, fallbacks + count),
        unresolved={
            str(why): round(float(unresolved["count"][unresolved["why"] == why].sum()))
            for why in np.unique(unresolved["why"])
        },
    )


def skill_against_line(tallies: Tallies, slope_bp: float) -> Skill | None:
    """Skill, as of `score_horizon`, of one horizon against a line through book imbalance that was fitted
    before: `slope_bp` of move where all of the book is on one side."""
    blocks = _by_block(tallies[tallies["is_model"] & (tallies["why"] == "")])
    return _skill(blocks["squared_error"], _line_errors(blocks, slope_bp))


def availability(tallies: Tallies, from_us: int, to_us: int) -> float | None:
    """The share of the seconds of [from_us, to_us) that a model answered in, by its outcomes; None for an
    empty span."""
    seconds = (to_us - from_us) // SECOND_US
    if seconds <= 0:
        return None
    first = tallies[(tallies["horizon_s"] == HORIZONS_S[0]) & tallies["is_model"]]
    return min(_share(float(first["count"].sum()), seconds) or 0.0, 1.0)


def _figures(tallies: Tallies) -> Figures:
    blocks = _by_block(tallies)
    return Figures(
        count=round(float(blocks["count"].sum())),
        moved=round(float(blocks["moved"].sum())),
        direction=_share(blocks["rights"].sum(), blocks["moved"].sum()),
        skill=_skill(blocks["squared_error"], blocks["squared_move"]),
    )


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


def _calibration(tallies: Tallies) -> tuple[float | None, float | None]:
    """The calibration error over bins of confidence, and its floor."""
    moved, rights, confidence = (
        np.bincount(np.clip(tallies["bin"], 0, BINS - 1), tallies[name], BINS).astype(float)
        for name in ("moved", "rights", "confidence")
    )
    if not moved.sum() > 0:
        return None, None
    error = of_bins(confidence - rights, float(moved.sum()))
    return _rounded(error), _rounded(floor_of_bins(confidence, moved))


def _skill(ours: Floats, theirs: Floats) -> Skill | None:
    """`value`, with its 95 % interval `low`, `high` where there are blocks enough; None where the baseline
    made no error at all, or one of both is not known."""
    if not theirs.sum() > 0 or np.isnan(ours.sum()):
        return None
    value, (low, high) = skill_of_squares(ours, theirs, 1)
    is_sure = len(ours) >= MIN_BLOCKS
    return Skill(
        value=_rounded(value),
        low=_rounded(low) if is_sure else None,
        high=_rounded(high) if is_sure else None,
    )


def _interval(part: Floats, whole: Floats) -> list[float] | None:
    if len(part) < MIN_BLOCKS or not whole.sum() > 0 or np.isnan(part.sum()):
        return None
    return [_rounded(each) for each in share(part, whole, 1)[1]]


def _share(part: float, whole: float) -> float | None:
    return _rounded(part / whole) if whole > 0 and not np.isnan(part) else None


def _rounded(value: float) -> float:
    return round(float(value), 4)

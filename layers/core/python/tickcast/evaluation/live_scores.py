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

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct, field
from msgspec.structs import asdict

from tickcast.evaluation.baselines import line_slope, line_squared_error, live_slope
from tickcast.evaluation.calibration_error import floor_of_bins, of_bins
from tickcast.evaluation.challenger_scores import ChallengerAccuracy
from tickcast.evaluation.earnings import Earnings
from tickcast.evaluation.figures import Count, Skill, interval_of_sums, rounded, share_of, skill_of_sums
from tickcast.evaluation.regimes import NAMES, NO_REGIMES, RegimeTallies
from tickcast.evaluation.remainders import NO_REMAINDERS, Remainders, SkillAtAge, skill_by_age
from tickcast.evaluation.skill import Interval
from tickcast.evaluation.steps import AccuracyStep
from tickcast.features.vector import Floats
from tickcast.model.card import ScaledLine
from tickcast.model.forecast import HORIZONS_S, Probability
from tickcast.units import DAY_US, HOUR_US, MINUTE_US, SECOND_US

_OF_FIGURES = ("count", "moved", "rights", "squared_error", "squared_move")
BINS = 10  # of confidence, from .5 to 1

# Sums are over the outcomes with a known price that a forecast was made for, moves in bp.
SUMS = (
    "moved",  # how many did not stay flat, and had a direction predicted
    "rights",  # of those, with the direction right
    "confidence",  # of those, summed
    "inside",  # how many lie in the interval
    "squared_error",  # (move - expected)²
    "squared_move",
    "squared_line",  # of z, the line's input: imbalance in units of the scale (`baselines.live_slope`)
    "line_move",  # z · move: what the line is fitted by
    "line_squared_error",  # (move - expected)² and move², of outcomes whose z was tallied
    "line_squared_move",
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
    """A span of time that is scored, in blocks of `block_us`; and over time, in steps of `step_us`, which
    consist of blocks of `part_us`, a part of `block_us`."""

    name: str
    length_us: int
    block_us: int
    step_us: int
    part_us: int


SPANS = (
    Span("hour", HOUR_US, MINUTE_US, 5 * MINUTE_US, MINUTE_US),
    Span("day", DAY_US, 15 * MINUTE_US, HOUR_US, 5 * MINUTE_US),
    Span("week", 7 * DAY_US, HOUR_US, DAY_US, HOUR_US),
)


class Figures(Struct, kw_only=True):
    """Of a set of the model's predictions with a known outcome."""

    count: Annotated[Count, Meta(description="the model's predictions with a known outcome")]
    moved: Annotated[Count, Meta(description="of those, where the mid moved")]
    direction: Annotated[
        Probability | None, Meta(description="share with the sign right, where the mid moved")
    ]
    skill: Annotated[Skill | None, Meta(description="against no change")]


class RegimeFigures(Figures, kw_only=True):
    """The figures of a regime of the market, by minutes."""

    from_bp: Annotated[
        float | None, Meta(description="the lowest mean volatility (bp per √s) or spread of its minutes")
    ] = None
    to_bp: Annotated[float | None, Meta(description="the highest")] = None


class CalibrationBin(Struct, kw_only=True):
    """The forecasts of similar confidence where the mid moved."""

    confidence: Annotated[Probability, Meta(description="the mean of them")]
    right: Annotated[Probability, Meta(description="the share of them that had the direction right")]
    count: Annotated[int, Meta(ge=1)]


class HorizonAccuracy(Figures, kw_only=True):
    """The figures of one horizon."""

    horizon_s: int
    direction_ci: Interval | None
    coverage: Annotated[Probability | None, Meta(description="share of outcomes inside the 80 % interval")]
    coverage_ci: Interval | None
    skill_vs_linear: Annotated[
        Skill | None,
        Meta(description="against a line through book imbalance, scaled by volatility, fitted in hindsight"),
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
    bins: Annotated[
        list[CalibrationBin], Meta(description="of ten bins of confidence, those that are not empty")
    ] = []
    by_age: Annotated[
        list[SkillAtAge],
        Meta(description="at the delivery and at the shorter horizons, as far as outcomes are known"),
    ] = []
    abstained: Annotated[Count, Meta(description="of `count`, where the move was within the noise")]
    decided: Annotated[Figures, Meta(description="the same without those")]
    fallbacks: Annotated[Count, Meta(description="not in `count`")]
    fallback_share: Annotated[Probability | None, Meta(description="of both together")]
    unresolved: Annotated[dict[str, int], Meta(description="not in `count`, by why")]
    regimes: Annotated[
        dict[str, dict[str, RegimeFigures]],
        Meta(description="by `volatility`, `spread` and `hour` (UTC), then by regime; empty of an hour"),
    ] = {}


class SpanAccuracy(Struct, kw_only=True):
    """The figures of a span of time, by horizon in seconds; times in ms since 1970."""

    from_ms: Annotated[int, Meta(ge=0)] = field(name="from")
    to_ms: Annotated[int, Meta(ge=0)] = field(name="to")
    first_ms: Annotated[int | None, Meta(description="the first outcome known of it")] = field(name="first")
    availability: Annotated[
        Probability | None, Meta(description="share of the seconds since `first` that a model answered")
    ]
    horizons: dict[int, HorizonAccuracy]
    earnings: Annotated[
        dict[int, list[Earnings]],
        Meta(description="by horizon and threshold, what acting on the forecasts would have earned"),
    ] = {}
    series: Annotated[
        dict[int, list[AccuracyStep]],
        Meta(
            description="by horizon, oldest first: of 5 min in the hour, 1 h in the day, a day in the week; "
            "only those with outcomes"
        ),
    ] = {}
    challenger: Annotated[
        ChallengerAccuracy | None, Meta(description="the model in shadow; null without one")
    ] = None


class AccuracySummary(Struct, kw_only=True):
    """How good the predictions of a symbol were, as scored at `scored_ms`."""

    symbol: str
    scored_ms: Annotated[int, Meta(ge=0, description="ms since 1970")]
    hour: SpanAccuracy
    day: SpanAccuracy
    week: SpanAccuracy


def score(
    tallies: Tallies, regimes: RegimeTallies = NO_REGIMES, remainders: Remainders = NO_REMAINDERS
) -> dict[int, HorizonAccuracy]:
    """The figures of each horizon, by seconds."""
    return {
        h: score_horizon(h, *(rows[rows["horizon_s"] == h] for rows in (tallies, regimes, remainders)))
        for h in HORIZONS_S
    }


def score_horizon(
    horizon_s: int,
    tallies: Tallies,
    regimes: RegimeTallies = NO_REGIMES,
    remainders: Remainders = NO_REMAINDERS,
) -> HorizonAccuracy:
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
    calibration_error, calibration_floor, bins = _calibration(by_model)
    figures = _figures(by_model)
    at_delivery = [SkillAtAge(age_s=0, count=figures.count, skill=figures.skill)] if figures.count else []
    return HorizonAccuracy(
        horizon_s=horizon_s,
        **asdict(figures),
        direction_ci=interval_of_sums(blocks["rights"], blocks["moved"]),
        coverage=share_of(by_model["inside"].sum(), by_model["count"].sum()),
        coverage_ci=interval_of_sums(blocks["inside"], blocks["count"]),
        skill_vs_linear=skill_of_sums(blocks["line_squared_error"], _best_line_errors(blocks)),
        skill_in_hindsight=skill_of_sums(blocks["hindsight_squared_error"], blocks["hindsight_squared_move"]),
        crps_bp=share_of(blocks["crps"].sum(), blocks["count"].sum()),
        crps_skill=skill_of_sums(blocks["crps"], blocks["crps_of_no_change"]),
        interval_score_bp=share_of(blocks["interval_score"].sum(), blocks["count"].sum()),
        interval_score_skill=skill_of_sums(blocks["interval_score"], blocks["interval_score_of_no_change"]),
        calibration_error=calibration_error,
        calibration_floor=calibration_floor,
        bins=bins,
        by_age=at_delivery + skill_by_age(remainders),
        abstained=round(count - float(decided["count"].sum())),
        decided=_figures(decided),
        fallbacks=round(fallbacks),
        fallback_share=share_of(fallbacks, fallbacks + count),
        unresolved={
            str(why): round(float(unresolved["count"][unresolved["why"] == why].sum()))
            for why in np.unique(unresolved["why"])
        },
        regimes=_by_regime(regimes),
    )


def _by_regime(tallies: RegimeTallies) -> dict[str, dict[str, RegimeFigures]]:
    found: dict[str, dict[str, RegimeFigures]] = {}
    for kind, names in NAMES.items():
        for place, name in enumerate(names):
            mine = tallies[(tallies["kind"] == kind) & (tallies["regime"] == place)]
            if len(mine):
                lowest, highest = (
                    None if np.isnan(limit) else rounded(limit)
                    for limit in (mine["lowest"].min(), mine["highest"].max())
                )
                figures = asdict(_figures_of(_by_block(mine, _OF_FIGURES)))
                found.setdefault(kind, {})[name] = RegimeFigures(**figures, from_bp=lowest, to_bp=highest)
    return found


def skill_against_line(tallies: Tallies, line: ScaledLine, horizon_s: int) -> Skill | None:
    """Skill, as of `score_horizon`, of one horizon against a line through book imbalance that was fitted
    before."""
    blocks = _by_block(tallies[tallies["is_model"] & (tallies["why"] == "")])
    return skill_of_sums(blocks["line_squared_error"], _line_errors(blocks, live_slope(line, horizon_s)))


def availability(tallies: Tallies, from_us: int, to_us: int) -> float | None:
    """The share of the seconds of [from_us, to_us) that a model answered in, by its outcomes; None for an
    empty span."""
    seconds = (to_us - from_us) // SECOND_US
    if seconds <= 0:
        return None
    first = tallies[(tallies["horizon_s"] == HORIZONS_S[0]) & tallies["is_model"]]
    return min(share_of(float(first["count"].sum()), seconds) or 0.0, 1.0)


def _figures(tallies: Tallies) -> Figures:
    return _figures_of(_by_block(tallies))


def _figures_of(blocks: Mapping[str, Floats]) -> Figures:
    """Of the sums `_OF_FIGURES` of each block, in the order of time."""
    return Figures(
        count=round(float(blocks["count"].sum())),
        moved=round(float(blocks["moved"].sum())),
        direction=share_of(blocks["rights"].sum(), blocks["moved"].sum()),
        skill=skill_of_sums(blocks["squared_error"], blocks["squared_move"]),
    )


def _by_block(
    tallies: Tallies | RegimeTallies, names: tuple[str, ...] = ("count", *SUMS)
) -> dict[str, Floats]:
    """Count and sums of each block, in the order of time. Each of shape (blocks,)."""
    blocks, place = np.unique(tallies["block"], return_inverse=True)
    return {name: np.bincount(place, tallies[name], len(blocks)).astype(float) for name in names}


def _best_line_errors(blocks: dict[str, Floats]) -> Floats:
    """The squared errors, by block, of the line through book imbalance that fits all of them best."""
    power = float(blocks["squared_line"].sum())
    if not power > 0:
        return np.zeros_like(blocks["count"])
    return _line_errors(blocks, float(line_slope(blocks["line_move"].sum(), power)))


def _line_errors(blocks: dict[str, Floats], slope: float) -> Floats:
    return line_squared_error(blocks["line_squared_move"], blocks["line_move"], blocks["squared_line"], slope)


def _calibration(tallies: Tallies) -> tuple[float | None, float | None, list[CalibrationBin]]:
    """The calibration error over bins of confidence, its floor, and the bins that are not empty."""
    moved, rights, confidence = (
        np.bincount(np.clip(tallies["bin"], 0, BINS - 1), tallies[name], BINS).astype(float)
        for name in ("moved", "rights", "confidence")
    )
    if not moved.sum() > 0:
        return None, None, []
    bins = [
        CalibrationBin(
            confidence=rounded(confidence[n] / moved[n]),
            right=rounded(rights[n] / moved[n]),
            count=round(moved[n]),
        )
        for n in np.flatnonzero(moved)
    ]
    error = of_bins(confidence - rights, float(moved.sum()))
    return rounded(error), rounded(floor_of_bins(confidence, moved)), bins

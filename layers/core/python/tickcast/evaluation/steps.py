"""The figures of a span over time: those of each step of it, such as an hour of a day."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct, field

from tickcast.evaluation.figures import Count, Skill, share_of, skill_of_sums
from tickcast.model.forecast import HORIZONS_S, Probability

# Of the model's predictions whose outcome is known: sums by block of time, a part of a step; moves in bp.
STEP = np.dtype(
    [
        ("block", "<i8"),
        ("horizon_s", "<i4"),
        ("count", "<f8"),
        ("inside", "<f8"),
        ("squared_error", "<f8"),
        ("squared_move", "<f8"),
    ]
)
Steps = npt.NDArray[Any]  # of STEP


class AccuracyStep(Struct, kw_only=True):
    """The figures of a step; times in ms since 1970."""

    from_ms: Annotated[int, Meta(ge=0)] = field(name="from")
    to_ms: Annotated[int, Meta(ge=0)] = field(name="to")
    count: Annotated[Count, Meta(description="the model's predictions with a known outcome")]
    skill: Annotated[Skill | None, Meta(description="against no change")]
    coverage: Annotated[Probability | None, Meta(description="share of outcomes inside the 80 % interval")]


def series(
    rows: Steps, part_us: int, step_us: int, span_us: tuple[int, int]
) -> dict[int, list[AccuracyStep]]:
    """The steps of `step_us` that have outcomes, by horizon, oldest first: cut off at the ends of `span_us`.
    `rows` are by blocks of `part_us`."""
    found: dict[int, list[AccuracyStep]] = {h: [] for h in HORIZONS_S}
    steps = rows["block"] // (step_us // part_us)
    for step in np.unique(steps):
        from_us, to_us = int(step) * step_us, (int(step) + 1) * step_us
        for h, mine in found.items():
            blocks = np.sort(rows[(steps == step) & (rows["horizon_s"] == h)], order="block")
            if count := round(float(blocks["count"].sum())):
                mine.append(
                    AccuracyStep(
                        from_ms=max(from_us, span_us[0]) // 1000,
                        to_ms=min(to_us, span_us[1]) // 1000,
                        count=count,
                        skill=skill_of_sums(blocks["squared_error"], blocks["squared_move"]),
                        coverage=share_of(float(blocks["inside"].sum()), count),
                    )
                )
    return found

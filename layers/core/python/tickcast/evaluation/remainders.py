"""Skill by age: how good what is left of a forecast is for whoever reads it some seconds after its delivery.

A forecast delivered at d says how the mid moves until d + h. Read at d + a, what is left of it is the move
from d + a to the same target, and the forecast of that is the difference of the two that were delivered, over
h and over a. The prediction's own outcome over the horizon a says where the mid was by then, so ages are the
shorter horizons: of ten seconds 1, 2 and 5 s, of one second none but the delivery itself.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from tickcast.evaluation.figures import Count, Skill, skill_of_sums

# Of the model's predictions whose outcomes over both horizons are known: sums by block of time, moves in bp.
REMAINDER = np.dtype(
    [
        ("block", "<i8"),
        ("horizon_s", "<i4"),
        ("age_s", "<i4"),
        ("count", "<f8"),
        ("squared_error", "<f8"),  # (rest of the move - rest of the forecast)²
        ("squared_move", "<f8"),
    ]
)
Remainders = npt.NDArray[Any]  # of REMAINDER
NO_REMAINDERS = np.empty(0, REMAINDER)


class SkillAtAge(Struct, kw_only=True):
    """How good what is left of a forecast is at an age."""

    age_s: Annotated[Count, Meta(description="seconds after the delivery")]
    count: Annotated[Count, Meta(description="predictions with a known outcome at both instants")]
    skill: Annotated[Skill | None, Meta(description="of the move left until the target, against no change")]


def skill_by_age(remainders: Remainders) -> list[SkillAtAge]:
    """The skill of one horizon at each age that there are outcomes of, but for that at the delivery."""
    found = []
    for age_s in np.unique(remainders["age_s"]):
        mine = remainders[remainders["age_s"] == age_s]
        _, place = np.unique(mine["block"], return_inverse=True)
        ours, theirs = (
            np.bincount(place, mine[name]).astype(float) for name in ("squared_error", "squared_move")
        )
        count = round(float(mine["count"].sum()))
        found.append(SkillAtAge(age_s=int(age_s), count=count, skill=skill_of_sums(ours, theirs)))
    return found

"""The figures of live scores: rounded, with their interval where there are blocks of time enough, and None
where there is too little to compute them from."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from tickcast.evaluation.skill import MIN_BLOCKS, Interval, share, skill_of_squares
from tickcast.features.vector import Floats

Count = Annotated[int, Meta(ge=0)]


class Skill(Struct, kw_only=True):
    """1 - squared error / the baseline's, with its 95 % interval where there are blocks enough."""

    value: Annotated[float, Meta(le=1)]
    low: float | None
    high: float | None


def skill_of_sums(ours: Floats, theirs: Floats) -> Skill | None:
    """The skill of squared errors by block (K,), in the order of time, against the baseline's. None where the
    baseline made no error at all, or one of both is not known."""
    if not theirs.sum() > 0 or np.isnan(ours.sum()):
        return None
    if len(ours) < MIN_BLOCKS:
        return Skill(value=rounded(1 - ours.sum() / theirs.sum()), low=None, high=None)
    value, (low, high) = skill_of_squares(ours, theirs, 1)
    return Skill(value=rounded(value), low=rounded(low), high=rounded(high))


def interval_of_sums(part: Floats, whole: Floats) -> Interval | None:
    """The 95 % interval of Σ part / Σ whole of blocks (K,), in the order of time."""
    if len(part) < MIN_BLOCKS or not whole.sum() > 0 or np.isnan(part.sum()):
        return None
    return [rounded(each) for each in share(part, whole, 1)[1]]


def share_of(part: float, whole: float) -> float | None:
    """`part` / `whole`; None where the whole is 0, or the part is not known."""
    return rounded(part / whole) if whole > 0 and not np.isnan(part) else None


def rounded(value: float) -> float:
    return round(float(value), 4)

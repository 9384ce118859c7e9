"""How good the challenger's forecasts in shadow were, on the very outcomes of the champion's.

The gate decides by more than this (`evaluation.gate`): these figures are for people who watch it run.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from tickcast.evaluation.figures import Count, Skill, skill_of_sums
from tickcast.model.forecast import HORIZONS_S

# Of outcomes that both models forecast: sums by block of time, moves in bp.
SHADOWED = np.dtype(
    [
        ("block", "<i8"),
        ("horizon_s", "<i4"),
        ("count", "<f8"),
        ("squared_error", "<f8"),  # (move - the challenger's forecast)²
        ("champion_squared_error", "<f8"),
        ("squared_move", "<f8"),
    ]
)
Shadowed = npt.NDArray[Any]  # of SHADOWED


class ChallengerFigures(Struct, kw_only=True):
    """Of the outcomes over one horizon that both models had forecast."""

    count: Count
    skill: Annotated[Skill | None, Meta(description="the challenger's, against no change")]
    skill_vs_champion: Annotated[
        Skill | None, Meta(description="above 0: its squared error is less than the champion's")
    ]


class ChallengerAccuracy(Struct, kw_only=True):
    """The figures of the model in shadow, by horizon."""

    model_id: str
    horizons: dict[int, ChallengerFigures]


def score_challenger(model_id: str, rows: Shadowed) -> ChallengerAccuracy:
    """The figures of the challenger `model_id`; without outcomes they are empty."""
    return ChallengerAccuracy(
        model_id=model_id, horizons={h: _figures(rows[rows["horizon_s"] == h]) for h in HORIZONS_S}
    )


def _figures(rows: Shadowed) -> ChallengerFigures:
    rows = rows[np.argsort(rows["block"], kind="stable")]
    return ChallengerFigures(
        count=round(float(rows["count"].sum())),
        skill=skill_of_sums(rows["squared_error"], rows["squared_move"]),
        skill_vs_champion=skill_of_sums(rows["squared_error"], rows["champion_squared_error"]),
    )

"""What the author of a model says of it: the JSON file that `make import-model` takes as CARD (docs/model.md,
"A model of your own")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from tickcast.adapters.registry.pointer import time_of
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.model.forecast import HORIZONS_S, PATH_S, ModelError
from tickcast.units import SECOND_US


class Description(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the author of a model says of it: the file that CARD names."""

    name: str
    learned_to: str  # no label that it was trained on reaches beyond, ISO 8601
    feature_hash: str  # of the rows that it was trained on
    output: Literal["path", "moves_bp", "moves_sigma"] = "path"  # moves in bp, or in units of σ√t
    inputs: tuple[str, ...] = FEATURE_NAMES  # the columns of its input, short form
    instants_s: tuple[float, ...] = HORIZONS_S  # the columns of its output, short form
    symmetrise: bool = False  # forecast ½[f(x) - f(x with buying and selling exchanged)], short form
    description: str = ""

    @property
    def learned_to_us(self) -> int:
        """µs since 1970. Raises `ModelError` where it is no time."""
        time = time_of(self.learned_to)
        if time is None:
            raise ModelError(
                f"learned_to is {self.learned_to!r}; it should be a time like 2026-11-20T12:00:00Z"
            )
        return round(time.timestamp() * SECOND_US)


def description_from(document: object, now_us: int) -> Description:
    """The description in JSON values. Raises `ModelError` naming the field that cannot be used; `now_us` is
    the present, µs since 1970."""
    try:
        found = msgspec.convert(document, Description)
    except msgspec.ValidationError as error:
        raise ModelError(f"the model's description: {error}") from None
    for problem in _problems(found, now_us):
        raise ModelError(f"the model's description: {problem}")
    return found


def _problems(found: Description, now_us: int) -> Sequence[str]:
    problems = []
    if not found.name.strip() or len(found.name) > 100:
        problems.append("name should have 1 to 100 characters")
    if found.feature_hash != FEATURE_HASH:
        problems.append(
            f"feature_hash is {found.feature_hash!r}, this code computes {FEATURE_HASH!r}: train it on "
            "rows of this version"
        )
    if found.learned_to_us > now_us:
        problems.append(f"learned_to is {found.learned_to!r}, which is in the future")
    if found.output == "path":
        changed = [name for name, default in _SHORT_FORM.items() if getattr(found, name) != default]
        problems += [f"{name} is for output moves_bp or moves_sigma; a path has none" for name in changed]
    strangers = [name for name in found.inputs if name not in FEATURE_NAMES]
    problems += [f"{strangers[0]!r} in inputs is no feature"] if strangers else []
    if not found.inputs or len(set(found.inputs)) < len(found.inputs):
        problems.append("inputs should name each column of the model's input, no feature twice")
    missing = [h for h in HORIZONS_S if h not in found.instants_s]
    if missing or any(t not in PATH_S for t in found.instants_s) or _falls(found.instants_s):
        problems.append(
            f"instants_s is {list(found.instants_s)}; it should have {', '.join(map(str, HORIZONS_S))} and "
            f"may have others of {', '.join(map(str, PATH_S))}, in the order of time"
        )
    return problems


_SHORT_FORM = {
    "inputs": FEATURE_NAMES,
    "instants_s": HORIZONS_S,
    "symmetrise": False,
}


def _falls(values: Sequence[float]) -> bool:
    return any(after <= before for before, after in zip(values, values[1:], strict=False))

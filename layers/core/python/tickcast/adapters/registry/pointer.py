"""The pointer, `models/current.json`: which model is active, which runs in its shadow, which were active
before."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

POINTER = "models/current.json"
LIFTED = "lifted"  # hold until the hold is lifted
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # a folder of its own in the bucket


class Challenger(Struct, frozen=True, kw_only=True):
    """The model that runs in shadow. With a `problem`, the stored one names no model; the active model
    serves all the same."""

    model_id: str
    problem: str | None = None


class PreviousModel(Struct, frozen=True, kw_only=True):
    """A model that was active before."""

    model_id: str
    since: str | None = None  # ISO 8601
    provisional: bool | None = None


class Pointer(Struct, frozen=True, kw_only=True):
    """The active model. `provisional` is what the gate decided; None: what the model's card says.

    Until `hold_until` (ISO 8601, or `LIFTED`: without an end) only a person moves it to another model."""

    model_id: str
    key: str | None = None  # of the ONNX file
    since: str | None = None  # ISO 8601
    challenger: Challenger | None = None
    previous: list[PreviousModel] = []  # newest first
    by: str | None = None  # who moved it here
    provisional: bool | None = None
    hold_until: str | None = None

    def is_held(self, now: datetime) -> bool:
        """Whether it is held at `now`. A time that cannot be read has no end: a hold must not end unseen."""
        if self.hold_until is None:
            return False
        until = time_of(self.hold_until)
        return until is None or now < until

    @property
    def challenger_id(self) -> str | None:
        """The model in shadow; None where there is none, or the pointer names none that could be."""
        return self.challenger.model_id if self.challenger and not self.challenger.problem else None


def pointer_from(document: Any) -> Pointer:
    """The pointer in JSON values. Raises ValueError naming what is wrong with a field that a model is served
    by; others that cannot be read are left out."""
    if not isinstance(document, dict):
        raise ValueError(f"it is {str(document)[:40]}, it should be a JSON object")
    if not is_model_id(document.get("model_id")):
        raise ValueError(f"model_id is {str(document.get('model_id'))[:40]!r}, it should name a model")
    if not isinstance(document.get("provisional", False), bool):
        raise ValueError(f"provisional is {str(document['provisional'])[:40]}, it should be true or false")
    named = document.get("challenger")
    challenger = None
    if isinstance(named, dict) and is_model_id(named.get("model_id")):
        challenger = {"model_id": named["model_id"]}
    elif named is not None:
        challenger = {"model_id": "", "problem": f"the pointer names {str(named)[:60]}"}
    return msgspec.convert(without_odd_fields(document) | {"challenger": challenger}, Pointer)


def without_odd_fields(document: dict[str, Any]) -> dict[str, Any]:
    """`document`, a pointer, without values of another type in fields that no model is served by."""
    readable = _without(document, ("key", "since", "by"), str)
    if document.get("hold_until") is not None and not isinstance(document["hold_until"], str):
        readable["hold_until"] = LIFTED
    if "previous" in document:
        previous = document["previous"] if isinstance(document["previous"], list) else []
        readable["previous"] = [
            _without(_without(entry, ("since",), str), ("provisional",), bool)
            for entry in previous
            if isinstance(entry, dict) and is_model_id(entry.get("model_id"))
        ]
    return readable


def _without(document: dict[str, Any], names: tuple[str, ...], kind: type) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names or isinstance(value, kind)}


def time_of(text: str) -> datetime | None:
    """The time that an ISO 8601 `text` names, in UTC where it names no zone; None for other text."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def is_model_id(value: Any) -> bool:
    """Whether `value` could name a model: its folder in the bucket."""
    return isinstance(value, str) and bool(_MODEL_ID.fullmatch(value))

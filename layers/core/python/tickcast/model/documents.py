"""Stored JSON documents as Structs: named fields, and whatever a later version of the code adds to them.

A document may have been written by newer code. The fields that a type here does not know are kept apart in
`unknown` and written again, at every depth, so that reading, changing one field and writing loses nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec.structs import force_setattr

_UNKNOWN = "unknown"


class Document(msgspec.Struct, kw_only=True, frozen=True):
    """A JSON object. Fields named in `omitted_if_none` are left out when None; other fields are always
    written."""

    omitted_if_none: ClassVar[frozenset[str]] = frozenset()
    unknown: dict[str, Any] | None = msgspec.field(default=None, name="")


D = TypeVar("D", bound=Document)


def decode(kind: type[D], value: Any) -> D:
    """The document of that type in JSON values. Raises ValueError naming a field that is missing or of
    another type."""
    document = msgspec.convert(value, kind, str_keys=True)
    _keep_unknown(document, value)
    return document


def encode(value: Any) -> Any:
    """The JSON values of a document, or of what holds documents."""
    if isinstance(value, Document):
        known = {name: getattr(value, name) for name in value.__struct_fields__ if name != _UNKNOWN}
        left_out = {name for name in value.omitted_if_none if known[name] is None}
        return {name: encode(inner) for name, inner in known.items() if name not in left_out} | (
            value.unknown or {}
        )
    if isinstance(value, dict):
        return {str(name): encode(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [encode(inner) for inner in value]
    return msgspec.to_builtins(value)


def _keep_unknown(decoded: Any, value: Any) -> None:
    if isinstance(decoded, Document):
        names = set(decoded.__struct_fields__) - {_UNKNOWN}
        force_setattr(decoded, _UNKNOWN, {name: value[name] for name in value if name not in names} or None)
        for name in names & value.keys():
            _keep_unknown(getattr(decoded, name), value[name])
    elif isinstance(decoded, dict):
        for inner, raw in zip(decoded.values(), value.values(), strict=True):
            _keep_unknown(inner, raw)
    elif isinstance(decoded, list | tuple):
        for inner, raw in zip(decoded, value, strict=True):
            _keep_unknown(inner, raw)

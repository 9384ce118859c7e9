"""Reading and writing JSON by RFC 8259, which has no NaN or Infinity; Python's `json` module does.

Figures (responses, logs, reports) are written by `text`: a number that is not finite becomes null. Documents
that decide something (a model's pointer, a schema, the marker of a complete window) are written by `strict`,
which refuses such a number and names its place. What comes from elsewhere is read by `read`, which refuses it
likewise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any


class JsonError(ValueError):
    """Not valid JSON; the message names the place where it is known."""


def text(value: Any, **options: Any) -> str:
    """`value` as JSON, null in place of every number that is not finite. `options` are `json.dumps`'s."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(finite(value), allow_nan=False, **options)


def strict(value: Any, **options: Any) -> str:
    """`value` as JSON. Raises `JsonError` naming the first number in it that is not finite."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError as error:
        raise JsonError(next(_not_finite(value), str(error))) from None


def read(data: str | bytes) -> Any:
    """The value of JSON text. Raises `JsonError` on anything else; NaN, Infinity and numbers beyond a
    double's range are named by their place."""
    try:
        value = json.loads(data)
        problem = next(_not_finite(value), None)
    except RecursionError:
        raise JsonError("nested too deeply") from None
    except ValueError as error:  # also on bytes that are not UTF-8
        raise JsonError(str(error)) from None
    if problem:
        raise JsonError(problem)
    return value


def finite(value: Any) -> Any:
    """`value` with None in place of every float that is not finite; containers are copied."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {
            str(name) if isinstance(name, float) else name: finite(inner) for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def _not_finite(value: Any, place: str = "") -> Iterator[str]:
    """A message on each number in `value` that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place or 'the value'} is {value}, which is not a finite number"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _not_finite(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            yield from _not_finite(inner, f"{place}[{at}]")

"""JSON as RFC 8259 has it, out and in. Python's own writes and reads NaN and Infinity, which are none.

What leaves the process is written by one of two rules. Records and figures (answers, Redis values, logs,
reports) are written by `text`: what is not finite is not known, and not known is null. Documents that decide
something (a model's pointer, a schema, a marker of what is whole) are written by `strict`: what is not finite
is refused, and named by its place. What comes from elsewhere is read by `read`, which refuses likewise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any


class JsonError(ValueError):
    """What is no JSON; the message names the place where it is known."""


class _NotFiniteError(ValueError):
    pass


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
    """The value of JSON text. Raises `JsonError` on anything else: NaN and Infinity are named by their place,
    and so are numbers beyond a double's range."""
    try:
        return json.loads(data, parse_constant=_refuse, parse_float=_finite_float)
    except _NotFiniteError:
        raise JsonError(next(_not_finite(json.loads(data)), "a number is not finite")) from None
    except RecursionError:
        raise JsonError("nested too deeply") from None
    except ValueError as error:  # bytes that are no UTF-8 as well
        raise JsonError(str(error)) from None


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
    """What is wrong with each number in `value` that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place or 'the value'} is {value}, which is no finite number"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _not_finite(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            yield from _not_finite(inner, f"{place}[{at}]")


def _refuse(word: str) -> Any:
    raise _NotFiniteError(word)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _NotFiniteError(digits)
    return value

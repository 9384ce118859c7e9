"""The configuration's keys and values in words: for the message about a wrong one, and for
docs/configuration.md. Both are made from the types alone, so neither can name what there is not."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from tickcast.adapters.redaction import redact

_SHOWN = 80  # characters of a wrong value that a message quotes
_AT = re.compile(r"(?P<problem>.*) - at (?P<of_key>`key` in )?`\$(?P<path>[^`]*)`", re.S)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*)`", re.S)
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`", re.S)
_FIXED = {"Environment": ("name",)}  # by type, keys that no file has: the file's name says it


class Key(NamedTuple):
    """A setting: its key, its type, and its default (`msgspec.NODEFAULT` where it has none)."""

    name: str
    kind: Any
    default: Any


class Section(NamedTuple):
    """The keys of one Struct, and where in the file they are: empty for the file itself."""

    path: str
    kind: type[Struct]
    keys: tuple[Key, ...]


def sections(kind: type[Struct], path: str = "") -> Iterator[Section]:
    """The section of `kind` and those within it, in the order of their fields."""
    yield (found := _section(kind, path))
    for key in found.keys:
        if inner := struct_of(key.kind):
            yield from sections(inner, f"{path}.{key.name}".lstrip("."))


def should_be(kind: Any) -> str:
    """What a value of a type should be, to follow "it should be"."""
    origin, limits = get_origin(kind), Meta()
    if origin is Annotated:
        kind, *notes = get_args(kind)
        limits = next((note for note in notes if isinstance(note, Meta)), limits)
        origin = get_origin(kind)
    if limits.description:
        return limits.description
    if origin is Literal:
        return f"one of {', '.join(map(shown, get_args(kind)))}"
    if origin in (Union, UnionType):
        return f"null or {' or '.join(should_be(each) for each in get_args(kind) if each is not type(None))}"
    if origin is tuple:
        items = get_args(kind)
        number = "a list" if items[-1] is ... else f"a list of {len(items)}"
        return f"{number}, each {should_be(items[0])}"
    if struct_of(kind):
        return f"keys and values of {', '.join(key.name for key in _section(kind, '').keys)}"
    if kind in (int, float):
        return f"a {'whole ' * (kind is int)}number{_bounds(limits)}"
    return {bool: "true or false", str: "a text"}[kind]


def shown(value: Any) -> str:
    """A value as YAML has it, on one line of bounded length and without secrets."""
    text = redact(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def explained(error: msgspec.ValidationError, values: Any, kind: type[Struct]) -> str:
    """What msgspec says about the `values` of a `kind`, with the key in full and what it should be."""
    found = _AT.fullmatch(str(error))
    problem, path = (found["problem"], found["path"]) if found else (str(error), "")
    way = re.findall(r"[^.\[\]]+", path)
    name = path.lstrip(".")
    if isinstance(error.__cause__, ValueError):  # a check of our own, which says all there is to say
        return f"{name}: {problem}" if name else problem
    if found and found["of_key"]:
        (first, *_) = (key for key in _value_at(values, way) if not isinstance(key, str))
        return _unknown(kind, way, shown(first))
    if unknown := _UNKNOWN.fullmatch(problem):
        return _unknown(kind, way, unknown["key"])
    if missing := _MISSING.fullmatch(problem):
        wanted = should_be(_type_at(kind, [*way, missing["key"]]))
        return f"{name}.{missing['key']} is missing; it should be {wanted}".lstrip(".")
    value, should = _value_at(values, way), should_be(_type_at(kind, way))
    quoted = repr(shown(value)) if isinstance(value, str) else shown(value)
    return f"{name} is {quoted}; it should be {should}"


def _unknown(kind: type[Struct], way: list[str], key: str) -> str:
    """That there is no such key here, which there are, and where one like it is."""
    struct = struct_of(_type_at(kind, way)) or kind
    here = [each.name for each in _section(struct, "").keys]
    path = re.sub(r"\.([0-9]+|\.\.\.)(?=\.|$)", r"[\1]", ".".join(way))
    elsewhere = [
        f"{section.path}.{each.name}".lstrip(".")
        for section in sections(kind)
        for each in section.keys
        if each.name == key
    ]
    close = [f"{path}.{each}".lstrip(".") for each in difflib.get_close_matches(key, here, n=1)]
    hint = f" (did you mean {(close or elsewhere)[0]}?)" if close or elsewhere else ""
    full = f"{path}.{key}".lstrip(".")
    return f"there is no setting {full}{hint}; {path or 'the file'} can have {', '.join(here)}"


def _section(kind: type[Struct], path: str) -> Section:
    hints = get_type_hints(kind, include_extras=True)
    keys = tuple(
        Key(field.name, hints[field.name], field.default)
        for field in msgspec.structs.fields(kind)
        if field.name not in _FIXED.get(kind.__name__, ())
    )
    return Section(path, kind, keys)


def struct_of(kind: Any) -> type[Struct] | None:
    """The Struct that `kind` is, or is unless it is null."""
    if isinstance(kind, type):
        return kind if issubclass(kind, Struct) else None
    return next(filter(None, map(struct_of, get_args(kind))), None) if get_origin(kind) else None


def is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple or any(map(is_list, get_args(kind)))


def _type_at(kind: Any, way: list[str]) -> Any:
    """The type of the key, or of the item of a list, that is found along `way`."""
    for step in way:
        if step.isdecimal() or step == "...":  # of a list
            kind = _items_of(kind)
        elif struct := struct_of(kind):
            kind = get_type_hints(struct, include_extras=True)[step]
        else:
            kind = _items_of(kind)
    return kind


def _items_of(kind: Any) -> Any:
    """The type of the items of a list, which may be null or have a limit of its length."""
    if get_origin(kind) is tuple:
        return get_args(kind)[0]
    return next(filter(None, map(_items_of, get_args(kind))), None)


def _value_at(values: Any, way: list[str]) -> Any:
    for step in way:
        if step == "...":  # msgspec does not say which
            return values
        values = values[step] if isinstance(values, dict) else values[int(step)]
    return values


def _bounds(limits: Meta) -> str:
    """The limits of a number, as " from 1 to 10" or " above 0"."""
    least = [f"from {limits.ge:.10g}"] if limits.ge is not None else []
    least += [f"above {limits.gt:.10g}"] if limits.gt is not None else []
    most = [f"to {limits.le:.10g}"] if limits.le is not None else []
    most += [f"to below {limits.lt:.10g}"] if limits.lt is not None else []
    steps = f", a multiple of {limits.multiple_of}" if limits.multiple_of else ""
    found = " ".join([*least, *most])
    if limits.ge is not None and not most:
        found = f"of at least {limits.ge:.10g}"
    return f" {found}{steps}" if found else steps

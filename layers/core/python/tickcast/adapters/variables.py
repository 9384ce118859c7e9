"""How settings are read from environment variables and command lines.

What a process reads is a `msgspec.Struct` (`tickcast.adapters.settings`) with a field for each variable.
msgspec checks limits, patterns and choices. What it cannot express is parsed here: numbers (it takes "1e3"
for a whole number, and not ".5" for a number), addresses, lists of symbols, secrets
(docs/adr/0030-each-function-has-its-settings.md).

A value that cannot be used is a `SettingsError` that names the variable, the value (never that of a secret)
and what it should be. White space around a value is not part of it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from tickcast.adapters.redaction import redact
from tickcast.market import symbols

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,18}\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?")
_SHOWN = 80  # characters of a wrong value that an error quotes
_LONGEST_SECRET = 4096

Kind = TypeVar("Kind")


class SettingsError(ValueError):
    """A setting that is missing or unusable; the message names it and what it should be."""


class Secret(str):
    """A text that no `repr`, and so no dump of settings, shows."""

    def __repr__(self) -> str:
        return "'***'"


def read(kind: type[Kind], env: Mapping[str, str] | None = None) -> Kind:
    """The settings `kind`, a Struct, from `env` (default: this process's). Raises `SettingsError`.

    A field whose type is itself a Struct is a group of variables.
    """
    given = os.environ if env is None else env
    missing = [name for name, is_required in _variables(kind) if is_required and name not in given]
    if missing:
        raise SettingsError("; ".join(f"the environment variable {name} is not set" for name in missing))
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):  # type: ignore[arg-type]
        if _is_group(field.type):
            values[field.name] = read(field.type, given)
        elif field.encode_name in given:
            values[field.name] = value(field.encode_name, given[field.encode_name], field.type)
    return kind(**values)


def names(kind: type[Struct]) -> tuple[str, ...]:
    """The variables that `read` reads, those of groups included."""
    return tuple(dict(_variables(kind)))


def value(name: str, text: str, kind: Any) -> Any:
    """`text`, the value of the variable or argument `name`, as `kind`. Raises `SettingsError`."""
    text = text.strip()
    if kind is Secret:
        return _secret(name, text)
    try:
        return msgspec.convert(_parser(kind)(text), kind, strict=False)
    except ValueError:
        raise wrong(name, text, _should_be(kind)) from None


def wrong(name: str, text: str, should: str) -> SettingsError:
    """The error for a value of `name` that is not what it `should` be."""
    shown = redact(text)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    return SettingsError(f"{name} is {shown!r}, it should be {should}")


def _variables(kind: Any) -> Iterator[tuple[str, bool]]:
    """(name, whether it is required) of each variable."""
    for field in msgspec.structs.fields(kind):
        if _is_group(field.type):
            yield from _variables(field.type)
        else:
            yield field.encode_name, field.required


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


# -- what msgspec cannot express ---------------------------------------------------------------------------


def _parser(kind: Any) -> Callable[[str], Any]:
    """How a text is parsed before msgspec checks it: by the function in its annotation, if there is one."""
    for note in getattr(kind, "__metadata__", ()):
        if callable(note):
            parser: Callable[[str], Any] = note
            return parser
    return {int: _whole, float: _number}.get(_plain(kind), str)


def _plain(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError
    return float(text)


def _symbols(text: str) -> tuple[str, ...]:
    """Symbols of a comma-separated list, each once, as `symbols.upper` writes them."""
    found = tuple(dict.fromkeys(symbols.upper(part.strip()) for part in text.split(",") if part.strip()))
    if not found or not all(symbols.is_symbol(symbol) for symbol in found):
        raise ValueError
    return found


def _symbol(text: str) -> str:
    (found,) = _symbols(text)
    return found


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        ipaddress.IPv6Address(text)
    return text


def _url(schemes: tuple[str, ...], text: str) -> str:
    """`text` without a slash at its end."""
    parts = urlsplit(text)
    _host(parts.hostname or "")
    is_right = (
        parts.scheme in schemes
        and parts.port != 0
        and "@" not in parts.netloc
        and not (parts.query or parts.fragment)
        and re.fullmatch(r"[\x21-\x7e]+", text)
    )
    if not is_right:
        raise ValueError
    return text.rstrip("/")


def _secret(name: str, text: str) -> Secret:
    """Raises `SettingsError`, which does not show it, when it could not be sent as the value of a header."""
    if re.search(r"\s", text):
        raise SettingsError(f"{name} has white space within: it should be the secret alone, in one piece")
    if re.search(r"['\"`“”‘’]", text):
        raise SettingsError(f"{name} has quotation marks in it: they should be left out")
    if not re.fullmatch(r"[\x21-\x7e]*", text):
        raise SettingsError(
            f"{name} has characters in it that no HTTP header can carry: it should be of printable ASCII"
        )
    if len(text) > _LONGEST_SECRET:
        raise SettingsError(f"{name} has {len(text)} characters: it should have at most {_LONGEST_SECRET}")
    return Secret(text)


Symbols = Annotated[tuple[str, ...], Meta(description="a list like BTCUSDT,ETHUSDT"), _symbols]
Symbol = Annotated[str, Meta(description="one symbol, like BTCUSDT"), _symbol]
Host = Annotated[str, Meta(description="the name or address of a host, without scheme or port"), _host]
HttpUrl = Annotated[
    str,
    Meta(description="an address like https://host, without user, query or fragment"),
    partial(_url, ("https", "http")),
]
WebSocketUrl = Annotated[
    str,
    Meta(description="an address like wss://host, without user, query or fragment"),
    partial(_url, ("wss", "ws")),
]
WebSocketUrlOrNothing = Annotated[
    str,
    Meta(description="an address like wss://host, without user, query or fragment, or nothing"),
    lambda text: text and _url(("wss", "ws"), text),
]


# -- error messages ----------------------------------------------------------------------------------------


def _should_be(kind: Any) -> str:
    limits = next((note for note in getattr(kind, "__metadata__", ()) if isinstance(note, Meta)), Meta())
    if limits.description:
        return limits.description
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if kind is bool:
        return "0 or 1 (or false or true)"
    what = "a whole number" if _plain(kind) is int else "a number"
    lowest = f"from {limits.ge:g}" if limits.ge is not None else f"above {limits.gt:g}"
    highest = f"to {limits.le:.10g}" if limits.le is not None else f"to below {limits.lt:.10g}"
    steps = f", a multiple of {limits.multiple_of}" if limits.multiple_of else ""
    return f"{what} {lowest} {highest}{steps}"

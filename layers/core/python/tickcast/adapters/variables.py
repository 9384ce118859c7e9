"""Settings read from environment variables and command lines, each checked by type, range and choice.

One mechanism for every process. A value that cannot be used is a `SettingsError` that names the variable, the
value (never that of a secret) and what it should be. White space around a value is no part of it, and a
variable that is set to nothing is not taken for its default: it is refused, unless nothing is a choice.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from tickcast.adapters.redaction import redact
from tickcast.market import symbols

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,18}\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")
_FLAGS = {"1": True, "true": True, "0": False, "false": False}
_SHOWN = 80  # characters of a wrong value that an error quotes
_LONGEST_SECRET = 4096


class SettingsError(ValueError):
    """A setting that is missing or cannot be used; the message names it and says what it should be."""


class Variables:
    """Those in `env` (default: this process's environment), read by type."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = os.environ if env is None else env

    def text(
        self, name: str, default: str | None = None, *, pattern: str = r"[\x21-\x7e]{1,255}", like: str = ""
    ) -> str:
        """A text that fully matches `pattern`, such as `like`; without a `default` it has to be set. A
        default of "" makes nothing a choice."""
        value = self._given(name, default)
        if value == "" == default or re.fullmatch(pattern, value):
            return value
        raise wrong(name, value, f"a text like {like}" if like else "a text of printable ASCII, no spaces")

    def whole(self, name: str, default: int, least: int, most: int, *, multiple_of: int = 1) -> int:
        """A whole number from `least` to `most`."""
        return whole(name, self._given(name, str(default)), least, most, multiple_of=multiple_of)

    def number(
        self,
        name: str,
        default: float,
        least: float,
        most: float,
        *,
        above: bool = False,
        below: bool = False,
    ) -> float:
        """A finite number from `least` to `most`; with `above` or `below`, that end is not among them."""
        return number(name, self._given(name, repr(default)), least, most, above=above, below=below)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._given(name, str(default))
        if value.lower() not in _FLAGS:
            raise wrong(name, value, "0 or 1 (or false or true)")
        return _FLAGS[value.lower()]

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        return choice(name, self._given(name, default), choices)

    def port(self, name: str, default: int, least: int = 1) -> int:
        return self.whole(name, default, least, 65_535)

    def host(self, name: str, default: str | None = None) -> str:
        """The name or address of a host, without scheme or port; a default of "" makes nothing a choice."""
        value = self._given(name, default)
        if value == "" == default or _is_host(value):
            return value
        raise wrong(name, value, "the name or address of a host, without scheme or port")

    def region(self) -> str:
        value = self._given("AWS_REGION", "ap-northeast-1")
        if not _REGION.fullmatch(value):
            raise wrong("AWS_REGION", value, "a region like ap-northeast-1")
        return value

    def url(self, name: str, default: str, schemes: Collection[str]) -> str:
        return url(name, self._given(name, default), schemes)

    def symbols(self, name: str = "SYMBOLS") -> tuple[str, ...]:
        return symbols_in(self._given(name, None), name)

    def symbol(self, name: str, default: str) -> str:
        """A single symbol."""
        found = symbols_in(self._given(name, default), name)
        if len(found) != 1:
            raise wrong(name, ",".join(found), "one symbol, like BTCUSDT")
        return found[0]

    def secret(self, name: str) -> str:
        """The value of a secret without the white space around it; "" where it is not set. Raises
        `SettingsError`, which does not show it, when it could not be sent as the value of an HTTP header."""
        return secret(name, self._env.get(name, ""))

    def _given(self, name: str, default: str | None) -> str:
        value = self._env.get(name)
        if value is None:
            if default is None:
                raise SettingsError(f"the environment variable {name} is not set")
            return default
        if not value.strip() and default is None:
            raise SettingsError(f"the environment variable {name} is not set: it is empty")
        return value.strip()


def whole(name: str, value: str, least: int, most: int, *, multiple_of: int = 1) -> int:
    """`value` as a whole number from `least` to `most`. Raises `SettingsError`."""
    steps = f", a multiple of {multiple_of}" if multiple_of != 1 else ""
    should = f"a whole number from {least} to {most}{steps}"
    if not _NUMBER.fullmatch(value):
        raise wrong(name, value, f"a number: {should}")
    if not _WHOLE.fullmatch(value) or not least <= int(value) <= most or int(value) % multiple_of:
        raise wrong(name, value, should)
    return int(value)


def number(
    name: str, value: str, least: float, most: float, *, above: bool = False, below: bool = False
) -> float:
    """`value` as a finite number from `least` to `most`; with `above` or `below`, that end is not among them.
    Raises `SettingsError`."""
    if not _NUMBER.fullmatch(value) or not math.isfinite(float(value)):
        raise wrong(name, value, "a number")
    found = float(value)
    is_low = found <= least if above else found < least
    is_high = found >= most if below else found > most
    if is_low or is_high:
        lowest = f"above {least:g}" if above else f"from {least:g}"
        raise wrong(name, value, f"{lowest} up to {'below ' if below else ''}{most:g}")
    return found


def choice(name: str, value: str, choices: Collection[str]) -> str:
    """`value`, one of `choices`. Raises `SettingsError`."""
    if value not in choices:
        raise wrong(name, value, f"one of {', '.join(choices)}")
    return value


def url(name: str, value: str, schemes: Collection[str]) -> str:
    """`value` as the address of a host, without a slash at its end. Raises `SettingsError`."""
    should = f"an address like {next(iter(schemes))}://host, without user, query or fragment"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise wrong(name, value, should) from None
    is_right = (
        parts.scheme in schemes
        and _is_host(parts.hostname or "")
        and port != 0
        and "@" not in parts.netloc
        and not (parts.query or parts.fragment)
        and re.fullmatch(r"[\x21-\x7e]+", value)
    )
    if not is_right:
        raise wrong(name, value, should)
    return value.rstrip("/")


def secret(name: str, value: str) -> str:
    """`value` without the white space around it. Raises `SettingsError`, which does not show it, when it
    could not be sent as the value of an HTTP header."""
    value = value.strip()
    if re.search(r"\s", value):
        raise SettingsError(f"{name} has white space within: it should be the secret alone, in one piece")
    if re.search(r"['\"`“”‘’]", value):
        raise SettingsError(f"{name} has quotation marks in it: they should be left out")
    if not re.fullmatch(r"[\x21-\x7e]*", value):
        raise SettingsError(
            f"{name} has characters in it that no HTTP header can carry: it should be of printable ASCII"
        )
    if len(value) > _LONGEST_SECRET:
        raise SettingsError(f"{name} has {len(value)} characters: it should have at most {_LONGEST_SECRET}")
    return value


def symbols_in(text: str, name: str = "SYMBOLS") -> tuple[str, ...]:
    """Symbols of a comma-separated list, each once, as `symbols.upper` writes them. Raises `SettingsError`
    when there is none, or one that is no symbol."""
    found = tuple(dict.fromkeys(symbols.upper(part.strip()) for part in text.split(",") if part.strip()))
    if not found or not all(symbols.is_symbol(symbol) for symbol in found):
        raise wrong(name, text, "a list like BTCUSDT,ETHUSDT")
    return found


def _is_host(text: str) -> bool:
    """Whether `text` is a name, or an address, of a host."""
    if _HOST.fullmatch(text):
        return True
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def wrong(name: str, value: str, should: str) -> SettingsError:
    """The error for a `value` of `name` that is not what it `should` be."""
    shown = redact(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    return SettingsError(f"{name} is {shown!r}, it should be {should}")

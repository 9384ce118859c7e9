"""The query of a request, read strictly: whatever is wrong with it is a 400 that names the parameter.

A length is looked at before a value, so that no number is parsed that is longer than it may be.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from tickcast.adapters.http_answers import Refusal

_MS_DIGITS = 13  # epoch milliseconds, until the year 2286
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_INSTANT = "an instant like 2026-01-31T12:00:00Z, or milliseconds since 1970"
_SHOWN = 40  # characters of a wrong value that its problem quotes


class Query:
    """The parameters of one request, of which only `known` may be given, and each only once."""

    def __init__(self, event: Mapping[str, Any], known: Collection[str] = ()) -> None:
        self._values: dict[str, str] = dict(event.get("queryStringParameters") or {})
        if unknown := sorted(set(self._values) - set(known)):
            told = f"known are {', '.join(known)}" if known else "this path takes none"
            raise Refusal(400, "Unknown parameter", f"{_shown(', '.join(unknown))}; {told}", unknown[0])
        for name, values in (event.get("multiValueQueryStringParameters") or {}).items():
            if len(values) > 1:
                raise _bad(name, f"{name} is given {len(values)} times, it should be given once")

    def choice(self, name: str, choices: Collection[int], default: int, unit: str) -> int:
        """One of `choices`, written plainly."""
        text = self._values.get(name, str(default))
        if text not in {str(each) for each in choices}:
            allowed = ", ".join(str(each) for each in choices)
            raise _bad(name, f"{name} is {_shown(text)!r}, it should be one of {allowed} ({unit})")
        return int(text)

    def count(self, name: str, least: int, most: int, default: int) -> int:
        """A whole number from `least` to `most`."""
        text = self._values.get(name, str(default))
        if not _is_plain_number(text, len(str(most))) or not least <= int(text) <= most:
            raise _bad(name, f"{name} is {_shown(text)!r}, it should be {least} to {most} predictions")
        return int(text)

    def instant_ms(self, name: str) -> int | None:
        """An instant as ms since the epoch, at or after it; None where it is not given."""
        text = self._values.get(name)
        if text is None:
            return None
        if _is_plain_number(text, _MS_DIGITS):
            return int(text)
        if not _DATE_TIME.fullmatch(text):
            raise _bad(name, f"{name} is {_shown(text)!r}, it should be {_INSTANT} (a + is written %2B)")
        try:
            instant = datetime.fromisoformat(text.upper())
        except ValueError as error:
            raise _bad(name, f"{name} is {_shown(text)!r} ({error}), it should be {_INSTANT}") from None
        try:
            return max(0, round(instant.astimezone(UTC).timestamp() * 1000))
        except OverflowError:  # a year 1 or 9999 that leaves the calendar in UTC
            return 0 if instant.year == 1 else int("9" * _MS_DIGITS)

    def cursor_ms(self, name: str) -> int | None:
        """A cursor as this API gave it; None where it is not given."""
        text = self._values.get(name)
        if text is not None and not _is_plain_number(text, _MS_DIGITS):
            raise _bad(name, f"{name} is {_shown(text)!r}, it should be taken from `next` of a page before")
        return None if text is None else int(text)


def _is_plain_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


def _bad(name: str, detail: str) -> Refusal:
    return Refusal(400, f"Bad {_shown(name)}", detail, name)


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

"""The query of a request, read strictly: whatever is wrong with it is a 400 that names the parameter.

A length is looked at before a value, so that no number is parsed that is longer than it may be.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from tickcast.adapters.http.responses import ApiError

_MS_DIGITS = 13  # epoch milliseconds, until the year 2286
MAX_MS: int = 10**_MS_DIGITS - 1  # a later instant is as good as this one: nothing is predicted so far ahead
_DATE_TIME = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[Tt](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
    r"(?:\.(?P<fraction>\d+))?(?:[Zz]|(?P<sign>[+-])(?P<offset_h>\d\d):(?P<offset_min>\d\d))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1)
_INSTANT = "an instant like 2026-01-31T12:00:00Z, or milliseconds since 1970"
_LONGEST = 64  # characters of an instant
_SHOWN = 40  # characters of a wrong value that its problem quotes


class Query:
    """The parameters of one request, of which only `known` may be given, and each only once."""

    def __init__(self, event: Mapping[str, Any], known: Collection[str] = ()) -> None:
        self._values: dict[str, str] = dict(event.get("queryStringParameters") or {})
        if unknown := sorted(set(self._values) - set(known)):
            told = f"known are {', '.join(known)}" if known else "this path takes none"
            raise ApiError(400, "Unknown parameter", f"{_shown(', '.join(unknown))}; {told}", unknown[0])
        for name, values in (event.get("multiValueQueryStringParameters") or {}).items():
            if len(values) > 1:
                raise _bad(name, f"{name} is given {len(values)} times, it should be given once")

    def has(self, name: str) -> bool:
        """Whether it is given."""
        return name in self._values

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
        """An instant as ms since the epoch, from 0 to `MAX_MS`: one beyond is taken for that end. None where
        it is not given."""
        text = self._values.get(name)
        if text is None:
            return None
        if _is_plain_number(text, _MS_DIGITS):
            return int(text)
        found = _DATE_TIME.fullmatch(text) if len(text) <= _LONGEST else None
        if not found:
            raise _bad(name, f"{name} is {_shown(text)!r}, it should be {_INSTANT} (a + is written %2B)")
        try:
            return min(max(0, _epoch_ms(found)), MAX_MS)
        except ValueError as error:
            raise _bad(name, f"{name} is {_shown(text)!r} ({error}), it should be {_INSTANT}") from None

    def cursor_ms(self, name: str) -> int | None:
        """A cursor as this API gave it; None where it is not given."""
        text = self._values.get(name)
        if text is not None and not _is_plain_number(text, _MS_DIGITS):
            raise _bad(name, f"{name} is {_shown(text)!r}, it should be taken from `next` of a page before")
        return None if text is None else int(text)


def _epoch_ms(parts: re.Match[str]) -> int:
    """An RFC 3339 date and time as ms since the epoch; digits beyond a millisecond are left out.

    A leap second, 23:59:60 in UTC, is the start of the second after it: POSIX time has none, and which days
    have one is not known in advance. Raises ValueError on what no calendar or clock shows.
    """
    year, month, day, hour, minute, second, offset_h, offset_min = (
        int(str(parts[name] or 0))
        for name in ("year", "month", "day", "hour", "minute", "second", "offset_h", "offset_min")
    )
    if hour > 23 or offset_h > 23 or offset_min > 59:
        raise ValueError("hours are 00 to 23, an offset's minutes 00 to 59")
    is_leap_second = second == 60
    # `datetime` begins with the year 1; 2000 has the same days as 0.
    local = datetime(year or 2000, month, day, hour, minute, 59 if is_leap_second else second)
    offset = timedelta(hours=offset_h, minutes=offset_min) * (-1 if parts["sign"] == "-" else 1)
    since_epoch = local - _EPOCH - offset
    if is_leap_second and (since_epoch + timedelta(seconds=1)) % timedelta(days=1):
        raise ValueError("a leap second is 23:59:60 in UTC")
    if year == 0:
        return 0
    beyond_ms = 1000 if is_leap_second else int((parts["fraction"] or "").ljust(3, "0")[:3])
    whole_ms: int = since_epoch // timedelta(milliseconds=1)
    return whole_ms + beyond_ms


def _is_plain_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


def _bad(name: str, detail: str) -> ApiError:
    return ApiError(400, f"Bad {_shown(name)}", detail, name)


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

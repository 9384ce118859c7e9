"""The parameters of a request as types: a wrong one is a 400 that names it.

Each route has a type for its query (`routes`), by which requests are read here and from which the OpenAPI
document is generated. A number must be written in ASCII digits, no more of them than the largest one allowed
has: `msgspec.convert(..., strict=False)` would also take "1e2", "2.0" and "-0".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, Any, TypeVar, get_args
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tickcast.adapters.http.bodies import DAYS_MAX, HISTORY_MAX, PAGE_MAX
from tickcast.adapters.http.responses import ApiError
from tickcast.market import symbols
from tickcast.model.forecast import HORIZONS_S

PAGE_DEFAULT = 100
DAYS_DEFAULT = 30

_MS_DIGITS = 13  # epoch milliseconds, until the year 2286
MAX_MS: int = 10**_MS_DIGITS - 1  # later instants are replaced by this one: no prediction is so far ahead
_DATE_TIME = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[Tt](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
    r"(?:\.(?P<fraction>\d+))?(?:[Zz]|(?P<sign>[+-])(?P<offset_h>\d\d):(?P<offset_min>\d\d))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1)
_INSTANT = "an instant like 2026-01-31T12:00:00Z, or milliseconds since 1970 (a + is written %2B)"
_INSTANT_MAX_LENGTH = 64
_FLAGS = {"false": 0, "true": 1}
_SHOWN = 40  # characters of a wrong value that its problem quotes


class Horizon(int):
    """Seconds ahead, one of `HORIZONS_S`. Only for decoding: msgspec does not encode it."""


class Instant(int):
    """Milliseconds since 1970, from 0 to `MAX_MS`."""


class Cursor(int):
    """Milliseconds since 1970, in digits."""


class Flag(int):
    """`true` or `false`, as 1 or 0."""


class Symbols(str):
    """Symbols separated by commas, in the exchange's spelling."""

    @property
    def each(self) -> list[str]:
        """Every one of them, once."""
        return list(dict.fromkeys(self.split(",")))


def _expected(text: str, description: str, *examples: str | int) -> Meta:
    """The `Meta` of a parameter; `text` is what an error says was expected."""
    return Meta(description=description, examples=list(examples) or None, extra={"expected": text})


_HORIZON = _expected(
    f"one of {', '.join(map(str, HORIZONS_S))} (seconds)",
    "Seconds ahead. Without it, the primary horizon (2 by default).",
)
_FROM = _expected(
    _INSTANT, "The oldest instant, included. Without it, one hour before `to`.", "2026-01-01T00:00:00Z"
)
_TO = _expected(_INSTANT, "The newest instant, included. Without it, now.", 1767225600000)
_SPAN_FROM = _expected(
    _INSTANT,
    "The start of a span of whole hours, which may be long ago; rounded down. Without `from` and `to` the "
    "answer is for the last hour, with the day and the week in `summary`.",
    "2026-01-01T00:00:00Z",
)
_SPAN_TO = _expected(_INSTANT, "Its end, rounded up; without it, now.", "2026-01-31T00:00:00Z")
_CURSOR = _expected(
    "taken from `next` of the previous page", "Where to continue, as `next` of the previous page has it."
)
_SYMBOLS = _expected(
    "symbols separated by commas, without spaces",
    "Symbols separated by commas, in upper or lower case. Without it, all that are served.",
    "BTCUSDT,ETHUSDT",
)
_HISTORY = "How many of the newest predictions to add as `history`, newest first; fewer if above 6 MB."
_DAYS = "How many of the newest days; fewer if above 6 MB."
_OUTCOMES = _expected("true or false", "Whether each prediction has its outcomes, as far as they are known.")
_OF_HISTORY = _expected("true or false", "Whether those of `history` have their outcomes, as far as known.")
_LIMIT = "The most predictions on a page; fewer if above 6 MB, and `next` continues."
SYMBOLS_PATTERN = r"^[^\s/?#%,-]{1,50}(,[^\s/?#%,-]{1,50})*$"
_SYMBOL = "A market, in upper or lower case; letters beyond ASCII as percent-encoded UTF-8."
_ID = "A prediction's `id`, such as BTCUSDT-1767225600000; letters beyond ASCII as percent-encoded UTF-8."


class Path(msgspec.Struct):
    """All parameters of paths, as described: which symbols are served is configuration."""

    symbol: Annotated[str, Meta(pattern=r"^[^\s/?#%-]{1,50}$", description=_SYMBOL, examples=["BTCUSDT"])]
    id: Annotated[str, Meta(pattern=r"^[^\s/?#%-]{1,50}-[0-9]{1,13}$", description=_ID)]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """The query of a route: without parameters, unless a subtype has some."""


class LatestQuery(Query, frozen=True, kw_only=True):
    horizon: Annotated[Horizon | UnsetType, _HORIZON] = UNSET
    history: Annotated[int, Meta(ge=0, le=HISTORY_MAX, description=_HISTORY)] = 0
    outcomes: Annotated[Flag | UnsetType, _OF_HISTORY] = UNSET


class SeveralQuery(Query, frozen=True, kw_only=True):
    symbols: Annotated[Symbols | UnsetType, _SYMBOLS] = UNSET
    horizon: Annotated[Horizon | UnsetType, _HORIZON] = UNSET


class HistoryQuery(Query, frozen=True, kw_only=True):
    from_: Annotated[Instant | UnsetType, _FROM] = msgspec.field(name="from", default=UNSET)
    to: Annotated[Instant | UnsetType, _TO] = UNSET
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description=_LIMIT)] = PAGE_DEFAULT
    cursor: Annotated[Cursor | UnsetType, _CURSOR] = UNSET
    horizon: Annotated[Horizon | UnsetType, _HORIZON] = UNSET
    outcomes: Annotated[Flag | UnsetType, _OUTCOMES] = UNSET


class AccuracyQuery(Query, frozen=True, kw_only=True):
    from_: Annotated[Instant | UnsetType, _SPAN_FROM] = msgspec.field(name="from", default=UNSET)
    to: Annotated[Instant | UnsetType, _SPAN_TO] = UNSET


class DataQuery(Query, frozen=True, kw_only=True):
    days: Annotated[
        int, Meta(ge=1, le=DAYS_MAX, description=_DAYS, extra={"expected": f"1 to {DAYS_MAX} days"})
    ] = DAYS_DEFAULT


Q = TypeVar("Q", bound=Query)


def read_query(event: Mapping[str, Any], query: type[Q]) -> Q:
    """The query of a proxy event. Raises `ApiError` naming a parameter that is unknown, repeated or wrong."""
    given: Mapping[str, str] = event.get("queryStringParameters") or {}
    allowed = _allowed(query)
    if unknown := sorted(set(given) - set(allowed)):
        known = f"known are {', '.join(allowed)}" if allowed else "this path takes none"
        raise ApiError(400, "Unknown parameter", f"{_shown(', '.join(unknown))}; {known}", unknown[0])
    for name, values in (event.get("multiValueQueryStringParameters") or {}).items():
        if len(values) > 1:
            raise _bad(name, f"{name} is given {len(values)} times, it should be given once")
    try:
        return msgspec.convert(
            {name: _number_or_text(text, allowed[name].le) for name, text in given.items()},
            query,
            dec_hook=_decode,
        )
    except msgspec.ValidationError as error:
        name = str(error).rpartition("$.")[2].rstrip("`")
        why = f" ({error.__cause__})" if str(error.__cause__ or "") else ""
        meta = allowed[name]
        expected = meta.extra["expected"] if meta.extra else f"{meta.ge} to {meta.le} predictions"
        raise _bad(name, f"{name} is {_shown(given[name])!r}{why}, it should be {expected}") from None


def path_parameter(event: Mapping[str, Any], name: str) -> str:
    """A parameter of the path, in the exchange's spelling. A gateway may pass it percent-encoded, as it was
    sent; no symbol has a percent sign. What is not UTF-8 matches no symbol."""
    text = unquote(str((event.get("pathParameters") or {}).get(name, "")), errors="replace")
    return symbols.upper(text)


@cache
def _allowed(query: type[Query]) -> dict[str, Meta]:
    """The `Meta` of each parameter of `query`, by name."""
    return {field.encode_name: _meta(field.type) for field in msgspec.structs.fields(query)}


def _meta(annotation: Any) -> Meta:
    """The `Meta` of a type or, where it is a union, of its members."""
    members = (annotation, *get_args(annotation))
    found: Meta = next(meta for member in members for meta in getattr(member, "__metadata__", ()))
    return found


def _number_or_text(text: str, most: float | None) -> int | str:
    """`text` as a number if it consists of digits and the parameter is a number of up to `most`."""
    return int(text) if most is not None and _is_plain_number(text, len(str(most))) else text


def _decode(kind: type, text: Any) -> Any:
    """The value of a parameter of one of our own types. Raises ValueError, with a message if it says more
    than what was expected."""
    # The function knows which of them are served.
    if kind is Symbols and re.fullmatch(SYMBOLS_PATTERN, text, re.ASCII):
        return Symbols(symbols.upper(text))
    if kind is Horizon and text in map(str, HORIZONS_S):
        return Horizon(text)
    if kind is Flag and text in _FLAGS:
        return Flag(_FLAGS[text])
    if kind in (Instant, Cursor) and _is_plain_number(text, _MS_DIGITS):
        return kind(text)
    found = _DATE_TIME.fullmatch(text) if kind is Instant and len(text) <= _INSTANT_MAX_LENGTH else None
    if not found:
        raise ValueError
    return Instant(min(max(0, _epoch_ms(found)), MAX_MS))


def _epoch_ms(parts: re.Match[str]) -> int:
    """An RFC 3339 date and time as ms since the epoch; digits beyond a millisecond are left out.

    A leap second, 23:59:60 in UTC, is the start of the second after it: POSIX time has none, and which days
    have one is not known in advance. Raises ValueError on an impossible date or time.
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

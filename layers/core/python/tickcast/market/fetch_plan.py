"""Which spans of history to fetch: what is requested, less what was fetched, cut into windows.

A window is a half-open span `[from_us, to_us)` of one symbol's time, at most one UTC day. Cuts are at
midnight, so that a repeated or wider request is cut alike. One execution gets at most `MAX_WINDOWS` of them;
the rest is passed on as spans, which shrink with every execution, so that a chain of executions ends even if
windows fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from tickcast.market.gaps import Gap
from tickcast.units import DAY_US, MILLISECOND_US

MAX_WINDOWS = 200

Reason = Literal["asked", "gap"]
FetchedSpans = Mapping[str, Sequence[tuple[int, int]]]  # by symbol: [from_us, to_us), in any order


class WindowError(ValueError):
    """A request without a valid window."""


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A span of a symbol's time, in whole milliseconds: REST has no finer unit.

    For a gap, `first_id` and `last_id` are the trades missing in it, or in it and its neighbours.
    """

    from_us: int
    to_us: int
    symbol: str
    reason: Reason = "asked"
    first_id: int | None = None
    last_id: int | None = None


def window_from(data: Any) -> Window:
    """The window in a request. Raises `WindowError`."""
    try:
        window = msgspec.convert(data, Window)
    except msgspec.ValidationError as error:
        raise WindowError(f"a window has a symbol and whole numbers, not {data!r}: {error}") from None
    ids = [each for each in (window.first_id, window.last_id) if each is not None]
    if not 0 <= window.from_us < window.to_us or window.from_us % 1000 or window.to_us % 1000:
        raise WindowError(f"a window is made of whole milliseconds and ends after it begins, not {data!r}")
    if len(ids) == 1 or ids != sorted(ids):
        raise WindowError(f"a window names the first and the last id that are missing in it, not {data!r}")
    return window


class Plan(NamedTuple):
    """`windows` are to be fetched now, gaps first, then by time; `left` is for the next execution."""

    windows: list[Window]
    left: list[Window]


def of_gap(symbol: str, gap: Gap) -> Window:
    """The window of the missing trades, with those before and after them."""
    from_us = gap.from_us // MILLISECOND_US * MILLISECOND_US
    to_us = (gap.to_us // MILLISECOND_US + 1) * MILLISECOND_US
    return Window(from_us, to_us, symbol, "gap", gap.first_id, gap.last_id)


def plan(requested: Iterable[Window], fetched: FetchedSpans, limit: int = MAX_WINDOWS) -> Plan:
    """Windows that tile `requested` less `fetched`, each span once even where several cover it.

    A fetched window with a requested gap in it is planned all the same: nothing of it is fetched again, but
    it is loaded and the gap is marked.

    >>> three_days, fetched = Window(0, 3 * DAY_US, "BTCUSDT"), {"BTCUSDT": [(DAY_US, 2 * DAY_US)]}
    >>> [(window.from_us // DAY_US, window.to_us // DAY_US) for window in plan([three_days], fetched).windows]
    [(0, 1), (2, 3)]
    """
    taken = {symbol: list(spans) for symbol, spans in fetched.items()}
    windows = []
    for one in sorted(requested, key=_order):
        spans = taken.setdefault(one.symbol, [])
        if one.reason == "gap":
            windows += [
                replace(one, from_us=from_us, to_us=to_us)
                for from_us, to_us in fetched.get(one.symbol, ())
                if from_us < one.to_us and one.from_us < to_us
            ]
        for from_us, to_us in subtract((one.from_us, one.to_us), spans):
            midnights = range((from_us // DAY_US + 1) * DAY_US, to_us, DAY_US)
            windows += [replace(one, from_us=a, to_us=b) for a, b in pairwise((from_us, *midnights, to_us))]
        spans.append((one.from_us, one.to_us))
    windows.sort(key=_order)
    return Plan(windows[:limit], _joined(windows[limit:]))


def subtract(span: tuple[int, int], covered: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of `span` outside of all spans of `covered`, in order."""
    at, end = span
    left = []
    for from_us, to_us in sorted(covered):
        if to_us <= at:
            continue
        if from_us >= end:
            break
        if from_us > at:
            left.append((at, from_us))
        at = to_us
    if at < end:
        left.append((at, end))
    return left


def _order(window: Window) -> tuple[bool, int, int, str]:
    return window.reason == "asked", window.from_us, window.to_us, window.symbol


def _joined(windows: list[Window]) -> list[Window]:
    """The same spans in as few pieces as possible: adjacent days become one."""
    joined: dict[Window, Window] = {}  # the newest, by all but its times
    done = []
    for window in windows:
        about = replace(window, from_us=0, to_us=0)
        before = joined.get(about)
        if before is not None and before.to_us == window.from_us:
            joined[about] = replace(before, to_us=window.to_us)
            continue
        if before is not None:
            done.append(before)
        joined[about] = window
    return sorted([*done, *joined.values()], key=_order)

"""Which stretches of history to fetch: what is asked for, less what is held, cut into windows.

A window is a half-open stretch `[from_us, to_us)` of one symbol's time, at most one UTC day of it. Cuts lie
at midnight, so that the same question asked twice, or asked wider, is cut alike. One execution gets at most
`MAX_WINDOWS` of them; what does not fit in is handed on as spans, which shrink with every execution, so that
a chain of executions ends whatever becomes of the single windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tickcast.gaps import Gap

MAX_WINDOWS = 200
DAY_US = 86_400 * 1_000_000
HOUR_US = 3_600 * 1_000_000
_MS_US = 1_000

Reason = Literal["asked", "gap"]
Held = Mapping[str, Sequence[tuple[int, int]]]  # by symbol: stretches [from_us, to_us), in any order


@dataclass(frozen=True)
class Window:
    """A stretch of a symbol's time, in whole milliseconds: REST is asked in no finer ones.

    For a gap, `first_id` and `last_id` are the trades that are missing in it.
    """

    from_us: int
    to_us: int
    symbol: str
    reason: Reason = "asked"
    first_id: int | None = None
    last_id: int | None = None


@dataclass(frozen=True)
class Plan:
    """`windows` are to be fetched now, gaps first, then by time; `left` is for the next execution."""

    windows: list[Window]
    left: list[Window]


def of_gap(symbol: str, gap: Gap) -> Window:
    """The stretch that holds the missing trades, with those before and after them."""
    from_us = gap.from_us // _MS_US * _MS_US
    to_us = (gap.to_us // _MS_US + 1) * _MS_US
    return Window(from_us, to_us, symbol, "gap", gap.first_id, gap.last_id)


def plan(asked: Iterable[Window], held: Held, limit: int = MAX_WINDOWS) -> Plan:
    """Windows that tile `asked` less `held`, each stretch once even where several ask for it.

    >>> three_days, held = Window(0, 3 * DAY_US, "BTCUSDT"), {"BTCUSDT": [(DAY_US, 2 * DAY_US)]}
    >>> [(window.from_us // DAY_US, window.to_us // DAY_US) for window in plan([three_days], held).windows]
    [(0, 1), (2, 3)]
    """
    taken = {symbol: list(spans) for symbol, spans in held.items()}
    windows = []
    for one in sorted(asked, key=_order):
        spans = taken.setdefault(one.symbol, [])
        for piece in subtract((one.from_us, one.to_us), spans):
            windows += _cut(one, piece)
        spans.append((one.from_us, one.to_us))
    windows.sort(key=_order)
    return Plan(windows[:limit], _joined(windows[limit:]))


def subtract(span: tuple[int, int], held: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of `span` that no stretch of `held` covers, in order."""
    at, end = span
    left = []
    for from_us, to_us in sorted(held):
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


def hours(from_us: int, to_us: int) -> list[tuple[int, int]]:
    """The stretch cut at the full hours."""
    return _cut_every(HOUR_US, from_us, to_us)


def _order(window: Window) -> tuple[bool, int, int, str]:
    return window.reason == "asked", window.from_us, window.to_us, window.symbol


def _cut(asked: Window, piece: tuple[int, int]) -> list[Window]:
    days = _cut_every(DAY_US, *piece)
    whole = len(days) == 1 and days[0] == (asked.from_us, asked.to_us)
    ids = (asked.first_id, asked.last_id) if whole else (None, None)
    return [Window(*day, asked.symbol, asked.reason, *ids) for day in days]


def _cut_every(step_us: int, from_us: int, to_us: int) -> list[tuple[int, int]]:
    cuts = [from_us, *range((from_us // step_us + 1) * step_us, to_us, step_us), to_us]
    return list(zip(cuts, cuts[1:], strict=False)) if from_us < to_us else []


def _joined(windows: list[Window]) -> list[Window]:
    """The same stretches in as few pieces as they make: days that touch are one again."""
    joined: list[Window] = []
    open_of: dict[tuple[str, Reason], int] = {}
    for window in windows:
        at = open_of.get((window.symbol, window.reason))
        if at is not None and joined[at].to_us == window.from_us and window.first_id is None:
            joined[at] = replace(joined[at], to_us=window.to_us)
            continue
        if window.first_id is None:
            open_of[window.symbol, window.reason] = len(joined)
        joined.append(window)
    return joined

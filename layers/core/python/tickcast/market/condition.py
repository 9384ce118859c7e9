"""The condition of a market's data by day: whether everything is there, was fetched later, or is missing.

Trades and quotes have a condition each, and the day has the worse of the two; it is `missing` only where both
are. Trades can be repaired, since REST has them by id; quotes cannot. What it is made from: the hours of the
day in bronze and in PostgreSQL, the gap ledger, and the marks of repaired gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import replace

from tickcast.market.gaps import TOLERANCE_US, UNKNOWN, WITHHELD, Gap, QuoteGap
from tickcast.market.sources import Source
from tickcast.units import DAY_US, HOUR_US, MINUTE_US, SECOND_US

Condition = Literal["available", "repaired", "degraded", "missing"]
GapStatus = Literal["missing", "repaired", "withheld"]
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
G = TypeVar("G", "DayGap", QuoteGap)

# Of the seconds of a day, 0.1 % (86 s) may be without quotes: reconnects, and silences of a quiet market.
QUOTED_ENOUGH = 0.999
# An hour counts from here on: the archive writes a minute after the ticks, and may have to retry.
ARCHIVED_AFTER_US = 10 * MINUTE_US
# Of a day, those with the most trades. The totals count all, but what is left out is forgotten when the
# ledger forgets it: so it is more than a ledger holds (`gaps.MAX_GAPS`), of which a day may see several.
GAPS_KEPT = 500
QUOTE_GAPS_KEPT = 100


class DayGap(Gap, kw_only=True):
    """A range of trade ids that was not received when the trades happened, between two instants."""

    trades: Count
    status: Annotated[
        GapStatus, Meta(description="fetched later, not to be had from the exchange, or neither")
    ]


class HoursOfDay(Struct, kw_only=True):
    """How many hours of a day are where."""

    expected: Annotated[int, Meta(ge=0, le=24, description="that have begun, since the first data")]
    derived: Annotated[int, Meta(ge=0, le=24, description="whose history is in PostgreSQL")]
    waiting: Annotated[int, Meta(ge=0, le=24, description="in bronze, and not derived since they ended")]
    without: Annotated[list[int], Meta(max_length=24, description="those (0 to 23) without any data")]


class TradesOfDay(Struct, kw_only=True):
    """The trades of a day. A gap that reaches into two days counts in both."""

    condition: Condition
    rows: Annotated[Count, Meta(description="trades or aggregates in the derived hours")]
    missing: Annotated[
        Count,
        Meta(description="trades that were not received while the symbol was served, nor fetched so far"),
    ]
    repaired: Annotated[Count, Meta(description="that were not received, and fetched later")]
    withheld: Annotated[Count, Meta(description="that the exchange itself does not return")]


class QuotesOfDay(Struct, kw_only=True):
    """The quotes of a day."""

    condition: Condition
    rows: Annotated[Count, Meta(description="quotes in the derived hours, those of the perpetual included")]
    coverage: Annotated[
        Share | None,
        Meta(description="share of the seconds whose end has a known book; null: no hour is derived"),
    ]
    gaps: Annotated[list[QuoteGap], Meta(description="spans without quotes, oldest first")]


class DayCondition(Struct, kw_only=True):
    """The condition of a day (UTC)."""

    day: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$")]
    reported_ms: Annotated[Count, Meta(description="when it was last looked at, ms")]
    condition: Condition
    why: Annotated[list[str], Meta(description="further remarks; empty: none")]
    over: Annotated[bool, Meta(description="whether the day has ended")]
    sources: Annotated[list[Source], Meta(description="of the ticks in bronze")]
    hours: HoursOfDay
    trades: TradesOfDay
    quotes: QuotesOfDay
    gaps: Annotated[list[DayGap], Meta(max_length=GAPS_KEPT, description="in trades, oldest first")]
    gaps_left_out: Annotated[Count, Meta(description="of the gaps, those that are not listed")]
    quarantined: Annotated[Count, Meta(description="objects and rows that history leaves out as wrong")]


class ConditionReport(Struct, kw_only=True):
    """The days of a market, oldest first, as of `reported_ms`."""

    symbol: str
    reported_ms: int
    days: list[DayCondition]


class HourFacts(NamedTuple):
    """What PostgreSQL has of an hour. `is_final`: it was derived after the hour was over."""

    is_final: bool
    trade_rows: int = 0
    quote_rows: int = 0
    seconds: int = 0  # of which there is a bar
    quoted: int = 0  # of these, with a known book at their end
    quarantined: int = 0


class DayFacts(NamedTuple):
    """What is known of a day. Hours by their beginnings; `begun_us`: before it nothing is expected."""

    day_us: int
    begun_us: int
    now_us: int
    derived: Mapping[int, HourFacts]
    sources: Mapping[int, frozenset[Source]]  # that bronze has an object of, by hour
    gaps: Sequence[DayGap]
    quote_gaps: Sequence[QuoteGap]


class _Quoted(NamedTuple):
    """Seconds of the expected hours: `known` from derived hours, of these `quoted`; `waiting` for hours to be
    derived, and of these `lost` as far as can be known."""

    known: float
    quoted: float
    waiting: float
    lost: float


def day_name(day_us: int) -> str:
    """The date of the day that begins at `day_us`.

    >>> day_name(0)
    '1970-01-01'
    """
    return str(np.datetime64(day_us // DAY_US, "D"))


def day_us_of(name: str) -> int:
    """The beginning of the day with that date. Raises ValueError where it is none."""
    return int(np.datetime64(name, "D").astype(np.int64)) * DAY_US


def describe_day(facts: DayFacts) -> DayCondition | None:
    """The condition of a day; None while none of its hours is expected to have data."""
    expected = _expected(facts)
    if not expected:
        return None
    without = [hour for hour in expected if not _has_data(facts, hour)]
    waiting = [hour for hour in expected if hour not in without and not _is_final(facts, hour)]
    gaps = _of_day(facts.gaps, facts.day_us)
    quote_gaps = _of_day(facts.quote_gaps, facts.day_us)
    final = [hour for hour in expected if hour in facts.derived]
    is_empty = len(without) == len(expected)
    trades = _trades(facts, final, gaps, is_empty, bool(without))
    quotes, quote_reasons = _quotes(facts, expected, waiting, without, quote_gaps)
    kept = sorted(gaps, key=lambda gap: (-gap.trades, gap.from_us))[:GAPS_KEPT]
    sources = frozenset[Source]().union(*facts.sources.values())
    return DayCondition(
        day=day_name(facts.day_us),
        reported_ms=facts.now_us // 1000,
        condition=_worse(trades.condition, quotes.condition),
        why=_reasons(trades, len(without), len(expected)) + quote_reasons,
        over=facts.now_us >= facts.day_us + DAY_US,
        sources=sorted(each for each in sources if not each.is_reference),
        hours=HoursOfDay(
            expected=len(expected),
            derived=len(expected) - len(without) - len(waiting),
            waiting=len(waiting),
            without=[(hour - facts.day_us) // HOUR_US for hour in without],
        ),
        trades=trades,
        quotes=quotes,
        gaps=sorted(kept, key=lambda gap: (gap.from_us, gap.first_id)),
        gaps_left_out=len(gaps) - len(kept),
        quarantined=sum(facts.derived[hour].quarantined for hour in final),
    )


def settled_gaps(gaps: Iterable[Gap], marks: Iterable[tuple[Gap, GapStatus]]) -> list[DayGap]:
    """`gaps`, each cut into what is missing, repaired and withheld by `marks`, and the marks of other ranges:
    every id once within a series of ids, by time. `gaps` may overlap; then the cause is the first one's that
    is known."""
    pieces: list[DayGap] = []
    named = sorted(gaps, key=lambda gap: gap.cause in (UNKNOWN, WITHHELD))  # the first has the cause
    for mark, status in marks:
        for first_id, last_id in remainder(mark, pieces):
            cause = next((gap.cause for gap in named if is_overlap(gap, mark)), UNKNOWN)
            pieces.append(_piece(mark, first_id, last_id, cause, status))
    for gap in named:
        for first_id, last_id in remainder(gap, pieces):
            status = "withheld" if gap.cause == WITHHELD else "missing"
            pieces.append(_piece(gap, first_id, last_id, gap.cause, status))
    return sorted(pieces, key=lambda gap: (gap.from_us, gap.first_id))


def joined_quote_gaps(gaps: Iterable[QuoteGap]) -> list[QuoteGap]:
    """Each span once, in order; of those that overlap the whole, with the first known cause."""
    joined: list[QuoteGap] = []
    for gap in sorted(gaps, key=lambda gap: (gap.from_us, gap.to_us)):
        if joined and gap.from_us < joined[-1].to_us:
            before = joined[-1]
            cause = gap.cause if before.cause == UNKNOWN else before.cause
            joined[-1] = QuoteGap(before.from_us, max(before.to_us, gap.to_us), cause)
        else:
            joined.append(replace(gap))
    return joined


def _expected(facts: DayFacts) -> list[int]:
    """The hours of the day that have begun long enough ago, and that are not before the first data."""
    until_us = facts.now_us - ARCHIVED_AFTER_US
    hours = range(facts.day_us, facts.day_us + DAY_US, HOUR_US)
    return [hour for hour in hours if hour < until_us and hour + HOUR_US > facts.begun_us]


def _has_data(facts: DayFacts, hour_us: int) -> bool:
    record = facts.derived.get(hour_us)
    return bool(facts.sources.get(hour_us)) or (record is not None and record.seconds > 0)


def _is_final(facts: DayFacts, hour_us: int) -> bool:
    return hour_us in facts.derived and facts.derived[hour_us].is_final


def _of_day(gaps: Sequence[G], day_us: int) -> list[G]:
    return [gap for gap in gaps if gap.from_us < day_us + DAY_US and gap.to_us >= day_us]


def _trades(
    facts: DayFacts, derived: list[int], gaps: list[DayGap], is_empty: bool, lacks_hours: bool
) -> TradesOfDay:
    totals: dict[str, int] = {"missing": 0, "repaired": 0, "withheld": 0}
    for gap in gaps:
        if gap.status != "missing" or gap.is_missed:
            totals[gap.status] += gap.trades
    condition: Condition = "available"
    if is_empty:
        condition = "missing"
    elif totals["missing"] or totals["withheld"] or lacks_hours:
        condition = "degraded"
    elif totals["repaired"]:
        condition = "repaired"
    rows = sum(facts.derived[hour].trade_rows for hour in derived)
    return TradesOfDay(condition=condition, rows=rows, **totals)


def _quotes(
    facts: DayFacts, expected: list[int], waiting: list[int], without: list[int], gaps: list[QuoteGap]
) -> tuple[QuotesOfDay, list[str]]:
    """The quotes, and what there is to say about them."""
    seconds = _seconds(facts, expected, waiting, gaps)
    coverage = min(1.0, seconds.quoted / seconds.known) if seconds.known else None
    share = (seconds.quoted + seconds.waiting - seconds.lost) / max(1.0, seconds.known + seconds.waiting)
    reasons: list[str] = []
    condition: Condition = "available"
    if share <= 0:
        condition = "missing"
        if len(without) < len(expected):
            reasons.append("no quotes: they come by the stream alone, and trades were fetched later")
    elif share < QUOTED_ENOUGH:
        condition = "degraded"
        reasons.append(f"quotes in {100 * share:.2f} % of the seconds")
    elif coverage is not None and coverage < QUOTED_ENOUGH:
        reasons.append(f"quotes in {100 * share:.2f} % of the seconds, with the hours not derived yet")
    rows = sum(facts.derived[hour].quote_rows for hour in expected if hour in facts.derived)
    kept = sorted(sorted(gaps, key=lambda gap: gap.from_us - gap.to_us)[:QUOTE_GAPS_KEPT], key=_begins)
    rounded = None if coverage is None else round(coverage, 6)
    return QuotesOfDay(condition=condition, rows=rows, coverage=rounded, gaps=kept), reasons


def _seconds(facts: DayFacts, expected: list[int], waiting: list[int], gaps: list[QuoteGap]) -> _Quoted:
    known = quoted = pending = lost = 0.0
    for hour in expected:
        from_us, to_us = max(hour, facts.begun_us), min(hour + HOUR_US, facts.now_us)
        length_s = (to_us - from_us) / SECOND_US
        if hour not in waiting:
            known += length_s
            quoted += facts.derived[hour].quoted if hour in facts.derived else 0
            continue
        pending += length_s
        streamed = [each for each in facts.sources.get(hour, ()) if each is not Source.REST]
        spans = ((max(gap.from_us, from_us), min(gap.to_us, to_us)) for gap in gaps)
        in_gaps_s = sum(max(0, end - begin) for begin, end in spans) / SECOND_US
        lost += min(length_s, in_gaps_s) if streamed else length_s
    return _Quoted(known, quoted, pending, lost)


def _begins(gap: QuoteGap) -> int:
    return gap.from_us


def _reasons(trades: TradesOfDay, without: int, expected: int) -> list[str]:
    reasons = []
    if without == expected:
        return ["no data"]
    if without:
        reasons.append(f"no data in {without} of {expected} hours")
    if trades.missing:
        reasons.append(f"{trades.missing} trades missing")
    if trades.withheld:
        reasons.append(f"{trades.withheld} trades withheld by the exchange")
    if trades.repaired:
        reasons.append(f"{trades.repaired} trades fetched later")
    return reasons


def _worse(trades: Condition, quotes: Condition) -> Condition:
    both = {trades, quotes}
    if both == {"missing"}:
        return "missing"
    if both & {"missing", "degraded"}:
        return "degraded"
    return "repaired" if "repaired" in both else "available"


def _piece(gap: Gap, first_id: int, last_id: int, cause: str, status: GapStatus) -> DayGap:
    return DayGap(
        first_id, last_id, gap.from_us, gap.to_us, cause, trades=last_id - first_id + 1, status=status
    )


def is_overlap(one: Gap, other: Gap) -> bool:
    """Whether two ranges share an id, of one series of ids: their times agree too."""
    is_of_time = one.from_us - TOLERANCE_US <= other.to_us and other.from_us <= one.to_us + TOLERANCE_US
    return one.first_id <= other.last_id and other.first_id <= one.last_id and is_of_time


def remainder(gap: Gap, taken: Iterable[Gap]) -> list[tuple[int, int]]:
    """The ranges of the ids of `gap`, ends included, that are not in `taken`."""
    left, at = [], gap.first_id
    for other in sorted((each for each in taken if is_overlap(gap, each)), key=lambda each: each.first_id):
        if other.first_id > at:
            left.append((at, other.first_id - 1))
        at = max(at, other.last_id + 1)
    if at <= gap.last_id:
        left.append((at, gap.last_id))
    return left

"""The condition of a day, from what is known of its hours and gaps."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tickcast.market.condition import (
    GAPS_KEPT,
    Condition,
    DayCondition,
    DayFacts,
    DayGap,
    HourFacts,
    day_name,
    day_us_of,
    describe_day,
    joined_quote_gaps,
    settled_gaps,
)
from tickcast.market.gaps import NOT_SERVED, UNKNOWN, WITHHELD, Gap, QuoteGap
from tickcast.market.sources import Source
from tickcast.units import DAY_US, HOUR_US, MINUTE_US, SECOND_US

DAY = day_us_of("2026-11-20")
NOON = DAY + 12 * HOUR_US
HOURS = range(DAY, DAY + DAY_US, HOUR_US)
WHOLE = HourFacts(True, trade_rows=10, quote_rows=20, seconds=3600, quoted=3600)
STREAM, FETCHED = frozenset({Source.SBE}), frozenset({Source.REST})


def day(**known: Any) -> DayCondition:
    """A day of a live market, all of it derived, but for what is `known`."""
    facts: dict[str, Any] = {
        "day_us": DAY,
        "begun_us": DAY,
        "now_us": DAY + 2 * DAY_US,
        "derived": dict.fromkeys(HOURS, WHOLE),
        "sources": dict.fromkeys(HOURS, STREAM),
        "gaps": [],
        "quote_gaps": [],
    }
    found = describe_day(DayFacts(**facts | known))
    assert found is not None
    return found


def gap(status: str, trades: int = 3, from_us: int = NOON) -> DayGap:
    return DayGap(100, 99 + trades, from_us, from_us + SECOND_US, "reset", trades=trades, status=status)  # type: ignore[arg-type]


def test_a_whole_day_is_available() -> None:
    found = day()
    assert (found.day, found.condition, found.why, found.over) == ("2026-11-20", "available", [], True)
    assert (found.hours.expected, found.hours.derived, found.hours.waiting) == (24, 24, 0)
    assert (found.quotes.coverage, found.trades.rows, found.quotes.rows) == (1, 240, 480)
    assert found.sources == [Source.SBE]


@pytest.mark.parametrize(
    ("gaps", "condition", "why"),
    [
        ([gap("repaired")], "repaired", "3 trades fetched later"),
        ([gap("missing")], "degraded", "3 trades missing"),
        ([gap("withheld")], "degraded", "3 trades withheld by the exchange"),
        ([gap("repaired", 5), gap("missing", 1)], "degraded", "1 trades missing; 5 trades fetched later"),
        ([gap("missing", from_us=DAY - HOUR_US)], "available", ""),  # of the day before
        ([gap("missing", from_us=DAY - SECOND_US)], "degraded", "3 trades missing"),  # ends in this one
    ],
)
def test_trades_decide_by_what_became_of_them(gaps: list[DayGap], condition: Condition, why: str) -> None:
    found = day(gaps=gaps)
    assert (found.condition, "; ".join(found.why)) == (condition, why)
    assert found.quotes.condition == "available"


def test_trades_of_a_pause_are_listed_and_not_missing() -> None:
    paused = replace(gap("missing"), cause=NOT_SERVED)
    found = day(gaps=[paused])
    assert (found.condition, found.trades.missing, found.gaps) == ("available", 0, [paused])
    assert day(gaps=[replace(paused, status="repaired")]).trades.repaired == 3


def test_hours_without_anything_are_named() -> None:
    left = {hour: WHOLE for hour in HOURS if hour not in (DAY + 3 * HOUR_US, DAY + 4 * HOUR_US)}
    found = day(derived=left, sources=dict.fromkeys(left, STREAM))
    assert (found.condition, found.hours.without, found.hours.derived) == ("degraded", [3, 4], 22)
    assert found.why == ["no data in 2 of 24 hours", "quotes in 91.67 % of the seconds"]
    assert found.quotes.coverage == pytest.approx(22 / 24, abs=1e-6)


def test_a_day_without_anything_is_missing() -> None:
    found = day(derived={}, sources={})
    assert (found.condition, found.why, found.hours.without) == ("missing", ["no data"], list(range(24)))
    assert (found.trades.condition, found.quotes.condition) == ("missing", "missing")


def test_a_day_of_fetched_trades_has_no_quotes() -> None:
    facts = WHOLE._replace(quote_rows=0, quoted=0)
    for derived in (dict.fromkeys(HOURS, facts), {}):  # before it is derived, too
        found = day(derived=derived, sources=dict.fromkeys(HOURS, FETCHED))
        assert (found.condition, found.trades.condition) == ("degraded", "available")
        assert (found.quotes.condition, found.quotes.coverage) == ("missing", 0 if derived else None)


def test_a_minute_without_quotes_is_tolerated_and_two_are_not() -> None:
    for minutes, condition in ((1, "available"), (2, "degraded")):
        lacking = {NOON: WHOLE._replace(quoted=3600 - 60 * minutes)}
        assert day(derived=dict.fromkeys(HOURS, WHOLE) | lacking).condition == condition
        # Not derived yet, it is known by the ledger.
        quote_gap = QuoteGap(NOON, NOON + minutes * MINUTE_US, "reset")
        found = day(derived={}, quote_gaps=[quote_gap])
        assert (found.condition, found.quotes.coverage) == (condition, None)
        assert (found.hours.waiting, found.quotes.gaps) == (24, [quote_gap])


def test_today_is_expected_as_far_as_the_archive_has_got() -> None:
    now_us = NOON + 9 * MINUTE_US
    hours = [hour for hour in HOURS if hour < NOON]
    derived = dict.fromkeys(hours[:-1], WHOLE) | {hours[-1]: WHOLE._replace(is_final=False, quoted=1)}
    found = day(now_us=now_us, derived=derived, sources=dict.fromkeys(hours, STREAM))
    assert (found.condition, found.over, found.hours.expected) == ("available", False, 12)
    assert (found.hours.derived, found.hours.waiting) == (11, 1)
    assert day(now_us=now_us + 2 * MINUTE_US, derived=derived, sources={}).hours.without == [12]
    facts = DayFacts(DAY, DAY, DAY + 9 * MINUTE_US, {}, {}, [], [])
    assert describe_day(facts) is None


def test_nothing_is_expected_before_the_first_data() -> None:
    begun_us = NOON + 30 * MINUTE_US
    hours = [hour for hour in HOURS if hour >= NOON]
    derived = dict.fromkeys(hours, WHOLE) | {NOON: WHOLE._replace(seconds=1800, quoted=1800)}
    found = day(begun_us=begun_us, derived=derived, sources=dict.fromkeys(hours, STREAM))
    assert (found.condition, found.hours.expected, found.quotes.coverage) == ("available", 12, 1)


def test_the_largest_gaps_are_listed_and_all_are_counted() -> None:
    gaps = [gap("missing", trades=1 + n, from_us=NOON + n) for n in range(GAPS_KEPT + 7)]
    found = day(gaps=gaps)
    assert (len(found.gaps), found.gaps_left_out, found.gaps[0].trades) == (GAPS_KEPT, 7, 8)
    assert found.trades.missing == sum(each.trades for each in gaps)


def test_marks_cut_a_gap_and_keep_its_cause() -> None:
    whole = Gap(100, 199, NOON, NOON + SECOND_US, "reset")
    parts = [
        (Gap(100, 149, NOON, NOON + SECOND_US), "repaired"),
        (Gap(150, 150, NOON, NOON + SECOND_US), "withheld"),
        (Gap(900, 901, NOON, NOON), "repaired"),  # a gap that no report has seen
    ]
    for gaps in ([whole], [Gap(100, 199, NOON, NOON + SECOND_US, WITHHELD), whole]):
        found = settled_gaps(gaps, parts)  # type: ignore[arg-type]
        assert [(each.first_id, each.last_id, each.status, each.cause) for each in found] == [
            (100, 149, "repaired", "reset"),
            (150, 150, "withheld", "reset"),
            (151, 199, "missing", "reset"),
            (900, 901, "repaired", UNKNOWN),
        ]
        assert settled_gaps(found, [(each, each.status) for each in found]) == found  # and again
    # Another trade has the same id, a day later: the exchange restarted its ids.
    later = [(Gap(100, 199, NOON + DAY_US, NOON + DAY_US), "repaired")]
    assert [each.status for each in settled_gaps([whole], later)] == ["missing", "repaired"]  # type: ignore[arg-type]
    (withheld,) = settled_gaps([Gap(1, 2, NOON, NOON, WITHHELD)], [])
    assert withheld.status == "withheld"


def test_quote_gaps_that_overlap_are_one() -> None:
    first, second = QuoteGap(10, 20), QuoteGap(15, 30, "reset")
    apart = QuoteGap(40, 50)
    assert joined_quote_gaps([apart, second, first, second]) == [QuoteGap(10, 30, "reset"), apart]


def test_days_have_the_names_of_their_dates() -> None:
    assert day_us_of(day_name(DAY)) == DAY
    with pytest.raises(ValueError, match="20th"):
        day_us_of("20th")

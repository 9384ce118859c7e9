"""Report the condition of every symbol's data by day, into the lake: `condition/symbol=….json`.

A report continues the one before. So what only the hot store knows, such as the cause of a gap, is kept when
the ledger has forgotten it. A day is looked at again only until a day after its end, and when its history or
its marks change: a run reads two days, and what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import psycopg
import redis
from botocore.exceptions import BotoCoreError, ClientError
from msgspec.structs import replace

from tickcast.adapters.lake import condition_reports, hour_inputs
from tickcast.adapters.lake.objects import list_folders
from tickcast.adapters.postgres.condition_store import ConditionStore
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.registry.served_symbols import served_or
from tickcast.adapters.settings import ReportConditionSettings
from tickcast.market.condition import (
    Condition,
    ConditionReport,
    DayCondition,
    DayFacts,
    DayGap,
    HourFacts,
    day_name,
    day_us_of,
    describe_day,
    is_overlap,
    joined_quote_gaps,
    remainder,
    settled_gaps,
)
from tickcast.market.gaps import Gap, GapRecord, LedgerRecord
from tickcast.market.sources import Source
from tickcast.units import DAY_US, HOUR_US

DAYS_KEPT = 400
# Days without anything count as missing, unless they are more in a row: then what follows is another
# beginning, such as that of today's market after a recording of years ago.
MOST_MISSING_DAYS = 31
_CHANGED_WITHIN_MS = (
    900_000  # a change shows only once it is committed: the longest load of an hour, and more
)
_RESERVE_MS = 20_000  # a busy day takes a second or two


class Result(msgspec.Struct):
    """The result of a run. `complete` is False when time ran out: the next run continues."""

    days: int = 0  # that were looked at
    conditions: dict[str, dict[Condition, int]] = {}  # by symbol how many days are in which condition
    failures: dict[str, str] = {}  # symbols on which something was raised, and what
    problems: list[str] = []
    complete: bool = True


class ReportCondition:
    """Reports on the symbols that are served. `clock_ms` is the wall clock."""

    def __init__(
        self,
        settings: ReportConditionSettings,
        store: HotStore,
        s3: Any,
        database: Database,
        clock_ms: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._s3 = s3
        self._database = database
        self._clock_ms = clock_ms

    def __call__(self, remaining_ms: Callable[[], float]) -> Result:
        """Raises what `served_or`, Redis, PostgreSQL and S3 raise; anything else concerns one symbol."""
        result, bucket = Result(), self._settings.bucket
        symbols = list(served_or(self._s3, bucket, self._settings.symbols))
        store = ConditionStore(self._database.connection())
        ledgers = self._store.gaps(symbols)
        sources = [each for each in hour_inputs.sources_of(self._s3, bucket) if not each.is_reference]
        for symbol in symbols:
            try:
                self._report(store, symbol, ledgers[symbol], sources, remaining_ms, result)
            except (redis.RedisError, psycopg.Error, BotoCoreError, ClientError, OSError):
                raise
            except Exception as error:
                result.failures[symbol] = describe(error)
        return result

    def _report(
        self,
        store: ConditionStore,
        symbol: str,
        ledger: LedgerRecord | None,
        sources: list[Source],
        remaining_ms: Callable[[], float],
        result: Result,
    ) -> None:
        now_ms = round(self._clock_ms())
        reported = self._reported(symbol, result)
        days = self._days(symbol, sources, reported, now_ms * 1000)
        changed_ms = store.changed_ms(symbol)
        market = _Market(self._s3, self._settings, store, symbol, ledger, sources, now_ms * 1000)
        for day_us in sorted(days, reverse=True):
            before = reported.get(day_us)
            if before and not _is_due(day_us, before.reported_ms, changed_ms.get(day_us), now_ms):
                continue
            if remaining_ms() < _RESERVE_MS:
                result.complete = False
                break
            if found := market.day(day_us, before, is_first=day_us - DAY_US not in days):
                reported[day_us] = found
            result.days += 1
        kept = [reported[day_us] for day_us in sorted(reported)[-DAYS_KEPT:]]
        report = ConditionReport(symbol=symbol, reported_ms=now_ms, days=kept)
        condition_reports.put_report(self._s3, self._settings.bucket, report)
        counts = result.conditions.setdefault(symbol, {})
        for day in kept:
            counts[day.condition] = counts.get(day.condition, 0) + 1

    def _reported(self, symbol: str, result: Result) -> dict[int, DayCondition]:
        """The days of the report before; none where it cannot be read."""
        try:
            report = condition_reports.read_report(self._s3, self._settings.bucket, symbol)
        except ValueError as error:  # msgspec's are too
            key = condition_reports.report_key(symbol)
            result.problems.append(f"{key} cannot be read, and is replaced: {describe(error)}")
            return {}
        return {day_us_of(day.day): day for day in report.days} if report else {}

    def _days(
        self, symbol: str, sources: list[Source], reported: Mapping[int, DayCondition], now_us: int
    ) -> set[int]:
        """The days with data, and those after each, up to the next or today, as far as they count as
        missing."""
        found = hour_inputs.days_of(self._s3, self._settings.bucket, symbol, sources)
        found |= {day_us for day_us, day in reported.items() if day.condition != "missing"}
        today_us = now_us // DAY_US * DAY_US
        known = sorted(day_us for day_us in found if day_us <= today_us)
        days = set(known)
        for day_us, next_us in pairwise([*known, today_us]):
            if next_us - day_us <= MOST_MISSING_DAYS * DAY_US:
                days |= set(range(day_us, next_us + 1, DAY_US))
        return days


class _Known(NamedTuple):
    """The hours of a day that are derived, with those next to it, and those of which bronze has anything."""

    day_us: int
    derived: Mapping[int, HourFacts]
    sources: Mapping[int, frozenset[Source]]

    def is_settled(self, hour_us: int) -> bool:
        """Whether the history has all that there is of an hour; False where that is not known."""
        if hour_us in self.derived:
            return self.derived[hour_us].is_final
        return self.day_us <= hour_us < self.day_us + DAY_US and hour_us not in self.sources


class _Market:
    """One symbol's facts, as of `now_us`."""

    def __init__(
        self,
        s3: Any,
        settings: ReportConditionSettings,
        store: ConditionStore,
        symbol: str,
        ledger: LedgerRecord | None,
        sources: list[Source],
        now_us: int,
    ) -> None:
        self._s3 = s3
        self._settings = settings
        self._store = store
        self._symbol = symbol
        self._ledger = ledger or LedgerRecord(missing_trades=0, forgotten_trades=0, gaps=[], quote_gaps=[])
        self._sources = sources
        self._now_us = now_us

    def day(self, day_us: int, before: DayCondition | None, is_first: bool) -> DayCondition | None:
        """The condition of a day, of which `before` was reported. `is_first`: nothing is known of the day
        before it, so it may have begun at any time."""
        around = self._store.hours(self._symbol, day_us - HOUR_US, day_us + DAY_US + HOUR_US)
        sources = self._hours_in_bronze(day_us)
        begun_us = day_us
        if is_first:
            first_us = self._store.first_us(self._symbol, day_us)
            begun_us = min([day_us + DAY_US, *sources]) if first_us is None else first_us
        quote_gaps = [*self._ledger.quote_gaps, *(before.quotes.gaps if before else ())]
        return describe_day(
            DayFacts(
                day_us=day_us,
                begun_us=begun_us,
                now_us=self._now_us,
                derived=around,
                sources=sources,
                gaps=self._gaps(day_us, before, _Known(day_us, around, sources)),
                quote_gaps=joined_quote_gaps(quote_gaps),
            )
        )

    def _hours_in_bronze(self, day_us: int) -> dict[int, frozenset[Source]]:
        found: dict[int, set[Source]] = {}
        for source in self._sources:
            folder = f"bronze/source={source}/symbol={self._symbol}/date={day_name(day_us)}/hour="
            for hour in list_folders(self._s3, self._settings.bucket, folder):
                found.setdefault(day_us + int(hour) * HOUR_US, set()).add(source)
        return {hour_us: frozenset(each) for hour_us, each in found.items()}

    def _gaps(self, day_us: int, before: DayCondition | None, known: _Known) -> list[DayGap]:
        """The gaps of a day: those of the ledger, those reported before, those that the history shows, and
        those that were repaired or are withheld."""
        marks = self._store.marks(self._symbol, day_us, day_us + DAY_US)
        reported = before.gaps if before else []
        # Marks in the database take precedence over what they made of a gap when it was reported.
        marks += [(gap, gap.status) for gap in reported if gap.status != "missing"]
        ledger = [_as_gap(gap) for gap in self._ledger.gaps]
        in_ledger = [gap for gap in ledger if gap.from_us < day_us + DAY_US and gap.to_us >= day_us]
        found: list[Gap] = []
        for gap in settled_gaps([*in_ledger, *reported], marks):
            if gap.status != "missing" or not self._has_history_of(gap, known):
                found.append(gap)
                continue
            lacking = self._store.lacking(self._symbol, gap)
            found += lacking
            # What the history has of it was fetched without being asked for by the gap, or came after all:
            # then the ledger no longer has it.
            if any(is_overlap(gap, each) for each in in_ledger):
                found.append(gap)
                marks += [
                    (replace(gap, first_id=first, last_id=last), "repaired")
                    for first, last in remainder(gap, lacking)
                ]
        if self._keeps_trades_of(day_us):
            for hole in self._store.holes(self._symbol, day_us):
                if hole.to_us >= day_us and self._has_history_of(hole, known):
                    found += self._store.lacking(self._symbol, hole)
        return settled_gaps(found, marks)

    def _has_history_of(self, gap: Gap, known: _Known) -> bool:
        """Whether the history can tell which trades of `gap` are there: it keeps trades so old, and has every
        hour that `gap` reaches into, or bronze has nothing of that hour."""
        hours = range(gap.from_us // HOUR_US * HOUR_US, gap.to_us + 1, HOUR_US)
        return self._keeps_trades_of(gap.from_us) and all(map(known.is_settled, hours))

    def _keeps_trades_of(self, time_us: int) -> bool:
        keep_days = self._settings.trades_keep_days
        today_us = self._now_us // DAY_US * DAY_US
        return not keep_days or time_us >= today_us - keep_days * DAY_US


def _is_due(day_us: int, reported_ms: int, changed_ms: int | None, now_ms: int) -> bool:
    """Whether a day has to be looked at again: until a day after its end, and when it changed."""
    if now_ms * 1000 < day_us + 2 * DAY_US:
        return True
    return changed_ms is not None and changed_ms > reported_ms - _CHANGED_WITHIN_MS


def _as_gap(gap: GapRecord) -> Gap:
    return Gap(gap.first_id, gap.last_id, gap.from_us, gap.to_us, gap.cause)

"""The condition of days from bronze, history, gap ledger and marks, report after report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from tests.fixtures.aws import BUCKET
from tests.fixtures.history_tables import SYMBOL, aggregates, put_hours
from tests.fixtures.market import START_US, random_ticks
from tests.fixtures.settings import configured
from tickcast.adapters.lake import condition_reports
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.gap_store import GapStore
from tickcast.adapters.postgres.history_store import OpenStore
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.registry.served_symbols import SERVED
from tickcast.adapters.settings import DatabaseSettings, HistorySettings, ReportConditionSettings
from tickcast.functions.load_history import LoadHistory
from tickcast.functions.mark_repaired import mark_repaired
from tickcast.functions.report_condition import ReportCondition, Result
from tickcast.market.condition import ConditionReport, DayCondition
from tickcast.market.fetch_plan import Window
from tickcast.market.gaps import MAX_GAPS, UNKNOWN, GapLedger, QuoteGap
from tickcast.serving.records import encode
from tickcast.units import DAY_US, HOUR_US, MINUTE_US

DAY = START_US // DAY_US * DAY_US  # the market begins at 22:13 and ends at 23:48
UNTIL_US = DAY + DAY_US + 5 * MINUTE_US
SETTINGS = configured(ReportConditionSettings, SYMBOLS=SYMBOL, TRADES_KEEP_DAYS=30)
LOST = range(1600, 1620)  # trade ids


class Reporter:
    """The function, as if it were `now_us`, with what it reads from."""

    def __init__(self, s3: Any, client: Any, reader: Database, history: Database) -> None:
        self.s3, self.client, self._history = s3, client, history
        self.now_us, self.remaining_ms = UNTIL_US, 1e9
        store = HotStore(client, SETTINGS.lateness_us)
        self._report = ReportCondition(SETTINGS, store, s3, reader, lambda: self.now_us / 1000)

    def run(self) -> Result:
        return self._report(lambda: self.remaining_ms)

    def days(self) -> dict[str, DayCondition]:
        """The days of a new report."""
        assert self.run().failures == {}
        report = condition_reports.read_report(self.s3, BUCKET, SYMBOL)
        assert report is not None
        return {day.day: day for day in report.days}

    def day(self) -> DayCondition:
        return self.days()["2025-07-31"]

    def load(self) -> None:
        """Derive the history from bronze."""
        settings = HistorySettings(keep_days=0, grid_ms=60_000, quoted_grid_ms=60_000, trades_keep_days=0)
        load = LoadHistory(settings, self.s3, BUCKET, OpenStore(self._history), lambda: self.now_us)
        window = {"symbol": SYMBOL, "from_us": START_US, "to_us": UNTIL_US}
        load({"window": window}, lambda: 1e9)

    def set_ledger(self, ledger: GapLedger) -> None:
        self.client.set(keys.gaps(SYMBOL), encode(ledger.record()))


@pytest.fixture
def reporter(
    s3: Any, redis_client: Any, loader_settings: DatabaseSettings, history_database: Database
) -> Iterator[Reporter]:
    with Database(replace(loader_settings, user="tickcast_reader")) as reader:
        yield Reporter(s3, redis_client, reader, history_database)


@pytest.fixture(scope="module")
def ticks() -> Any:
    return random_ticks(7, 1.57 * 3600, trades_s=0.3, quotes_s=0.6)


def ledger_of(trades: Any, cause: str = "reset by peer") -> tuple[GapLedger, Window]:
    """The ledger while the trades `LOST` are missing, and the window that repairs them."""
    before, after = (int(trades[trades["first_id"] == id_]["time_us"][0]) for id_ in (1599, 1620))
    ledger = GapLedger()
    ledger.missing(LOST[0], LOST[-1], before, after)
    ledger.gaps[0].cause = cause
    window = Window(before // 1000 * 1000, after // 1000 * 1000 + 1000, SYMBOL, "gap", LOST[0], LOST[-1])
    return ledger, window


@pytest.mark.parametrize("withheld", [[], [(1605, 1606)]])
def test_a_gap_is_missing_until_it_is_fetched_and_keeps_its_cause(
    reporter: Reporter, ticks: Any, repairer_database: Database, withheld: list[tuple[int, int]]
) -> None:
    trades, quotes = ticks
    lost = np.isin(trades["first_id"], LOST)
    put_hours(reporter.s3, trades[~lost], quotes)
    ledger, window = ledger_of(trades)
    ledger.quote_gaps = [QuoteGap(START_US + HOUR_US, START_US + HOUR_US + 7_000_000, "reset by peer")]
    reporter.set_ledger(ledger)

    day = reporter.day()  # before anything is derived
    assert (day.condition, day.why) == ("degraded", ["20 trades missing"])
    assert (day.hours.expected, day.hours.waiting, day.quotes.coverage) == (2, 2, None)
    assert [(gap.status, gap.trades, gap.cause) for gap in day.gaps] == [("missing", 20, "reset by peer")]
    assert [gap.cause for gap in day.quotes.gaps] == ["reset by peer"]

    reporter.load()
    day = reporter.day()
    assert (day.condition, day.trades.missing, day.hours.waiting) == ("degraded", 20, 0)
    assert day.quotes.coverage is not None

    never = np.isin(trades["first_id"], [id_ for first, last in withheld for id_ in range(first, last + 1)])
    put_hours(reporter.s3, trades[lost & ~never], quotes[:0], source="rest", name="fetched")
    reporter.load()
    mark_repaired(window, withheld, GapStore(repairer_database.connection()), reporter.client)
    reporter.client.delete(keys.gaps(SYMBOL))  # the hot store has forgotten all of it

    day = reporter.day()
    assert {gap.cause for gap in day.gaps} == {"reset by peer"}
    assert (day.trades.missing, day.trades.withheld) == (0, 2 * len(withheld))
    assert day.trades.repaired == 20 - day.trades.withheld
    assert day.trades.condition == ("degraded" if withheld else "repaired")
    assert [gap.cause for gap in day.quotes.gaps] == ["reset by peer"]
    assert reporter.day() == replace(day, reported_ms=reporter.now_us // 1000)


def test_all_gaps_of_a_full_ledger_outlive_it(reporter: Reporter, ticks: Any) -> None:
    put_hours(reporter.s3, *ticks)
    ledger = GapLedger()
    for n in range(MAX_GAPS):
        at_us = START_US + n * 1_000_000
        ledger.missing(10**9 + 100 * n, 10**9 + 100 * n + 9, at_us, at_us + 1000)
    reporter.set_ledger(ledger)
    assert reporter.day().trades.missing == 10 * MAX_GAPS
    reporter.client.delete(keys.gaps(SYMBOL))
    assert reporter.day().trades.missing == 10 * MAX_GAPS


def test_what_has_left_the_ledger_is_missing_only_where_the_history_lacks_it(
    reporter: Reporter, ticks: Any
) -> None:
    trades, quotes = ticks
    lost = np.isin(trades["first_id"], LOST)
    put_hours(reporter.s3, trades[~lost], quotes)
    reporter.set_ledger(ledger_of(trades)[0])
    assert reporter.day().trades.missing == 20
    reporter.client.delete(keys.gaps(SYMBOL))
    assert reporter.day().trades.missing == 20  # nothing is derived: the history cannot tell
    reporter.load()
    assert reporter.day().trades.missing == 20
    late = trades[lost & (trades["first_id"] < 1610)]
    put_hours(reporter.s3, late, quotes[:0], name="late")
    reporter.load()
    day = reporter.day()
    assert [(gap.first_id, gap.last_id, gap.cause) for gap in day.gaps] == [(1610, 1619, "reset by peer")]
    # What was fetched for another reason, while the ledger still has the gap, is repaired.
    reporter.set_ledger(ledger_of(trades)[0])
    day = reporter.day()
    assert (day.trades.missing, day.trades.repaired) == (10, 10)


def test_a_silence_over_which_ids_rose_is_found_without_the_ledger(reporter: Reporter, ticks: Any) -> None:
    trades, quotes = ticks
    silent = slice(START_US + 50 * MINUTE_US + 1, START_US + 55 * MINUTE_US)
    trades_left, quotes_left = (
        each[(each["time_us"] < silent.start) | (each["time_us"] >= silent.stop)] for each in ticks
    )
    put_hours(reporter.s3, trades_left, quotes_left)
    reporter.load()
    lost = np.setdiff1d(trades["first_id"], trades_left["first_id"])
    day = reporter.day()
    assert [(gap.first_id, gap.last_id, gap.cause) for gap in day.gaps] == [(lost[0], lost[-1], UNKNOWN)]
    assert day.quotes.condition == "degraded"
    rest = aggregates(trades[np.isin(trades["first_id"], lost)])
    put_hours(reporter.s3, rest, quotes[:0], source="rest", name="fetched")
    reporter.load()
    assert reporter.day().trades.missing == 0


def test_days_without_data_are_missing_but_not_those_between_two_recordings(
    reporter: Reporter, ticks: Any
) -> None:
    trades, quotes = (each.copy() for each in ticks)
    put_hours(reporter.s3, trades, quotes)
    for each in (trades, quotes):
        each["time_us"] -= 100 * DAY_US
    put_hours(reporter.s3, trades, quotes, source="replay")
    reporter.now_us = UNTIL_US + 3 * DAY_US
    days = reporter.days()
    assert {name: day.condition for name, day in days.items()} == {
        "2025-04-22": "available",
        "2025-07-31": "available",
        "2025-08-01": "missing",
        "2025-08-02": "missing",
        "2025-08-03": "missing",  # today, at five past midnight, is not expected yet
    }
    # Bronze expires; what was reported stays. Old days without changes are not looked at again.
    for stored in reporter.s3.list_objects_v2(Bucket=BUCKET, Prefix="bronze/")["Contents"]:
        reporter.s3.delete_object(Bucket=BUCKET, Key=stored["Key"])
    assert reporter.run().days == 2
    assert reporter.days()["2025-07-31"] == days["2025-07-31"]


def test_a_run_that_is_out_of_time_is_continued(reporter: Reporter, ticks: Any) -> None:
    put_hours(reporter.s3, *ticks)
    reporter.now_us, reporter.remaining_ms = UNTIL_US + 3 * DAY_US, 0
    result = reporter.run()
    assert (result.complete, result.days, result.conditions) == (False, 0, {SYMBOL: {}})
    reporter.remaining_ms = 1e9
    assert reporter.run().conditions == {SYMBOL: {"available": 1, "missing": 3}}


def test_what_fails_of_one_symbol_or_cannot_be_read_stops_no_other(
    reporter: Reporter, ticks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_hours(reporter.s3, *ticks)
    served = {"version": 1, "symbols": ["ETHUSDT", SYMBOL]}
    reporter.s3.put_object(Bucket=BUCKET, Key=SERVED, Body=json.dumps(served))
    key = condition_reports.report_key(SYMBOL)
    reporter.s3.put_object(Bucket=BUCKET, Key=key, Body=b'{"days": 1}')
    put_report = condition_reports.put_report

    def put(s3: Any, bucket: str, report: ConditionReport) -> None:
        if report.symbol == "ETHUSDT":
            raise ValueError("a fault")
        put_report(s3, bucket, report)

    monkeypatch.setattr(condition_reports, "put_report", put)
    result = reporter.run()
    assert result.failures == {"ETHUSDT": "ValueError: a fault"}
    assert result.conditions == {SYMBOL: {"available": 1}}
    assert [problem.partition(",")[0] for problem in result.problems] == [f"{key} cannot be read"]

"""A month of history at full volume: docs/scaling.md has the tables, and all keeps within its limits."""

from __future__ import annotations

import math

import pytest

from benchmarks import backfill_scale
from benchmarks.backfill_scale import DAYS, MEASURED, SYMBOLS, TABLES, Backfill, rows
from tests.fixtures.paths import ROOT
from tests.state_machines.test_backfill_and_retrain import FETCHED, Machine, only, planned
from tickcast.functions import fetch_history, load_history
from tickcast.market.fetch_plan import MAX_WINDOWS


@pytest.mark.parametrize("table", TABLES, ids=[table.__name__ for table in TABLES])
def test_the_document_has_the_tables(table: object) -> None:
    assert callable(table)
    assert table() in (ROOT / "docs" / "scaling.md").read_text("utf-8")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.what)
def test_a_month_of_two_busy_symbols_keeps_within_each_limit(row: backfill_scale.Row) -> None:
    assert row.fits


def test_a_slower_hour_reaches_the_limits() -> None:
    """The check is one: an hour that takes longer than a call, or more memory than it has, is seen."""
    slow = MEASURED._replace(fetch_s=1e5, load_s=811, load_mb=2049)
    assert {row.what for row in rows(slow) if not row.fits} >= {
        "a file: what an interrupted fetch asks for again",
        "an hour of `load_history`",
        "memory of `load_history`",
    }


def test_the_limits_are_those_of_the_code() -> None:
    assert backfill_scale.RESERVE_S * 1000 == fetch_history._RESERVE_MS
    assert backfill_scale.LOAD_RESERVE_S * 1000 == load_history._ENOUGH_MS
    assert DAYS * SYMBOLS <= MAX_WINDOWS


@pytest.mark.slow
def test_the_events_of_a_window_are_those_of_the_state_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    of = Backfill(MEASURED)
    found = []
    for days in (1, 2):
        machine = Machine(monkeypatch)
        machine.answer("PlanBackfill", planned({"BTCUSDT": days}))
        one = [*[FETCHED | {"status": "continue"}] * (of.fetch_calls - 1), FETCHED]
        machine.answer("FetchHistory", *one * days)
        found.append(only(machine.run()).events)
    assert found[1] - found[0] <= of.window_events


@pytest.mark.slow
def test_an_hour_is_measured() -> None:
    sample = backfill_scale.measure(count=3000)
    assert all(math.isfinite(value) and value > 0 for value in sample)

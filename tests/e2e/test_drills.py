"""A short subset of the drills on the shared system; `make drills` runs them all on a system of their own."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from local.commands import deployment
from local.drills import runner
from local.system.api import Api
from local.system.progress import Progress
from local.system.system import System

pytestmark = pytest.mark.integration

PUBLISHED_S = 3  # the ledger is published once a second


def test_nothing_is_lost_and_nothing_counted_twice(system: System) -> None:
    drills = runner.chosen(["drop", "corrupt", "two_tasks"])
    results = runner.run(system, drills, Progress(Console(file=io.StringIO())))
    assert {name: result.problems for name, result in results.items()} == {d.name: [] for d in drills}
    report = runner.report(results)
    assert (report["ok"], report["ticks_lost"]) == (True, 0)
    assert report["drills"]["corrupt"]["in_ledger"] > 0
    assert len(system.ingest) == 1  # as before


def test_missing_trades_are_listed_by_health(system: System) -> None:
    before, skipped = missing(system), skipped_ids(system.api)
    runner.run(system, runner.chosen(["pause_trades"]), Progress(Console(file=io.StringIO())))
    time.sleep(PUBLISHED_S)
    assert missing(system) > before
    address = next(url for url in deployment.running().values() if url == system.api_url)
    assert skipped_ids(Api(address)) - skipped


def skipped_ids(api: Api) -> set[int]:
    """The first ids of the gaps in trades that the exchange skipped. Other drills may leave newer gaps."""
    services = api.services().values()
    gaps = [gap for service in services for gap in service.get("gaps", [])]
    return {gap["first_id"] for gap in gaps if "skipped by the exchange" in gap["cause"]}


def missing(system: System) -> int:
    services = system.api.services()
    return sum(services[f"predict_stream:{symbol}"]["missing_trades"] for symbol in system.symbols)

"""The page stays open: its clock is wound forward, and what it uses stays bounded."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
from playwright.sync_api import Page

from local.system.api import Api
from tests.dashboard.conftest import Open
from tests.dashboard.tab import Tab
from tests.fixtures.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

# Ten minutes are twice what the page keeps; DASHBOARD_SECONDS=3600 for an hour.
SECONDS = int(os.environ.get("DASHBOARD_SECONDS", "600"))
STEP_S = 30
USED = {"Nodes": 1.1, "JSEventListeners": 1.1, "JSHeapUsedSize": 1.15}  # growth allowed once all is filled
NETWORK = ROOT / "tests" / "dashboard" / "an_hour.js"


def recorded(api: Api) -> dict[str, str]:
    """Responses of the API by a part of their path."""
    found: dict[str, Any] = {
        "predictions/": api.body("predictions/BTCUSDT", history=300),
        "accuracy/": api.body("accuracy/BTCUSDT"),
        "models": api.body("models"),
        "health": api.get("health").body,
    }
    return {path: json.dumps(body) for path, body in found.items()}


def used(tab: Tab) -> dict[str, float]:
    """What the page uses after a collection of garbage, as the browser counts it."""
    session = tab.page.context.new_cdp_session(tab.page)
    session.send("Performance.enable")
    session.send("HeapProfiler.collectGarbage")
    metrics = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return {each["name"]: each["value"] for each in metrics if each["name"] in USED}


def test_an_open_page_stays_small(open_dashboard: Open, scored: Api) -> None:
    given = {"recorded": recorded(scored), "recordedMs": round(1000 * time.time())}
    network = f"({NETWORK.read_text('utf-8').rstrip()})({json.dumps(given)})"

    def wind_up(page: Page) -> None:
        page.clock.install()
        page.add_init_script(network)

    tab = open_dashboard(prepare=wind_up)
    tab.wait_for_forecast()
    use = []
    for _ in range(SECONDS // STEP_S):
        tab.page.clock.run_for(1000 * STEP_S)
        use.append(used(tab))
    polls = tab.page.evaluate("() => window.polls")
    assert polls >= 0.9 * SECONDS
    filled, end = use[len(use) // 2], use[-1]
    print(f"{polls} polls; at first, half-way, at last: {use[0]}, {filled}, {end}")  # shown by `pytest -s`
    assert {name: (filled[name], end[name]) for name in USED if end[name] > USED[name] * filled[name]} == {}
    assert tab.problems == []

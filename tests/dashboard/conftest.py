"""A browser on the dashboard: Debian's Chromium without a window, driven by Playwright.

The tests are skipped where there is no Chromium; `CHROMIUM=required` makes that a failure. They need the
running system, or any deployment whose API `URL` and `KEY` name: then the page is the one of this checkout,
so that a change of it is seen without a deployment (`make screenshots URL=… KEY=…`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from layers import site_files
from local.commands import deployment
from local.system.api import Api, ApiFailed
from local.system.system import System
from tests.dashboard.tab import Answers, Look, Tab
from tests.fixtures.paths import ROOT
from tests.fixtures.running_system import eventually
from tickcast.adapters.http.responses import Response
from tickcast.functions import serve_predictions

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PICTURES = ROOT / "out" / "dashboard"
SCORED_WITHIN_S = 240  # scores come every minute, of outcomes that are a few seconds old

Open = Callable[..., Tab]


def chromium() -> str:
    """The browser's path. Skips, or fails where it is required."""
    for name in PROGRAMS:
        # One of Ubuntu's packages has this name, and starts nothing.
        if (path := shutil.which(name)) and not subprocess.run(
            [path, "--version"], capture_output=True
        ).returncode:
            return path
    reason = f"needs Chromium (apt-get install chromium): none of {', '.join(PROGRAMS)} is on the PATH"
    if os.environ.get("CHROMIUM") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Ends with the last test of this folder: while it runs, no other code of this thread may run asyncio."""
    program = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--js-flags=--expose-gc"])
        yield started
        started.close()


if os.environ.get("URL"):

    @pytest.fixture(name="api")
    def api_elsewhere() -> Api:
        return deployment.api_at(os.environ["URL"], os.environ.get("KEY", ""))

else:

    @pytest.fixture(name="api")
    def api_of_the_running_system(system: System) -> Api:
        return system.api


@cache
def becomes_scored(api: Api) -> bool:
    """Wait for a prediction by the model, and figures of its accuracy; no test after the first waits for what
    does not come."""

    def is_scored() -> bool:
        try:
            latest, accuracy = api.body("predictions/BTCUSDT"), api.body("accuracy/BTCUSDT")
        except ApiFailed:
            return False
        hour = (accuracy["summary"] or {}).get("hour", {}).get("horizons", {})
        return latest["source"] == "model" and any(each["count"] > 30 for each in hour.values())

    try:
        eventually(is_scored, SCORED_WITHIN_S)
    except AssertionError:
        return False
    return True


@pytest.fixture
def scored(api: Api) -> Api:
    """The API once it has something to show."""
    assert becomes_scored(api), f"no prediction by the model, or no scores, within {SCORED_WITHIN_S} s"
    return api


@pytest.fixture(scope="session")
def own_page() -> Response | None:
    return serve_predictions.dashboard(site_files.page()) if os.environ.get("URL") else None


@pytest.fixture
def open_dashboard(browser: Browser, scored: Api, own_page: Response | None) -> Iterator[Open]:
    """Opens the dashboard in a tab of its own: `open_dashboard(answers, look, key=…)`, after
    `prepare`."""
    opened: list[Tab] = []

    def open_one(
        answers: Answers | None = None,
        look: Look | None = None,
        *,
        key: str | None = None,
        prepare: Callable[[Page], object] = lambda page: None,
    ) -> Tab:
        tab = Tab(browser, scored, answers or Answers(), look or Look(), own_page)
        opened.append(tab)
        prepare(tab.page)
        tab.go(scored.key if key is None else key)
        return tab

    yield open_one
    for tab in opened:
        tab.close()


@pytest.fixture(scope="session")
def pictures() -> Path:
    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES

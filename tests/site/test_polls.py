"""The dashboard over an API that answers by script: polls that overtake each other, and answers that a
running system seldom gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from layers import site_files
from tests.dashboard.conftest import chromium
from tests.fixtures import client_api, records
from tests.fixtures.client_api import START_MS, latest, problem
from tickcast.evaluation.live_scores import SPANS
from tickcast.evaluation.skill import MIN_BLOCKS
from tickcast.units import MINUTE_US

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = "https://api.example/v1/"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
Answer = Callable[[Route], httpx.Response | None]  # None: it comes later


class ScriptedPage:
    """The page in a tab. `answers` are by path; `asked` has the paths that were asked for, in order, `held`
    the requests whose answers come later."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.held: dict[str, Route] = {}
        self._document = site_files.page()
        page.route("**/*", self._answer)

    def go(self, fragment: str = "key=a-key") -> None:
        self.page.goto(f"{ROOT}#{fragment}")

    def hold(self, path: str) -> None:
        """The next request of `path` waits for `release`."""

        def later(route: Route) -> None:
            self.held[path] = route
            del self.answers[path]

        self.answers[path] = later

    def release(self, path: str, answer: httpx.Response | None = None) -> None:
        self._fulfil(self.held.pop(path), answer or self._usual(path))

    def until(self, is_so: Callable[[], object], timeout_s: float = 60) -> None:
        for _ in range(round(timeout_s / 0.02)):
            if is_so():
                return
            self.page.wait_for_timeout(20)
        raise AssertionError(f"asked for {self.asked}:\n{self.page.inner_text('body')[:1000]}")

    def until_it_says(self, text: str) -> None:
        self.until(lambda: text in self.page.inner_text("body"))

    def _answer(self, route: Route) -> None:
        path = urlsplit(route.request.url).path.removeprefix("/v1/")
        if not path:
            route.fulfill(body=self._document, content_type="text/html; charset=utf-8")
            return
        self.asked.append(path)
        answer = self.answers[path](route) if path in self.answers else self._usual(path)
        if answer is not None:
            self._fulfil(route, answer)

    def _fulfil(self, route: Route, answer: httpx.Response) -> None:
        route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)

    def _usual(self, path: str) -> httpx.Response:
        kind, _, symbol = path.partition("/")
        if kind == "health":
            feeds: dict[str, Any] = {f"feed:{each}": {"ok": True, "why": None} for each in SYMBOLS}
            return client_api.health("ok", **feeds)
        if kind == "predictions":
            return httpx.Response(200, json=latest(symbol=symbol, history=[client_api.listed(START_MS)]))
        if kind == "accuracy":
            return httpx.Response(200, json=client_api.accuracy(client_api.SKILL))
        if kind == "models":
            return httpx.Response(200, json={"current": None, "models": [], "total": 0})
        return problem(404, f"nothing is reported of {symbol}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program)
        yield started
        started.close()


@pytest.fixture
def scripted(browser: Browser) -> Iterator[ScriptedPage]:
    context = browser.new_context(locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(60_000)
    yield ScriptedPage(context.new_page())
    context.close()


def choose(scripted: ScriptedPage, symbol: str) -> None:
    scripted.page.get_by_role("button", name=symbol, exact=True).click()


def test_a_poll_of_the_symbol_before_does_not_count(scripted: ScriptedPage) -> None:
    """It ended after another symbol was chosen, and that one's accuracy was not asked for in its turn."""
    scripted.hold("data/BTCUSDT")
    scripted.go()
    scripted.until(lambda: "data/BTCUSDT" in scripted.held)
    scripted.hold("health")
    choose(scripted, "ETHUSDT")
    scripted.until(lambda: "health" in scripted.held)
    scripted.release("data/BTCUSDT", problem(404, "nothing of the symbol before"))
    scripted.page.wait_for_timeout(300)
    scripted.release("health")
    scripted.until(lambda: scripted.asked.count("predictions/ETHUSDT") > 1)
    since = scripted.asked[scripted.asked.index("predictions/ETHUSDT") :]
    assert since[:4] == ["predictions/ETHUSDT", "accuracy/ETHUSDT", "models", "data/ETHUSDT"]
    assert "nothing of the symbol before" not in scripted.page.inner_text("body").lower()


def test_nothing_of_the_symbol_before_is_left(scripted: ScriptedPage) -> None:
    scripted.answers["accuracy/BTCUSDT"] = lambda _: problem(404, "of the symbol before")
    scripted.hold("accuracy/ETHUSDT")
    scripted.go()
    scripted.until_it_says("Of the symbol before.")
    choose(scripted, "ETHUSDT")
    scripted.until(lambda: "accuracy/ETHUSDT" in scripted.held)
    scripted.until_it_says("ETHUSDT, mid price")
    assert "Of the symbol before" not in scripted.page.inner_text("body")


def test_a_refusal_of_the_key_before_leaves_the_new_one(scripted: ScriptedPage) -> None:
    scripted.hold("predictions/BTCUSDT")
    scripted.go("key=old")
    scripted.until(lambda: scripted.held)
    scripted.page.evaluate("location.hash = 'key=new'")
    scripted.until(lambda: scripted.asked.count("predictions/BTCUSDT") > 1)
    scripted.release("predictions/BTCUSDT", problem(403, "not accepted"))
    scripted.until_it_says("BTCUSDT, mid price")
    scripted.page.wait_for_timeout(300)
    assert scripted.page.evaluate("key()") == "new"
    assert not scripted.page.get_by_label("API key").is_visible()


def test_a_key_that_cannot_be_sent_is_asked_for_again(scripted: ScriptedPage) -> None:
    """It was kept, and the API said not to answer."""
    scripted.go("key=%E2%80%9Ca-key%E2%80%9D")
    scripted.until_it_says("it has characters that no key has")
    field = scripted.page.get_by_label("API key")
    field.fill("a-key")
    field.press("Enter")
    scripted.until_it_says("BTCUSDT, mid price")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("null", "The answer is not the API's."),
        ('{"summary": 1}', "The answer is not the API's."),
        (json.dumps(latest(history=[], age_ms=None)), "The page cannot show an answer: "),
    ],
    ids=["null", "another", "incomplete"],
)
def test_an_answer_that_cannot_be_shown_is_said_and_tried_again(
    scripted: ScriptedPage, body: str, said: str
) -> None:
    """The page stopped for good, as if the price were that of now."""
    scripted.answers["predictions/BTCUSDT"] = lambda _: httpx.Response(200, text=body)
    scripted.go()
    scripted.until_it_says(said)
    del scripted.answers["predictions/BTCUSDT"]
    scripted.until_it_says("BTCUSDT, mid price")
    scripted.until(lambda: said not in scripted.page.inner_text("body"))


@pytest.mark.parametrize("asked", ["3000000", "-5"])
def test_a_wait_that_no_timer_can_hold_is_no_burst(scripted: ScriptedPage, asked: str) -> None:
    refused = problem(429, "too many", **{"Retry-After": asked})
    scripted.answers["predictions/BTCUSDT"] = lambda _: refused
    scripted.go()
    scripted.until(lambda: "predictions/BTCUSDT" in scripted.asked)
    scripted.page.wait_for_timeout(900)
    assert scripted.asked.count("predictions/BTCUSDT") <= 3  # of a burst there are dozens


def test_after_a_pause_late_outcomes_are_asked_for_as_well(scripted: ScriptedPage) -> None:
    urls: list[str] = []
    scripted.page.on("request", lambda each: urls.append(each.url))
    scripted.go()
    scripted.until_it_says("BTCUSDT, mid price")
    scripted.page.evaluate("Object.assign(state, { answered: Date.now() - 60000, round: 1 })")
    scripted.until(lambda: any("history=7" in each or "history=8" in each for each in urls))


def test_forecasts_older_than_the_longest_view_are_dropped(scripted: ScriptedPage) -> None:
    """The latency of the last minutes was drawn over hours after a tab was out of sight."""
    scripted.go()
    scripted.until_it_says("BTCUSDT, mid price")
    found = scripted.page.evaluate(
        """() => {
          const at = [0, 1, 36000].map(second => ({ id: String(second), timestamp: 1000 * second }));
          state.entries = [];
          keep(at.toReversed());
          return state.entries.map(entry => entry.id);
        }"""
    )
    assert found == ["36000"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (60001.744, "60,001.74"),
        (3000.126, "3,000.13"),
        (12.34567, "12.3457"),
        (1.5, "1.50"),
        (0.000009123456, "0.00000912346"),
        (0, "0.00"),
    ],
)
def test_a_price_has_six_digits(scripted: ScriptedPage, value: float, shown: str) -> None:
    scripted.go("")
    assert scripted.page.evaluate("value => price(value)", value) == shown


def test_a_receipt_says_what_was_forecast_before_its_outcome_is_known(scripted: ScriptedPage) -> None:
    """The interval was left out until then, and the sentence was of 2 s whatever was chosen."""
    asked = f"BTCUSDT-{START_MS}"
    over_5_s = records.horizon(5, expected_move_bp=-3.0, lower=99.9, upper=100.1)
    horizons = {h: records.horizon(h) for h in (1, 2, 10)} | {5: over_5_s}
    shown = httpx.Response(200, json=client_api.receipt(horizons=horizons))
    scripted.answers[f"predictions/BTCUSDT/{asked}"] = lambda _: shown
    scripted.go(f"key=a-key&horizon=5&receipt={asked}")
    scripted.until_it_says("▼ down 3.00 bp in 5 s with 70 % confidence, 80 % interval 99.90 … 100.10.")
    row = scripted.page.get_by_role("row", name=re.compile("^5 s")).first.inner_text()
    assert "± 10.00 bp" in row
    assert "not known yet" in row


def test_the_move_is_said_to_be_still_to_come(scripted: ScriptedPage) -> None:
    scripted.go()
    scripted.until_it_says("still to come, to 60,001.74 at ")


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ("hour", ["intervals need ten minutes", "steps of 5 minutes, too short for 95 % intervals"]),
        ("day", ["intervals need two and a half hours", "of an hour, with 95 % intervals where 50 minutes"]),
        ("week", ["intervals need ten hours", "of a day, with 95 % intervals where ten hours"]),
    ],
)
def test_how_long_an_interval_needs_is_said(scripted: ScriptedPage, span: str, said: list[str]) -> None:
    scripted.go()
    scripted.until_it_says("BTCUSDT, mid price")
    scripted.page.locator(f"[name=span][value={span}]").check(force=True)
    for text in said:
        scripted.until_it_says(text)


def test_the_span_s_blocks_are_those_that_the_page_states() -> None:
    blocks = {span.name: (10 * span.block_us // MINUTE_US, 10 * span.part_us // MINUTE_US) for span in SPANS}
    assert blocks == {"hour": (10, 10), "day": (150, 50), "week": (600, 600)}
    assert MIN_BLOCKS == 10


def test_what_was_known_before_a_pause_is_shown_as_old(scripted: ScriptedPage) -> None:
    scripted.go()
    scripted.until_it_says("BTCUSDT, mid price")
    was_old = scripted.page.evaluate(
        """() => {
          const see = isHidden => {
            Object.defineProperty(document, "hidden", { configurable: true, value: isHidden });
            document.dispatchEvent(new Event("visibilitychange"));
          };
          see(true);
          state.answered -= 3600000;
          see(false);
          return at("main").classList.contains("old");
        }"""
    )
    assert was_old
    scripted.until(lambda: not scripted.page.locator("main.old").count())

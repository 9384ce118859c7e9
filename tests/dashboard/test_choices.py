"""What a person can choose: a market, a horizon, a span, colours, an earlier forecast and its receipt."""

from __future__ import annotations

import re

import pytest

from local.system.api import Api
from tests.dashboard.accessibility import violations
from tests.dashboard.conditions import AWAY
from tests.dashboard.conftest import Open
from tests.dashboard.tab import Answers, Tab
from tests.fixtures.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


def receipt_of(tab: Tab) -> str:
    """The id of the receipt shown, once its parts are there."""
    panel = tab.page.get_by_role("dialog")
    command = panel.get_by_text("make explain ID=")
    command.wait_for()
    found = re.search(r"ID=(\S+)", command.inner_text())
    assert found
    return found[1]


def test_markets_and_horizons_are_chosen_by_the_keyboard(open_dashboard: Open, scored: Api) -> None:
    tab = open_dashboard()
    tab.wait_for_forecast()
    with tab.page.expect_response("**/data/ETHUSDT"):
        tab.page.get_by_role("button", name="ETHUSDT").press("Enter")
        tab.says("ETHUSDT, mid price")
    tab.page.get_by_role("radio", name="2", exact=True).focus()
    tab.page.keyboard.press("ArrowRight")
    tab.says("In 5 s")
    tab.page.get_by_role("radio", name="day").focus()
    tab.page.keyboard.press("Space")
    assert tab.page.get_by_role("radio", name="day").is_checked()
    asked = {each.url.rpartition("/")[0].rpartition("/")[2] for each in tab.requests if "ETHUSDT" in each.url}
    assert {"predictions", "accuracy", "data"} <= asked
    assert tab.problems == []


def test_an_earlier_forecast_s_receipt_is_a_key_press_away(open_dashboard: Open, scored: Api) -> None:
    tab = open_dashboard()
    tab.wait_for_forecast()
    chart = tab.page.get_by_role("slider")
    chart.focus()
    tab.page.keyboard.press("End")
    for _ in range(30):
        tab.page.keyboard.press("ArrowLeft")
    assert re.search("came|pending|fallback", chart.get_attribute("aria-valuetext") or "")
    tab.page.keyboard.press("Enter")
    shown = receipt_of(tab)
    receipt = scored.body(f"predictions/BTCUSDT/{shown}")
    assert receipt["id"] == shown
    tab.says("to Kinesis|Kinesis to function", "Features", re.escape(str(receipt["model_id"])))
    assert violations(tab.page) == []
    tab.picture(ROOT / "out" / "dashboard" / "receipt-light.png", whole=False)
    tab.page.keyboard.press("Escape")
    assert tab.page.evaluate("() => document.activeElement.getAttribute('role')") == "slider"
    assert tab.problems == []


def test_a_click_on_the_chart_opens_a_receipt(open_dashboard: Open) -> None:
    tab = open_dashboard()
    tab.wait_for_forecast()
    box = tab.page.get_by_role("slider").bounding_box()
    assert box
    tab.page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"])
    assert receipt_of(tab).startswith("BTCUSDT-")
    tab.page.get_by_role("dialog").get_by_role("button", name="Close").click()
    tab.page.get_by_role("dialog").wait_for(state="hidden")
    assert tab.problems == []


def test_the_colours_chosen_stay(open_dashboard: Open) -> None:
    tab = open_dashboard()
    tab.wait_for_forecast()
    background = "() => getComputedStyle(document.documentElement).backgroundColor"
    light = tab.page.evaluate(background)
    tab.page.get_by_label("Colours").select_option("dark")
    dark = tab.page.evaluate(background)
    assert dark != light
    tab.page.reload()
    tab.wait_for_forecast()
    assert tab.page.evaluate(background) == dark
    assert violations(tab.page) == []


def test_an_api_that_goes_away_and_comes_back_is_said(open_dashboard: Open) -> None:
    tab = open_dashboard(Answers(errors=True))
    tab.wait_for_forecast()
    tab.answers = AWAY
    tab.says("does not answer", "next attempt in")
    tab.picture(ROOT / "out" / "dashboard" / "api-gone-light.png")
    assert violations(tab.page) == []
    tab.answers = Answers(errors=True)
    tab.page.wait_for_function("() => !document.body.innerText.includes('does not answer')")
    assert tab.problems == []

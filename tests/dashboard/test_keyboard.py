"""The page by the keyboard alone, at its narrowest, and for a reader who wants less motion."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.dashboard.accessibility import violations
from tests.dashboard.conftest import Open
from tests.dashboard.tab import NARROWEST, Look, Tab

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

STOPS_MAX = 400  # of the tab key; a page has fewer, or holds the focus
_FOCUS = """() => {
  const it = document.activeElement;
  if (!it || it === document.body) return null;
  const style = getComputedStyle(it);
  return {
    what: `${it.tagName.toLowerCase()} ${it.getAttribute("aria-label") || it.textContent.trim() || it.id}`,
    order: [...document.querySelectorAll("*")].indexOf(it),
    marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
  };
}"""


def stops(tab: Tab) -> list[dict[str, Any]]:
    """Where the focus is after each press of the tab key, until it leaves the page."""
    found: list[dict[str, Any]] = []
    for _ in range(STOPS_MAX):
        tab.page.keyboard.press("Tab")
        focus = tab.page.evaluate(_FOCUS)
        if focus is None:
            return found
        found.append(focus)
    raise AssertionError(f"the focus does not leave the page; last at {found[-1]['what']}")


def test_the_tab_key_walks_through_the_page_in_its_order(open_dashboard: Open) -> None:
    tab = open_dashboard()
    tab.wait_for_forecast()
    found = stops(tab)
    assert [stop["what"] for stop in found if not stop["marked"]] == []
    assert [later["what"] for earlier, later in pairwise(found) if later["order"] <= earlier["order"]] == []
    assert tab.problems == []


def test_the_first_stop_skips_to_the_content(open_dashboard: Open) -> None:
    tab = open_dashboard()
    tab.wait_for_forecast()
    tab.page.keyboard.press("Tab")
    assert "skip" in tab.page.evaluate(_FOCUS)["what"].lower()
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("() => document.querySelector('main').contains(document.activeElement)")


def test_the_narrowest_phone_shows_all_and_a_finger_hits_it(open_dashboard: Open) -> None:
    tab = open_dashboard(look=NARROWEST)
    tab.wait_for_forecast()
    assert tab.overflow_px() == 0
    assert violations(tab.page) == []
    assert tab.problems == []


def test_nothing_moves_by_itself_for_who_wants_less_motion(open_dashboard: Open) -> None:
    tab = open_dashboard(look=Look(reduced_motion="reduce"))
    tab.wait_for_forecast()
    assert tab.page.evaluate("() => document.getAnimations().length") == 0

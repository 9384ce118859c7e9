"""The key: from the address's fragment into the tab, and nowhere else."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from local.system.api import Api
from tests.dashboard.conditions import CONDITIONS
from tests.dashboard.conftest import Open

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_fragment_s_key_is_taken_and_removed(open_dashboard: Open, scored: Api) -> None:
    tab = open_dashboard()
    tab.wait_for_forecast()
    assert urlsplit(tab.page.url).fragment == ""
    assert tab.page.evaluate("() => history.length") <= 2, "the address with the key is in the tab's history"
    assert tab.page.evaluate("() => Object.values(localStorage)").count(scored.key) == 0
    assert scored.key not in tab.page.content()
    assert not [each.url for each in tab.requests if scored.key in each.url]
    sent = [each.header_value("x-api-key") for each in tab.requests if "/predictions/" in each.url]
    assert set(sent) == {scored.key}
    tab.page.reload()
    tab.wait_for_forecast()
    assert tab.problems == []


def test_a_wrong_key_is_asked_for_again(open_dashboard: Open, scored: Api) -> None:
    wrong = CONDITIONS["wrong-key"]
    tab = open_dashboard(wrong.answers, key=wrong.key)
    field = tab.page.get_by_label("API key")
    field.wait_for()
    tab.says("refused this key")
    field.fill(scored.key)
    field.press("Enter")
    tab.says("worth trading|abstain")
    tab.never_says("refused this key")
    assert tab.problems == []


def test_the_policy_forbids_everything_but_the_page_itself(open_dashboard: Open) -> None:
    tab = open_dashboard()
    tab.wait_for_forecast()
    blocked = tab.page.evaluate(
        """async () => {
          const blocked = [];
          document.addEventListener("securitypolicyviolation", each => blocked.push(each.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "window.injected = true";
          document.body.append(script);
          const picture = new Image();
          picture.src = "https://example.com/x.png";
          await fetch("https://example.com/").catch(() => {});
          await new Promise(done => setTimeout(done, 200));
          return [...blocked, window.injected ?? "not run"];
        }"""
    )
    assert sorted(blocked) == ["connect-src", "img-src", "not run", "script-src-elem"]

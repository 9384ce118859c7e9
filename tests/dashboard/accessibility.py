"""What axe-core finds wrong with a page: names, roles, contrast, by the rules of WCAG 2.2 A and AA."""

from __future__ import annotations

from functools import cache

from playwright.sync_api import Page

from tests.fixtures.paths import ROOT

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = """async tags => {
  const rules = { type: "tag", values: tags };
  const found = await axe.run(document, { runOnly: rules, resultTypes: ["violations"] });
  return found.violations.flatMap(rule => rule.nodes.map(node =>
    `${rule.id}: ${node.target.join(" ")}: ${node.failureSummary.replaceAll(/\\s+/g, " ")}`));
}"""


@cache
def _axe() -> str:
    return AXE.read_text("utf-8")


def violations(page: Page) -> list[str]:
    """One line for each element and rule; empty if nothing is wrong. By the debugger's way past the page's
    policy, which forbids scripts that are not its own."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(_axe())
    found: list[str] = page.evaluate(_RUN, _TAGS)
    return found

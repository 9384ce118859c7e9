"""Signals cost nothing where there are none, and what they add is priced."""

from __future__ import annotations

import pytest

from cdk.config import parse
from operations.cost import Estimate, coverage, monthly
from operations.cost.synthesis import resources_of

pytestmark = pytest.mark.synthesis

NAMES = {"signal_events", "signal_writes", "signal_requests", "signal_duration"}
SIGNALS = {
    "destinations": [{"name": "desk"}],
    "rules": [
        {"name": "worth-it", "when": "worth_trading", "to": "desk"},
        {"name": "raised", "when": "alarm", "to": "desk"},
    ],
}


def test_without_rules_they_cost_nothing(estimates: dict[str, Estimate]) -> None:
    for found in estimates.values():
        lines = {line.name: line.usd for line in found.lines}
        assert {lines[name] for name in NAMES} == {0.0}


def test_with_rules_they_cost_less_than_a_dollar() -> None:
    values = {"name": "dev", "symbols": ["BTCUSDT"], "aws": {}}
    without, with_signals = parse(values), parse(values | {"signals": SIGNALS})
    coverage.check(resources_of(with_signals))
    before, after = monthly(without), monthly(with_signals)
    lines = {line.name: line.usd for line in after.lines}
    assert all(lines[name] > 0 for name in NAMES)
    assert 0.1 < after.month_usd - before.month_usd < 1

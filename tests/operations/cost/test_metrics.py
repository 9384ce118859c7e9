"""The list of billed metrics is what the processes write."""

from __future__ import annotations

import pytest

from operations.cost.metrics import ORDINARY, SELDOM, SELDOM_SHARE, metric_months
from tests.fixtures import emitted_metrics
from tests.fixtures.emitted_metrics import Emitted
from tickcast.functions.score_metrics import SYMBOLS_SHOWN


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> tuple[set[Emitted], set[Emitted]]:
    """Of one symbol, in an ordinary hour, and those that are written besides when everything fails."""
    symbols = {"BTCUSDT": {"last_tick_age_s": 0.2, "quiet": False}}
    ordinary = emitted_metrics.of_functions(monkeypatch, all_is_well=True)
    ordinary |= emitted_metrics.of_ingest(monkeypatch, symbols).keys()
    failing = emitted_metrics.of_functions(monkeypatch, all_is_well=False)
    lost = emitted_metrics.of_ingest(
        monkeypatch, symbols, 60.0, put_failures=1, dropped_ticks=1, bad_frames=1
    )
    return ordinary, (failing | lost.keys()) - ordinary


def test_the_list_is_complete(written: tuple[set[Emitted], set[Emitted]]) -> None:
    ordinary, seldom = written
    found = {
        (dict(each.dimensions)["service"], each.name, "symbol" in dict(each.dimensions)) for each in ordinary
    }
    assert found == set(map(tuple, ORDINARY))
    assert len(seldom) <= SELDOM


def test_metrics_by_symbol_stop_where_the_processes_stop() -> None:
    by_symbol = sum(each.by_symbol for each in ORDINARY)
    assert metric_months(1) == len(ORDINARY) + SELDOM * SELDOM_SHARE
    assert metric_months(3) - metric_months(2) == by_symbol
    assert metric_months(SYMBOLS_SHOWN) == metric_months(SYMBOLS_SHOWN + 100)

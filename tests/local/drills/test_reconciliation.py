"""The reconciliation and the report of the drills, and the proxy."""

from __future__ import annotations

import http.server
import re
import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from local.drills import runner, scenarios
from local.drills.proxy import Proxy
from local.drills.reconciliation import Reconciliation, TradeCounts, compare, spans
from local.drills.runner import Result, problems, report, table
from local.drills.scenarios import DRILLS, Drill
from local.system import http_json
from local.system.options import OptionsError
from tickcast.features.bars import SECOND
from tickcast.units import SECOND_US

WHOLE = Drill("whole", scenarios.baseline)
HOLED = Drill("holed", scenarios.baseline, re.compile("^dropped"))


def seconds(*trades_and_volume: tuple[int, int]) -> np.ndarray:
    rows = np.zeros(len(trades_and_volume), SECOND)
    for row, (count, volume) in enumerate(trades_and_volume):
        rows[row]["end_us"] = (row + 1) * SECOND_US
        rows[row]["trade_count"], rows[row]["buy_qty"], rows[row]["sell_qty"] = count, (volume - 1, 0), (1, 0)
    return rows


def in_second(index: int, first_id: int, last_id: int, qty: int) -> TradeCounts:
    return TradeCounts(first_id, last_id, index * SECOND_US + 7, qty)


PUBLISHED = [in_second(0, 1, 3, 30), in_second(0, 4, 4, 10), in_second(2, 5, 6, 20)]


def test_seconds_that_match_what_was_published() -> None:
    assert compare(seconds((4, 40), (0, 1), (2, 20))[[0, 2]], PUBLISHED) == (0, 0)


@pytest.mark.parametrize(
    ("third", "expected"),
    [((4, 40), (2, 0)), ((1, 10), (0, 1)), ((2, 40), (1, 0))],
    ids=["twice", "late", "volume twice"],
)
def test_seconds_with_too_many_or_too_few_trades(third: tuple[int, int], expected: tuple[int, int]) -> None:
    assert compare(seconds((4, 40), (0, 1), third)[[0, 2]], PUBLISHED) == expected


def test_absent_trades_are_not_expected() -> None:
    assert compare(seconds((3, 30), (0, 1), (1, 9))[[0, 2]], PUBLISHED, {4, 5}) == (0, 0)


def test_the_spans_of_drills_are_contiguous() -> None:
    assert spans({"A": 10}, {"A": 12}) == {"A": range(11, 13)}


@pytest.mark.parametrize(
    ("drill", "trades", "problem"),
    [
        (WHOLE, Reconciliation(sent=5, in_bronze=5), None),
        (WHOLE, Reconciliation(), "published nothing"),
        (
            WHOLE,
            Reconciliation(sent=5, in_bronze=4, in_ledger=1, causes=Counter(dropped=1)),
            "1 trades missing",
        ),
        (HOLED, Reconciliation(sent=5, in_bronze=4, in_ledger=1, causes=Counter(dropped=1)), None),
        (
            HOLED,
            Reconciliation(sent=5, in_bronze=4, in_ledger=1, causes=Counter(stalled=1)),
            "cause 'stalled'",
        ),
        (HOLED, Reconciliation(sent=5, in_bronze=4, lost=1), "1 trades lost"),
        (HOLED, Reconciliation(sent=5, in_bronze=5, twice=2), "2 trades counted twice"),
        (HOLED, Reconciliation(sent=5, in_bronze=5, uncounted=3), "3 trades were too late"),
    ],
)
def test_a_drill_passes_or_fails_by_its_reconciliation(
    drill: Drill, trades: Reconciliation, problem: str | None
) -> None:
    found = problems(drill, trades)
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]


def test_the_json_line_has_the_promised_keys() -> None:
    results = {
        "drop": Result(Reconciliation(9, 7, 2, 0, Counter({"reset by peer": 2})), 1.2, 5.1, 2, "4 resets"),
        "stall": Result(Reconciliation(9, 7, 0, 2), problems=["2 trades lost"]),
    }
    line = report(results)
    assert list(line) == ["ok", "ticks_lost", "drills"]
    assert (line["ok"], line["ticks_lost"]) == (False, 2)
    assert line["drills"]["drop"] == {
        "ok": True,
        "sent": 9,
        "in_bronze": 7,
        "in_ledger": 2,
        "lost": 0,
        "causes": ["reset by peer"],
        "recovered_s": 1.2,
        "stale_after_s": 5.1,
        "reconnects": 2,
        "note": "4 resets",
    }
    assert table(report(results)).row_count == 2
    assert not report({})["ok"]


def test_drills_are_chosen_by_name() -> None:
    assert [drill.name for drill in runner.chosen(["two_tasks", "drop"])] == ["drop", "two_tasks"]
    assert runner.chosen([]) == list(DRILLS)
    with pytest.raises(OptionsError, match="no drill earthquake; it should be one of baseline, drop"):
        runner.chosen(["earthquake"])


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that answers every GET with JSON."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"here": true}')

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_network_is_cut_and_restored(port: int) -> None:
    with Proxy(port) as proxy:
        assert http_json.get(proxy.url).body == {"here": True}
        proxy.cut()
        with pytest.raises(TimeoutError):
            http_json.get(proxy.url, timeout_s=0.5)
        proxy.restore()
        assert http_json.get(proxy.url).body == {"here": True}

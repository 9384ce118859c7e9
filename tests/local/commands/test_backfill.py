"""`make backfill`: the state machine's input, and the report from an execution's events."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from local.commands import backfill, execution
from local.commands.backfill import BackfillRequest
from local.commands.execution import Report
from local.system.options import HISTORY_S, OptionsError

NOW = datetime(2024, 8, 3, 6, 0, tzinfo=UTC)
DAY_S = 86_400


def given(*words: str) -> BackfillRequest:
    parser = argparse.ArgumentParser()
    backfill.add_arguments(parser)
    return backfill.from_arguments(parser.parse_args(words))


def event(payload: dict[str, Any]) -> dict[str, Any]:
    return {"taskSucceededEventDetails": {"output": json.dumps({"StatusCode": 200, "Payload": payload})}}


def test_arguments_become_a_request_of_the_planner() -> None:
    requested = given("--symbols", "btcusdt", "--from", "2024-08-01", "--to", "2024-08-02T12:00")
    assert requested.request(NOW) == {"symbols": ["BTCUSDT"], "from": "2024-08-01", "to": "2024-08-02T12:00"}
    assert given("--from", "2024-08-01").request(NOW)["to"] == "2024-08-03T06:00:00+00:00"
    assert given("--days", "2", "--repair").request(NOW) == {"days": 2, "repair": True}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "which history"),
        (("--to", "2024-08-01"), "TO needs FROM"),
        (("--symbols", "BTC-USDT", "--days", "1"), "SYMBOLS"),
        (("--feed", "replay", "--days", "1"), "FEED"),
    ],
)
def test_wrong_arguments_are_refused_with_the_reason(words: tuple[str, ...], reason: str) -> None:
    with pytest.raises(OptionsError, match=reason):
        given(*words).request(NOW)


def test_a_simulated_market_is_as_old_as_the_requested_history() -> None:
    assert given("--repair").history_s(NOW) == HISTORY_S
    assert given("--days", "1").history_s(NOW) - (DAY_S + 6 * 3600) in range(600)
    assert given("--from", "2024-08-01T00:00").history_s(NOW) - (2 * DAY_S + 6 * 3600) in range(600)
    with pytest.raises(OptionsError, match="FROM"):
        given("--from", "monday").history_s(NOW)


def test_events_of_continued_executions_add_up() -> None:
    fetched: dict[str, Any] = {
        "retry_after_s": 0,
        "used_weight": 40,
        "rows": 7,
        "trades": 9,
        "withheld_trades": 1,
    }
    fetched |= {"seconds": 0.5}
    loaded = {"seconds": 1.5, "added": 8, "bars": 5, "feature_rows": 4, "quarantined": ["why"]}
    events = [
        event({"windows": 2, "totals": {"hours_left": 24.0}}),
        event(fetched | {"status": "rate_limited", "rows": 3, "used_weight": 4800}),
        {"taskFailedEventDetails": {"error": "ExchangeUnavailable", "cause": "503"}},
        {"taskFailedEventDetails": {"error": "ExchangeUnavailable", "cause": "503"}},
        event(fetched | {"status": "done", "refused_rows": 3}),
        event(loaded | {"complete": False}),
        event(loaded | {"complete": True}),
        event({"repaired_trades": 6, "withheld_trades": 0, "missing_trades": 0}),
        event(fetched | {"status": "done", "rows": 0, "trades": 0, "withheld_trades": 0}),
        event({"windows": [{}, {}], "hours": 3, "before_us": None}),
        event(loaded | {"complete": True}),
        event(loaded | {"complete": True}),
        {"type": "ExecutionSucceeded"},
    ]
    report = execution.add(execution.add(Report(), events), events)
    assert (report.executions, report.windows, report.windows_done) == (2, 8, 8)
    assert report.windows_in_bronze == 4
    assert (report.rows, report.trades, report.withheld_trades) == (14, 18, 2)
    assert report.refused_rows == 6
    assert (report.added, report.bars, report.feature_rows, report.quarantined) == (64, 40, 32, 8)
    assert (report.repaired_trades, report.rate_limited, report.max_used_weight) == (12, 2, 4800)
    assert report.stage_s == {"fetch_history": 3.0, "load_history": 12.0}
    assert report.bottleneck == "load_history"
    assert report.causes == ["ExchangeUnavailable: 503"]
    for part in (
        "14 rows",
        "2 trades withheld",
        "32 feature rows",
        "request weight 4,800/min",
        "rate-limited 2 times",
        "24 h",
        "4 of the windows in S3 already",
    ):
        assert part in execution.progress_text(report)


@pytest.mark.parametrize(
    ("failed", "cause"),
    [
        (
            {
                "error": "HistoryNotKept",
                "cause": json.dumps(
                    {
                        "errorMessage": "BTCUSDT from …",
                        "errorType": "HistoryNotKept",
                        "stackTrace": ["a", "b"],
                    }
                ),
            },
            "HistoryNotKept: BTCUSDT from …",
        ),
        ({"error": "Lambda.Unknown", "cause": "no JSON"}, "Lambda.Unknown: no JSON"),
        ({"error": "States.Timeout", "cause": "[1]"}, "States.Timeout: [1]"),
        ({"error": "States.Timeout"}, "States.Timeout: None"),
    ],
)
def test_an_error_is_shown_by_name_and_message(failed: dict[str, Any], cause: str) -> None:
    assert execution.add(Report(), [{"taskFailedEventDetails": failed}]).causes == [cause]

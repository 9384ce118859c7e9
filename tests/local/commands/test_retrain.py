"""`make retrain`: the state machine's input, and the outcome from its report."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from local.commands import backfill, execution, retrain
from local.commands.backfill import BackfillRequest
from local.commands.execution import Report
from local.system.options import HISTORY_S
from tests.local.commands.test_backfill import event

DAY_S = 86_400


def given(*words: str) -> BackfillRequest:
    parser = argparse.ArgumentParser()
    retrain.add_arguments(parser)
    return backfill.from_arguments(parser.parse_args(words))


def test_retraining_requests_history_and_training_on_all_of_it() -> None:
    assert retrain.request(given()) == {"days": 1, "train": {"days": 2, "reason": "by hand"}}
    asked = retrain.request(given("--days", "3", "--symbols", "btcusdt"))
    assert (asked["days"], asked["symbols"]) == (3, ["BTCUSDT"])
    assert asked["train"] == {"days": 4, "reason": "by hand", "symbols": ["BTCUSDT"]}


def test_a_temporary_system_is_as_old_as_the_requested_history() -> None:
    assert retrain.system_options(given()).history_s == HISTORY_S
    today_s = (datetime.now(UTC) - datetime.now(UTC).replace(hour=0, minute=0, second=0)).seconds
    assert retrain.system_options(given("--days", "1")).history_s - DAY_S - today_s in range(600)


def test_the_outcome_is_read_from_the_events() -> None:
    verdict: dict[str, Any] = {
        "model_id": "m2",
        "champion": "m1",
        "promote": "m2",
        "shadow": None,
        "provisional": True,
    }
    verdict |= {"reasons": ["beats_champion"], "sentence": "Better.", "seconds": 300.0, "rows": 600}
    verdict |= {"figures": {"champion": {"skill": 0.02, "ci": [0, 1]}}}
    events = [
        event({"windows": 1, "totals": {"hours_left": 0.0}}),
        event({"model_id": "m2", "promoted": False, "rows": 5000, "rows_with_quotes": 4000, "card": {}}),
        event(verdict),
        event({"status": "promoted", "in_force": "m2", "challenger": None, "previous": "m1"}),
    ]
    report = execution.add(Report(), events)
    report.ok = True
    result = retrain.outcome(report)
    assert (result["model_id"], result["promoted"], result["provisional"]) == ("m2", True, True)
    assert (result["reasons"], result["sentence"]) == (["beats_champion"], "Better.")
    assert (result["rows"], result["rows_with_quotes"], result["judged_s"]) == (5000, 4000, 300.0)
    assert (result["in_force"], result["previous"]) == ("m2", "m1")
    assert result["skill_against"] == {"champion": 0.02}
    assert result["refit"] == {}


def test_the_refit_is_in_force_where_it_is_served() -> None:
    refit = {"model_id": "m3", "refit_of": "m2", "promoted": True, "why": None}
    more = {"rows": 9, "rows_with_quotes": 9, "card": {}}
    events = [
        event({"model_id": "m2", "promoted": False, "why": None, "refit_of": None, **more}),
        event({"status": "promoted", "in_force": "m2", "challenger": None, "previous": "m1"}),
    ]
    report = execution.add(Report(), [*events, event(refit | more)])
    assert (report.trained["model_id"], report.refit) == ("m2", refit)
    assert retrain.outcome(report)["in_force"] == "m3"
    left = refit | {"model_id": "m2", "promoted": False, "why": "not refitted: it is a refit itself"}
    result = retrain.outcome(execution.add(Report(), [*events, event(left | more)]))
    assert (result["in_force"], result["refit"]) == ("m2", left)


def test_a_refit_without_rows_leaves_what_was_trained_and_promoted() -> None:
    failed = {"model_id": None, "promoted": False, "rows": 0, "why": "60 usable rows", "refit_of": "m2"}
    events = [
        event({"model_id": "m2", "promoted": False, "why": None, "refit_of": None, "rows": 9}),
        event({"status": "promoted", "in_force": "m2", "challenger": None, "previous": "m1"}),
        event(failed),
    ]
    result = retrain.outcome(execution.add(Report(), events))
    assert (result["model_id"], result["in_force"], result["rows"]) == ("m2", "m2", 9)
    assert (result["refit"]["why"], result["held"]) == ("60 usable rows", False)


def test_a_champion_that_is_held_is_said_to_be() -> None:
    events = [
        event({"model_id": "m2", "promoted": False, "why": None, "rows": 9}),
        event({"status": "held", "in_force": "m1", "challenger": "m2", "previous": None}),
    ]
    result = retrain.outcome(execution.add(Report(), events))
    assert (result["promoted"], result["held"], result["in_force"]) == (False, True, "m1")


def test_without_a_model_the_reason_is_not_trained() -> None:
    result = retrain.outcome(execution.add(Report(), [event({"windows": 0, "totals": {"hours_left": 0.0}})]))
    assert (result["model_id"], result["promoted"], result["reasons"]) == (None, False, ["not_trained"])


def test_the_reason_of_the_trainer_is_kept() -> None:
    result = retrain.outcome(Report(ok=True, trained={"model_id": None, "rows": 0, "why": "60 usable rows"}))
    assert (result["ok"], result["model_id"], result["reasons"]) == (True, None, ["not_trained"])
    assert result["sentence"] == "60 usable rows"

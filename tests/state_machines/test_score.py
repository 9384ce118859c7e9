"""The state machine of scoring by Step Functions' rules: when it starts a training, and only one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.asl import Executions, Function, execute
from tests.fixtures.paths import ROOT

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:ScorePredictions"
# What it starts is itself here: of the second execution the function asks for nothing.
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:tested"
ASKED = {"days": 2, "repair": True, "train": {"days": 7, "reason": "drift: BTCUSDT skill_below_band"}}
REPORT = FUNCTION.replace("ScorePredictions", "ReportCondition")
CALM = {"outcomes": 480, "retrain": False, "execution": None, "report_due": False}
DRIFT: dict[str, Any] = {
    "outcomes": 480,
    "retrain": True,
    "report_due": False,
    "execution": {"name": "drift-1760000400", "input": ASKED},
}


def no_report(event: dict[str, Any]) -> Any:
    raise AssertionError("no report is due")


def run(monkeypatch: pytest.MonkeyPatch, *answers: Any, report: Function = no_report) -> Executions:
    left = list(answers)

    def score_predictions(event: dict[str, Any]) -> Any:
        answer = left.pop(0) if left else CALM
        if isinstance(answer, Exception):
            raise answer
        return answer

    definition = (ROOT / "state_machines" / "score.asl.json").read_text("utf-8")
    for name, arn in (("ScorePredictions", FUNCTION), ("ReportCondition", REPORT), ("backfill", MACHINE)):
        definition = definition.replace(f"${{{name}}}", arn)
    functions: dict[str, Function] = {FUNCTION: score_predictions, REPORT: report}
    return execute(definition, functions, {}, monkeypatch)


def test_scores_and_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run(monkeypatch, CALM)
    [execution] = ran.all
    assert (execution.status, execution.output["scored"]["retrain"]) == ("SUCCEEDED", False)
    assert len(ran.calls) == 1


def test_drift_starts_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    first, started = run(monkeypatch, DRIFT).all
    assert first.status == "SUCCEEDED"
    assert (started.name, started.input) == ("drift-1760000400", ASKED)


def test_asked_again_it_starts_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The started execution starts the same again, and finds that it exists."""
    ran = run(monkeypatch, DRIFT, DRIFT | {"execution": DRIFT["execution"] | {"input": {}}})
    assert [execution.status for execution in ran.all] == ["SUCCEEDED", "SUCCEEDED"]
    assert ran.backed_off_s == []


def test_a_passing_fault_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = type("OperationalError", (Exception,), {})("the connection is gone")
    ran = run(monkeypatch, fault, CALM)
    assert ran.all[0].status == "SUCCEEDED" and len(ran.calls) == 2
    ran = run(monkeypatch, fault, fault, CALM)
    assert (ran.all[0].status, ran.all[0].error) == ("FAILED", "OperationalError")
    assert len(ran.calls) == 2  # the next minute continues


@pytest.mark.parametrize("scored", [CALM, DRIFT])
def test_a_report_follows_when_it_is_due(monkeypatch: pytest.MonkeyPatch, scored: dict[str, Any]) -> None:
    ran = run(monkeypatch, scored | {"report_due": True}, report=lambda event: {"complete": True})
    assert [execution.status for execution in ran.all] == ["SUCCEEDED"] * (1 + scored["retrain"])
    assert len(ran.calls) == 2 + scored["retrain"]


def test_scores_do_not_fail_with_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def report(event: dict[str, Any]) -> Any:
        raise type("OperationalError", (Exception,), {})("the connection is gone")

    ran = run(monkeypatch, CALM | {"report_due": True}, report=report)
    assert ran.all[0].status == "SUCCEEDED" and len(ran.calls) == 2
    assert ran.all[0].output["not_reported"]["Error"] == "OperationalError"

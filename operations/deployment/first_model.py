"""History and a first training, so that a model of the real market answers within the hour.

The state machine does it, watched or not: an interrupted deployment finds the execution that still runs by
the reason in its input. The first model becomes active without the gate, which needs quotes that no history
has; it counts as provisional, so the next training may replace it by the gate's easier rule.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from local.commands import execution
from local.commands.retrain import outcome
from operations.deployment.account import Account, Say
from operations.failures import OperationFailed
from tickcast.adapters.registry import model_registry

REASON = "first model of a deployment"
HISTORY = timedelta(hours=24)  # some 1,500 requests a symbol; a day more would not make it better in an hour


def request(now: datetime) -> execution.Request:
    """The input of the state machine: a day of history, a model trained on all there is of it, and at once
    active."""
    return {
        "from": (now - HISTORY).isoformat(timespec="seconds"),
        "to": now.isoformat(timespec="seconds"),
        "train": {"days": 2, "reason": REASON, "provisional": True, "replace": True},
    }


class FirstModel:
    """Skipped where a model is active. `detached`: started, not waited for."""

    name = "history and a first model"

    def __init__(self, console: Console, detached: bool = False) -> None:
        self._console = console
        self._detached = detached

    def is_done(self, account: Account) -> bool:
        return model_registry.active_model(account.client("s3"), bucket(account)) is not None

    def run(self, account: Account, say: Say) -> None:
        there = account.deployment()
        arn = running(account)
        if arn:
            say(f"execution {name_of(arn)} is running since before")
        else:
            arn = execution.start(there, request(datetime.now(UTC)))
            say(f"execution {name_of(arn)} started; it continues without this command")
        if self._detached:
            say("not waited for (DETACH=1): `make doctor` says when a model is active")
            return
        report = execution.watch(there, arn, self._console)
        for cause in report.causes:
            say(cause)
        result = outcome(report)
        if not self.is_done(account):
            why = result["error"] or result["sentence"] or "the training made no model"
            raise OperationFailed(f"{why} (execution {name_of(arn)})")
        say(
            f"model {result['model_id']} is active: {result['rows']} rows, {report.trades:,} trades, "
            f"{report.seconds / 60:.0f} min"
        )


def running(account: Account) -> str:
    """The ARN of a first training that has not ended, or of the execution that continues it; else empty."""
    states = account.client("stepfunctions")
    machine = account.outputs("app")["BackfillMachine"]
    listed = states.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]
    for each in listed:
        given: Any = json.loads(states.describe_execution(executionArn=each["executionArn"])["input"])
        training = given.get("train") if isinstance(given, dict) else None
        if isinstance(training, dict) and training.get("reason") == REASON:
            return str(each["executionArn"])
    return ""


def bucket(account: Account) -> str:
    return account.outputs("app")["BucketName"]


def name_of(arn: str) -> str:
    return arn.rpartition(":")[2]

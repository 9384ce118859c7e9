"""Executions of the state machine `backfill_and_retrain`: plan, start, and follow to the end.

An execution continues without being watched. Its report is read from its history of events.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from local.commands.deployment import Deployment
from local.system import cloud
from tickcast.adapters import json_text

_POLL_S = 1.0

Event = dict[str, Any]
Request = dict[str, Any]


@dataclass
class Report:
    """The totals of an execution and of those that continued it."""

    ok: bool = False
    executions: int = 0
    windows: int = 0
    windows_in_bronze: int = (
        0  # of `windows`: to load alone, as a stream or an earlier execution brought them
    )
    windows_done: int = 0
    trades: int = 0
    rows: int = 0  # aggregate trades
    withheld_trades: int = 0
    refused_rows: int = 0  # rows from REST that no market can have produced
    added: int = 0  # to the table of trades
    bars: int = 0
    feature_rows: int = 0
    quarantined: int = 0
    repaired_trades: int = 0
    max_used_weight: int = 0
    rate_limited: int = 0
    seconds: float = 0.0
    stage_s: dict[str, float] = field(default_factory=dict)  # by function; symbols may run in parallel
    bottleneck: str | None = None  # the function with the most seconds
    hours_left: float = 0.0
    trained: dict[str, Any] = field(default_factory=dict)  # model_id, rows, rows_with_quotes, promoted
    verdict: dict[str, Any] = field(default_factory=dict)  # the gate's decision
    promotion: dict[str, Any] = field(default_factory=dict)  # the champion afterwards, and its challenger
    refit: dict[str, Any] = field(default_factory=dict)  # the promoted model on newer rows, or why not
    error: str | None = None
    causes: list[str] = field(default_factory=list)


def plan(there: Deployment, request: Request) -> dict[str, Any]:
    """The plan for `request`, without executing it. Raises `FunctionFailed`."""
    question = {"request": request | {"dry": True}, "execution_id": "dry"}
    return cloud.invoke(there.functions, there.outputs["PlanBackfillFunction"], question)


def start(there: Deployment, request: Request) -> str:
    """Start an execution; its ARN."""
    machine, name = there.outputs["BackfillMachine"], f"by-hand-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    answer = there.states.start_execution(stateMachineArn=machine, name=name, input=json_text.text(request))
    return str(answer["executionArn"])


def events(there: Deployment, arn: str) -> list[Event]:
    """The events of an execution so far."""
    pages = there.states.get_paginator("get_execution_history").paginate(executionArn=arn)
    return [event for page in pages for event in page["events"]]


def watch(there: Deployment, arn: str, console: Console) -> Report:
    """Follow an execution, and those that continue it, until the last one ends."""
    report, before = Report(), Report()
    started_s = time.monotonic()
    with _bar(console) as bar:
        task = bar.add_task("", total=None)
        following: str | None = arn
        while following:
            status = there.states.describe_execution(executionArn=following)
            report = add(before, events(there, following))
            report.seconds = round(time.monotonic() - started_s, 3)
            described = progress_text(report)
            bar.update(
                task, total=report.windows or None, completed=report.windows_done, description=described
            )
            if status["status"] == "RUNNING":
                time.sleep(_POLL_S)
                continue
            if status["status"] != "SUCCEEDED" and report.error is None:
                report.error = status.get("error") or status["status"]
                report.causes = [*report.causes, status.get("cause") or ""]
            before, following = report, _continued_by(events(there, following))
    report.ok = report.error is None
    return report


def add(before: Report, events: list[Event]) -> Report:
    """`before` plus the events of one more execution."""
    report = Report(**asdict(before))
    report.executions += 1
    for event in events:
        failed = event.get("taskFailedEventDetails")
        if failed is not None:
            report.causes = list(dict.fromkeys([*report.causes, _cause(failed)]))
        payload = _payload(event)
        _add_history(report, payload)
        _add_model(report, payload)
    return report


def _add_history(report: Report, payload: dict[str, Any]) -> None:
    """What a function that gets history says of it."""
    if "totals" in payload:
        report.windows += payload["windows"]
        report.hours_left = payload["totals"]["hours_left"]
    elif "retry_after_s" in payload:
        _add_fetched(report, payload)
    elif "feature_rows" in payload:
        _add_loaded(report, payload)
    elif "before_us" in payload:
        report.windows += len(payload["windows"])
        report.windows_in_bronze += len(payload["windows"])
    elif "repaired_trades" in payload:
        report.repaired_trades += payload["repaired_trades"]


def _add_model(report: Report, payload: dict[str, Any]) -> None:
    """What a function that trains, evaluates or promotes a model says of it."""
    if payload.get("refit_of"):
        report.refit = {name: payload[name] for name in ("model_id", "refit_of", "promoted", "why")}
    elif "promoted" in payload:
        report.trained = {name: value for name, value in payload.items() if name not in ("card", "refit_of")}
    elif "sentence" in payload:
        report.verdict = payload
    elif "in_force" in payload:
        report.promotion = payload


def progress_text(report: Report) -> str:
    """The progress in one line."""
    limited = f", rate-limited {report.rate_limited} times" if report.rate_limited else ""
    left = f", {report.hours_left:,.0f} h left for further executions" if report.hours_left else ""
    in_bronze = (
        f", {report.windows_in_bronze} of the windows in S3 already" if report.windows_in_bronze else ""
    )
    withheld = f", {report.withheld_trades:,} trades withheld" if report.withheld_trades else ""
    return (
        f"{report.rows:,} rows{withheld}, {report.feature_rows:,} feature rows, "
        f"request weight {report.max_used_weight:,}/min{limited}{left}{in_bronze}"
    )


def _add_stage(report: Report, function: str, payload: dict[str, Any]) -> None:
    report.stage_s[function] = round(report.stage_s.get(function, 0.0) + payload["seconds"], 3)
    report.bottleneck = max(report.stage_s, key=report.stage_s.__getitem__)


def _add_fetched(report: Report, payload: dict[str, Any]) -> None:
    _add_stage(report, "fetch_history", payload)
    report.max_used_weight = max(report.max_used_weight, payload["used_weight"])
    report.rate_limited += payload["status"] == "rate_limited"
    if payload["status"] == "done":
        report.rows += payload["rows"]
        report.trades += payload["trades"]
        report.withheld_trades += payload["withheld_trades"]
        report.refused_rows += payload.get("refused_rows", 0)
        report.windows_done += payload["rows"] == 0  # nothing to load


def _add_loaded(report: Report, payload: dict[str, Any]) -> None:
    _add_stage(report, "load_history", payload)
    report.added += payload["added"]
    report.bars += payload["bars"]
    report.feature_rows += payload["feature_rows"]
    report.quarantined += len(payload["quarantined"])
    report.windows_done += payload["complete"]


def _cause(failed: dict[str, Any]) -> str:
    """The name and the message of an error, without the trace that Lambda adds."""
    name, cause = failed.get("error"), failed.get("cause")
    try:
        details = json.loads(cause or "")
        return f"{details['errorType']}: {details['errorMessage']}"
    except (ValueError, KeyError, TypeError):
        return f"{name}: {cause}"


def _output(event: Event) -> dict[str, Any]:
    """The output of a task that succeeded, empty for any other event."""
    output = json.loads(event.get("taskSucceededEventDetails", {}).get("output") or "null")
    return output if isinstance(output, dict) else {}


def _payload(event: Event) -> dict[str, Any]:
    """The result of a function, empty if the event has none."""
    payload = _output(event).get("Payload")
    return payload if isinstance(payload, dict) else {}


def _continued_by(events: list[Event]) -> str | None:
    """The ARN of the execution that this one started to continue it, if any."""
    arns = (_output(event).get("ExecutionArn") for event in reversed(events))
    return next((str(arn) for arn in arns if arn is not None), None)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("windows"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
    )

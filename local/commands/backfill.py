"""`make backfill`: history into the running system, into one started for it, or into one in AWS.

What it does there is start the state machine, and watch. The state machine goes on without being watched.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from local.commands.gaps import NotRunning, running
from local.commands.options import HISTORY_S, Options, OptionsError, number_of
from local.system import cloud
from local.system.progress import Progress as Steps
from local.system.state_folder import throw_away
from local.system.system import System
from tickcast.adapters import json_text
from tickcast.adapters.redaction import describe
from tickcast.adapters.settings import MAX_DAYS
from tickcast.adapters.variables import SettingsError, Symbols, value

AWS_ENVIRONMENTS = ("dev", "prod")
_POLL_S = 1.0
_SHOWN_WINDOWS = 12
_SPARE_S = 120  # of a simulated past, before what is asked for


@dataclass(frozen=True)
class BackfillRequest:
    """What `make backfill` was called with."""

    symbols: tuple[str, ...] = ()
    from_: str = ""
    to: str = ""
    days: int = 0
    repair: bool = False
    dry: bool = False
    aws: str = ""  # the environment in the AWS account of the caller's credentials
    feed: str = "sim"  # of a system started for it

    def request(self, now: datetime) -> dict[str, Any]:
        """What the state machine is asked. Raises `OptionsError`."""
        if self.to and not self.from_:
            raise OptionsError("TO needs FROM")
        if not (self.from_ or self.days or self.repair):
            raise OptionsError(
                "which history? SYMBOL=BTCUSDT FROM=2024-08-01 TO=2024-08-03, or DAYS=2, or REPAIR=1"
            )
        request: dict[str, Any] = {}
        if self.symbols:
            request["symbols"] = list(self.symbols)
        if self.from_:
            request |= {"from": self.from_, "to": self.to or now.isoformat(timespec="seconds")}
        if self.days:
            request["days"] = self.days
        if self.repair:
            request["repair"] = True
        return request

    def history_s(self, now: datetime) -> int:
        """How long ago what is asked for begins; a simulated market has to be as old."""
        starts = [now - timedelta(seconds=HISTORY_S)]
        if self.days:
            starts.append(now.replace(hour=0, minute=0, second=0) - timedelta(days=self.days))
        if self.from_:
            try:
                start = datetime.fromisoformat(self.from_)
            except ValueError:
                raise OptionsError(f"FROM is {self.from_!r}; it should be like 2024-08-01T12:00") from None
            starts.append(start if start.tzinfo else start.replace(tzinfo=UTC))
        return int((now - min(starts)).total_seconds()) + (_SPARE_S if len(starts) > 1 else 0)

    def aside(self) -> Options:
        """Of a system that is started for it."""
        history_s = HISTORY_S if self.feed == "live" else self.history_s(datetime.now(UTC))
        return Options(self.feed, self.symbols, history_s=history_s)


@dataclass(frozen=True)
class Deployment:
    """Where the state machine is."""

    title: str
    states: Any  # boto3 clients
    functions: Any
    s3: Any
    outputs: dict[str, str]

    def plan(self, request: dict[str, Any]) -> dict[str, Any]:
        """The plan alone. Raises `FunctionFailed`."""
        question = {"request": request | {"dry": True}, "execution_id": "dry"}
        return cloud.invoke(self.functions, self.outputs["PlanBackfillFunction"], question)

    def start(self, request: dict[str, Any]) -> str:
        """The ARN of an execution."""
        machine, name = self.outputs["BackfillMachine"], f"by-hand-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        answer = self.states.start_execution(
            stateMachineArn=machine, name=name, input=json_text.text(request)
        )
        return str(answer["executionArn"])

    def events(self, arn: str) -> list[dict[str, Any]]:
        """What happened in an execution so far."""
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=arn)
        return [event for page in pages for event in page["events"]]


@dataclass
class Report:
    """What came of all executions of a chain."""

    ok: bool = False
    executions: int = 0
    windows: int = 0
    windows_done: int = 0
    trades: int = 0
    rows: int = 0  # aggregates
    withheld_trades: int = 0
    refused_rows: int = 0  # of REST, that no market can have produced
    added: int = 0  # to the table of trades
    bars: int = 0
    feature_rows: int = 0
    quarantined: int = 0
    repaired_trades: int = 0
    max_used_weight: int = 0
    rate_limited: int = 0
    seconds: float = 0.0
    stage_s: dict[str, float] = field(
        default_factory=dict
    )  # spent in each function; markets may run side by side
    bottleneck: str | None = None  # the one with the most
    hours_left: float = 0.0
    trained: dict[str, Any] = field(default_factory=dict)  # model_id, rows, rows_with_quotes, promoted
    verdict: dict[str, Any] = field(default_factory=dict)  # of the gate
    promotion: dict[str, Any] = field(default_factory=dict)  # what is in force now, and in shadow
    error: str | None = None
    causes: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `from_arguments` reads."""
    parser.add_argument("--symbols", default="", help="like BTCUSDT,ETHUSDT; default: all of the system")
    parser.add_argument("--from", dest="from_", default="", help="like 2024-08-01 or 2024-08-01T12:00 (UTC)")
    parser.add_argument("--to", default="", help="likewise, and not included; default: now")
    parser.add_argument("--days", type=number_of("DAYS"), default=0, help="today and so many days before")
    parser.add_argument("--repair", action="store_true", help="the trades that the gap ledger misses")
    parser.add_argument("--dry", action="store_true", help="print the plan, and do nothing")
    parser.add_argument("--aws", default="", metavar="ENV", help="in the AWS account of your credentials")
    parser.add_argument("--feed", default="sim", help="of a system started for it: sim (default) or live")


def from_arguments(given: argparse.Namespace) -> BackfillRequest:
    """Raises `OptionsError`."""
    try:
        symbols = value("SYMBOLS", given.symbols, Symbols) if given.symbols else ()
    except SettingsError as error:
        raise OptionsError(str(error)) from None
    if not 0 <= given.days <= MAX_DAYS:
        raise OptionsError(f"DAYS is {given.days}; it should be a whole number from 1 to {MAX_DAYS}")
    if given.aws and given.aws not in AWS_ENVIRONMENTS:
        raise OptionsError(f"AWS is {given.aws!r}; it should be one of {', '.join(AWS_ENVIRONMENTS)}")
    if given.feed not in ("sim", "live"):
        raise OptionsError(f"FEED is {given.feed!r}; a system for a backfill has sim or live")
    asked = (given.from_, given.to, given.days, given.repair, given.dry, given.aws, given.feed)
    return BackfillRequest(symbols, *asked)


@contextmanager
def deployment(aws: str, aside: Callable[[], Options], steps: Steps) -> Iterator[Deployment]:
    """The deployment that is meant: that of the environment `aws`, the one running here, or one with the
    options `aside`, started for as long as the context lasts."""
    if aws:
        yield in_aws(aws)
        return
    there = None
    with suppress(NotRunning):
        there = in_this_checkout()
    if there is not None:
        yield there
        return
    options = aside()
    steps.say(f"nothing is running here: starting a system for it, feed: {options.label}")
    state = throw_away("backfill")
    try:
        with System(options, state, steps) as system:
            yield at("a system of its own, thrown away afterwards", system.cloud.endpoint_url)
    finally:
        state.discard(keep_logs=False)


def run(asked: BackfillRequest, steps: Steps) -> int:
    """Plan or fill; the last line on stdout is the result, as JSON."""
    request = asked.request(datetime.now(UTC))
    is_terminal = steps.console.is_terminal
    console = steps.console if is_terminal else Console(stderr=True, width=140)
    with deployment(asked.aws, asked.aside, steps) as there:
        steps.say(f"[bold]backfill[/bold] in {there.title}: {json_text.text(request)}")
        planned = there.plan(request)
        console.print(table(planned))
        if asked.dry:
            print(json_text.text(planned), flush=True)
            return 0
        report = watch(there, there.start(request), console)
    for cause in report.causes:
        steps.say(f"[yellow]{cause}[/yellow]")
    print(json_text.text(asdict(report)), flush=True)
    return 0 if report.ok else 1


def watch(there: Deployment, arn: str, console: Console) -> Report:
    """Follow an execution, and those it starts in turn, to the end of the last one."""
    report, before = Report(), Report()
    started_s = time.monotonic()
    with _bar(console) as bar:
        task = bar.add_task("", total=None)
        following: str | None = arn
        while following:
            status = there.states.describe_execution(executionArn=following)
            report = add(before, there.events(following))
            report.seconds = round(time.monotonic() - started_s, 3)
            bar.update(
                task, total=report.windows or None, completed=report.windows_done, description=told(report)
            )
            if status["status"] == "RUNNING":
                time.sleep(_POLL_S)
                continue
            if status["status"] != "SUCCEEDED" and report.error is None:
                report.error = status.get("error") or status["status"]
                report.causes = [*report.causes, status.get("cause") or ""]
            before, following = report, _started(there.events(following))
    report.ok = report.error is None
    return report


def add(before: Report, events: list[dict[str, Any]]) -> Report:
    """`before` and what the events of one more execution tell."""
    report = Report(**asdict(before))
    report.executions += 1
    for event in events:
        failed = event.get("taskFailedEventDetails")
        if failed is not None:
            cause = _cause(failed)
            report.causes = list(dict.fromkeys([*report.causes, cause]))
        payload = _payload(event)
        if "totals" in payload:
            report.windows += payload["windows"]
            report.hours_left = payload["totals"]["hours_left"]
        elif "retry_after_s" in payload:
            _add_fetched(report, payload)
        elif "feature_rows" in payload:
            _add_loaded(report, payload)
        elif "repaired_trades" in payload:
            report.repaired_trades += payload["repaired_trades"]
        elif "promoted" in payload:
            report.trained = {name: value for name, value in payload.items() if name != "card"}
        elif "sentence" in payload:
            report.verdict = payload
        elif "in_force" in payload:
            report.promotion = payload
    return report


def told(report: Report) -> str:
    """The progress in words."""
    waited = f", {report.rate_limited} times told to wait" if report.rate_limited else ""
    left = f", {report.hours_left:,.0f} h for further executions" if report.hours_left else ""
    withheld = f", {report.withheld_trades:,} trades withheld" if report.withheld_trades else ""
    return (
        f"{report.rows:,} rows{withheld}, {report.feature_rows:,} feature rows, "
        f"weight {report.max_used_weight:,} a minute{waited}{left}"
    )


def table(planned: dict[str, Any]) -> Table:
    """A plan as people read it."""
    totals = planned["totals"]
    named = (("planned", "to fetch"), ("held", "held"), ("left", "for further executions"))
    hours = ", ".join(f"{totals[f'hours_{name}']:g} h {what}" for name, what in named)
    title = f"{planned['windows']} windows: {hours}"
    shown = Table(title=title, title_justify="left")
    for name in ("symbol", "from", "to", "why"):
        shown.add_column(name)
    windows = [window for market in planned["markets"] for window in market["windows"]]
    for window in windows[:_SHOWN_WINDOWS]:
        why = window["reason"]
        if window["first_id"] is not None:
            why += f": trades {window['first_id']} to {window['last_id']}"
        shown.add_row(window["symbol"], _time(window["from_us"]), _time(window["to_us"]), why)
    if len(windows) > _SHOWN_WINDOWS:
        shown.add_row(f"… and {len(windows) - _SHOWN_WINDOWS} more")
    return shown


def _spend(report: Report, stage: str, document: dict[str, Any]) -> None:
    report.stage_s[stage] = round(report.stage_s.get(stage, 0.0) + document["seconds"], 3)
    report.bottleneck = max(report.stage_s, key=report.stage_s.__getitem__)


def _add_fetched(report: Report, document: dict[str, Any]) -> None:
    _spend(report, "fetch_history", document)
    report.max_used_weight = max(report.max_used_weight, document["used_weight"])
    report.rate_limited += document["status"] == "rate_limited"
    if document["status"] == "done":
        report.rows += document["rows"]
        report.trades += document["trades"]
        report.withheld_trades += document["withheld_trades"]
        report.refused_rows += document.get("refused_rows", 0)
        report.windows_done += document["rows"] == 0  # nothing to load


def _add_loaded(report: Report, document: dict[str, Any]) -> None:
    _spend(report, "load_history", document)
    report.added += document["added"]
    report.bars += document["bars"]
    report.feature_rows += document["feature_rows"]
    report.quarantined += len(document["quarantined"])
    report.windows_done += document["complete"]


def _cause(failed: dict[str, Any]) -> str:
    """The name and the message of an error, without the trace that Lambda adds."""
    name, cause = failed.get("error"), failed.get("cause")
    try:
        about = json.loads(cause or "")
        return f"{about['errorType']}: {about['errorMessage']}"
    except (ValueError, KeyError, TypeError):
        return f"{name}: {cause}"


def _payload(event: dict[str, Any]) -> dict[str, Any]:
    """What a function answered, if the event tells of that."""
    output = json.loads(event.get("taskSucceededEventDetails", {}).get("output") or "null")
    payload = output.get("Payload") if isinstance(output, dict) else None
    return payload if isinstance(payload, dict) else {}


def _started(events: list[dict[str, Any]]) -> str | None:
    """The execution that this one has started, if it has."""
    for event in reversed(events):
        output = json.loads(event.get("taskSucceededEventDetails", {}).get("output") or "null")
        if isinstance(output, dict) and "ExecutionArn" in output:
            return str(output["ExecutionArn"])
    return None


def at(title: str, endpoint_url: str) -> Deployment:
    found = cloud.outputs_of(cloud.client_of(endpoint_url, "cloudformation"))
    states, functions, s3 = (
        cloud.client_of(endpoint_url, name) for name in ("stepfunctions", "lambda", "s3")
    )
    return Deployment(title, states, functions, s3, found)


def in_this_checkout() -> Deployment:
    """The one system that runs here. Raises `NotRunning`, and `OptionsError` where there are several."""
    found = running()
    if len(found) > 1:
        raise OptionsError(f"several systems run here: {', '.join(found)}; stop all but one")
    ((title, api_url),) = found.items()
    parts = urlsplit(api_url)
    return at(title, f"{parts.scheme}://{parts.netloc}")


def in_aws(environment: str) -> Deployment:
    """The deployment of an environment in the caller's account. Raises `NotRunning`."""
    try:
        found = cloud.outputs_of(boto3.client("cloudformation"), f"tickcast-{environment}-app")
        states, functions, s3 = (boto3.client(name) for name in ("stepfunctions", "lambda", "s3"))
        return Deployment(f"AWS, {environment}", states, functions, s3, found)
    except (BotoCoreError, ClientError) as error:
        raise NotRunning(
            f"no deployment {environment!r} in the AWS account of these credentials: {describe(error)}"
        ) from None


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


def _time(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S}"

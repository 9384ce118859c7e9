"""`make retrain`: history, training and the gate, by the state machine.

Bronze from the stream is loaded with the history around it, quotes included: a window up to a minute ago
loads whatever bronze holds of its hours.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from local.commands import backfill, execution
from local.commands.arguments import number_of
from local.commands.backfill import BackfillRequest
from local.commands.command import Command, ExitStatus, passed, print_last_line
from local.commands.deployment import add_aws_argument, existing_or_started
from local.commands.execution import Report, Request
from local.system import progress
from local.system.options import HISTORY_S, Options
from tickcast.adapters import json_text


@dataclass(frozen=True)
class RetrainRequest:
    """The history to train on. Its `days` is 0 for the default."""

    history: BackfillRequest

    def request(self) -> Request:
        """The input of the state machine: the history, and to train on all of it. Raises `OptionsError`."""
        symbols, days = self.history.symbols, self.history.days or 1
        request = BackfillRequest(symbols, days=days).request(datetime.now(UTC))
        train: dict[str, Any] = {"days": days + 1, "reason": "by hand"}
        if symbols:
            train["symbols"] = list(symbols)
        return request | {"train": train}

    def system_options(self) -> Options:
        """Of a system started for the purpose: half an hour old, unless days are given."""
        if self.history.days:
            return self.history.system_options()
        return Options(self.history.feed, self.history.symbols, history_s=HISTORY_S)


@dataclass(frozen=True)
class Outcome:
    """The model that was trained, the gate's verdict on it, and the champion afterwards."""

    ok: bool
    model_id: str | None
    promoted: bool
    provisional: bool | None
    reasons: list[str]
    sentence: str | None
    rows: int | None
    rows_with_quotes: int | None
    judged_s: float | None
    judged_rows: int | None
    skill_against: dict[str, float]
    champion: str | None  # before
    in_force: str | None  # the champion afterwards
    challenger: str | None
    previous: str | None
    windows: int
    feature_rows: int
    seconds: float
    error: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `from_arguments` reads."""
    parser.add_argument("--symbols", default="", help="like BTCUSDT,ETHUSDT; default: all of the deployment")
    parser.add_argument(
        "--days", type=number_of("DAYS"), default=0, help="of history: today and this many before; default: 1"
    )
    add_aws_argument(parser)
    parser.add_argument("--feed", default="sim", help="of a temporary system: sim (default) or live")
    parser.set_defaults(from_="", to="", repair=False, dry=False)


def from_arguments(given: argparse.Namespace) -> RetrainRequest:
    """Raises `OptionsError`."""
    return RetrainRequest(backfill.from_arguments(given))


def run(given: argparse.Namespace) -> ExitStatus:
    """Execute the loop; the last line is its `Outcome`."""
    requested = from_arguments(given)
    request = requested.request()
    steps, console = progress.to_stderr(), progress.wide_console(stderr=True)
    with existing_or_started(requested.history.aws, requested.system_options, steps) as there:
        steps.say(f"[bold]retrain[/bold] in {there.title}: {json_text.text(request)}")
        history = {name: value for name, value in request.items() if name != "train"}
        console.print(backfill.table(execution.plan(there, history)))
        report = execution.watch(there, execution.start(there, request), console)
    result = outcome(report)
    for cause in report.causes:
        steps.say(f"[yellow]{cause}[/yellow]")
    if result.sentence:
        steps.say(result.sentence)
    print_last_line(asdict(result))
    return passed(report.ok and result.model_id is not None)


COMMAND = Command(
    "retrain",
    "fetch history, train a challenger, ask the gate; the last line is JSON",
    add_arguments,
    run,
)


def outcome(report: Report) -> Outcome:
    """The outcome that the report of an execution amounts to."""
    trained, verdict, promotion = report.trained, report.verdict, report.promotion
    return Outcome(
        ok=report.ok,
        model_id=verdict.get("model_id") or trained.get("model_id"),
        promoted=promotion.get("status") == "promoted",
        provisional=verdict.get("provisional"),
        reasons=verdict.get("reasons") or ["not_judged" if trained.get("model_id") else "not_trained"],
        sentence=verdict.get("sentence") or trained.get("why"),
        rows=trained.get("rows"),
        rows_with_quotes=trained.get("rows_with_quotes"),
        judged_s=verdict.get("seconds"),
        judged_rows=verdict.get("rows"),
        skill_against={name: found["skill"] for name, found in verdict.get("figures", {}).items()},
        champion=verdict.get("champion"),
        in_force=promotion.get("in_force"),
        challenger=promotion.get("challenger"),
        previous=promotion.get("previous"),
        windows=report.windows,
        feature_rows=report.feature_rows,
        seconds=report.seconds,
        error=report.error,
    )

"""`make retrain`: history, training and the gate, by the state machine.

Bronze from the stream is loaded with the history around it, quotes included: a window that ends a minute ago
loads all that bronze has of its hours.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from local.commands import backfill, execution
from local.commands.backfill import BackfillRequest
from local.commands.command import Command, ExitStatus, number_of, passed, print_last_line
from local.commands.deployment import add_aws_argument, existing_or_started
from local.commands.execution import Report, Request
from local.system import progress
from local.system.options import HISTORY_S, Options
from tickcast.adapters import json_text


def request(history: BackfillRequest) -> Request:
    """The input of the state machine: the history, by default of a day, and to train on all of it. Raises
    `OptionsError`."""
    symbols, days = history.symbols, history.days or 1
    train: dict[str, Any] = {"days": days + 1, "reason": "by hand"}
    if symbols:
        train["symbols"] = list(symbols)
    return BackfillRequest(symbols, days=days).request(datetime.now(UTC)) | {"train": train}


def system_options(history: BackfillRequest) -> Options:
    """Of a system started for the purpose: half an hour old, unless days are given."""
    if history.days:
        return history.system_options()
    return Options(history.feed, history.symbols, history_s=HISTORY_S)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `backfill.from_arguments` reads."""
    parser.add_argument("--symbols", default="", help="like BTCUSDT,ETHUSDT; default: all of the deployment")
    parser.add_argument(
        "--days", type=number_of("DAYS"), default=0, help="of history: today and this many before; default: 1"
    )
    add_aws_argument(parser)
    parser.add_argument("--feed", default="sim", help="of a temporary system: sim (default) or live")
    parser.set_defaults(from_="", to="", repair=False, dry=False)


def run(given: argparse.Namespace) -> ExitStatus:
    """Execute the loop; the last line is its `outcome`."""
    history = backfill.from_arguments(given)
    requested = request(history)
    steps, console = progress.to_stderr(), progress.wide_console(stderr=True)
    with existing_or_started(history.aws, lambda: system_options(history), steps) as there:
        steps.say(f"[bold]retrain[/bold] in {there.title}: {json_text.text(requested)}")
        without_training = {name: value for name, value in requested.items() if name != "train"}
        console.print(backfill.table(execution.plan(there, without_training)))
        report = execution.watch(there, execution.start(there, requested), console)
    result = outcome(report)
    for cause in report.causes:
        steps.say(f"[yellow]{cause}[/yellow]")
    if result["sentence"]:
        steps.say(result["sentence"])
    if result["held"]:
        steps.say("The champion is held: it stays, with the better model in its shadow, until `make lift`.")
    print_last_line(result)
    return passed(report.ok and result["model_id"] is not None)


COMMAND = Command(
    "retrain",
    "fetch history, train a challenger, evaluate it by the gate; the last line is JSON",
    add_arguments,
    run,
)


def outcome(report: Report) -> dict[str, Any]:
    """The last line: the model that was trained, the gate's decision on it, the champion `in_force`
    afterwards."""
    trained, verdict, promotion = report.trained, report.verdict, report.promotion
    return {
        "ok": report.ok,
        "model_id": verdict.get("model_id") or trained.get("model_id"),
        "promoted": promotion.get("status") == "promoted",
        "held": promotion.get("status") == "held",
        "provisional": verdict.get("provisional"),
        "reasons": verdict.get("reasons") or ["not_judged" if trained.get("model_id") else "not_trained"],
        "sentence": verdict.get("sentence") or trained.get("why"),
        "rows": trained.get("rows"),
        "rows_with_quotes": trained.get("rows_with_quotes"),
        "judged_s": verdict.get("seconds"),
        "judged_rows": verdict.get("rows"),
        "skill_against": {name: found["skill"] for name, found in verdict.get("figures", {}).items()},
        "champion": verdict.get("champion"),
        "in_force": report.refit["model_id"] if report.refit.get("promoted") else promotion.get("in_force"),
        "refit": report.refit,
        "challenger": promotion.get("challenger"),
        "previous": promotion.get("previous"),
        "windows": report.windows,
        "feature_rows": report.feature_rows,
        "seconds": report.seconds,
        "error": report.error,
    }

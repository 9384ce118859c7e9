"""`make retrain`: the whole loop by the state machine, from history to a model in force or why there is none.

What the stream has put into bronze is loaded with the history around it, quotes and all: every window up to a
minute ago brings along whatever bronze holds of its hours.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from local.commands import backfill
from local.commands.backfill import BackfillRequest, Report
from local.commands.options import HISTORY_S, Options, number_of
from local.system.progress import Progress
from tickcast.adapters import json_text


@dataclass(frozen=True)
class Retraining:
    """What `make retrain` was called with. `days` is 0 where it was not told."""

    history: BackfillRequest

    def request(self) -> dict[str, Any]:
        """What the state machine is asked: the history, and to train on all of it. Raises `OptionsError`."""
        asked = self.history
        days = asked.days or 1
        request = BackfillRequest(asked.symbols, days=days).request(datetime.now(UTC))
        train: dict[str, Any] = {"days": days + 1, "reason": "by hand"}
        if asked.symbols:
            train["symbols"] = list(asked.symbols)
        return request | {"train": train}

    def aside(self) -> Options:
        """Of a system that is started for it: half an hour old, unless days are told."""
        if self.history.days:
            return self.history.aside()
        return Options(self.history.feed, self.history.symbols, history_s=HISTORY_S)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `from_arguments` reads."""
    parser.add_argument("--symbols", default="", help="like BTCUSDT,ETHUSDT; default: all of the system")
    parser.add_argument(
        "--days", type=number_of("DAYS"), default=0, help="of history: today and so many before (1)"
    )
    parser.add_argument("--aws", default="", metavar="ENV", help="in the AWS account of your credentials")
    parser.add_argument("--feed", default="sim", help="of a system started for it: sim (default) or live")
    parser.set_defaults(from_="", to="", repair=False, dry=False)


def from_arguments(given: argparse.Namespace) -> Retraining:
    """Raises `OptionsError`."""
    return Retraining(backfill.from_arguments(given))


def run(asked: Retraining, steps: Progress) -> int:
    """The loop; the last line on stdout is the result, as JSON."""
    request = asked.request()
    console = steps.console if steps.console.is_terminal else Console(stderr=True, width=140)
    with backfill.deployment(asked.history.aws, asked.aside, steps) as there:
        steps.say(f"[bold]retrain[/bold] in {there.title}: {json_text.text(request)}")
        console.print(backfill.table(there.plan({k: v for k, v in request.items() if k != "train"})))
        report = backfill.watch(there, there.start(request), console)
    result = outcome(report)
    for cause in report.causes:
        steps.say(f"[yellow]{cause}[/yellow]")
    if result["sentence"]:
        steps.say(result["sentence"])
    print(json_text.text(result), flush=True)
    return 0 if report.ok and result["model_id"] else 1


def outcome(report: Report) -> dict[str, Any]:
    """What came of the loop: which model was trained, what the gate said, what is in force now."""
    trained, verdict, promotion = report.trained, report.verdict, report.promotion
    return {
        "ok": report.ok,
        "model_id": verdict.get("model_id") or trained.get("model_id"),
        "promoted": promotion.get("status") == "promoted",
        "provisional": verdict.get("provisional"),
        "reasons": verdict.get("reasons") or ["not_judged" if trained.get("model_id") else "not_trained"],
        "sentence": verdict.get("sentence") or trained.get("why"),
        "rows": trained.get("rows"),
        "rows_with_quotes": trained.get("rows_with_quotes"),
        "judged_s": verdict.get("seconds"),
        "judged_rows": verdict.get("rows"),
        "skill_against": {name: found["skill"] for name, found in verdict.get("figures", {}).items()},
        "champion": verdict.get("champion"),
        "in_force": promotion.get("in_force"),
        "challenger": promotion.get("challenger"),
        "previous": promotion.get("previous"),
        "windows": report.windows,
        "feature_rows": report.feature_rows,
        "seconds": report.seconds,
        "error": report.error,
    }

"""`make backfill`: fetch history into a deployment, by its state machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.table import Table

from local.commands import execution
from local.commands.command import Command, ExitStatus, number_of, passed, print_last_line, symbols
from local.commands.deployment import add_aws_argument, aws_environment, existing_or_started
from local.commands.execution import Request
from local.system import progress
from local.system.options import HISTORY_S, Options, OptionsError
from tickcast.adapters import json_text
from tickcast.adapters.settings import MAX_DAYS

_SHOWN_WINDOWS = 12
_REASONS = {"asked": "requested"}  # the planner's codes, for people
_SPARE_S = 120  # simulated before the requested time


@dataclass(frozen=True)
class BackfillRequest:
    """The history that is requested, and of which deployment."""

    symbols: tuple[str, ...] = ()
    from_: str = ""
    to: str = ""
    days: int = 0
    repair: bool = False
    dry: bool = False
    aws: str = ""  # the environment in the AWS account of the caller's credentials
    feed: str = "sim"  # of a system started for the purpose

    def request(self, now: datetime) -> Request:
        """The input of the state machine. Raises `OptionsError`."""
        if self.to and not self.from_:
            raise OptionsError("TO needs FROM")
        if not (self.from_ or self.days or self.repair):
            raise OptionsError(
                "which history? SYMBOL=BTCUSDT FROM=2024-08-01 TO=2024-08-03, or DAYS=2, or REPAIR=1"
            )
        request: Request = {}
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
        """How long ago the requested history begins: a simulated market has to be that old."""
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

    def system_options(self) -> Options:
        """Of a system started for the purpose."""
        history_s = HISTORY_S if self.feed == "live" else self.history_s(datetime.now(UTC))
        return Options(self.feed, self.symbols, history_s=history_s)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `from_arguments` reads."""
    parser.add_argument("--symbols", default="", help="like BTCUSDT,ETHUSDT; default: all of the deployment")
    parser.add_argument("--from", dest="from_", default="", help="like 2024-08-01 or 2024-08-01T12:00 (UTC)")
    parser.add_argument("--to", default="", help="likewise, exclusive; default: now")
    parser.add_argument("--days", type=number_of("DAYS"), default=0, help="today and this many days before")
    parser.add_argument("--repair", action="store_true", help="the missing trades in the gap ledger")
    parser.add_argument("--dry", action="store_true", help="print the plan, execute nothing")
    add_aws_argument(parser)
    parser.add_argument("--feed", default="sim", help="of a temporary system: sim (default) or live")


def from_arguments(given: argparse.Namespace) -> BackfillRequest:
    """Raises `OptionsError`."""
    chosen = symbols(given.symbols)
    if not 0 <= given.days <= MAX_DAYS:
        raise OptionsError(f"DAYS is {given.days}; it should be a whole number from 1 to {MAX_DAYS}")
    aws = aws_environment(given)
    if given.feed not in ("sim", "live"):
        raise OptionsError(f"FEED is {given.feed!r}; a temporary system for a backfill takes sim or live")
    requested = given.from_, given.to, given.days, given.repair, given.dry
    return BackfillRequest(chosen, *requested, aws, given.feed)


def run(given: argparse.Namespace) -> ExitStatus:
    """Plan, and execute the plan unless it is a dry run; the last line is the plan or the report."""
    requested = from_arguments(given)
    request = requested.request(datetime.now(UTC))
    steps, console = progress.to_stderr(), progress.wide_console(stderr=True)
    with existing_or_started(requested.aws, requested.system_options, steps) as there:
        steps.say(f"[bold]backfill[/bold] in {there.title}: {json_text.text(request)}")
        planned = execution.plan(there, request)
        console.print(table(planned))
        if requested.dry:
            print_last_line(planned)
            return ExitStatus.OK
        report = execution.watch(there, execution.start(there, request), console)
    for cause in report.causes:
        steps.say(f"[yellow]{cause}[/yellow]")
    print_last_line(asdict(report))
    return passed(report.ok)


COMMAND = Command(
    "backfill",
    "fetch history into the running system, a temporary one, or one in AWS; the last line is JSON",
    add_arguments,
    run,
)


def table(planned: dict[str, Any]) -> Table:
    """A plan, for people."""
    totals = planned["totals"]
    named = (("planned", "to fetch"), ("held", "in S3 already"), ("left", "left for further executions"))
    hours = ", ".join(f"{totals[f'hours_{name}']:g} h {what}" for name, what in named)
    count = planned["windows"]
    shown = Table(title=f"{count} window{'' if count == 1 else 's'}: {hours}", title_justify="left")
    for name in ("symbol", "from", "to", "reason"):
        shown.add_column(name)
    windows = [window for market in planned["markets"] for window in market["windows"]]
    for window in windows[:_SHOWN_WINDOWS]:
        reason = _REASONS.get(window["reason"], window["reason"])
        if window["first_id"] is not None:
            reason += f": trades {window['first_id']} to {window['last_id']}"
        shown.add_row(window["symbol"], _time(window["from_us"]), _time(window["to_us"]), reason)
    if len(windows) > _SHOWN_WINDOWS:
        shown.add_row(f"… and {len(windows) - _SHOWN_WINDOWS} more")
    return shown


def _time(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S}"

"""`make drills`: inject faults into a temporary system and reconcile every trade."""

from __future__ import annotations

import argparse

from local.commands.command import Command, ExitStatus, passed, print_last_line
from local.drills import runner
from local.system import progress
from local.system.options import Options
from local.system.system import temporary_system


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these drills")


def run(given: argparse.Namespace) -> ExitStatus:
    """Run the drills; the last line is the report."""
    drills = runner.chosen(given.only)
    steps = progress.to_stderr()
    steps.say(f"[bold]tickcast drills[/bold]: {', '.join(drill.name for drill in drills)}")
    with temporary_system("drills", Options(), steps) as system:
        report = runner.report(runner.run(system, drills, steps))
        system.state.keeps_logs = not report["ok"]
    progress.wide_console().print(runner.table(report))
    print_last_line(report)
    return passed(report["ok"])


COMMAND = Command(
    "drills",
    "inject faults into a temporary system, reconcile every trade; the last line is JSON",
    add_arguments,
    run,
)

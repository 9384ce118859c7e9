"""`make drills`: inject faults into a temporary system and reconcile every trade."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from local.commands.command import Command, ExitStatus, passed, print_last_line
from local.drills import runner
from local.drills.harness import DrillFailed
from local.system import progress
from local.system.options import Options
from local.system.state_folder import throw_away
from local.system.system import System


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these drills")


def run(given: argparse.Namespace) -> ExitStatus:
    """Run the drills; the last line is the report."""
    drills = runner.chosen(given.only)
    steps, state, is_ok = progress.to_stderr(), throw_away("drills"), False
    steps.say(f"[bold]tickcast drills[/bold]: {', '.join(drill.name for drill in drills)}")
    try:
        with System(Options(), state, steps) as system:
            results = runner.run(system, drills, steps)
        report = runner.report(results)
        is_ok = report.ok
        progress.wide_console().print(runner.table(report))
        print_last_line(asdict(report))
    finally:
        state.discard(keep_logs=not is_ok)
        if not is_ok:
            steps.say(f"logs are in {state.logs}")
    return passed(is_ok)


COMMAND = Command(
    "drills",
    "inject faults into a temporary system, reconcile every trade; the last line is JSON",
    add_arguments,
    run,
    failures=(DrillFailed,),
)

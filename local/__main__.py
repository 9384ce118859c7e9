"""`python -m local COMMAND`: tickcast on this machine. The Makefile is the way to call it; each command is
declared in its module of `local.commands`, the exit statuses in `local.commands.command`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType

from local.commands import backfill, drills, evaluate, explain, gaps, models, retrain, run, smoke
from local.system.processes import die_with_parent

COMMANDS = (
    run.COMMAND,
    smoke.COMMAND,
    drills.COMMAND,
    gaps.COMMAND,
    explain.COMMAND,
    evaluate.COMMAND,
    backfill.COMMAND,
    retrain.COMMAND,
    *models.COMMANDS,
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m local", description="tickcast on this machine.")
    names = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add_arguments(names.add_parser(command.name, help=command.help))
    given = parser.parse_args(arguments)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    if "MAKELEVEL" in os.environ:  # else killing make would leave the system running
        die_with_parent(signal.SIGTERM)
    return next(command for command in COMMANDS if command.name == given.command).execute(given)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

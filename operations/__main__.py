"""`python -m operations COMMAND`: tickcast in an AWS account. The Makefile is the way to call it; each
command is declared in its module."""

from __future__ import annotations

import argparse
import os
import sys

from local.commands.command import Command, ExitStatus, Parser
from operations.cost.command import COMMAND as COST
from operations.deployment import deploy, destroy, doctor
from operations.failures import OperationFailed, OperationRefused
from operations.images import builders, lock
from operations.rehearsal.commands import DOCUMENT, REHEARSE

_COMMANDS: tuple[Command, ...] = (
    *(REHEARSE, DOCUMENT, deploy.COMMAND, deploy.DIFF, destroy.COMMAND, doctor.COMMAND),
    *(COST, builders.COMMAND, lock.COMMAND),
)
COMMANDS = {command.name: command for command in _COMMANDS}


def main(arguments: list[str]) -> int:
    parser = Parser(prog="python -m operations", description="tickcast in an AWS account.")
    names = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS.values():
        command.add_arguments(names.add_parser(command.name, help=command.help))
    given = parser.parse_args(arguments)
    return execute(COMMANDS[given.command], given)


def execute(command: Command, given: argparse.Namespace) -> ExitStatus:
    """Run with parsed arguments."""
    try:
        return command.run(given)
    except OperationRefused as error:
        print(f"tickcast: {error}", file=sys.stderr)
        return ExitStatus.USAGE
    except OperationFailed as error:
        print(f"tickcast: {error}", file=sys.stderr)
        return ExitStatus.FAILED
    except BrokenPipeError:  # as of `make cost | head`: the rest is not read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m local COMMAND`: tickcast on this machine. The Makefile is the way to call it; each command is
declared in its module of `local.commands`. An error of the kinds below is shown by its message alone."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType

from botocore.exceptions import BotoCoreError, ClientError

from cdk.config import ConfigError
from local.commands import (
    aws_access,
    backfill,
    drills,
    evaluate,
    explain,
    export,
    gaps,
    gate_check,
    import_model,
    models,
    notify_test,
    retrain,
    run,
    smoke,
    symbols,
)
from local.commands.command import Command, ExitStatus, Parser
from local.commands.deployment import DeploymentNotFound
from local.commands.explain import BronzeUnreadable
from local.commands.export import ExportFailed
from local.commands.smoke import WarmUpFailed
from local.commands.symbol_checks import ExchangeSilent
from local.drills.harness import DrillFailed
from local.exchange.recording import RecordingError
from local.exchange.reference import UnusableReference
from local.system.api import ApiFailed
from local.system.cloud import FunctionFailed
from local.system.database import MigrationFailed
from local.system.options import OptionsError
from local.system.processes import ProcessFailed, die_with_parent
from local.system.state_folder import StateInUse
from tickcast.adapters.registry.model_registry import PointerRace, RegistryError
from tickcast.adapters.registry.served_symbols import SymbolsError, SymbolsRace
from tickcast.evaluation.backtest import EvaluationError
from tickcast.model.training import TrainingError

_COMMANDS = (
    run.COMMAND,
    smoke.COMMAND,
    drills.COMMAND,
    gaps.COMMAND,
    explain.COMMAND,
    export.COMMAND,
    evaluate.COMMAND,
    backfill.COMMAND,
    retrain.COMMAND,
    *models.COMMANDS,
    import_model.COMMAND,
    gate_check.COMMAND,
    symbols.COMMAND,
    notify_test.COMMAND,
)
COMMANDS = {command.name: command for command in _COMMANDS}
REFUSALS = (ConfigError, OptionsError, StateInUse, RecordingError, UnusableReference)
FAILURES = (
    *(ProcessFailed, FunctionFailed, MigrationFailed, DeploymentNotFound, ApiFailed, BronzeUnreadable),
    *(ExportFailed, WarmUpFailed, DrillFailed, EvaluationError, TrainingError, RegistryError, PointerRace),
    *(ExchangeSilent, SymbolsError, SymbolsRace),
)


def main(arguments: list[str]) -> int:
    parser = Parser(prog="python -m local", description="tickcast on this machine.")
    names = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS.values():
        command.add_arguments(names.add_parser(command.name, help=command.help))
    given = parser.parse_args(arguments)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    if "MAKELEVEL" in os.environ:  # else killing make would leave the system running
        die_with_parent(signal.SIGTERM)
    return execute(COMMANDS[given.command], given)


def execute(command: Command, given: argparse.Namespace) -> ExitStatus:
    """Run with parsed arguments."""
    try:
        return command.run(given)
    except REFUSALS as error:
        print(f"tickcast: {error}", file=sys.stderr)
        return ExitStatus.USAGE
    except FAILURES as error:
        print(f"tickcast: {error}", file=sys.stderr)
        return ExitStatus.FAILED
    except (BotoCoreError, ClientError) as error:  # such as a system that stops while it is watched
        print(f"tickcast: {aws_access.why(error)}", file=sys.stderr)
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

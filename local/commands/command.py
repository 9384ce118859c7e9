"""How a command is declared and how it ends: by one set of exit statuses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from local.commands.deployment import DeploymentNotFound
from local.exchange.recording import RecordingError
from local.system.api import ApiFailed
from local.system.cloud import FunctionFailed
from local.system.database import MigrationFailed
from local.system.options import OptionsError
from local.system.processes import ProcessFailed
from local.system.state_folder import StateInUse
from tickcast.adapters import json_text

Errors = tuple[type[Exception], ...]

_REFUSALS: Errors = (OptionsError, StateInUse, RecordingError)
_FAILURES: Errors = (ProcessFailed, FunctionFailed, MigrationFailed, DeploymentNotFound, ApiFailed)


class ExitStatus(IntEnum):
    OK = 0  # also when `run` is stopped by a signal
    FAILED = 1  # the work failed, a test did not pass, or nothing runs that the command could work on
    USAGE = 2  # the arguments, or the files they name, cannot be used
    INCONCLUSIVE = 3  # of `explain`: bronze does not hold enough to compare
    INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """One command of `python -m local`. The message of an error in `refusals` or `failures` is all that the
    user sees of it; those of a local system and of finding a deployment are in every command's."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], ExitStatus]
    refusals: Errors = ()  # end it with USAGE
    failures: Errors = ()  # end it with FAILED

    def execute(self, given: argparse.Namespace) -> ExitStatus:
        """Run with parsed arguments."""
        try:
            return self.run(given)
        except (*_REFUSALS, *self.refusals) as error:
            print(f"tickcast: {error}", file=sys.stderr)
            return ExitStatus.USAGE
        except (*_FAILURES, *self.failures) as error:
            print(f"tickcast: {error}", file=sys.stderr)
            return ExitStatus.FAILED
        except KeyboardInterrupt:
            return ExitStatus.INTERRUPTED


def passed(ok: bool) -> ExitStatus:
    return ExitStatus.OK if ok else ExitStatus.FAILED


def print_last_line(report: Any) -> None:
    """Print a command's result, JSON's own types, as the last line on stdout."""
    print(json_text.text(report), flush=True)

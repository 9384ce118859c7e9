"""`make destroy ENV=dev`: the stacks, what they hold, and what they would leave behind.

It may break off anywhere and be repeated. An environment with `keep_data` keeps its data: they are listed
instead of deleted, and it is destroyed only when its name is given as CONFIRM.
"""

from __future__ import annotations

import argparse
import sys
import time

from local.commands.command import Command, ExitStatus
from local.system import progress
from operations.deployment import leftovers, stacks
from operations.deployment.account import STACKS, Account, Say, environment, say_endpoint
from operations.deployment.leftovers import STAYS
from operations.deployment.stacks import Sleep
from operations.deployment.steps import Step, carry_out
from operations.failures import OperationRefused


class StopExecutions:
    """A state machine is deleted only when its executions are over, which may take days."""

    name = "stop running executions"

    def is_done(self, account: Account) -> bool:
        return not self._running(account)

    def run(self, account: Account, say: Say) -> None:
        for arn in self._running(account):
            account.client("stepfunctions").stop_execution(executionArn=arn, cause="make destroy")
            say(f"stopped {arn.rpartition(':')[2]}")

    def _running(self, account: Account) -> list[str]:
        if not (machine := account.outputs("app").get("BackfillMachine")):
            return []
        client = account.client("stepfunctions")
        try:
            listed = client.list_executions(stateMachineArn=machine, statusFilter="RUNNING")
        except client.exceptions.StateMachineDoesNotExist:  # an interrupted deletion went that far
            return []
        return [each["executionArn"] for each in listed["executions"]]


class EmptyBuckets:
    """CloudFormation deletes no bucket that has objects. After the app: nothing writes any more."""

    name = "empty the buckets"

    def is_done(self, account: Account) -> bool:
        if account.environment.keep_data:
            return True
        return all(leftovers.is_empty(account, name) for name in leftovers.data_buckets(account))

    def run(self, account: Account, say: Say) -> None:
        for bucket in leftovers.data_buckets(account):
            say(f"{bucket}: {leftovers.empty(account, bucket):,} versions of objects deleted")


class DeleteStack:
    """The stack `part`; what protects it and its database from deletion is switched off."""

    def __init__(self, part: str, sleep: Sleep = time.sleep) -> None:
        self.part = part
        self.name = f"delete stack {part}"
        self._sleep = sleep

    def is_done(self, account: Account) -> bool:
        return not account.status(self.part)

    def run(self, account: Account, say: Say) -> None:
        if stacks.settled(account, self.part, say, self._sleep):
            stacks.delete(account, self.part, say, self._sleep)


class DeleteLeftovers:
    """What the stacks retained, and what services made."""

    name = "leftovers"

    def is_done(self, account: Account) -> bool:
        return not self._to_delete(account)

    def run(self, account: Account, say: Say) -> None:
        for found in self._to_delete(account):
            found.delete()
            say(f"deleted {found.what}")

    def _to_delete(self, account: Account) -> list[leftovers.Leftover]:
        keep = account.environment.keep_data
        return [each for each in leftovers.leftovers(account) if not (keep and each.is_data)]


def steps(sleep: Sleep = time.sleep) -> list[Step]:
    """All steps: the app before what it writes to, the network last."""
    app, data, network = (DeleteStack(part, sleep) for part in reversed(STACKS))
    return [StopExecutions(), app, EmptyBuckets(), data, network, DeleteLeftovers()]


def check_confirmed(name: str, confirm: str) -> None:
    """Raises `OperationRefused` unless `name` may be destroyed: what keeps its data needs CONFIRM, the
    others a person on a terminal, if there is one, to type the name."""
    if confirm == name:
        return
    if confirm or environment(name).keep_data:
        raise OperationRefused(
            f"CONFIRM is {confirm!r}; it should be {name} to destroy {name}: make destroy ENV={name} "
            f"CONFIRM={name}"
        )
    if sys.stdin.isatty() and input(f"All of {name} is deleted, its data too. Type {name}: ").strip() != name:
        raise OperationRefused("nothing was deleted")


def kept(account: Account) -> list[str]:
    """What is left, which `keep_data` says to keep."""
    return leftovers.kept(account)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("env", metavar="ENV", help="dev or prod")
    parser.add_argument("--confirm", default="", help="the name again; needed for prod")


def run(given: argparse.Namespace) -> ExitStatus:
    account = Account(environment(given.env))
    check_confirmed(account.name, given.confirm)
    say_endpoint()
    account.check_access()
    carry_out(steps(), account, progress.to_stderr(), stacks.destroy_command(account))
    left = kept(account)
    print(f"{account.name} is gone. {STAYS}.")
    if left:
        print("Kept, as keep_data says, and still charged:", *left, sep="\n  ")
    return ExitStatus.OK


COMMAND = Command("destroy", "delete an environment and all that costs", add_arguments, run)

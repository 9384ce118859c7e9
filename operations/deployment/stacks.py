"""One stack: what an earlier run left is brought to an end first, then the CDK deploys it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from operations.deployment.account import DEPLOYED, Account, Say
from operations.deployment.toolkit import Toolkit
from operations.deployment.version import version
from operations.failures import OperationFailed

POLL_S = 10.0
PATIENCE_S = 3 * 3600.0  # a function's network interfaces alone can take 40 minutes to go
_SHOWN_FAILURES = 5
FAILED_FOR_GOOD = ("ROLLBACK_FAILED", "DELETE_FAILED")
_NEVER_CREATED = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED")

Sleep = Callable[[float], None]


class DeployStack:
    """The stack `part`. The CDK itself finds out whether anything has changed."""

    def __init__(self, part: str, cdk: Toolkit, sleep: Sleep = time.sleep) -> None:
        self.part = part
        self.name = f"stack {part}"
        self._cdk = cdk
        self._sleep = sleep

    def is_done(self, account: Account) -> bool:
        return False

    def run(self, account: Account, say: Say) -> None:
        make_deployable(account, self.part, say, self._sleep)
        started = datetime.now(UTC)
        try:
            self._cdk.deploy(account.stack_name(self.part))
        except OperationFailed as error:
            reasons = failures(account, account.stack_name(self.part), started - timedelta(seconds=60))
            raise OperationFailed("\n  ".join([str(error), *reasons])) from None
        if self.part == "app":
            account.note(DEPLOYED, version())


def make_deployable(account: Account, part: str, say: Say, sleep: Sleep = time.sleep) -> None:
    """Wait for what CloudFormation still does, finish a rollback that failed, and delete a stack that was
    never created: it can neither be updated nor, where it is protected, deleted by the CDK."""
    name, cloudformation = account.stack_name(part), account.client("cloudformation")
    status = settled(account, part, say, sleep)
    if status == "UPDATE_ROLLBACK_FAILED":
        say(f"{name}: its last rollback failed and is continued")
        cloudformation.continue_update_rollback(StackName=name)
        status = settled(account, part, say, sleep)
    if status in _NEVER_CREATED:
        say(f"{name} was never created completely: what there is of it is deleted first")
        delete(account, part, say, sleep)
    elif status in (*FAILED_FOR_GOOD, "UPDATE_ROLLBACK_FAILED"):
        raise OperationFailed(
            f"{name} is {status}: see its events in CloudFormation's console. What blocks it has to be "
            f"removed there, or `{destroy_command(account)}` removes all"
        )


def settled(account: Account, part: str, say: Say, sleep: Sleep = time.sleep) -> str:
    """The status of a stack once CloudFormation does nothing to it; empty where there is none. An interrupted
    deployment continues there."""
    return settled_stack(account, account.stack_name(part), say, sleep)


def settled_stack(account: Account, name: str, say: Say, sleep: Sleep = time.sleep) -> str:
    """As `settled`, of the stack called `name`."""
    deadline, said = time.monotonic() + PATIENCE_S, ""
    while (status := _status(account, name)).endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        if status != said:
            say(f"{name} is {status}: waiting for CloudFormation")
            said = status
        if time.monotonic() > deadline:
            raise OperationFailed(f"{name} has been {status} for {PATIENCE_S / 3600:g} h")
        sleep(POLL_S)
    return status


def _status(account: Account, name: str) -> str:
    found = account.stack(name)
    return str(found["StackStatus"]) if found else ""


def delete(account: Account, part: str, say: Say, sleep: Sleep = time.sleep) -> None:
    """Delete a stack and wait. Raises `OperationFailed` naming what could not be deleted."""
    name, cloudformation = account.stack_name(part), account.client("cloudformation")
    found = account.stack(name)
    if found is None:
        return
    if found.get("EnableTerminationProtection"):
        cloudformation.update_termination_protection(EnableTerminationProtection=False, StackName=name)
    _unprotect_database(account, name)
    started = datetime.now(UTC)
    cloudformation.delete_stack(StackName=name)
    if settled(account, part, say, sleep):
        reasons = failures(account, name, started - timedelta(seconds=5))
        raise OperationFailed("\n  ".join([f"{name} could not be deleted", *reasons]))


def _unprotect_database(account: Account, stack: str) -> None:
    """Switch off what protects the stack's database from deletion. One that is being deleted, or is gone
    since a deletion that did not end, no longer needs it."""
    rds = account.client("rds")
    for resource in account.resources(stack):
        if resource.kind != "AWS::RDS::DBInstance" or not resource.physical_id:
            continue
        try:
            rds.modify_db_instance(
                DBInstanceIdentifier=resource.physical_id, DeletionProtection=False, ApplyImmediately=True
            )
        except (rds.exceptions.DBInstanceNotFoundFault, rds.exceptions.InvalidDBInstanceStateFault):
            continue


def destroy_command(account: Account) -> str:
    """The command that destroys the environment."""
    confirmed = f" CONFIRM={account.name}" if account.environment.keep_data else ""
    return f"make destroy ENV={account.name}{confirmed}"


def failures(account: Account, stack: str, since: datetime) -> list[str]:
    """The first reasons why resources of a stack failed since then, oldest first."""
    if account.stack(stack) is None:
        return []
    pages = account.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=stack)
    found: list[Any] = []
    for page in pages:
        events = page["StackEvents"]  # newest first
        found += [event for event in events if event["Timestamp"] >= since]
        if events and events[-1]["Timestamp"] < since:
            break
    failed = [
        f"{event['LogicalResourceId']} ({event['ResourceType']}): {event['ResourceStatusReason']}"
        for event in reversed(found)
        if event["ResourceStatus"].endswith("_FAILED")
        # What was only stopped because something else failed explains nothing.
        and "cancelled" not in event.get("ResourceStatusReason", "cancelled").lower()
    ]
    return failed[:_SHOWN_FAILURES]

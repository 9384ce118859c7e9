"""What an earlier run left of a stack, and the reasons of a failure.

No emulator's CloudFormation is slow, fails halfway or protects a stack from deletion: its answers are made
here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from operations.deployment import toolkit
from operations.deployment.account import Account
from operations.deployment.stacks import DeployStack, delete, failures, make_deployable, settled
from operations.deployment.toolkit import Toolkit
from operations.failures import OperationFailed
from tests.fixtures.account_in_moto import account


class CloudFormation:
    """A stack whose status goes through `statuses`, one at each look; the last one stays. Empty: none."""

    def __init__(self, *statuses: str, is_protected: bool = False) -> None:
        self.statuses = list(statuses)
        self.is_protected = is_protected
        self.calls: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.database = ""  # the state of the one in the stack; empty: there is none

    def describe_stacks(self, **_: Any) -> Any:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if not status:
            error = {"Code": "ValidationError", "Message": "it does not exist"}
            raise ClientError({"Error": error}, "DescribeStacks")
        return {"Stacks": [{"StackStatus": status, "EnableTerminationProtection": self.is_protected}]}

    def update_termination_protection(self, **wanted: Any) -> None:
        self.is_protected = wanted["EnableTerminationProtection"]
        self.calls.append("unprotect")

    def delete_stack(self, **_: Any) -> None:
        assert not self.is_protected
        self.calls.append("delete")

    def continue_update_rollback(self, **_: Any) -> None:
        self.calls.append("continue")

    def get_paginator(self, name: str) -> Any:
        database = {"ResourceType": "AWS::RDS::DBInstance", "LogicalResourceId": "Database"}
        database |= {"PhysicalResourceId": "history"}
        page = {"StackEvents": self.events, "StackResourceSummaries": [database] if self.database else []}
        return type("Pages", (), {"paginate": lambda _, **__: [page]})()

    class exceptions:  # noqa: N801 (boto3's name)
        class DBInstanceNotFoundFault(Exception):
            pass

        class InvalidDBInstanceStateFault(Exception):
            pass

    def modify_db_instance(self, **wanted: Any) -> None:
        if self.database == "gone":
            raise self.exceptions.DBInstanceNotFoundFault
        if self.database == "deleting":
            raise self.exceptions.InvalidDBInstanceStateFault
        assert wanted["DeletionProtection"] is False
        self.calls.append("unprotect database")


def of(cloudformation: CloudFormation) -> Account:
    return Account(account().environment, lambda service: cloudformation)


def prepared(cloudformation: CloudFormation) -> list[str]:
    """What was said while the stack was made deployable."""
    said: list[str] = []
    make_deployable(of(cloudformation), "data", said.append, sleep=lambda seconds: None)
    return said


def test_what_cloudformation_still_does_is_waited_for() -> None:
    """As after Ctrl-C: the deployment continues without the command that started it."""
    stack = CloudFormation("CREATE_IN_PROGRESS", "CREATE_IN_PROGRESS", "CREATE_COMPLETE")
    assert prepared(stack) == ["tickcast-dev-data is CREATE_IN_PROGRESS: waiting for CloudFormation"]
    assert stack.calls == []


@pytest.mark.parametrize("status", ["", "CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS"])
def test_what_the_cdk_can_deploy_is_left_to_it(status: str) -> None:
    stack = CloudFormation(status)
    assert (prepared(stack), stack.calls) == ([], [])


def test_a_stack_that_was_never_created_is_deleted_first_though_protected() -> None:
    stack = CloudFormation(*["ROLLBACK_COMPLETE"] * 2, "DELETE_IN_PROGRESS", "", is_protected=True)
    prepared(stack)
    assert stack.calls == ["unprotect", "delete"]


def test_a_rollback_that_failed_is_continued() -> None:
    stack = CloudFormation(
        "UPDATE_ROLLBACK_FAILED", "UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"
    )
    prepared(stack)
    assert stack.calls == ["continue"]


def test_what_only_a_person_can_free_is_said() -> None:
    with pytest.raises(OperationFailed, match="is DELETE_FAILED: .* `make destroy ENV=dev` removes all"):
        prepared(CloudFormation("DELETE_FAILED"))


@pytest.mark.parametrize(
    ("database", "calls"),
    [
        ("available", ["unprotect database", "delete"]),
        ("gone", ["delete"]),
        ("deleting", ["delete"]),
    ],
)
def test_a_protected_database_does_not_stop_a_deletion(database: str, calls: list[str]) -> None:
    stack = CloudFormation("DELETE_FAILED", "DELETE_IN_PROGRESS", "")
    stack.database = database
    delete(of(stack), "data", print, sleep=lambda seconds: None)
    assert stack.calls == calls


def test_what_could_not_be_deleted_is_named() -> None:
    stack = CloudFormation("CREATE_COMPLETE", "DELETE_IN_PROGRESS", "DELETE_FAILED")
    stack.events = [event("Bucket", "DELETE_FAILED", "The bucket is not empty", 1)]
    with pytest.raises(OperationFailed, match="could not be deleted\n  Bucket .*: The bucket is not empty"):
        delete(of(stack), "data", print, sleep=lambda seconds: None)


def test_a_stack_that_stays_busy_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.deployment.stacks.PATIENCE_S", -1.0)
    with pytest.raises(OperationFailed, match="has been UPDATE_IN_PROGRESS"):
        settled(of(CloudFormation("UPDATE_IN_PROGRESS")), "data", print, sleep=lambda seconds: None)


def test_a_deployment_that_fails_names_the_resources() -> None:
    stack = CloudFormation("CREATE_COMPLETE")
    stack.events = [event("Door", "UPDATE_FAILED", "Invalid rule description", 0)]

    class Failing(Toolkit):
        def deploy(self, stack: str) -> None:
            raise OperationFailed("`cdk deploy` ended with status 1; its output is above")

    with pytest.raises(OperationFailed, match="status 1; .*\n  Door .*: Invalid rule description"):
        DeployStack("app", Failing(of(stack))).run(of(stack), print)


def test_bootstrap_synthesises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh clone the layers are missing, and the app cannot be synthesised."""
    ran: list[list[str]] = []
    monkeypatch.setattr(toolkit, "CDK", toolkit.ROOT / "cdk.json")  # any file that is there

    def run(command: list[str], environment: Mapping[str, str]) -> int:
        ran.append(command[1:])
        return 0

    monkeypatch.setattr(toolkit, "run", run)
    there = of(CloudFormation(""))
    monkeypatch.setattr(type(there), "id", "123456789012")
    Toolkit(there).bootstrap()
    assert ran == [["bootstrap", "aws://123456789012/ap-northeast-1", "--app", ""]]


def event(name: str, status: str, reason: str, seconds: float) -> dict[str, Any]:
    return {
        "LogicalResourceId": name,
        "ResourceType": "AWS::X",
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
        "Timestamp": datetime.now(UTC) + timedelta(seconds=seconds),
    }


def test_the_first_reasons_of_a_failure_are_found() -> None:
    stack = CloudFormation("ROLLBACK_COMPLETE")
    stack.events = [
        event("Stack", "ROLLBACK_IN_PROGRESS", "", 3),
        event("B", "CREATE_FAILED", "Resource creation cancelled", 2),
        event("A", "CREATE_FAILED", "Invalid rule description", 1),
        event("Old", "CREATE_FAILED", "of an earlier attempt", -100),
    ]
    found = failures(of(stack), "s", datetime.now(UTC) - timedelta(seconds=5))
    assert found == ["A (AWS::X): Invalid rule description"]


def test_events_before_the_failure_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def pages() -> Iterator[dict[str, Any]]:
        yield {"StackEvents": [event("C", "CREATE_FAILED", "no", 4), event("B", "CREATE_FAILED", "no", 3)]}
        yield {"StackEvents": [event("A", "CREATE_FAILED", "no", 2), event("Old", "CREATE_FAILED", "", -99)]}
        raise AssertionError("a third page was asked for")

    stack = CloudFormation("ROLLBACK_COMPLETE")
    paginator = type("Pages", (), {"paginate": lambda _, **__: pages()})()
    monkeypatch.setattr(stack, "get_paginator", lambda name: paginator)
    found = failures(of(stack), "s", datetime.now(UTC) - timedelta(seconds=5))
    assert [each[0] for each in found] == ["A", "B", "C"]

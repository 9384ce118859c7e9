"""The migration task: waited for, its failure named, its log shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from local.system import cloud
from operations.deployment.account import MIGRATED, Account
from operations.deployment.migration import UNKNOWN_POLLS, Migrate, log_lines, problem
from operations.failures import OperationFailed
from tests.fixtures.account_in_moto import CdkInMoto, account, client, recorded

LOGS = "tickcast-dev-app-logs"


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for name, value in cloud.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        of = account()
        for part in ("data", "app"):
            CdkInMoto(of).deploy(f"tickcast-dev-{part}")
        yield of


def run(of: Account, said: list[str]) -> None:
    Migrate(sleep=lambda seconds: None).run(of, said.append)


def test_a_migration_that_succeeds_is_noted(deployed: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with recorded(monkeypatch) as calls:
        run(deployed, said)
        ((_, started),) = [call for call in calls.made if call[0] == "RunTask"]
    assert started["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == ["subnet-1", "subnet-2"]
    assert deployed.noted(MIGRATED) == "tickcastdevappMigrate:1"
    assert Migrate().is_done(deployed)
    assert said[-1] == "exit status 0"


@pytest.mark.parametrize(
    ("exit_code", "reason"),
    [(1, "exit status 1"), (None, "the container was not started: ResourceInitializationError: no route")],
)
def test_one_that_fails_is_not(
    deployed: Account, monkeypatch: pytest.MonkeyPatch, exit_code: int | None, reason: str
) -> None:
    with recorded(monkeypatch) as calls:
        calls.exit_code = exit_code
        with pytest.raises(OperationFailed, match=f"{reason}.*{LOGS}"):
            run(deployed, [])
    assert not Migrate().is_done(deployed)


def test_the_end_of_its_log_is_shown(deployed: Account) -> None:
    logs, task = client("logs"), "arn:aws:ecs:ap-northeast-1:1:task/c/abc"
    assert log_lines(deployed, LOGS, task) == []
    logs.create_log_stream(logGroupName=LOGS, logStreamName="migrate/Migrate/abc")
    now_ms = int(time.time() * 1000) - 1000
    events = [{"timestamp": now_ms + i, "message": f"line {i}\n"} for i in range(30)]
    logs.put_log_events(logGroupName=LOGS, logStreamName="migrate/Migrate/abc", logEvents=events)
    assert log_lines(deployed, LOGS, task) == [f"line {i}" for i in range(10, 30)]


def test_what_ecs_could_not_start_is_said() -> None:
    class Refusing:
        def list_tasks(self, **_: Any) -> Any:
            return {"taskArns": []}

        def run_task(self, **_: Any) -> Any:
            return {"tasks": [], "failures": [{"reason": "RESOURCE:ENI"}]}

    class There:
        def client(self, service: str) -> Any:
            return Refusing()

        def outputs(self, part: str) -> dict[str, str]:
            names = ("ClusterArn", "MigrationTask", "MigrationSubnets", "MigrationSecurityGroup")
            return dict.fromkeys(names, "x")

    of: Any = There()
    with pytest.raises(OperationFailed, match="ECS did not start the task: RESOURCE:ENI"):
        run(of, [])


class Tasks:
    """ECS with `earlier` still running, whose tasks are unknown for the first `unknown` looks."""

    def __init__(self, earlier: list[str], unknown: int) -> None:
        self.running, self.unknown = list(earlier), unknown
        self.started: list[str] = []
        self.noted: list[str] = []

    def list_tasks(self, **_: Any) -> Any:
        return {"taskArns": self.running}

    def run_task(self, taskDefinition: str, **_: Any) -> Any:  # noqa: N803 (boto3's name)
        self.started.append(taskDefinition)
        return {"tasks": [{"taskArn": taskDefinition}]}

    def describe_tasks(self, tasks: list[str], **_: Any) -> Any:
        if self.unknown:
            self.unknown -= 1
            return {"tasks": [], "failures": [{"reason": "MISSING"}]}
        self.running = [task for task in self.running if task not in tasks]
        ended = {"lastStatus": "STOPPED", "taskDefinitionArn": tasks[0]}
        return {"tasks": [ended | {"containers": [{"name": "Migrate", "exitCode": 0}]}]}

    def get_log_events(self, **_: Any) -> Any:
        return {"events": []}

    def client(self, service: str) -> Any:
        return self

    def outputs(self, part: str) -> dict[str, str]:
        names = ("ClusterArn", "MigrationSubnets", "MigrationSecurityGroup", "MigrationLogGroup")
        return dict.fromkeys(names, "x") | {"MigrationTask": "task-definition/fam:7"}

    def note(self, tag: str, value: str) -> None:
        self.noted.append(value)


def test_an_earlier_revision_that_still_runs_is_followed_by_the_current_one() -> None:
    ecs: Any = Tasks(["task-definition/fam:6"], unknown=0)
    run(ecs, [])
    assert (ecs.noted, ecs.started) == (["fam:6", "fam:7"], ["task-definition/fam:7"])


def test_a_task_that_ecs_does_not_list_yet_is_waited_for() -> None:
    ecs: Any = Tasks([], unknown=UNKNOWN_POLLS)
    run(ecs, [])
    assert ecs.noted == ["fam:7"]
    with pytest.raises(OperationFailed, match="does not know the task any more"):
        run(Tasks([], unknown=UNKNOWN_POLLS + 1), [])  # type: ignore[arg-type]


def test_a_stop_is_explained_once() -> None:
    container = {"name": "Migrate", "exitCode": 137, "reason": "OutOfMemoryError"}
    task = {"containers": [container], "stoppedReason": "OutOfMemoryError"}
    assert problem(task) == "exit status 137: OutOfMemoryError"

"""The migration of the database: started, waited for, and read out.

`run-task` returns at once, and a migration that fails then is invisible. Here its exit status and its log are
shown, and which task definition migrated the database is noted in the account.
"""

from __future__ import annotations

import time
from typing import Any

from botocore.exceptions import ClientError

from operations.deployment.account import MIGRATED, Account, Say
from operations.deployment.stacks import Sleep
from operations.failures import OperationFailed

STARTED_BY = "tickcast-deploy"
CONTAINER, LOG_PREFIX = "Migrate", "migrate"
POLL_S = 5.0
PATIENCE_S = 900.0
UNKNOWN_POLLS = 12  # a minute
_SHOWN_LINES = 20


class Migrate:
    """Run the task `Migrate`, unless this very task definition has migrated the database before: another
    image, so another migration, or another database is another revision of it."""

    name = "migration"

    def __init__(self, sleep: Sleep = time.sleep) -> None:
        self._sleep = sleep

    def is_done(self, account: Account) -> bool:
        return account.noted(MIGRATED) == (revision(account) or None)

    def run(self, account: Account, say: Say) -> None:
        """An interrupted deployment may have left an earlier revision running: it is waited for, and then the
        current one follows."""
        migrated = ""
        while migrated != revision(account):
            migrated = self._run(account, say)
            account.note(MIGRATED, migrated)

    def _run(self, account: Account, say: Say) -> str:
        """Carry out one task. Returns the revision that it is of."""
        outputs = account.outputs("app")
        task = _running(account, outputs) or _start(account, outputs)
        say(f"task {task.rpartition('/')[2]}")
        ended = self._ended(account, outputs, task, say)
        lines = log_lines(account, outputs["MigrationLogGroup"], task)
        for line in lines:
            say(f"| {line}")
        if why := problem(ended):
            raise OperationFailed(
                f"{why}; its log is {outputs['MigrationLogGroup']}"
                + ("" if lines else " (it wrote nothing: the container has not started)")
            )
        say("exit status 0")
        return str(ended["taskDefinitionArn"]).rpartition("/")[2]

    def _ended(self, account: Account, outputs: dict[str, str], task: str, say: Say) -> dict[str, Any]:
        deadline, said, unknown = time.monotonic() + PATIENCE_S, "", 0
        while True:
            answer = account.client("ecs").describe_tasks(cluster=outputs["ClusterArn"], tasks=[task])
            if not answer["tasks"]:  # right after its start ECS may not list it yet
                unknown += 1
                if unknown > UNKNOWN_POLLS:
                    raise OperationFailed(f"ECS does not know the task any more: {answer.get('failures')}")
                self._sleep(POLL_S)
                continue
            found: dict[str, Any] = answer["tasks"][0]
            if found["lastStatus"] == "STOPPED":
                return found
            if found["lastStatus"] != said:
                say(f"{found['lastStatus'].lower()} …")
                said = found["lastStatus"]
            if time.monotonic() > deadline:
                raise OperationFailed(f"the task is {said} after {PATIENCE_S / 60:g} min: is the log moving?")
            self._sleep(POLL_S)


def revision(account: Account) -> str:
    """The name and revision of the current task definition, empty before the app is deployed."""
    return account.outputs("app").get("MigrationTask", "").rpartition("/")[2]


def problem(task: dict[str, Any]) -> str:
    """Why a task that has stopped failed, in words; empty if it did not."""
    (container,) = (each for each in task["containers"] if each["name"] == CONTAINER)
    status = container.get("exitCode")
    if status == 0:
        return ""
    reasons = filter(None, (task.get("stoppedReason"), container.get("reason")))
    what = "the container was not started" if status is None else f"exit status {status}"
    return ": ".join([what, *dict.fromkeys(reasons)])


def log_lines(account: Account, group: str, task: str) -> list[str]:
    """The last lines that a task wrote."""
    stream = f"{LOG_PREFIX}/{CONTAINER}/{task.rpartition('/')[2]}"
    try:
        events = account.client("logs").get_log_events(
            logGroupName=group, logStreamName=stream, limit=_SHOWN_LINES, startFromHead=False
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return []
        raise
    return [str(event["message"]).rstrip() for event in events["events"]]


def _running(account: Account, outputs: dict[str, str]) -> str:
    """The task that an interrupted deployment started and that is not over, empty if there is none."""
    family = revision(account).rpartition(":")[0]
    found = account.client("ecs").list_tasks(
        cluster=outputs["ClusterArn"], family=family, desiredStatus="RUNNING"
    )
    return str(next(iter(found["taskArns"]), ""))


def _start(account: Account, outputs: dict[str, str]) -> str:
    answer = account.client("ecs").run_task(
        cluster=outputs["ClusterArn"],
        taskDefinition=outputs["MigrationTask"],
        launchType="FARGATE",
        startedBy=STARTED_BY,
        networkConfiguration={
            "awsvpcConfiguration": {
                "subnets": outputs["MigrationSubnets"].split(","),
                "securityGroups": [outputs["MigrationSecurityGroup"]],
                "assignPublicIp": "ENABLED",
            }
        },
    )
    if answer.get("failures") or not answer["tasks"]:
        reasons = ", ".join(str(each.get("reason")) for each in answer.get("failures", []))
        raise OperationFailed(f"ECS did not start the task: {reasons or 'no reason given'}")
    return str(answer["tasks"][0]["taskArn"])

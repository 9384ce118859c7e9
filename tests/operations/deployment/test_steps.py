"""The steps of a deployment, broken off at every call of AWS's API and repeated.

Held by moto: CloudFormation, Secrets Manager, ECS, IAM, S3, Step Functions. What no emulator hosts is left
out: the images' registry, and what CloudFormation itself does wrong.
"""

from __future__ import annotations

import io
import re
from http.client import IncompleteRead
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from rich.console import Console

from local.commands import execution
from local.commands.execution import Report
from local.system import cloud
from local.system.progress import Progress
from operations.deployment.account import DEPLOYED, MIGRATED, Account
from operations.deployment.exchange_key import StoreKey, stored_value
from operations.deployment.first_model import FirstModel
from operations.deployment.foundation import Bootstrap, ServiceRoles
from operations.deployment.migration import Migrate
from operations.deployment.stacks import DeployStack
from operations.deployment.steps import Step, carry_out
from operations.failures import OperationFailed
from tests.fixtures.account_in_moto import MODEL, Calls, CdkInMoto, account, recorded

QUIET = Progress(Console(quiet=True))
REPEAT = "make deploy ENV=dev"
READING = ("Describe", "Get", "List")


def steps(of: Account) -> list[Step]:
    """Those of a deployment that moto hosts."""
    cdk = CdkInMoto(of)
    return [
        Bootstrap(cdk),
        ServiceRoles(),
        DeployStack("network", cdk),
        DeployStack("data", cdk),
        StoreKey({}, ask=lambda: ""),
        DeployStack("app", cdk),
        Migrate(sleep=lambda seconds: None),
        FirstModel(Console(quiet=True)),
    ]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(execution, "watch", watch)


def watch(there: Any, arn: str, console: Console) -> Report:
    """The execution ends at once, and a model is active."""
    there.states.stop_execution(executionArn=arn)
    there.s3.put_object(
        Bucket=there.bucket, Key="models/current.json", Body=f'{{"model_id": "{MODEL}"}}'.encode()
    )
    return Report(ok=True, trained={"model_id": MODEL, "rows": 1})


def check_deployed(of: Account) -> None:
    assert [of.status(part) for part in ("network", "data", "app")] == ["CREATE_COMPLETE"] * 3
    assert stored_value(of) == "none"
    assert of.noted(DEPLOYED)
    assert of.noted(MIGRATED) == "tickcastdevappMigrate:1"
    unfinished = [step.name for step in steps(of) if not step.is_done(of)]
    assert unfinished == ["stack network", "stack data", "stack app"]


def check_never_two_at_once(calls: Calls) -> None:
    """What was started is not started a second time before it was seen to end."""
    names = calls.names()
    for start, end in (("RunTask", "DescribeTasks"), ("StartExecution", "StopExecution")):
        starts = [at for at, name in enumerate(names) if name == start]
        for first, second in zip(starts, starts[1:], strict=False):
            took_effect = first != calls.fails_at or calls.has_effect
            assert end in names[first:second] or not took_effect, f"{start} twice"


def test_all_steps_are_carried_out_once_and_then_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with mock_aws(), recorded(monkeypatch) as calls:
        carry_out(steps(account()), account(), QUIET, REPEAT)
        check_deployed(account())
        first = len(calls.made)
        carry_out(steps(account()), account(), QUIET, REPEAT)
        changing = [name for name in calls.names()[first:] if not name.startswith(READING)]
        assert changing == ["TagResource"]  # the version that is deployed
        check_never_two_at_once(calls)


def worth_failing(names: list[str], has_effect: bool) -> list[int]:
    """The calls to break off at: all that change something; of those that read, the first of its kind before
    the same change. An answer that is lost makes a difference only where the call changed something."""
    found: dict[tuple[str, int], int] = {}
    for at, name in enumerate(names):
        if not name.startswith(READING):
            found[name, at] = at
        elif not has_effect:
            following = (i for i in range(at, len(names)) if not names[i].startswith(READING))
            found.setdefault((name, next(following, -1)), at)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("has_effect", [False, True], ids=["refused", "answer lost"])
def test_broken_off_at_any_call_it_is_repeated(monkeypatch: pytest.MonkeyPatch, has_effect: bool) -> None:
    with mock_aws(), recorded(monkeypatch) as calls:
        carry_out(steps(account()), account(), QUIET, REPEAT)
        names = calls.names()
    at_steps = set()
    for number in worth_failing(names, has_effect):
        with mock_aws(), recorded(monkeypatch) as calls:
            calls.fails_at, calls.has_effect = number, has_effect
            with pytest.raises(OperationFailed, match="Then repeat `make deploy ENV=dev`") as broken:
                carry_out(steps(account()), account(), QUIET, REPEAT)
            at_steps.add(str(broken.value).partition(":")[0])
            carry_out(steps(account()), account(), QUIET, REPEAT)
            check_deployed(account())
            check_never_two_at_once(calls)
    assert at_steps == {step.name for step in steps(account())}


class Failing:
    """A step that fails once."""

    def __init__(self, name: str, ran: list[str]) -> None:
        self.name = name
        self._ran = ran
        self.error: Exception | None = None

    def is_done(self, account: Account) -> bool:
        return self.name in self._ran

    def run(self, account: Account, say: Any) -> None:
        if self.error:
            error, self.error = self.error, None
            raise error
        self._ran.append(self.name)


@pytest.mark.parametrize("at", range(3))
def test_a_failed_step_is_named_and_the_next_run_begins_there(at: int) -> None:
    ran: list[str] = []
    plan = [Failing(name, ran) for name in "abc"]
    plan[at].error = OperationFailed("no room")
    with pytest.raises(OperationFailed, match=f"^{'abc'[at]}: no room\nThen repeat `make x`"):
        carry_out(plan, account(), QUIET, "make x")
    assert ran == list("abc"[:at])
    carry_out(plan, account(), QUIET, "make x")
    assert ran == list("abc")


@pytest.mark.parametrize("error", [ValueError("not JSON"), OSError("connection reset"), IncompleteRead(b"")])
def test_an_answer_that_cannot_be_read_names_the_step(error: Exception) -> None:
    step = Failing("a", [])
    step.error = error
    with pytest.raises(OperationFailed, match=f"^a: .*{re.escape(str(error))}\nThen repeat `make x`"):
        carry_out([step], account(), QUIET, "make x")


def test_an_interrupt_says_where_to_continue() -> None:
    said = Console(record=True, file=io.StringIO())
    (step,) = plan = [Failing("a", [])]
    step.error = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        carry_out(plan, account(), Progress(said), "make x")
    assert "interrupted at 1/1 a; `make x` continues there" in said.export_text()


def test_a_missing_right_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Failing("a", [])
    step.error = ClientError({"Error": {"Code": "AccessDenied", "Message": "not authorised"}}, "CreateRole")
    with pytest.raises(OperationFailed, match="these credentials lack that right"):
        carry_out([step], account(), QUIET, "make x")

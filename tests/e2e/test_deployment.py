"""The steps of `make deploy` on emulators: the CDK's own stacks by its CLI, the rest on the running system.

What the emulator hosts of an account's environment is the network; its data and app stacks have kinds of
resources that it refuses (`operations.deployment` is tested against moto for what surrounds them).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from localstack_client.session import Session
from rich.console import Console

from cdk.config import load
from local.commands import execution
from local.system import cloud
from local.system.progress import Progress
from local.system.system import System
from operations.deployment import destroy, doctor, first_model
from operations.deployment.account import Account, environment
from operations.deployment.api_check import CheckApi, api_of
from operations.deployment.first_model import FirstModel
from operations.deployment.foundation import Bootstrap, bootstrap_version
from operations.deployment.stacks import DeployStack
from operations.deployment.steps import Step, carry_out
from operations.deployment.toolkit import Toolkit
from operations.rehearsal.synthesis import synthesise

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

QUIET = Progress(Console(quiet=True))


@pytest.fixture
def local(system: System) -> Account:
    """The running system as an account."""
    return Account(load("local"), system.cloud.client)


def test_bootstrap_and_network_are_deployed_repeated_and_deleted(
    aws: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the CDK CLI, in the region of the configuration although the shell names another one."""
    for name, value in {**cloud.CREDENTIALS, "AWS_REGION": cloud.REGION}.items():
        monkeypatch.setenv(name, value)
    of = Account(environment("dev"))
    cdk = Toolkit(of)
    cdk.assembly = Path(synthesise("dev", tmp_path).assembly.directory)
    plan: list[Step] = [Bootstrap(cdk), DeployStack("network", cdk)]
    assert not plan[0].is_done(of)
    for _ in range(2):
        carry_out(plan, of, QUIET, "make deploy ENV=dev")
        assert plan[0].is_done(of)
        assert of.status("network") == "CREATE_COMPLETE"
    assert any(resource.kind == "AWS::EC2::VPC" for resource in of.resources("tickcast-dev-network"))
    carry_out([destroy.DeleteStack("network", lambda seconds: None)], of, QUIET, "make destroy ENV=dev")
    assert of.status("network") == ""


def test_the_smoke_test_passes_on_the_running_system(local: Account) -> None:
    said: list[str] = []
    CheckApi(patience_s=120).run(local, said.append)
    assert said[-1] == "source of the ticks: sim"
    assert api_of(local).get("health").status == 200


def test_the_doctor_sees_the_running_system(local: Account) -> None:
    report = {state.what.partition(":")[0]: state for state in doctor.examine(local)}
    for what in ("model in force", "API", "stack data", "stack app"):
        assert report[what].is_well, report[what]
    assert bootstrap_version(local) >= 6
    consumers = [state for what, state in report.items() if what.startswith("consumer ")]
    assert [state.is_well for state in consumers] == [True, True]


def test_the_first_training_s_history_can_be_planned(local: Account) -> None:
    """A model is active, so the step is passed over; its request is one that the planner takes."""
    assert FirstModel(Console(quiet=True)).is_done(local)
    request = first_model.request(datetime.now(UTC))
    plan = execution.plan(local.deployment(), request)
    assert (plan["dry"], plan["train"]["replace"]) == (True, True)
    assert sorted(plan["symbols"]) == sorted(local.environment.symbols)
    assert first_model.running(local) == ""

"""The steps of `make deploy` on emulators: the CDK's own stacks by its CLI, the rest on the running system.

What the emulator hosts of an account's environment is the network; its data and app stacks have kinds of
resources that it refuses (`operations.deployment` is tested against moto for what surrounds them).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from localstack_client.session import Session
from rich.console import Console

from cdk.config import load
from local.commands import execution
from local.system import cloud, http_json
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
from tests.fixtures.running_system import eventually
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.pointer import POINTER

pytestmark = pytest.mark.integration

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
    for what in ("active model", "API", "stack data", "stack app"):
        assert report[what].is_well, report[what]
    assert bootstrap_version(local) >= 6
    consumers = [state for what, state in report.items() if what.startswith("consumer ")]
    assert [state.is_well for state in consumers] == [True, True]


def test_an_account_without_a_model_gets_one_and_serves_by_it(
    local: Account, system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    """Day 0: from the pointer that is not there to predictions by a model, by the step of `make deploy`. What
    it passes through, and when, is printed."""
    s3, key = system.cloud.client("s3"), {"x-api-key": system.api_key}
    bucket = system.outputs["BucketName"]
    started = time.monotonic()
    trace: list[str] = []

    def said(text: str) -> None:
        trace.append(f"{time.monotonic() - started:6.1f} s  {text}")

    s3.delete_object(Bucket=bucket, Key=POINTER)
    step = FirstModel(Console(quiet=True))
    assert not step.is_done(local)
    step.run(local, said)
    assert step.is_done(local)
    pointer = model_registry.active_model(s3, bucket)
    assert pointer is not None
    card = model_registry.read_card(s3, bucket, pointer.model_id)
    assert (card.reason, card.provisional) == (first_model.REASON, True)
    assert card.data is not None and card.data.from_us is not None and card.data.to_us is not None
    said(f"trained on {card.data.rows_used} rows of {(card.data.to_us - card.data.from_us) / 3.6e9:.1f} h")
    model_id = pointer.model_id

    def serves() -> bool:
        answer = http_json.get(f"{system.api_url}predictions/BTCUSDT", key)
        return answer.status == 200 and answer.body["model_id"] == model_id

    eventually(serves, 60)
    said("the API answers by it")
    with capsys.disabled():
        print("", *trace, sep="\n")
    # An execution, its end and what serves: nothing else is needed on the way, and nobody.
    assert ["execution" in line for line in trace[:1]] == [True]
    assert first_model.running(local) == ""


def test_the_first_training_s_history_can_be_planned(local: Account) -> None:
    """A model is active, so the step is passed over; its request is one that the planner takes."""
    assert FirstModel(Console(quiet=True)).is_done(local)
    request = first_model.request(datetime.now(UTC))
    plan = execution.plan(local.deployment(), request)
    assert (plan["dry"], plan["train"]["replace"]) == (True, True)
    assert sorted(plan["symbols"]) == sorted(local.environment.symbols)
    assert first_model.running(local) == ""

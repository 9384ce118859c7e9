"""How deployments are found: by state folders, by CloudFormation, and by the address of an API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import NoCredentialsError
from rich.console import Console

from cdk.config import ConfigError
from local.commands import deployment
from local.commands.deployment import DeploymentNotFound, StillStarting
from local.system import cloud, state_folder
from local.system.options import Options, OptionsError
from local.system.progress import Progress
from local.system.state_folder import StateFolder

OUTPUTS = {"BucketName": "bucket", "ApiKeyId": "id"}


@pytest.fixture(autouse=True)
def local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state_folder, "LOCAL", tmp_path)
    return tmp_path


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The clients that are created, by endpoint or region, and service."""
    created: list[tuple[str, ...]] = []

    def client_of(endpoint_url: str, service: str) -> str:
        created.append((endpoint_url, service))
        return service

    def aws(service: str, region_name: str | None) -> str:
        created.append((region_name or "default", service))
        return service

    monkeypatch.setattr(cloud, "client_of", client_of)
    monkeypatch.setattr(boto3, "client", aws)
    monkeypatch.setattr(cloud, "outputs_of", lambda client, *stack: OUTPUTS | {"stack": "".join(stack)})
    monkeypatch.setattr(cloud, "api_key_of", lambda client, key_id: f"key of {key_id}")
    return created


@contextmanager
def running(name: str, port: int = 1) -> Iterator[StateFolder]:
    state = StateFolder(name)
    state.open()
    about = {"feed": name, "api_url": f"http://127.0.0.1:{port}/_user_request_/"}
    state.about.write_text(json.dumps(about))
    try:
        yield state
    finally:
        state.close()


def test_a_running_system_is_found_and_a_killed_one_is_not(clients: Any) -> None:
    with running("sim") as state:
        assert deployment.running() == {"the system sim (feed: sim)": "http://127.0.0.1:1/_user_request_/"}
        there = deployment.existing("")
        assert (there.title, there.bucket, there.s3) == ("the system sim (feed: sim)", "bucket", "s3")
        assert clients == [("http://127.0.0.1:1", "cloudformation"), ("http://127.0.0.1:1", "s3")]
    assert not state.about.exists()
    state.about.write_text("{}")  # as a killed run leaves it: the lock is free
    with pytest.raises(DeploymentNotFound, match="no system is running .* `make run`"):
        deployment.running()


def test_a_system_that_is_starting_is_not_started_again() -> None:
    state, quiet = StateFolder("sim"), Progress(Console(quiet=True))
    state.open()
    try:
        with pytest.raises(StillStarting, match="is starting in this checkout"):
            deployment.running()
        with (
            pytest.raises(StillStarting),
            deployment.existing_or_started("", lambda: pytest.fail("another is started"), quiet),
        ):
            pass
    finally:
        state.close()


def test_one_of_several_systems_has_to_be_stopped() -> None:
    with (
        running("sim"),
        running("replay", 2),
        pytest.raises(OptionsError, match="several systems are running here"),
    ):
        deployment.existing("")


def test_a_function_in_aws_is_waited_for_and_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setattr(cloud, "outputs_of", lambda client, *stack: OUTPUTS)
    there = deployment.in_aws("prod", "eu-west-1")
    assert there.functions.meta.config.read_timeout == 900
    assert there.functions.meta.config.retries["total_max_attempts"] == 1
    assert there.functions.meta.region_name == there.s3.meta.region_name == "eu-west-1"
    assert there.s3.meta.config.retries is None or "total_max_attempts" not in there.s3.meta.config.retries


def test_a_deployment_in_aws_is_found_by_its_stack(clients: Any) -> None:
    there = deployment.existing("dev")
    assert (there.title, there.outputs["stack"]) == ("AWS, dev", "tickcast-dev-app")
    assert clients == [("ap-northeast-1", "cloudformation")]


def test_the_region_is_the_configuration_s_wherever_the_shell_points(
    clients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    there = deployment.existing("prod")
    assert there.s3 == "s3"
    assert clients == [("ap-northeast-1", "cloudformation"), ("ap-northeast-1", "s3")]
    with pytest.raises(ConfigError, match="no environment 'staging': one of dev, local, prod"):
        deployment.in_aws("staging")


def test_without_credentials_it_says_so(clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(client: Any, stack: str) -> dict[str, str]:
        raise NoCredentialsError

    monkeypatch.setattr(cloud, "outputs_of", refused)
    with pytest.raises(DeploymentNotFound, match="stack tickcast-prod-app .* Unable to locate credentials"):
        deployment.existing("prod")


def test_behind_an_api_is_the_emulator_or_the_region_in_its_address(clients: Any) -> None:
    emulated = "http://127.0.0.1:4566/restapis/abc/v1/_user_request_/"
    assert deployment.behind(emulated, "local").title == emulated
    url = "https://x.execute-api.eu-west-1.amazonaws.com/v1/"
    assert deployment.behind(url, "prod").outputs["stack"] == "tickcast-prod-app"
    assert [place for place, _ in clients] == ["http://127.0.0.1:4566", "eu-west-1"]


def test_the_key_of_an_emulated_api_is_looked_up(clients: Any) -> None:
    assert deployment.api_at("http://127.0.0.1:4566/_user_request_/", "").key == "key of id"
    assert deployment.api_at("http://127.0.0.1:4566/_user_request_/", "mine").key == "mine"
    assert deployment.api_at("https://api.example/v1", "").key == ""


def test_a_temporary_system_is_started_where_none_runs(
    clients: Any, monkeypatch: pytest.MonkeyPatch, local_folder: Path
) -> None:
    started: list[Options] = []

    @contextmanager
    def system(options: Options, state: StateFolder, progress: Progress) -> Iterator[Any]:
        started.append(options)
        state.path.mkdir()
        yield type("Running", (), {"cloud": type("Cloud", (), {"endpoint_url": "http://127.0.0.1:3"})})

    monkeypatch.setattr("local.system.system.System", system)
    quiet = Progress(Console(quiet=True))
    with deployment.existing_or_started("", Options, quiet) as there:
        assert there.title == "a temporary system"
    assert (started, list(local_folder.iterdir())) == ([Options()], [])
    with running("sim"), deployment.existing_or_started("", Options, quiet) as there:
        assert there.title == "the system sim (feed: sim)"
    assert len(started) == 1

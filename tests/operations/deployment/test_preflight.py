"""What is missing for a deployment is said at once and in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from operations.deployment import preflight
from operations.deployment.account import Account, environment
from operations.deployment.preflight import (
    Preflight,
    can_build_for,
    image_engine,
    of_account,
    of_machine,
    quota,
)
from operations.failures import OperationFailed, OperationRefused


class Aws:
    """Answers of an account that has all that is needed; the tests change them. Moto answers neither the
    account's settings of Lambda nor the quotas."""

    class exceptions:  # noqa: N801 (boto3's name)
        class NoSuchResourceException(Exception):
            pass

    def __init__(self) -> None:
        self.executions = 1000
        self.zones = ["apne1-az1", "apne1-az2", "apne1-az4"]
        self.deployed_zones = ["apne1-az1", "apne1-az4"]
        self.vpcs = 1
        self.quotas: dict[str, float] = {"L-F678F1CE": 5, "L-3032A538": 6, "L-36FBB829": 6}
        self.default_quotas: dict[str, float] = {}
        self.stacks: dict[str, str] = {"CDKToolkit": "CREATE_COMPLETE"}
        self.refuses: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def get_caller_identity(self) -> Any:
        if "credentials" in self.refuses:
            raise NoCredentialsError
        return {"Account": "123456789012"}

    def describe_availability_zones(self, **_: Any) -> Any:
        return {"AvailabilityZones": [{"State": "available", "ZoneId": zone} for zone in self.zones]}

    def describe_stacks(self, StackName: str) -> Any:  # noqa: N803 (boto3's name)
        if StackName not in self.stacks:
            raise ClientError({"Error": {"Code": "ValidationError", "Message": "none"}}, "DescribeStacks")
        outputs = [{"OutputKey": "BootstrapVersion", "OutputValue": "21"}]
        return {"Stacks": [{"StackStatus": self.stacks[StackName], "Outputs": outputs}]}

    def get_template(self, StackName: str) -> Any:  # noqa: N803
        """CloudFormation gives JSON as values."""
        subnets = {
            f"Subnet{at}": {
                "Type": "AWS::EC2::Subnet",
                "Properties": {
                    "CidrBlock": f"10.0.{at}.0/24",
                    **({"AvailabilityZoneId": zone} if zone else {}),
                },
            }
            for at, zone in enumerate([*self.deployed_zones, *self.deployed_zones])
        }
        return {"TemplateBody": {"Resources": {"Vpc": {"Type": "AWS::EC2::VPC"}, **subnets}}}

    def get_account_settings(self) -> Any:
        if "lambda" in self.refuses:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetAccountSettings")
        return {"AccountLimit": {"ConcurrentExecutions": self.executions}}

    def get_paginator(self, name: str) -> Any:
        pages: list[Any] = [{"Vpcs": [{}] * self.vpcs}]
        return type("Pages", (), {"paginate": lambda self: pages})()

    def get_service_quota(self, ServiceCode: str, QuotaCode: str) -> Any:  # noqa: N803
        if QuotaCode not in self.quotas:
            raise self.exceptions.NoSuchResourceException
        return {"Quota": {"Value": self.quotas[QuotaCode]}}

    def get_aws_default_service_quota(self, ServiceCode: str, QuotaCode: str) -> Any:  # noqa: N803
        return {"Quota": {"Value": self.default_quotas[QuotaCode]}}


@pytest.fixture
def aws() -> Aws:
    return Aws()


def account(aws: Aws, name: str = "dev") -> Account:
    return Account(environment(name), lambda service: aws)


def texts(aws: Aws, name: str = "dev") -> list[str]:
    return [finding.text for finding in of_account(account(aws, name))]


def test_an_account_with_all_that_is_needed_passes(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    assert texts(aws) == texts(aws, "prod") == []
    monkeypatch.setattr(preflight, "of_machine", lambda environment, engine: [])
    said: list[str] = []
    Preflight("podman").run(account(aws), said.append)
    where = "account 123456789012, region ap-northeast-1, images by podman"
    assert said[0] == where and said[1].startswith("a first deployment: about 40 min")
    aws.stacks["tickcast-dev-data"] = "CREATE_COMPLETE"
    said.clear()
    Preflight("podman").run(account(aws), said.append)
    assert said == [where]


def test_all_that_is_missing_is_said_at_once(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.zones, aws.vpcs, aws.quotas["L-36FBB829"], aws.executions = ["apne1-az1"], 5, 0.25, 10
    aws.stacks["CDKToolkit"] = "ROLLBACK_FAILED"
    monkeypatch.setattr(preflight, "node_version", lambda: 18)
    said: list[str] = []
    with pytest.raises(OperationFailed) as failed:
        Preflight("").run(account(aws), said.append)
    for what in (
        *("Node.js 20 or newer (found 18)", "a program that builds images, one of docker, podman, buildah"),
        *("two availability zones in ap-northeast-1: it has 1", "a CDKToolkit stack that works"),
        *("room for a VPC in ap-northeast-1: there are 5 of 5", "a Fargate quota of 0.5 vCPUs (L-36FBB829)"),
        "the zone apne1-az4, which aws.network.zone_ids in cdk/config/dev.yaml names: this account has",
    ):
        assert what in str(failed.value)
    assert said == [text for text in said if text.startswith("note: Lambda's quota is 10 concurrent")]
    assert len(said) == 1


def test_a_stack_that_can_be_updated_no_more_is_named(aws: Aws) -> None:
    aws.stacks["tickcast-dev-data"] = "DELETE_FAILED"
    (text,) = texts(aws)
    assert "tickcast-dev-data" in text
    assert "make destroy ENV=dev" in text


def test_the_quota_that_the_configuration_counts_on_is_there(aws: Aws) -> None:
    aws.executions = 9
    (text,) = texts(aws)
    assert text.startswith("a Lambda quota of 10 concurrent executions, which aws.concurrent_executions")


@pytest.mark.parametrize("status", ["CREATE_IN_PROGRESS", "REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE"])
def test_a_bootstrap_that_broke_off_is_continued(aws: Aws, status: str) -> None:
    aws.stacks["CDKToolkit"] = status
    (finding,) = of_account(account(aws))
    assert not finding.is_fatal
    assert "is at none: it is made or updated" in finding.text


def test_a_vpc_of_ours_needs_no_room(aws: Aws) -> None:
    aws.vpcs, aws.stacks["tickcast-dev-network"] = 5, "CREATE_COMPLETE"
    assert texts(aws) == []


@pytest.mark.parametrize(
    ("deployed", "had"),
    [
        (["apne1-az1", "apne1-az2"], "[apne1-az1, apne1-az2]"),
        (["apne1-az4", "apne1-az1"], "[apne1-az4, apne1-az1]"),
        (["", ""], "null"),
    ],
)
def test_other_zones_than_the_deployed_ones_are_refused(aws: Aws, deployed: list[str], had: str) -> None:
    """CloudFormation would replace the subnets, and fail at their addresses."""
    aws.deployed_zones = deployed
    assert texts(aws) == []  # nothing is deployed
    aws.stacks["tickcast-dev-network"] = "UPDATE_COMPLETE"
    (finding,) = of_account(account(aws))
    assert finding.is_fatal
    assert f"cdk/config/dev.yaml is [apne1-az1, apne1-az4], and was deployed as {had}" in finding.text
    assert "`make destroy ENV=dev` first" in finding.text


def test_an_address_other_than_aws_s_is_said(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    (finding,) = of_account(account(aws))
    assert not finding.is_fatal
    assert finding.text.startswith("AWS_ENDPOINT_URL=http://127.0.0.1:1: requests go there and not to AWS")


def test_without_credentials_nothing_else_is_asked(aws: Aws) -> None:
    aws.refuses.add("credentials")
    (text,) = texts(aws)
    assert text.startswith("credentials of an AWS account")


def test_what_may_not_be_asked_stops_nothing(aws: Aws) -> None:
    aws.refuses.add("lambda")
    (finding,) = of_account(account(aws))
    assert not finding.is_fatal
    assert finding.text.startswith("concurrency could not be checked")


def test_a_quota_that_was_never_changed_is_aws_s_default(aws: Aws) -> None:
    del aws.quotas["L-F678F1CE"]
    aws.default_quotas["L-F678F1CE"] = 5
    assert quota(account(aws), "vpc", "L-F678F1CE") == 5


def test_the_engine_is_the_first_that_works() -> None:
    def works(engine: str) -> bool:
        return engine != "docker"

    assert image_engine({}, works) == "podman"
    assert image_engine({"CDK_DOCKER": "finch"}, works) == "finch"
    assert image_engine({"CDK_DOCKER": "docker"}, works) == ""
    assert image_engine({}, lambda engine: False) == ""


def test_images_of_another_architecture_need_an_emulator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert can_build_for("x86_64", "podman", tmp_path)
    assert not can_build_for("arm64", "podman", tmp_path)
    (tmp_path / "qemu-aarch64").write_text("enabled\ninterpreter /usr/bin/qemu-aarch64\n")
    assert can_build_for("arm64", "podman", tmp_path)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert can_build_for("arm64", "podman", Path("/nowhere"))


def test_an_engine_that_emulates_by_itself_is_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As Docker Desktop does in its own machine: this kernel knows nothing of it."""
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Platforms: linux/amd64*, linux/arm64, linux/arm/v7'\n")
    docker.chmod(0o755)
    assert can_build_for("arm64", str(docker), tmp_path)
    docker.write_text("#!/bin/sh\necho 'Platforms: linux/amd64, linux/386'\n")
    assert not can_build_for("arm64", str(docker), tmp_path)
    docker.write_text("#!/bin/sh\nexit 1\n")
    assert not can_build_for("arm64", str(docker), tmp_path)
    assert not can_build_for("arm64", "podman", tmp_path)
    assert can_build_for("arm64", "/opt/finch", tmp_path)


def test_what_to_set_instead_of_an_emulator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "can_build_for", lambda architecture, engine: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    texts = [finding.text for finding in of_machine(environment("prod"), "docker")]
    assert any("set `aws.ingest.architecture: x86_64` in cdk/config/prod.yaml" in text for text in texts)


def test_a_key_that_cannot_be_read_is_among_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_API_KEY_FILE", "/nowhere/key")
    found = [finding.text for finding in of_machine(environment("dev"), "docker")]
    assert any(text.startswith("BINANCE_API_KEY_FILE is '/nowhere/key'") for text in found)


@pytest.mark.parametrize("name", ["local", "staging", ""])
def test_other_environments_are_refused(name: str) -> None:
    with pytest.raises(OperationRefused, match="it should be one of dev, prod"):
        environment(name)

"""What `make destroy` deletes, what it keeps, and that it can be repeated; in moto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from rich.console import Console

from local.system import cloud
from local.system.progress import Progress
from operations.deployment import destroy, leftovers
from operations.deployment.account import Account
from operations.deployment.steps import carry_out
from operations.failures import OperationFailed, OperationRefused
from tests.fixtures.account_in_moto import SECRET, CdkInMoto, account, client, recorded

QUIET = Progress(Console(quiet=True))


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in cloud.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield


def deployed(name: str = "dev") -> Account:
    """With objects in the bucket, an execution that runs, an image and log groups that no stack owns."""
    of = account(name)
    for part in ("network", "data", "app"):
        CdkInMoto(of).deploy(of.stack_name(part))
    bucket = of.outputs("data")["BucketOfData"]
    s3 = of.client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for _ in range(2):
        s3.put_object(Bucket=bucket, Key="models/current.json", Body=b"{}")
    s3.delete_object(Bucket=bucket, Key="models/current.json")
    s3.create_multipart_upload(Bucket=bucket, Key="part")
    of.client("stepfunctions").start_execution(stateMachineArn=of.outputs("app")["BackfillMachine"])
    for group in (
        f"/aws/lambda/tickcast-{name}-app-x",
        f"/aws/ecs/containerinsights/tickcast-{name}-app-c/p",
    ):
        of.client("logs").create_log_group(logGroupName=group)
    return of


def add_image(tag: str) -> None:
    media = "application/vnd.docker.distribution.manifest.v2+json"
    config = {"digest": f"sha256:{tag * 8}"}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": media, "config": config})
    client("ecr").put_image(repositoryName="cdk-assets", imageManifest=manifest, imageTag=tag)


def tags() -> set[str]:
    listed = client("ecr").list_images(repositoryName="cdk-assets")["imageIds"]
    return {each["imageTag"] for each in listed}


def destroy_all(of: Account) -> None:
    carry_out(destroy.steps(lambda seconds: None), of, QUIET, "make destroy ENV=dev")


def test_nothing_that_costs_is_left_and_others_are_not_touched() -> None:
    client("ecr").create_repository(repositoryName="cdk-assets")
    add_image("migrate")
    add_image("another")
    client("s3").create_bucket(
        Bucket="somebody-elses", CreateBucketConfiguration={"LocationConstraint": "ap-northeast-1"}
    )
    client("logs").create_log_group(logGroupName="/aws/lambda/tickcast-prod-app-x")
    of = deployed()
    destroy_all(of)
    assert leftovers.leftovers(of) == []
    assert [bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"]] == ["somebody-elses"]
    groups = client("logs").describe_log_groups()["logGroups"]
    assert [group["logGroupName"] for group in groups] == ["/aws/lambda/tickcast-prod-app-x"]
    assert client("secretsmanager").list_secrets(IncludePlannedDeletion=True)["SecretList"] == []
    assert client("cloudformation").list_stacks(StackStatusFilter=["CREATE_COMPLETE"])["StackSummaries"] == []
    assert tags() == {"another"}


def test_a_secret_in_its_recovery_window_goes_too() -> None:
    of = deployed()
    client("secretsmanager").delete_secret(SecretId=SECRET)
    destroy_all(of)
    assert client("secretsmanager").list_secrets(IncludePlannedDeletion=True)["SecretList"] == []


@pytest.mark.slow
def test_broken_off_at_any_call_it_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    of = deployed()
    with recorded(monkeypatch) as calls:
        destroy_all(of)
        count = len(calls.made)
    for number in range(0, count, 5):
        of = deployed()
        with recorded(monkeypatch) as calls:
            calls.fails_at = number
            with pytest.raises(OperationFailed, match="Then repeat"):
                destroy_all(of)
            calls.fails_at = -1
            destroy_all(of)
        assert leftovers.leftovers(of) == []


def test_what_a_production_environment_holds_is_kept_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    of = deployed("prod")
    # CloudFormation would retain it; moto does not.
    monkeypatch.setattr(leftovers, "data_buckets", lambda account: ["tickcast-prod-data-lake"])
    client("s3").create_bucket(
        Bucket="tickcast-prod-data-lake",
        CreateBucketConfiguration={"LocationConstraint": "ap-northeast-1"},
    )
    bucket = of.outputs("data")["BucketOfData"]
    leftovers.empty(of, bucket)
    destroy_all(of)
    assert destroy.kept(of) == ["bucket tickcast-prod-data-lake"]
    assert [of.status(part) for part in ("network", "data", "app")] == ["", "", ""]


def test_prod_is_destroyed_only_when_it_is_named_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    for confirm in ("", "dev", "yes"):
        with pytest.raises(OperationRefused, match="make destroy ENV=prod CONFIRM=prod"):
            destroy.check_confirmed("prod", confirm)
    destroy.check_confirmed("prod", "prod")
    destroy.check_confirmed("dev", "")  # no terminal to ask on
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: "prod")
    with pytest.raises(OperationRefused, match="nothing was deleted"):
        destroy.check_confirmed("dev", "")


def test_what_could_not_be_deleted_is_named() -> None:
    class S3:
        def delete_objects(self, **_: Any) -> Any:
            return {"Errors": [{"Code": "AccessDenied", "Message": "locked", "Key": "a"}]}

        def get_paginator(self, name: str) -> Any:
            versions = {"Versions": [{"Key": "a", "VersionId": "1"}]}
            pages = {"list_object_versions": [versions], "list_multipart_uploads": []}[name]
            return type("Pages", (), {"paginate": lambda self, **_: pages})()

    of: Any = type("Account", (), {"client": lambda self, service: S3()})()
    with pytest.raises(ClientError, match="locked"):
        leftovers.empty(of, "bucket")


def test_executions_of_a_machine_that_is_gone_are_over() -> None:
    """Its stack keeps the output while it is being deleted."""

    class StepFunctions:
        class exceptions:  # noqa: N801 (boto3's name)
            class StateMachineDoesNotExist(Exception):
                pass

        def list_executions(self, **_: Any) -> Any:
            raise self.exceptions.StateMachineDoesNotExist

    class There:
        def client(self, service: str) -> Any:
            return StepFunctions()

        def outputs(self, part: str) -> dict[str, str]:
            return {"BackfillMachine": "arn"}

    of: Any = There()
    assert destroy.StopExecutions().is_done(of)


class Ecr:
    """Deletes images as ECR does, at most 100 in a request, and answers with `failures`."""

    def __init__(self, tags: list[str], failures: list[dict[str, Any]]) -> None:
        self.tags = tags
        self.failures = failures

    def batch_delete_image(self, repositoryName: str, imageIds: list[dict[str, str]]) -> Any:
        assert 1 <= len(imageIds) <= 100
        asked = {each["imageTag"] for each in imageIds}
        self.tags = [tag for tag in self.tags if tag not in asked]
        return {"failures": [each for each in self.failures if each["imageId"]["imageTag"] in asked]}


def images_in(ecr: Ecr, monkeypatch: pytest.MonkeyPatch) -> leftovers.Leftover:
    images = {f"assets:{tag}" for tag in ecr.tags}
    monkeypatch.setattr(leftovers, "_images_of", lambda _, name, __: images if name == "dev" else set())
    monkeypatch.setattr(leftovers, "_tags_in", lambda *_: list(ecr.tags))
    (found,) = leftovers._images(Account(account().environment, lambda service: ecr))
    return found


def failure(tag: str, code: str) -> dict[str, Any]:
    return {"imageId": {"imageTag": tag}, "failureCode": code, "failureReason": f"because of {code}"}


def test_images_of_many_revisions_are_deleted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    ecr = Ecr([f"t{number}" for number in range(250)], [failure("t7", "ImageNotFound")])
    images_in(ecr, monkeypatch).delete()
    assert ecr.tags == []


def test_images_that_could_not_be_deleted_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ecr = Ecr([f"t{number}" for number in range(120)], [failure("t7", "ImageReferencedByManifestList")])
    with pytest.raises(OperationFailed, match="assets could not be deleted\n  t7: because of ImageRef"):
        images_in(ecr, monkeypatch).delete()
    assert ecr.tags == []  # the others are tried all the same


def test_a_secret_that_is_being_deleted_is_not_called_kept() -> None:
    """AWS lists a deleted secret for a while."""
    for name in ("dev", "prod"):
        tags = [{"Key": "application", "Value": "tickcast"}, {"Key": "environment", "Value": name}]
        for secret in ("there", "going"):
            client("secretsmanager").create_secret(Name=f"{name}-{secret}", SecretString="-", Tags=tags)
        client("secretsmanager").delete_secret(SecretId=f"{name}-going")
    assert destroy.kept(account("prod")) == ["secret prod-there"]
    assert destroy.kept(account("dev")) == []  # it keeps nothing

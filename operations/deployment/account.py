"""The AWS account of the caller's credentials, in the region that the environment's configuration names.

What was done already is read from the account alone: stacks, outputs, and two tags on the ECS cluster that
say what was deployed and migrated last. A file on this machine would be missing on the next.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cdk.config import Environment, load
from local.commands import aws_access
from local.commands.deployment import Deployment
from operations.failures import OperationFailed, OperationRefused

STACKS = ("network", "data", "app")  # in the order in which they depend on each other
ENVIRONMENTS = ("dev", "prod")
DEPLOYED, MIGRATED = "tickcast-deployed", "tickcast-migrated"  # tags on the cluster
_RETRIES = Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=10)

Client = Callable[[str], Any]
Say = Callable[[str], None]


class Resource(NamedTuple):
    """A resource of a stack, by CloudFormation's record."""

    kind: str  # such as AWS::S3::Bucket
    logical_id: str
    physical_id: str


class Outputs(dict[str, str]):
    """The outputs of a stack. One that is missing is `OperationFailed`."""

    def __init__(self, stack: str, outputs: dict[str, str]) -> None:
        super().__init__(outputs)
        self._stack = stack

    def __missing__(self, name: str) -> str:
        raise OperationFailed(
            f"stack {self._stack} has no output {name}: it is not deployed, or was by an older version"
        )


def environment(name: str) -> Environment:
    """The configuration of `name`, dev or prod. Raises `OperationRefused`."""
    if name not in ENVIRONMENTS:
        raise OperationRefused(
            f"ENV is {name!r}; it should be one of {', '.join(ENVIRONMENTS)} (make run deploys local)"
        )
    try:
        return load(name)
    except ValueError as error:
        raise OperationRefused(str(error)) from None


def say_endpoint() -> None:
    """Say on stderr that requests go elsewhere than to AWS, if they do."""
    if note := aws_access.endpoint_note():
        print(f"note: {note}", file=sys.stderr)


class Account:
    """Clients of the account and what is in it. `client` makes a client by the service's name."""

    def __init__(self, environment: Environment, client: Client | None = None) -> None:
        self.environment = environment
        self._client_of = client or self._of_credentials

    @property
    def name(self) -> str:
        return self.environment.name

    @property
    def region(self) -> str:
        return self.environment.region

    @cache  # noqa: B019 (an account lives as long as its command)
    def client(self, service: str) -> Any:
        return self._client_of(service)

    def _of_credentials(self, service: str) -> Any:
        return boto3.client(service, region_name=self.region, config=_RETRIES)

    @cached_property
    def id(self) -> str:
        """Raises what the look-up of credentials raises."""
        return str(self.client("sts").get_caller_identity()["Account"])

    def check_access(self) -> None:
        """Raises `OperationFailed` unless AWS answers to these credentials: asked before what takes time."""
        try:
            self.id  # noqa: B018 (it asks)
        except (BotoCoreError, ClientError) as error:
            raise OperationFailed(aws_access.why(error)) from None

    # -- stacks -------------------------------------------------------------------------------------------

    def stack_name(self, part: str) -> str:
        """The name of the environment's stack `part`, one of `STACKS`."""
        return f"tickcast-{self.name}-{part}"

    def stack(self, name: str) -> Mapping[str, Any] | None:
        """CloudFormation's description of the stack called `name`; None where there is none."""
        try:
            (found,) = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError":
                return None
            raise
        return None if found["StackStatus"] == "DELETE_COMPLETE" else dict(found)

    def status(self, part: str) -> str:
        """The status of a stack of the environment, empty where there is none."""
        found = self.stack(self.stack_name(part))
        return str(found["StackStatus"]) if found else ""

    def outputs(self, part: str) -> Outputs:
        """The outputs of a stack of the environment, empty where there is none."""
        name = self.stack_name(part)
        found = (self.stack(name) or {}).get("Outputs", [])
        return Outputs(name, {output["OutputKey"]: output["OutputValue"] for output in found})

    def resources(self, stack: str) -> list[Resource]:
        """The resources of a stack by its name, or by its id where it is deleted."""
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
        return [
            Resource(each["ResourceType"], each["LogicalResourceId"], each.get("PhysicalResourceId", ""))
            for page in pages
            for each in page["StackResourceSummaries"]
        ]

    def deleted_stacks(self) -> Iterator[str]:
        """The ids of the environment's deleted stacks; CloudFormation knows them for 90 days."""
        names = {self.stack_name(part) for part in STACKS}
        pages = self.client("cloudformation").get_paginator("list_stacks")
        for page in pages.paginate(StackStatusFilter=["DELETE_COMPLETE"]):
            for each in page["StackSummaries"]:
                if each["StackName"] in names:
                    yield each["StackId"]

    def deployment(self) -> Deployment:
        """The app's stack as the commands of `local` take it."""
        return Deployment(f"AWS, {self.name}", self.outputs("app"), self.client)

    # -- what was done last -------------------------------------------------------------------------------

    def noted(self, tag: str) -> str:
        """The value of `DEPLOYED` or `MIGRATED`, empty where it was never noted."""
        if not (cluster := self.outputs("app").get("ClusterArn")):
            return ""
        tags = self.client("ecs").list_tags_for_resource(resourceArn=cluster).get("tags", [])
        return next((str(each["value"]) for each in tags if each["key"] == tag), "")

    def note(self, tag: str, value: str) -> None:
        """Note `value`, with the time."""
        tags = [{"key": tag, "value": value}, {"key": f"{tag}-at", "value": f"{datetime.now(UTC):%FT%TZ}"}]
        self.client("ecs").tag_resource(resourceArn=self.outputs("app")["ClusterArn"], tags=tags)

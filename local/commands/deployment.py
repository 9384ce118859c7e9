"""Finding a deployment: a system that runs in this checkout, one in AWS, or one started for the purpose.

A local system is found by the files that running systems leave in their state folders, one in AWS by the
outputs of its CloudFormation stack, and the deployment behind an API by that API's address.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cdk.config import load
from local.commands import aws_access
from local.system import cloud, state_folder
from local.system.api import Api
from local.system.options import Options, OptionsError
from local.system.progress import Progress
from local.system.state_folder import StateFolder
from local.system.system import temporary_system

AWS_ENVIRONMENTS = ("dev", "prod")
_EMULATED = "/_user_request_"  # in the address of an API that the emulator serves


class DeploymentNotFound(RuntimeError):
    """There is no such deployment, it is not reached, or these credentials have no access to it; the message
    says which, and what to do."""


class StillStarting(DeploymentNotFound):
    """The system that runs here soon, but not yet."""


@dataclass(frozen=True)
class Deployment:
    """The outputs of a deployed app stack, and clients of the AWS, real or emulated, that it is in."""

    title: str
    outputs: dict[str, str]
    client: Callable[[str], Any]  # a boto3 client by the service's name

    @property
    def bucket(self) -> str:
        return self.outputs["BucketName"]

    @cached_property
    def s3(self) -> Any:
        return self.client("s3")

    @cached_property
    def functions(self) -> Any:
        return self.client("lambda")

    @cached_property
    def states(self) -> Any:
        return self.client("stepfunctions")


def add_aws_argument(parser: argparse.ArgumentParser) -> None:
    """The argument that `aws_environment` reads."""
    parser.add_argument(
        "--aws", default="", metavar="ENV", help="dev or prod: in the AWS account of your credentials"
    )


def aws_environment(given: argparse.Namespace) -> str:
    """The environment in AWS, empty for a local system. Raises `OptionsError`."""
    if given.aws and given.aws not in AWS_ENVIRONMENTS:
        raise OptionsError(f"AWS is {given.aws!r}; it should be one of {', '.join(AWS_ENVIRONMENTS)}")
    return str(given.aws)


def running() -> dict[str, str]:
    """The API addresses of the systems that run in this checkout, by their titles. Raises
    `DeploymentNotFound` when there is none, `StillStarting` when one is about to run."""
    found = {}
    for path in sorted(state_folder.LOCAL.glob("*/system.json")):
        if not StateFolder(path.parent.name).is_abandoned():
            about = json.loads(path.read_text("utf-8"))
            found[f"the system {path.parent.name} (feed: {about['feed']})"] = about["api_url"]
    locks = state_folder.LOCAL.glob("*/lock")
    if not found and any(not StateFolder(path.parent.name).is_abandoned() for path in locks):
        raise StillStarting("a system is starting in this checkout: try again once it runs")
    if not found:
        raise DeploymentNotFound(
            "no system is running in this checkout: start one with `make run`, or name one in AWS "
            "(URL=https://… for gaps and explain, AWS=dev or prod for the others)"
        )
    return found


def api_urls(url: str) -> dict[str, str]:
    """`url` if there is one, or else the addresses of all that run here. Raises `DeploymentNotFound`."""
    return {url: url} if url else running()


def api_at(url: str, key: str) -> Api:
    """A client of the API at `url`. Without `key`, that of an emulated API is read from the emulator."""
    if not key and _EMULATED in url:
        key_id = _emulated_at(url).outputs["ApiKeyId"]
        key = cloud.api_key_of(cloud.client_of(_origin(url), "apigateway"), key_id)
    return Api(url, key)


def behind(api_url: str, environment: str) -> Deployment:
    """The deployment that the API at `api_url` is part of: an emulated one, or the one of `environment` in
    the region that the address names. Raises `DeploymentNotFound`."""
    if _EMULATED in api_url:
        return _emulated_at(api_url)
    host = urlsplit(api_url).hostname or ""
    return in_aws(environment, host.split(".")[2] if ".execute-api." in host else None)


def on_emulator(title: str, endpoint_url: str) -> Deployment:
    """The deployment on the emulator at `endpoint_url`."""
    client = partial(cloud.client_of, endpoint_url)
    return Deployment(title, cloud.outputs_of(client("cloudformation")), client)


def in_this_checkout() -> Deployment:
    """The one system that runs here. Raises `DeploymentNotFound`; `OptionsError` if there are several."""
    found = running()
    if len(found) > 1:
        raise OptionsError(f"several systems are running here: {', '.join(found)}; stop all but one")
    ((title, api_url),) = found.items()
    return on_emulator(title, _origin(api_url))


def in_aws(environment: str, region: str | None = None) -> Deployment:
    """The deployment of `environment` in the AWS account of the caller's credentials, in the region of its
    configuration unless another one is given: where the shell points does not matter. Raises
    `DeploymentNotFound`, and `ConfigError` for a configuration that cannot be used."""
    region = region or load(environment).region
    client, stack = partial(_client_in, region), f"tickcast-{environment}-app"
    elsewhere = ", ".join(aws_access.endpoints(os.environ))
    title = f"AWS, {environment}" + (f" ({elsewhere})" if elsewhere else "")
    try:
        return Deployment(title, cloud.outputs_of(client("cloudformation"), stack), client)
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"].get("Code") if isinstance(error, ClientError) else ""
        if code != "ValidationError":  # no answer about the stack at all
            raise DeploymentNotFound(f"stack {stack} in {region}: {aws_access.why(error)}") from None
        note = aws_access.endpoint_note()
        raise DeploymentNotFound(
            f"stack {stack} not found in {region} with these AWS credentials: set credentials of its "
            f"account, or deploy it: make deploy ENV={environment}{f' ({note})' if note else ''}"
        ) from None


def _client_in(region: str, service: str) -> Any:
    """A client of AWS's `service`. One of Lambda waits as long as a function may run, and asks once: a model
    that is imported takes minutes, and each further request would import it again."""
    if service != "lambda":
        return boto3.client(service, region_name=region)
    once = Config(read_timeout=cloud.LONGEST_S, tcp_keepalive=True, retries={"total_max_attempts": 1})
    return boto3.client(service, region_name=region, config=once)


def existing(aws: str) -> Deployment:
    """The deployment of the environment `aws`, or without one the system that runs here. Raises as
    `in_aws` and `in_this_checkout` do."""
    return in_aws(aws) if aws else in_this_checkout()


@contextmanager
def existing_or_started(aws: str, options: Callable[[], Options], progress: Progress) -> Iterator[Deployment]:
    """An `existing` deployment. Where none runs here, a temporary system is started with `options` and
    stopped when the context is left."""
    try:
        found = existing(aws)
    except StillStarting:
        raise
    except DeploymentNotFound:
        if aws:
            raise
    else:
        yield found
        return
    chosen = options()
    progress.say(f"no system is running here: starting a temporary one, feed: {chosen.label}")
    with temporary_system("backfill", chosen, progress) as system:
        yield on_emulator("a temporary system", system.cloud.endpoint_url)


def _emulated_at(api_url: str) -> Deployment:
    return on_emulator(api_url, _origin(api_url))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"

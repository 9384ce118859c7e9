"""What a deployment needs and what is missing of it, in words and all at once, before anything is changed."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from msgspec.structs import asdict

from cdk.config import AwsConfig, Environment
from operations.deployment.account import STACKS, Account, Say
from operations.deployment.exchange_key import given_key
from operations.deployment.foundation import BOOTSTRAP_STACK, LEAST_BOOTSTRAP, bootstrap_version
from operations.deployment.stacks import FAILED_FOR_GOOD
from operations.deployment.toolkit import CDK, ROOT
from operations.failures import OperationFailed, OperationRefused
from operations.images.builders import BUILDERS, works
from tickcast.adapters.redaction import describe

LEAST_NODE = 20
LEAST_CONCURRENCY = 10  # of a fresh account; what is deployed takes 8 at times
ALWAYS_UNRESERVED = 100  # executions that Lambda lets no function reserve
_ARMS = ("arm64", "aarch64")
# Quotas by service, code and name, and what of them is asked of an account.
VPCS, FARGATE_VCPUS = ("vpc", "L-F678F1CE"), ("fargate", "L-3032A538")


class Finding(NamedTuple):
    """Something that is not as it should be; only a fatal one stops a deployment."""

    is_fatal: bool
    text: str


class Preflight:
    """Checks all, then says all; raises `OperationFailed` where something fatal is among it."""

    name = "preflight"

    def __init__(self, engine: str = "") -> None:
        self._engine = engine

    def is_done(self, account: Account) -> bool:
        return False

    def run(self, account: Account, say: Say) -> None:
        found = [*of_machine(account.environment, self._engine), *of_account(account)]
        for finding in found:
            if not finding.is_fatal:
                say(f"note: {finding.text}")
        fatal = [finding.text for finding in found if finding.is_fatal]
        if fatal:
            raise OperationFailed("\n  - ".join([f"{len(fatal)} to be put right first:", *fatal]))
        say(f"account {account.id}, region {account.region}, images by {self._engine}")


# -- this machine ------------------------------------------------------------------------------------------


def of_machine(environment: Environment, engine: str) -> Iterator[Finding]:
    """What this machine lacks. `engine` is the one that was found, empty if none."""
    try:
        given_key(os.environ)
    except OperationRefused as error:
        yield Finding(True, str(error))
    if (version := node_version()) < LEAST_NODE:
        having = f"found {version}" if version else "none found"
        yield Finding(True, f"Node.js {LEAST_NODE} or newer ({having}): install it, then `make setup`")
    if not CDK.exists():
        yield Finding(True, f"the CDK CLI at {CDK.relative_to(ROOT)}: run `make setup`")
    if not engine:
        yield Finding(
            True,
            f"a program that builds images, one of {', '.join(BUILDERS)}, that works for this user: install "
            "one, or start Docker's daemon; CDK_DOCKER names another one",
        )
    yield from _of_architecture(environment.aws)


def _of_architecture(config: AwsConfig | None) -> Iterator[Finding]:
    wanted = str(getattr(config.ingest, "architecture", "x86_64")) if config else "x86_64"
    if can_build_for(wanted):
        return
    yield Finding(
        True,
        f"emulation of {wanted}, for which the images are built on this {platform.machine()} machine: "
        f"install QEMU's user mode emulation (Debian: qemu-user-static), or set "
        "aws.ingest.architecture to this machine's",
    )


def can_build_for(architecture: str, formats: Path = Path("/proc/sys/fs/binfmt_misc")) -> bool:
    """Whether images for arm64 or x86_64 can be built here: natively, or by an emulator that the kernel
    knows. On other systems than Linux the engines bring one."""
    if platform.system() != "Linux":
        return True
    if (platform.machine() in _ARMS) == (architecture in _ARMS):
        return True
    emulator = formats / ("qemu-aarch64" if architecture in _ARMS else "qemu-x86_64")
    try:
        return emulator.read_text("utf-8").startswith("enabled")
    except OSError:
        return False


def image_engine(environment: Mapping[str, str], does_work: Callable[[str], bool] = works) -> str:
    """The program that builds images: CDK_DOCKER's, or the first of `BUILDERS` that works; empty if none."""
    named = environment.get("CDK_DOCKER")
    return next(filter(does_work, (named,) if named else BUILDERS), "")


def node_version() -> int:
    """The major version of Node.js, 0 if there is none."""
    try:
        found = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    version = re.match(r"v(\d+)\.", found.stdout)
    return int(version[1]) if version else 0


# -- the account -------------------------------------------------------------------------------------------


def of_account(account: Account) -> Iterator[Finding]:
    """What the account lacks. Without credentials nothing else can be asked."""
    try:
        found = account.id
    except NoCredentialsError:
        yield Finding(True, "credentials of an AWS account: `aws configure sso`, or AWS_PROFILE=…")
        return
    except (BotoCoreError, ClientError) as error:
        yield Finding(True, f"credentials that AWS accepts in {account.region}: {describe(error)}")
        return
    assert found
    for check in (_of_region, _of_bootstrap, _of_stacks, _of_concurrency, _of_vpcs, _of_fargate):
        try:
            yield from check(account)
        except (BotoCoreError, ClientError) as error:
            subject = check.__name__.removeprefix("_of_")
            yield Finding(False, f"{subject} could not be checked: {describe(error)}")


def _of_region(account: Account) -> Iterator[Finding]:
    zones = account.client("ec2").describe_availability_zones(
        Filters=[{"Name": "zone-type", "Values": ["availability-zone"]}]
    )["AvailabilityZones"]
    usable = [zone for zone in zones if zone["State"] == "available"]
    if len(usable) < 2:
        yield Finding(True, f"two availability zones in {account.region}: it has {len(usable)} for you")


def _of_bootstrap(account: Account) -> Iterator[Finding]:
    version, stack = bootstrap_version(account), account.stack(BOOTSTRAP_STACK)
    if stack and not version:
        yield Finding(
            True,
            f"a {BOOTSTRAP_STACK} stack that works: it is {stack['StackStatus']}; delete it in "
            "CloudFormation's console, and it is made again",
        )
    elif version < LEAST_BOOTSTRAP:
        yield Finding(False, f"the CDK's bootstrap stack is at {version or 'none'}: it is made or updated")


def _of_stacks(account: Account) -> Iterator[Finding]:
    for part in STACKS:
        status = account.status(part)
        if status in FAILED_FOR_GOOD and status != "ROLLBACK_FAILED":
            yield Finding(
                True,
                f"{account.stack_name(part)} in a state that can be updated: it is {status}; "
                f"`make destroy ENV={account.name}` removes it",
            )


def _of_concurrency(account: Account) -> Iterator[Finding]:
    settings = account.client("lambda").get_account_settings()["AccountLimit"]
    limit = int(settings["ConcurrentExecutions"])
    sizes = asdict(account.environment.functions)
    reserved = sum(size.reserved_concurrency or 0 for size in sizes.values())
    if reserved and limit - reserved < ALWAYS_UNRESERVED:
        yield Finding(
            True,
            f"a Lambda quota of {reserved + ALWAYS_UNRESERVED} concurrent executions (it is {limit}): "
            "functions.*.reserved_concurrency takes "
            f"{reserved}; raise the quota (Service Quotas, L-B99A9384) or reserve less",
        )
    elif limit < LEAST_CONCURRENCY:
        yield Finding(True, f"a Lambda quota of {LEAST_CONCURRENCY} concurrent executions: it is {limit}")
    elif limit < ALWAYS_UNRESERVED:
        yield Finding(
            False,
            f"Lambda's quota is {limit} concurrent executions: while history is fetched, two are left for "
            "the API. Ask for 1,000 (Service Quotas, L-B99A9384); it is free",
        )


def _of_vpcs(account: Account) -> Iterator[Finding]:
    if account.status("network"):
        return
    limit = quota(account, *VPCS)
    pages = account.client("ec2").get_paginator("describe_vpcs").paginate()
    having = sum(len(page["Vpcs"]) for page in pages)
    if having >= limit:
        yield Finding(
            True,
            f"room for a VPC in {account.region}: there are {having} of {limit:g}; delete one, or raise it",
        )


def _of_fargate(account: Account) -> Iterator[Finding]:
    config = account.environment.aws
    assert config is not None
    # During a deployment the new tasks run before the old ones stop; the migration runs once.
    needed = 2 * config.ingest.tasks * config.ingest.cpu / 1024 + 0.25
    limit = quota(account, *FARGATE_VCPUS)
    if needed > limit:
        yield Finding(True, f"a Fargate quota of {needed:g} vCPUs (L-3032A538): it is {limit:g}")


def quota(account: Account, service: str, code: str) -> float:
    """A quota as it is applied to the account, or AWS's default where none is."""
    quotas: Any = account.client("service-quotas")
    try:
        found = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)
    except quotas.exceptions.NoSuchResourceException:
        found = quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)
    return float(found["Quota"]["Value"])

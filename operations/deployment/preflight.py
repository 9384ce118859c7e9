"""What a deployment needs and what is missing of it, in words and all at once, before anything is changed."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError
from msgspec.structs import asdict

from cdk.config import Environment
from local.commands import aws_access
from operations.deployment.account import STACKS, Account, Say
from operations.deployment.exchange_key import given_key
from operations.deployment.foundation import BOOTSTRAP_STACK, LEAST_BOOTSTRAP, bootstrap_version
from operations.deployment.stacks import FAILED_FOR_GOOD, destroy_command
from operations.deployment.toolkit import CDK, ROOT
from operations.failures import OperationFailed, OperationRefused
from operations.images.builders import BUILDERS, works
from tickcast.adapters.redaction import describe

LEAST_NODE = 20
LEAST_CONCURRENCY = 10  # of a fresh account; what is deployed takes 8 at times
ALWAYS_UNRESERVED = 100  # executions that Lambda lets no function reserve
DEPLOYED_WELL = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
_ARMS = ("arm64", "aarch64")
# Quotas by service, code and name, and what of them is asked of an account.
VPCS, FARGATE_VCPUS, SPOT_VCPUS = ("vpc", "L-F678F1CE"), ("fargate", "L-3032A538"), ("fargate", "L-36FBB829")


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
            raise OperationFailed("\n  - ".join([f"{len(fatal)} to fix first:", *fatal]))
        say(f"account {account.id}, region {account.region}, images by {self._engine}")
        if not account.status("data"):
            say("a first deployment: about 40 min, then history and a model (estimates: docs/deployment.md)")


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
    if environment.aws and not can_build_for(wanted := environment.aws.ingest.architecture, engine):
        own = "arm64" if platform.machine() in _ARMS else "x86_64"
        yield Finding(
            True,
            f"emulation of {wanted}, for which the images are built on this {platform.machine()} machine: "
            "install QEMU's user mode emulation (Debian: qemu-user-static; docker: `docker run --privileged "
            f"--rm tonistiigi/binfmt --install {wanted}`), or set `aws.ingest.architecture: {own}` in "
            f"cdk/config/{environment.name}.yaml",
        )


def can_build_for(
    architecture: str, engine: str = "", formats: Path = Path("/proc/sys/fs/binfmt_misc")
) -> bool:
    """Whether images for arm64 or x86_64 can be built here: natively, by an emulator that the kernel knows,
    or by one that the engine says it has, such as in Docker Desktop's machine. On other systems than Linux
    the engines bring one, and of engines that are not known here nothing can be said."""
    is_arm = architecture in _ARMS
    if platform.system() != "Linux" or (platform.machine() in _ARMS) == is_arm:
        return True
    if engine and Path(engine).name not in BUILDERS:
        return True
    try:
        if (formats / ("qemu-aarch64" if is_arm else "qemu-x86_64")).read_text("utf-8").startswith("enabled"):
            return True
    except OSError:
        pass  # asked of the engine
    wanted = "linux/arm64" if is_arm else "linux/amd64"
    return Path(engine).name == "docker" and wanted in docker_platforms(engine)


def docker_platforms(engine: str = "docker") -> list[str]:
    """The platforms that docker's builder builds for, itself or by emulation; none if it does not say."""
    try:
        found = subprocess.run(
            [engine, "buildx", "inspect"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    listed = re.search(r"^Platforms:(.*)$", found.stdout, re.M)
    return [each.strip().rstrip("*") for each in listed[1].split(",")] if listed else []


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
    if note := aws_access.endpoint_note():
        yield Finding(False, note)
    try:
        account.check_access()
    except OperationFailed as error:
        yield Finding(True, str(error))
        return
    for check in (_of_region, _of_bootstrap, _of_stacks, _of_zones, _of_concurrency, _of_vpcs, _of_fargate):
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
    config = account.environment.aws
    assert config is not None
    ids = sorted(str(zone["ZoneId"]) for zone in usable)
    for wanted in config.network.zone_ids or ():
        if wanted not in ids:
            yield Finding(
                True,
                f"the zone {wanted}, which aws.network.zone_ids in cdk/config/{account.name}.yaml names: "
                f"this account has {', '.join(ids)}",
            )


def _of_bootstrap(account: Account) -> Iterator[Finding]:
    version, stack = bootstrap_version(account), account.stack(BOOTSTRAP_STACK)
    if stack and stack["StackStatus"].endswith("_FAILED"):
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
                f"`{destroy_command(account)}` removes it",
            )


def _of_zones(account: Account) -> Iterator[Finding]:
    """A subnet keeps its zone. Of another one CloudFormation would make it again, with addresses that the old
    one still has, and fail."""
    config = account.environment.aws
    assert config is not None
    if account.status("network") not in DEPLOYED_WELL:
        return
    name = account.stack_name("network")
    template = account.client("cloudformation").get_template(StackName=name)["TemplateBody"]
    resources = (json.loads(template) if isinstance(template, str) else template)["Resources"]
    subnets = [each["Properties"] for each in resources.values() if each["Type"] == "AWS::EC2::Subnet"]
    in_order = sorted(subnets, key=lambda subnet: ip_network(subnet["CidrBlock"]))
    deployed = [zone for zone in dict.fromkeys(map(_zone_id, in_order)) if zone]
    wanted = [*(config.network.zone_ids or ())]
    if subnets and deployed != wanted:
        now, had = (f"[{', '.join(zones)}]" if zones else "null" for zones in (wanted, deployed))
        yield Finding(
            True,
            f"the zones that {name} is in: aws.network.zone_ids in cdk/config/{account.name}.yaml is {now}, "
            f"and was deployed as {had}; a subnet keeps its zone. Set it back, or "
            f"`{destroy_command(account)}` first",
        )


def _zone_id(subnet: Mapping[str, Any]) -> str:
    """The zone that a template puts a subnet in, empty where the account chooses."""
    return str(subnet.get("AvailabilityZoneId", ""))


def _of_concurrency(account: Account) -> Iterator[Finding]:
    settings = account.client("lambda").get_account_settings()["AccountLimit"]
    limit = int(settings["ConcurrentExecutions"])
    sizes = asdict(account.environment.functions)
    reserved = sum(size.reserved_concurrency or 0 for size in sizes.values())
    config = account.environment.aws
    assert config is not None
    if limit < config.concurrent_executions:
        yield Finding(
            True,
            f"a Lambda quota of {config.concurrent_executions} concurrent executions, which "
            f"aws.concurrent_executions in cdk/config/{account.name}.yaml counts on (it is {limit}): raise "
            "the quota (Service Quotas, L-B99A9384), or lower that value",
        )
    if reserved and limit - reserved < ALWAYS_UNRESERVED:
        yield Finding(
            True,
            f"a Lambda quota of {reserved + ALWAYS_UNRESERVED} concurrent executions (it is {limit}): "
            "functions.*.reserved_concurrency takes "
            f"{reserved}; raise the quota (Service Quotas, L-B99A9384) or reserve less",
        )
    elif limit < LEAST_CONCURRENCY:
        return  # said above: the configuration counts on as many at least
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
    # During a deployment the new tasks run before the old ones stop; the migration runs once, on demand.
    of_ingest, of_migration = 2 * config.ingest.tasks * config.ingest.cpu / 1024, 0.25
    needed = {FARGATE_VCPUS: of_migration}
    kind = SPOT_VCPUS if config.ingest.spot else FARGATE_VCPUS
    needed[kind] = needed.get(kind, 0) + of_ingest
    for (service, code), vcpus in needed.items():
        if vcpus > (limit := quota(account, service, code)):
            yield Finding(True, f"a Fargate quota of {vcpus:g} vCPUs ({code}): it is {limit:g}")


def quota(account: Account, service: str, code: str) -> float:
    """A quota as it is applied to the account, or AWS's default where none is."""
    quotas: Any = account.client("service-quotas")
    try:
        found = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)
    except quotas.exceptions.NoSuchResourceException:
        found = quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)
    return float(found["Quota"]["Value"])

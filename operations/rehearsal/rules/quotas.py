"""What a fresh account has: quotas that nobody has raised yet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from operations.rehearsal.finding import Check, Rule, rule
from operations.rehearsal.rules import pages
from operations.rehearsal.template import FRESH_EXECUTIONS, Resource, Templates

Found = Iterator[tuple[Resource | str, str, str]]

UNRESERVED = 100  # executions that Lambda keeps for functions without a reservation
LEFT_FOR_THE_API = 2
UNLIMITED = 40  # the most iterations that Step Functions runs at once of a map
FARGATE_CPUS = 6
RULES_OF_A_GROUP = 60
GROUPS_OF_AN_INTERFACE = 5
CONSUMERS_OF_A_STREAM = 5  # of an on-demand or provisioned stream without the higher mode
API_RESOURCES = 300
API_REQUESTS_PER_S, API_BURST = 10_000, 5000

# How many of a type an account may have in a region.
ACCOUNT = {
    "AWS::EC2::VPC": (5, pages.VPC_LIMITS),
    "AWS::EC2::InternetGateway": (5, pages.VPC_LIMITS),
    "AWS::EC2::EIP": (5, pages.VPC_LIMITS),
    "AWS::EC2::NatGateway": (5, pages.VPC_LIMITS),
    "AWS::EC2::SecurityGroup": (2500, pages.VPC_LIMITS),
    "AWS::EC2::Subnet": (200, pages.VPC_LIMITS),
    "AWS::EC2::RouteTable": (200, pages.VPC_LIMITS),
    "AWS::EC2::VPCEndpoint": (20, pages.VPC_LIMITS),
    "AWS::RDS::DBInstance": (40, pages.DATABASE_LIMITS),
    "AWS::RDS::DBParameterGroup": (50, pages.DATABASE_LIMITS),
    "AWS::RDS::DBSubnetGroup": (50, pages.DATABASE_LIMITS),
    "AWS::ElastiCache::User": (1000, pages.CACHE_LIMITS),
    "AWS::ElastiCache::UserGroup": (100, pages.CACHE_LIMITS),
    "AWS::ElastiCache::ParameterGroup": (150, pages.CACHE_LIMITS),
    "AWS::ElastiCache::SubnetGroup": (150, pages.CACHE_LIMITS),
    "AWS::Events::Rule": (300, pages.EVENTS_LIMITS),
    "AWS::IAM::Role": (1000, pages.IAM_LIMITS),
    "AWS::ApiGateway::UsagePlan": (300, pages.API_LIMITS),
    "AWS::CloudWatch::Alarm": (5000, pages.DASHBOARD_LIMITS),
}


def _number_of(kind: str, limit: int) -> Check:
    def check(templates: Templates) -> Found:
        found = templates.resources(kind)
        if len(found) > limit:
            yield found[limit], "", f"is one of {len(found)}; an account may have {limit} in a region"

    return check


@rule(
    "reserved-concurrency",
    f"functions reserve no more than what the account's quota has above {UNRESERVED}: a fresh one, none",
    source=pages.FUNCTION_CONCURRENCY,
    kinds=("AWS::Lambda::Function",),
    remedy="leave out reserved_concurrency until the quota is raised, and set aws.concurrent_executions",
)
def reserved_concurrency(templates: Templates) -> Found:
    left = max(0, templates.concurrent_executions - UNRESERVED)
    for function in templates.resources("AWS::Lambda::Function"):
        reserved = int(function.properties.get("ReservedConcurrentExecutions", 0))
        if reserved > left:
            problem = (
                f"is {reserved}; of the account's {templates.concurrent_executions} only {left} are left"
            )
            yield function, "ReservedConcurrentExecutions", problem
        left -= min(left, reserved)


def branches_of(definition: Mapping[str, Any]) -> int:
    """How many tasks of a state machine run at the same time at most; a map without a limit counts as
    `UNLIMITED`."""
    widest = 1
    for state in definition.get("States", {}).values():
        width = 1
        if state["Type"] == "Parallel":
            width = sum(branches_of(branch) for branch in state["Branches"])
        elif state["Type"] == "Map":
            inner = branches_of(state.get("ItemProcessor", state.get("Iterator", {})))
            width = inner * (state.get("MaxConcurrency") or UNLIMITED)
        widest = max(widest, width)
    return widest


def running_at_once(templates: Templates) -> int:
    """How many invocations run at the same time, without those of the API: one for each shard, parallel batch
    and consumer of a stream, one for each function that rules invoke, and for each rule of a state machine
    as many as that has branches."""
    shards = {
        f"{stream.stack}/{stream.logical_id}": int(stream.properties.get("ShardCount", 1))
        for stream in templates.resources("AWS::Kinesis::Stream")
    }
    batches = 0
    for source in templates.resources("AWS::Lambda::EventSourceMapping"):
        stream = _stream_of(source, templates)
        of_stream = shards.get(f"{stream.stack}/{stream.logical_id}", 1) if stream else 1
        batches += of_stream * int(source.properties.get("ParallelizationFactor", 1))
    started, functions = 0, set[tuple[str, str]]()
    for rule_ in templates.resources("AWS::Events::Rule"):
        for target in rule_.written["Properties"].get("Targets", ()):
            found = templates.named_by(target["Arn"], rule_.stack)
            if found and found.kind == "AWS::Lambda::Function":
                functions.add((found.stack, found.logical_id))
            elif found and isinstance(written := found.properties.get("DefinitionString"), str):
                started += branches_of(json.loads(written))
    return batches + started + len(functions)


def _stream_of(source: Resource, templates: Templates) -> Resource | None:
    found = templates.named_by(source.written["Properties"].get("EventSourceArn"), source.stack)
    if found and found.kind == "AWS::Kinesis::StreamConsumer":
        return templates.named_by(found.written["Properties"]["StreamARN"], found.stack)
    return found


@rule(
    "concurrency",
    f"what runs at once leaves {LEFT_FOR_THE_API} of the account's concurrent executions to the API: a fresh "
    f"one has {FRESH_EXECUTIONS}",
    source=pages.FUNCTION_CONCURRENCY,
    kinds=("AWS::Lambda::EventSourceMapping", "AWS::Events::Rule", "AWS::Kinesis::Stream"),
    remedy="lower stream.shards or stream.parallelism, or raise the quota and aws.concurrent_executions",
)
def concurrency(templates: Templates) -> Found:
    needed = running_at_once(templates)
    if needed > templates.concurrent_executions - LEFT_FOR_THE_API:
        sources = templates.resources("AWS::Lambda::EventSourceMapping", "AWS::Events::Rule")
        problem = f"streams and schedules keep {needed} executions running at once"
        yield sources[0].stack, "", f"{problem}; the account has {templates.concurrent_executions}"


@rule(
    "fargate-cpus",
    f"all services together, while a deployment runs old and new tasks, and a task of each other definition "
    f"have at most the {FARGATE_CPUS} vCPUs of a fresh account",
    source=pages.ECS_LIMITS,
    kinds=("AWS::ECS::Service", "AWS::ECS::TaskDefinition"),
    remedy="lower aws.ingest.cpu or aws.ingest.tasks, or have the quota raised first",
)
def fargate_cpus(templates: Templates) -> Found:
    cpus = 0.0
    of_services: set[tuple[str, str]] = set()
    last: Resource | None = None
    for service in templates.resources("AWS::ECS::Service"):
        task = templates.named_by(service.written["Properties"]["TaskDefinition"], service.stack)
        if task:
            of_services.add((task.stack, task.logical_id))
            at_most = service.properties.get("DeploymentConfiguration", {}).get("MaximumPercent", 200) / 100
            tasks = int(service.properties.get("DesiredCount", 1))
            cpus += tasks * at_most * int(task.properties.get("Cpu", 256)) / 1024
            last = service
    for other in templates.resources("AWS::ECS::TaskDefinition"):
        if (other.stack, other.logical_id) not in of_services:
            cpus, last = cpus + int(other.properties.get("Cpu", 256)) / 1024, last or other
    if last and cpus > FARGATE_CPUS:
        yield last, "", f"makes {cpus:g} vCPUs on Fargate in all; a fresh account has {FARGATE_CPUS}"


@rule(
    "security-group-rules",
    f"a security group has at most {RULES_OF_A_GROUP} rules inwards and as many outwards",
    source=pages.VPC_LIMITS,
    kinds=("AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"),
    remedy="let callers share a security group",
)
def security_group_rules(templates: Templates) -> Found:
    for direction in ("Ingress", "Egress"):
        counted: Counter[tuple[str, str]] = Counter()
        groups = {}
        for group in templates.resources("AWS::EC2::SecurityGroup"):
            groups[group.stack, group.logical_id] = group
            counted[group.stack, group.logical_id] += len(
                group.properties.get(f"SecurityGroup{direction}", ())
            )
        for one in templates.resources(f"AWS::EC2::SecurityGroup{direction}"):
            if of_rule := templates.named_by(one.written["Properties"]["GroupId"], one.stack):
                counted[of_rule.stack, of_rule.logical_id] += 1
        for key, number in counted.items():
            if number > RULES_OF_A_GROUP:
                yield groups[key], direction, f"has {number} rules; {RULES_OF_A_GROUP} are allowed"


@rule(
    "security-groups-of-an-interface",
    f"a function, a task, a cache or a database has at most {GROUPS_OF_AN_INTERFACE} security groups",
    source=pages.VPC_LIMITS,
    kinds=(
        "AWS::Lambda::Function",
        "AWS::ECS::Service",
        "AWS::RDS::DBInstance",
        "AWS::ElastiCache::ReplicationGroup",
    ),
    remedy="put its rules into one security group",
)
def security_groups(templates: Templates) -> Found:
    for resource in templates.resources(*security_groups.kinds):
        properties = resource.properties
        network = properties.get("NetworkConfiguration", {}).get("AwsvpcConfiguration", {})
        groups = (
            properties.get("VpcConfig", {}).get("SecurityGroupIds")
            or properties.get("VPCSecurityGroups")
            or properties.get("SecurityGroupIds")
            or network.get("SecurityGroups", ())
        )
        if len(groups) > GROUPS_OF_AN_INTERFACE:
            problem = f"are {len(groups)}; an interface may have {GROUPS_OF_AN_INTERFACE}"
            yield resource, "security groups", problem


@rule(
    "stream-consumers",
    f"a stream has at most {CONSUMERS_OF_A_STREAM} consumers with fan-out",
    source=pages.STREAM_LIMITS,
    kinds=("AWS::Kinesis::StreamConsumer",),
    remedy="let consumers that may wait poll",
)
def stream_consumers(templates: Templates) -> Found:
    counted: Counter[str] = Counter()
    for consumer in templates.resources("AWS::Kinesis::StreamConsumer"):
        stream = str(consumer.properties["StreamARN"])
        counted[stream] += 1
        if counted[stream] > CONSUMERS_OF_A_STREAM:
            yield consumer, "", f"is consumer {counted[stream]} of its stream; 5 are allowed"


@rule(
    "api-resources",
    f"an API has at most {API_RESOURCES} resources",
    source=pages.API_LIMITS,
    kinds=("AWS::ApiGateway::Resource",),
    remedy="make paths into one with a parameter",
)
def api_resources(templates: Templates) -> Found:
    counted: Counter[str] = Counter()
    for resource in templates.resources("AWS::ApiGateway::Resource"):
        api = str(resource.properties["RestApiId"]) + resource.stack
        counted[api] += 1
        if counted[api] == API_RESOURCES + 1:
            yield resource, "", f"is resource {counted[api]} of its API; {API_RESOURCES} are allowed"


@rule(
    "api-rates",
    "the limits of stages and usage plans are at most the account's: "
    f"{API_REQUESTS_PER_S} requests a second, bursts of {API_BURST}",
    source=pages.API_LIMITS,
    kinds=("AWS::ApiGateway::Stage", "AWS::ApiGateway::UsagePlan"),
    remedy="lower the limits in `api` of the configuration",
)
def api_rates(templates: Templates) -> Found:
    given = [
        (stage, one.get("ThrottlingRateLimit", 0), one.get("ThrottlingBurstLimit", 0))
        for stage in templates.resources("AWS::ApiGateway::Stage")
        for one in stage.properties.get("MethodSettings", ())
    ]
    for plan in templates.resources("AWS::ApiGateway::UsagePlan"):
        throttle = plan.properties.get("Throttle", {})
        given.append((plan, throttle.get("RateLimit", 0), throttle.get("BurstLimit", 0)))
    for resource, rate, burst in given:
        if float(rate) > API_REQUESTS_PER_S or float(burst) > API_BURST:
            problem = f"allows {rate} requests a second and bursts of {burst}"
            yield resource, "", f"{problem}; an account has {API_REQUESTS_PER_S} and {API_BURST}"


RULES = (
    *(
        Rule(
            f"number.{kind.removeprefix('AWS::').replace('::', '.')}",
            f"at most {limit} in an account and region",
            source,
            (kind,),
            "make fewer, or have the quota raised first",
            _number_of(kind, limit),
        )
        for kind, (limit, source) in ACCOUNT.items()
    ),
    reserved_concurrency,
    concurrency,
    fargate_cpus,
    security_group_rules,
    security_groups,
    stream_consumers,
    api_resources,
    api_rates,
)

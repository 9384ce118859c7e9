"""Values that a service accepts only together, or only in some form."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from operations.rehearsal.finding import rule
from operations.rehearsal.rules import pages
from operations.rehearsal.template import Resource, Templates

Found = Iterator[tuple[Resource | str, str, str]]

DAY_S = 86_400
HOUR_S = 3600
INSIGHTS_S = 3 * HOUR_S
METRICS_OF_AN_ALARM = 10


def _queries(alarm: Resource) -> list[dict[str, Any]]:
    return [one for one in alarm.properties.get("Metrics", ()) if isinstance(one, dict)]


@rule(
    "alarm-expressions",
    f"an alarm's expressions search for no metrics, use at most {METRICS_OF_AN_ALARM}, at most one Metrics "
    "Insights query, and one of them is what is compared with the threshold",
    source=pages.ALARM_LIMITS,
    kinds=("AWS::CloudWatch::Alarm",),
    remedy="use a Metrics Insights query (SELECT … FROM …) instead of SEARCH, or fewer metrics",
)
def alarm_expressions(templates: Templates) -> Found:
    for alarm in templates.resources("AWS::CloudWatch::Alarm"):
        queries = _queries(alarm)
        expressions = [str(one["Expression"]) for one in queries if "Expression" in one]
        if any(re.search(r"\bSEARCH\s*\(", one) for one in expressions):
            yield alarm, "Metrics", "search for metrics (SEARCH), which an alarm cannot"
        if sum(one.lstrip().upper().startswith("SELECT") for one in expressions) > 1:
            yield alarm, "Metrics", "have several Metrics Insights queries; an alarm can have one"
        metrics = sum("MetricStat" in one for one in queries)
        if metrics > METRICS_OF_AN_ALARM:
            yield alarm, "Metrics", f"are {metrics}; {METRICS_OF_AN_ALARM} are allowed"
        if queries and sum(one.get("ReturnData", True) is not False for one in queries) != 1:
            yield alarm, "Metrics", "have not exactly one with ReturnData"


@rule(
    "alarm-span",
    "an alarm's periods are a day together at most, seven if each is an hour or longer, three hours with "
    "Metrics Insights; each is 10, 20 or 30 s or whole minutes",
    source=pages.ALARM,
    kinds=("AWS::CloudWatch::Alarm",),
    remedy="use fewer or shorter periods",
)
def alarm_span(templates: Templates) -> Found:
    for alarm in templates.resources("AWS::CloudWatch::Alarm"):
        given, periods = alarm.properties, int(alarm.properties.get("EvaluationPeriods", 1))
        lengths = [(int(given["Period"]), False)] if "Period" in given else []
        for query in _queries(alarm):
            length = query.get("Period", query.get("MetricStat", {}).get("Period"))
            insights = str(query.get("Expression", "")).lstrip().upper().startswith("SELECT")
            lengths += [(int(length), insights)] if length else []
        for length, insights in lengths:
            longest = INSIGHTS_S if insights else 7 * DAY_S if length >= HOUR_S else DAY_S
            if length not in (10, 20, 30) and length % 60:
                yield alarm, "Period", f"is {length} s; it should be 10, 20, 30 or whole minutes"
            elif length * periods > longest:
                problem = f"are {periods} of {length} s: {length * periods} s; {longest} s are allowed"
                yield alarm, "EvaluationPeriods", problem


@rule(
    "alarms-reach-their-topic",
    "a topic that alarms notify is not encrypted with AWS's own key, which lets no alarm in",
    source=pages.TOPIC_KEY,
    kinds=("AWS::SNS::Topic",),
    remedy="use a key of the account that cloudwatch.amazonaws.com may use, or none",
)
def topic_key(templates: Templates) -> Found:
    for topic in templates.resources("AWS::SNS::Topic"):
        if "alias/aws/sns" in str(topic.properties.get("KmsMasterKeyId", "")):
            yield topic, "KmsMasterKeyId", "is AWS's own key, by which alarms cannot publish"


@rule(
    "response-parameters",
    "a header of a gateway's own response is a text in single quotes or a parameter of the request",
    source=pages.API_RESPONSES,
    kinds=("AWS::ApiGateway::GatewayResponse",),
    remedy="put the text into single quotes",
)
def response_parameters(templates: Templates) -> Found:
    form = r"'[^']*'|(method|context|stageVariables)\..+"
    for response in templates.resources("AWS::ApiGateway::GatewayResponse"):
        for name, value in response.properties.get("ResponseParameters", {}).items():
            if not name.startswith("gatewayresponse.header."):
                yield response, name, "is no header: gatewayresponse.header.… is expected"
            elif not re.fullmatch(form, str(value)):
                yield response, name, f"is {value!r}, neither in single quotes nor a parameter"


@rule(
    "storage-limit",
    "the limit of a database's storage is at least a tenth more than what it has",
    source=pages.DATABASE_STORAGE,
    kinds=("AWS::RDS::DBInstance",),
    remedy="raise aws.database.storage_limit_gb",
)
def storage_limit(templates: Templates) -> Found:
    for instance in templates.resources("AWS::RDS::DBInstance"):
        has, most = (int(instance.properties.get(f"{n}AllocatedStorage", 0)) for n in ("", "Max"))
        if most and most * 10 < has * 11:
            yield (
                instance,
                "MaxAllocatedStorage",
                f"is {most} GB, of {has} GB; at least a tenth more is needed",
            )


@rule(
    "database-windows",
    "the daily backup of a database does not overlap its weekly maintenance",
    source=pages.DATABASE,
    kinds=("AWS::RDS::DBInstance",),
    remedy="move one of the windows",
)
def database_windows(templates: Templates) -> Found:
    for instance in templates.resources("AWS::RDS::DBInstance"):
        backup = re.findall(r"(\d\d):(\d\d)", str(instance.properties.get("PreferredBackupWindow", "")))
        upkeep = re.findall(r"(\d\d):(\d\d)", str(instance.properties.get("PreferredMaintenanceWindow", "")))
        if len(backup) == len(upkeep) == 2:
            minutes = [_minutes(begin, end) for begin, end in (backup, upkeep)]
            if minutes[0] & minutes[1]:
                yield instance, "PreferredBackupWindow", "overlaps PreferredMaintenanceWindow"


def _minutes(begin: tuple[str, str], end: tuple[str, str]) -> set[int]:
    """The minutes of the day in a window, also in one over midnight."""
    first, last = (int(hour) * 60 + int(minute) for hour, minute in (begin, end))
    return {minute % 1440 for minute in range(first, last if last > first else last + 1440)}


@rule(
    "cache-failover",
    "a cache that fails over has two nodes or more, one with users encrypts its connections, and its users "
    "are of its engine; a group of Redis users has one called default",
    source=pages.CACHE_ZONES,
    kinds=("AWS::ElastiCache::ReplicationGroup", "AWS::ElastiCache::UserGroup", "AWS::ElastiCache::User"),
    remedy="change aws.cache of the configuration",
)
def cache_failover(templates: Templates) -> Found:
    for group in templates.resources("AWS::ElastiCache::ReplicationGroup"):
        given = group.properties
        nodes = int(given.get("NumCacheClusters") or 1 + int(given.get("ReplicasPerNodeGroup", 0)))
        if (given.get("AutomaticFailoverEnabled") or given.get("MultiAZEnabled")) and nodes < 2:
            yield group, "AutomaticFailoverEnabled", "is on, with one node"
        if given.get("MultiAZEnabled") and not given.get("AutomaticFailoverEnabled"):
            yield group, "MultiAZEnabled", "is on without AutomaticFailoverEnabled"
        if given.get("UserGroupIds") and not given.get("TransitEncryptionEnabled"):
            yield group, "UserGroupIds", "are given without TransitEncryptionEnabled"
    for users in templates.resources("AWS::ElastiCache::UserGroup"):
        members = [
            templates.named_by(one, users.stack) for one in users.written["Properties"].get("UserIds", ())
        ]
        engine = users.properties.get("Engine")
        if any(one and one.properties.get("Engine") not in (engine, "redis") for one in members):
            yield users, "UserIds", f"has users of another engine than {engine}"
        names = {one.properties.get("UserName") for one in members if one}
        if engine == "redis" and "default" not in names:
            yield users, "UserIds", "has no user whose name is default"


@rule(
    "subnet-ranges",
    "the ranges of subnets are in their network's, do not overlap, and are of /16 to /28",
    source=pages.VPC_LIMITS,
    kinds=("AWS::EC2::VPC", "AWS::EC2::Subnet"),
    remedy="change the ranges",
)
def subnet_ranges(templates: Templates) -> Found:
    for vpc in templates.resources("AWS::EC2::VPC"):
        network = ipaddress.ip_network(vpc.properties["CidrBlock"])
        if not 16 <= network.prefixlen <= 28:
            yield vpc, "CidrBlock", f"is {network}; /16 to /28 is allowed"
        subnets = [
            (subnet, ipaddress.ip_network(subnet.properties["CidrBlock"]))
            for subnet in templates.resources("AWS::EC2::Subnet")
            if templates.named_by(subnet.written["Properties"]["VpcId"], subnet.stack) == vpc
        ]
        for subnet, block in subnets:
            if not network.supernet_of(block):  # type: ignore[arg-type]
                yield subnet, "CidrBlock", f"is {block}, outside the network's {network}"
            elif block.prefixlen > 28:
                yield subnet, "CidrBlock", f"is {block}; /28 is the smallest"
        for (_, first), (second, block) in combinations(subnets, 2):
            if first.overlaps(block):
                yield second, "CidrBlock", f"is {block}, which overlaps {first}"


@rule(
    "container-health",
    "the command that checks a container's health is repeated every 5 to 300 s, may take 2 to 120 s, fails "
    "1 to 10 times, and Fargate waits at most 120 s for a container to stop",
    source=pages.ECS_TASK,
    kinds=("AWS::ECS::TaskDefinition",),
    remedy="change the value",
)
def container_health(templates: Templates) -> Found:
    limits = {"Interval": (5, 300), "Timeout": (2, 120), "Retries": (1, 10), "StartPeriod": (0, 300)}
    for task in templates.resources("AWS::ECS::TaskDefinition"):
        for container in task.properties.get("ContainerDefinitions", ()):
            given = dict(container.get("HealthCheck", {}))
            for name, (least, most) in limits.items():
                if name in given and not least <= int(given[name]) <= most:
                    problem = f"is {given[name]}; {least} to {most} is allowed"
                    yield task, f"{container['Name']} HealthCheck.{name}", problem
            if int(container.get("StopTimeout", 0)) > 120:
                problem = f"is {container['StopTimeout']} s; 120 are allowed"
                yield task, f"{container['Name']} StopTimeout", problem


@rule(
    "task-secrets",
    "the role that starts a task may read each secret that goes into its environment",
    source=pages.ECS_TASK,
    kinds=("AWS::ECS::TaskDefinition",),
    remedy="grant the execution role secretsmanager:GetSecretValue on the secret",
)
def task_secrets(templates: Templates) -> Found:
    granted: dict[tuple[str, str], str] = {}
    for policy in templates.resources("AWS::IAM::Policy"):
        for named in policy.written["Properties"].get("Roles", ()):
            if role := templates.named_by(named, policy.stack):
                key = (role.stack, role.logical_id)
                granted[key] = granted.get(key, "") + str(policy.properties["PolicyDocument"])
    for task in templates.resources("AWS::ECS::TaskDefinition"):
        role = templates.named_by(task.written["Properties"].get("ExecutionRoleArn"), task.stack)
        allowed = granted.get((role.stack, role.logical_id), "") if role else ""
        for container in task.properties.get("ContainerDefinitions", ()):
            for secret in container.get("Secrets", ()):
                arn = ":".join(str(secret["ValueFrom"]).split(":")[:7])
                if arn not in allowed or "secretsmanager:GetSecretValue" not in allowed:
                    yield (
                        task,
                        f"{container['Name']} {secret['Name']}",
                        "is a secret that its role cannot read",
                    )


RULES = (
    alarm_expressions,
    alarm_span,
    topic_key,
    response_parameters,
    storage_limit,
    database_windows,
    cache_failover,
    subnet_ranges,
    container_health,
    task_secrets,
)

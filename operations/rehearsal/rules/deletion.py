"""Whether stacks can be deleted, and what they leave that still costs."""

from __future__ import annotations

from collections.abc import Iterator

from operations.rehearsal.finding import rule
from operations.rehearsal.rules import pages
from operations.rehearsal.template import Resource, Templates

Found = Iterator[tuple[Resource | str, str, str]]

# Types that hold data and cost something by existing.
WITH_DATA = (
    "AWS::DynamoDB::Table",
    "AWS::ElastiCache::ReplicationGroup",
    "AWS::Kinesis::Stream",
    "AWS::Logs::LogGroup",
    "AWS::RDS::DBInstance",
    "AWS::S3::Bucket",
    "AWS::SecretsManager::Secret",
)
# Types that CloudFormation snapshots by default if nothing is said.
SNAPSHOT_BY_DEFAULT = ("AWS::RDS::DBInstance", "AWS::RDS::DBCluster")
# `make destroy` empties the buckets whose names begin with this stack's, before it deletes the stack.
EMPTIED = "data"
KEPT = ("Retain", "Snapshot", "RetainExceptOnCreate")


def policy_of(resource: Resource, attribute: str = "DeletionPolicy") -> str:
    default = "Delete"
    if resource.kind in SNAPSHOT_BY_DEFAULT and attribute == "DeletionPolicy":
        default = "Snapshot"
    return str(resource.written.get(attribute, default))


def keeps_data(templates: Templates) -> bool:
    """Whether the environment's data outlives its stacks: what becomes of its database says so, or of its
    bucket if it has none."""
    for kind in ("AWS::RDS::DBInstance", "AWS::S3::Bucket"):
        if found := templates.resources(kind):
            return any(policy_of(one) in KEPT for one in found)
    return False


@rule(
    "bucket-can-be-deleted",
    "a bucket that is deleted with its stack is emptied by something: one with objects in it cannot be",
    source=pages.DELETION_POLICY,
    kinds=("AWS::S3::Bucket",),
    remedy="put it into the data stack under a generated name: `make destroy` empties those",
)
def bucket(templates: Templates) -> Found:
    emptied = {
        (found.stack, found.logical_id)
        for one in templates.resources("Custom::S3AutoDeleteObjects")
        if (found := templates.named_by(one.written["Properties"].get("BucketName"), one.stack))
    }
    for one in templates.resources("AWS::S3::Bucket"):
        by_destroy = one.stack == EMPTIED and "BucketName" not in one.properties
        if policy_of(one) == "Delete" and not by_destroy and (one.stack, one.logical_id) not in emptied:
            yield one, "DeletionPolicy", "is Delete, and nothing empties the bucket before"


@rule(
    "protected-but-deleted",
    "what is protected from deletion is not deleted with its stack",
    source=pages.DELETION_POLICY,
    kinds=("AWS::RDS::DBInstance", "AWS::DynamoDB::Table"),
    remedy="let DeletionProtection follow keep_data, as the DeletionPolicy does",
)
def protected(templates: Templates) -> Found:
    for one in templates.resources(*protected.kinds):
        guarded = one.properties.get("DeletionProtection") or one.properties.get("DeletionProtectionEnabled")
        if guarded and policy_of(one) == "Delete":
            yield one, "DeletionProtection", "is on, and the stack's deletion would stop at it"


@rule(
    "policies-agree",
    "what becomes of data when a resource is replaced is the same as when it is deleted",
    source=pages.DELETION_POLICY,
    kinds=WITH_DATA,
    remedy="set both by removal_policy",
)
def agree(templates: Templates) -> Found:
    for one in templates.resources(*WITH_DATA):
        deleted, replaced = policy_of(one), policy_of(one, "UpdateReplacePolicy")
        # Nothing is replaced while a stack is created: that exception is of the DeletionPolicy alone.
        if deleted in KEPT and replaced != deleted.removesuffix("ExceptOnCreate"):
            yield one, "UpdateReplacePolicy", f"is {replaced}, and DeletionPolicy {deleted}"


@rule(
    "left-behind",
    "an environment whose data is deleted with its stacks leaves nothing that costs",
    source=pages.DELETION_POLICY,
    kinds=WITH_DATA,
    remedy="let the removal policy follow keep_data",
)
def left_behind(templates: Templates) -> Found:
    if keeps_data(templates):
        return
    for one in templates.resources(*WITH_DATA):
        if policy_of(one) in KEPT:
            yield (
                one,
                "DeletionPolicy",
                f"is {policy_of(one)}: it stays, and costs, when its stack is deleted",
            )
        if one.kind == "AWS::RDS::DBInstance" and one.properties.get("DeleteAutomatedBackups") is False:
            yield one, "DeleteAutomatedBackups", "is off: backups stay, and cost, when the stack is deleted"


@rule(
    "logs-without-a-group",
    "a function's logs go to a log group of the stack: one that Lambda makes stays and never expires",
    source=pages.FUNCTION_LOGS,
    kinds=("AWS::Lambda::Function", "AWS::Logs::LogGroup"),
    remedy="name a log group in LoggingConfig",
)
def log_groups(templates: Templates) -> Found:
    for function in templates.resources("AWS::Lambda::Function"):
        if "LogGroup" not in function.properties.get("LoggingConfig", {}):
            yield function, "LoggingConfig", "names no log group"
    for group in templates.resources("AWS::Logs::LogGroup"):
        if "RetentionInDays" not in group.properties:
            yield group, "RetentionInDays", "is not set: its logs never expire"


RULES = (bucket, protected, agree, left_behind, log_groups)

"""Who may do what: the whole matrix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from operations.rehearsal.synthesis import Synthesised

# Actions for which AWS knows no resource, or Lambda asks for any: the only ones that may name "*".
WITHOUT_RESOURCE = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    # Lambda makes and removes the network interfaces of a function in a VPC with the function's role.
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
    # How a state machine's log gets to its group belongs to the account, not to the group.
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    # A registry's token is not a resource.
    "ecr:GetAuthorizationToken",
}

# (action, what it may be done to) of each function, beyond its logs, its traces and its network interface.
LAKE = {
    "PredictStream": {
        ("s3:GetObject", "models/*"),
        ("s3:GetObject", "symbols/current.json"),
        ("s3:GetObject", "schemas/*"),
        ("s3:PutObject", "quarantine/*"),
        ("s3:PutObject", "aws/lambda/*"),
        ("s3:ListBucket", ""),
    },
    "ArchiveTicks": {
        ("s3:GetObject", "schemas/*"),
        ("s3:PutObject", "bronze/*"),
        ("s3:PutObject", "quarantine/*"),
        ("s3:PutObject", "aws/lambda/*"),
        ("s3:ListBucket", ""),
    },
    "TrainModel": {
        ("s3:GetObject", "models/*"),
        ("s3:GetObject", "symbols/current.json"),
        ("s3:PutObject", "models/*"),
        ("s3:ListBucket", ""),
    },
    "EvaluateModel": {
        ("s3:GetObject", "models/*"),
        ("s3:GetObject", "symbols/current.json"),
        ("s3:PutObject", "models/*/card.json"),
        ("s3:PutObject", "models/*/card.md"),
        ("s3:ListBucket", ""),
    },
    "PromoteModel": {
        ("s3:GetObject", "models/*"),
        ("s3:PutObject", "models/current.json"),
        ("s3:ListBucket", ""),
    },
    "ServePredictions": {
        ("s3:GetObject", "models/*"),
        ("s3:GetObject", "condition/*"),
        ("s3:GetObject", "receipts/*"),
        ("s3:GetObject", "receipts_between/*"),
        ("s3:GetObject", "tallies/*"),
        ("s3:ListBucket", ""),
    },
    "ScorePredictions": {
        ("s3:GetObject", "models/*"),
        ("s3:GetObject", "receipts/*"),
        ("s3:GetObject", "receipts_between/*"),
        ("s3:GetObject", "tallies/*"),
        ("s3:PutObject", "receipts/*"),
        ("s3:PutObject", "receipts_between/*"),
        ("s3:PutObject", "tallies/*"),
        ("s3:ListBucket", ""),
    },
    "AuditPredictions": {
        ("s3:GetObject", "bronze/*"),
        ("s3:GetObject", "models/*"),
        ("s3:PutObject", "audit/differences/*"),
        ("s3:ListBucket", ""),
    },
    "PlanBackfill": {("s3:GetObject", "symbols/current.json"), ("s3:ListBucket", "")},
    "ReportCondition": {
        ("s3:GetObject", "condition/*"),
        ("s3:GetObject", "symbols/current.json"),
        ("s3:PutObject", "condition/*"),
        ("s3:ListBucket", ""),
    },
    "ListStaleHours": {("s3:ListBucket", "")},
    "LoadHistory": {
        ("s3:GetObject", "bronze/*"),
        ("s3:PutObject", "quarantine/*"),
        ("s3:ListBucket", ""),
    },
    "MarkRepaired": {("s3:GetObject", "bronze/source=rest/*"), ("s3:ListBucket", "")},
    "FetchHistory": {
        ("s3:GetObject", "bronze/source=rest/*"),
        ("s3:PutObject", "bronze/source=rest/*"),
        ("s3:PutObject", "quarantine/fetch_history/*"),
        ("s3:ListBucket", ""),
    },
}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(synthesised: Synthesised) -> Iterator[tuple[str, dict[str, Any]]]:
    """(policy's logical id, statement) of every allowing statement of a role."""
    for logical_id, properties in synthesised.resources("AWS::IAM::Policy"):
        for statement in properties["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            yield logical_id, statement
    for logical_id, properties in synthesised.resources("AWS::IAM::Role"):
        assert "Policies" not in properties, logical_id


def test_no_action_by_wildcard(synthesised: Synthesised) -> None:
    for policy, statement in statements(synthesised):
        assert not [action for action in as_list(statement["Action"]) if "*" in action], policy


def test_no_resource_by_wildcard_but_where_there_is_none(synthesised: Synthesised) -> None:
    for policy, statement in statements(synthesised):
        if "*" in as_list(statement["Resource"]):
            assert set(as_list(statement["Action"])) <= WITHOUT_RESOURCE, policy


def in_the_lake(synthesised: Synthesised, role: str) -> set[tuple[str, str]]:
    """What the policies of a role, by the beginning of their ids, allow in the bucket: (action, prefix)."""
    return {
        (action, resource["Fn::Join"][1][-1].removeprefix("/") if "Fn::Join" in resource else "")
        for policy, statement in statements(synthesised)
        if policy.startswith(role)
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
        if action.startswith("s3:")
    }


@pytest.mark.parametrize("function", LAKE)
def test_what_a_function_may_do_in_the_lake(synthesised: Synthesised, function: str) -> None:
    assert in_the_lake(synthesised, function) == LAKE[function]


def test_what_ingest_may_do_in_the_lake(on_aws: Synthesised) -> None:
    expected = {
        ("s3:GetObject", "symbols/current.json"),
        ("s3:ListBucket", ""),
        ("s3:PutObject", "schemas/*"),
        ("s3:PutObject", "quarantine/ingest_ecs/*"),
    }
    assert in_the_lake(on_aws, "IngestTaskTaskRole") == expected


def test_who_reads_and_writes_the_stream(synthesised: Synthesised) -> None:
    readers, writers = set(), set()
    for policy, statement in statements(synthesised):
        actions = set(as_list(statement["Action"]))
        if "kinesis:GetRecords" in actions:
            readers.add(policy)
        if "kinesis:PutRecords" in actions:
            writers.add(policy)
            assert "kinesis:GetRecords" not in actions
    assert sorted(name[:12] for name in readers) == ["ArchiveTicks", "PredictStrea"]
    subscribers = {
        policy: statement
        for policy, statement in statements(synthesised)
        if "ConsumerARN" in json.dumps(statement["Resource"])
    }
    for policy, statement in subscribers.items():
        assert policy.startswith("PredictStream")
        assert set(statement["Action"]) == {"kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard"}
    assert len(subscribers) == (synthesised.name == "prod")
    assert [name[:6] for name in writers] == ([] if synthesised.name == "local" else ["Ingest"])


def test_who_may_enter_the_cache(on_aws: Synthesised) -> None:
    users = {}
    for policy, statement in statements(on_aws):
        if statement["Action"] == "elasticache:Connect":
            names = ("Writer", "Reader", "Auditor", "Scorer", "Planner", "Repairer")
            [users[policy[:12]]] = [name for name in names if name in json.dumps(statement)]
            assert "*" not in json.dumps(statement["Resource"])
    assert users == {
        "PredictStrea": "Writer",
        "ServePredict": "Reader",
        "AuditPredict": "Auditor",
        "ScorePredict": "Scorer",
        "PlanBackfill": "Planner",
        "ReportCondit": "Planner",
        "MarkRepaired": "Repairer",
    }


def test_who_may_enter_the_database(on_aws: Synthesised) -> None:
    users = {}
    for policy, statement in statements(on_aws):
        if statement["Action"] == "rds-db:connect":
            resource = json.dumps(statement["Resource"])
            assert "*" not in resource and ":dbuser:" in resource
            users[policy[:12]] = resource.rpartition("/")[2].partition('"')[0]
    assert users == {
        "ListStaleHou": "tickcast_reader",
        "LoadHistoryP": "tickcast_loader",
        "MarkRepaired": "tickcast_repairer",
        "ScorePredict": "tickcast_scorer",
        "AuditPredict": "tickcast_reader",
        "TrainModelPa": "tickcast_reader",
        "EvaluateMode": "tickcast_reader",
        "ReportCondit": "tickcast_reader",
    }

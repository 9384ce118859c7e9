"""The documents that are generated from the templates, compared with the files."""

from __future__ import annotations

from typing import Any

import pytest

from operations.rehearsal import checked_by, permissions
from operations.rehearsal.creation import Created
from operations.rehearsal.documents import CHECKED_BY, COMMAND, PERMISSIONS, texts
from operations.rehearsal.template import Templates
from tests.operations.rehearsal.examples import of

LAMBDA = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}}]}


@pytest.fixture(scope="session")
def expected(all_templates: dict[str, Templates], created: dict[str, Created]) -> dict[str, str]:
    return {path.name: text for path, text in texts(all_templates, created).items()}


def test_no_role_may_more_than_its_table_says(expected: dict[str, str]) -> None:
    before = PERMISSIONS.read_text("utf-8")
    more = permissions.grown(before, expected["permissions.md"])
    assert not more, (
        "rights that docs/permissions.md does not have:\n" + "\n".join(more) + f"\nIf meant: {COMMAND}"
    )
    assert before == expected["permissions.md"], f"out of date: {COMMAND}"


def test_who_checked_each_type_is_up_to_date(expected: dict[str, str]) -> None:
    assert CHECKED_BY.read_text("utf-8") == expected["checked-by.md"], f"out of date: {COMMAND}"


def environment(action: str = "s3:GetObject", **statement: Any) -> Templates:
    resource = {"Fn::Join": ["", [{"Fn::GetAtt": ["Lake", "Arn"]}, "/models/*"]]}
    document = {"Statement": [{"Effect": "Allow", "Action": action, "Resource": resource, **statement}]}
    metadata = {"Metadata": {"aws:cdk:path": "tickcast-dev-app/Predict/Role/Resource"}}
    return Templates(
        {
            "app": {
                "Resources": {
                    "Lake": of("S3::Bucket"),
                    "R": of("IAM::Role", {"AssumeRolePolicyDocument": LAMBDA}, **metadata),
                    "P": of("IAM::Policy", {"PolicyDocument": document, "Roles": [{"Ref": "R"}]}),
                }
            }
        }
    )


def test_a_role_s_rights_are_a_table() -> None:
    text = permissions.document({"dev": environment(), "prod": environment()})
    assert "## Predict\n\nTaken by lambda.amazonaws.com.\n" in text
    assert "| `s3:GetObject` | `{Lake}/models/*` |  |  |" in text


def test_a_right_of_one_environment_names_it_and_a_condition_is_shown() -> None:
    limited = environment(
        "s3:PutObject", Condition={"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    )
    text = permissions.document({"dev": environment(), "prod": limited})
    assert "| `s3:GetObject` | `{Lake}/models/*` |  | dev |" in text
    condition = '`{"StringEquals": {"aws:SourceAccount": "{account}"}}`'
    assert f"| `s3:PutObject` | `{{Lake}}/models/*` | {condition} | prod |" in text


def test_each_kind_of_right_is_read() -> None:
    inline = {"PolicyName": "p", "PolicyDocument": {"Statement": [{"Effect": "Deny", "Action": "a:b"}]}}
    role = {
        "AssumeRolePolicyDocument": LAMBDA,
        "Policies": [inline],
        "ManagedPolicyArns": [{"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, ":iam::aws:policy/X"]]}],
    }
    managed = {
        "Roles": [{"Ref": "R"}],
        "PolicyDocument": {"Statement": [{"Effect": "Allow", "Action": ["c:d"]}]},
    }
    resources = {"R": of("IAM::Role", role), "M": of("IAM::ManagedPolicy", managed)}
    text = permissions.document({"dev": Templates({"app": {"Resources": resources}})})
    for row in (
        "| `Deny: a:b` | `*` |",
        "| `managed policy` | `arn:aws:iam::aws:policy/X` |",
        "| `c:d` | `*` |",
    ):
        assert row in text


def test_a_further_action_is_named_with_its_role() -> None:
    before = permissions.document({"dev": environment()})
    after = permissions.document({"dev": environment("s3:DeleteObject")})
    assert permissions.grown(before, before) == []
    assert permissions.grown(before, after) == ["Predict: `s3:DeleteObject` | `{Lake}/models/*`"]


def test_a_type_that_nobody_checked_is_named() -> None:
    resources = {"A": of("Nothing::There"), "B": of("S3::Bucket"), "C": of("SQS::Queue")}
    templates = {
        "local": Templates({"app": {"Resources": {}}}),
        "dev": Templates({"app": {"Resources": resources}}),
    }
    text = checked_by.document(
        templates, {"dev": Created(kinds={"AWS::S3::Bucket"}, failed={"AWS::S3::Bucket": "x"})}
    )
    rows = {line.split(" | ")[0]: line.split(" | ")[1:] for line in text.splitlines() if "::" in line}
    assert "Checked by nobody: AWS::Nothing::There." in text
    assert [rows["| S3::Bucket"][index] for index in (0, 2, 3)] == ["yes", "partly", ""]
    assert rows["| SQS::Queue"][0] == "yes" and "https" not in rows["| SQS::Queue"][4]


def test_a_rule_is_named_for_a_type_only_where_it_has_something_to_read() -> None:
    local = Templates({"app": {"Resources": {"T": of("SNS::Topic", {"DisplayName": "Alarms"})}}})
    text = checked_by.document({"local": local}, {})
    [row] = [line for line in text.splitlines() if line.startswith("| SNS::Topic |")]
    assert "SNS.Topic.DisplayName" in row and "SNS.Topic.TopicName" not in row

"""Intrinsic functions, resolved as far as they are known before a deployment."""

from __future__ import annotations

from typing import Any

import pytest

from operations.rehearsal.template import ACCOUNT, Templates, references

DATA = {
    "Resources": {
        "Lake": {"Type": "AWS::S3::Bucket"},
        "Key": {"Type": "AWS::SecretsManager::Secret", "Properties": {"Name": "tickcast/key"}},
    },
    "Outputs": {"Lake": {"Value": {"Ref": "Lake"}, "Export": {"Name": "data:Lake"}}},
}
APP = {
    "Parameters": {"Size": {"Type": "Number", "Default": 3}},
    "Mappings": {"Zones": {"tokyo": {"first": "apne1-az1"}}},
    "Conditions": {
        "IsTokyo": {"Fn::Equals": [{"Ref": "AWS::Region"}, "ap-northeast-1"]},
        "IsElsewhere": {"Fn::Not": [{"Condition": "IsTokyo"}]},
    },
    "Resources": {
        "Named": {"Type": "AWS::Lambda::Function", "Properties": {"FunctionName": "predict"}},
        "Unnamed": {"Type": "AWS::Lambda::Function"},
        "Role": {"Type": "AWS::IAM::Role"},
        "Group": {"Type": "AWS::EC2::SecurityGroup"},
        "Topic": {"Type": "AWS::SNS::Topic"},
    },
}


@pytest.fixture
def templates() -> Templates:
    return Templates({"data": DATA, "app": APP})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"Ref": "AWS::Region"}, "ap-northeast-1"),
        ({"Ref": "AWS::StackName"}, "tickcast-dev-app"),
        ({"Ref": "Size"}, 3),
        ({"Ref": "Named"}, "predict"),
        ({"Ref": "Unnamed"}, "tickcast-dev-app-Unnamed-ABCDEFGH1234"),
        ({"Ref": "Group"}, "sg-0123456789abcdef0"),
        ({"Ref": "Topic"}, f"arn:aws:sns:ap-northeast-1:{ACCOUNT}:tickcast-dev-app-Topic-ABCDEFGH1234"),
        (
            {"Fn::GetAtt": ["Named", "Arn"]},
            f"arn:aws:lambda:ap-northeast-1:{ACCOUNT}:function:predict",
        ),
        ({"Fn::Join": ["/", ["a", {"Ref": "Size"}]]}, "a/3"),
        ({"Fn::Sub": "${Named}-${AWS::Partition}-${!kept}"}, "predict-aws-${kept}"),
        ({"Fn::Sub": ["${own} ${Group.Id}", {"own": "in"}]}, "in sg-0123456789abcdef0.Id"),
        ({"Fn::Select": [1, {"Fn::GetAZs": ""}]}, "ap-northeast-1b"),
        ({"Fn::Select": ["0", {"Fn::Split": ["-", "x-y"]}]}, "x"),
        ({"Fn::FindInMap": ["Zones", "tokyo", "first"]}, "apne1-az1"),
        ({"Fn::ImportValue": "data:Lake"}, "tickcast-dev-data-lake-abcdefgh1234"),
        ({"Fn::If": ["IsTokyo", "yes", "no"]}, "yes"),
        ({"a": {"Fn::If": ["IsElsewhere", "yes", {"Ref": "AWS::NoValue"}]}, "b": 1}, {"b": 1}),
        ({"Fn::Base64": "not known here"}, {"Fn::Base64": "not known here"}),
    ],
)
def test_a_value_is_resolved(templates: Templates, written: Any, expected: Any) -> None:
    assert templates.resolved(written, "app") == expected


def test_a_generated_name_has_the_longest_length_of_its_type() -> None:
    long = {"Resources": {"R" * 200: {"Type": "AWS::IAM::Role"}, "b" * 200: {"Type": "AWS::S3::Bucket"}}}
    templates = Templates({"app": long})
    assert len(templates.resolved({"Ref": "R" * 200}, "app")) == 64
    assert len(templates.resolved({"Ref": "b" * 200}, "app")) == 63


def test_a_reference_leads_to_its_resource_also_over_stacks(templates: Templates) -> None:
    for written in ({"Ref": "Named"}, {"Fn::GetAtt": ["Named", "Arn"]}):
        found = templates.named_by(written, "app")
        assert found and (found.stack, found.logical_id) == ("app", "Named")
    found = templates.named_by({"Fn::ImportValue": "data:Lake"}, "app")
    assert found and (found.stack, found.logical_id) == ("data", "Lake")
    assert templates.named_by("text", "app") is None
    assert templates.named_by({"Ref": "AWS::Region"}, "app") is None


def test_what_a_resource_waits_for() -> None:
    written = {
        "Type": "AWS::ECS::Service",
        "DependsOn": ["Policy"],
        "Properties": {"Text": {"Fn::Sub": "${Cluster} ${Task.Arn} ${!no}"}, "Role": {"Ref": "Role"}},
    }
    others = {name: {"Type": "AWS::SNS::Topic"} for name in ("Cluster", "Task", "Role", "Unrelated")}
    templates = Templates({"app": {"Resources": {"S": written, **others}}})
    [resource] = templates.resources("AWS::ECS::Service")
    assert resource.references() == {"Policy", "Cluster", "Task", "Role"}
    assert list(references(written)) == [{"Ref": "Role"}]


def test_a_path_is_the_construct_s() -> None:
    metadata = {"aws:cdk:path": "tickcast-dev-app/Ingest/Door/Resource"}
    document = {
        "Resources": {
            "A": {"Type": "AWS::SNS::Topic", "Metadata": metadata},
            "B": {"Type": "AWS::SNS::Topic"},
        }
    }
    assert [one.path for one in Templates({"app": document}).resources()] == ["Ingest/Door", "B"]

"""Stacks in moto: created, deleted, and what it does not know left out."""

from __future__ import annotations

import os

import pytest

from operations.rehearsal.creation import create, known_part
from operations.rehearsal.template import Templates
from tests.operations.rehearsal.examples import of

QUEUE = of("SQS::Queue", {"QueueName": "ticks"})
USER = of("ElastiCache::User", {"UserId": "writer"})


def both(**resources: object) -> Templates:
    return Templates({"data": {"Resources": {"Q": QUEUE}}, "app": {"Resources": resources}})


def test_what_moto_knows_is_created_and_deleted() -> None:
    result = create(both(T=of("SNS::Topic", {"TopicName": "alarms"})))
    assert result.kinds == {"AWS::SQS::Queue", "AWS::SNS::Topic"}
    assert (result.resources, result.unknown, result.failed) == (2, set(), {})
    assert (result.findings, result.undeleted) == ([], {})


def test_what_it_does_not_know_is_left_out_with_references_to_it() -> None:
    templates = both(
        U=USER,
        T=of("SNS::Topic", {"TopicName": {"Ref": "U"}, "DisplayName": {"Fn::GetAtt": ["U", "Status"]}}),
    )
    part = known_part(templates, "app")["Resources"]
    assert part["T"]["Properties"] == {"TopicName": "writer", "DisplayName": "writer.Status"}
    assert part.keys() == {"T"}
    result = create(templates)
    assert result.unknown == {"AWS::ElastiCache::User"} and not result.findings


def test_what_a_service_refuses_is_a_finding() -> None:
    result = create(both(B=of("S3::Bucket", {"BucketName": "ab"}), T=of("SNS::Topic")))
    [finding] = result.findings
    assert (finding.rule, finding.stack, finding.resource) == ("moto create", "app", "B")
    assert "AWS::S3::Bucket is refused" in finding.problem
    assert "AWS::S3::Bucket" in result.failed and "AWS::SNS::Topic" in result.kinds


def test_a_refusal_of_what_rests_on_something_unknown_says_nothing() -> None:
    source = {"EventSourceArn": {"Fn::GetAtt": ["C", "ConsumerARN"]}, "FunctionName": "f"}
    result = create(
        both(
            C=of("Kinesis::StreamConsumer", {"ConsumerName": "c", "StreamARN": "s"}),
            E=of("Lambda::EventSourceMapping", source),
        )
    )
    assert "AWS::Lambda::EventSourceMapping" in result.failed and not result.findings


def test_two_of_one_name_are_refused() -> None:
    topic = of("IAM::Role", {"RoleName": "one", "AssumeRolePolicyDocument": {"Statement": []}})
    assert [one.resource for one in create(both(A=topic, B=topic)).findings] == ["B"]


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    before = dict(os.environ)
    create(both())
    assert dict(os.environ) == before

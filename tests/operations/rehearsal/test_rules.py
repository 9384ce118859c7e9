"""Each rule on a template that breaks it and on one that does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from operations.rehearsal.finding import Rule
from operations.rehearsal.rules import RULES, quotas, sizes, text
from operations.rehearsal.template import Templates
from tests.operations.rehearsal.examples import ALSO_BROKEN, EXAMPLES, of

BY_NAME = {rule.name: rule for rule in RULES}
OF_TEXT = {limit.name: limit for limit in text.LIMITS}


def found(rule: Rule, document: dict[str, Any]) -> list[str]:
    return [finding.problem for finding in rule.findings(Templates({"app": document}))]


def put(kind: str, place: str, value: str) -> dict[str, Any]:
    """A template of one resource with the value at the place."""
    properties: Any = value
    for name in reversed(place.split(".")):
        properties = [properties] if name == "[]" else {name: properties}
    return {"Resources": {"X": of(kind.removeprefix("AWS::"), properties)}}


def test_every_rule_has_an_example_a_page_and_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(RULES) > 120
    counted = {name for name in BY_NAME if name.startswith("number.")}
    with_example = EXAMPLES.keys() | OF_TEXT.keys() | counted | {"function-unzipped-size"}
    assert BY_NAME.keys() == with_example
    for rule in RULES:
        assert rule.source.startswith("https://docs.aws.amazon.com/"), rule.name
        assert rule.checks and rule.remedy, rule.name


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_rule_finds_what_breaks_it_and_nothing_else(name: str) -> None:
    broken, kept = EXAMPLES[name]
    assert found(BY_NAME[name], broken)
    assert not found(BY_NAME[name], kept)


@pytest.mark.parametrize(("name", "document"), ALSO_BROKEN)
def test_a_rule_finds_what_else_breaks_it(name: str, document: dict[str, Any]) -> None:
    assert found(BY_NAME[name], document)


@pytest.mark.parametrize("kind", quotas.ACCOUNT)
def test_more_than_an_account_may_have(kind: str) -> None:
    limit, _ = quotas.ACCOUNT[kind]
    rule = BY_NAME[f"number.{kind.removeprefix('AWS::').replace('::', '.')}"]
    for number in (limit, limit + 1):
        document = {"Resources": {f"R{index}": {"Type": kind} for index in range(number)}}
        assert bool(found(rule, document)) is (number > limit)


# A text of each form, and one that it refuses.
TEXTS = {
    text.ANY: ("it’s fine", None),
    text.ASCII: ("plain", "it’s"),
    text.LATIN: ("it's früh", "it’s"),
    text.NO_CONTROLS: ("it’s", "a\x07"),
    text.NO_SPACE: ("a.b", "a b"),
    text.PLAIN: ("a-b_1", "a.b"),
    text.DOTTED: ("a.b-1", "a b"),
    text.HYPHENS: ("a-b", "a_b"),
    text.HYPHENED: ("a-b1", "a--b"),
    text.EC2: ("S3, REST: a (b) #1; $!*", "the exchange's"),
    text.EC2_NAME: ("cache", "sg-1"),
    text.IAM_NAME: ("a+b=c,d.e@f-g", "a/b"),
    text.NAMESPACE: ("tickcast/dev", ":a"),
    text.QUERY_ID: ("m1", "M1"),
    text.DIMENSION: ("Symbol", ":Symbol"),
    text.LOG_GROUP: ("/aws/vendedlogs/x", "a b"),
    text.LOG_FILTER: ("errors", "a:b"),
    text.PATH_PART: ("{symbol}", "a b"),
    text.USER_ID: ("tickcast-dev", "1a"),
    text.SQL_NAME: ("tick_cast", "tick-cast"),
    text.SUBNETS: ("database", "default"),
    text.SECRET: ("tickcast/key", "tickcast-abc123"),
    text.PARAMETER: ("/tickcast/key", "/aws/key"),
    text.BUCKET: ("tickcast-lake", "Tickcast"),
    text.TOPIC: ("alarms", "a b"),
    text.MACHINE: ("tickcast-score", "a/b"),
}


@pytest.mark.parametrize("limit", text.LIMITS, ids=lambda limit: limit.name)
def test_the_limits_of_a_text(limit: text.Limit) -> None:
    accepted, refused = TEXTS[limit.form]
    long_enough = accepted + "x" * (limit.shortest - len(accepted))
    assert not found(BY_NAME[limit.name], put(limit.kind, limit.place, long_enough))
    if refused:
        assert found(BY_NAME[limit.name], put(limit.kind, limit.place, refused))
    assert found(BY_NAME[limit.name], put(limit.kind, limit.place, "a" * (limit.longest + 1)))
    if limit.shortest:
        assert found(BY_NAME[limit.name], put(limit.kind, limit.place, "a" * (limit.shortest - 1)))


def test_the_message_names_the_character() -> None:
    rule = BY_NAME["EC2.SecurityGroupEgress.Description"]
    [problem] = found(rule, put("AWS::EC2::SecurityGroupEgress", "Description", "The exchange's stream"))
    assert "has ' , refused" in problem and "no apostrophe" in problem


@pytest.mark.parametrize(
    "name",
    ["xn--a", "a..b", "ab", "192.168.0.1", "lake-s3alias", "lake--ol-s3", "amzn-s3-demo-x", "-lake", "lake-"],
)
def test_bucket_names_that_s3_refuses(name: str) -> None:
    assert found(BY_NAME["S3.Bucket.BucketName"], put("AWS::S3::Bucket", "BucketName", name))


def test_limits_agree_with_the_api_models() -> None:
    """botocore's models of the APIs have some of the lengths too."""
    import botocore.session

    checked = 0
    names = {
        "Events.Rule.Description": ("events", "RuleDescription"),
        "Events.Rule.Name": ("events", "RuleName"),
        "Events.Rule.Targets.Id": ("events", "TargetId"),
        "IAM.Role.Description": ("iam", "roleDescriptionType"),
        "IAM.Role.RoleName": ("iam", "roleNameType"),
        "IAM.Policy.PolicyName": ("iam", "policyNameType"),
        "Kinesis.Stream.Name": ("kinesis", "StreamName"),
        "Kinesis.StreamConsumer.ConsumerName": ("kinesis", "ConsumerName"),
        "Lambda.Function.Description": ("lambda", "Description"),
        "Logs.LogGroup.LogGroupName": ("logs", "LogGroupName"),
        "Logs.MetricFilter.FilterName": ("logs", "FilterName"),
        "CloudWatch.Alarm.AlarmName": ("cloudwatch", "AlarmName"),
        "CloudWatch.Alarm.AlarmDescription": ("cloudwatch", "AlarmDescription"),
        "CloudWatch.Alarm.Namespace": ("cloudwatch", "Namespace"),
        "SecretsManager.Secret.Description": ("secretsmanager", "DescriptionType"),
        "SSM.Parameter.Description": ("ssm", "ParameterDescription"),
        "StepFunctions.StateMachine.StateMachineName": ("stepfunctions", "Name"),
    }
    session = botocore.session.get_session()
    for name, (service, shape) in names.items():
        most = session.get_service_model(service).shape_for(shape).metadata.get("max")
        assert most == OF_TEXT[name].longest, name
        checked += 1
    assert checked == len(names)


def test_a_function_above_lambda_s_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = tmp_path / ".build" / "layers" / "aws" / "training"
    layer.mkdir(parents=True)
    with (layer / "large.bin").open("wb") as file:
        file.truncate(251 << 20)
    monkeypatch.setattr(sizes, "ROOT", tmp_path)
    variables = {"Environment": {"Variables": {"POWERTOOLS_SERVICE_NAME": "train_model"}}}
    document = {"Resources": {"F": of("Lambda::Function", variables)}}
    [problem] = found(sizes.unzipped, document)
    assert problem.startswith("have 251 MB")
    with (layer / "large.bin").open("wb") as file:
        file.truncate(249 << 20)
    assert not found(sizes.unzipped, document)


def test_how_many_executions_run_at_once() -> None:
    stream = of("Kinesis::Stream", {"ShardCount": 3})
    source = {"EventSourceArn": {"Fn::GetAtt": ["S", "Arn"]}, "ParallelizationFactor": 2}
    resources = {"S": stream, "E": of("Lambda::EventSourceMapping", source)}
    assert quotas.running_at_once(Templates({"app": {"Resources": resources}})) == 6
    parallel = {"Type": "Parallel", "Branches": [{"States": {"T": {"Type": "Task"}}}] * 2}
    task = {"Type": "Task"}
    assert quotas.branches_of({"States": {"P": parallel, "T": task}}) == 2
    unlimited = {"Type": "Map", "ItemProcessor": {"States": {"T": task}}}
    assert quotas.branches_of({"States": {"M": unlimited}}) == quotas.UNLIMITED


def test_a_raised_quota_may_be_reserved() -> None:
    reserving = {"Resources": {"F": of("Lambda::Function", {"ReservedConcurrentExecutions": 30})}}
    for quota, refused in ((10, True), (129, True), (130, False)):
        templates = Templates({"app": reserving}, concurrent_executions=quota)
        assert bool(list(quotas.reserved_concurrency.findings(templates))) is refused


def test_names_of_rules_are_plain() -> None:
    for name in BY_NAME:
        assert re.fullmatch(r"[a-z-]+|(number\.)?[A-Z][A-Za-z0-9]+(\.[A-Za-z0-9]+)+", name), name

"""What signals add to a template, and that there is none of it without rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cdk.config import ConfigError, load, parse
from operations.rehearsal import linter, security
from operations.rehearsal.rehearse import by_rules, templates_of
from operations.rehearsal.synthesis import Synthesised, synthesise
from tests.fixtures.synthesis import CHANGED
from tests.infra.test_permissions import as_list, in_the_lake, statements
from tests.infra.test_templates import functions
from tickcast.adapters.settings import SendSignalsSettings
from tickcast.adapters.variables import names


def rules(synthesised: Synthesised) -> dict[str, dict[str, Any]]:
    """Those that invoke the function, by their description."""
    return {
        properties["Description"]: properties
        for _, properties in synthesised.resources("AWS::Events::Rule")
        if "SendSignals" in json.dumps(properties["Targets"])
    }


def test_without_rules_there_is_nothing(synthesised: Synthesised) -> None:
    assert "send_signals" not in functions(synthesised)
    assert not list(synthesised.resources("AWS::SQS::Queue"))
    assert "ignals" not in json.dumps(list(synthesised.resources("AWS::IAM::Policy")))
    bucket = synthesised.one("AWS::S3::Bucket")
    assert "NotificationConfiguration" not in bucket
    assert "signals/" not in json.dumps(bucket)


def test_the_function_is_outside_the_vpc_with_the_variables_of_its_settings(changed: Synthesised) -> None:
    function = functions(changed)["send_signals"]
    assert "VpcConfig" not in function
    assert set(function["Environment"]["Variables"]) == set(names(SendSignalsSettings)) - {"AWS_REGION"}
    assert "https://hooks" not in json.dumps(function)


def test_what_it_may_do(changed: Synthesised) -> None:
    assert in_the_lake(changed, "SendSignals") == {("s3:GetObject", "signals/*"), ("s3:ListBucket", "")}
    found = {
        action: statement["Resource"]
        for policy, statement in statements(changed)
        if policy.startswith("SendSignals")
        for action in as_list(statement["Action"])
        if action.startswith(("ssm:", "sqs:", "kms:", "secretsmanager:"))
    }
    assert found.keys() == {"ssm:GetParameter", "sqs:SendMessage"}
    assert json.dumps(found["ssm:GetParameter"]).endswith(':parameter/tickcast/dev/signals/*"]]}')
    assert "LostSignals" in json.dumps(found["sqs:SendMessage"])


@pytest.mark.parametrize("writer", ["PredictStream", "ScorePredictions"])
def test_who_writes_signals(changed: Synthesised, writer: str) -> None:
    assert ("s3:PutObject", "signals/*") in in_the_lake(changed, writer)


def test_only_who_has_a_rule_may_write(tmp_path: Path) -> None:
    signals = {
        "destinations": [{"name": "desk"}],
        "rules": [{"name": "drifts", "when": "drift", "to": "desk"}],
    }
    only_drift = synthesise("local", tmp_path, parse({"name": "local", "signals": signals}))
    assert ("s3:PutObject", "signals/*") in in_the_lake(only_drift, "ScorePredictions")
    assert ("s3:PutObject", "signals/*") not in in_the_lake(only_drift, "PredictStream")


def test_the_bucket_s_events_and_alarms_invoke_it(changed: Synthesised) -> None:
    bucket = changed.one("AWS::S3::Bucket")
    assert bucket["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    found = rules(changed)
    written = found.pop("A signal was written to the lake")["EventPattern"]
    assert written["detail"]["object"] == {"key": [{"prefix": "signals/"}]}
    prefix = "tickcast-dev-app-MonitoringAlarms"
    assert {
        description: [each["prefix"] for each in rule["EventPattern"]["detail"]["alarmName"]]
        for description, rule in found.items()
    } == {
        "An alarm is raised or over: raised": [f"{prefix}NoPredictions", f"{prefix}NoModel"],
        "An alarm is raised or over: any-alarm": [prefix],
    }
    for rule in rules(changed).values():
        [target] = rule["Targets"]
        assert "LostSignals" in json.dumps(target["DeadLetterConfig"])


def test_a_failed_event_is_repeated_and_kept(changed: Synthesised) -> None:
    [properties] = [
        properties
        for _, properties in changed.resources("AWS::Lambda::EventInvokeConfig")
        if "SendSignals" in json.dumps(properties["FunctionName"])
    ]
    assert properties["MaximumRetryAttempts"] == 2
    assert "LostSignals" in json.dumps(properties["DestinationConfig"])
    [alarm] = [
        properties
        for logical_id, properties in changed.resources("AWS::CloudWatch::Alarm")
        if "SignalsLost" in logical_id
    ]
    assert "LostSignals" in json.dumps(alarm["Dimensions"])


def test_a_rule_names_alarms_that_there_are(tmp_path: Path) -> None:
    rule = {"name": "raised", "when": "alarm", "to": "desk", "alarms": ["NoPrediction"]}
    signals = {"destinations": [{"name": "desk"}], "rules": [rule]}
    with pytest.raises(ConfigError, match="rule raised: there is no alarm NoPrediction; there are .*NoModel"):
        synthesise("dev", tmp_path, parse(CHANGED | {"signals": signals}))


def test_an_account_would_take_it(tmp_path: Path) -> None:
    """Dev with signals of every kind: a fresh account's quotas, the linter, cdk-nag, our rules."""
    values = msgspec.to_builtins(load("dev")) | {"signals": CHANGED["signals"]}
    with_signals = synthesise("dev", tmp_path, parse(values))
    templates = templates_of(with_signals)
    found = [
        *linter.findings(templates),
        *security.findings(with_signals),
        *by_rules("dev", templates),
    ]
    assert found == []

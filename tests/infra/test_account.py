"""What a real account would refuse, slow down or charge for, and no linter or emulator says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cdk.config import API_EXECUTIONS, ZONES_WITHOUT_FARGATE, load
from operations.rehearsal.synthesis import Synthesised
from tests.fixtures.paths import ROOT
from tests.fixtures.synthesis import CHANGED

# Of a security group and its rules (EC2 API Reference, CreateSecurityGroup, AuthorizeSecurityGroupIngress).
EC2_DESCRIPTION = re.compile(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}")


def ids_in(value: Any) -> set[str]:
    """The logical ids that a value of a template refers to."""
    match value:
        case {"Ref": name} | {"Fn::GetAtt": [name, _]}:
            return {name}
        case dict():
            return set().union(*map(ids_in, value.values()))
        case list():
            return set().union(*map(ids_in, value))
    return set()


def test_ec2_accepts_the_descriptions_of_security_groups_and_rules(on_aws: Synthesised) -> None:
    given = [properties for _, properties in on_aws.resources("AWS::EC2::SecurityGroup")]
    descriptions = [group["GroupDescription"] for group in given]
    rules = [
        rule
        for group in given
        for way in ("Egress", "Ingress")
        for rule in group.get(f"SecurityGroup{way}", ())
    ]
    for way in ("Egress", "Ingress"):
        rules += [rule for _, rule in on_aws.resources(f"AWS::EC2::SecurityGroup{way}")]
    descriptions += [rule["Description"] for rule in rules if "Description" in rule]
    assert len(descriptions) > 20
    for description in descriptions:
        assert EC2_DESCRIPTION.fullmatch(description), description


def test_what_starts_with_a_role_waits_for_all_its_policies(on_aws: Synthesised) -> None:
    """Without that a first start may come before the rights for it: a service would be rolled back."""
    resources = on_aws.templates["app"]["Resources"]
    policies: dict[str, set[str]] = {}
    for name, resource in resources.items():
        if resource["Type"] == "AWS::IAM::Policy":
            for role in ids_in(resource["Properties"]["Roles"]):
                policies.setdefault(role, set()).add(name)

    def all_before(name: str) -> set[str]:
        resource = resources[name]
        named = ids_in(resource.get("Properties", {})) & resources.keys()
        direct: set[str] = {*resource.get("DependsOn", ()), *named}
        return direct | {each for before in direct - {name} for each in all_before(before)}

    checked = set()
    for name, resource in resources.items():
        starts = resource["Type"]
        roles = ids_in(resource.get("Properties", {})) & policies.keys()
        if starts == "AWS::ECS::Service":
            roles = ids_in(resources[resource["Properties"]["TaskDefinition"]["Ref"]]) & policies.keys()
            assert len(roles) == 2  # the task's, and that with which ECS starts it
        elif starts == "AWS::Lambda::EventSourceMapping":
            roles = ids_in(resources[resource["Properties"]["FunctionName"]["Ref"]]) & policies.keys()
        elif starts not in ("AWS::Lambda::Function", "AWS::StepFunctions::StateMachine", "AWS::Events::Rule"):
            continue
        for role in roles:
            assert policies[role] <= all_before(name), f"{name} does not wait for {policies[role]}"
            checked.add(starts)
    assert len(checked) == 5


def test_subnets_are_in_zones_that_have_fargate(on_aws: Synthesised, changed: Synthesised) -> None:
    zones: dict[str, set[str]] = {}
    for logical_id, subnet in on_aws.resources("AWS::EC2::Subnet"):
        assert "AvailabilityZone" not in subnet, logical_id  # names differ by account, and exclude the id
        zones.setdefault("public" if "public" in logical_id else "private", set()).add(
            subnet["AvailabilityZoneId"]
        )
    assert zones["public"] == zones["private"] and len(zones["public"]) == 2
    assert not zones["public"] & ZONES_WITHOUT_FARGATE
    # Where no zones are configured, the first two of the account.
    for _, subnet in changed.resources("AWS::EC2::Subnet"):
        assert "AvailabilityZoneId" not in subnet and "Fn::GetAZs" in json.dumps(subnet["AvailabilityZone"])


def background(synthesised: Synthesised) -> int:
    """How many functions a template lets run at once, without any caller of the API."""
    shards = synthesised.one("AWS::Kinesis::Stream")["ShardCount"]
    batches = sum(
        shards * mapping.get("ParallelizationFactor", 1)
        for _, mapping in synthesised.resources("AWS::Lambda::EventSourceMapping")
    )
    machines = dict(synthesised.resources("AWS::StepFunctions::StateMachine"))
    functions = {name for name, _ in synthesised.resources("AWS::Lambda::Function")}
    scheduled = 0
    for _, rule in synthesised.resources("AWS::Events::Rule"):
        for target in rule["Targets"] if "ScheduleExpression" in rule else ():
            (started,) = ids_in(target["Arn"])
            if started in machines:
                scheduled += branches(json.loads(definition(machines[started]["DefinitionString"])))
            elif started in functions:
                scheduled += 1
    return int(batches + scheduled)


def definition(value: Any) -> str:
    """The text of a state machine's definition, with X for what a template refers to."""
    if isinstance(value, str):
        return value
    return "".join(part if isinstance(part, str) else "X" for part in value["Fn::Join"][1])


def branches(machine: dict[str, Any]) -> int:
    """How many tasks of a state machine run at once at most."""
    most = 1
    for state in machine["States"].values():
        inner = 0
        if state["Type"] == "Map":
            assert state["MaxConcurrency"] > 0, "a map without a limit"
            inner = state["MaxConcurrency"] * branches(state["ItemProcessor"])
        elif state["Type"] == "Parallel":
            inner = sum(map(branches, state["Branches"]))
        most = max(most, inner)
    return most


def test_the_background_leaves_the_api_executions_in_a_fresh_account(on_aws: Synthesised) -> None:
    environment = load(on_aws.name)
    assert environment.aws is not None
    assert background(on_aws) == environment.background_executions
    assert background(on_aws) + API_EXECUTIONS <= environment.aws.concurrent_executions
    assert not [
        name
        for name, each in on_aws.resources("AWS::Lambda::Function")
        if "ReservedConcurrentExecutions" in each
    ]


def test_executions_are_reserved_by_configuration(changed: Synthesised) -> None:
    assert background(changed) == 3 * 2 + 3 + 4
    reserved = {
        name: each["ReservedConcurrentExecutions"]
        for name, each in changed.resources("AWS::Lambda::Function")
        if "ReservedConcurrentExecutions" in each
    }
    assert [(name[:16], count) for name, count in reserved.items()] == [("ServePredictions", 5)]


def test_every_asynchronous_invocation_is_bounded(synthesised: Synthesised) -> None:
    """Lambda queues what a rule invokes: by default it repeats twice, and retries for six hours what it
    could not start."""
    functions = {name for name, _ in synthesised.resources("AWS::Lambda::Function")}
    rules = [rule for _, rule in synthesised.resources("AWS::Events::Rule")]
    invoked = {
        name: rule for rule in rules for each in rule["Targets"] for name in ids_in(each["Arn"]) & functions
    }
    bounded = {
        name: each
        for _, each in synthesised.resources("AWS::Lambda::EventInvokeConfig")
        for name in ids_in(each["FunctionName"])
    }
    assert invoked and invoked.keys() == bounded.keys()
    for name, rule in invoked.items():
        minutes = re.fullmatch(r"rate\((\d+) minutes?\)", rule["ScheduleExpression"])
        assert minutes and bounded[name]["MaximumEventAgeInSeconds"] == 60 * int(minutes[1])
        assert bounded[name]["MaximumRetryAttempts"] == 0


def test_nothing_else_in_the_repository_invokes_asynchronously() -> None:
    for file in (*ROOT.glob("lambdas/**/*.py"), *ROOT.glob("layers/core/**/*.py")):
        assert not re.search("""InvocationType=["']Event""", file.read_text("utf-8")), file


def test_no_level_of_the_log_drops_metrics(synthesised: Synthesised, changed: Synthesised) -> None:
    """Lambda takes a line without a level for INFO, and metrics (EMF) are such lines."""
    assert CHANGED["log_level"] == "ERROR"
    for each in (synthesised, changed):
        for name, function in each.resources("AWS::Lambda::Function"):
            assert function["LoggingConfig"]["ApplicationLogLevel"] in ("DEBUG", "INFO"), name
    levels = {
        each["Environment"]["Variables"].get("LOG_LEVEL")
        for _, each in changed.resources("AWS::Lambda::Function")
    }
    assert levels == {"ERROR"}


def test_tracing_and_insights_are_off_unless_configured(on_aws: Synthesised, changed: Synthesised) -> None:
    for synthesised, is_on in ((on_aws, False), (changed, True)):
        for kind in ("AWS::Lambda::Function", "AWS::StepFunctions::StateMachine"):
            for name, each in synthesised.resources(kind):
                mode = each.get("TracingConfig", each.get("TracingConfiguration", {}))
                assert (
                    mode in ({"Mode": "Active"}, {"Enabled": True})
                    if is_on
                    else mode in ({}, {"Enabled": False})
                ), name
        assert synthesised.one("AWS::ApiGateway::Stage")["TracingEnabled"] is is_on
        [setting] = synthesised.one("AWS::ECS::Cluster")["ClusterSettings"]
        assert setting == {"Name": "containerInsights", "Value": "enabled" if is_on else "disabled"}
        assert ("xray:" in json.dumps(synthesised.templates["app"])) is is_on


def test_no_metric_is_made_for_each_method(synthesised: Synthesised) -> None:
    for setting in synthesised.one("AWS::ApiGateway::Stage")["MethodSettings"]:
        assert setting["MetricsEnabled"] is False


def test_nobody_watches_a_metric_of_container_insights_that_is_off(on_aws: Synthesised) -> None:
    """An alarm on a missing figure would always be on, or never."""
    assert "ContainerInsights" not in json.dumps(on_aws.templates["app"]).replace("containerInsights", "")


def test_the_stream_keeps_a_day_and_no_more(on_aws: Synthesised) -> None:
    """The first day is in the price of a shard, the second costs more than the shard."""
    assert on_aws.one("AWS::Kinesis::Stream")["RetentionPeriodHours"] == 24


def test_bronze_moves_to_a_cheaper_class_where_it_stays(
    environments: dict[str, Synthesised], changed: Synthesised
) -> None:
    for synthesised, days in ((environments["prod"], 30), (changed, 30), (environments["dev"], None)):
        bucket = synthesised.one("AWS::S3::Bucket")
        moves = [
            (rule["Prefix"], each["StorageClass"], each["TransitionInDays"])
            for rule in bucket["LifecycleConfiguration"]["Rules"]
            for each in rule.get("Transitions", ())
        ]
        # The class that is read in milliseconds: the others have to be restored first.
        assert moves == ([("bronze/", "GLACIER_IR", days)] if days else [])


def test_images_are_built_for_the_machines_that_run_them(
    environments: dict[str, Synthesised], changed: Synthesised
) -> None:
    for synthesised, machine, platform in (
        (environments["dev"], "ARM64", "linux/arm64"),
        (environments["prod"], "ARM64", "linux/arm64"),
        (changed, "X86_64", "linux/amd64"),
    ):
        tasks = [task for _, task in synthesised.resources("AWS::ECS::TaskDefinition")]
        assert [task["RuntimePlatform"]["CpuArchitecture"] for task in tasks] == [machine] * 2
        assets = json.loads(
            (Path(synthesised.assembly.directory) / f"tickcast-{synthesised.name}-app.assets.json").read_text(
                "utf-8"
            )
        )
        built = [image["source"]["platform"] for image in assets["dockerImages"].values()]
        assert built == [platform] * 2


def test_the_service_goes_before_its_capacity_providers(environments: dict[str, Synthesised]) -> None:
    """ECS removes no provider that a service uses; CloudFormation deletes in the order of dependencies."""
    resources = environments["dev"].templates["app"]["Resources"]
    [providers] = [
        logical_id
        for logical_id, resource in resources.items()
        if resource["Type"] == "AWS::ECS::ClusterCapacityProviderAssociations"
    ]
    [service] = [each for each in resources.values() if each["Type"] == "AWS::ECS::Service"]
    assert providers in service["DependsOn"]

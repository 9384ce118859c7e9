"""Properties of every template. No test names a generated logical id."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import aws_cdk
import msgspec
import pytest
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_lambda as lambda_

from benchmarks.scale import ARCHIVE_RECORDS, PREDICT_RECORDS
from cdk.components.lake import Lake
from cdk.components.layers import RUNTIME
from cdk.components.stream_consumer import StreamConsumer
from cdk.config import Environment, IngestConfig, parse
from cdk.variables import variables
from ingest_ecs.settings import IngestSettings
from layers.catalog import OF_FUNCTION
from operations.rehearsal.synthesis import Synthesised
from tests.fixtures.paths import ROOT
from tests.fixtures.settings import VARIABLES
from tickcast.adapters import settings
from tickcast.adapters.settings import Settings
from tickcast.adapters.variables import names, read

HANDLERS = tuple(OF_FUNCTION)
WITH_SIGNALS = "send_signals"  # only deployed where there are some: tests/infra/test_signals.py
DEPLOYED = tuple(name for name in HANDLERS if name != WITH_SIGNALS)

USES_STORE = (
    *("predict_stream", "serve_predictions", "score_predictions", "audit_predictions"),
    *("plan_backfill", "mark_repaired", "report_condition"),
)
USES_DATABASE = (
    *("list_stale_hours", "load_history", "mark_repaired", "score_predictions", "audit_predictions"),
    *("train_model", "evaluate_model", "report_condition"),
)

# Types and prefixes for which MiniStack refuses the whole stack.
REFUSED_LOCALLY = (
    "AWS::EC2::",
    "AWS::ECS::",
    "AWS::RDS::",
    "AWS::ElastiCache::",
    "AWS::ApplicationAutoScaling::",
    "AWS::Kinesis::StreamConsumer",
    "AWS::StepFunctions::StateMachineAlias",
    "AWS::StepFunctions::StateMachineVersion",
    "AWS::CloudWatch::CompositeAlarm",
    "AWS::SecretsManager::RotationSchedule",
    "AWS::Logs::QueryDefinition",
)


def container(synthesised: Synthesised, name: str) -> dict[str, Any]:
    """The only container of that name in the tasks."""
    tasks = [task["ContainerDefinitions"] for _, task in synthesised.resources("AWS::ECS::TaskDefinition")]
    [found] = [one for containers in tasks for one in containers if one["Name"] == name]
    return dict(found)


def functions(synthesised: Synthesised) -> dict[str, dict[str, Any]]:
    """The properties of the functions, by the name of their handler."""
    return {
        properties["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]: properties
        for _, properties in synthesised.resources("AWS::Lambda::Function")
    }


def test_synthesis_needs_no_account(synthesised: Synthesised) -> None:
    manifest = json.loads((Path(synthesised.assembly.directory) / "manifest.json").read_text("utf-8"))
    assert "missing" not in manifest  # what a look-up in the account would leave


def test_stacks(environments: dict[str, Synthesised]) -> None:
    assert set(environments["local"].templates) == {"data", "app"}
    assert set(environments["dev"].templates) == {"network", "data", "app"}
    assert set(environments["prod"].templates) == {"network", "data", "app"}


def test_local_has_nothing_the_emulator_refuses(environments: dict[str, Synthesised]) -> None:
    for template in environments["local"].templates.values():
        for logical_id, resource in template["Resources"].items():
            assert not resource["Type"].startswith(REFUSED_LOCALLY), logical_id


def test_outputs(synthesised: Synthesised) -> None:
    named = {"ApiUrl", "ApiKeyId", "StreamName", "BucketName", "TrainModelFunction", "PredictStreamFunction"}
    named |= {"PlanBackfillFunction", "LoadHistoryFunction", "BackfillMachine", "ScoreMachine"}
    assert named <= set(synthesised.templates["app"]["Outputs"])


def test_functions_are_the_handlers_of_the_repository(synthesised: Synthesised) -> None:
    assert set(functions(synthesised)) == set(DEPLOYED)
    assert {path.parent.name for path in ROOT.glob("lambdas/*/handler.py")} == set(HANDLERS)


@pytest.mark.parametrize("handler", DEPLOYED)
def test_function(synthesised: Synthesised, handler: str) -> None:
    function = functions(synthesised)[handler]
    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["x86_64"])
    assert function["Handler"] == "handler.handler"
    logging = function["LoggingConfig"]
    assert (logging["LogFormat"], logging["SystemLogLevel"]) == ("JSON", "WARN")

    given = function["Environment"]["Variables"]
    # Lambda sets the region by itself, and no deployment may.
    assert set(given) == set(names(settings_of(handler))) - {"AWS_REGION"}
    assert ("REDIS_HOST" in given) == (handler in USES_STORE)
    assert ("DATABASE_HOST" in given) == (handler in USES_DATABASE)
    assert given.get("ENVIRONMENT", synthesised.name) == synthesised.name

    # Only who needs a store is in the VPC, from which nothing but the stores and S3 can be reached.
    is_inside = handler in {*USES_STORE, *USES_DATABASE} and synthesised.name != "local"
    assert ("VpcConfig" in function) == is_inside


def test_every_process_can_start_with_the_variables_of_its_template(synthesised: Synthesised) -> None:
    for handler, function in functions(synthesised).items():
        variables = function["Environment"]["Variables"] | {"AWS_REGION": "ap-northeast-1"}
        read(settings_of(handler), {name: _known(name, value) for name, value in variables.items()})


def test_ingest_can_start_with_the_variables_of_its_template(on_aws: Synthesised) -> None:
    variables = {entry["Name"]: entry["Value"] for entry in container(on_aws, "Ingest")["Environment"]}
    assert set(variables) == set(names(IngestSettings)) - {"BINANCE_API_KEY"} | {"AWS_DEFAULT_REGION"}
    variables["BINANCE_API_KEY"] = "secret-key"
    read(IngestSettings, {name: _known(name, value) for name, value in variables.items()})


# Days are kept for as long as a training reads: each limit of the two is tried without the other.
UNLIMITED: dict[str, Any] = {
    "tables": {"history": {"train_days": None}},
    "history": {"tables": {"keep_days": None}},
}


@pytest.mark.parametrize("end", ["ge", "le"])
def test_processes_accept_the_limits_of_the_configuration(end: str) -> None:
    """Each number that the configuration bounds, at its lower or at its upper end."""
    checked = 0
    for group in ("prediction", "audit", "drift", "tables", "history", "ingest"):
        kind = IngestConfig if group == "ingest" else field_type(Environment, group)
        for field in msgspec.structs.fields(kind):
            limit = limit_of(field.type, end)
            if limit is not None:
                values = {field.name: limit}
                if group == "drift":  # the low mark must not be above the high one
                    values = {"stability_high": 100} | values
                config = {"aws": {"ingest": values}} if group == "ingest" else {group: values}
                config |= UNLIMITED.get(group, {})
                environment = variables(parse({"name": "dev", **config}), bucket="b", stream="s")
                for handler in HANDLERS:
                    read(settings_of(handler), VARIABLES | environment)
                read(IngestSettings, VARIABLES | environment)
                checked += 1
    assert checked >= 15


def settings_of(handler: str) -> type[Settings]:
    kind: type[Settings] = getattr(settings, f"{handler.title().replace('_', '')}Settings")
    return kind


def field_type(kind: type[msgspec.Struct], name: str) -> type[msgspec.Struct]:
    [found] = [field.type for field in msgspec.structs.fields(kind) if field.name == name]
    return found  # type: ignore[no-any-return]


def limit_of(kind: Any, end: str) -> float | None:
    """A limit in the annotation of `kind`, or of the alternative to None."""
    for part in (kind, *get_args(kind)):
        for note in getattr(part, "__metadata__", ()):
            if isinstance(note, msgspec.Meta) and getattr(note, end) is not None:
                return float(getattr(note, end)) if float in get_args(part) else int(getattr(note, end))
    return None


def _known(name: str, value: Any) -> str:
    """What a deployment would put there."""
    return value if isinstance(value, str) else "5432" if name.endswith("_PORT") else "deployed"


def test_functions_get_the_address_and_user_of_the_hot_store(environments: dict[str, Synthesised]) -> None:
    local = functions(environments["local"])["predict_stream"]["Environment"]["Variables"]
    assert (local["REDIS_HOST"], local["REDIS_PORT"], local["REDIS_TLS"]) == ("127.0.0.1", "6379", "0")
    assert (local["REDIS_IAM_USER"], local["REDIS_CACHE_NAME"]) == ("", "")
    prod = functions(environments["prod"])
    assert prod["predict_stream"]["Environment"]["Variables"]["REDIS_IAM_USER"] == "tickcast-prod-writer"
    assert prod["serve_predictions"]["Environment"]["Variables"]["REDIS_IAM_USER"] == "tickcast-prod-reader"
    assert prod["predict_stream"]["Environment"]["Variables"]["REDIS_TLS"] == "1"


def test_no_record_blocks_a_shard_or_vanishes(synthesised: Synthesised) -> None:
    mappings = [properties for _, properties in synthesised.resources("AWS::Lambda::EventSourceMapping")]
    assert len(mappings) == 2
    for mapping in mappings:
        assert mapping["BisectBatchOnFunctionError"] is True
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["DestinationConfig"]["OnFailure"]["Destination"]
    hot, archive = sorted(mappings, key=lambda m: m["MaximumBatchingWindowInSeconds"])
    assert (hot["MaximumBatchingWindowInSeconds"], hot["MaximumRecordAgeInSeconds"]) == (0, 60)
    assert (hot["BatchSize"], hot["MaximumRetryAttempts"]) == (PREDICT_RECORDS, -1)
    # -1: as long as the stream keeps the record.
    assert (archive["MaximumBatchingWindowInSeconds"], archive["MaximumRecordAgeInSeconds"]) == (60, -1)
    # With 2000, a shard of a hundred symbols wrote each of them every three seconds.
    assert (archive["BatchSize"], archive["MaximumRetryAttempts"]) == (ARCHIVE_RECORDS, -1)
    assert archive["StartingPosition"] == "TRIM_HORIZON"


def test_the_hot_function_is_a_consumer_of_its_own_where_that_is_configured(
    environments: dict[str, Synthesised],
) -> None:
    for name, is_fanned_out in (("local", False), ("dev", False), ("prod", True)):
        synthesised = environments[name]
        consumers = dict(synthesised.resources("AWS::Kinesis::StreamConsumer"))
        assert len(consumers) == is_fanned_out
        mappings = [properties for _, properties in synthesised.resources("AWS::Lambda::EventSourceMapping")]
        hot, archive = sorted(mappings, key=lambda m: m["MaximumBatchingWindowInSeconds"])
        assert hot["StartingPosition"] == ("LATEST" if is_fanned_out else "TRIM_HORIZON")
        if is_fanned_out:
            (consumer,) = consumers
            assert hot["EventSourceArn"] == {"Fn::GetAtt": [consumer, "ConsumerARN"]}
        else:
            assert hot["EventSourceArn"] == archive["EventSourceArn"]
        assert "ConsumerARN" not in json.dumps(archive)


@pytest.mark.parametrize(("parallelism", "factor"), [(1, None), (4, 4)])
def test_symbols_of_a_shard_are_processed_at_once_where_that_is_configured(
    parallelism: int, factor: int | None
) -> None:
    stack = aws_cdk.Stack()
    function = lambda_.Function(
        stack,
        "Function",
        runtime=RUNTIME,
        handler="index.handler",
        code=lambda_.Code.from_inline("def handler(event, context): ..."),
    )
    consumer = StreamConsumer(
        stack,
        "Feed",
        function=function,
        stream=kinesis.Stream(stack, "Ticks"),
        lake=Lake(stack, "Lake", environment=Environment(name="dev")),
        batch_size=500,
        parallelism=parallelism,
    )
    assert consumer.parallelization_factor == factor


def test_every_log_has_a_retention(synthesised: Synthesised) -> None:
    groups = dict(synthesised.resources("AWS::Logs::LogGroup"))
    assert len(groups) >= len(HANDLERS)
    for logical_id, properties in groups.items():
        assert properties.get("RetentionInDays"), logical_id


def test_no_secret_in_any_environment(synthesised: Synthesised) -> None:
    given = [function["Environment"]["Variables"] for function in functions(synthesised).values()]
    for _, task in synthesised.resources("AWS::ECS::TaskDefinition"):
        for container in task["ContainerDefinitions"]:
            given.append({entry["Name"]: entry["Value"] for entry in container["Environment"]})
            secrets = {"Ingest": ["BINANCE_API_KEY"], "Migrate": ["PGUSER", "PGPASSWORD"]}
            assert [secret["Name"] for secret in container["Secrets"]] == secrets[container["Name"]]
    for environment in given:
        for name, value in environment.items():
            assert not re.search("KEY|SECRET|PASSWORD|TOKEN", name), name
            assert "resolve:secretsmanager" not in json.dumps(value), name
    text = json.dumps(synthesised.templates)
    for made_or_given in ("MasterUserPassword", "GenerateSecretString", "SecretString"):
        assert f'"{made_or_given}":' not in text


def test_the_gateways_own_errors_are_problems(synthesised: Synthesised) -> None:
    seen = {}
    for _, properties in synthesised.resources("AWS::ApiGateway::GatewayResponse"):
        parameters = properties["ResponseParameters"]
        assert parameters["gatewayresponse.header.Content-Type"] == "'application/problem+json'"
        assert parameters["gatewayresponse.header.Access-Control-Allow-Origin"] == "'*'"
        body = properties["ResponseTemplates"]["application/json"]
        problem = json.loads(body.replace("$context.error.messageString", '"said"'))
        assert {"type", "title", "detail", "request_id"} <= set(problem)
        status = properties.get("StatusCode")
        assert problem.get("status") == (int(status) if status else None)
        seen[properties["ResponseType"]] = status
    assert seen["INVALID_API_KEY"] == "403"
    assert seen["MISSING_AUTHENTICATION_TOKEN"] == "404"  # what the gateway calls an unknown path
    assert seen["THROTTLED"] == seen["QUOTA_EXCEEDED"] == "429"
    assert {"DEFAULT_4XX", "DEFAULT_5XX", "INTEGRATION_TIMEOUT", "INTEGRATION_FAILURE"} <= set(seen)


def test_bucket_and_stream(on_aws: Synthesised) -> None:
    bucket = on_aws.one("AWS::S3::Bucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["BucketEncryption"]
    policy = json.dumps(on_aws.one("AWS::S3::BucketPolicy"))
    assert "aws:SecureTransport" in policy and "s3:TlsVersion" in policy
    rules = bucket["LifecycleConfiguration"]["Rules"]
    expiring = {rule["Prefix"] for rule in rules if "ExpirationInDays" in rule}
    history = set() if on_aws.name == "prod" else {"bronze/"}
    assert expiring == {"receipts/", "receipts_between/", "quarantine/", "aws/lambda/"} | history
    stream = on_aws.one("AWS::Kinesis::Stream")
    assert stream["StreamEncryption"]["EncryptionType"] == "KMS"
    assert stream["RetentionPeriodHours"] >= 24


def test_network_costs_nothing_by_existing(on_aws: Synthesised) -> None:
    for kind in ("AWS::EC2::NatGateway", "AWS::EC2::EIP"):
        assert not list(on_aws.resources(kind))
    assert on_aws.one("AWS::EC2::VPCEndpoint")["VpcEndpointType"] == "Gateway"
    for _, subnet in on_aws.resources("AWS::EC2::Subnet"):
        assert subnet["MapPublicIpOnLaunch"] is False


def test_nothing_comes_in_from_outside(on_aws: Synthesised) -> None:
    for logical_id, group in on_aws.resources("AWS::EC2::SecurityGroup"):
        assert "SecurityGroupIngress" not in group, logical_id
    entered = [rule for _, rule in on_aws.resources("AWS::EC2::SecurityGroupIngress")]
    assert all(rule["SourceSecurityGroupId"] for rule in entered)
    # The cache and the database, by those granted; the database also by the task that migrates.
    cache = [rule for rule in entered if rule["FromPort"] == 6379]
    database = [rule for rule in entered if "DatabaseInstance" in json.dumps(rule["FromPort"])]
    assert (len(cache), len(database)) == (len(USES_STORE), len(USES_DATABASE) + 1)
    assert len(entered) == len(cache) + len(database)


def test_cache(on_aws: Synthesised) -> None:
    group = on_aws.one("AWS::ElastiCache::ReplicationGroup")
    assert group["Engine"] == "valkey" and float(group["EngineVersion"]) >= 7.2
    assert group["TransitEncryptionEnabled"] is True and group["TransitEncryptionMode"] == "required"
    assert group["AtRestEncryptionEnabled"] is True
    assert group["AutomaticFailoverEnabled"] is (on_aws.name == "prod")
    users = [user for _, user in on_aws.resources("AWS::ElastiCache::User")]
    assert {user["AuthenticationMode"]["Type"] for user in users} == {"iam"}
    assert all(user["UserId"] == user["UserName"] for user in users)
    [reader] = [user for user in users if user["UserId"].endswith("-reader")]
    assert "+@write" not in reader["AccessString"] and "+@all" not in reader["AccessString"]


def test_a_full_cache_refuses_and_evicts_nothing(on_aws: Synthesised) -> None:
    group = on_aws.one("AWS::ElastiCache::ReplicationGroup")
    [(logical_id, parameters)] = on_aws.resources("AWS::ElastiCache::ParameterGroup")
    assert group["CacheParameterGroupName"] == {"Ref": logical_id}
    assert parameters["CacheParameterGroupFamily"] == f"valkey{group['EngineVersion'].partition('.')[0]}"
    assert parameters["Properties"]["maxmemory-policy"] == "noeviction"
    assert parameters["Properties"]["reserved-memory-percent"] == "50"


def scheduled(synthesised: Synthesised) -> list[dict[str, Any]]:
    """The rules with a schedule; others wait for an event."""
    return [rule for _, rule in synthesised.resources("AWS::Events::Rule") if "ScheduleExpression" in rule]


def test_scheduled_work_is_retried_by_one_mechanism(synthesised: Synthesised) -> None:
    """A rule repeats the start, Lambda an asynchronous invocation, a state machine its own steps."""
    targets = [target for rule in scheduled(synthesised) for target in rule["Targets"]]
    functions_ = {logical_id for logical_id, _ in synthesised.resources("AWS::Lambda::Function")}
    invoked = [target for target in targets if _id_in(target["Arn"]) in functions_]
    lambdas_own = {
        _id_in(properties["FunctionName"]): properties["MaximumRetryAttempts"]
        for _, properties in synthesised.resources("AWS::Lambda::EventInvokeConfig")
    }
    assert lambdas_own == {_id_in(target["Arn"]): 0 for target in invoked} != {}
    attempts = {_id_in(target["Arn"]): target["RetryPolicy"]["MaximumRetryAttempts"] for target in targets}
    assert {attempts.pop(_id_in(target["Arn"])) for target in invoked} == {0}
    assert sorted(attempts.values()) == [0, 20]  # scores: the next minute; history: for an hour


def _id_in(reference: dict[str, Any]) -> str:
    """The logical id that a `Ref` or a `Fn::GetAtt` is of."""
    [names] = reference.values()
    return str(names if isinstance(names, str) else names[0])


def test_database(on_aws: Synthesised) -> None:
    instance = on_aws.one("AWS::RDS::DBInstance")
    assert instance["EnableIAMDatabaseAuthentication"] is True
    assert instance["StorageEncrypted"] is True and instance["PubliclyAccessible"] is False
    assert instance["ManageMasterUserPassword"] is True
    assert instance["EnablePerformanceInsights"] is True
    assert instance["DeletionProtection"] is (on_aws.name == "prod")
    assert on_aws.one("AWS::RDS::DBParameterGroup")["Parameters"]["rds.force_ssl"] == "1"


def test_the_audit_is_scheduled(synthesised: Synthesised) -> None:
    every = "rate(15 minutes)" if synthesised.name == "dev" else "rate(5 minutes)"
    [rule] = [r for r in scheduled(synthesised) if "AuditPredictions" in json.dumps(r["Targets"])]
    assert (rule["ScheduleExpression"], rule["State"]) == (every, "ENABLED")


def test_predictions_are_scored_every_minute(synthesised: Synthesised) -> None:
    [rule] = [r for r in scheduled(synthesised) if r["ScheduleExpression"] == "rate(1 minute)"]
    [target] = rule["Targets"]
    machines = dict(synthesised.resources("AWS::StepFunctions::StateMachine"))
    assert machines[target["Arn"]["Ref"]]["StateMachineType"] == "EXPRESS"
    # It may start the workflow of history, and nothing else.
    started = set()
    for logical_id, properties in synthesised.resources("AWS::IAM::Policy"):
        for statement in properties["PolicyDocument"]["Statement"]:
            if logical_id.startswith("ScoreRole") and statement["Action"] == "states:StartExecution":
                started.add(json.dumps(statement["Resource"]))
    [resource] = started
    assert f":stateMachine:tickcast-{synthesised.name}-backfill" in resource


def test_history_and_training_are_scheduled(on_aws: Synthesised) -> None:
    [rule] = [r for r in scheduled(on_aws) if r["ScheduleExpression"].startswith("cron(17 3")]
    [target] = rule["Targets"]
    assert json.loads(target["Input"]) == {"days": 2, "repair": True, "train": {"days": 7}}


@pytest.mark.parametrize("name", ["Ingest", "Migrate"])
def test_a_task_has_no_rights_on_its_machine(on_aws: Synthesised, name: str) -> None:
    task = container(on_aws, name)
    assert task["ReadonlyRootFilesystem"] is True
    assert task["User"].split(":")[0] not in ("", "0", "root")
    assert task["LinuxParameters"]["Capabilities"]["Drop"] == ["ALL"]


def test_migration_task(on_aws: Synthesised) -> None:
    [address] = container(on_aws, "Migrate")["Environment"]
    assert "sslmode=verify-full&sslrootcert=/app/rds_roots.pem" in json.dumps(address)
    command = json.dumps(on_aws.templates["app"]["Outputs"]["MigrateCommand"]["Value"])
    for words in ("aws ecs run-task", "--task-definition", "assignPublicIp=ENABLED", "publicSubnet"):
        assert words in command


def test_ingest_task(on_aws: Synthesised) -> None:
    task = container(on_aws, "Ingest")
    assert 0 < task["StopTimeout"] <= 120
    assert task["HealthCheck"]["Command"][0] == "CMD"
    assert "AWS_ENDPOINT_URL" not in {entry["Name"] for entry in task["Environment"]}

    service = on_aws.one("AWS::ECS::Service")
    deployment = service["DeploymentConfiguration"]
    assert (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]) == (100, 200)
    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] == "ENABLED"


def test_dockerfile_agrees_with_the_task(on_aws: Synthesised) -> None:
    task = container(on_aws, "Ingest")
    given = {entry["Name"]: entry["Value"] for entry in task["Environment"]}
    dockerfile = (ROOT / "ingest_ecs" / "Dockerfile").read_text("utf-8")
    assert f"USER {task['User']}" in dockerfile
    assert f"HEALTH_PORT={given['HEALTH_PORT']}" in dockerfile
    assert f"127.0.0.1:{given['HEALTH_PORT']}/health" in task["HealthCheck"]["Command"][-1]


def test_prod_is_protected_from_deletion(environments: dict[str, Synthesised]) -> None:
    for name, expected in (("prod", True), ("dev", False), ("local", False)):
        for stack in environments[name].assembly.stacks:
            assert bool(stack.termination_protection) is expected
    for kind, policy in (("AWS::S3::Bucket", "RetainExceptOnCreate"), ("AWS::RDS::DBInstance", "Snapshot")):
        [resource] = [
            resource
            for resource in environments["prod"].templates["data"]["Resources"].values()
            if resource["Type"] == kind
        ]
        assert resource["DeletionPolicy"] == policy

"""For each rule that is not of a table, a template that breaks it and one that does not."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from operations.rehearsal.template import Templates

Resources = dict[str, dict[str, Any]]


class Example(NamedTuple):
    broken: dict[str, Any]
    kept: dict[str, Any]


def of(kind: str, properties: Any = None, **attributes: Any) -> dict[str, Any]:
    """A resource of a template."""
    return {"Type": f"AWS::{kind}", "Properties": properties or {}, **attributes}


def templates(resources: Resources, stack: str = "app", **sections: Any) -> Templates:
    return Templates({stack: {"Resources": resources, **sections}})


def _statement(size: int) -> dict[str, Any]:
    document = {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "x" * size}]}
    return {"PolicyDocument": document, "PolicyName": "p"}


def _alarm(**properties: Any) -> Resources:
    return {"A": of("CloudWatch::Alarm", properties)}


def _metric(number: int) -> dict[str, Any]:
    return {"Id": f"m{number}", "MetricStat": {"Period": 60}, "ReturnData": False}


def _sum(expression: str) -> dict[str, Any]:
    return {"Id": "e", "Expression": expression}


ROLE = of("IAM::Role", {"AssumeRolePolicyDocument": {"Statement": []}})
POLICY = of("IAM::Policy", {**_statement(10), "Roles": [{"Ref": "R"}]})
WITH_ROLE = {"R": ROLE, "P": POLICY}


def _service(**properties: Any) -> Resources:
    task = of("ECS::TaskDefinition", {"Cpu": "1024", "ExecutionRoleArn": {"Ref": "R"}})
    return {"S": of("ECS::Service", {"TaskDefinition": {"Ref": "T"}, **properties}), "T": task, "R": ROLE}


def _network(**properties: Any) -> dict[str, Any]:
    return {"NetworkConfiguration": {"AwsvpcConfiguration": properties}}


def _machine(width: int) -> Resources:
    definition = {
        "States": {"Map": {"Type": "Map", "MaxConcurrency": width, "ItemProcessor": {"States": {}}}}
    }
    return {
        "M": of("StepFunctions::StateMachine", {"DefinitionString": json.dumps(definition)}),
        "E": of("Events::Rule", {"ScheduleExpression": "rate(1 day)", "Targets": [{"Arn": {"Ref": "M"}}]}),
    }


def _invoked(*principals: str) -> Resources:
    permission = {"FunctionName": {"Fn::GetAtt": ["F", "Arn"]}, "Principal": "events.amazonaws.com"}
    return {
        "F": of("Lambda::Function"),
        "E": of("Events::Rule", {"Targets": [{"Arn": {"Fn::GetAtt": ["F", "Arn"]}}]}),
    } | {name: of("Lambda::Permission", permission) for name in principals}


def _notified(*services: str) -> Resources:
    """A topic that an alarm and a rule notify, and a policy that lets in these services."""
    statements = [
        {"Effect": "Allow", "Action": "sns:Publish", "Principal": {"Service": f"{service}.amazonaws.com"}}
        for service in services
    ]
    policy = {"Topics": [{"Ref": "T"}], "PolicyDocument": {"Statement": statements}}
    return {
        "T": of("SNS::Topic"),
        "P": of("SNS::TopicPolicy", policy),
        "A": of("CloudWatch::Alarm", {"AlarmActions": [{"Ref": "T"}]}),
        "E": of("Events::Rule", {"Targets": [{"Arn": {"Ref": "T"}}]}),
    }


def _subnets(first: dict[str, Any], second: dict[str, Any], **more: dict[str, Any]) -> Resources:
    return {
        "A": of("EC2::Subnet", {"VpcId": {"Ref": "V"}, "CidrBlock": "10.0.0.0/24", **first}),
        "B": of("EC2::Subnet", {"VpcId": {"Ref": "V"}, "CidrBlock": "10.0.1.0/24", **second}),
        "V": of("EC2::VPC", {"CidrBlock": "10.0.0.0/16"}),
        **more,
    }


def _zone(index: int) -> dict[str, Any]:
    return {"AvailabilityZone": {"Fn::Select": [index, {"Fn::GetAZs": ""}]}}


def _group(*subnets: str) -> dict[str, Any]:
    return of("RDS::DBSubnetGroup", {"SubnetIds": [{"Ref": name} for name in subnets]})


def _container(**properties: Any) -> Resources:
    return {"T": of("ECS::TaskDefinition", {"ContainerDefinitions": [{"Name": "c", **properties}]})}


def _secret_of_task(action: str) -> Resources:
    statement = {"Effect": "Allow", "Action": action, "Resource": {"Ref": "K"}}
    secrets = [{"Name": "KEY", "ValueFrom": {"Fn::Join": ["", [{"Ref": "K"}, ":value::"]]}}]
    containers = [{"Name": "c", "Secrets": secrets}]
    task = {"ExecutionRoleArn": {"Fn::GetAtt": ["R", "Arn"]}, "ContainerDefinitions": containers}
    policy = {"PolicyDocument": {"Statement": [statement]}, "Roles": [{"Ref": "R"}], "PolicyName": "p"}
    return {
        "K": of("SecretsManager::Secret"),
        "R": ROLE,
        "P": of("IAM::Policy", policy),
        "T": of("ECS::TaskDefinition", task),
    }


def _permissions(number: int) -> Resources:
    permission = of("Lambda::Permission", {"FunctionName": "f", "Principal": "p" * 100})
    return {f"P{index}": permission for index in range(number)}


def _dashboard(widgets: int, metrics: int = 1) -> Resources:
    widget = {"properties": {"metrics": [["AWS/Lambda", "Errors"]] * metrics}}
    return {"D": of("CloudWatch::Dashboard", {"DashboardBody": json.dumps({"widgets": [widget] * widgets})})}


def _variables(**variables: str) -> Resources:
    return {"F": of("Lambda::Function", {"Environment": {"Variables": variables}})}


def _tagged(key: str, value: str = "v") -> Resources:
    return {"T": of("SNS::Topic", {"Tags": [{"Key": key, "Value": value}]})}


def _stage(**attributes: Any) -> Resources:
    settings = {"MethodSettings": [{"LoggingLevel": "INFO"}]}
    return {"S": of("ApiGateway::Stage", settings, **attributes), "A": of("ApiGateway::Account")}


def _route(**attributes: Any) -> Resources:
    route = of("EC2::Route", {"GatewayId": {"Ref": "G"}}, **attributes)
    return {"R": route, "G": of("EC2::InternetGateway"), "At": of("EC2::VPCGatewayAttachment")}


def _egress(**attributes: Any) -> Resources:
    service = of("ECS::Service", _network(SecurityGroups=[{"Fn::GetAtt": ["G", "GroupId"]}]), **attributes)
    out = of("EC2::SecurityGroupEgress", {"GroupId": {"Fn::GetAtt": ["G", "GroupId"]}})
    return {"S": service, "G": of("EC2::SecurityGroup"), "Out": out}


def _rules_of_group(number: int) -> Resources:
    rules = {f"I{n}": of("EC2::SecurityGroupIngress", {"GroupId": {"Ref": "G"}}) for n in range(number)}
    return {"G": of("EC2::SecurityGroup"), **rules}


def _users(engine: str, *names: str) -> Resources:
    users = {name: of("ElastiCache::User", {"UserName": name, "Engine": engine}) for name in names}
    members = [{"Ref": name} for name in names]
    return {"G": of("ElastiCache::UserGroup", {"Engine": engine, "UserIds": members}), **users}


def _cache(**properties: Any) -> Resources:
    return {"C": of("ElastiCache::ReplicationGroup", properties)}


def _database(**properties: Any) -> Resources:
    return {"D": of("RDS::DBInstance", properties, DeletionPolicy="Delete")}


def _response(**parameters: str) -> Resources:
    return {"G": of("ApiGateway::GatewayResponse", {"ResponseParameters": parameters})}


def _list(kind: str, name: str, number: int) -> Resources:
    return {"X": of(kind, {name: [{"Arn": "a"}] * number})}


def _pair(broken: Resources, kept: Resources) -> Example:
    return Example({"Resources": broken}, {"Resources": kept})


_VARY = "gatewayresponse.header.Vary"
_KEPT = {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}
_IN_A = of("ECS::Service", _network(Subnets=[{"Ref": "A"}]))
_LOGGED = {"LoggingConfig": {"LogGroup": {"Ref": "G"}}}
_SELECT = {"Id": "e", "Expression": 'SELECT MAX(Errors) FROM "AWS/Lambda"', "Period": 300}
_DATABASE = of("RDS::DBInstance", {"DeleteAutomatedBackups": True}, DeletionPolicy="Delete")
_WINDOWS = {"PreferredMaintenanceWindow": "sun:03:30-sun:04:30"}
_LIMITED = of("ApiGateway::UsagePlan", {"Throttle": {"RateLimit": 10, "BurstLimit": 20}})
_UNLIMITED = of("ApiGateway::UsagePlan", {"Throttle": {"RateLimit": 20_000, "BurstLimit": 20}})
_TASK = of("ECS::TaskDefinition", {"Cpu": "4096"})

EXAMPLES: dict[str, Example] = {
    "inline-policies-size": _pair(
        {"R": ROLE, "P": of("IAM::Policy", {**_statement(10_240), "Roles": [{"Ref": "R"}]})}, WITH_ROLE
    ),
    "managed-policy-size": _pair(
        {"P": of("IAM::ManagedPolicy", _statement(6144))}, {"P": of("IAM::ManagedPolicy", _statement(10))}
    ),
    "trust-policy-size": _pair(
        {"R": of("IAM::Role", {"AssumeRolePolicyDocument": {"Statement": ["x" * 2048]}})}, {"R": ROLE}
    ),
    "variables-size": _pair(_variables(LIST="x" * 4096), _variables(LIST="x" * 4000)),
    "function-policy-size": _pair(_permissions(70), _permissions(10)),
    "definition-size": _pair(
        {"M": of("StepFunctions::StateMachine", {"DefinitionString": "x" * ((1 << 20) + 1)})}, _machine(1)
    ),
    "task-size": _pair(_container(Image="x" * (64 << 10)), _container(Image="x")),
    "template-size": _pair({f"T{n}": of("SNS::Topic") for n in range(501)}, {"T": of("SNS::Topic")}),
    "template-texts": Example(
        {"Description": "x" * 1025, "Resources": {}}, {"Description": "x" * 1024, "Resources": {}}
    ),
    "dashboard-size": _pair(_dashboard(501), _dashboard(10)),
    "bucket-policy-size": _pair(
        {"P": of("S3::BucketPolicy", _statement(20_480))}, {"P": of("S3::BucketPolicy", _statement(10))}
    ),
    "topic-policy-size": _pair(
        {"P": of("SNS::TopicPolicy", _statement(30_720))}, {"P": of("SNS::TopicPolicy", _statement(10))}
    ),
    "function-layers": _pair(_list("Lambda::Function", "Layers", 6), _list("Lambda::Function", "Layers", 5)),
    "role-managed-policies": _pair(
        _list("IAM::Role", "ManagedPolicyArns", 11), _list("IAM::Role", "ManagedPolicyArns", 10)
    ),
    "rule-targets": _pair(_list("Events::Rule", "Targets", 6), _list("Events::Rule", "Targets", 5)),
    "alarm-actions": _pair(
        _list("CloudWatch::Alarm", "AlarmActions", 6), _list("CloudWatch::Alarm", "AlarmActions", 5)
    ),
    "alarm-dimensions": _pair(
        _list("CloudWatch::Alarm", "Dimensions", 31), _list("CloudWatch::Alarm", "Dimensions", 30)
    ),
    "event-source-filters": _pair(
        {"E": of("Lambda::EventSourceMapping", {"FilterCriteria": {"Filters": [{}] * 6}})},
        {"E": of("Lambda::EventSourceMapping", {"FilterCriteria": {"Filters": [{}] * 5}})},
    ),
    "bucket-rules": _pair(
        {"B": of("S3::Bucket", {"LifecycleConfiguration": {"Rules": [{}] * 1001}})},
        {"B": of("S3::Bucket", {"LifecycleConfiguration": {"Rules": [{}] * 1000}})},
    ),
    "cache-users": _pair(
        _list("ElastiCache::UserGroup", "UserIds", 101), _list("ElastiCache::UserGroup", "UserIds", 100)
    ),
    "reserved-concurrency": _pair(
        {"F": of("Lambda::Function", {"ReservedConcurrentExecutions": 1})}, {"F": of("Lambda::Function")}
    ),
    "concurrency": _pair(_machine(9), _machine(8)),
    "fargate-cpus": _pair(
        _service(DesiredCount=2, DeploymentConfiguration={"MaximumPercent": 200}) | {"Other": _TASK},
        _service(DesiredCount=2, DeploymentConfiguration={"MaximumPercent": 200}),
    ),
    "security-group-rules": _pair(_rules_of_group(61), _rules_of_group(60)),
    "security-groups-of-an-interface": _pair(
        {"F": of("Lambda::Function", {"VpcConfig": {"SecurityGroupIds": ["sg"] * 6}})},
        {"F": of("Lambda::Function", {"VpcConfig": {"SecurityGroupIds": ["sg"] * 5}})},
    ),
    "stream-consumers": _pair(
        {f"C{n}": of("Kinesis::StreamConsumer", {"StreamARN": "s"}) for n in range(6)},
        {f"C{n}": of("Kinesis::StreamConsumer", {"StreamARN": "s"}) for n in range(5)},
    ),
    "api-resources": _pair(
        {f"R{n}": of("ApiGateway::Resource", {"RestApiId": "a"}) for n in range(301)},
        {f"R{n}": of("ApiGateway::Resource", {"RestApiId": "a"}) for n in range(300)},
    ),
    "api-rates": _pair({"P": _UNLIMITED}, {"P": _LIMITED}),
    "reserved-variables": _pair(_variables(AWS_REGION="x"), _variables(AWS_ENDPOINT_URL="x")),
    "tags": _pair(_tagged("aws:owner"), _tagged("aws-cdk:owner")),
    "reserved-database-names": _pair(_database(MasterUsername="admin"), _database(MasterUsername="master")),
    "reserved-namespaces": _pair(
        {"F": of("Logs::MetricFilter", {"MetricTransformations": [{"MetricNamespace": "AWS/Own"}]})},
        {"F": of("Logs::MetricFilter", {"MetricTransformations": [{"MetricNamespace": "own"}]})},
    ),
    "reserved-roles": _pair(
        {"R": of("IAM::Role", {"RoleName": "AWSServiceRoleForUs"})},
        {"R": of("IAM::Role", {"RoleName": "us"})},
    ),
    "reserved-cache-names": _pair(
        {"U": of("ElastiCache::User", {"UserId": "Default"})},
        {"U": of("ElastiCache::User", {"UserId": "us"})},
    ),
    "reserved-stages": _pair(
        {"S": of("ApiGateway::Stage", {"StageName": "test-invoke-stage"})},
        {"S": of("ApiGateway::Stage", {"StageName": "v1"})},
    ),
    "reserved-events": _pair(
        {"E": of("Events::Rule", {"ScheduleExpression": "rate(1 day)", "EventBusName": "own"})},
        {"E": of("Events::Rule", {"ScheduleExpression": "rate(1 day)"})},
    ),
    "role-before-service": _pair(
        _service() | {"P": POLICY},
        _service() | {"P": POLICY, "S": of("ECS::Service", {"TaskDefinition": {"Ref": "T"}}, DependsOn="P")},
    ),
    "logs-role-before-stage": _pair(_stage(), _stage(DependsOn=["A"])),
    "gateway-before-route": _pair(_route(), _route(DependsOn=["At"])),
    "way-out-before-service": _pair(_egress(), _egress(DependsOn=["Out"])),
    "permission-to-publish": _pair(_notified("cloudwatch"), _notified("cloudwatch", "events")),
    "permission-to-invoke": _pair(_invoked(), _invoked("P")),
    "zones-there-are": _pair(_subnets(_zone(0), _zone(3)), _subnets(_zone(0), _zone(1))),
    "zones-with-fargate": _pair(
        _subnets(_zone(0), _zone(1), S=_IN_A),
        _subnets(
            {"AvailabilityZoneId": "apne1-az1"},
            _zone(1),
            S=_IN_A,
        ),
    ),
    "zones-of-subnet-groups": _pair(
        _subnets(_zone(1), _zone(1), G=_group("A", "B")), _subnets(_zone(0), _zone(1), G=_group("A", "B"))
    ),
    "bucket-can-be-deleted": _pair(
        {"B": of("S3::Bucket", DeletionPolicy="Delete")}, {"B": of("S3::Bucket", DeletionPolicy="Retain")}
    ),
    "protected-but-deleted": _pair(_database(DeletionProtection=True), _database(DeletionProtection=False)),
    "policies-agree": _pair(
        {"B": of("S3::Bucket", DeletionPolicy="Retain")}, {"B": of("S3::Bucket", **_KEPT)}
    ),
    "left-behind": _pair(
        {"D": _DATABASE, "S": of("Kinesis::Stream", DeletionPolicy="Retain")},
        {"D": _DATABASE, "S": of("Kinesis::Stream", DeletionPolicy="Delete")},
    ),
    "logs-without-a-group": _pair(
        {"F": of("Lambda::Function")},
        {"F": of("Lambda::Function", _LOGGED), "G": of("Logs::LogGroup", {"RetentionInDays": 7})},
    ),
    "alarm-expressions": _pair(
        _alarm(Metrics=[_sum("SUM(SEARCH('{AWS/Lambda} Errors', 'Sum'))")]),
        _alarm(Metrics=[_sum("m1 + m2"), _metric(1), _metric(2)]),
    ),
    "alarm-span": _pair(
        _alarm(Metrics=[_SELECT], EvaluationPeriods=37), _alarm(Metrics=[_SELECT], EvaluationPeriods=36)
    ),
    "alarms-reach-their-topic": _pair(
        {"T": of("SNS::Topic", {"KmsMasterKeyId": "alias/aws/sns"})}, {"T": of("SNS::Topic")}
    ),
    "response-parameters": _pair(_response(**{_VARY: "Origin"}), _response(**{_VARY: "'Origin'"})),
    "storage-limit": _pair(
        _database(AllocatedStorage="100", MaxAllocatedStorage=109),
        _database(AllocatedStorage="100", MaxAllocatedStorage=110),
    ),
    "database-windows": _pair(
        _database(PreferredBackupWindow="03:00-04:00", **_WINDOWS),
        _database(PreferredBackupWindow="23:00-00:00", **_WINDOWS),
    ),
    "cache-failover": _pair(
        _cache(AutomaticFailoverEnabled=True, NumCacheClusters=1),
        _cache(AutomaticFailoverEnabled=True, NumCacheClusters=2),
    ),
    "subnet-ranges": _pair(_subnets({}, {"CidrBlock": "10.0.0.128/25"}), _subnets({}, {})),
    "container-health": _pair(
        _container(HealthCheck={"Interval": 1}), _container(HealthCheck={"Interval": 5}, StopTimeout=120)
    ),
    "task-secrets": _pair(
        _secret_of_task("secretsmanager:DescribeSecret"), _secret_of_task("secretsmanager:GetSecretValue")
    ),
}

# Further templates that break a rule in another way.
ALSO_BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("alarm-expressions", {"Resources": _alarm(Metrics=[_sum("m1"), *map(_metric, range(11))])}),
    ("alarm-expressions", {"Resources": _alarm(Metrics=[_SELECT, _SELECT | {"ReturnData": False}])}),
    ("alarm-expressions", {"Resources": _alarm(Metrics=[_metric(1)])}),
    ("alarm-span", {"Resources": _alarm(Period=90, EvaluationPeriods=1)}),
    ("alarm-span", {"Resources": _alarm(Period=60, EvaluationPeriods=1441)}),
    ("alarm-span", {"Resources": _alarm(Period=3600, EvaluationPeriods=169)}),
    ("cache-failover", {"Resources": _users("redis", "writer")}),
    ("cache-failover", {"Resources": _cache(UserGroupIds=["g"], TransitEncryptionEnabled=False)}),
    ("container-health", {"Resources": _container(StopTimeout=121)}),
    ("dashboard-size", {"Resources": _dashboard(1, metrics=501)}),
    ("left-behind", {"Resources": _database(DeleteAutomatedBackups=False)}),
    ("logs-without-a-group", {"Resources": {"G": of("Logs::LogGroup")}}),
    ("permission-to-publish", {"Resources": _notified("events")}),
    ("reserved-database-names", {"Resources": _database(MasterUsername="pg_master")}),
    ("reserved-database-names", {"Resources": _database(DBName="user")}),
    ("reserved-variables", {"Resources": _variables(X="one letter")}),
    ("response-parameters", {"Resources": _response(Vary="'x'")}),
    ("subnet-ranges", {"Resources": _subnets({}, {"CidrBlock": "10.1.0.0/24"})}),
    ("tags", {"Resources": _tagged("owner", "x" * 257)}),
    ("tags", {"Resources": _tagged("owner", "it's")}),
    ("template-texts", {"Resources": {}, "Outputs": {"O": {"Value": "x" * 1025}}}),
    ("template-texts", {"Resources": {}, "Outputs": {"O": {"Value": "x", "Export": {"Name": "a b"}}}}),
    ("zones-there-are", {"Resources": _subnets({"AvailabilityZone": "ap-northeast-1a"}, {})}),
    (
        "zones-with-fargate",
        {"Resources": _subnets({"AvailabilityZoneId": "apne1-az3"}, {}, S=_IN_A)},
    ),
]

"""Templates as CloudFormation would read them: intrinsic functions replaced by their values, as far as these
are known before a deployment.

A name that CloudFormation would generate is one of the form it generates, with the longest suffix; an
attribute that only AWS knows is a value of its form. So every text has about its real length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ACCOUNT = "123456789012"
FRESH_EXECUTIONS = 10  # how many functions may run at once in a fresh account; in an older one, 1,000
ZONES = "abcd"  # the letters that names of zones end with; which of them an account has is its own matter

# The property that names a resource of a type, where its `Ref` is that name.
NAME_OF = {
    "AWS::ApiGateway::Stage": "StageName",
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::ECR::Repository": "RepositoryName",
    "AWS::ECS::Cluster": "ClusterName",
    "AWS::ElastiCache::ParameterGroup": "CacheParameterGroupName",
    "AWS::ElastiCache::ReplicationGroup": "ReplicationGroupId",
    "AWS::ElastiCache::SubnetGroup": "CacheSubnetGroupName",
    "AWS::ElastiCache::User": "UserId",
    "AWS::ElastiCache::UserGroup": "UserGroupId",
    "AWS::Events::Rule": "Name",
    "AWS::IAM::Role": "RoleName",
    "AWS::Kinesis::Stream": "Name",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::RDS::DBInstance": "DBInstanceIdentifier",
    "AWS::RDS::DBParameterGroup": "DBParameterGroupName",
    "AWS::RDS::DBSubnetGroup": "DBSubnetGroupName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SSM::Parameter": "Name",
}
# The name of a resource whose `Ref` is its ARN, and the ARN: {} is the name.
ARN_OF = {
    "AWS::ECS::Service": ("ServiceName", "ecs:{region}:{account}:service/{}"),
    "AWS::ECS::TaskDefinition": ("Family", "ecs:{region}:{account}:task-definition/{}:1"),
    "AWS::IAM::ManagedPolicy": ("ManagedPolicyName", "iam::{account}:policy/{}"),
    "AWS::Kinesis::StreamConsumer": (
        "ConsumerName",
        "kinesis:{region}:{account}:stream/s/consumer/{}:1732600000",
    ),
    "AWS::Lambda::LayerVersion": ("LayerName", "lambda:{region}:{account}:layer:{}:1"),
    "AWS::SNS::Topic": ("TopicName", "sns:{region}:{account}:{}"),
    "AWS::SecretsManager::Secret": ("Name", "secretsmanager:{region}:{account}:secret:{}-AbCdEf"),
    "AWS::StepFunctions::StateMachine": ("StateMachineName", "states:{region}:{account}:stateMachine:{}"),
}
# The ARN of a resource whose `Ref` is its name.
ARN_BY_ATTRIBUTE = {
    "AWS::ECS::Cluster": "ecs:{region}:{account}:cluster/{}",
    "AWS::ElastiCache::ReplicationGroup": "elasticache:{region}:{account}:replicationgroup:{}",
    "AWS::ElastiCache::User": "elasticache:{region}:{account}:user:{}",
    "AWS::Events::Rule": "events:{region}:{account}:rule/{}",
    "AWS::IAM::Role": "iam::{account}:role/{}",
    "AWS::Kinesis::Stream": "kinesis:{region}:{account}:stream/{}",
    "AWS::Lambda::Function": "lambda:{region}:{account}:function:{}",
    "AWS::Logs::LogGroup": "logs:{region}:{account}:log-group:{}:*",
    "AWS::RDS::DBInstance": "rds:{region}:{account}:db:{}",
    "AWS::S3::Bucket": "s3:::{}",
}
# Ids that AWS generates: the prefix and the number of digits after it.
ID_OF = {
    "AWS::EC2::FlowLog": ("fl-", 17),
    "AWS::EC2::InternetGateway": ("igw-", 17),
    "AWS::EC2::RouteTable": ("rtb-", 17),
    "AWS::EC2::SecurityGroup": ("sg-", 17),
    "AWS::EC2::Subnet": ("subnet-", 17),
    "AWS::EC2::VPC": ("vpc-", 17),
    "AWS::EC2::VPCEndpoint": ("vpce-", 17),
    "AWS::ApiGateway::RestApi": ("", 10),
    "AWS::ApiGateway::Resource": ("", 6),
}
LONGEST_GENERATED = {"AWS::S3::Bucket": 63, "AWS::ElastiCache::ReplicationGroup": 40, "AWS::IAM::Role": 64}
NOTHING = object()  # what `AWS::NoValue` makes of a property


@dataclass(frozen=True)
class Resource:
    """A resource of a template: as it is written, and with what is known put in place of references."""

    stack: str
    logical_id: str
    kind: str
    written: dict[str, Any]
    properties: dict[str, Any]

    @property
    def path(self) -> str:
        """Of its construct, without the stack; the logical id if the template does not say."""
        path = str(self.written.get("Metadata", {}).get("aws:cdk:path", ""))
        return path.partition("/")[2].removesuffix("/Resource") or self.logical_id

    def references(self) -> set[str]:
        """The logical ids that CloudFormation creates before it: `DependsOn` and all that it names."""
        after = self.written.get("DependsOn", [])
        return set([after] if isinstance(after, str) else after) | set(_named(self.written))


@dataclass
class Templates:
    """All templates of an environment, by the name of their stack's last word.

    `prefix` and that word make a stack's name; `region` is where they go, and `concurrent_executions` how
    many functions may run at once in the account. Raises KeyError for a reference to nothing.
    """

    documents: dict[str, dict[str, Any]]
    region: str = "ap-northeast-1"
    prefix: str = "tickcast-dev"
    concurrent_executions: int = FRESH_EXECUTIONS
    exports: dict[str, tuple[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.exports = {
            str(self.resolved(output["Export"]["Name"], stack)): (stack, output["Value"])
            for stack, document in self.documents.items()
            for output in document.get("Outputs", {}).values()
            if "Export" in output
        }
        self._resources = [
            Resource(
                stack,
                logical_id,
                written["Type"],
                written,
                self.resolved(written.get("Properties", {}), stack),
            )
            for stack, document in self.documents.items()
            for logical_id, written in document.get("Resources", {}).items()
        ]

    def resources(self, *kinds: str) -> list[Resource]:
        """Those of the types, all without one; over all stacks."""
        return [found for found in self._resources if not kinds or found.kind in kinds]

    def named_by(self, value: Any, stack: str) -> Resource | None:
        """The resource that a `Ref`, a `Fn::GetAtt` or an imported value (as written) is of."""
        match value:
            case {"Fn::ImportValue": name}:
                known = self.exports.get(str(self.resolved(name, stack)))
                return self.named_by(known[1], known[0]) if known else None
            case {"Ref": name} | {"Fn::GetAtt": [name, *_]}:
                for resource in self._resources:
                    if (resource.stack, resource.logical_id) == (stack, name):
                        return resource
        return None

    def stack_name(self, stack: str) -> str:
        return f"{self.prefix}-{stack}"

    def resolved(self, value: Any, stack: str) -> Any:
        """`value` with the values of its intrinsic functions; one that is not known here stays as it is."""
        if isinstance(value, list):
            return [item for item in (self.resolved(one, stack) for one in value) if item is not NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            [(name, argument)] = value.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._intrinsic(name, argument, stack)
        items = ((name, self.resolved(item, stack)) for name, item in value.items())
        return {name: item for name, item in items if item is not NOTHING}

    def _intrinsic(self, name: str, argument: Any, stack: str) -> Any:
        match name:
            case "Ref":
                return self._referred(argument, stack)
            case "Fn::GetAtt":
                logical_id, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
                return self._attribute(logical_id, attribute, stack)
            case "Fn::Sub":
                return self._substituted(argument, stack)
            case "Fn::If":
                condition = self.documents[stack].get("Conditions", {})[argument[0]]
                return self.resolved(argument[1 if self._holds(condition, stack) else 2], stack)
        return self._of_known(name, self.resolved(argument, stack), stack)

    def _of_known(self, name: str, known: Any, stack: str) -> Any:
        """The value of a function whose arguments are `known`; itself if there is none."""
        match name:
            case "Fn::Join":
                return known[0].join(map(_text, known[1]))
            case "Fn::Select":
                return known[1][int(known[0])]
            case "Fn::Split":
                return known[1].split(known[0])
            case "Fn::GetAZs":
                return [f"{known or self.region}{letter}" for letter in ZONES]
            case "Fn::FindInMap":
                return self.documents[stack]["Mappings"][known[0]][known[1]][known[2]]
            case "Fn::ImportValue":
                origin, exported = self.exports[known]
                return self.resolved(exported, origin)
        return {name: known}

    def _holds(self, condition: Any, stack: str) -> bool:
        match condition:
            case {"Condition": name}:
                return self._holds(self.documents[stack]["Conditions"][name], stack)
            case {"Fn::Equals": [left, right]}:
                return bool(self.resolved(left, stack) == self.resolved(right, stack))
            case {"Fn::Not": [one]}:
                return not self._holds(one, stack)
            case {"Fn::And": several}:
                return all(self._holds(one, stack) for one in several)
            case {"Fn::Or": several}:
                return any(self._holds(one, stack) for one in several)
        return False

    def _substituted(self, argument: Any, stack: str) -> str:
        text, own = argument if isinstance(argument, list) else (argument, {})

        def put(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("!"):
                return f"${{{name[1:]}}}"
            if name in own:
                return _text(self.resolved(own[name], stack))
            logical_id, _, attribute = name.partition(".")
            found = (
                self._attribute(logical_id, attribute, stack) if attribute else self._referred(name, stack)
            )
            return _text(found)

        return re.sub(r"\$\{([^}]+)\}", put, text)

    def _referred(self, name: str, stack: str) -> Any:
        pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::NoValue": NOTHING,
            "AWS::NotificationARNs": [],
            "AWS::Partition": "aws",
            "AWS::Region": self.region,
            "AWS::StackId": self._arn("cloudformation:{region}:{account}:stack/{}/1", self.stack_name(stack)),
            "AWS::StackName": self.stack_name(stack),
            "AWS::URLSuffix": "amazonaws.com",
        }
        if name in pseudo:
            return pseudo[name]
        parameters = self.documents[stack].get("Parameters", {})
        if name in parameters:
            return parameters[name].get("Default", f"value-of-{name}")
        written = self.documents[stack]["Resources"][name]
        kind = written["Type"]
        if kind in ID_OF:
            prefix, digits = ID_OF[kind]
            return prefix + ("0123456789abcdef" * 2)[:digits]
        if kind in ARN_OF:
            return self._arn(ARN_OF[kind][1], self._name(name, ARN_OF[kind][0], stack))
        return self._name(name, NAME_OF.get(kind, ""), stack)

    def _name(self, logical_id: str, named_by: str, stack: str) -> str:
        """The name in the property `named_by`, or one as CloudFormation generates it."""
        written = self.documents[stack]["Resources"][logical_id]
        given = written.get("Properties", {}).get(named_by)
        if given is not None:
            return _text(self.resolved(given, stack))
        longest = LONGEST_GENERATED.get(written["Type"], 255)
        generated = f"{self.stack_name(stack)}-{logical_id}"[: longest - 13] + "-ABCDEFGH1234"
        return generated.lower() if written["Type"] == "AWS::S3::Bucket" else generated

    def _attribute(self, logical_id: str, attribute: str, stack: str) -> Any:
        kind = self.documents[stack]["Resources"][logical_id]["Type"]
        known = self._referred(logical_id, stack)
        match kind, attribute:
            case _, "Arn" | "ServiceArn" | "ConsumerARN" | "TopicArn" if kind in ARN_OF:
                return known
            case _, "Arn" if kind in ARN_BY_ATTRIBUTE:
                return self._arn(ARN_BY_ATTRIBUTE[kind], known)
            case _, "Arn" | "ARN":
                _, service, word = kind.lower().split("::")
                return self._arn(f"{service}:{{region}}:{{account}}:{word}/{{}}", known)
            case "AWS::RDS::DBInstance", "Endpoint.Port":
                return "5432"
            case "AWS::RDS::DBInstance", "DbiResourceId":
                return "db-ABCDEFGHIJKLMNOPQRSTUVWXY2"
            case "AWS::RDS::DBInstance", "MasterUserSecret.SecretArn":
                return self._arn("secretsmanager:{region}:{account}:secret:{}-AbCdEf", f"rds!db-{'0' * 36}")
            case "AWS::EC2::VPC", "CidrBlock":
                return self.documents[stack]["Resources"][logical_id]["Properties"]["CidrBlock"]
        return f"{known}.{attribute}"

    def _arn(self, form: str, name: str) -> str:
        return "arn:aws:" + form.format(name, region=self.region, account=ACCOUNT)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _named(value: Any) -> Iterator[str]:
    """The logical ids in `Ref`, `Fn::GetAtt` and `Fn::Sub`, wherever in `value`."""
    if isinstance(value, list):
        for item in value:
            yield from _named(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "Ref" and isinstance(item, str):
                yield item
            elif name == "Fn::GetAtt":
                yield item[0] if isinstance(item, list) else item.partition(".")[0]
            elif name == "Fn::Sub":
                text = item[0] if isinstance(item, list) else item
                yield from (found.partition(".")[0] for found in re.findall(r"\$\{([^!}]+)\}", text))
                yield from _named(item[1:] if isinstance(item, list) else [])
            else:
                yield from _named(item)


def references(value: Any) -> Iterator[dict[str, Any]]:
    """All `Ref`, `Fn::GetAtt` and `Fn::ImportValue` in `value`."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in ("Ref", "Fn::GetAtt", "Fn::ImportValue"):
                yield value
            else:
                yield from references(item)

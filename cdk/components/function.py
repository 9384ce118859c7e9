"""A Lambda function and all that every one of them has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jsii
from aws_cdk import Acknowledgment, Duration, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct, IValidation

from cdk.components.layers import ARCHITECTURE, RUNTIME, Layers
from cdk.components.log_group import LogGroup
from cdk.components.security_group import SecurityGroup
from cdk.config import Environment
from cdk.variables import FROM_OUTSIDE
from tickcast.adapters.settings import Settings
from tickcast.adapters.variables import names

LAMBDAS = Path(__file__).resolve().parents[2] / "lambdas"
STORES = {"REDIS_HOST", "DATABASE_HOST"}


class Function(lambda_.Function):
    """The function of `lambdas/<name>/handler.py`, with a role and a log group of its own.

    Its environment variables are those of its settings' type: from `variables` at first, the others by the
    grants; one that is missing in the end is an error of the synthesis. It lives in the VPC, from which
    nothing but the stores and S3 can be reached, if its settings say where a store is.

    Its role starts with its own log group and traces, and with a network interface in a VPC. Whatever else it
    may do is granted in the stack. Lambda's own log lines (START, REPORT) are left out below WARN: at tens of
    invocations a second they would be most of the bill.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        description: str,
        settings: type[Settings],
        environment: Environment,
        layers: Layers,
        variables: Mapping[str, str],
        vpc: ec2.IVpc | None,
        once_within: Duration | None = None,
    ) -> None:
        """`once_within`, of a function that a rule invokes: Lambda itself, which queues such an invocation,
        does not repeat one that failed, and drops one that it could not start for so long. Left out, Lambda's
        defaults hold: two repetitions, six hours."""
        construct_id = name.title().replace("_", "")
        self._reads = set(names(settings)) - FROM_OUTSIDE
        values = {**variables, "POWERTOOLS_SERVICE_NAME": name}
        given = {each: value for each, value in values.items() if each in self._reads}
        parts = Construct(scope, f"{construct_id}Parts")
        log_group = LogGroup(parts, "Logs", retention=environment.log_retention)
        role = iam.Role(
            parts,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description=f"What {name} may do",
        )
        log_group.grant_write(role)
        inside = vpc if STORES & self._reads else None
        security_groups = None
        if inside:
            # Outbound to S3 only; a grant on the cache or the database adds those. HTTPS to any address,
            # because a prefix list's id differs by region: from an isolated subnet only S3 has a route.
            https, about = "S3, through its gateway endpoint", f"{name}: nothing in, S3 out"
            security_groups = [SecurityGroup(parts, "Door", vpc=inside, description=about, https=https)]
        sizing = getattr(environment.functions, name)
        self.name, self.memory_mb = name, sizing.memory_mb
        super().__init__(
            scope,
            construct_id,
            description=description,
            runtime=RUNTIME,
            architecture=ARCHITECTURE,
            code=lambda_.Code.from_asset(str(LAMBDAS / name), exclude=["**/__pycache__"]),
            handler="handler.handler",
            layers=layers.of(name),
            role=role,
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            application_log_level_v2=_lambdas_log_level(environment),
            system_log_level_v2=lambda_.SystemLogLevel.WARN,
            tracing=lambda_.Tracing.ACTIVE if environment.tracing else lambda_.Tracing.DISABLED,
            memory_size=sizing.memory_mb,
            timeout=Duration.seconds(sizing.timeout_s),
            reserved_concurrent_executions=sizing.reserved_concurrency,
            retry_attempts=0 if once_within else None,
            max_event_age=once_within,
            vpc=inside,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED) if inside else None,
            security_groups=security_groups,
            environment=given,
        )
        if inside:
            role.add_to_policy(_network_interfaces())
        self._missing = self._reads - given.keys()
        self.node.add_validation(_EveryVariableIsSet(name, self._missing))
        _acknowledge(self, role)

    def set_variables(self, variables: Mapping[str, str]) -> None:
        """Raises ValueError if the function does not read one of them."""
        for name, value in variables.items():
            if name not in self._reads:
                raise ValueError(f"{self.node.id} does not read {name}")
            self.add_environment(name, value)
            self._missing.discard(name)


@jsii.implements(IValidation)
class _EveryVariableIsSet:
    """Checked by the synthesis, after all grants."""

    def __init__(self, function: str, missing: set[str]) -> None:
        self._function = function
        self._missing = missing

    def validate(self) -> list[str]:
        return [f"{self._function} reads {name}, which nothing sets" for name in sorted(self._missing)]


def _lambdas_log_level(environment: Environment) -> lambda_.ApplicationLogLevel:
    """Lambda drops lines by their level, and takes those without one, such as metrics (EMF), for INFO
    ("Log-level filtering" in its Developer Guide). So what is above INFO is left to LOG_LEVEL, by which the
    process itself filters."""
    levels = lambda_.ApplicationLogLevel
    return levels.DEBUG if environment.log_level == "DEBUG" else levels.INFO


def _network_interfaces() -> iam.PolicyStatement:
    """Lambda makes a function's network interfaces with the function's role."""
    return iam.PolicyStatement(
        actions=[
            "ec2:CreateNetworkInterface",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSubnets",
            "ec2:DeleteNetworkInterface",
            "ec2:AssignPrivateIpAddresses",
            "ec2:UnassignPrivateIpAddresses",
        ],
        resources=["*"],
    )


def _acknowledge(function: lambda_.Function, role: iam.Role) -> None:
    Validations.of(role).acknowledge(
        Acknowledgment(
            id="AwsSolutions-IAM5[Resource::*]",
            reason="X-Ray's actions have no resource level; Lambda makes a function's network interfaces "
            "with its role, and requires them on any resource.",
        )
    )
    Validations.of(function).acknowledge(
        Acknowledgment(
            id="AwsSolutions-L1",
            reason="Python 3.13 is the runtime for which the pinned wheels of the layers are tested.",
        ),
        Acknowledgment(
            id="Serverless-LambdaLatestVersion",
            reason="Python 3.13 is the runtime for which the pinned wheels of the layers are tested.",
        ),
        Acknowledgment(
            id="Serverless-LambdaDLQ",
            reason="A stream's batches that fail go to the bucket; the API and the state machines call "
            "synchronously and see the error themselves.",
        ),
        Acknowledgment(
            id="Serverless-LambdaAsyncFailureDestination",
            reason="A scheduled round that fails raises an alarm, and the next one takes its place: there is "
            "nothing in its event to keep.",
        ),
    )

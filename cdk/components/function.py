"""A Lambda function and all that every one of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk.config import Environment, Sizing

LAMBDAS = Path(__file__).resolve().parents[2] / "lambdas"
RUNTIME = lambda_.Runtime.PYTHON_3_13
ARCHITECTURE = lambda_.Architecture.X86_64


class Function(lambda_.Function):
    """The function of `lambdas/<name>/handler.py`, with a role and a log group of its own.

    Its role starts with its own log group and traces; with a network interface if it lives in a VPC. Whatever
    else it may do is granted in the stack. Lambda's own log lines (START, REPORT) are left out below WARN: at
    tens of invocations a second they would be most of the bill.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        description: str,
        environment: Environment,
        sizing: Sizing,
        layers: Sequence[lambda_.ILayerVersion],
        variables: Mapping[str, str],
        vpc: ec2.IVpc | None = None,
        retry_attempts: int | None = None,
    ) -> None:
        """`retry_attempts`: how often Lambda itself repeats an asynchronous invocation that failed. It
        counts only for a function that is invoked so, by a rule; left out, Lambda's default."""
        parts = Construct(scope, f"{construct_id}Parts")
        log_group = logs.LogGroup(
            parts,
            "Logs",
            retention=logs.RetentionDays[environment.log_retention],
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = iam.Role(
            parts,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description=f"What {name} may do",
        )
        log_group.grant_write(role)
        super().__init__(
            scope,
            construct_id,
            description=description,
            runtime=RUNTIME,
            architecture=ARCHITECTURE,
            code=lambda_.Code.from_asset(str(LAMBDAS / name), exclude=["**/__pycache__"]),
            handler="handler.handler",
            layers=list(layers),
            role=role,
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            application_log_level_v2=lambda_.ApplicationLogLevel[environment.log_level],
            system_log_level_v2=lambda_.SystemLogLevel.WARN,
            tracing=lambda_.Tracing.ACTIVE,
            memory_size=sizing.memory_mb,
            timeout=Duration.seconds(sizing.timeout_s),
            reserved_concurrent_executions=sizing.reserved_concurrency,
            retry_attempts=retry_attempts,
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED) if vpc else None,
            security_groups=[_door(parts, name, vpc)] if vpc else None,
            environment={
                **variables,
                "ENVIRONMENT": environment.name,
                "LOG_LEVEL": environment.log_level,
                "POWERTOOLS_SERVICE_NAME": name,
                "POWERTOOLS_METRICS_NAMESPACE": environment.metrics_namespace,
            },
        )
        if vpc:
            role.add_to_policy(
                iam.PolicyStatement(
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
            )
        Validations.of(role).acknowledge(
            Acknowledgment(
                id="AwsSolutions-IAM5[Resource::*]",
                reason="X-Ray's actions have no resource level; Lambda makes a function's network interfaces "
                "with its role, and asks for them on any resource.",
            )
        )
        Validations.of(self).acknowledge(
            Acknowledgment(
                id="AwsSolutions-L1",
                reason="Python 3.13 is the runtime for which the pinned wheels of the layers are proven.",
            )
        )


def _door(scope: Construct, name: str, vpc: ec2.IVpc) -> ec2.SecurityGroup:
    """Out to S3 only; a grant on the cache or the database adds the way there."""
    door = ec2.SecurityGroup(
        scope, "Door", vpc=vpc, description=f"{name}: nothing in, S3 out", allow_all_outbound=False
    )
    # Any address, because a prefix list's id differs by region; from an isolated subnet only S3 has a route.
    door.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "S3, through its gateway endpoint")
    return door

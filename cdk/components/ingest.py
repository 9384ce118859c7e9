"""The ingest task on Fargate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Stack, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from cdk.config import Environment
from cdk.config import Ingest as Settings

ROOT = Path(__file__).resolve().parents[2]
HEALTH_PORT = 8080
# Fails (a non-zero exit) when nothing answers and when the answer is 4xx or 5xx. The Dockerfile has the same.
HEALTH_CHECK = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{HEALTH_PORT}/health', timeout=3)"


class Ingest(Construct):
    """A service of tasks that hold the exchange's stream and put its ticks on Kinesis.

    The tasks sit in public subnets with an address of their own, which is what makes a NAT gateway needless,
    behind a security group without a single inbound rule. A deployment starts the new task beside the old one
    and stops the old one when the new one is healthy: their streams overlap, so no tick is missed, and what
    both send is recognised downstream by its id. A deployment that does not become healthy is rolled back.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        settings: Settings,
        vpc: ec2.IVpc,
        variables: Mapping[str, str],
        exchange_key: secretsmanager.ISecret,
    ) -> None:
        super().__init__(scope, construct_id)
        self.cluster = ecs.Cluster(
            self, "Cluster", vpc=vpc, container_insights_v2=ecs.ContainerInsights.ENABLED
        )
        log_group = logs.LogGroup(
            self,
            "Logs",
            retention=logs.RetentionDays[environment.log_retention],
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.task = ecs.FargateTaskDefinition(
            self,
            "Task",
            cpu=settings.cpu,
            memory_limit_mib=settings.memory_mb,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.X86_64,
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
        )
        linux = ecs.LinuxParameters(self, "Linux", init_process_enabled=True)
        linux.drop_capabilities(ecs.Capability.ALL)
        self.task.add_container(
            "Ingest",
            image=ecs.ContainerImage.from_asset(
                str(ROOT), file="ingest_ecs/Dockerfile", platform=ecr_assets.Platform.LINUX_AMD64
            ),
            environment={
                **variables,
                "ENVIRONMENT": environment.name,
                "LOG_LEVEL": environment.log_level,
                "POWERTOOLS_SERVICE_NAME": "ingest",
                "POWERTOOLS_METRICS_NAMESPACE": environment.metrics_namespace,
                "AWS_DEFAULT_REGION": Stack.of(self).region,
                "STREAM_URL": settings.stream_url,
                "REST_URL": environment.history.rest_url,
                "BUSY_SYMBOL": settings.busy_symbol,
                "LINGER_MS": str(settings.linger_ms),
                "HEALTH_PORT": str(HEALTH_PORT),
                "PROTOCOL": "sbe",
            },
            secrets={"BINANCE_API_KEY": ecs.Secret.from_secrets_manager(exchange_key)},
            logging=ecs.LogDriver.aws_logs(
                stream_prefix="ingest",
                log_group=log_group,
                # A slow log service must not stop the socket's loop.
                mode=ecs.AwsLogDriverMode.NON_BLOCKING,
            ),
            user="10001:10001",
            readonly_root_filesystem=True,
            linux_parameters=linux,
            # From SIGTERM to SIGKILL: time to send what is batched and to close the sockets.
            stop_timeout=Duration.seconds(30),
            health_check=ecs.HealthCheck(
                command=["CMD", "python", "-c", HEALTH_CHECK],
                interval=Duration.seconds(15),
                timeout=Duration.seconds(5),
                retries=3,
                start_period=Duration.seconds(300),
            ),
        )
        door = ec2.SecurityGroup(
            self, "Door", vpc=vpc, description="ingest: nothing in", allow_all_outbound=False
        )
        door.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS, and the exchange's REST")
        door.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(9443), "The exchange's stream")
        self.service = ecs.FargateService(
            self,
            "Service",
            cluster=self.cluster,
            task_definition=self.task,
            desired_count=settings.tasks,
            assign_public_ip=True,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            security_groups=[door],
            min_healthy_percent=100,
            max_healthy_percent=200,
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
        )
        Validations.of(self.task).acknowledge(
            Acknowledgment(
                id="AwsSolutions-ECS2",
                reason="The variables are settings of this repository; the one secret is injected by ECS.",
            ),
            Acknowledgment(
                id="AwsSolutions-IAM5[Resource::*]",
                reason="ecr:GetAuthorizationToken, with which the image is fetched, has no resource level.",
            ),
        )

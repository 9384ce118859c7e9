"""The ingest task on Fargate."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import Acknowledgment, Duration, Stack, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from cdk.components.fargate_task import FargateTask
from cdk.components.security_group import SecurityGroup
from cdk.config import AwsConfig, Environment
from cdk.variables import chosen
from ingest_ecs.settings import IngestSettings


class Ingest(Construct):
    """A service of tasks that hold the exchange's stream and put its ticks on Kinesis.

    The tasks sit in public subnets with an address of their own, so that no NAT gateway is needed, behind a
    security group without a single inbound rule. A deployment starts the new task before it stops the old
    one, which it does when the new one is healthy: their streams overlap, so no tick is missed, and what both
    send is recognised downstream by its id. A deployment that does not become healthy is rolled back.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        config: AwsConfig,
        vpc: ec2.IVpc,
        variables: Mapping[str, str],
        exchange_key: secretsmanager.ISecret,
    ) -> None:
        super().__init__(scope, construct_id)
        ingest, insights = config.ingest, ecs.ContainerInsights
        self.cluster = ecs.Cluster(
            self,
            "Cluster",
            vpc=vpc,
            container_insights_v2=insights.ENABLED if config.container_insights else insights.DISABLED,
        )
        self.task = FargateTask(
            self,
            "Task",
            name="Ingest",
            dockerfile="ingest_ecs/Dockerfile",
            cpu=ingest.cpu,
            memory_mb=ingest.memory_mb,
            architecture=ingest.architecture,
            log_retention=environment.log_retention,
            variables={
                **chosen(IngestSettings, {**variables, "POWERTOOLS_SERVICE_NAME": "ingest"}),
                "AWS_DEFAULT_REGION": Stack.of(self).region,  # boto3 reads it
            },
            variables_reason="They are settings of this repository; the one secret is injected by ECS.",
            secrets={"BINANCE_API_KEY": ecs.Secret.from_secrets_manager(exchange_key)},
            # A slow log service must not stop the socket's loop.
            log_mode=ecs.AwsLogDriverMode.NON_BLOCKING,
            # From SIGTERM to SIGKILL: time to send what is batched and to close the sockets.
            stop_timeout=Duration.seconds(30),
            health_check=_health_check(ingest.health_port),
        )
        security_group = SecurityGroup(
            self, "Door", vpc=vpc, description="ingest: nothing in", https="AWS, and REST of the exchange"
        )
        security_group.allow_out(9443, "The stream of the exchange")
        self.service = ecs.FargateService(
            self,
            "Service",
            cluster=self.cluster,
            task_definition=self.task,
            desired_count=ingest.tasks,
            assign_public_ip=True,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            security_groups=[security_group],
            min_healthy_percent=100,
            max_healthy_percent=200,
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
            capacity_provider_strategies=[
                ecs.CapacityProviderStrategy(capacity_provider="FARGATE_SPOT", weight=1)
            ]
            if ingest.spot
            else None,
        )
        # The construct waits for the policy of the task's role alone. Without that of the other, with which
        # ECS fetches the image and the key, the first task may fail and the deployment be rolled back.
        self.service.node.add_dependency(self.task.obtain_execution_role())
        if ingest.spot:
            self.service.node.add_dependency(self._capacity_providers())
        if not config.container_insights:
            _acknowledge(self.cluster)

    def _capacity_providers(self) -> ecs.CfnClusterCapacityProviderAssociations:
        """Not by the option of the cluster: the service has to be made after it and deleted before it, for
        ECS removes no provider that a service uses."""
        return ecs.CfnClusterCapacityProviderAssociations(
            self,
            "CapacityProviders",
            cluster=self.cluster.cluster_name,
            capacity_providers=["FARGATE", "FARGATE_SPOT"],
            default_capacity_provider_strategy=[],
        )


def _acknowledge(cluster: ecs.Cluster) -> None:
    Validations.of(cluster).acknowledge(
        Acknowledgment(
            id="AwsSolutions-ECS4",
            reason="Some twenty metrics with a price each; the service's own count the running tasks, and "
            "`aws.container_insights` switches the others on.",
        )
    )


def _health_check(port: int) -> ecs.HealthCheck:
    """Fails (a non-zero exit) when nothing answers and when the status is 4xx or 5xx. The Dockerfile has the
    same."""
    check = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/health', timeout=3)"
    return ecs.HealthCheck(
        command=["CMD", "python", "-c", check],
        interval=Duration.seconds(15),
        timeout=Duration.seconds(5),
        retries=3,
        start_period=Duration.seconds(300),
    )

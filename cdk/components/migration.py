"""The one-off task that brings the database to the newest schema, and makes its users."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import Acknowledgment, RemovalPolicy, Stack, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk.components.database import NAME, PORT, Database
from cdk.config import Environment

ROOT = Path(__file__).resolve().parents[2]


class Migration(Construct):
    """dbmate over `migrations/` on Fargate, started by a person with `command`; to run it twice does no harm.

    It is the only one to have the master's password, which ECS injects: the functions' users log in with
    tokens, and it takes the master to make them. It sits in a public subnet, from where it reaches the
    registry, its secret and the database, and is reached by nobody.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        cluster: ecs.ICluster,
        vpc: ec2.IVpc,
        database: Database,
    ) -> None:
        super().__init__(scope, construct_id)
        secret = database.instance.secret
        assert secret is not None
        log_group = logs.LogGroup(
            self,
            "Logs",
            retention=logs.RetentionDays[environment.log_retention],
            removal_policy=RemovalPolicy.DESTROY,
        )
        task = ecs.FargateTaskDefinition(
            self,
            "Task",
            cpu=256,
            memory_limit_mib=512,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.X86_64,
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
        )
        linux = ecs.LinuxParameters(self, "Linux", init_process_enabled=True)
        linux.drop_capabilities(ecs.Capability.ALL)
        host = database.instance.db_instance_endpoint_address
        task.add_container(
            "Migrate",
            image=ecs.ContainerImage.from_asset(
                str(ROOT), file="migrations/Dockerfile", platform=ecr_assets.Platform.LINUX_AMD64
            ),
            environment={
                "DATABASE_URL": f"postgres://{host}:{PORT}/{NAME}"
                "?sslmode=verify-full&sslrootcert=/app/rds_roots.pem"
            },
            secrets={
                "PGUSER": ecs.Secret.from_secrets_manager(secret, "username"),
                "PGPASSWORD": ecs.Secret.from_secrets_manager(secret, "password"),
            },
            logging=ecs.LogDriver.aws_logs(stream_prefix="migrate", log_group=log_group),
            user="10001:10001",
            readonly_root_filesystem=True,
            linux_parameters=linux,
        )
        door = ec2.SecurityGroup(
            self, "Door", vpc=vpc, description="migrate: nothing in", allow_all_outbound=False
        )
        door.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS: the image, the secret, the log")
        door.connections.allow_to_default_port(database.instance, "the database")
        subnets = vpc.select_subnets(subnet_type=ec2.SubnetType.PUBLIC).subnet_ids
        network = (
            f"subnets=[{','.join(subnets)}],securityGroups=[{door.security_group_id}],assignPublicIp=ENABLED"
        )
        self.command = (
            f"aws ecs run-task --region {Stack.of(self).region} --launch-type FARGATE "
            f"--cluster {cluster.cluster_name} --task-definition {task.task_definition_arn} "
            f"--network-configuration 'awsvpcConfiguration={{{network}}}'"
        )
        Validations.of(task).acknowledge(
            Acknowledgment(
                id="AwsSolutions-ECS2",
                reason="The variable is the database's address; user and password are injected by ECS.",
            ),
            Acknowledgment(
                id="AwsSolutions-IAM5[Resource::*]",
                reason="ecr:GetAuthorizationToken, with which the image is fetched, has no resource level.",
            ),
        )

"""The one-off task that brings the database to the newest schema, and makes its users."""

from __future__ import annotations

from typing import Literal

from aws_cdk import Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from cdk.components.database import NAME, PORT, Database
from cdk.components.fargate_task import FargateTask
from cdk.components.security_group import SecurityGroup
from cdk.config import Environment


class Migration(Construct):
    """dbmate over `migrations/` on Fargate, started by `make deploy` or by hand with `command`; it may be run
    again.

    It is the only one to have the master's password, which ECS injects: the functions' users log in with
    tokens, and it takes the master to make them. It sits in a public subnet, from where it reaches the
    registry, its secret and the database; nothing reaches it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        cluster: ecs.ICluster,
        architecture: Literal["arm64", "x86_64"],
        vpc: ec2.IVpc,
        database: Database,
    ) -> None:
        super().__init__(scope, construct_id)
        secret = database.instance.secret
        assert secret is not None
        host = database.instance.db_instance_endpoint_address
        self.task = FargateTask(
            self,
            "Task",
            name="Migrate",
            dockerfile="migrations/Dockerfile",
            cpu=256,
            memory_mb=512,
            architecture=architecture,
            log_retention=environment.log_retention,
            variables={
                "DATABASE_URL": f"postgres://{host}:{PORT}/{NAME}"
                "?sslmode=verify-full&sslrootcert=/app/rds_roots.pem"
            },
            variables_reason="The variable is the database's address; user and password are injected by ECS.",
            secrets={
                "PGUSER": ecs.Secret.from_secrets_manager(secret, "username"),
                "PGPASSWORD": ecs.Secret.from_secrets_manager(secret, "password"),
            },
        )
        group = SecurityGroup(
            self,
            "Door",
            vpc=vpc,
            description="migrate: nothing in",
            https="AWS: the image, the secret, the log",
        )
        group.connections.allow_to_default_port(database.instance, "the database")
        self.task_definition_arn = self.task.task_definition_arn
        self.log_group_name = self.task.log_group.log_group_name
        self.security_group_id = group.security_group_id
        self.subnets = ",".join(vpc.select_subnets(subnet_type=ec2.SubnetType.PUBLIC).subnet_ids)
        network = f"subnets=[{self.subnets}],securityGroups=[{self.security_group_id}],assignPublicIp=ENABLED"
        self.command = (
            f"aws ecs run-task --region {Stack.of(self).region} --launch-type FARGATE "
            f"--cluster {cluster.cluster_name} --task-definition {self.task.task_definition_arn} "
            f"--network-configuration 'awsvpcConfiguration={{{network}}}'"
        )

"""PostgreSQL, which holds history and scores.

`Database` is RDS, where functions log in with IAM tokens that they sign themselves. `LocalDatabase` is a
server at an address. Both have the same grant: it sets the function's variables of the database's address and
user, and allows the connection. What each user may do there is defined in `migrations/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aws_cdk import Acknowledgment, ArnFormat, Duration, RemovalPolicy, Stack, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_rds as rds
from constructs import Construct

from cdk.components.function import Function
from cdk.components.security_group import SecurityGroup
from cdk.config import DatabaseConfig, Environment

PORT = 5432
NAME = "tickcast"
User = Literal["loader", "reader", "scorer", "repairer"]  # tickcast_… in the database


@dataclass(frozen=True)
class LocalDatabase:
    """A server on this machine, without TLS or passwords; its users are those of AWS."""

    host: str
    port: int

    def grant(self, function: Function, user: User) -> None:
        """Set where the database is, and the user."""
        function.set_variables(
            _address(host=self.host, port=self.port, name="postgres", user=user, iam=False)
        )


class Database(Construct):
    """RDS for PostgreSQL in the private subnets, with TLS and IAM tokens alone.

    The master's password is made, kept and rotated by RDS itself (`instance.secret`); it is for the one-off
    task that creates the users who log in with tokens.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        config: DatabaseConfig,
        vpc: ec2.IVpc,
        subnets: list[ec2.ISubnet],
    ) -> None:
        super().__init__(scope, construct_id)
        engine = rds.DatabaseInstanceEngine.postgres(version=rds.PostgresEngineVersion.VER_18)
        security_group = SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            description="The database: entered from the functions granted, leaves nowhere",
        )
        self.instance = rds.DatabaseInstance(
            self,
            "Instance",
            engine=engine,
            instance_type=ec2.InstanceType(config.instance_type),
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnets=subnets),
            security_groups=[security_group],
            publicly_accessible=False,
            multi_az=config.multi_az,
            database_name=NAME,
            # The roots that tickcast.adapters.postgres.connection verifies by are of this kind.
            ca_certificate=rds.CaCertificate.RDS_CA_RSA2048_G1,
            credentials=rds.Credentials.from_username("tickcast_master"),
            manage_master_user_password=True,
            iam_authentication=True,
            parameter_group=rds.ParameterGroup(
                self,
                "Parameters",
                engine=engine,
                description="TLS only; slow statements are logged",
                parameters={"rds.force_ssl": "1", "log_min_duration_statement": "1000"},
            ),
            storage_encrypted=True,
            storage_type=rds.StorageType.GP3,
            allocated_storage=config.storage_gb,
            max_allocated_storage=config.storage_limit_gb,
            backup_retention=Duration.days(config.backup_days),
            copy_tags_to_snapshot=True,
            auto_minor_version_upgrade=True,
            enable_performance_insights=True,
            performance_insight_retention=rds.PerformanceInsightRetention.DEFAULT,
            deletion_protection=environment.keep_data,
            delete_automated_backups=not environment.keep_data,
            removal_policy=RemovalPolicy.SNAPSHOT if environment.keep_data else RemovalPolicy.DESTROY,
        )
        self._acknowledge(environment.keep_data, config.multi_az)

    def grant(self, function: Function, user: User) -> None:
        """Let `function`, which must be in the VPC, connect as `user`."""
        function.connections.allow_to_default_port(self.instance, "the database")
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["rds-db:connect"],
            resource_arns=[
                Stack.of(self).format_arn(
                    service="rds-db",
                    resource="dbuser",
                    resource_name=f"{self.instance.instance_resource_id}/tickcast_{user}",
                    arn_format=ArnFormat.COLON_RESOURCE_NAME,
                )
            ],
        )
        host = self.instance.db_instance_endpoint_address
        function.set_variables(_address(host=host, port=PORT, name=NAME, user=user, iam=True))

    def _acknowledge(self, keep_data: bool, multi_az: bool) -> None:
        Validations.of(self.instance).acknowledge(
            Acknowledgment(
                id="AwsSolutions-RDS11",
                reason="Another port than 5432 hides nothing: only granted security groups reach it at all.",
            )
        )
        if not multi_az:
            Validations.of(self.instance).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-RDS3",
                    reason="One zone by configuration: what the database holds can be loaded again from S3.",
                )
            )
        if not keep_data:
            Validations.of(self.instance).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-RDS10",
                    reason="This environment is made to be thrown away with its data.",
                )
            )


HistoryDatabase = Database | LocalDatabase


def _address(*, host: str, port: int, name: str, user: User, iam: bool) -> dict[str, str]:
    """The variables of `tickcast.adapters.settings.DatabaseSettings` that depend on where the database is."""
    return {
        "DATABASE_HOST": host,
        "DATABASE_PORT": str(port),
        "DATABASE_NAME": name,
        "DATABASE_USER": f"tickcast_{user}",
        "DATABASE_IAM": "1" if iam else "0",
    }

"""The PostgreSQL instance that holds history and scores."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_rds as rds
from constructs import Construct

from cdk.config import Database as Settings
from cdk.config import Environment


class Database(Construct):
    """RDS for PostgreSQL in the private subnets: TLS forced, entered with IAM tokens.

    The master's password is made, kept and rotated by RDS itself (`instance.secret`); it is for the one-off
    task that creates the users who log in with tokens.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        settings: Settings,
        vpc: ec2.IVpc,
        subnets: list[ec2.ISubnet],
    ) -> None:
        super().__init__(scope, construct_id)
        engine = rds.DatabaseInstanceEngine.postgres(version=rds.PostgresEngineVersion.VER_18)
        security_group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            description="The database: entered from the functions granted, leaves nowhere",
            allow_all_outbound=False,
        )
        self.instance = rds.DatabaseInstance(
            self,
            "Instance",
            engine=engine,
            instance_type=ec2.InstanceType(settings.instance_type),
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnets=subnets),
            security_groups=[security_group],
            publicly_accessible=False,
            multi_az=settings.multi_az,
            database_name="tickcast",
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
            allocated_storage=settings.storage_gb,
            max_allocated_storage=settings.storage_limit_gb,
            backup_retention=Duration.days(settings.backup_days),
            copy_tags_to_snapshot=True,
            auto_minor_version_upgrade=True,
            enable_performance_insights=True,
            performance_insight_retention=rds.PerformanceInsightRetention.DEFAULT,
            deletion_protection=environment.keep_data,
            delete_automated_backups=not environment.keep_data,
            removal_policy=RemovalPolicy.SNAPSHOT if environment.keep_data else RemovalPolicy.DESTROY,
        )
        Validations.of(self.instance).acknowledge(
            Acknowledgment(
                id="AwsSolutions-RDS11",
                reason="Another port than 5432 hides nothing: only granted security groups reach it at all.",
            )
        )
        if not settings.multi_az:
            Validations.of(self.instance).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-RDS3",
                    reason="One zone by configuration: what the database holds can be loaded again from S3.",
                )
            )
        if not environment.keep_data:
            Validations.of(self.instance).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-RDS10",
                    reason="This environment is made to be thrown away with its data.",
                )
            )

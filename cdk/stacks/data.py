"""What outlives the application: the lake, the stream, and on AWS the stores and the exchange's key."""

from __future__ import annotations

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kinesis as kinesis
from constructs import Construct

from cdk.components.database import Database
from cdk.components.exchange_key import ExchangeKey
from cdk.components.hot_store import Cache
from cdk.components.lake import Lake
from cdk.config import AwsConfig, Environment


class DataStack(Stack):
    """The bucket and the stream: locally, all of it."""

    def __init__(self, scope: Construct, construct_id: str, *, environment: Environment) -> None:
        super().__init__(
            scope,
            construct_id,
            env={"region": environment.region},
            termination_protection=environment.keep_data,
            description="tickcast: what outlives the application",
        )
        self.lake = Lake(self, "Lake", environment=environment)
        on_demand = environment.stream.shards is None
        self.stream = kinesis.Stream(
            self,
            "Ticks",
            stream_mode=kinesis.StreamMode.ON_DEMAND if on_demand else kinesis.StreamMode.PROVISIONED,
            shard_count=environment.stream.shards,
            retention_period=Duration.hours(environment.stream.retention_hours),
            encryption=kinesis.StreamEncryption.MANAGED,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
            if environment.keep_data
            else RemovalPolicy.DESTROY,
        )


class AwsDataStack(DataStack):
    """On AWS also the cache, the database, and the place of the exchange's API key."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        config: AwsConfig,
        vpc: ec2.IVpc,
    ) -> None:
        super().__init__(scope, construct_id, environment=environment)
        private = vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED).subnets
        self.cache = Cache(
            self, "Cache", environment=environment, config=config.cache, vpc=vpc, subnets=private
        )
        self.database = Database(
            self, "Database", environment=environment, config=config.database, vpc=vpc, subnets=private
        )
        self.exchange_key = ExchangeKey(self, "ExchangeKey", environment=environment)
        CfnOutput(self, "ExchangeKeyArn", value=self.exchange_key.secret_arn)

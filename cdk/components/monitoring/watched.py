"""What is watched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import Duration, Stack
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as stepfunctions

from cdk.components.database import Database
from cdk.components.function import Function
from cdk.components.hot_store import Cache
from cdk.components.ingest import Ingest
from cdk.components.monitoring.metrics import MINUTE, aws, highest, lowest, total
from cdk.components.signals import SignalRoutes
from cdk.components.stream_consumer import StreamConsumer
from cdk.config import AwsConfig


@dataclass(frozen=True)
class Watched:
    """The resources of an environment. `functions` are all of them, by the names of their folders."""

    config: AwsConfig
    functions: dict[str, Function]
    feeds: Sequence[StreamConsumer]
    stream: kinesis.IStream
    ingest: Ingest
    api: apigateway.RestApi
    score: stepfunctions.StateMachine
    backfill: stepfunctions.StateMachine
    cache: Cache
    database: Database
    lost_signals: sqs.Queue | None = None  # where there are signals

    @property
    def rules(self) -> list[events.Rule]:
        """The rules of the stack, but those of signals: what these cannot start is in a queue, with an alarm
        of its own."""
        return [
            each
            for each in Stack.of(self.ingest).node.find_all()
            if isinstance(each, events.Rule) and not isinstance(each.node.scope, SignalRoutes)
        ]

    def of_database(
        self, name: str, statistic: str, *, period: Duration = MINUTE, label: str = ""
    ) -> cloudwatch.Metric:
        dimensions = {"DBInstanceIdentifier": self.database.instance.instance_identifier}
        return aws("RDS", name, dimensions, statistic, period=period, label=label)

    def of_cache(
        self, name: str, statistic: str, *, period: Duration = MINUTE, label: str = ""
    ) -> cloudwatch.IMetric:
        """Of the node where it is highest (the sum of all, of a sum). ElastiCache names nodes after their
        replication group, from 001 on."""
        nodes = [f"{self.cache.group.ref}-{n:03}" for n in range(1, self.config.cache.nodes + 1)]
        found = [
            aws("ElastiCache", name, {"CacheClusterId": node}, statistic, period=period) for node in nodes
        ]
        over = {"sum": total, "min": lowest}.get(statistic, highest)
        return over(found, label or name)

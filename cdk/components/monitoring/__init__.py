"""Alarms, the topic that they notify, and the dashboards."""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from cdk.components.migration import Migration
from cdk.components.monitoring.alarms import Alarms
from cdk.components.monitoring.dashboards import Business, System
from cdk.components.monitoring.metrics import Own
from cdk.components.monitoring.watched import Watched
from cdk.config import Environment


class Monitoring(Construct):
    """One topic for all alarms, and for a migration that failed; two dashboards, if any.

    A migration is run by hand or by a deployment, and has no metric: its end is an event, and one that is no
    success is sent to the topic with its exit status and reason.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        watched: Watched,
        migration: Migration,
    ) -> None:
        super().__init__(scope, construct_id)
        name, own = f"tickcast-{environment.name}", Own(environment.metrics_namespace)
        self.topic = sns.Topic(self, "Topic", display_name=f"tickcast {environment.name}", enforce_ssl=True)
        self.topic.add_to_resource_policy(
            # The policy that enforces TLS replaces the topic's default one, by which alarms may publish.
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            )
        )
        if watched.config.alarm_email:
            self.topic.add_subscription(subscriptions.EmailSubscription(watched.config.alarm_email))
        self._watch(migration)
        self.alarms = Alarms(self, "Alarms", watched=watched, own=own, topic=self.topic)
        if watched.config.dashboards:
            Business(self, "Business", name=name, own=own)
            System(self, "System", name=name, own=own, watched=watched, alarms=self.alarms.all)

    def _watch(self, migration: Migration) -> None:
        failed = [
            {"containers": {"exitCode": [{"anything-but": [0]}]}},
            {"stopCode": ["TaskFailedToStart"]},
        ]
        field = events.EventField.from_path
        events.Rule(
            self,
            "MigrationFailed",
            description="A migration ended with an error, or did not start",
            event_pattern=events.EventPattern(
                source=["aws.ecs"],
                detail_type=["ECS Task State Change"],
                detail={
                    "lastStatus": ["STOPPED"],
                    "group": [f"family:{migration.task.family}"],  # run-task's own, unless another is given
                    "$or": failed,
                },
            ),
            targets=[
                targets.SnsTopic(
                    self.topic,
                    message=events.RuleTargetInput.from_text(
                        f"MigrationFailed: {field('$.detail.stoppedReason')} (task "
                        f"{field('$.detail.taskArn')}); docs/runbook.md says what to do"
                    ),
                )
            ],
        )

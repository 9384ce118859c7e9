"""Signals: the function that sends them, what invokes it, and what is left of those that reached nobody."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Acknowledgment, Duration, Stack, Validations
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk.components.function import Function
from cdk.components.lake import Lake
from cdk.config import ConfigError, Environment
from tickcast.adapters.receiver_secrets import parameter_name
from tickcast.serving.signals import PREFIX, SignalRule

# What is older is no signal: an alarm of that age has been noticed by other ways.
LONGEST = Duration.minutes(15)


class LostSignals(sqs.Queue):
    """What could not be sent: events that Lambda has repeated in vain, and signals that no repetition could
    have sent, each with the reason."""

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id, retention_period=Duration.days(14), enforce_ssl=True)
        Validations.of(self).acknowledge(
            Acknowledgment(
                id="AwsSolutions-SQS3",
                reason="It is a dead-letter queue itself, of a function and of rules.",
            ),
            Acknowledgment(
                id="Serverless-SQSRedrivePolicy",
                reason="It is a dead-letter queue itself, of a function and of rules.",
            ),
        )


class SignalRoutes(Construct):
    """What invokes `function`, and what becomes of an event that it fails on: Lambda repeats it twice, after
    one minute and two, and then puts it into `lost`.

    The bucket sends its events to EventBridge, which passes on those of signals. (A notification straight to
    the function would have to be set by the stack of the bucket, which is deployed before the function's.)
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        function: Function,
        lake: Lake,
        lost: LostSignals,
    ) -> None:
        super().__init__(scope, construct_id)
        self._function, self.lost = function, lost
        self._repeat()
        # Both what Lambda puts there after its repetitions and what the function gives up at once.
        iam.Grant.add_to_principal(
            grantee=function, actions=["sqs:SendMessage"], resource_arns=[lost.queue_arn]
        )
        lake.grant_read(function, f"{PREFIX}*")
        self._grant_parameters(environment.name)
        self._invoke_on(
            "Written",
            "A signal was written to the lake",
            events.EventPattern(
                source=["aws.s3"],
                detail_type=["Object Created"],
                detail={
                    "bucket": {"name": [lake.bucket.bucket_name]},
                    "object": {"key": [{"prefix": PREFIX}]},
                },
            ),
        )

    def _repeat(self) -> None:
        """Written out: the construct's destination would also grant what nothing here uses."""
        config = lambda_.CfnEventInvokeConfig
        on_failure = config.OnFailureProperty(destination=self.lost.queue_arn)
        repeated = config(
            self,
            "Repetitions",
            function_name=self._function.function_name,
            qualifier="$LATEST",
            destination_config=config.DestinationConfigProperty(on_failure=on_failure),
            maximum_event_age_in_seconds=LONGEST.to_seconds(),
            maximum_retry_attempts=2,
        )
        # Lambda checks that the role may send there.
        assert self._function.role is not None
        repeated.node.add_dependency(self._function.role)

    def add_alarms(self, rules: Sequence[SignalRule], alarms: Sequence[cloudwatch.Alarm]) -> None:
        """Invoke the function when an alarm of this stack that one of `rules` names is raised or over. Raises
        `ConfigError` for a rule that names an alarm that there is not."""
        known = sorted(alarm.node.id for alarm in alarms)
        prefix = f"{Stack.of(self).stack_name}-MonitoringAlarms"
        for rule in rules:
            for name in rule.alarms or ():
                if name not in known:
                    raise ConfigError(
                        f"signals: rule {rule.name}: there is no alarm {name}; there are {', '.join(known)}"
                    )
            self._invoke_on(
                f"Alarm-{rule.name}",
                f"An alarm is raised or over: {rule.name}",
                events.EventPattern(
                    source=["aws.cloudwatch"],
                    detail_type=["CloudWatch Alarm State Change"],
                    detail={
                        "alarmName": [{"prefix": f"{prefix}{name}"} for name in rule.alarms or ("",)],
                        "$or": [
                            {"state": {"value": ["ALARM"]}},
                            # Not after a deployment, when there is a first figure.
                            {"state": {"value": ["OK"]}, "previousState": {"value": ["ALARM"]}},
                        ],
                    },
                ),
                events.RuleTargetInput.from_object(
                    {"rule": rule.name, "event": events.EventField.from_path("$")}
                ),
            )

    def _invoke_on(
        self,
        name: str,
        description: str,
        pattern: events.EventPattern,
        request: events.RuleTargetInput | None = None,
    ) -> None:
        target = targets.LambdaFunction(
            self._function,
            event=request,
            dead_letter_queue=self.lost,
            retry_attempts=3,
            max_event_age=LONGEST,
        )
        events.Rule(self, name, description=description, event_pattern=pattern, targets=[target])

    def _grant_parameters(self, environment: str) -> None:
        """Lets the function read the receivers. AWS's own key for parameters needs no further right."""
        resource = f"parameter{parameter_name(environment, '*')}"
        arn = Stack.of(self).format_arn(service="ssm", resource=resource)
        iam.Grant.add_to_principal(grantee=self._function, actions=["ssm:GetParameter"], resource_arns=[arn])
        role = self._function.role
        assert role is not None
        pieces = Stack.of(self).resolve(arn)["Fn::Join"][1]
        written = "".join(piece if isinstance(piece, str) else f"<{piece['Ref']}>" for piece in pieces)
        Validations.of(role).acknowledge(
            Acknowledgment(
                id=f"AwsSolutions-IAM5[Resource::{written}]",
                reason="One action on the parameters of this environment's destinations.",
            )
        )

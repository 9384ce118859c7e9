"""The state machine that fills history and trains from it, and its timetable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aws_cdk import Acknowledgment, RemovalPolicy, Stack, Validations
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as stepfunctions
from constructs import Construct

from cdk.config import Environment

DEFINITION = Path(__file__).resolve().parents[2] / "state_machines" / "backfill_and_retrain.asl.json"


class Backfill(Construct):
    """`backfill_and_retrain`, started by the clock with the days that the configuration names.

    A definition from a file brings no rights by itself: the machine may call its functions and start itself,
    each granted by name. Its own name is fixed, because a role that named the machine it belongs to otherwise
    would be a circle.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        functions: Mapping[str, lambda_.Function],
    ) -> None:
        """`functions` by their names in the definition, as in `${FetchHistory}`."""
        super().__init__(scope, construct_id)
        name = f"tickcast-{environment.name}-backfill"
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("states.amazonaws.com"),
            description="What the state machine of history may do",
        )
        self.machine = stepfunctions.StateMachine(
            self,
            "Machine",
            state_machine_name=name,
            definition_body=stepfunctions.DefinitionBody.from_string(DEFINITION.read_text("utf-8")),
            definition_substitutions={name: function.function_arn for name, function in functions.items()},
            role=role,
            tracing_enabled=True,
            logs=stepfunctions.LogOptions(
                destination=logs.LogGroup(
                    self,
                    "Logs",
                    # Under this prefix the log service needs no policy that grows with each state machine.
                    log_group_name=f"/aws/vendedlogs/states/{name}",
                    retention=logs.RetentionDays[environment.log_retention],
                    removal_policy=RemovalPolicy.DESTROY,
                ),
                level=stepfunctions.LogLevel.ALL,
                include_execution_data=True,
            ),
        )
        for function in functions.values():
            self._allow(role, "lambda:InvokeFunction", function.function_arn)
        self._allow(
            role,
            "states:StartExecution",
            Stack.of(self).format_arn(service="states", resource=f"stateMachine:{name}"),
        )
        history = environment.history
        if history.schedule:
            events.Rule(
                self,
                "Schedule",
                description=f"The last {history.days} days of history, what the gap ledger misses, training",
                schedule=events.Schedule.expression(history.schedule),
                targets=[
                    targets.SfnStateMachine(
                        self.machine,
                        input=events.RuleTargetInput.from_object(
                            {"days": history.days, "repair": True}
                            | ({"train": {"days": history.train_days}} if history.train_days else {})
                        ),
                    )
                ],
            )
        Validations.of(role).acknowledge(
            Acknowledgment(
                id="AwsSolutions-IAM5[Resource::*]",
                reason="The actions of X-Ray and those by which a log's delivery is set up have no resource.",
            )
        )

    @staticmethod
    def _allow(role: iam.Role, action: str, resource_arn: str) -> None:
        role.add_to_policy(iam.PolicyStatement(actions=[action], resources=[resource_arn]))

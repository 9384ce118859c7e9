"""A state machine with the rights that its definition needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aws_cdk import Acknowledgment, Duration, Stack, Validations
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_stepfunctions as stepfunctions
from constructs import Construct

from cdk.components.log_group import LogGroup
from cdk.config import Environment

DEFINITIONS = Path(__file__).resolve().parents[2] / "state_machines"


class Workflow(Construct):
    """The state machine of `state_machines/<definition>.asl.json`, called `tickcast-<environment>-<name>`.

    A definition from a file brings no rights by itself: the machine may call its functions and start the
    workflows named, and no more. Names are fixed, because a role that named the machine it belongs to
    otherwise would be a circle.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        name: str,
        definition: str,
        functions: Mapping[str, lambda_.Function],
        starts: Sequence[str] = (),
        is_express: bool = False,
    ) -> None:
        """`functions` by their names in the definition, as in `${FetchHistory}`; `starts`, the names of the
        workflows it may start, itself perhaps, can be named in it as `${backfill}`. `is_express`: short,
        frequent, billed by the millisecond, and kept only in its log."""
        super().__init__(scope, construct_id)
        prefix, stack = f"tickcast-{environment.name}", Stack.of(self)
        full_name = f"{prefix}-{name}"
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("states.amazonaws.com"),
            description=f"What the state machine {name} may do",
        )
        called = {name: function.function_arn for name, function in functions.items()}
        started = {
            each: stack.format_arn(service="states", resource=f"stateMachine:{prefix}-{each}")
            for each in starts
        }
        types = stepfunctions.StateMachineType
        self.machine = stepfunctions.StateMachine(
            self,
            "Machine",
            state_machine_name=full_name,
            state_machine_type=types.EXPRESS if is_express else types.STANDARD,
            definition_body=stepfunctions.DefinitionBody.from_string(
                (DEFINITIONS / f"{definition}.asl.json").read_text("utf-8")
            ),
            definition_substitutions=called | started,
            role=role,
            tracing_enabled=environment.tracing,
            logs=stepfunctions.LogOptions(
                destination=LogGroup(
                    self,
                    "Logs",
                    # Under this prefix the log service needs no policy that grows with each state machine.
                    log_group_name=f"/aws/vendedlogs/states/{full_name}",
                    retention=environment.log_retention,
                ),
                # What runs every minute logs failures alone.
                level=stepfunctions.LogLevel.ERROR if is_express else stepfunctions.LogLevel.ALL,
                include_execution_data=True,
            ),
        )
        for action, arns in (("lambda:InvokeFunction", called), ("states:StartExecution", started)):
            for arn in arns.values():
                role.add_to_policy(iam.PolicyStatement(actions=[action], resources=[arn]))
        self._acknowledge(role, environment.tracing, is_express)

    def start_on(
        self,
        schedule: events.Schedule,
        *,
        description: str,
        retry_attempts: int,
        max_event_age: Duration | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        """Start the machine on `schedule` with `request`; a start that fails is tried again so often."""
        target = targets.SfnStateMachine(
            self.machine,
            retry_attempts=retry_attempts,
            max_event_age=max_event_age,
            input=events.RuleTargetInput.from_object(request) if request else None,
        )
        stack, name = Stack.of(self), f"{self.node.id}Time"
        rule = events.Rule(stack, name, description=description, schedule=schedule, targets=[target])
        # The rule itself waits for the role alone, and its first starts would be refused.
        rule.node.add_dependency(self.machine.node.find_child("EventsRole"))

    def _acknowledge(self, role: iam.Role, tracing: bool, is_express: bool) -> None:
        Validations.of(role).acknowledge(
            Acknowledgment(
                id="AwsSolutions-IAM5[Resource::*]",
                reason="The actions of X-Ray and those by which a log's delivery is set up have no resource.",
            )
        )
        if not tracing:
            Validations.of(self.machine).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-SF2",
                    reason="Traces have a price for each execution; the log has every step that failed, and "
                    "`tracing` switches them on.",
                )
            )
        if is_express:
            Validations.of(self.machine).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-SF1",
                    reason="Once a minute: every event of what went well would be most of the log.",
                )
            )

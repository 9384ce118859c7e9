"""What has to exist before: a service that starts, or checks its role, when it is created needs that role's
policies, and CloudFormation knows of them only by `DependsOn`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from operations.rehearsal.finding import rule
from operations.rehearsal.rules import pages
from operations.rehearsal.template import Resource, Templates

Found = Iterator[tuple[Resource | str, str, str]]

POLICIES = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy")


def created_before(resource: Resource, templates: Templates) -> set[tuple[str, str]]:
    """(stack, logical id) of all that exists when CloudFormation begins to create `resource`: what it refers
    to or depends on, what that does, and all of the stacks before its own."""
    own = {one.logical_id: one for one in templates.resources() if one.stack == resource.stack}
    reached: set[str] = set()
    waiting = [resource.logical_id]
    while waiting:
        for name in own[waiting.pop()].references() & own.keys() - reached:
            reached.add(name)
            waiting.append(name)
    stacks = list(templates.documents)
    before = stacks[: stacks.index(resource.stack)]
    return {(resource.stack, name) for name in reached} | {
        (one.stack, one.logical_id) for one in templates.resources() if one.stack in before
    }


def roles_of(resource: Resource, templates: Templates) -> Iterator[tuple[str, Resource]]:
    """The roles with which a resource works, and what each is to it."""
    properties: dict[str, Any] = resource.written.get("Properties", {})
    match resource.kind:
        case "AWS::ECS::Service":
            task = templates.named_by(properties.get("TaskDefinition"), resource.stack)
            named = task.written["Properties"] if task else {}
            given = [(name, named.get(name)) for name in ("TaskRoleArn", "ExecutionRoleArn")]
        case "AWS::Lambda::EventSourceMapping":
            function = templates.named_by(properties.get("FunctionName"), resource.stack)
            given = [("Role", function.written["Properties"].get("Role"))] if function else []
        case "AWS::Events::Rule":
            given = [("RoleArn", target.get("RoleArn")) for target in properties.get("Targets", ())]
        case _:
            names = ("Role", "RoleArn", "DeliverLogsPermissionArn", "CloudWatchRoleArn")
            given = [(name, properties.get(name)) for name in names]
    for what, value in given:
        if role := templates.named_by(value, resource.stack):
            yield what, role


@rule(
    "role-before-service",
    "the policies of the roles that a service works with exist before it is created",
    source=pages.DEPENDS_ON,
    kinds=(
        "AWS::ECS::Service",
        "AWS::Lambda::Function",
        "AWS::Lambda::EventSourceMapping",
        "AWS::StepFunctions::StateMachine",
        "AWS::Events::Rule",
        "AWS::EC2::FlowLog",
        "AWS::ApiGateway::Account",
    ),
    remedy="add node.add_dependency(policy) to the construct",
)
def policies(templates: Templates) -> Found:
    attached: dict[tuple[str, str], list[Resource]] = {}
    for policy in templates.resources(*POLICIES):
        properties = policy.written["Properties"]
        for named in (*properties.get("Roles", ()), properties.get("RoleName")):
            if role := templates.named_by(named, policy.stack):
                attached.setdefault((role.stack, role.logical_id), []).append(policy)
    for resource in templates.resources(*policies.kinds):
        if resource.kind == "AWS::Lambda::Function" and "VpcConfig" not in resource.properties:
            continue  # its role is used when it runs, and what invokes it has a rule of its own
        there = created_before(resource, templates)
        for what, role in roles_of(resource, templates):
            for policy in attached.get((role.stack, role.logical_id), ()):
                if (policy.stack, policy.logical_id) not in there:
                    problem = f"may exist before {policy.path}, the policy of its role {role.path}"
                    yield resource, what, problem


@rule(
    "logs-role-before-stage",
    "a stage that writes logs or metrics exists after the account's role for them",
    source=pages.API_LOGGING,
    kinds=("AWS::ApiGateway::Stage",),
    remedy="let the stage depend on the AWS::ApiGateway::Account",
    in_account=True,
)
def stage_logs(templates: Templates) -> Found:
    for stage in templates.resources("AWS::ApiGateway::Stage"):
        settings = stage.properties.get("MethodSettings", ())
        writes = any(one.get("LoggingLevel", "OFF") != "OFF" for one in settings)
        if not writes and "AccessLogSetting" not in stage.properties:
            continue
        accounts = templates.resources("AWS::ApiGateway::Account")
        there = created_before(stage, templates)
        if not any((one.stack, one.logical_id) in there for one in accounts):
            yield stage, "", "writes logs, and may exist before the account's role for them"


@rule(
    "gateway-before-route",
    "a route to an internet gateway exists after the gateway is attached",
    source=pages.DEPENDS_ON,
    kinds=("AWS::EC2::Route",),
    remedy="let the route depend on the AWS::EC2::VPCGatewayAttachment",
)
def routes(templates: Templates) -> Found:
    attachments = templates.resources("AWS::EC2::VPCGatewayAttachment")
    for route in templates.resources("AWS::EC2::Route"):
        if "GatewayId" not in route.properties:
            continue
        there = created_before(route, templates)
        if not any((one.stack, one.logical_id) in there for one in attachments):
            yield route, "GatewayId", "may exist before its gateway is attached"


@rule(
    "way-out-before-service",
    "the rules by which a task gets out, to its image among others, exist before the service starts it",
    source=pages.DEPENDS_ON,
    kinds=("AWS::ECS::Service", "AWS::EC2::SecurityGroupEgress"),
    remedy="let the service depend on its security group with all of its rules",
)
def ways_out(templates: Templates) -> Found:
    for service in templates.resources("AWS::ECS::Service"):
        there = created_before(service, templates)
        network = service.written["Properties"].get("NetworkConfiguration", {}).get("AwsvpcConfiguration", {})
        groups = [templates.named_by(one, service.stack) for one in network.get("SecurityGroups", ())]
        for out in templates.resources("AWS::EC2::SecurityGroupEgress"):
            group = templates.named_by(out.written["Properties"].get("GroupId"), out.stack)
            if group and group in groups and (out.stack, out.logical_id) not in there:
                yield service, "SecurityGroups", f"may start before {out.path} lets it out"


@rule(
    "permission-to-invoke",
    "a rule that invokes a function has the function's permission",
    source=pages.EVENTS_RESOURCE_POLICIES,
    kinds=("AWS::Events::Rule", "AWS::Lambda::Permission"),
    remedy="add an AWS::Lambda::Permission for events.amazonaws.com",
)
def invocations(templates: Templates) -> Found:
    allowed = {
        (found.stack, found.logical_id)
        for one in templates.resources("AWS::Lambda::Permission")
        if one.properties.get("Principal") == "events.amazonaws.com"
        and (found := templates.named_by(one.written["Properties"]["FunctionName"], one.stack))
    }
    for one in templates.resources("AWS::Events::Rule"):
        for target in one.written["Properties"].get("Targets", ()):
            found = templates.named_by(target["Arn"], one.stack)
            if not found or found.kind != "AWS::Lambda::Function":
                continue
            if (found.stack, found.logical_id) not in allowed:
                yield one, "Targets", f"invokes {found.path}, which does not allow it"


RULES = (policies, stage_logs, routes, ways_out, invocations)

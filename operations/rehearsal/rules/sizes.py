"""How large documents may be, and how many items a resource may have."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from layers.build import size_bytes
from layers.catalog import BUILT, OF_FUNCTION
from operations.rehearsal.finding import Check, Rule, rule
from operations.rehearsal.rules import pages
from operations.rehearsal.synthesis import ROOT
from operations.rehearsal.template import Resource, Templates

Found = Iterator[tuple[Resource | str, str, str]]

INLINE_POLICIES_BYTES = 10_240
MANAGED_POLICY_BYTES = 6144
TRUST_POLICY_BYTES = 2048
MANAGED_POLICIES = 10
VARIABLES_BYTES = 4096
FUNCTION_LAYERS = 5
UNZIPPED_BYTES = 250 << 20
FUNCTION_POLICY_BYTES = 20 << 10
BUCKET_POLICY_BYTES = 20 << 10
TOPIC_POLICY_BYTES = 30 << 10
DEFINITION_BYTES = 1 << 20
TEMPLATE_BYTES = 1 << 20
RESOURCES, OUTPUTS, PARAMETERS = 500, 200, 200
DESCRIPTION_BYTES = 1024
DASHBOARD_WIDGETS, WIDGET_METRICS, DASHBOARD_METRICS = 500, 500, 2500
TASK_BYTES = 64 << 10
CONTAINERS = 10


def compact(document: Any) -> int:
    """The length of a document as IAM counts it: without white space."""
    return len(json.dumps(document, separators=(",", ":")))


def _more_than(limit: int, kind: str, *place: str) -> Check:
    """A check of how many items a list at `place` has."""

    def check(templates: Templates) -> Found:
        for resource in templates.resources(kind):
            value: Any = resource.properties
            for name in place:
                value = value.get(name) if isinstance(value, dict) else None
            if isinstance(value, list) and len(value) > limit:
                yield resource, ".".join(place), f"has {len(value)} items; {limit} are allowed"

    return check


def role_of(policy: Resource, templates: Templates) -> Iterator[Resource]:
    """The roles that a policy is attached to."""
    for role in policy.written["Properties"].get("Roles", ()):
        if found := templates.named_by(role, policy.stack):
            yield found


@rule(
    "inline-policies-size",
    f"the inline policies of a role have at most {INLINE_POLICIES_BYTES} characters without white space",
    source=pages.IAM_LIMITS,
    kinds=("AWS::IAM::Policy", "AWS::IAM::Role"),
    remedy="make statements of one effect and condition into one, or give part of them to a managed policy",
)
def inline_policies(templates: Templates) -> Found:
    total: dict[str, int] = defaultdict(int)
    roles = {f"{role.stack}/{role.logical_id}": role for role in templates.resources("AWS::IAM::Role")}
    for key, role in roles.items():
        total[key] += sum(compact(p["PolicyDocument"]) for p in role.properties.get("Policies", ()))
    for policy in templates.resources("AWS::IAM::Policy"):
        for role in role_of(policy, templates):
            total[f"{role.stack}/{role.logical_id}"] += compact(policy.properties["PolicyDocument"])
    for key, length in total.items():
        if length > INLINE_POLICIES_BYTES:
            yield roles[key], "Policies", f"have {length} characters; {INLINE_POLICIES_BYTES} are allowed"


@rule(
    "managed-policy-size",
    f"a managed policy has at most {MANAGED_POLICY_BYTES} characters without white space",
    source=pages.IAM_LIMITS,
    kinds=("AWS::IAM::ManagedPolicy",),
    remedy="divide it into several policies",
)
def managed_policy(templates: Templates) -> Found:
    for policy in templates.resources("AWS::IAM::ManagedPolicy"):
        length = compact(policy.properties["PolicyDocument"])
        if length > MANAGED_POLICY_BYTES:
            yield policy, "PolicyDocument", f"has {length} characters; {MANAGED_POLICY_BYTES} are allowed"


@rule(
    "trust-policy-size",
    f"a role's trust policy has at most {TRUST_POLICY_BYTES} characters",
    source=pages.IAM_LIMITS,
    kinds=("AWS::IAM::Role",),
    remedy="name fewer principals, or let each have a role of its own",
)
def trust_policy(templates: Templates) -> Found:
    for role in templates.resources("AWS::IAM::Role"):
        length = compact(role.properties["AssumeRolePolicyDocument"])
        if length > TRUST_POLICY_BYTES:
            yield (
                role,
                "AssumeRolePolicyDocument",
                f"has {length} characters; {TRUST_POLICY_BYTES} are allowed",
            )


@rule(
    "variables-size",
    f"a function's environment variables, names and values, have at most {VARIABLES_BYTES} bytes",
    source=pages.FUNCTION_LIMITS,
    kinds=("AWS::Lambda::Function",),
    remedy="give the function only the variables that its settings read",
)
def variables(templates: Templates) -> Found:
    for function in templates.resources("AWS::Lambda::Function"):
        given = function.properties.get("Environment", {}).get("Variables", {})
        length = sum(len(f"{name}{value}".encode()) for name, value in given.items())
        if length > VARIABLES_BYTES:
            yield function, "Environment", f"has {length} bytes; {VARIABLES_BYTES} are allowed"


@rule(
    "function-unzipped-size",
    "a function and its layers, where these are built, have at most 250 MB unzipped",
    source=pages.FUNCTION_LIMITS,
    kinds=("AWS::Lambda::Function", "AWS::Lambda::LayerVersion"),
    remedy="take a package out of the function's layers (layers/catalog.py)",
)
def unzipped(templates: Templates) -> Found:
    folders = {name: ROOT / ".build" / "layers" / "aws" / name for name in BUILT}
    folders["core"] = ROOT / "layers" / "core"
    sizes = {name: size_bytes(folder) for name, folder in folders.items() if folder.is_dir()}
    for function in templates.resources("AWS::Lambda::Function"):
        variables = function.properties.get("Environment", {}).get("Variables", {})
        layers = OF_FUNCTION.get(variables.get("POWERTOOLS_SERVICE_NAME", ""), ())
        total = sum(sizes.get(layer, 0) for layer in layers)
        if total > UNZIPPED_BYTES:
            yield function, "Layers", f"have {total >> 20} MB unzipped; {UNZIPPED_BYTES >> 20} are allowed"


@rule(
    "function-policy-size",
    f"the permissions on a function make a policy of at most {FUNCTION_POLICY_BYTES} bytes",
    source=pages.FUNCTION_LIMITS,
    kinds=("AWS::Lambda::Permission",),
    remedy="make permissions of one principal into one with a wildcard in SourceArn",
)
def function_policy(templates: Templates) -> Found:
    total: dict[str, int] = defaultdict(int)
    last = {}
    for permission in templates.resources("AWS::Lambda::Permission"):
        function = str(permission.properties["FunctionName"])
        # A statement repeats the function's ARN and has an id; conditions take some 200 characters.
        total[function] += compact(permission.properties) + len(permission.logical_id) + 200
        last[function] = permission
    for function, length in total.items():
        if length > FUNCTION_POLICY_BYTES:
            problem = f"makes a policy of about {length} bytes; {FUNCTION_POLICY_BYTES} are allowed"
            yield last[function], "", problem


def _policy_of(kind: str, limit: int) -> Check:
    def check(templates: Templates) -> Found:
        for policy in templates.resources(kind):
            length = compact(policy.properties["PolicyDocument"])
            if length > limit:
                yield policy, "PolicyDocument", f"has {length} bytes; {limit} are allowed"

    return check


@rule(
    "definition-size",
    f"a state machine's definition has at most {DEFINITION_BYTES} bytes",
    source=pages.STATE_MACHINE,
    kinds=("AWS::StepFunctions::StateMachine",),
    remedy="move states into a state machine of their own",
)
def definition(templates: Templates) -> Found:
    for machine in templates.resources("AWS::StepFunctions::StateMachine"):
        written = machine.properties.get("DefinitionString", "")
        length = len(written.encode()) if isinstance(written, str) else compact(written)
        if length > DEFINITION_BYTES:
            yield machine, "DefinitionString", f"has {length} bytes; {DEFINITION_BYTES} are allowed"


@rule(
    "task-size",
    f"a task definition has at most {TASK_BYTES} bytes and {CONTAINERS} containers",
    source=pages.ECS_LIMITS,
    kinds=("AWS::ECS::TaskDefinition",),
    remedy="put what is long into a parameter or an object that the task reads",
)
def task(templates: Templates) -> Found:
    for one in templates.resources("AWS::ECS::TaskDefinition"):
        length, containers = compact(one.properties), len(one.properties.get("ContainerDefinitions", ()))
        if length > TASK_BYTES:
            yield one, "", f"has {length} bytes; {TASK_BYTES} are allowed"
        if containers > CONTAINERS:
            yield one, "ContainerDefinitions", f"are {containers}; {CONTAINERS} are allowed"


@rule(
    "template-size",
    f"a template has at most {TEMPLATE_BYTES} bytes, {RESOURCES} resources, {OUTPUTS} outputs and "
    f"{PARAMETERS} parameters",
    source=pages.CLOUDFORMATION_LIMITS,
    remedy="move part of the stack into another one",
)
def template(templates: Templates) -> Found:
    for stack, document in templates.documents.items():
        length = len(json.dumps(document, indent=1).encode())
        if length > TEMPLATE_BYTES:
            yield stack, "", f"has {length} bytes; {TEMPLATE_BYTES} are allowed"
        for section, limit in (("Resources", RESOURCES), ("Outputs", OUTPUTS), ("Parameters", PARAMETERS)):
            if len(document.get(section, ())) > limit:
                yield stack, section, f"are {len(document[section])}; {limit} are allowed"


@rule(
    "template-texts",
    "the descriptions of a template, a parameter and an output have at most 1,024 bytes, an output's value "
    "as well, and an export's name 255 letters, digits, colons and hyphens",
    source=pages.CLOUDFORMATION_LIMITS,
    remedy="shorten the text",
)
def template_texts(templates: Templates) -> Found:
    for stack, document in templates.documents.items():
        texts = {"Description": document.get("Description", "")}
        for section in ("Outputs", "Parameters"):
            for name, entry in document.get(section, {}).items():
                texts[f"{section}.{name}.Description"] = entry.get("Description", "")
                texts[f"{section}.{name}.Value"] = templates.resolved(entry.get("Value", ""), stack)
        for place, text in texts.items():
            length = len(str(text).encode())
            if length > DESCRIPTION_BYTES:
                yield stack, place, f"has {length} bytes; {DESCRIPTION_BYTES} are allowed"
    for name, (stack, _) in templates.exports.items():
        refused = {one for one in name if not (one.isascii() and one.isalnum() or one in ":-")}
        if len(name) > 255 or refused:
            yield (
                stack,
                f"export {name[:80]}",
                f"has {len(name)} characters and {refused or 'nothing refused'}",
            )


@rule(
    "dashboard-size",
    f"a dashboard has at most {DASHBOARD_WIDGETS} widgets, {WIDGET_METRICS} metrics in one and "
    f"{DASHBOARD_METRICS} in all",
    source=pages.DASHBOARD_LIMITS,
    kinds=("AWS::CloudWatch::Dashboard",),
    remedy="divide the dashboard into several",
)
def dashboard(templates: Templates) -> Found:
    for board in templates.resources("AWS::CloudWatch::Dashboard"):
        try:
            widgets = json.loads(board.properties["DashboardBody"])["widgets"]
        except (ValueError, KeyError, TypeError):
            yield board, "DashboardBody", "is not a JSON document with widgets"
            continue
        metrics = [len(widget.get("properties", {}).get("metrics", ())) for widget in widgets]
        if len(widgets) > DASHBOARD_WIDGETS:
            yield board, "DashboardBody", f"has {len(widgets)} widgets; {DASHBOARD_WIDGETS} are allowed"
        if max(metrics, default=0) > WIDGET_METRICS or sum(metrics) > DASHBOARD_METRICS:
            yield (
                board,
                "DashboardBody",
                f"has {max(metrics)} metrics in a widget and {sum(metrics)} in all; {WIDGET_METRICS} and "
                f"{DASHBOARD_METRICS} are allowed",
            )


def _count(name: str, limit: int, source: str, remedy: str, kind: str, *place: str) -> Rule:
    checks = f"at most {limit} items in {'.'.join(place)}"
    return Rule(name, checks, source, (kind,), remedy, _more_than(limit, kind, *place))


RULES = (
    inline_policies,
    managed_policy,
    trust_policy,
    variables,
    unzipped,
    function_policy,
    definition,
    task,
    template,
    template_texts,
    dashboard,
    Rule(
        "bucket-policy-size",
        f"a bucket's policy has at most {BUCKET_POLICY_BYTES} bytes",
        pages.BUCKET_POLICY,
        ("AWS::S3::BucketPolicy",),
        "name prefixes in fewer statements",
        _policy_of("AWS::S3::BucketPolicy", BUCKET_POLICY_BYTES),
    ),
    Rule(
        "topic-policy-size",
        f"a topic's policy has at most {TOPIC_POLICY_BYTES} bytes",
        pages.TOPIC_LIMITS,
        ("AWS::SNS::TopicPolicy",),
        "allow a service once, with a condition for its sources",
        _policy_of("AWS::SNS::TopicPolicy", TOPIC_POLICY_BYTES),
    ),
    _count(
        "function-layers",
        FUNCTION_LAYERS,
        pages.FUNCTION,
        "make layers that always go together into one",
        "AWS::Lambda::Function",
        "Layers",
    ),
    _count(
        "role-managed-policies",
        MANAGED_POLICIES,
        pages.IAM_LIMITS,
        "make several policies into one",
        "AWS::IAM::Role",
        "ManagedPolicyArns",
    ),
    _count(
        "rule-targets",
        5,
        pages.EVENTS_LIMITS,
        "give further targets to a second rule",
        "AWS::Events::Rule",
        "Targets",
    ),
    _count(
        "alarm-actions",
        5,
        pages.ALARM,
        "let one topic notify all",
        "AWS::CloudWatch::Alarm",
        "AlarmActions",
    ),
    _count(
        "alarm-dimensions",
        30,
        pages.ALARM,
        "name fewer dimensions",
        "AWS::CloudWatch::Alarm",
        "Dimensions",
    ),
    _count(
        "event-source-filters",
        5,
        pages.FUNCTION_EVENT_SOURCE,
        "make filters into one pattern",
        "AWS::Lambda::EventSourceMapping",
        "FilterCriteria",
        "Filters",
    ),
    _count(
        "bucket-rules",
        1000,
        pages.BUCKET_RULES,
        "make rules of one age into one by a common prefix",
        "AWS::S3::Bucket",
        "LifecycleConfiguration",
        "Rules",
    ),
    _count(
        "cache-users",
        100,
        pages.CACHE_LIMITS,
        "let functions of the same rights share a user",
        "AWS::ElastiCache::UserGroup",
        "UserIds",
    ),
)

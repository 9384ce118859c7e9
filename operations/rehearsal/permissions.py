"""`docs/permissions.md`: what each role may do, from the templates of all environments."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from operations.rehearsal.template import ACCOUNT, Resource, Templates

_POLICIES = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
_HEAD = """# Permissions

What each role may do, in every environment. Generated from the templates; after a change that is meant:
`.venv/bin/python -m operations document`. A test fails when this file and the templates differ.

`{Lake/Bucket}` is the resource of that construct. A right of some environments only names them.
"""


class Right(NamedTuple):
    """One action on one resource. `condition` is JSON, empty without one; `effect` is Allow or Deny."""

    role: str
    effect: str
    action: str
    resource: str
    condition: str


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _shown(value: Any, templates: Templates, stack: str, name: str) -> str:
    """A value in one line: references as the construct's path in braces, the environment as {env}."""
    if isinstance(value, dict) and len(value) == 1:
        [(function, argument)] = value.items()
        if found := templates.named_by(value, stack):
            return f"{{{found.path}}}"
        match function, argument:
            case "Fn::Join", [separator, parts]:
                return str(separator).join(_shown(part, templates, stack, name) for part in parts)
            case "Ref", "AWS::Partition":
                return "aws"
            case "Ref", "AWS::Region" | "AWS::AccountId":
                return "{region}" if argument == "AWS::Region" else "{account}"
            case "Fn::ImportValue" | "Fn::Sub" | "Ref" | "Fn::GetAtt" | "Fn::Select", _:
                return _shown(templates.resolved(value, stack), templates, stack, name)
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return re.sub(
        rf"\btickcast-{name}\b",
        "tickcast-{env}",
        text.replace(templates.region, "{region}").replace(ACCOUNT, "{account}"),
    )


def _role_name(role: Resource) -> str:
    return re.sub(r"(Parts)?/(Role|ServiceRole|Resource)$", "", role.path)


def rights(templates: Templates, name: str) -> Iterator[Right]:
    """All rights of all roles, sorted neither here nor by AWS."""
    for role in templates.resources("AWS::IAM::Role"):
        for inline in role.written["Properties"].get("Policies", ()):
            yield from _of_document(role, inline["PolicyDocument"], role.stack, templates, name)
        for managed in role.written["Properties"].get("ManagedPolicyArns", ()):
            arn = _shown(managed, templates, role.stack, name)
            yield Right(_role_name(role), "Allow", "managed policy", arn, "")
    for policy in templates.resources(*_POLICIES):
        for named in policy.written["Properties"].get("Roles", ()):
            if holder := templates.named_by(named, policy.stack):
                written = policy.written["Properties"]["PolicyDocument"]
                yield from _of_document(holder, written, policy.stack, templates, name)


def _of_document(
    role: Resource, document: Mapping[str, Any], stack: str, templates: Templates, name: str
) -> Iterator[Right]:
    for statement in document["Statement"]:
        condition = statement.get("Condition")
        shown = _shown(templates.resolved(condition, stack), templates, stack, name) if condition else ""
        for action in _listed(statement["Action"]):
            for resource in _listed(statement.get("Resource", "*")):
                at = _shown(resource, templates, stack, name)
                yield Right(_role_name(role), statement["Effect"], action, at, shown)


def trusted(templates: Templates) -> dict[str, str]:
    """Who may take each role."""
    found = {}
    for role in templates.resources("AWS::IAM::Role"):
        statements = role.properties["AssumeRolePolicyDocument"]["Statement"]
        principals = [one for each in statements for one in each["Principal"].values()]
        found[_role_name(role)] = ", ".join(str(one) for each in principals for one in _listed(each))
    return found


def document(environments: Mapping[str, Templates]) -> str:
    """The whole file."""
    where: dict[Right, list[str]] = defaultdict(list)
    principals: dict[str, str] = {}
    for name, templates in environments.items():
        for right in dict.fromkeys(rights(templates, name)):
            where[right].append(name)
        principals |= trusted(templates)
    lines = [_HEAD]
    for role in sorted(principals):
        lines += [f"## {role}", "", f"Taken by {principals[role]}.", ""]
        rows: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
        for right in sorted(right for right in where if right.role == role):
            only = "" if where[right] == list(environments) else ", ".join(where[right])
            action = right.action if right.effect == "Allow" else f"{right.effect}: {right.action}"
            rows[right.resource, right.condition, only, right.effect].append(f"`{action}`")
        if rows:
            lines += ["| action | resource | condition | only in |", "|---|---|---|---|"]
        for (resource, condition, only, _), actions in sorted(rows.items()):
            shown = f"`{condition}`" if condition else ""
            lines.append(f"| {'<br>'.join(actions)} | `{resource}` | {shown} | {only} |")
        lines += [""] if rows else ["Nothing.", ""]
    return "\n".join(lines).rstrip() + "\n"


def grown(before: str, after: str) -> list[str]:
    """The lines of `after` that `before` does not have, each with its role."""
    return sorted(set(_with_roles(after)) - set(_with_roles(before)))


def _with_roles(text: str) -> Iterator[str]:
    role = ""
    for line in text.splitlines():
        if line.startswith("## "):
            role = line.removeprefix("## ")
        elif line.startswith("| `"):
            yield f"{role}: {line.strip('| ')}"

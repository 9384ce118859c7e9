"""What the person who deploys has to be allowed to do, from the calls of AWS's API in the commands' modules.

CloudFormation makes the resources with a role of the CDK's bootstrap, so these are few. docs/deployment.md
has the table, and a test compares them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import botocore.session
from botocore import xform_name

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "deployment.md"
_MARK = "<!-- rights -->"
_CORE = "layers/core/python/tickcast"

# By the commands: the modules whose calls they make, besides those of the commands above them.
MODULES: dict[str, tuple[str, ...]] = {
    "every command": ("operations/deployment/account.py",),
    "`make deploy`": (
        *("operations/deployment/preflight.py", "operations/deployment/foundation.py"),
        *("operations/deployment/stacks.py", "operations/deployment/exchange_key.py"),
        *("operations/deployment/migration.py", "operations/deployment/first_model.py"),
        *("operations/deployment/deploy.py", "operations/deployment/api_check.py"),
    ),
    "`make doctor`": ("operations/deployment/doctor.py",),
    "`make destroy`": ("operations/deployment/destroy.py", "operations/deployment/leftovers.py"),
    "`make symbols`, `backfill`, `retrain`, `models`, `import-model`, `promote`, `rollback` with `AWS=`; "
    "deploy too": (
        *("local/commands/execution.py", "local/commands/import_model.py", "local/system/cloud.py"),
        *(f"{_CORE}/adapters/registry/{name}.py" for name in ("model_registry", "served_symbols")),
    ),
    "`make explain` with `URL=`, `export` with `AWS=`": (
        *(f"{_CORE}/adapters/lake/bronze_reader.py", f"{_CORE}/adapters/lake/objects.py"),
        f"{_CORE}/adapters/lake/receipt_archive.py",
        f"{_CORE}/adapters/registry/model_watcher.py",
    ),
    "`make notify-test` with `AWS=`": ("local/commands/notify_test.py", "local/system/receivers.py"),
}
SERVICES = (
    *("apigateway", "cloudformation", "cloudwatch", "ec2", "ecr", "ecs", "iam", "kinesis", "lambda", "logs"),
    *("rds", "s3", "secretsmanager", "service-quotas", "ssm", "stepfunctions", "sts"),
)
# Methods that several of these services have, by the one that is called.
_SERVICE_OF = {"list_tags_for_resource": "ecs", "tag_resource": "ecs"}
# What IAM calls otherwise than the API does ("Service Authorization Reference").
_PREFIXES = {"service-quotas": "servicequotas", "stepfunctions": "states"}
_ACTIONS = {
    "apigateway:GetApiKey": ("apigateway:GET",),
    "ecs:RunTask": ("ecs:RunTask", "iam:PassRole"),
    "lambda:Invoke": ("lambda:InvokeFunction",),
    "s3:DeleteObjects": ("s3:DeleteObject", "s3:DeleteObjectVersion"),
    "s3:ListBuckets": ("s3:ListAllMyBuckets",),
    "s3:ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
    "s3:ListObjectVersions": ("s3:ListBucketVersions",),
    "s3:ListObjectsV2": ("s3:ListBucket",),
}


def actions() -> dict[str, list[str]]:
    """By the commands: the actions of IAM, each where it is needed first."""
    operations, seen = _operations(), set[str]()
    found: dict[str, list[str]] = {}
    for commands, modules in MODULES.items():
        wanted = {
            action
            for module in modules
            for method in methods(ROOT / module)
            for action in _actions_of(method, operations)
        }
        found[commands] = sorted(wanted - seen)
        seen |= wanted
    return found


def methods(path: Path) -> Iterator[str]:
    """The methods of boto3's clients that a module calls, paginated ones and those it passes on included."""
    operations = _operations()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in operations:
            yield node.attr
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("get_paginator", "get_waiter")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def document(text: str) -> str:
    """docs/deployment.md, whose `text` this is, with the table as it should be."""
    pattern = rf"({re.escape(_MARK)}\n\n)(?:\|.*\n)*"
    return re.sub(pattern, lambda found: f"{found[1]}{table()}\n", text)


def table() -> str:
    """Markdown."""
    rows = ["| for | actions |", "|---|---|"]
    rows += [
        f"| {commands} | {', '.join(f'`{each}`' for each in found)} |"
        for commands, found in actions().items()
    ]
    return "\n".join(rows)


def _actions_of(method: str, operations: dict[str, dict[str, str]]) -> tuple[str, ...]:
    """Raises ValueError for a method that several services have, until `_SERVICE_OF` says which is meant."""
    by_service = operations[method]
    if len(by_service) > 1 and method not in _SERVICE_OF:
        raise ValueError(f"{method} is one of {', '.join(by_service)}: say in _SERVICE_OF which")
    service = _SERVICE_OF.get(method) or next(iter(by_service))
    action = f"{service}:{by_service[service]}"
    return _ACTIONS.get(action, (f"{_PREFIXES.get(service, service)}:{by_service[service]}",))


@cache
def _operations() -> dict[str, dict[str, str]]:
    """By the method of a client: the operation, by the services that have it."""
    session, found = botocore.session.get_session(), dict[str, dict[str, str]]()
    for service in SERVICES:
        for operation in session.get_service_model(service).operation_names:
            found.setdefault(xform_name(operation), {})[service] = operation
    return found

"""docs/deployment.md has every call of AWS's API that the commands make."""

from __future__ import annotations

import re
from pathlib import Path

from operations.deployment import rights
from operations.deployment.rights import DOCUMENT, MODULES, SERVICES, actions, methods
from tests.fixtures.paths import ROOT

LISTED = {module for modules in MODULES.values() for module in modules}


def test_the_table_is_up_to_date() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert rights.table() in text, "out of date: .venv/bin/python -m operations document"
    assert rights.document(text) == text


def test_every_module_that_calls_aws_is_listed() -> None:
    for folder in ("operations", "local/commands"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if [*methods(path)]:
                # The rehearsal calls moto, in the place of an account.
                name = str(path.relative_to(ROOT))
                assert name in LISTED or name.startswith("operations/rehearsal/"), name


def test_every_service_that_is_asked_is_known() -> None:
    for folder in ("operations/deployment", "local/commands"):
        for path in (ROOT / folder).glob("*.py"):
            asked = set(re.findall(r"\bclient\(\"([a-z0-9-]+)\"\)", path.read_text("utf-8")))
            assert asked <= {*SERVICES}, path.name


def test_calls_of_all_forms_are_found(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text(
        "client.get_paginator('list_stacks')\npartial(s3.delete_bucket, Bucket=b)\n"
        "account.client('ecs').run_task()\nrun()\n"
    )
    assert sorted(methods(module)) == ["delete_bucket", "list_stacks", "run_task"]


def test_actions_have_the_names_of_iam() -> None:
    found = {action for each in actions().values() for action in each}
    assert {
        "states:StartExecution",
        "s3:ListAllMyBuckets",
        "lambda:InvokeFunction",
        "apigateway:GET",
    } <= found
    assert {"iam:PassRole", "servicequotas:GetServiceQuota", "sts:GetCallerIdentity"} <= found
    assert not {"s3:ListBuckets", "lambda:Invoke", "s3:DeleteObjects"} & found
    assert all(re.fullmatch(r"[a-z0-9]+:[A-Z][A-Za-z0-9]+", action) for action in found)

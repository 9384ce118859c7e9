"""The plugin as far as it can be read without LocalStack, which has a Python of its own."""

from __future__ import annotations

import ast
from importlib.metadata import PathDistribution

from tests.fixtures.paths import ROOT

PLUGIN = ROOT / "local" / "localstack_plugin"


def test_the_metadata_names_what_is_there() -> None:
    (folder,) = PLUGIN.glob("*.dist-info")
    groups = {}
    for point in PathDistribution(folder).entry_points:
        module = ROOT / f"{point.module.replace('.', '/')}.py"
        defined = {
            node.name: node
            for node in ast.parse(module.read_text("utf-8")).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        }
        assert point.attr in defined
        groups[point.group] = point.name
    assert groups == {
        "localstack.lambda.runtime_executor": "process",  # what LAMBDA_RUNTIME_EXECUTOR names
        "localstack.hooks.on_infra_start": "give_lists_for_wildcards",
    }

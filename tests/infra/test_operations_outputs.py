"""The commands of `operations.deployment` find all they need among the outputs of the app's stack."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from operations.rehearsal.synthesis import Synthesised
from tests.fixtures.paths import ROOT

READERS = ROOT / "operations" / "deployment"


def outputs_read() -> Iterator[str]:
    """The names in `outputs["…"]`, `outputs("app")["…"]` and `.get("…")` of either."""
    for path in READERS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Subscript) and "outputs" in ast.unparse(node.value).lower():
                key: ast.expr = node.slice
            elif isinstance(node, ast.Call) and "outputs" in (called := ast.unparse(node.func)).lower():
                if not called.endswith(".get"):
                    continue
                key = node.args[0]
            else:
                continue
            if isinstance(key, ast.Constant) and str(key.value)[:1].isupper():
                yield str(key.value)


def test_every_output_that_is_read_is_there(on_aws: Synthesised) -> None:
    there = {name for template in on_aws.templates.values() for name in template.get("Outputs", {})}
    read = set(outputs_read()) - {"OutputKey", "Outputs", "OutputValue", "BootstrapVersion"}
    assert {"MigrationTask", "ClusterArn", "ExchangeKeyArn", "BackfillMachine", "ApiUrl"} <= read
    assert read <= there


def test_the_task_decides_by_its_key_which_stream_it_takes(on_aws: Synthesised) -> None:
    (container,) = [
        container
        for _, task in on_aws.resources("AWS::ECS::TaskDefinition")
        for container in task["ContainerDefinitions"]
        if container["Name"] == "Ingest"
    ]
    variables = {each["Name"]: each["Value"] for each in container["Environment"]}
    assert variables["PROTOCOL"] == "auto"
    assert variables["PUBLIC_STREAM_URL"] == "wss://data-stream.binance.vision"

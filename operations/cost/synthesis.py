"""The templates of an environment, synthesised in process."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

# jsii warns, in nine lines on stderr, of a Node past its end of life; Node 20 is what the project asks for.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")

import aws_cdk  # noqa: E402  (starts Node)

from app import compose  # noqa: E402
from cdk.config import Environment  # noqa: E402
from layers.catalog import BUILT  # noqa: E402
from operations.cost.inventory import Resource  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def resources_of(environment: Environment) -> list[Resource]:
    """All resources of all stacks. Layers are placeholders: their size is not in a template."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        for layer in BUILT:
            (workspace / "layers" / layer / "python").mkdir(parents=True)
            (workspace / "layers" / layer / "python" / "placeholder.py").write_text("", "utf-8")
        context: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text("utf-8"))["context"]
        app = aws_cdk.App(
            context={
                **context,
                "env": environment.name,
                "symbols": ",".join(environment.symbols),
                "layers_dir": str(workspace / "layers"),
            },
            outdir=str(workspace / "out"),
        )
        compose(app)
        return [each for stack in app.synth().stacks for each in resources_in(stack.template)]


def resources_in(template: dict[str, Any]) -> list[Resource]:
    return [
        Resource(logical_id, resource["Type"], resource.get("Properties", {}))
        for logical_id, resource in template["Resources"].items()
    ]

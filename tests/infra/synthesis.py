"""An environment's templates, synthesised in process.

The layers are placeholders: a template names a layer's asset by its hash, and nothing asserted here depends
on what is in it, so these tests need neither pip nor the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk

from app import compose, compose_environment
from cdk.config import Environment
from layers.catalog import BUILT
from tests.fixtures.paths import ROOT


@dataclass(frozen=True)
class Synthesised:
    """An environment's app after synthesis, and its templates by the last word of their stack's name."""

    name: str
    app: Any
    assembly: Any
    templates: dict[str, dict[str, Any]]

    def resources(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(logical id, properties) of every resource of a type, over all stacks."""
        for template in self.templates.values():
            for logical_id, resource in template["Resources"].items():
                if resource["Type"] == kind:
                    yield logical_id, resource.get("Properties", {})

    def one(self, kind: str) -> dict[str, Any]:
        """The properties of the only resource of a type."""
        [(_, properties)] = self.resources(kind)
        return properties


def synthesise(name: str, workspace: Path, environment: Environment | None = None) -> Synthesised:
    """Synthesises the environment called `name`, or another `environment`, with placeholder layers;
    `workspace` is an empty folder."""
    for layer in BUILT:
        (workspace / "layers" / layer / "python").mkdir(parents=True)
        (workspace / "layers" / layer / "python" / "placeholder.py").write_text("", "utf-8")
    context = json.loads((ROOT / "cdk.json").read_text("utf-8"))["context"]
    app = aws_cdk.App(
        context={**context, "env": name, "layers_dir": str(workspace / "layers")},
        outdir=str(workspace / "out"),
    )
    if environment:
        compose_environment(app, environment)
    else:
        compose(app)
    assembly = app.synth()
    templates = {stack.stack_name.rsplit("-", 1)[1]: stack.template for stack in assembly.stacks}
    return Synthesised(name, app, assembly, templates)

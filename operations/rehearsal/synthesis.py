"""An environment's templates, synthesised in process.

The layers are placeholders: a template names a layer's asset by its hash, and nothing that is checked of it
depends on what is in it, so a synthesis needs neither pip nor the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdk.config import Environment
from layers.catalog import BUILT

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ("local", "dev", "prod")
# jsii warns, in nine lines on stderr, of a Node past its end of life; Node 20 is what the project asks for.
for _variable in ("END_OF_LIFE_NODE_VERSION", "UNTESTED_NODE_VERSION"):
    os.environ.setdefault(f"JSII_SILENCE_WARNING_{_variable}", "20")


@dataclass(frozen=True)
class Synthesised:
    """An environment's app after synthesis, and its templates by the last word of their stack's name."""

    environment: Environment
    app: Any
    assembly: Any
    templates: dict[str, dict[str, Any]]

    @property
    def name(self) -> str:
        return self.environment.name

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
    `workspace` is an empty folder.

    Raises ValueError if the configuration cannot be used.
    """
    import aws_cdk  # starts Node, as nearly all of the app's modules do

    from app import compose, compose_environment

    for layer in BUILT:
        (workspace / "layers" / layer / "python").mkdir(parents=True)
        (workspace / "layers" / layer / "python" / "placeholder.py").write_text("", "utf-8")
    context = json.loads((ROOT / "cdk.json").read_text("utf-8"))["context"]
    app = aws_cdk.App(
        context={
            **context,
            "env": name,
            "layers_dir": str(workspace / "layers"),
            # As the CDK's command line sets it: a construct's path is in its resources' metadata.
            "aws:cdk:enable-path-metadata": True,
        },
        outdir=str(workspace / "out"),
    )
    if environment:
        compose_environment(app, environment)
    else:
        environment = compose(app)
    assembly = app.synth()
    templates = {stack.stack_name.rsplit("-", 1)[1]: stack.template for stack in assembly.stacks}
    return Synthesised(environment, app, assembly, templates)

"""The resources of an environment's synthesised templates."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from cdk.config import Environment
from operations.cost.inventory import Resource
from operations.rehearsal.synthesis import synthesise


def resources_of(environment: Environment) -> list[Resource]:
    """All resources of all stacks. Layers are placeholders: their size is not in a template."""
    with tempfile.TemporaryDirectory(prefix="tickcast-cost-") as workspace:
        templates = synthesise(environment.name, Path(workspace), environment).templates
    return [each for template in templates.values() for each in resources_in(template)]


def resources_in(template: dict[str, Any]) -> list[Resource]:
    return [
        Resource(logical_id, resource["Type"], resource.get("Properties", {}))
        for logical_id, resource in template["Resources"].items()
    ]

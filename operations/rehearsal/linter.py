"""cfn-lint over an environment's templates, with the registry's schemas of its region."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cfnlint.api import lint  # type: ignore[import-untyped]
from cfnlint.config import ManualArgs  # type: ignore[import-untyped]
from cfnlint.schema import ResourceNotFoundError  # type: ignore[import-untyped]
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from operations.rehearsal.finding import Finding
from operations.rehearsal.template import Templates

# Warnings about how the CDK writes, which no line of ours could change.
IGNORED = {
    "W3005": "DependsOn in addition to a reference: the CDK orders a function after its role's policy",
    "W6001": "an output that is another stack's export: the stream's and the bucket's names",
}


def findings(templates: Templates) -> Iterator[Finding]:
    """What cfn-lint finds, warnings included."""
    for stack, document in templates.documents.items():
        settings = ManualArgs(regions=[templates.region], ignore_checks=list(IGNORED))
        for match in lint(json.dumps(document), config=settings):
            path = [str(part) for part in match.path or ()]
            resource = path[1] if path[:1] == ["Resources"] and len(path) > 1 else ""
            rule = f"cfn-lint {match.rule.id}"
            yield Finding(
                rule, stack, resource, ".".join(path[1:]), match.message, match.rule.source_url or ""
            )


def knows(kind: str, region: str) -> bool:
    """Whether the registry has a schema of the type in the region, by which the linter checks it."""
    try:
        PROVIDER_SCHEMA_MANAGER.get_resource_schema(region, kind)
    except ResourceNotFoundError:
        return False
    return True

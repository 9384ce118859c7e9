"""cdk-nag's packs over an environment's app.

An exception is acknowledged where its construct is made, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator

from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks, ServerlessChecks

from operations.rehearsal.finding import Finding
from operations.rehearsal.synthesis import Synthesised

PACKS = (AwsSolutionsChecks, ServerlessChecks)
SHORTEST_REASON = 8  # words


def findings(synthesised: Synthesised) -> Iterator[Finding]:
    """What the packs find, and acknowledgements without a reason."""
    for pack in PACKS:
        for violation in pack(synthesised.app).validate_scope(synthesised.app).violations:
            for resource in violation.violating_resources:
                stack, _, place = str(resource.construct_path).partition("/")
                yield Finding(
                    f"cdk-nag {violation.rule_name}",
                    stack.rsplit("-", 1)[1],
                    str(resource.resource_logical_id or ""),
                    place,
                    str(violation.description),
                    "fix it, or acknowledge the rule where the construct is made, with the reason",
                )
    for rule, reason in acknowledged(synthesised).items():
        if len(reason.split()) < SHORTEST_REASON:
            remedy = f"write the reason in {SHORTEST_REASON} words or more"
            yield Finding(f"cdk-nag {rule}", "", "", "", f"is acknowledged with {reason!r}", remedy)


def acknowledged(synthesised: Synthesised) -> dict[str, str]:
    """The acknowledged rules with the reason of one place each."""
    reasons = {}
    for construct in synthesised.app.node.find_all():
        for entry in construct.node.metadata:
            if entry.type == Validations.ACKNOWLEDGED_RULES_METADATA_KEY:
                reasons.update({rule: str(reason) for rule, reason in entry.data.items()})
    return reasons

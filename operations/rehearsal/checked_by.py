"""`docs/checked-by.md`: who has checked each type of resource."""

from __future__ import annotations

from collections.abc import Mapping

from operations.rehearsal import linter
from operations.rehearsal.creation import Created
from operations.rehearsal.finding import Rule
from operations.rehearsal.rules import RULES
from operations.rehearsal.rules.pages import DOCS
from operations.rehearsal.rules.text import texts_at
from operations.rehearsal.template import Templates

# The types of which every property in the templates was compared with the page of the type.
COMPARED = {
    "ApiGateway": "Account ApiKey Deployment GatewayResponse Method RequestValidator Resource RestApi Stage "
    "UsagePlan UsagePlanKey",
    "CloudWatch": "Alarm Dashboard",
    "EC2": "FlowLog InternetGateway Route RouteTable SecurityGroup SecurityGroupEgress SecurityGroupIngress "
    "Subnet SubnetRouteTableAssociation VPC VPCEndpoint VPCGatewayAttachment",
    "ECS": "Cluster Service TaskDefinition",
    "ElastiCache": "ParameterGroup ReplicationGroup SubnetGroup User UserGroup",
    "Events": "Rule",
    "IAM": "Policy Role",
    "Kinesis": "Stream StreamConsumer",
    "Lambda": "EventInvokeConfig EventSourceMapping Function LayerVersion Permission",
    "Logs": "LogGroup",
    "RDS": "DBInstance DBParameterGroup DBSubnetGroup",
    "S3": "Bucket BucketPolicy",
    "SNS": "Topic TopicPolicy",
    "SecretsManager": "Secret",
    "StepFunctions": "StateMachine",
}
_COMPARED = {f"AWS::{service}::{kind}" for service, kinds in COMPARED.items() for kind in kinds.split()}
_HEAD = """# Checked by

Who has checked what is in the templates, by type of resource. Generated; after a change:
`.venv/bin/python -m operations document`. A test fails when this file and the templates differ.

- **linter**: cfn-lint, by the registry's schema of the type in the environment's region.
- **rules**: our own, of what services validate and no linter knows (`operations/rehearsal/rules/`); the pages
  they are from are below. The rules of cdk-nag (AwsSolutions, Serverless) are not counted here.
- **moto**: `make rehearse` creates it there; "partly": it fails on some resources of the type.
- **emulator**: MiniStack hosts it in the local environment (`make run`).
- **documentation**: each property was compared with this page by hand. No account was at hand.

"""


def page_of(kind: str) -> str:
    """The page of a type in CloudFormation's reference."""
    name = kind.removeprefix("AWS::").replace("::", "-").lower()
    return f"{DOCS}/AWSCloudFormation/latest/TemplateReference/aws-resource-{name}.html"


def _reads(rule: Rule, kind: str, environments: Mapping[str, Templates]) -> bool:
    """Whether a rule finds something to read: of some properties most resources have none."""
    resources = [one for templates in environments.values() for one in templates.resources(kind)]
    place = rule.place.split(".")
    return not rule.place or any(True for one in resources for _ in texts_at(one.properties, place))


def document(environments: Mapping[str, Templates], created: Mapping[str, Created]) -> str:
    """The whole file, of the templates by environment and what moto made of each."""
    regions: dict[str, str] = {}
    for templates in environments.values():
        regions |= {resource.kind: templates.region for resource in templates.resources()}
    emulated = {resource.kind for resource in environments["local"].resources()}
    made = {kind for result in created.values() for kind in result.kinds}
    failed = {kind for result in created.values() for kind in result.failed}
    lines = [
        _HEAD + "| type | linter | rules | moto | emulator | documentation |",
        "|---|---|---|---|---|---|",
    ]
    unchecked = []
    for kind in sorted(regions):
        rules = [rule.name for rule in RULES if kind in rule.kinds and _reads(rule, kind, environments)]
        checks = (
            "yes" if linter.knows(kind, regions[kind]) else "",
            "<br>".join(rules),
            ("partly" if kind in failed else "yes") if kind in made else "",
            "yes" if kind in emulated else "",
            f"[page]({page_of(kind)})" if kind in _COMPARED else "",
        )
        if not any(checks):
            unchecked.append(kind)
        lines.append(f"| {kind.removeprefix('AWS::')} | {' | '.join(checks)} |")
    lines += ["", f"Checked by nobody: {', '.join(unchecked) or 'none'}.", "", "## Pages of the rules", ""]
    lines += ["| rule | checks | page |", "|---|---|---|"]
    lines += [
        f"| {rule.name} | {rule.checks.replace('|', '&#124;')} | [page]({rule.source}) |" for rule in RULES
    ]
    return "\n".join(lines) + "\n"

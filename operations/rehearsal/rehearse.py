"""What an account would refuse of an environment, found without one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from operations.rehearsal import creation, linter, security
from operations.rehearsal.creation import Created
from operations.rehearsal.finding import Finding
from operations.rehearsal.rules import RULES
from operations.rehearsal.synthesis import Synthesised
from operations.rehearsal.template import FRESH_EXECUTIONS, Templates


@dataclass(frozen=True)
class Rehearsal:
    """What was found of an environment, by the linter first."""

    name: str
    templates: Templates
    findings: list[Finding]
    created: Created
    rules: int


def templates_of(synthesised: Synthesised) -> Templates:
    environment = synthesised.environment
    return Templates(
        synthesised.templates,
        environment.region,
        f"tickcast-{environment.name}",
        environment.aws.concurrent_executions if environment.aws else FRESH_EXECUTIONS,
    )


def by_rules(name: str, templates: Templates) -> list[Finding]:
    """What our own rules find; in the local environment, which meets no account, those that hold anywhere."""
    return [
        finding
        for rule in RULES
        if name != "local" or not rule.in_account
        for finding in rule.findings(templates)
    ]


def rehearse(synthesised: Synthesised) -> Rehearsal:
    """Everything, of a synthesised environment."""
    templates = templates_of(synthesised)
    created = creation.create(templates)
    findings = [
        *linter.findings(templates),
        *security.findings(synthesised),
        *by_rules(synthesised.name, templates),
        *created.findings,
    ]
    rules = sum(synthesised.name != "local" or not rule.in_account for rule in RULES)
    return Rehearsal(synthesised.name, templates, findings, created, rules)


def show(rehearsal: Rehearsal, console: Console) -> None:
    """Print what was checked, then a table by stack and rule, then each finding with what to do. Lines are
    not wrapped, so that what they name can be copied and searched for."""

    def say(text: str, *, markup: bool = True) -> None:
        console.print(text, markup=markup, highlight=False, soft_wrap=True)

    created, name = rehearsal.created, rehearsal.name
    say(f"\n[bold]{name}[/] in {rehearsal.templates.region}: cfn-lint, cdk-nag, {rehearsal.rules} rules")
    if created.resources:
        say(
            f"  moto created {created.resources} resources of {len(created.kinds)} types; it does not know "
            f"{len(created.unknown)}, and fails on some of {len(created.failed)}"
        )
    if not rehearsal.findings:
        say(f"  [green]nothing found in {', '.join(rehearsal.templates.documents)}[/]")
        return
    table = Table("stack", "rule", "found", title_justify="left")
    counted = Counter((finding.stack, finding.rule) for finding in rehearsal.findings)
    for (stack, rule), number in sorted(counted.items()):
        table.add_row(stack, rule, str(number))
    console.print(table)
    for finding in sorted(rehearsal.findings):
        at = finding.place or finding.resource or "the template"
        also = f" ({finding.resource})" if finding.resource and finding.resource != at else ""
        say(f"[red]{finding.stack}[/]: {escape(at + also)}")
        say(f"  {finding.problem}", markup=False)
        say(f"  to do: {finding.remedy}", markup=False)

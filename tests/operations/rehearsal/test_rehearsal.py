"""What the rehearsal finds of the real environments: nothing; and how it shows what it finds."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from operations.__main__ import main
from operations.rehearsal import linter, security
from operations.rehearsal.creation import Created
from operations.rehearsal.finding import Finding
from operations.rehearsal.rehearse import Rehearsal, by_rules, show
from operations.rehearsal.synthesis import Synthesised
from operations.rehearsal.template import Templates
from tests.operations.rehearsal.examples import of


def lines(findings: list[Finding]) -> str:
    return "\n".join(f"{one.stack} {one.place} ({one.rule}): {one.problem}" for one in findings)


def test_the_linter_finds_nothing(synthesised: Synthesised, all_templates: dict[str, Templates]) -> None:
    assert not (found := list(linter.findings(all_templates[synthesised.name]))), lines(found)


def test_the_security_rules_find_nothing(synthesised: Synthesised) -> None:
    assert not (found := list(security.findings(synthesised))), lines(found)
    assert security.acknowledged(synthesised)


def test_our_rules_find_nothing(synthesised: Synthesised, all_templates: dict[str, Templates]) -> None:
    found = by_rules(synthesised.name, all_templates[synthesised.name])
    assert not found, lines(found)


def test_moto_creates_what_it_knows(synthesised: Synthesised, created: dict[str, Created]) -> None:
    result = created[synthesised.name]
    assert not result.findings, lines(result.findings)
    assert result.resources > 100 and len(result.kinds) > 12
    assert result.undeleted.keys() <= {"network"}  # moto removes no route tables


def test_the_linter_s_findings_name_the_resource() -> None:
    document = {"Resources": {"Bucket": of("S3::Bucket", {"BucketNam": "x"})}}
    [finding] = linter.findings(Templates({"data": document}))
    assert (finding.rule, finding.stack, finding.resource) == ("cfn-lint E3002", "data", "Bucket")
    assert "BucketNam" in finding.problem and finding.place.startswith("Bucket.Properties")


def test_the_linter_uses_the_schemas_of_the_region() -> None:
    instance = of("RDS::DBInstance", {"DBInstanceClass": "db.nowhere.large", "Engine": "postgres"})
    found = [
        {one.problem for one in linter.findings(Templates({"data": {"Resources": {"D": instance}}}, region))}
        for region in ("ap-northeast-1", "eu-west-1")
    ]
    assert found[0] != found[1]  # the classes that the message lists differ
    assert linter.knows("AWS::S3::Bucket", "ap-northeast-1")
    assert not linter.knows("AWS::Nothing::There", "ap-northeast-1")


def shown(findings: list[Finding], width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show(Rehearsal("dev", Templates({"app": {"Resources": {}}}), findings, Created(), 143), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_report_counts_by_stack_and_rule_and_says_what_to_do() -> None:
    finding = Finding("tags", "app", "Topic1A2B", "Alarms/Topic tag [x]", "is refused: [a]", "change it")
    text = shown([finding, finding._replace(resource="Other"), finding._replace(stack="data", rule="z")])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert rows == [["app", "tags", "2"], ["data", "z", "1"]]
    assert "app: Alarms/Topic tag [x] (Topic1A2B)\n  is refused: [a]\n  to do: change it\n" in text
    assert "nothing found in app" in shown([])


def test_what_is_found_is_not_broken_into_lines() -> None:
    finding = Finding(
        "tags", "app", "", "Alarms/" + "Topic" * 20, "is refused: " + "why " * 30, "change " * 30
    )
    text = shown([finding], width=60)
    for whole in (finding.place, finding.problem.strip(), finding.remedy.strip()):
        assert whole in text


def test_an_unknown_environment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["rehearse", "staging"])
    assert stopped.value.code == 2
    assert "staging" in capsys.readouterr().err


def test_the_exit_status_says_whether_something_was_found(
    environments: dict[str, Synthesised], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from operations.rehearsal import commands, rehearse

    found: list[Any] = [Finding("tags", "app", "", "", "is refused", "change it")]
    monkeypatch.setattr(commands, "synthesise", lambda name, workspace: environments[name])
    for findings, status in ((found, 1), ([], 0)):
        rehearsal = Rehearsal("dev", Templates({"app": {"Resources": {}}}), findings, Created(), 143)
        monkeypatch.setattr(rehearse, "rehearse", lambda _, result=rehearsal: result)
        assert main(["rehearse", "dev"]) == status
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert last == {"findings": {"dev": len(findings)}}

"""docs/latency.md has the tables of the calculation, and they say what its text concludes from them."""

from __future__ import annotations

import pytest

from benchmarks.latency_budget import PRESETS, SKILL, Preset, preset_table, skill_at, stage_table, worth_table
from cdk.config import load
from tests.fixtures.paths import ROOT


@pytest.mark.parametrize(
    "table", [stage_table(), preset_table(), worth_table()], ids=["stages", "presets", "worth"]
)
def test_the_document_has_the_tables(table: str) -> None:
    assert table in (ROOT / "docs" / "latency.md").read_text("utf-8")


def test_skill_falls_with_age_and_is_the_measured_one_at_measured_ages() -> None:
    assert [skill_at(age) for age in SKILL] == list(SKILL.values())
    falling = [skill_at(age) for age in range(0, 1500, 7)]
    assert falling == sorted(falling, reverse=True)


def test_fan_out_at_least_doubles_the_skill() -> None:
    polled, pushed = (skill_at(Preset(fan_out, 100, 1024).age_ms) for fan_out in (False, True))
    assert all(b >= 2 * a for a, b in zip(polled, pushed, strict=True))


def test_a_shorter_linger_costs_more_and_makes_no_answer_younger() -> None:
    for each in PRESETS:
        if each.fan_out and each.linger_ms < 100:
            longer = Preset(True, 100, each.memory_mb)
            assert each.age_ms == longer.age_ms
            assert each.dollars > longer.dollars


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_defaults_are_presets(name: str) -> None:
    environment = load(name)
    assert environment.aws is not None
    memory_mb = environment.functions.predict_stream.memory_mb
    assert Preset(environment.stream.fan_out, environment.aws.ingest.linger_ms, memory_mb) in PRESETS

"""Estimates by the templates, the command, and docs/cost.md."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from cdk.config import NetworkConfig, load
from operations.__main__ import main
from operations.cost import Estimate, monthly, report
from operations.cost.command import text
from operations.cost.estimate import TARGETS_USD
from operations.cost.inventory import Inventory, inventory
from operations.cost.lines import Line
from operations.cost.measured import RUNS
from operations.cost.synthesis import resources_of
from operations.cost.usage import Load
from operations.cost.what_ifs import with_symbols
from operations.failures import OperationRefused
from tests.fixtures.paths import ROOT

pytestmark = pytest.mark.synthesis
DOCUMENT = ROOT / "docs" / "cost.md"
# The tables of the document, by the comment in front of each.
TABLES = {
    ("dev", "lines"): report.line_table,
    ("prod", "lines"): report.line_table,
    ("dev", "confidence"): report.confidence_table,
    ("prod", "confidence"): report.confidence_table,
    ("dev", "what if"): report.what_if_table,
    ("prod", "what if"): report.what_if_table,
    ("prod", "skill"): report.skill_table,
}


@pytest.mark.parametrize("name", TARGETS_USD)
def test_environments_keep_their_targets(name: str, estimates: dict[str, Estimate]) -> None:
    assert estimates[name].month_usd <= TARGETS_USD[name]
    assert report.target_sentence(estimates[name]) == f"Within the target of ${TARGETS_USD[name]}."


def test_prod_survives_the_loss_of_a_zone_for_its_price(estimates: dict[str, Estimate]) -> None:
    found = estimates["prod"].inventory
    assert found.tasks >= 2 and found.cache_nodes >= 2 and found.database_is_multi_az
    assert not found.task_is_spot


@pytest.mark.parametrize("name", TARGETS_USD)
def test_the_inventory_is_that_of_the_configuration(name: str, estimates: dict[str, Estimate]) -> None:
    environment, found = load(name), estimates[name].inventory
    assert environment.aws is not None
    aws = environment.aws
    assert (found.symbols, found.shards, found.fan_out) == (
        1,
        environment.stream.shards,
        environment.stream.fan_out,
    )
    assert found.retention_h == environment.stream.retention_hours
    assert (found.tasks, found.task_vcpu, found.task_gb) == (
        aws.ingest.tasks,
        aws.ingest.cpu / 1024,
        aws.ingest.memory_mb / 1024,
    )
    assert (found.task_is_spot, found.task_is_arm) == (aws.ingest.spot, aws.ingest.architecture == "arm64")
    assert (found.cache_node_type, found.cache_nodes) == (aws.cache.node_type, aws.cache.nodes)
    assert found.database_class == f"db.{aws.database.instance_type}"
    assert (found.database_gb, found.database_is_multi_az) == (aws.database.storage_gb, aws.database.multi_az)
    assert (found.keep_days, found.bronze_days) == (
        environment.tables.keep_days,
        environment.lake.bronze_days,
    )
    assert found.bronze_cheaper_after_days == environment.lake.bronze_cheaper_after_days
    assert found.functions["predict_stream"].memory_mb == environment.functions.predict_stream.memory_mb
    assert not found.is_api_traced and not any(each.is_traced for each in found.functions.values())
    assert (found.has_container_insights, found.metered_methods) == (aws.container_insights, 0)
    assert found.has_flow_logs == (aws.network.flow_logs is not None)
    assert found.dashboards == (2 if aws.dashboards else 0)


def test_every_function_has_its_runs(estimates: dict[str, Estimate]) -> None:
    by_their_events = {"predict_stream", "archive_ticks", "serve_predictions", "audit_predictions"}
    for found in estimates.values():
        assert found.inventory.functions.keys() == RUNS.keys() | by_their_events


def test_symbols_change_what_the_what_if_says(estimates: dict[str, Estimate]) -> None:
    """A template of two symbols has the inventory that is computed from that of one."""
    two: Inventory = inventory(resources_of(load("dev", symbols="BTCUSDT,ETHUSDT")))
    assert two == with_symbols(estimates["dev"].inventory, 2, Load())


def test_the_document_has_the_tables_of_the_command(estimates: dict[str, Estimate]) -> None:
    """UPDATE_COST=1 writes them anew."""
    document = expected = DOCUMENT.read_text("utf-8")
    for (name, part), table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name}: {part} -->\n\n)(?:\|.*\n)*")
        expected, found = pattern.subn(rf"\g<1>{table(estimates[name])}\n", expected)
        assert found == 1, (name, part)
    if os.environ.get("UPDATE_COST"):
        DOCUMENT.write_text(expected, "utf-8")
    else:
        assert document == expected, "docs/cost.md: run this test with UPDATE_COST=1, and read the difference"


@pytest.mark.parametrize("name", TARGETS_USD)
def test_the_document_names_the_sums_in_its_first_table(name: str, estimates: dict[str, Estimate]) -> None:
    row = f"| {name} | {TARGETS_USD[name]} | {estimates[name].month_usd:.2f} |"
    assert row in DOCUMENT.read_text("utf-8")


def test_the_command_prints_tables_and_json(
    estimates: dict[str, Estimate], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_rate(environment: Any, load: Load) -> Estimate:
        return replace(estimates[environment.name], load=load)

    monkeypatch.setattr("operations.cost.command.monthly", of_rate)
    assert main(["cost", "--env", "prod", "--rate", "400"]) == 0
    *tables, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert found["month_usd"] == pytest.approx(sum(line["usd"] for line in found["lines"]), abs=0.01)
    assert found["per_1000_predictions_usd"] == pytest.approx(
        1000 * found["month_usd"] / found["predictions"], abs=1e-5
    )
    assert {"stream_shards", "predict_duration", "cache_nodes"} <= {line["name"] for line in found["lines"]}
    assert {"fan_out_off", "symbols_10", "single_zone", "free_tiers"} <= found["what_ifs"].keys()
    assert found["ticks_per_s"] == 400 and found["warnings"] == []
    assert any("1,000 of" in line for line in tables)


def test_the_configured_preset_is_marked(estimates: dict[str, Estimate]) -> None:
    for found in estimates.values():
        [configured] = [choice for choice in report.choices(found) if choice.is_configured]
        assert configured.month_usd == pytest.approx(found.month_usd)


def test_a_line_s_price_is_shown_as_it_is_billed(estimates: dict[str, Estimate]) -> None:
    table = report.line_table(estimates["prod"])
    assert "| PostgreSQL: db.t4g.small with a standby | 730 | h | 0.102 | B | 74.46 |" in table
    assert "e-0" not in table
    assert text(estimates["prod"]).startswith("prod in ap-northeast-1: 1 symbol, 200 ticks a second each")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "local"], "local is on this machine and costs nothing"),
        (["--env", "nowhere"], "no environment 'nowhere'"),
        (["--env", "dev", "--rate", "0"], "RATE is 0; it should be a number from 1"),
        (["--env", "dev", "--rate", "nan"], "RATE is nan"),
        (["--env", "dev", "--requests", "-1"], "REQUESTS is -1"),
        (["--env", "dev", "--symbols", "btc"], "'btc' is not a symbol"),
    ],
)
def test_what_cannot_be_estimated_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_region_without_prices_is_refused_before_synthesis() -> None:
    dev = load("dev")
    assert dev.aws
    anywhere = structs.replace(dev.aws, network=NetworkConfig())
    with pytest.raises(OperationRefused, match="no prices of eu-west-1"):
        monthly(structs.replace(dev, region="eu-west-1", aws=anywhere))


def test_lines_are_sorted_by_what_they_cost(estimates: dict[str, Estimate]) -> None:
    rows = report.line_table(estimates["dev"]).splitlines()[2:-2]
    dollars = [float(row.rsplit("|", 2)[1]) for row in rows]
    assert dollars == sorted(dollars, reverse=True)
    assert all(isinstance(each, Line) for each in estimates["dev"].lines)

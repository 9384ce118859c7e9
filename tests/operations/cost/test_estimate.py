"""Estimates by the templates, the command, and docs/cost.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from cdk.config import CACHE_MB_PER_SYMBOL, ConfigError, Environment, NetworkConfig, load
from operations.__main__ import main
from operations.cost import Estimate, monthly, report, scaling
from operations.cost.command import text
from operations.cost.estimate import TARGETS_USD
from operations.cost.inventory import Inventory, inventory
from operations.cost.lines import Line
from operations.cost.measured import RUNS
from operations.cost.settings import settings, with_settings
from operations.cost.synthesis import resources_of
from operations.cost.usage import Load
from operations.cost.what_ifs import WHAT_IFS, WhatIf, with_symbols
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

_OF_TEN = 10 * CACHE_MB_PER_SYMBOL


@pytest.mark.parametrize("name", TARGETS_USD)
def test_environments_keep_their_targets(name: str, estimates: dict[str, Estimate]) -> None:
    assert estimates[name].month_usd <= TARGETS_USD[name]
    usd = f"${estimates[name].month_usd:.2f} a month, within the target of ${TARGETS_USD[name]}."
    for symbols in (1, 2):
        found = replace(estimates[name], inventory=replace(estimates[name].inventory, symbols=symbols))
        assert report.target_sentence(found) == f"One symbol at 200 ticks a second (SYMBOLS=1): {usd}"


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
    """UPDATE_COST=1 writes them again."""
    document = expected = DOCUMENT.read_text("utf-8")
    for (name, part), table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name}: {part} -->\n\n)(?:\|.*\n)*")
        expected, found = pattern.subn(rf"\g<1>{table(estimates[name])}\n", expected)
        assert found == 1, (name, part)
    if os.environ.get("UPDATE_COST"):
        DOCUMENT.write_text(expected, "utf-8")
    else:
        assert document == expected, "docs/cost.md: run this test with UPDATE_COST=1, and read the difference"


def test_the_document_of_scaling_agrees_for_two_symbols(estimates: dict[str, Estimate]) -> None:
    """Where both have the same lines they are close: the one was measured, the other is computed by line."""
    sizes = with_symbols(estimates["prod"].inventory, 2, Load())
    two = replace(estimates["prod"], inventory=sizes)
    for name, (measured, computed) in scaling.groups(two).items():
        assert abs(measured - computed) < max(2, 0.25 * computed), name
    document = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    pattern = re.compile(r"(<!-- prod: two symbols -->\n\n)(?:\|.*\n)*")
    expected, found = pattern.subn(rf"\g<1>{scaling.table(two)}\n", document)
    assert found == 1
    if os.environ.get("UPDATE_COST"):
        (ROOT / "docs" / "scaling.md").write_text(expected, "utf-8")
    else:
        assert document == expected, "docs/scaling.md: run this test with UPDATE_COST=1"


@pytest.mark.parametrize("name", TARGETS_USD)
def test_the_document_names_the_sums_in_its_first_table(name: str, estimates: dict[str, Estimate]) -> None:
    symbols = len(load(name).symbols)
    configured = replace(estimates[name], inventory=with_symbols(estimates[name].inventory, symbols, Load()))
    row = (
        f"| {name} | {TARGETS_USD[name]} | {estimates[name].month_usd:.2f} | "
        f"{estimates[name].per_1000_predictions_usd:.5f} | {configured.month_usd:.2f} |"
    )
    assert symbols == 2
    document = DOCUMENT.read_text("utf-8")
    expected, found = re.subn(rf"^\| {name} \| {TARGETS_USD[name]} \|.*$", row, document, flags=re.MULTILINE)
    assert found == 1
    if os.environ.get("UPDATE_COST"):
        DOCUMENT.write_text(expected, "utf-8")
    else:
        assert document == expected, "docs/cost.md: run this test with UPDATE_COST=1"


@pytest.mark.parametrize("name", TARGETS_USD)
@pytest.mark.parametrize("what_if", WHAT_IFS, ids=lambda each: each.name)
def test_a_what_if_is_a_configuration(what_if: WhatIf, name: str, estimates: dict[str, Estimate]) -> None:
    """Nothing is priced that a deployment would be refused for, and the settings that are shown suffice."""
    estimate = estimates[name]
    changed = what_if.of(estimate).inventory
    found = settings(estimate.environment, estimate.inventory, changed)
    symbols = [f"S{n}USDT" for n in range(changed.symbols)]
    with_settings(estimate.environment, {**found, "symbols": symbols})
    if found.keys() & {"aws.cache.node_type", "aws.concurrent_executions"}:
        with pytest.raises(ConfigError, match=f"need {_OF_TEN} MB of the cache|account's quota is 10"):
            with_settings(
                estimate.environment,
                {
                    key: value
                    for key, value in {**found, "symbols": symbols}.items()
                    if key not in ("aws.cache.node_type", "aws.concurrent_executions")
                },
            )


@pytest.mark.parametrize("name", ["single_zone", "symbols_10", "on_demand_stream"])
def test_the_templates_of_its_settings_are_what_is_priced(name: str, estimates: dict[str, Estimate]) -> None:
    estimate = estimates["prod"]
    [what_if] = [each for each in WHAT_IFS if each.name == name]
    changed = what_if.of(estimate).inventory
    found = settings(estimate.environment, estimate.inventory, changed)
    symbols = [f"S{n}USDT" for n in range(changed.symbols)]
    configured = with_settings(estimate.environment, {**found, "symbols": symbols})
    # Each node of the cache has its alarms, which are 40 cents.
    assert replace(inventory(resources_of(configured)), alarms=changed.alarms) == changed


def test_more_symbols_than_a_cache_holds_are_shown_with_its_type(estimates: dict[str, Estimate]) -> None:
    rows = report.what_if_table(estimates["prod"]).splitlines()
    [row] = [row for row in rows if row.startswith("| 10 symbols |")]
    assert row.endswith("| `aws.cache.node_type: cache.t4g.small` |")
    [row] = [row for row in rows if row.startswith("| a stream on demand |")]
    assert row.endswith("| `stream.shards: null`, `aws.concurrent_executions: 14` |")


@pytest.fixture
def priced(estimates: dict[str, Estimate], monkeypatch: pytest.MonkeyPatch) -> list[Environment]:
    """What the command prices, without synthesising it."""
    found: list[Environment] = []

    def monthly(environment: Environment, load: Load) -> Estimate:
        found.append(environment)
        sizes = with_symbols(estimates[environment.name].inventory, len(environment.symbols), load)
        return replace(estimates[environment.name], inventory=sizes, load=load)

    monkeypatch.setattr("operations.cost.command.monthly", monthly)
    return found


@pytest.mark.parametrize(
    ("symbols", "names"),
    [
        ("", ("BTCUSDT", "ETHUSDT")),
        ("1", ("BTCUSDT",)),
        ("4", ("BTCUSDT", "ETHUSDT", "S0001USDT", "S0002USDT")),
        ("SOLUSDT, ETHUSDT", ("SOLUSDT", "ETHUSDT")),
    ],
)
def test_it_prices_the_configured_symbols_or_those_given(
    symbols: str, names: tuple[str, ...], priced: list[Environment], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", "--env", "prod", "--symbols", symbols]) == 0
    assert priced[0].symbols == names
    out = capsys.readouterr().out
    count = f"{len(names)} symbol" + "s" * (len(names) > 1)
    assert out.startswith(f"prod in ap-northeast-1: {count}, 200 ticks a second each: $")
    assert "\nOne symbol at 200 ticks a second (SYMBOLS=1): $" in out
    found = json.loads(out.splitlines()[-1])
    assert found["symbols"] == len(names)
    assert (found["one_symbol_month_usd"] == found["month_usd"]) == (len(names) == 1)


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
        (["--env", "dev", "--symbols", "300"], f"300 symbols need {30 * _OF_TEN} MB of the cache"),
        (["--env", "dev", "--symbols", "10"], f"10 symbols need {_OF_TEN} MB of the cache"),
        (["--env", "dev", "--symbols", "0"], "SYMBOLS is 0; as a number it should be from 1"),
        (["--env", "dev", "--symbols", "BTCUSDT,BTCUSDT"], "symbols: BTCUSDT more than once"),
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


def test_a_number_with_a_blank_in_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cost", "--env", "dev", "--rate", "1 000"])
    message = capsys.readouterr().err  # without a usage: who calls `make` has typed no `--rate`
    assert message == "tickcast: RATE is '1 000'; it should be a number, like 1000 or 0.5\n"


@pytest.mark.parametrize("argument", ["RATE", "SYMBOLS", "REQUESTS"])
def test_make_passes_an_argument_in_one_piece(argument: str) -> None:
    command = ["make", "--dry-run", "--old-file=.venv/.stamp", "cost", f"{argument}=1 000"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f'--{argument.lower()} "1 000"' in printed


def test_more_records_than_shards_take_are_a_warning(estimates: dict[str, Estimate]) -> None:
    sizes = estimates["prod"].inventory
    crowded = replace(estimates["prod"], inventory=replace(sizes, symbols=60), load=Load(ticks_per_s=1))
    assert "1,200 records/s do not fit into 1 of stream.shards, which take 1,000 each" in crowded.warnings
    mended = replace(crowded, inventory=with_symbols(sizes, 60, crowded.load))
    assert mended.inventory.shards == 2 and not any("records/s" in each for each in mended.warnings)


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

"""How much is used: by hand for small cases, and as the latency budget has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.latency_budget import PRESETS, Preset
from cdk.config import load as load_environment
from operations.cost.estimate import Estimate
from operations.cost.inventory import FunctionSize, Inventory
from operations.cost.lines import lines
from operations.cost.measured import MONTH_H, MONTH_S, RUNS
from operations.cost.prices import prices
from operations.cost.usage import Load, Usage
from operations.cost.what_ifs import WHAT_IFS, with_symbols

NAMES = (*RUNS, "predict_stream", "archive_ticks", "serve_predictions", "audit_predictions")
SMALL = Inventory(
    symbols=1,
    functions={name: FunctionSize(1024, is_arm=False, is_traced=False) for name in NAMES},
    predict_every_ms=100,
    linger_ms=100,
    shards=1,
    retention_h=24,
    fan_out=False,
    tasks=1,
    task_vcpu=0.25,
    task_gb=0.5,
    task_is_arm=True,
    task_is_spot=False,
    cache_node_type="cache.t4g.micro",
    cache_nodes=1,
    database_class="db.t4g.micro",
    database_gb=20,
    database_backup_days=1,
    database_is_multi_az=False,
    keep_days=10,
    grid_ms=100,
    archive_records=2000,
    archive_window_s=60,
    audit_every_minutes=5,
    report_every_minutes=60,
    secrets=2,
    alarms=10,
    symbol_alarms=0,
    dashboards=0,
    bronze_days=30,
    bronze_cheaper_after_days=None,
    log_days=7,
    has_flow_logs=False,
    has_container_insights=False,
    is_api_traced=False,
    metered_methods=0,
)


def estimate(load: Load | None = None, **fields: Any) -> Estimate:
    return Estimate(load_environment("dev"), replace(SMALL, **fields), load or Load(), prices())


def change(name: str, of: Estimate) -> float:
    [what_if] = [each for each in WHAT_IFS if each.name == name]
    return what_if.of(of).month_usd - of.month_usd


def test_fixed_sizes_by_hand() -> None:
    found = estimate()
    assert found.usd("ingest_cpu") == pytest.approx(0.25 * 730 * 0.04045)
    assert found.usd("cache_nodes") == pytest.approx(14.60)
    assert found.usd("stream_shards") == pytest.approx(14.235)
    assert found.usd("database_instance") == pytest.approx(18.25)
    assert found.usd("stream_puts") == pytest.approx(10 * 730 * 3600 * 2.15e-8)
    assert estimate(database_is_multi_az=True).usd("database_instance") == pytest.approx(2 * 18.25)
    assert estimate(task_is_spot=True).usd("ingest_cpu") == pytest.approx(0.3 * found.usd("ingest_cpu"))


def test_busier_markets_take_longer() -> None:
    def seconds(ticks_per_s: float) -> float:
        usage = Usage(replace(SMALL, fan_out=True), Load(ticks_per_s=ticks_per_s))
        return usage.event_gb_s / usage.events

    assert seconds(200) == 0.007
    assert seconds(10_000) == pytest.approx(0.008, abs=0.0011)


def test_a_line_is_as_certain_as_the_least_certain_price_in_it() -> None:
    def confidence(**fields: Any) -> str:
        return {line.name: line.confidence for line in estimate(**fields).lines}["ingest_cpu"]

    assert (confidence(), confidence(task_is_spot=True)) == ("A", "D")


def test_a_record_above_25_kb_is_two_units() -> None:
    """4,600 ticks in 100 ms are 251,000 bytes."""
    usage = Usage(SMALL, Load(ticks_per_s=46_000))
    assert usage.put_units == pytest.approx(10 * 10 * MONTH_S)


def test_a_price_is_of_the_unit_that_its_line_counts() -> None:
    per_h = {line.name for line in estimate().lines if line.unit.endswith("h") and line.unit != "GB-month"}
    assert {"ingest_cpu", "stream_shards", "cache_nodes", "database_instance"} <= per_h
    assert all(line.quantity % MONTH_H == 0 for line in estimate().lines if line.unit in ("node-h", "h"))


@pytest.mark.parametrize("preset", PRESETS, ids=str)
def test_presets_differ_by_what_the_latency_budget_says(preset: Preset) -> None:
    """But for what a budget of milliseconds leaves out: traffic between zones, and that a poll has more
    ticks."""

    def total(each: Preset) -> float:
        functions = SMALL.functions | {"predict_stream": FunctionSize(each.memory_mb, False, False)}
        inventory = replace(SMALL, fan_out=each.fan_out, linger_ms=each.linger_ms, functions=functions)
        left_out = {"data_between_zones", "other_requests", "archive_duration", "lake_writes", "lake_reads"}
        return sum(line.usd for line in lines(inventory, Load(), prices()) if line.name not in left_out)

    first = PRESETS[0]
    assert total(preset) - total(first) == pytest.approx(preset.dollars - first.dollars, abs=0.05)


def test_predictions_come_as_often_as_records_or_polls_allow() -> None:
    def every_s(**fields: Any) -> float:
        return MONTH_S / estimate(**fields).predictions

    assert every_s(fan_out=False) == pytest.approx(1)
    assert every_s(fan_out=True) == pytest.approx(0.1)
    assert every_s(fan_out=True, linger_ms=250) == pytest.approx(0.25)
    assert every_s(fan_out=True, predict_every_ms=500) == pytest.approx(0.5)
    assert every_s(fan_out=True, symbols=2) == pytest.approx(0.05)


def test_days_that_are_kept_enlarge_the_database_once_they_do_not_fit() -> None:
    assert estimate(keep_days=10).usd("database_storage") == pytest.approx(20 * 0.138)
    month, year = (
        Usage(replace(SMALL, keep_days=days, trades_keep_days=3), Load()).database_gb for days in (120, 365)
    )
    assert 25 < month < 35 and 85 < year < 95
    assert Usage(replace(SMALL, keep_days=None, trades_keep_days=3), Load()).database_gb == year
    assert Usage(replace(SMALL, keep_days=None, trades_keep_days=None), Load()).database_gb > 3 * year


def test_bronze_moves_to_the_cheaper_class_after_its_days() -> None:
    plain = Usage(replace(SMALL, bronze_days=None), Load())
    assert (plain.bronze_days, plain.cheaper_days) == (365, 0)
    moved = Usage(replace(SMALL, bronze_days=None, bronze_cheaper_after_days=30), Load())
    assert moved.cheaper_days == 335
    both = estimate(bronze_days=None, bronze_cheaper_after_days=30)
    assert both.usd("lake_cheaper_storage") == pytest.approx(335 * moved.bronze_day_gb * 0.005)


def test_what_ifs_go_the_way_they_should() -> None:
    base = estimate(tasks=2, cache_nodes=2, database_is_multi_az=True, fan_out=True)
    assert change("fan_out_on", base) == 0 == change("retention_24_h", base) == change("ingest_arm", base)
    for dearer in (
        "retention_48_h",
        "ingest_x86",
        "tracing",
        "container_insights",
        "symbols_2",
        "symbols_10",
    ):
        assert change(dearer, base) > 1, dearer
    for cheaper in (
        "fan_out_off",
        "single_zone",
        "cadence_500_ms",
        "functions_arm",
        "free_tiers",
        "ingest_spot",
    ):
        assert change(cheaper, base) < -1, cheaper
    assert change("cadence_1000_ms", base) < change("cadence_500_ms", base)
    assert change("readers_10_per_s", base) == pytest.approx(10 * change("readers_1_per_s", base), rel=0.05)
    assert change("retention_48_h", base) == pytest.approx(730 * 0.026)


def test_more_symbols_take_the_shards_and_the_cache_they_need() -> None:
    ten = with_symbols(SMALL, 10, Load())
    assert (ten.shards, ten.cache_node_type) == (1, "cache.t4g.small")
    many = with_symbols(SMALL, 100, Load())
    assert (many.shards, many.cache_node_type) == (2, "cache.m7g.large")
    with pytest.raises(ValueError, match="no cache node"):
        with_symbols(SMALL, 10_000, Load())


def test_a_load_beyond_the_shards_is_a_warning() -> None:
    assert not estimate().warnings
    [warning] = estimate(Load(ticks_per_s=20_000), database_gb=2000).warnings
    assert "1.1 MB/s do not fit into 1 of stream.shards" in warning
    assert not estimate(Load(ticks_per_s=20_000), shards=None, database_gb=2000).warnings


def test_free_tiers_are_taken_off_once_over_all_lines_of_a_price() -> None:
    base = estimate(has_container_insights=True)
    [what_if] = [each for each in WHAT_IFS if each.name == "free_tiers"]
    free = what_if.of(base)
    saved = sum(base.usd(name) - free.usd(name) for name in ("custom_metrics", "container_insights"))
    assert saved == pytest.approx(10 * 0.30)
    assert all(line.usd >= 0 for line in free.lines)


def test_an_on_demand_stream_bills_a_record_as_a_kilobyte_at_least() -> None:
    found = estimate(Load(ticks_per_s=1), shards=None)
    assert found.usd("stream_puts") == pytest.approx(10 * MONTH_S * 1024 / 1e9 * 0.104)
    assert found.usd("stream_shards") == pytest.approx(37.96)


def test_small_files_of_bronze_stay_in_their_class() -> None:
    """S3 moves none below 128 KB, and bills no move."""
    for ticks_per_s, days in ((200, 335), (10, 0)):
        few = estimate(Load(ticks_per_s=ticks_per_s), bronze_days=None, bronze_cheaper_after_days=30)
        assert Usage(few.inventory, few.load).cheaper_days == days
        assert (few.usd("lake_transitions") > 0) == (days > 0)

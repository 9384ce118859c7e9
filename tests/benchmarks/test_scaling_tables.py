"""docs/scaling.md has the tables of the calculation, and they say what its text concludes from them."""

from __future__ import annotations

import math

import pytest

from benchmarks.scaling_tables import (
    CALM,
    CELL,
    LIMITS,
    MEASURED,
    PRESETS,
    PROD,
    STEPS,
    TABLES,
    Preset,
    Step,
)
from cdk.config import CACHE_NODE_MB, parse
from tests.fixtures.paths import ROOT


@pytest.mark.parametrize("table", TABLES, ids=[table.__name__ for table in TABLES])
def test_the_document_has_the_tables(table: object) -> None:
    assert callable(table)
    assert table() in (ROOT / "docs" / "scaling.md").read_text("utf-8")


@pytest.mark.parametrize("preset", PRESETS, ids=[preset.name for preset in PRESETS])
@pytest.mark.parametrize("symbols", STEPS)
def test_each_step_is_a_configuration(symbols: int, preset: Preset) -> None:
    """Of each of its deployments: synthesis would refuse values out of bounds, or symbols that do not fit."""
    step = Step(symbols, preset)
    assert step.node_type in CACHE_NODE_MB
    parse(
        {
            "name": "prod",
            "symbols": [f"S{n:04}USDT" for n in range(step.per_cell)],
            "prediction": {"predict_every_ms": preset.predict_every_ms},
            "stream": {
                "shards": step.shards,
                "fan_out": preset.fan_out,
                "parallelism": step.parallelism,
            },
            "tables": {"quoted_grid_ms": preset.quoted_grid_ms, "keep_days": preset.keep_days},
            "functions": {"predict_stream": {"memory_mb": preset.memory_mb, "timeout_s": 30}},
            "aws": {
                "cache": {"node_type": step.node_type, "nodes": preset.nodes},
                "ingest": {"linger_ms": preset.linger_ms, "tasks": preset.tasks},
                "concurrent_executions": max(10, step.executions),
            },
        }
    )


def test_what_a_deployment_reaches_is_configured() -> None:
    """All else holds `CELL` symbols, in both presets."""
    reached = {limit.what for limit in LIMITS if min(map(limit.reached_at, PRESETS)) < CELL}
    assert reached <= {
        "records of a shard",
        "one environment of `predict_stream` a shard",
        "concurrent executions, fresh account",
        "storage of the database as configured",
    }


def test_a_quiet_symbol_costs_what_a_busy_one_does() -> None:
    """Records and commands of a symbol are the same for ten and the most, whose ticks differ by far."""
    for by_symbols in MEASURED.values():
        few, most = by_symbols[10], by_symbols[max(by_symbols)]
        factor = max(by_symbols) / 10
        assert few.ticks_per_s * factor > 5 * most.ticks_per_s
        for of in ("records_per_s", "redis_commands"):
            assert 0.8 < getattr(most, of) / getattr(few, of) / factor < 1.2, of


def test_the_calm_preset_costs_less_in_every_line_that_follows_the_cadence() -> None:
    for symbols in STEPS[1:]:
        prod, calm = Step(symbols, PROD), Step(symbols, CALM)
        assert calm.kinesis_usd < prod.kinesis_usd
        assert calm.lambda_usd < prod.lambda_usd
        assert calm.usd < prod.usd
    assert math.isclose(Step(1000, PROD).cells, 1000 / CELL)

"""`make cost` and docs/scaling.md of the same deployment, side by side: a model of use by line, and what a
simulation measured of the lines that grow with the symbols."""

from __future__ import annotations

from benchmarks.scaling_tables import PROD, Step
from operations.cost.estimate import Estimate

# By the columns of docs/scaling.md, in their order (`Step.lines_usd`): the lines of the estimate.
GROUPS = {
    "Kinesis": ("stream_shards", "stream_puts", "stream_keys", "fan_out_shards", "fan_out_data"),
    "Lambda": ("predict_requests", "predict_duration", "archive_duration"),
    "S3": ("lake_storage", "lake_cheaper_storage", "lake_transitions", "lake_writes"),
    "cache": ("cache_nodes",),
    "PostgreSQL": ("database_instance", "database_storage"),
    "ingest": ("ingest_cpu", "ingest_memory", "ingest_addresses"),
    "metrics, logs": ("custom_metrics", "logs_ingested"),
}


def groups(estimate: Estimate) -> dict[str, tuple[float, float]]:
    """(dollars by docs/scaling.md, dollars by the estimate) of each group, for prod and its symbols."""
    step = Step(estimate.inventory.symbols, PROD)
    return {
        name: (usd, sum(map(estimate.usd, lines)))
        for (name, lines), usd in zip(GROUPS.items(), step.lines_usd, strict=True)
    }


def table(estimate: Estimate) -> str:
    """Markdown, with what the estimate has besides."""
    found = groups(estimate)
    here, there = (sum(usd) for usd in zip(*found.values(), strict=True))
    rows = ["| | here | `make cost` |", "| --- | ---: | ---: |"]
    rows += [f"| {name} | {usd:,.2f} | {by_lines:,.2f} |" for name, (usd, by_lines) in found.items()]
    rows.append(f"| these together | {here:,.2f} | {there:,.2f} |")
    rows.append(f"| all else | | {estimate.month_usd - there:,.2f} |")
    rows.append(f"| **a month** | | **{estimate.month_usd:,.2f}** |")
    return "\n".join(rows)

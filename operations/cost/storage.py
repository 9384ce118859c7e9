"""Whether PostgreSQL's storage has room for the history that an environment keeps, and by which tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from operations.cost import measured
from operations.cost.inventory import Inventory
from operations.cost.table_sizes import TableSize, day_gb, year_gb
from operations.cost.usage import Load, Usage

BUSY_SYMBOLS, BUSY_TICKS_PER_S = 2, 200  # what the mark is for
MARK_GB = 60


def busy(inventory: Inventory) -> list[TableSize]:
    """The tables of the same environment with two busy symbols."""
    return Usage(replace(inventory, symbols=BUSY_SYMBOLS), Load(BUSY_TICKS_PER_S)).tables


def faults(inventory: Inventory, load: Load) -> list[str]:
    """Why the storage does not hold what is kept. What grows by itself, but costs more, is one too."""
    usage = Usage(inventory, load)
    needed_gb, configured_gb, limit_gb = usage.grown_gb, inventory.database_gb, inventory.database_limit_gb
    if needed_gb <= configured_gb:
        return []
    what = f"{usage.database_data_gb:,.0f} GB of rows take {needed_gb:,} GB of storage, a tenth of it free"
    if limit_gb is not None and needed_gb <= limit_gb:
        return [
            f"{what}: more than aws.database.storage_gb ({configured_gb}), so RDS enlarges it permanently"
        ]
    return [
        f"{what}, and it grows to {limit_gb or configured_gb:,} at most: PostgreSQL fills up and stops; keep "
        "fewer days (tables.keep_days), or raise aws.database.storage_limit_gb"
    ]


def storage_table(inventory: Inventory, load: Load) -> str:
    """Markdown: what each table takes with the load, and in all with two busy symbols."""
    usage = Usage(inventory, load)
    rows = [
        "| table of PostgreSQL | rows a day | bytes a row | GB a day | days kept | GB after a year |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for size in usage.tables:
        rows.append(
            f"| `{size.name}` | {size.rows_a_day:,.0f} | {size.row_bytes:g} | {size.day_gb:.3f} | "
            f"{size.days or 'all'} | {size.year_gb:.1f} |"
        )
    rows.append(f"| **all** | | | {day_gb(usage.tables):.3f} | | **{year_gb(usage.tables):.1f}** |")
    return "\n".join(rows)


def sentence(inventory: Inventory) -> str:
    """What two busy symbols take, whatever the load that is asked for."""
    sizes = busy(inventory)
    ends = ", which fits" if _storage_gb(sizes) <= inventory.database_gb else ""
    return (
        f"For comparison: two busy symbols ({BUSY_TICKS_PER_S} ticks a second each) take "
        f"{day_gb(sizes):.2f} GB a day and {year_gb(sizes):.1f} GB after a year; "
        f"{inventory.database_gb} GB are configured{ends}."
    )


def as_json(inventory: Inventory, load: Load) -> dict[str, Any]:
    usage, two = Usage(inventory, load), busy(inventory)
    return {
        "tables": {
            size.name: {"day_gb": round(size.day_gb, 4), "days": size.days, "year_gb": round(size.year_gb, 2)}
            for size in usage.tables
        },
        "day_gb": round(day_gb(usage.tables), 3),
        "year_gb": round(year_gb(usage.tables), 2),
        "two_busy_symbols_year_gb": round(year_gb(two), 2),
        "configured_gb": inventory.database_gb,
        "limit_gb": inventory.database_limit_gb,
        "fits": not faults(inventory, load),
    }


def _storage_gb(sizes: list[TableSize]) -> float:
    return year_gb(sizes) / measured.FULL_AT

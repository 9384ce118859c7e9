"""The data dictionary: every column of every table, from the types that the files are written by."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pyarrow as pa

from local.export.parquet_files import meaning, schema_of, struct_name
from local.export.tables import TABLES, Table

_HEAD = """# Data dictionary

The tables that `make export` writes ([export.md](export.md)), a folder each, one Parquet file by symbol and
hour: `trades/BTCUSDT-20250801T10.parquet`. Generated from the types of the rows, which are also the schemas
of the files, with these descriptions as the fields' metadata: `.venv/bin/python -m operations document`.

Times are whole numbers in UTC, µs (`…_us`) or ms since 1970; prices in quote currency, quantities in base
currency, moves in basis points. Fields are added, not renamed ([contracts.md](contracts.md)).
"""


def document() -> str:
    """The whole page."""
    parts = [_HEAD]
    described: set[str] = set()
    for table in TABLES:
        parts.append(_of_table(table))
        for name, held in _structs(schema_of(table.kind)):
            if name not in described:
                described.add(name)
                parts.append(_section(f"### {name}", "", held))
    return "\n".join(parts)


def columns(fields: pa.Schema | pa.StructType) -> list[pa.Field]:
    return [fields.field(n) for n in range(len(fields.names))]


def _of_table(table: Table) -> str:
    text = inspect.cleandoc(table.kind.__doc__ or "")
    return _section(f"## `{table.name}`", text, schema_of(table.kind))


def _section(title: str, text: str, fields: pa.Schema | pa.StructType) -> str:
    rows = [("column", "type", "null", "meaning"), ("---",) * 4]
    for field in columns(fields):
        null = "yes" if field.nullable else ""
        rows.append((f"`{field.name}`", _type_text(field), null, meaning(field).replace("|", "\\|")))
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([title, "", *([text, ""] if text else []), *lines, ""])


def _structs(fields: pa.Schema | pa.StructType) -> Iterator[tuple[str, pa.StructType]]:
    """The structs in columns, by their types' names, those within them after each."""
    for field in columns(fields):
        if name := struct_name(field):
            held = _struct_in(field.type)
            yield name, held
            yield from _structs(held)


def _struct_in(kind: pa.DataType) -> pa.StructType:
    if pa.types.is_list(kind):
        return _struct_in(kind.value_type)
    if pa.types.is_map(kind):
        return _struct_in(kind.item_type)
    return kind


def _type_text(field: pa.Field) -> str:
    """A column's type, a struct by its name."""
    name, kind = struct_name(field), field.type
    if pa.types.is_list(kind):
        return f"list of {name or kind.value_type}"
    if pa.types.is_map(kind):
        return f"map of {kind.key_type} to {name or kind.item_type}"
    return name or str(kind)

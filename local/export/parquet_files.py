"""Parquet files of the exported tables: their schemas, from the types of the rows, and their writing.

pyarrow is a tool of this command alone: no function and no layer has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, inspect

from local.export.hours import Coded, Column, Columns, Masked
from local.export.tables import MEANINGS, Table

MEANING = b"description"  # the key in a field's metadata
OF_TYPE = b"type"  # the name of the struct that a field holds, likewise
_COMPRESSION = "zstd"


def schema_of(kind: type[Struct]) -> pa.Schema:
    """The columns of a row's type, each with its description as metadata. Raises TypeError on a type that no
    table has so far."""
    return pa.schema(list(_fields(inspect.type_info(kind))))


def write(path: Path, table: Table, columns: Columns) -> int:
    """Write `columns` as the file `path`; returns the number of rows. Without rows there is no file."""
    schema = schema_of(table.kind)
    rows = next((len(_values(each)) for each in columns.values() if not isinstance(each, str)), 0)
    if not rows:
        return 0
    arrays = [_array(columns[field.name], field, rows) for field in schema]
    path.parent.mkdir(parents=True, exist_ok=True)
    made = pa.Table.from_arrays(arrays, schema=schema)
    made.validate(full=True)
    pq.write_table(made, path, compression=_COMPRESSION)
    return rows


def meaning(field: pa.Field) -> str:
    """What a column is, from its type; empty if it has no description."""
    return _metadata(field).get(MEANING, b"").decode()


def struct_name(field: pa.Field) -> str:
    """The name of the type that a column holds one, a list or a map of; empty for plain values."""
    return _metadata(field).get(OF_TYPE, b"").decode()


def _metadata(field: pa.Field) -> dict[bytes, bytes]:
    return field.metadata or {}


def _fields(info: Any) -> Iterator[pa.Field]:
    for field in info.fields:
        name = field.encode_name
        known = MEANINGS.get(f"{info.cls.__name__}.{name}") or MEANINGS.get(name, "")
        yield _field(name, field.type, known)


def _field(name: str, info: Any, known: str = "") -> pa.Field:
    """`known`: its meaning where the type has no description."""
    described, extra = "", {}
    if isinstance(info, inspect.Metadata):
        described = (info.extra_json_schema or {}).get("description", "")
        extra, info = info.extra or {}, info.type
    kinds = info.types if isinstance(info, inspect.UnionType) else (info,)
    (kind,) = (each for each in kinds if not isinstance(each, inspect.NoneType))
    if isinstance(kind, inspect.Metadata):  # a named annotation such as `Price | None`
        described, kind = described or (kind.extra_json_schema or {}).get("description", ""), kind.type
    metadata = {MEANING: (described or known).encode()}
    if held := _held(kind):
        metadata[OF_TYPE] = held.cls.__name__.encode()
    single = bool(extra.get("single"))
    return pa.field(name, _type(kind, single), nullable=len(kinds) > 1, metadata=metadata)


def _held(kind: Any) -> Any:
    """The struct in a value, a list or a map."""
    match kind:
        case inspect.StructType():
            return kind
        case inspect.ListType():
            return _held(kind.item_type)
        case inspect.DictType():
            return _held(kind.value_type)
    return None


def _type(kind: Any, single: bool = False) -> pa.DataType:
    match kind:
        case inspect.BoolType():
            return pa.bool_()
        case inspect.IntType():
            return pa.int64()
        case inspect.FloatType():
            return pa.float32() if single else pa.float64()
        case inspect.StrType() | inspect.LiteralType():
            return pa.string()
        case inspect.ListType():
            return pa.list_(_field("element", kind.item_type))  # as Parquet names it
        case inspect.DictType():
            return pa.map_(_type(_bare(kind.key_type)), _field("value", kind.value_type))
        case inspect.StructType():
            return pa.struct(list(_fields(kind)))
    raise TypeError(f"no column is of the type {kind}")


def _bare(info: Any) -> Any:
    return info.type if isinstance(info, inspect.Metadata) else info


def _values(column: Column) -> Any:
    match column:
        case Coded():
            return column.codes
        case Masked():
            return column.values
    return column


def _array(column: Column, field: pa.Field, rows: int) -> pa.Array:
    match column:
        case str():
            return pa.repeat(pa.scalar(column, field.type), rows)
        case Coded():
            return pa.array(column.labels, field.type).take(pa.array(column.codes))
        case Masked():
            return pa.array(np.ascontiguousarray(column.values), field.type, mask=column.is_null)
        case list():
            return pa.array(column, field.type)
    return pa.array(np.ascontiguousarray(column), field.type)

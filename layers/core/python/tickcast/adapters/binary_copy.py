"""PostgreSQL's binary COPY format by numpy: rows of fixed width, without nulls, are one structured array.

A row is a 16-bit field count and, for each field, its length and its bytes, all big-endian; arrays carry a
header of their own (PostgreSQL 18, "COPY", "Binary Format"; array_send in arrayfuncs.c). So where every field
has one width, lengths and headers are constants of the dtype, and a block of rows is ``tobytes`` of a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = _SIGNATURE + bytes(8)  # no flags, no extension
_TRAILER = b"\xff\xff"
_REAL_OID = 700

Column = npt.NDArray[Any]


def encode(columns: Sequence[Column]) -> bytes:
    """The rows whose fields are `columns`, in order, as a whole COPY stream.

    Arrays of shape (N,) of int16, int32, int64, float32, float64 and bool become smallint, integer, bigint,
    real, double precision and boolean; a float32 array of shape (N, n) becomes real[].
    """
    dtypes = [_field(column) for column in columns]
    rows = np.zeros(len(columns[0]), _row(dtypes))
    rows["fields"] = len(columns)
    for at, (column, dtype) in enumerate(zip(columns, dtypes, strict=True)):
        rows[f"length{at}"] = dtype.itemsize
        if dtype.names is None:
            rows[f"field{at}"] = column
            continue
        array = rows[f"field{at}"]
        array["dimensions"], array["oid"] = 1, _REAL_OID
        array["count"], array["lower_bound"] = column.shape[1], 1
        array["items"]["length"] = 4
        array["items"]["value"] = column
    return _HEADER + rows.tobytes() + _TRAILER


def _row(fields: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    parts: list[Any] = [("fields", ">i2")]
    for at, dtype in enumerate(fields):
        parts += [(f"length{at}", ">i4"), (f"field{at}", dtype)]
    return np.dtype(parts)


def _field(column: Column) -> np.dtype[Any]:
    if column.ndim == 1:
        return column.dtype.newbyteorder(">")
    header = ("dimensions", "has_nulls", "oid", "count", "lower_bound")
    items = np.dtype([("length", ">i4"), ("value", ">f4")])
    return np.dtype([*((name, ">i4") for name in header), ("items", items, column.shape[1:])])

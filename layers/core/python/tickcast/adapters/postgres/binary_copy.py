"""PostgreSQL's binary COPY format by numpy: rows of fixed width, without nulls, are one structured array.

A row is a 16-bit field count and, for each field, its length and its bytes, all big-endian; arrays carry a
header of their own (PostgreSQL 18, "COPY", "Binary Format"; array_send in arrayfuncs.c). So where every field
has one width, lengths and headers are constants of the dtype, and many rows are ``tobytes`` of one copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = _SIGNATURE + bytes(8)  # no flags, no extension
_TRAILER = b"\xff\xff"
_PIECE_ROWS = 1_000  # they fit into the processor's cache; the server stores them while the next are encoded
_OIDS = {np.dtype(np.int64): 20, np.dtype(np.float32): 700}  # of an array's items (pg_type.dat)

Column = npt.NDArray[Any]


def encode(columns: Sequence[Column]) -> Iterator[bytes]:
    """The rows whose fields are `columns`, in order, as the pieces of one COPY stream.

    Arrays of shape (N,) of int16, int32, int64, float32, float64 and bool become smallint, integer, bigint,
    real, double precision and boolean; bytes, which must fill their dtype, become text or an enum's labels.
    Of shape (N, n), int64 and float32 become bigint[] and real[].
    """
    yield _HEADER
    row = _row([_field(column) for column in columns])
    for start in range(0, len(columns[0]), _PIECE_ROWS):
        yield _rows([column[start : start + _PIECE_ROWS] for column in columns], row).tobytes()
    yield _TRAILER


def _rows(columns: Sequence[Column], row: np.dtype[Any]) -> npt.NDArray[Any]:
    rows = np.zeros(len(columns[0]), row)
    rows["fields"] = len(columns)
    for at, column in enumerate(columns):
        field = rows[f"field{at}"]
        rows[f"length{at}"] = field.dtype.itemsize
        if field.dtype.names is None:
            rows[f"field{at}"] = column
            continue
        field["dimensions"], field["oid"] = 1, _OIDS[column.dtype]
        field["count"], field["lower_bound"] = column.shape[1], 1
        field["items"]["length"] = column.itemsize
        field["items"]["value"] = column
    return rows


def _row(fields: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    parts: list[Any] = [("fields", ">i2")]
    for at, dtype in enumerate(fields):
        parts += [(f"length{at}", ">i4"), (f"field{at}", dtype)]
    return np.dtype(parts)


def _field(column: Column) -> np.dtype[Any]:
    item = column.dtype.newbyteorder(">")
    if column.ndim == 1:
        return item
    header = ("dimensions", "has_nulls", "oid", "count", "lower_bound")
    items = np.dtype([("length", ">i4"), ("value", item)])
    return np.dtype([*((name, ">i4") for name in header), ("items", items, column.shape[1:])])

"""Feature rows as they are stored: blocks of rows of an hour, of one kind and origin, as binary arrays.

Arrays are little-endian. A row is as of `hour_us` plus a whole number of bars; features, moves and the
distance of the last trade are float16, column by column, as neighbours in time are alike: 94 bytes a row with
28 features and 17 moves. Half precision has eleven bits: an error of 1/2048 of a value at most, while flags
and a move of 0 are exact.

The rows of an hour are spread over `PARTS` by a hash of their times: who needs a share of the rows reads a
share of the blocks, from the whole hour alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.features.bars import BAR_US
from tickcast.features.vector import Floats
from tickcast.model.dataset import ROW_HASH, Rows
from tickcast.model.forecast import HORIZONS_S
from tickcast.units import HOUR_US

PARTS = 16
_END = np.dtype("<u2")  # in bars since the hour's beginning
_VALUE = np.dtype("<f2")
_LARGEST = float(np.finfo(np.float16).max)

# By which the rows of this code's features and labels are selected, in tables with a feature_set.
THIS_CODE: dict[str, Any] = {"row_hash": ROW_HASH, "horizons_s": list(HORIZONS_S)}
OF_THIS_CODE: LiteralString = (
    "feature_set = (select feature_set from tickcast.feature_sets "
    "where feature_hash = %(row_hash)s and horizons_s = %(horizons_s)s::integer[])"
)

Ints = npt.NDArray[np.int64]
Halves = npt.NDArray[np.float16]


class RowBlock(NamedTuple):
    """Rows of an hour as one row of `tickcast.feature_blocks`; `first_us` and `last_us` are of its rows."""

    has_quotes: bool
    origin: int
    part: int
    rows: int
    first_us: int
    last_us: int
    ends: bytes
    features: bytes
    moves_bp: bytes
    last_trade_bp: bytes


class BlockRows(NamedTuple):
    """The rows of a block, in the order of time, as they are stored: times (rows,), features (rows, F), moves
    (rows, J), and how far the last trade was from the mid (rows,), bp, NaN: unknown."""

    end_us: Ints
    features: Halves
    moves_bp: Halves
    last_trade_bp: Halves

    def chosen(self, at: npt.NDArray[Any] | slice) -> Rows:
        """Some of the rows, as they are trained on."""
        return Rows(self.end_us[at], self.features[at].astype(float), self.moves_bp[at].astype(float))


def blocks_of(
    hour_us: int, rows: Rows, last_trade_bp: Floats, origins: npt.NDArray[np.int16]
) -> Iterator[RowBlock]:
    """The blocks of an hour's rows, which end within it; `origins` is of each row."""
    if not len(rows.end_us):
        return
    bars = (rows.end_us - hour_us) // BAR_US
    part = part_of(hour_us, bars)
    groups = (2 * origins.astype(np.int64) + rows.has_quotes) * PARTS + part
    order = np.argsort(groups, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        group = int(groups[at[0]])
        yield RowBlock(
            has_quotes=bool(group // PARTS % 2),
            origin=group // PARTS // 2,
            part=group % PARTS,
            rows=len(at),
            first_us=int(rows.end_us[at[0]]),
            last_us=int(rows.end_us[at[-1]]),
            ends=bars[at].astype(_END).tobytes(),
            features=_stored(rows.features[at].T),
            moves_bp=_stored(rows.moves_bp[at].T),
            last_trade_bp=_stored(last_trade_bp[at]),
        )


def ends_us(hour_us: int, ends: bytes) -> Ints:
    """The times of a block's rows. Shape (rows,)."""
    return np.asarray(hour_us + np.frombuffer(ends, _END).astype(np.int64) * BAR_US)


def read(hour_us: int, ends: bytes, features: bytes, moves_bp: bytes, last_trade_bp: bytes) -> BlockRows:
    """The rows of a block: views of the bytes, so what is not chosen costs nothing."""
    end_us = ends_us(hour_us, ends)
    values, moves, last = (np.frombuffer(data, _VALUE) for data in (features, moves_bp, last_trade_bp))
    shape = -1, len(end_us)
    return BlockRows(end_us, values.reshape(shape).T, moves.reshape(shape).T, last)


def part_of(hour_us: int, bars: Ints) -> Ints:
    """The part of the row at each of `bars` of an hour; other instants in each hour. Shape (bars,)."""
    mixed = (bars + hour_us // HOUR_US * 40503).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return np.asarray((mixed >> np.uint64(60)) % PARTS, np.int64)


def _stored(values: npt.NDArray[Any]) -> bytes:
    return bytes(np.clip(values, -_LARGEST, _LARGEST).astype(_VALUE).tobytes())

"""Rows to train and to evaluate on, from PostgreSQL: by a server-side cursor, in bounded memory.

How many rows there are is counted first. Where a kind of row (with quotes, without) is more than its share of
the cap, rows to train on are drawn at random from the whole span, whatever their grid, by a hash of their
time: the same rows each time. Rows to evaluate on lie on a grid: every k-th step of the clock is read, and if
more than the cap is still left the oldest are left out. So memory depends on the caps alone, however long the
history.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, LiteralString, NamedTuple
from zlib import crc32

import numpy as np
import psycopg

from tickcast.features.bars import BAR_US
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.market.sources import REAL_ORIGINS, Origin
from tickcast.model.dataset import NO_ROWS, ROW_HASH, Rows
from tickcast.model.forecast import HORIZONS_S, PATH_S
from tickcast.model.thinning import drawn_by_kind, equal_shares

QUOTED_ROWS = 120_000  # of all markets together: some 30 MB, and as much again for their masked twins
UNQUOTED_ROWS = 40_000
GATE_ROWS = 120_000
FETCHED_ROWS = 5_000  # at once: about a megabyte

# A one-dimensional array as PostgreSQL sends it: five words of head, then each value behind its length.
_HEAD = ("head", ">i4", (5,))
_VALUE = np.dtype([("length", ">i4"), ("value", ">f4")])
_FEATURES = np.dtype([_HEAD, ("of", _VALUE, (len(FEATURE_NAMES),))])
_MOVES = np.dtype([_HEAD, ("of", _VALUE, (len(PATH_S),))])

_THIS_CODE: dict[str, Any] = {"row_hash": ROW_HASH, "horizons_s": list(HORIZONS_S)}
_OF_THIS_CODE: LiteralString = (
    "feature_set = (select feature_set from tickcast.feature_sets "
    "where feature_hash = %(row_hash)s and horizons_s = %(horizons_s)s::integer[])"
)
_COUNT: LiteralString = f"""
select symbol, has_quotes, origin::text, count(*), min(end_us), max(end_us)
from tickcast.feature_rows
where (%(symbols)s::text[] is null or symbol = any(%(symbols)s)) and end_us >= %(from_us)s and {_OF_THIS_CODE}
group by 1, 2, 3 order by 1, 2, 3"""
_COUNT_OF_OTHERS: LiteralString = f"""
select count(*) from tickcast.feature_rows
where (%(symbols)s::text[] is null or symbol = any(%(symbols)s)) and end_us >= %(from_us)s
    and ({_OF_THIS_CODE}) is not true"""
_READ: LiteralString = f"""
select end_us, array_send(features), array_send(moves_bp)
from tickcast.feature_rows
where symbol = %(symbol)s and end_us >= %(from_us)s and {_OF_THIS_CODE}
    and origin::text = any(%(origins)s)
    and hashint8extended(end_us, %(seed)s) & 1048575
        < 1048576 * case when has_quotes then %(quoted_share)s else %(unquoted_share)s end
order by end_us desc"""
# The last trade's price is known to history at whole seconds only.
_GATE: LiteralString = f"""
select r.end_us, array_send(r.features), array_send(r.moves_bp),
    coalesce(case when b.has_quotes and b.last_trade_price > 0
        then (2 * b.last_trade_price::float8 / (b.bid_price::numeric + b.ask_price)::float8 - 1) * 1e4 end,
        'NaN'::float8)
from tickcast.feature_rows r left join tickcast.bars_1s b using (symbol, end_us)
where symbol = %(symbol)s and end_us >= %(from_us)s and {_OF_THIS_CODE}
    and r.origin::text = any(%(origins)s) and r.has_quotes and end_us %% %(step_us)s = 0
order by end_us desc limit %(most)s"""


class RowCount(NamedTuple):
    """How many rows of a market there are, of one kind and origin, and between which instants."""

    symbol: str
    has_quotes: bool
    origin: Origin
    rows: int
    first_us: int
    last_us: int


class GateRows(NamedTuple):
    """Rows with quotes of one market, and how far the last trade was from the mid (N,), bp, NaN: unknown."""

    symbol: str
    rows: Rows
    last_trade_bp: Floats


def row_counts(
    connection: psycopg.Connection[Any], symbols: Sequence[str] | None, from_us: int
) -> list[RowCount]:
    """The rows of `symbols`, or of all, since `from_us`, with this code's features and labels.

    Where any are of a real market, or a recording of one, simulated rows are left out: under the same name
    that is another market.
    """
    parameters = _THIS_CODE | {"symbols": symbols and list(symbols), "from_us": from_us}
    found = [
        RowCount(symbol, has_quotes, Origin[label.upper()], *counts)
        for symbol, has_quotes, label, *counts in connection.execute(_COUNT, parameters)
    ]
    is_real = any(each.origin in REAL_ORIGINS for each in found)
    return [each for each in found if not (is_real and each.origin is Origin.SIM)]


def rows_left_aside(connection: psycopg.Connection[Any], symbols: Sequence[str] | None, from_us: int) -> int:
    """How many rows of `symbols`, or of all, since `from_us` have features or labels of other code."""
    parameters = _THIS_CODE | {"symbols": symbols and list(symbols), "from_us": from_us}
    [(rows,)] = connection.execute(_COUNT_OF_OTHERS, parameters)
    return int(rows)


def learning_rows(
    connection: psycopg.Connection[Any],
    found: Sequence[RowCount],
    from_us: int,
    quoted_rows: int = QUOTED_ROWS,
    unquoted_rows: int = UNQUOTED_ROWS,
) -> dict[str, Rows]:
    """By symbol, in the order of time, the rows counted in `found` since `from_us`: at most `quoted_rows`
    with quotes and `unquoted_rows` without, drawn from all of the span in equal shares for each market."""
    markets = {}
    symbols = sorted({each.symbol for each in found})
    counts = {kind: [_count(found, symbol, kind) for symbol in symbols] for kind in (True, False)}
    limits = zip(
        equal_shares(counts[True], quoted_rows), equal_shares(counts[False], unquoted_rows), strict=True
    )
    for symbol, (quoted, unquoted) in zip(symbols, limits, strict=True):
        parameters = {
            "symbol": symbol,
            "from_us": from_us,
            "seed": crc32(symbol.encode()),
            "quoted_share": _share(quoted, _count(found, symbol, True)),
            "unquoted_share": _share(unquoted, _count(found, symbol, False)),
            "origins": sorted({each.origin.label for each in found}),
        }
        rows = _in_order([_rows(block) for block in _blocks(connection, _READ, parameters)])
        markets[symbol] = drawn_by_kind(rows, quoted, unquoted, crc32(symbol.encode()))
    return markets


def gate_rows(
    connection: psycopg.Connection[Any],
    found: Sequence[RowCount],
    from_us: int,
    most: int = GATE_ROWS,
) -> list[GateRows]:
    """The rows with quotes counted in `found` since `from_us`, at most `most`, all markets on one grid."""
    quoted = {each.symbol for each in found if each.has_quotes}
    if not quoted:
        return []
    share = most // len(quoted)
    step_us = _step_us(max(_count(found, symbol, True) for symbol in quoted), share, BAR_US)
    markets = []
    for symbol in sorted(quoted):
        parameters = {
            "symbol": symbol,
            "from_us": from_us,
            "step_us": step_us,
            "most": share,
            "origins": sorted({each.origin.label for each in found}),
        }
        parts, last = [], [np.empty(0)]
        for block in _blocks(connection, _GATE, parameters):
            parts.append(_rows(block))
            last.append(np.array([row[3] for row in block], float))
        markets.append(GateRows(symbol, _in_order(parts), np.concatenate(last)[::-1]))
    return markets


def _blocks(
    connection: psycopg.Connection[Any], query: LiteralString, parameters: dict[str, Any]
) -> Iterator[list[Any]]:
    """The rows of a query's result, `FETCHED_ROWS` at a time."""
    with connection.transaction(), connection.cursor("rows", binary=True) as cursor:
        cursor.execute(query, _THIS_CODE | parameters)
        while block := cursor.fetchmany(FETCHED_ROWS):
            yield block


def _count(found: Sequence[RowCount], symbol: str, has_quotes: bool) -> int:
    return sum(each.rows for each in found if each.symbol == symbol and each.has_quotes is has_quotes)


def _rows(block: list[Any]) -> Rows:
    features, moves_bp = (
        np.frombuffer(b"".join(row[at] for row in block), kind)["of"]["value"].astype(float)
        for at, kind in ((1, _FEATURES), (2, _MOVES))
    )
    return Rows(np.array([row[0] for row in block], np.int64), features, moves_bp)


def _in_order(parts: list[Rows]) -> Rows:
    """Blocks that were read newest first, joined, oldest first."""
    return Rows(*(np.concatenate(columns)[::-1] for columns in zip(NO_ROWS, *parts, strict=True)))


def _share(most: int, count: int) -> float:
    """The share of `count` rows to read, for a draw by hash to have `most` of them nearly always."""
    return min(1.0, (most + 4 * math.sqrt(most)) / max(count, 1))


def _step_us(rows: int, most: int, grid_us: int) -> int:
    """The step of the clock that leaves about `most` of `rows` on a grid."""
    return grid_us * max(1, -(-rows // max(most, 1)))

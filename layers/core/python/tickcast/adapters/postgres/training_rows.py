"""Rows to train and to evaluate on, from PostgreSQL: blocks by a server-side cursor, in bounded memory.

How many rows there are is counted first. Where a kind of row (with quotes, without) is more than its share of
the cap, as many as the share are drawn from all of its span: of each block in proportion to its rows, and
where few are needed, from some of the parts that each hour's rows are spread over (`row_blocks`). So memory
depends on the caps alone, however long the history. The draw is seeded: the same rows give the same sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, LiteralString, NamedTuple
from zlib import crc32

import numpy as np
import psycopg

from tickcast.adapters.postgres import row_blocks
from tickcast.adapters.postgres.row_blocks import OF_THIS_CODE, THIS_CODE, BlockRows
from tickcast.features.bars import BAR_US
from tickcast.features.vector import Floats
from tickcast.market.sources import REAL_ORIGINS, Origin
from tickcast.model.dataset import NO_ROWS, Rows, pool
from tickcast.model.thinning import equal_shares
from tickcast.units import HOUR_US

QUOTED_ROWS = 120_000  # of all markets together: some 30 MB, and as much again for their masked twins
UNQUOTED_ROWS = 40_000
GATE_ROWS = 120_000
FETCHED_BLOCKS = 64  # at once: of a busy market's rows with quotes four hours, 13 MB

_OF_MARKETS: LiteralString = """
(%(symbols)s::text[] is null or symbol = any(%(symbols)s)) and last_us >= %(from_us)s
    and hour_us >= %(from_hour_us)s"""
_COUNT: LiteralString = f"""
select symbol, has_quotes, origin::text, sum(feature_rows)::bigint, min(first_us), max(last_us)
from tickcast.feature_blocks where {_OF_MARKETS} and first_us >= %(from_us)s and {OF_THIS_CODE}
group by 1, 2, 3"""
_BEGUN_BEFORE: LiteralString = f"""
select symbol, has_quotes, origin::text, hour_us, ends
from tickcast.feature_blocks where {_OF_MARKETS} and first_us < %(from_us)s and {OF_THIS_CODE}"""
_COUNT_OF_OTHERS: LiteralString = f"""
select coalesce(sum(feature_rows), 0)::bigint from tickcast.feature_blocks
where {_OF_MARKETS} and ({OF_THIS_CODE}) is not true"""
_OF_KIND: LiteralString = f"""
symbol = %(symbol)s and has_quotes = %(has_quotes)s and last_us >= %(from_us)s
    and hour_us >= %(from_hour_us)s and origin::text = any(%(origins)s) and {OF_THIS_CODE}"""
_COUNT_BY_PART: LiteralString = f"""
select part, sum(feature_rows)::bigint from tickcast.feature_blocks where {_OF_KIND} group by 1 order by 1"""
_READ: LiteralString = f"""
select hour_us, ends, features, moves_bp, last_trade_bp
from tickcast.feature_blocks where {_OF_KIND} and part <= %(last_part)s
order by hour_us desc, origin, part"""


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
    parameters = THIS_CODE | _since(from_us) | {"symbols": symbols and list(symbols)}
    counts: dict[tuple[str, bool, str], tuple[int, int, int]] = {}
    for *kind, rows, first_us, last_us in connection.execute(_COUNT, parameters):
        counts[tuple(kind)] = rows, first_us, last_us
    for *kind, hour_us, ends in connection.execute(_BEGUN_BEFORE, parameters, binary=True):
        end_us = row_blocks.ends_us(hour_us, ends)
        end_us = end_us[end_us >= from_us]
        if len(end_us):
            rows, first_us, last_us = counts.get(tuple(kind), (0, 2**63, 0))
            times_us = min(first_us, int(end_us[0])), max(last_us, int(end_us[-1]))
            counts[tuple(kind)] = rows + len(end_us), *times_us
    found = [
        RowCount(symbol, has_quotes, Origin[label.upper()], *count)
        for (symbol, has_quotes, label), count in sorted(counts.items())
    ]
    is_real = any(each.origin in REAL_ORIGINS for each in found)
    return [each for each in found if not (is_real and each.origin is Origin.SIM)]


def rows_left_aside(connection: psycopg.Connection[Any], symbols: Sequence[str] | None, from_us: int) -> int:
    """How many rows of `symbols`, or of all, since `from_us` have features or labels of other code."""
    parameters = THIS_CODE | _since(from_us) | {"symbols": symbols and list(symbols)}
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
    with quotes and `unquoted_rows` without, in equal shares for each market."""
    symbols = sorted({each.symbol for each in found})
    markets: dict[str, list[Rows]] = {symbol: [NO_ROWS] for symbol in symbols}
    for has_quotes, most in ((True, quoted_rows), (False, unquoted_rows)):
        counts = [_count(found, symbol, has_quotes) for symbol in symbols]
        for symbol, share in zip(symbols, equal_shares(counts, most), strict=True):
            if share:
                markets[symbol].append(_drawn(connection, _kind(found, symbol, has_quotes, from_us), share))
    return {symbol: pool(parts) for symbol, parts in markets.items()}


def gate_rows(
    connection: psycopg.Connection[Any],
    found: Sequence[RowCount],
    from_us: int,
    most: int = GATE_ROWS,
) -> list[GateRows]:
    """The rows with quotes counted in `found` since `from_us`, at most `most`, all markets on one grid. If
    more than the cap is left on it, as where rows are coarser than bars, the oldest are left out."""
    quoted = {each.symbol for each in found if each.has_quotes}
    if not quoted:
        return []
    share = most // len(quoted)
    step_us = _step_us(max(_count(found, symbol, True) for symbol in quoted), share, BAR_US)
    markets = []
    for symbol in sorted(quoted):
        parts, last, count, newer_us = [NO_ROWS], [np.empty(0)], 0, None
        for hour_us, block in _blocks(connection, _kind(found, symbol, True, from_us)):
            if count >= share and hour_us != newer_us:
                break
            newer_us = hour_us
            at = np.flatnonzero((block.end_us >= from_us) & (block.end_us % step_us == 0))
            if len(at):
                parts.append(block.chosen(at))
                last.append(block.last_trade_bp[at].astype(float))
                count += len(at)
        rows, distance = Rows(*map(np.concatenate, zip(*parts, strict=True))), np.concatenate(last)
        newest = np.argsort(rows.end_us, kind="stable")[-share:] if share else np.empty(0, np.int64)
        markets.append(GateRows(symbol, rows.chosen(newest), distance[newest]))
    return markets


def _drawn(connection: psycopg.Connection[Any], kind: dict[str, Any], most: int) -> Rows:
    """At most `most` rows of a kind, from all of its span alike."""
    by_part = connection.execute(_COUNT_BY_PART, THIS_CODE | kind).fetchall()
    held, last_part = 0, -1
    for part, rows in by_part:
        if held < most:
            held, last_part = held + rows, part
    random = np.random.default_rng(crc32(f"{kind['symbol']} {kind['has_quotes']}".encode()))
    drawn, read, taken = [NO_ROWS], 0, 0
    for _, block in _blocks(connection, kind, last_part):
        count = len(block.end_us)
        read += count
        share = min(count, round(read * min(1.0, most / held)) - taken)
        taken += share
        at = np.sort(random.permutation(count)[:share])
        drawn.append(block.chosen(at[block.end_us[at] >= kind["from_us"]]))
    return pool(drawn)


def _blocks(
    connection: psycopg.Connection[Any], kind: dict[str, Any], last_part: int = row_blocks.PARTS
) -> Iterator[tuple[int, BlockRows]]:
    """The blocks of a kind up to a part of each hour, with the hour, the newest first."""
    parameters = THIS_CODE | kind | {"last_part": last_part}
    with connection.transaction(), connection.cursor("blocks", binary=True) as cursor:
        cursor.execute(_READ, parameters)
        while fetched := cursor.fetchmany(FETCHED_BLOCKS):
            for hour_us, *columns in fetched:
                yield hour_us, row_blocks.read(hour_us, *columns)


def _kind(found: Sequence[RowCount], symbol: str, has_quotes: bool, from_us: int) -> dict[str, Any]:
    origins = sorted({each.origin.label for each in found})
    return {"symbol": symbol, "has_quotes": has_quotes, "origins": origins} | _since(from_us)


def _since(from_us: int) -> dict[str, Any]:
    return {"from_us": from_us, "from_hour_us": from_us // HOUR_US * HOUR_US}


def _count(found: Sequence[RowCount], symbol: str, has_quotes: bool) -> int:
    return sum(each.rows for each in found if each.symbol == symbol and each.has_quotes is has_quotes)


def _step_us(rows: int, most: int, grid_us: int) -> int:
    """The step of the clock that leaves about `most` of `rows` on a grid."""
    return grid_us * max(1, -(-rows // max(most, 1)))

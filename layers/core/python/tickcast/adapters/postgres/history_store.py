"""History in PostgreSQL: the tables of `migrations/`, read and written in blocks by binary COPY.

New trades are most of what is written, and known to be new: they are copied straight into their table, so the
server handles each once. Everything else goes through temporary tables, from which statements compare it with
the stored rows and cast the types that numpy lacks. Call all methods but `add_days` and `expire` in a
transaction that holds the `lock` of the days it touches, so that a failure changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, LiteralString, NamedTuple

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from tickcast.adapters.postgres import binary_copy
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.gap_store import TO_ORIGIN, GapStore
from tickcast.features.vector import FEATURE_NAMES
from tickcast.market.sources import Origin
from tickcast.market.trade_ledger import LedgerRows
from tickcast.model.dataset import ROW_HASH, HourRows
from tickcast.model.forecast import HORIZONS_S
from tickcast.units import DAY_US, HOUR_US

_AS_HELD = ("time_us", "first_id", "last_id", "price", "qty", "side", "trades")  # columns of the table too
_AGGREGATE = ("aggregate_first_id", "aggregate_last_id", "aggregate_qty")
_TO_LABEL = (
    "case {} " + " ".join(f"when {each} then '{each.label}'" for each in Origin) + " end::tickcast.origin"
)
_ORIGIN = _TO_LABEL.format("origin")

_STAGING: LiteralString = """
create temporary table if not exists staged_trades (time_us bigint, first_id bigint) on commit delete rows;
create temporary table if not exists staged_bars (
    end_us bigint, trade_count bigint, buy_qty bigint[], sell_qty bigint[], notional bigint[],
    quote_count bigint, last_trade_id bigint, last_trade_price bigint, update_id bigint, bid_price bigint,
    bid_qty bigint, ask_price bigint, ask_qty bigint, has_quotes boolean, origin smallint
) on commit delete rows;
create temporary table if not exists staged_rows (
    end_us bigint, features real[], moves_bp real[], has_quotes boolean, origin smallint
) on commit delete rows;
"""
# Sums come as limbs (tickcast.sums). The table's unit of `notional` is 1e-8 of the quote currency.
_BUY_QTY: LiteralString = "buy_qty[1] + buy_qty[2] * 4294967296::numeric"
_SELL_QTY: LiteralString = "sell_qty[1] + sell_qty[2] * 4294967296::numeric"
_NOTIONAL: LiteralString = (
    "(notional[1] + notional[2] * 4294967296::numeric + notional[3] * 18446744073709551616"
    " + notional[4] * 79228162514264337593543950336) * 0.00000001"
)
# Rows that differ are replaced and missing ones removed; equal rows are not touched.
_REMOVE_TRADES: LiteralString = """
delete from tickcast.trades t using staged_trades s
where t.symbol = %s and t.first_id = s.first_id and t.time_us = s.time_us"""
_REMOVE_BARS: LiteralString = """
delete from tickcast.bars_1s where symbol = %s and end_us >= %s and end_us < %s
    and end_us not in (select end_us from staged_bars)"""
_ADD_BARS: LiteralString = f"""
insert into tickcast.bars_1s as old (
    symbol, end_us, trade_count, buy_qty, sell_qty, notional, quote_count, last_trade_id, last_trade_price,
    update_id, bid_price, bid_qty, ask_price, ask_qty, has_quotes, origin)
select %s, end_us, trade_count, {_BUY_QTY}, {_SELL_QTY}, {_NOTIONAL}, quote_count, last_trade_id,
    last_trade_price, update_id, bid_price, bid_qty, ask_price, ask_qty, has_quotes, {_ORIGIN}
from staged_bars
on conflict (symbol, end_us) do update set (
    trade_count, buy_qty, sell_qty, notional, quote_count, last_trade_id, last_trade_price,
    update_id, bid_price, bid_qty, ask_price, ask_qty, has_quotes, origin) = row (
    excluded.trade_count, excluded.buy_qty, excluded.sell_qty, excluded.notional, excluded.quote_count,
    excluded.last_trade_id, excluded.last_trade_price, excluded.update_id, excluded.bid_price,
    excluded.bid_qty, excluded.ask_price, excluded.ask_qty, excluded.has_quotes, excluded.origin)
where old is distinct from excluded"""
_REMOVE_ROWS: LiteralString = """
delete from tickcast.feature_rows where symbol = %s and end_us >= %s and end_us < %s
    and end_us not in (select end_us from staged_rows)"""
_ADD_ROWS: LiteralString = f"""
insert into tickcast.feature_rows as old
    (symbol, end_us, feature_set, has_quotes, origin, features, moves_bp)
select %s, end_us, %s, has_quotes, {_ORIGIN}, features, moves_bp from staged_rows
on conflict (symbol, end_us) do update set (feature_set, has_quotes, origin, features, moves_bp)
    = row (excluded.feature_set, excluded.has_quotes, excluded.origin, excluded.features, excluded.moves_bp)
where old is distinct from excluded"""

Origins = npt.NDArray[np.int16]  # of Origin


class LoadedObject(NamedTuple):
    """An object in the ledger of loads. `origin` is None where it could not be read."""

    key: str
    etag: str
    symbol: str
    trades: int
    quotes: int
    first_us: int | None = None
    last_us: int | None = None
    origin: Origin | None = None
    reason: str = ""  # of the quarantine


class HistoryStore(GapStore):
    """The history, over one connection in autocommit mode."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(connection)
        self._days: set[int] = set()
        connection.execute(_STAGING)
        self._feature_set = self._registered_features()

    def add_days(self, days_us: Iterable[int]) -> None:
        """Create the missing partitions of `days_us`."""
        for day_us in sorted(set(days_us) - self._days):
            self.connection.execute("select tickcast.add_day(%s)", (day_us,))
            self._days.add(day_us)

    def expire(self, before_us: int) -> int:
        """Delete whole days before `before_us`; returns how many partitions were dropped.

        Raises ValueError where that is negative, or leaves less than a day by the server's clock: then a
        setting or the caller's clock is wrong, and nothing is deleted.
        """
        day_us = before_us // DAY_US * DAY_US
        (now_us,) = self._one("select floor(extract(epoch from clock_timestamp()) * 1000000)::bigint")
        if not 0 <= day_us <= now_us - DAY_US:
            raise ValueError(f"days before {day_us} µs are not deleted: the server's clock says {now_us} µs")
        self._days.clear()
        (count,) = self._one("select tickcast.drop_days_before(%s)", day_us)
        if count:
            self.connection.execute("delete from tickcast.loaded_objects where last_us < %s", (day_us,))
            self.connection.execute("delete from tickcast.stale_hours where hour_us < %s", (day_us,))
        return int(count)

    def known_objects(self, keys: Sequence[str]) -> dict[str, str]:
        """The ETags of those of `keys` that are in the ledger, loaded or quarantined."""
        query = "select key, etag from tickcast.loaded_objects where key = any(%s)"
        return dict(self.connection.execute(query, (list(keys),)).fetchall())

    def note(self, entry: LoadedObject, dirty_hours: Iterable[int]) -> None:
        """Put an object into the ledger, and mark the hours whose rows do not include it yet."""
        self.connection.execute(
            f"""
            insert into tickcast.loaded_objects
                (key, etag, symbol, status, reason, trades, quotes, first_us, last_us, origin)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, {_TO_LABEL.format("%s::smallint")})
            on conflict (key) do update set (etag, status, reason, trades, quotes, first_us, last_us, origin,
                loaded_at) = row (excluded.etag, excluded.status, excluded.reason, excluded.trades,
                excluded.quotes, excluded.first_us, excluded.last_us, excluded.origin, now())""",
            (entry.key, entry.etag, entry.symbol, "quarantined" if entry.reason else "loaded", entry.reason)
            + (entry.trades, entry.quotes, entry.first_us, entry.last_us, entry.origin),
        )
        self.connection.execute(
            "insert into tickcast.stale_hours select %s, unnest(%s::bigint[]) on conflict do nothing",
            (entry.symbol, list(dirty_hours)),
        )

    def objects_with_quotes(self, symbol: str, from_us: int, to_us: int) -> list[LoadedObject]:
        """The loaded objects with quotes whose ticks reach into [from_us, to_us), by key."""
        rows = self.connection.execute(
            f"""
            select key, etag, symbol, trades, quotes, first_us, last_us, {TO_ORIGIN}
            from tickcast.loaded_objects
            where symbol = %s and status = 'loaded' and quotes > 0 and last_us >= %s and first_us < %s
            order by key""",
            (symbol, from_us, to_us),
        )
        return [LoadedObject(*about)._replace(origin=Origin(index)) for *about, index in rows]

    def trades_by_time(self, symbol: str, from_us: int, to_us: int) -> LedgerRows:
        """The trades known of [from_us, to_us)."""
        return self._ledger_rows("symbol = %s and time_us >= %s and time_us < %s", symbol, from_us, to_us)

    def replace_trades(self, symbol: str, remove: LedgerRows, add: LedgerRows) -> None:
        """Remove rows that are there and add rows that are not."""
        if len(remove):
            self._stage("staged_trades", {name: remove[name] for name in ("time_us", "first_id")})
            self.connection.execute(_REMOVE_TRADES, (symbol,))
        # A COPY for each origin, so that its label has one length; and another for remainders of aggregates,
        # for only these rows have `aggregate`, which is null in all others.
        is_cut = add["trades"] < add["aggregate_last_id"] - add["aggregate_first_id"] + 1
        groups = 2 * add["origin"] + is_cut
        for group in np.unique(groups).tolist():
            at = np.flatnonzero(groups == group)
            columns = {name: add[name][at] for name in _AS_HELD}
            columns["symbol"] = np.full(len(at), symbol.encode())
            columns["origin"] = np.full(len(at), Origin(group // 2).label.encode())
            if group % 2:
                columns["aggregate"] = np.stack([add[name][at] for name in _AGGREGATE], axis=1)
            self._copy("tickcast.trades", columns)

    def dirty_hours(self, symbol: str, from_us: int, to_us: int) -> list[int]:
        """The hours in [from_us, to_us) whose rows do not include all loaded objects, in order."""
        rows = self.connection.execute(
            "select hour_us from tickcast.stale_hours where symbol = %s and hour_us >= %s and hour_us < %s "
            "order by hour_us",
            (symbol, from_us, to_us),
        )
        return [hour_us for (hour_us,) in rows]

    def freshen(self, symbol: str, hour_us: int) -> bool:
        """Mark an hour as no longer dirty; False if it was not."""
        statement = "delete from tickcast.stale_hours where symbol = %s and hour_us = %s"
        return self.connection.execute(statement, (symbol, hour_us)).rowcount > 0

    def replace_hour(
        self,
        symbol: str,
        hour_us: int,
        hour: HourRows,
        bar_origins: Origins,
        row_origins: Origins,
    ) -> None:
        """Replace the bars and feature rows of an hour; origins are of each bar and each row."""
        bars, rows = hour
        span = (symbol, hour_us, hour_us + HOUR_US)
        columns = {**bars.columns, "has_quotes": bars.has_quotes, "origin": bar_origins}
        self._stage("staged_bars", columns)
        self.connection.execute(_REMOVE_BARS, span)
        self.connection.execute(_ADD_BARS, (symbol,))
        columns = {
            "end_us": rows.end_us,
            "features": rows.features.astype(np.float32),
            "moves_bp": rows.moves_bp.astype(np.float32),
            "has_quotes": rows.has_quotes,
            "origin": row_origins,
        }
        self._stage("staged_rows", columns)
        self.connection.execute(_REMOVE_ROWS, span)
        self.connection.execute(_ADD_ROWS, (symbol, self._feature_set))

    def _stage(self, table: LiteralString, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace the rows of a temporary table by `columns`, by their names there."""
        self.connection.execute(f"truncate {table}")
        self._copy(table, columns)

    def _copy(self, table: LiteralString, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add rows to a table: `columns`, by their names there; its other columns become null."""
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(sql.SQL(table), names)
        with self.connection.cursor().copy(statement) as copy:
            for piece in binary_copy.encode(list(columns.values())):
                copy.write(piece)

    def _registered_features(self) -> int:
        key = (ROW_HASH, list(HORIZONS_S))
        self.connection.execute(
            "insert into tickcast.feature_sets (feature_hash, horizons_s, features) values (%s, %s, %s) "
            "on conflict do nothing",
            (*key, list(FEATURE_NAMES)),
        )
        query: LiteralString = (
            "select feature_set from tickcast.feature_sets where feature_hash = %s "
            "and horizons_s = %s::integer[]"
        )
        return int(self._one(query, *key)[0])


class OpenStore:
    """Opens the history of a database, again where its connection broke."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store: HistoryStore | None = None

    def __call__(self) -> HistoryStore:
        connection = self._database.connection()
        if self._store is None or self._store.connection is not connection:
            self._store = HistoryStore(connection)
        return self._store


def day_of(time_us: int) -> int:
    """The beginning of the day of `time_us`, µs."""
    return time_us // DAY_US * DAY_US


def days_between(first_us: int, last_us: int) -> range:
    """The days, by their beginnings, from that of one instant to that of another."""
    return range(day_of(first_us), last_us + 1, DAY_US)

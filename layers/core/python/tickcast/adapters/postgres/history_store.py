"""History in PostgreSQL: the tables of `migrations/`, replaced hour by hour.

New trades are copied straight into their table by binary COPY, so the server handles each once. Bars go
through a temporary table, from which statements compare them with the stored rows and cast the types that
numpy lacks. Feature rows are stored in blocks (`row_blocks`). Call all methods but `add_days` and `expire` in
a transaction that holds the `lock` of the days it touches, so that a failure changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, LiteralString, NamedTuple

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from tickcast.adapters.postgres import binary_copy, row_blocks
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.gap_store import GapStore
from tickcast.adapters.postgres.row_blocks import OF_THIS_CODE, THIS_CODE
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.market.sources import Origin
from tickcast.market.trade_ledger import LedgerRows
from tickcast.model.dataset import HourRows, Rows
from tickcast.units import DAY_US, HOUR_US

_AS_HELD = ("time_us", "first_id", "last_id", "price", "qty", "side", "trades")  # columns of the table too
_AGGREGATE = ("aggregate_first_id", "aggregate_last_id", "aggregate_qty")
_ORIGIN = (
    "case origin " + " ".join(f"when {each} then '{each.label}'" for each in Origin) + " end::tickcast.origin"
)

_STAGING: LiteralString = """
create temporary table if not exists staged_trades (time_us bigint, first_id bigint) on commit delete rows;
create temporary table if not exists staged_bars (
    end_us bigint, trade_count bigint, buy_qty bigint[], sell_qty bigint[], notional bigint[],
    quote_count bigint, last_trade_id bigint, last_trade_price bigint, update_id bigint, bid_price bigint,
    bid_qty bigint, ask_price bigint, ask_qty bigint, has_quotes boolean, origin smallint
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
# Blocks of another definition stay until an hour has those of this one.
_REMOVE_BLOCKS: LiteralString = "delete from tickcast.feature_blocks where symbol = %s and hour_us = %s"
_REMOVE_OTHERS: LiteralString = (
    "delete from tickcast.hours where symbol = %s and hour_us = %s and feature_set <> %s"
)
_ADD_BLOCK: LiteralString = """
insert into tickcast.feature_blocks (
    symbol, hour_us, feature_set, has_quotes, origin, part, feature_rows, first_us, last_us, ends, features,
    moves_bp, last_trade_bp)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""
_RECORD: LiteralString = """
insert into tickcast.hours (
    symbol, hour_us, feature_set, inputs, trades, quotes, bars, feature_rows, quarantined)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
on conflict (symbol, hour_us, feature_set) do update set (
    inputs, trades, quotes, bars, feature_rows, quarantined, derived_at) = row (
    excluded.inputs, excluded.trades, excluded.quotes, excluded.bars, excluded.feature_rows,
    excluded.quarantined, now())"""

Origins = npt.NDArray[np.int16]  # of Origin


class HourRecord(NamedTuple):
    """What an hour was derived from (`hour_inputs.packed`), and how much of it there is."""

    inputs: bytes
    trades: int  # rows of the ledger
    quotes: int
    bars: int = 0
    feature_rows: int = 0
    quarantined: int = 0


def derived_hours(
    connection: psycopg.Connection[Any], symbol: str, from_us: int, to_us: int
) -> dict[int, HourRecord]:
    """The hours of [from_us, to_us) that are derived by this code's definition, by their beginnings."""
    rows = connection.execute(
        f"""
        select hour_us, inputs, trades, quotes, bars, feature_rows, quarantined from tickcast.hours
        where symbol = %(symbol)s and hour_us >= %(from_us)s and hour_us < %(to_us)s and {OF_THIS_CODE}""",
        THIS_CODE | {"symbol": symbol, "from_us": from_us, "to_us": to_us},
        binary=True,
    )
    return {hour_us: HourRecord(*record) for hour_us, *record in rows}


def hours_without_trades(
    connection: psycopg.Connection[Any], symbol: str, from_us: int, to_us: int
) -> set[int]:
    """The derived hours of [from_us, to_us) that had trades, of which none is stored (any more)."""
    rows = connection.execute(
        f"""
        select hour_us from tickcast.hours
        where symbol = %(symbol)s and hour_us >= %(from_us)s and hour_us < %(to_us)s and {OF_THIS_CODE}
            and trades > 0 and not exists (
                select from tickcast.trades
                where trades.symbol = hours.symbol
                    and time_us >= hour_us and time_us < hour_us + {HOUR_US})""",
        THIS_CODE | {"symbol": symbol, "from_us": from_us, "to_us": to_us},
    )
    return {hour_us for (hour_us,) in rows}


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

    def expire(self, before_us: int, trades_before_us: int = 0) -> int:
        """Delete whole days before `before_us`, of trades before `trades_before_us`, if that is later.

        Returns how many partitions were dropped. One that is in use is left to the next call.

        Raises ValueError where either is negative, or leaves less than a day by the server's clock: then a
        setting or the caller's clock is wrong, and nothing is deleted.
        """
        days_us = day_of(before_us), day_of(trades_before_us)
        (now_us,) = self._one("select floor(extract(epoch from clock_timestamp()) * 1000000)::bigint")
        if not 0 <= min(days_us) <= max(days_us) <= now_us - DAY_US:
            raise ValueError(
                f"days before {max(days_us)} µs are not deleted: the server's clock says {now_us} µs"
            )
        self._days.clear()
        parts = self.connection.execute("select tickcast.days_before(%s, %s)", days_us).fetchall()
        count = sum(self._one("select tickcast.drop_day(%s)", part)[0] for (part,) in parts)
        self.connection.execute("delete from tickcast.hours where hour_us < %s", (days_us[0],))
        return int(count)

    def derived(self, symbol: str, from_us: int, to_us: int) -> dict[int, HourRecord]:
        """The hours of [from_us, to_us) that are derived by this code's definition."""
        return derived_hours(self.connection, symbol, from_us, to_us)

    def without_trades(self, symbol: str, from_us: int, to_us: int) -> set[int]:
        """As `hours_without_trades`."""
        return hours_without_trades(self.connection, symbol, from_us, to_us)

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

    def replace_hour(
        self, symbol: str, hour_us: int, hour: HourRows, bar_origins: Origins, row_origins: Origins
    ) -> None:
        """Replace the bars and feature rows of an hour, of whichever definition they were; origins are of
        each bar and each row."""
        bars = hour.bars
        self._stage("staged_bars", {**bars.columns, "has_quotes": bars.has_quotes, "origin": bar_origins})
        self.connection.execute(_REMOVE_BARS, (symbol, hour_us, hour_us + HOUR_US))
        self.connection.execute(_ADD_BARS, (symbol,))
        self.replace_rows(symbol, hour_us, hour.rows, hour.last_trade_bp, row_origins)

    def replace_rows(
        self, symbol: str, hour_us: int, rows: Rows, last_trade_bp: Floats, origins: Origins
    ) -> None:
        """Replace the feature rows of an hour."""
        self.connection.execute(_REMOVE_BLOCKS, (symbol, hour_us))
        blocks = row_blocks.blocks_of(hour_us, rows, last_trade_bp, origins)
        with self.connection.cursor() as cursor:
            cursor.executemany(
                _ADD_BLOCK,
                [
                    (
                        symbol,
                        hour_us,
                        self._feature_set,
                        each.has_quotes,
                        Origin(each.origin).label,
                        each.part,
                    )
                    + (each.rows, each.first_us, each.last_us)
                    + (each.ends, each.features, each.moves_bp, each.last_trade_bp)
                    for each in blocks
                ],
            )

    def record(self, symbol: str, hour_us: int, record: HourRecord) -> None:
        """Note that an hour is derived, by this code's definition alone."""
        self.connection.execute(_RECORD, (symbol, hour_us, self._feature_set, *record))
        self.connection.execute(_REMOVE_OTHERS, (symbol, hour_us, self._feature_set))

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
        """The number of this code's definition. It is looked up first, for an insertion takes a number even
        where there is nothing to insert."""
        query: LiteralString = f"select feature_set from tickcast.feature_sets where {OF_THIS_CODE}"
        found = self.connection.execute(query, THIS_CODE).fetchone()
        if found is None:
            self.connection.execute(
                "insert into tickcast.feature_sets (feature_hash, horizons_s, features) "
                "values (%(row_hash)s, %(horizons_s)s, %(features)s) on conflict do nothing",
                THIS_CODE | {"features": list(FEATURE_NAMES)},
            )
            found = self.connection.execute(query, THIS_CODE).fetchone()
        assert found is not None
        return int(found[0])


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

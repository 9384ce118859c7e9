"""What PostgreSQL has of a gap: its trades by id, and the marks of what became of it.

All that `mark_repaired` needs, with the rights of `tickcast_repairer`; `HistoryStore` adds the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, LiteralString

import numpy as np
import psycopg

from tickcast.market.gaps import TOLERANCE_US, Gap
from tickcast.market.sources import Origin
from tickcast.market.trade_ledger import LEDGER_ROW, LedgerRows
from tickcast.units import HOUR_US

_SAME_TRADE_US = HOUR_US  # whichever way a trade came, its times lie closer together, by far
# Spelt out: `enum_range` would read the catalogue for every row.
TO_ORIGIN = "case origin " + " ".join(f"when '{each.label}' then {each}" for each in Origin) + " end"

# All fields as eight bytes each, concatenated into one value: the client has no rows to parse.
_PACKED: LiteralString = " || ".join(
    f"int8send({expression})"
    for expression in (
        *("time_us", "first_id", "last_id", "price", "qty", "side"),
        *(TO_ORIGIN, "trades"),
        *(f"coalesce(aggregate[{n}], {name})" for n, name in ((1, "first_id"), (2, "last_id"), (3, "qty"))),
    )
)


class GapStore:
    """Gaps and the trades in them, over one connection in autocommit mode. Call all methods in a transaction
    that holds the `lock` of the days it touches."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def lock(self, symbol: str, days_us: Iterable[int]) -> None:
        """Lock the days of `symbol` until the transaction ends; waits for other holders."""
        for day_us in sorted(set(days_us)):  # in one order everywhere, or two could wait for each other
            name = f"tickcast:{symbol}:{day_us}"
            self.connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))

    def trades_by_id(self, symbol: str, first_id: int, last_id: int, from_us: int, to_us: int) -> LedgerRows:
        """The rows with trades of a range of ids; of aggregates that reach into it, all their trades.

        They happened between two instants, approximately: an hour before and after is searched too.
        """
        times_us = (from_us - _SAME_TRADE_US, to_us + _SAME_TRADE_US)
        where: LiteralString = (
            "symbol = %s and time_us between %s and %s and first_id <= %s and last_id >= %s"
        )
        row = self._one(
            "select min(coalesce(aggregate[1], first_id)), max(coalesce(aggregate[2], last_id)) "
            f"from tickcast.trades where {where}",
            *(symbol, *times_us, last_id, first_id),
        )
        if row[0] is None:
            return np.empty(0, LEDGER_ROW)
        return self._ledger_rows(where, symbol, *times_us, max(last_id, row[1]), min(first_id, row[0]))

    def mark(self, symbol: str, gap: Gap, status: str, touched_ms: tuple[int, int]) -> None:
        """Mark missing trades as `repaired` or `withheld`; this replaces marks within their range.

        Marks of another time stay: the exchange has since restarted its ids. Only one of exactly the same ids
        is replaced, for the table has room for one.
        """
        self.connection.execute(
            "delete from tickcast.gaps_repaired where symbol = %s and first_id >= %s and last_id <= %s "
            "and ((from_us <= %s and to_us >= %s) or (first_id = %s and last_id = %s))",
            (
                *(symbol, gap.first_id, gap.last_id),
                *(gap.to_us + TOLERANCE_US, gap.from_us - TOLERANCE_US),
                *(gap.first_id, gap.last_id),
            ),
        )
        self.connection.execute(
            "insert into tickcast.gaps_repaired values (%s, %s, %s, %s, %s, %s, %s, %s)",
            (symbol, gap.first_id, gap.last_id, status, gap.from_us, gap.to_us, *touched_ms),
        )

    def marked(self, symbol: str, count: int) -> list[tuple[int, int, int, int, str]]:
        """The `count` ranges of ids marked last, of those marked together the newest: `first_id, last_id,
        from_us, to_us` and the status, by id.

        Not the highest ids: those may be of a series that the exchange has since restarted.
        """
        rows = self.connection.execute(
            "select first_id, last_id, from_us, to_us, status from tickcast.gaps_repaired "
            "where symbol = %s order by marked_at desc, to_us desc, first_id desc limit %s",
            (symbol, count),
        )
        return sorted(rows)

    def _ledger_rows(self, where: LiteralString, *parameters: Any) -> LedgerRows:
        query: LiteralString = f"select string_agg({_PACKED}, '') from tickcast.trades where {where}"
        (packed,) = self._one(query, *parameters)
        fields = np.frombuffer(packed or b"", ">i8").reshape(-1, len(LEDGER_ROW.names or ()))
        rows = np.empty(len(fields), LEDGER_ROW)
        for at, name in enumerate(LEDGER_ROW.names or ()):
            rows[name] = fields[:, at]
        return rows

    def _one(self, query: LiteralString, *parameters: Any) -> tuple[Any, ...]:
        row = self.connection.execute(query, parameters, binary=True).fetchone()
        assert row is not None
        return tuple(row)

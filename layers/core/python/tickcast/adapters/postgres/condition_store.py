"""What PostgreSQL says about the condition of a market's data: derived hours, seconds with quotes, marks of
gaps, and which of some trades it has. Reads only, with the rights of `tickcast_reader`."""

from __future__ import annotations

from typing import LiteralString

from tickcast.adapters.postgres.gap_store import GapStore
from tickcast.market.condition import GapStatus, HourFacts
from tickcast.market.fetch_plan import subtract
from tickcast.market.gaps import Gap
from tickcast.market.trade_ledger import known_ranges
from tickcast.units import DAY_US, HOUR_US, SECOND_US

# An hour counts as final where it was derived after its end, by whatever definition of features.
_HOURS: LiteralString = f"""
with seconds as (
    select end_us / {HOUR_US} * {HOUR_US} as hour_us, count(*) as seconds,
        count(*) filter (where has_quotes) as quoted
    from tickcast.bars_1s
    where symbol = %(symbol)s and end_us >= %(from_us)s and end_us < %(to_us)s
    group by 1),
derived as (
    select distinct on (hour_us) hour_us, extract(epoch from derived_at) * {SECOND_US} >= hour_us + {HOUR_US}
        as is_final, trades, quotes, quarantined
    from tickcast.hours
    where symbol = %(symbol)s and hour_us >= %(from_us)s and hour_us < %(to_us)s
    order by hour_us, derived_at desc)
select hour_us, is_final, trades, quotes, coalesce(seconds, 0), coalesce(quoted, 0), quarantined
from derived left join seconds using (hour_us)"""
# Every second of a stretch of ticks has a bar: where one is missing between two seconds with trades, the ids
# of both say whether trades are.
_HOLES: LiteralString = f"""
with numbered as (
    select end_us, trade_count, last_trade_id, row_number() over (order by end_us) as n
    from tickcast.bars_1s
    where symbol = %(symbol)s and end_us >= %(day_us)s - {HOUR_US} and end_us < %(day_us)s + {DAY_US}),
pairs as (
    select end_us, trade_count, last_trade_id, n, lag(end_us) over w as before_us,
        lag(last_trade_id) over w as before_id, lag(n) over w as before_n
    from numbered where trade_count > 0 window w as (order by end_us))
select before_id + 1, last_trade_id, before_us, end_us from pairs
where end_us - before_us > (n - before_n) * {SECOND_US} and last_trade_id - before_id > trade_count
order by end_us"""
_CHANGED: LiteralString = f"""
select day_us, max(at) from (
    select hour_us / {DAY_US} * {DAY_US} as day_us, derived_at as at
    from tickcast.hours where symbol = %(symbol)s
    union all
    select edge_us / {DAY_US} * {DAY_US}, marked_at
    from tickcast.gaps_repaired, unnest(array[from_us, to_us]) as edge_us where symbol = %(symbol)s
) as changes group by 1"""


class ConditionStore(GapStore):
    """Reads the condition of days over one connection."""

    def changed_ms(self, symbol: str) -> dict[int, int]:
        """When the history or the marks of a day changed last, ms, by the days' beginnings. A change that is
        being made has the time at which it began."""
        rows = self.connection.execute(_CHANGED, {"symbol": symbol})
        return {day_us: int(at.timestamp() * 1000) for day_us, at in rows}

    def hours(self, symbol: str, from_us: int, to_us: int) -> dict[int, HourFacts]:
        """The derived hours that begin in [from_us, to_us), by their beginnings."""
        rows = self.connection.execute(_HOURS, {"symbol": symbol, "from_us": from_us, "to_us": to_us})
        return {hour_us: HourFacts(*facts) for hour_us, *facts in rows}

    def first_us(self, symbol: str, day_us: int) -> int | None:
        """When the first second of a day begins that has a bar; None without any."""
        query: LiteralString = (
            "select min(end_us) from tickcast.bars_1s where symbol = %s and end_us >= %s and end_us < %s"
        )
        (first_us,) = self._one(query, symbol, day_us, day_us + DAY_US)
        return None if first_us is None else first_us - SECOND_US

    def marks(self, symbol: str, from_us: int, to_us: int) -> list[tuple[Gap, GapStatus]]:
        """The ranges of missing trades between two instants that were repaired or are withheld, those that
        were marked last first."""
        rows = self.connection.execute(
            "select first_id, last_id, from_us, to_us, status from tickcast.gaps_repaired "
            "where symbol = %s and from_us < %s and to_us >= %s order by marked_at desc, first_id",
            (symbol, to_us, from_us),
        )
        return [(Gap(*gap), status) for *gap, status in rows]

    def holes(self, symbol: str, day_us: int) -> list[Gap]:
        """The silences of a day, and of the hour before it, over which trade ids rose: the ids from the last
        trade before to the end of the first second with trades after. Some of them may be there."""
        return [Gap(*row) for row in self.connection.execute(_HOLES, {"symbol": symbol, "day_us": day_us})]

    def lacking(self, symbol: str, gap: Gap) -> list[Gap]:
        """The parts of `gap` whose trades are not in the history."""
        rows = self.trades_by_id(symbol, gap.first_id, gap.last_id, gap.from_us, gap.to_us)
        known = [(first, last + 1) for first, last in known_ranges(rows, gap.first_id, gap.last_id)]
        left = subtract((gap.first_id, gap.last_id + 1), known)
        return [Gap(begin, end - 1, gap.from_us, gap.to_us, gap.cause) for begin, end in left]

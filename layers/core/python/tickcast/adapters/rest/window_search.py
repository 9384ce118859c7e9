"""Where a window of history begins: its first aggregate, found by its time and proven by its id."""

from __future__ import annotations

from collections.abc import Callable

from tickcast.adapters.lake.windows import Progress
from tickcast.adapters.rest.agg_trades import AggTrade, rows_in_order, usable_rows
from tickcast.adapters.rest.binance import BinanceRest
from tickcast.adapters.rest.window_proof import (
    AROUND,
    HistoryIncomplete,
    HistoryNotKept,
    MarketHalted,
    each_once,
    named,
    time_text,
)
from tickcast.market.fetch_plan import Window
from tickcast.units import HOUR_US

_FIRST_SPAN_MS = 1_000
_LONGEST_SPAN_MS = 59 * 60_000  # the exchange wants less than an hour
_SEARCH_BEHIND_US = 2 * HOUR_US  # further off, the newest aggregate is found with fewer requests


class WindowSearch:
    """Searches with `rest`. `older_key(symbol, time_us)` is an object of bronze with trades from an earlier
    hour, if any: then the exchange's first aggregate is not the market's first."""

    def __init__(
        self,
        rest: BinanceRest,
        clock_us: Callable[[], int],
        older_key: Callable[[str, int], str | None],
    ) -> None:
        self._rest = rest
        self._clock_us = clock_us
        self._older_key = older_key

    def page(self, window: Window, agg_id: int) -> list[AggTrade]:
        """A page of aggregates from `agg_id` on, each once; empty if there are none yet."""
        return each_once(self._rest.agg_trades_from(window.symbol, agg_id), agg_id)

    def unproven(self, window: Window, why: str) -> HistoryIncomplete:
        """The error for a window after which no trade is known."""
        if self._clock_us() < window.to_us:
            return HistoryIncomplete(f"{named(window)} has not passed yet")
        status = self._rest.market_status(window.symbol)
        if status not in (None, "TRADING"):
            return MarketHalted(
                f"{named(window)}: nothing newer than its end is known, and the market is in {status}: "
                f"whether a trade is missing shows only when it trades again"
            )
        return HistoryIncomplete(
            f"{named(window)}: nothing newer than its end is known ({why}): the exchange's database lags, "
            f"or the market has not traded since"
        )

    def beginning(self, window: Window, progress: Progress) -> list[AggTrade]:
        """Rows from the earliest that may be the window's first; the one before it goes into `progress`."""
        rows = self._around(window)
        before = [at for at, row in rows_in_order(rows) if row.time_us < window.from_us]
        lead = before[0] if before else -1
        later = (at for at, row in usable_rows(rows) if at > lead and row.time_us >= window.from_us)
        first = next(later, None)
        if first is None:
            raise HistoryIncomplete(f"{named(window)}: aggregates that were found a moment ago are gone")
        begin = max((at for at in before if at < first), default=-1) + 1
        progress.next_id = rows[begin - 1].id + 1 if begin else rows[0].id
        progress.last_id = progress.before_id = rows[begin - 1].last_id if begin else None
        return rows[begin:]

    def _around(self, window: Window) -> list[AggTrade]:
        """Rows that begin before the window, or with the market's first, and reach into it or past it.

        Searches backwards from a hint in growing steps, then by bisection. The hint is an aggregate found by
        time, in the window or after it; or else the newest of all. It may be wrong.
        """
        symbol, now_us = window.symbol, self._clock_us()
        hint = self._find(symbol, window.from_us, window.to_us)
        if hint is None:
            hint = self._find(symbol, window.to_us, min(window.to_us + _SEARCH_BEHIND_US, now_us))
        above = self._newest(window) if hint is None else hint
        below: list[AggTrade] = []  # before the window
        step = AROUND
        while True:
            if below and below[-1].id + 1 >= above:
                return below[-AROUND:] + self.page(window, below[-1].id + 1)
            at = (below[-1].id + above) // 2 if below else max(above - step, 0)
            rows = self.page(window, at)
            times_us = [row.time_us for _, row in rows_in_order(rows)]
            if times_us and times_us[0] >= window.from_us:
                if at == 0 or rows[0].id > at:
                    self._check_first(window, rows[0], at, times_us[0])
                    return rows
                above, step = at, step * 8
            elif times_us and times_us[-1] >= window.from_us:
                return rows
            elif times_us and rows[-1].id < above:
                below = rows
            elif hint is None:
                raise HistoryIncomplete(
                    f"{named(window)}: the exchange's times and ids contradict each other"
                )
            else:
                hint, above, below, step = None, self._newest(window), [], AROUND

    def _find(self, symbol: str, from_us: int, to_us: int) -> int | None:
        """An aggregate between two instants, near the first, by spans of growing length."""
        at_ms, end_ms, span_ms = from_us // 1000, to_us // 1000, _FIRST_SPAN_MS
        while at_ms < end_ms:
            until_ms = min(at_ms + span_ms, end_ms)
            rows = self._rest.agg_trades_between(symbol, at_ms, until_ms)
            inside = [row.id for _, row in usable_rows(rows) if from_us <= row.time_us < to_us]
            if inside:
                return inside[0]
            at_ms, span_ms = until_ms, min(span_ms * 4, _LONGEST_SPAN_MS)
        return None

    def _newest(self, window: Window) -> int:
        """The newest aggregate there is. Raises `HistoryIncomplete` unless it is after the window."""
        rows = each_once(self._rest.newest_agg_trades(window.symbol), 0)
        times_us = [row.time_us for _, row in rows_in_order(rows)]
        if not times_us or times_us[-1] < window.to_us:
            found = f"the newest trade is of {time_text(times_us[-1])}" if times_us else "there are no trades"
            raise self.unproven(window, found)
        return rows[-1].id

    def _check_first(self, window: Window, row: AggTrade, asked_id: int, time_us: int) -> None:
        """Raises `HistoryIncomplete` unless `row`, the answer to `asked_id`, is the market's first."""
        if asked_id > 0 and (older := self.page(window, 0)) and older[0].id < row.id:
            raise HistoryIncomplete(f"{named(window)}: aggregate {asked_id} was expected next, not {row.id}")
        if row.id != 0 and row.first_id != 0:
            raise HistoryNotKept(
                f"{named(window)}: the exchange keeps trades from {time_text(time_us)} on, aggregate "
                f"{row.id}; earlier ones cannot be fetched: ask from then on"
            )
        if key := self._older_key(window.symbol, time_us):
            raise HistoryNotKept(
                f"{named(window)}: the exchange's trades begin at {time_text(time_us)}, aggregate "
                f"{row.id}, but {key} is older: ids restarted, and earlier trades cannot be fetched"
            )

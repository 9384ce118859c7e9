"""The proof that a window of history is complete.

Times only suggest where a window begins; ids prove that no trade is missing. A window is complete when its
aggregates have consecutive ids, from one before its start, or the market's first, to one after its end. The
length of a page proves nothing: pages may be capped, and REST's database may lag by minutes.

A row with impossible values, far out of order, or with trade ids that an earlier row has, is left out and
goes to quarantine; its trade ids then count as withheld. With many such rows the window is not complete.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

from tickcast.adapters.lake.windows import REFUSED_KEPT, WITHHELD_KEPT, Progress, WindowFile
from tickcast.adapters.rest.agg_trades import AggTrade, refused_rows
from tickcast.market.fetch_plan import Window
from tickcast.market.row_order import DISORDER_US
from tickcast.units import HOUR_US, MINUTE_US, SECOND_US

AROUND = 50  # rows before and after one that suffice to tell whether it is in order
_MOST_REFUSED = 10  # of a page's rows; more are not isolated errors
# Of a file: 50 pages, some seconds, which an interrupted fetch asks for again. They are in memory at once.
FILE_ROWS = 50_000
_AHEAD_US = MINUTE_US  # of the clock: a time further ahead proves nothing by itself


class Sink(Protocol):
    """Where a window goes."""

    def put(self, from_us: int, to_us: int, rows: list[AggTrade]) -> WindowFile:
        """Write the rows of [from_us, to_us), an hour at most."""

    def refuse(self, rows: list[dict[str, Any]]) -> None:
        """Keep rows that were left out, each with its `why`."""

    def keep(self, progress: Progress) -> None:
        """Record that all up to here is written."""


class HistoryIncomplete(RuntimeError):
    """The exchange's answers do not cover the whole window; a retry may get the rest.

    `contradicts` is whether they do not fit what it sent before.
    """

    def __init__(self, message: str, *, contradicts: bool = False) -> None:
        super().__init__(message)
        self.contradicts = contradicts


class HistoryNotKept(HistoryIncomplete):
    """The exchange no longer keeps all of the window: a retry would get no more."""


class MarketHalted(HistoryIncomplete):
    """No trade after the window is known, and none will be until the market trades again."""


class _Checked(NamedTuple):
    """A row that was checked: the trade ids missing before it, and why it is left out."""

    row: AggTrade
    withheld: tuple[int, int] | None
    why: str


class WindowProof:
    """Checks that aggregates are consecutive, and has those of the window written in files of an hour.

    A row is checked once the rows after it are known; its time decides its hour and window. Since times may
    fall back a little, an hour is written when a row well after it has come; of a busy hour, parts of
    `FILE_ROWS`. `progress` records what is written.
    """

    def __init__(self, window: Window, progress: Progress, sink: Sink, now_us: int) -> None:
        assert progress.next_id is not None
        self.next_id = progress.next_id  # of the page to add
        self._last_id = progress.last_id
        self._window = window
        self._progress = progress
        self._sink = sink
        self._now_us = now_us
        self._unchecked: list[AggTrade] = []
        # The last row in order, or what is known of it, repeated so that it outweighs the rows after it.
        self._anchor: list[AggTrade] = []
        if progress.last_id is not None:
            begin_us = max(window.from_us, progress.until_us)
            known = progress.next_id - 1, progress.last_id, progress.last_id, begin_us - 1
            self._anchor = [AggTrade(*known, price=0, qty=0, side=0)] * (_MOST_REFUSED + 1)
        self._entries: list[_Checked] = []  # from `progress.next_id` on
        self._oldest_us: int | None = None  # of the rows to be written
        self._newest_inside: int | None = progress.last_id if progress.rows else None  # trade id

    def add(self, rows: list[AggTrade]) -> bool:
        """Add the next rows, or none if there are none yet; True when all of the window is written.

        Raises `HistoryIncomplete`.
        """
        for row in rows:
            if row.id != self.next_id:
                raise self._incomplete(f"aggregate {self.next_id} was expected next, not {row.id}")
            self.next_id += 1
        known = self._unchecked + rows
        checked = self._check(known)
        count = max(len(known) - AROUND, 0) if rows else len(known)
        trades = [(at, row) for at, (row, why) in enumerate(checked) if not why and not row.is_placeholder]
        behind = [at for at, row in trades if row.time_us >= self._window.to_us]
        is_over = bool(behind) and (behind[0] < count if rows else self._is_plausible_end(known, behind))
        if is_over:
            # Rows of the window may follow the first one that is after it.
            inside = [at for at, row in trades if row.time_us < self._window.to_us]
            count = max(behind[0], inside[-1] if inside else -1) + 1
        for row, why in checked[:count]:
            self._take(row, why)
        self._unchecked = known[count:]
        if is_over:
            self._finish()
        return is_over

    def _check(self, rows: list[AggTrade]) -> list[tuple[AggTrade, str]]:
        """Rows with the reason why each is left out, empty if it is not."""
        refused = refused_rows(self._anchor + rows)
        reach = self._last_id
        for at, row in enumerate(rows, start=len(self._anchor)):
            if row.is_placeholder or at in refused:
                continue
            if reach is not None and row.first_id <= reach:
                refused[at] = f"its trade ids begin with {row.first_id}, but earlier rows reach to {reach}"
            else:
                reach = row.last_id
        if len(refused) > _MOST_REFUSED:
            raise self._incomplete(
                f"{len(refused)} rows of a page are wrong, one because {next(iter(refused.values()))}"
            )
        return [(row, refused.get(at, "")) for at, row in enumerate(rows, start=len(self._anchor))]

    def _is_plausible_end(self, rows: list[AggTrade], behind: list[int]) -> bool:
        """If the newest row of all is the only one after the window, its time may be wrong."""
        return len(behind) > 1 or rows[behind[0]].time_us <= self._now_us + _AHEAD_US

    def _take(self, row: AggTrade, why: str) -> None:
        is_trade = not why and not row.is_placeholder
        self._entries.append(_Checked(row, self._follow(row) if is_trade else None, why))
        if not is_trade:
            return
        if not self._anchor or row.time_us >= self._anchor[0].time_us:
            self._anchor = [row] * (_MOST_REFUSED + 1)
        if row.time_us >= self._window.to_us:
            if self._progress.after_id is None:
                self._progress.after_id = row.first_id
        elif row.time_us >= max(self._window.from_us, self._progress.until_us):
            self._oldest_us = min(row.time_us, self._oldest_us or row.time_us)
            self._newest_inside = row.last_id
        while self._oldest_us is not None and row.time_us >= self._end_of_hour() + 2 * DISORDER_US:
            self._flush(self._end_of_hour())
        if len(self._entries) >= FILE_ROWS and self._oldest_us is not None:
            # The order of rows alone decides where, so that a repeat cuts alike.
            cut_us = (self._anchor[0].time_us - 2 * DISORDER_US) // SECOND_US * SECOND_US
            if self._oldest_us < cut_us < self._end_of_hour():
                self._flush(cut_us)

    def _follow(self, row: AggTrade) -> tuple[int, int] | None:
        """The trade ids that are missing before `row`."""
        last_id, self._last_id = self._last_id, row.last_id
        return None if last_id is None or row.first_id == last_id + 1 else (last_id + 1, row.first_id - 1)

    def _end_of_hour(self) -> int:
        """The end of the file that is due next, µs."""
        assert self._oldest_us is not None
        return min((self._oldest_us // HOUR_US + 1) * HOUR_US, self._window.to_us)

    def _flush(self, until_us: int) -> None:
        """Write the file that ends at `until_us`, and record it as progress.

        Rows of the next hour may be mixed with those of this one: from the first of them on all rows are
        processed again, here or after a restart, but those before `until_us` are not written twice.
        """
        progress, window = self._progress, self._window
        from_us = max(window.from_us, progress.until_us)
        trades = [entry.row for entry in self._entries if not entry.why and not entry.row.is_placeholder]
        rows = [row for row in trades if from_us <= row.time_us < until_us]
        hour_us = (until_us - 1) // HOUR_US * HOUR_US
        progress.keys.append(self._sink.put(max(hour_us, from_us), until_us, rows))
        progress.until_us = until_us
        if progress.first_id is None:
            progress.first_id = rows[0].first_id
        progress.rows += len(rows)
        progress.trades += sum(row.last_id - row.first_id + 1 for row in rows)
        later = (
            at for at, entry in enumerate(self._entries) if entry.row.time_us >= until_us and not entry.why
        )
        self._enter(next(later, len(self._entries)))
        self._oldest_us = min(
            (row.time_us for row in trades if until_us <= row.time_us < window.to_us), default=None
        )
        self._sink.keep(progress)

    def _enter(self, count: int) -> None:
        """Record the first `count` rows as progress."""
        progress = self._progress
        refused = [row._asdict() | {"why": why} for row, _, why in self._entries[:count] if why]
        if refused:
            self._sink.refuse(refused)
        progress.refused_rows += len(refused)
        progress.refused = [*progress.refused, *refused][:REFUSED_KEPT]
        for row, withheld, why in self._entries[:count]:
            if not why and not row.is_placeholder:
                progress.last_id = row.last_id
            if withheld is not None:
                progress.withheld_trades += withheld[1] - withheld[0] + 1
                progress.withheld = [*progress.withheld, withheld][:WITHHELD_KEPT]
            progress.next_id = row.id + 1
        self._entries = self._entries[count:]

    def _finish(self) -> None:
        """Write the remaining rows, and compare with the missing ids of a gap."""
        while self._oldest_us is not None:
            self._flush(self._end_of_hour())
        self._enter(len(self._entries))
        progress, window = self._progress, self._window
        progress.until_us, progress.last_id = window.to_us, self._newest_inside
        assert progress.after_id is not None
        if window.first_id is None or window.last_id is None:
            return
        before_id = -1 if progress.before_id is None else progress.before_id
        if before_id > window.last_id or progress.after_id < window.first_id:
            raise HistoryNotKept(
                f"{named(window)}: trades {window.first_id} to {window.last_id} are missing, but those of "
                f"the exchange have ids between {before_id} and {progress.after_id}: another series",
                contradicts=True,
            )

    def _incomplete(self, why: str) -> HistoryIncomplete:
        return HistoryIncomplete(f"{named(self._window)}: {why}", contradicts=True)


def each_once(rows: list[AggTrade], from_id: int) -> list[AggTrade]:
    """Rows by id, from `from_id` on. Where two contradict each other it is unknown which is right: neither is
    used."""
    found: dict[int, AggTrade] = {}
    for row in rows:
        if row.id >= from_id and (first := found.setdefault(row.id, row)) != row and not first.why:
            both = f"{first.first_id} to {first.last_id} and {row.first_id} to {row.last_id}"
            found[row.id] = row._replace(why=f"it came twice with different values, of trades {both}")
    return [found[agg_id] for agg_id in sorted(found)]


def named(window: Window) -> str:
    return f"{window.symbol} from {time_text(window.from_us)} to {time_text(window.to_us)}"


def time_text(time_us: int) -> str:
    """As people read it, and `make backfill`."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=min(time_us // 1000, 10**14))
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

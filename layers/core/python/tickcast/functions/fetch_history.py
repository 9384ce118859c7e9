"""A window of history from REST into bronze, whole or not at all.

Time only hints at a window's first trade; ids prove that none is left out. A window is whole when its
aggregates follow each other without a hole, from one that happened before its beginning, or the market's
first, to one that happened behind its end. How full a page is says nothing: pages may be capped, and REST's
database may lag by minutes. Only what is whole gets a marker, which is what "done" means to the planner, a
window without any trade too. Files hold at most an hour, under names that follow from the window alone and
with bytes that follow from the trades alone: a repeat overwrites.

A row that no market can have produced, or that is far out of order, is left out and reported; the ids that
are missing then count as withheld. Where there are many such rows the window is not whole.

A function that runs out of time, or is asked to wait, gives back where to continue: behind the last file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tickcast.adapters import json_text
from tickcast.adapters.lake import bronze
from tickcast.adapters.rest.binance import AggTrade, BinanceRest, RateLimited
from tickcast.market import wire
from tickcast.market.fetch_plan import Window, WindowError, window_from
from tickcast.market.row_order import DISORDER_US, out_of_order, times_far_off
from tickcast.market.ticks import quotes_array, trades_array
from tickcast.units import HOUR_US, MINUTE_US

# The longest that a page may take, about 170 s, and a file: the wait for the next minute's weight, and every
# try of an exchange that hangs.
_RESERVE_MS = 200_000
_AROUND = 50  # rows before and behind one that are enough to judge whether it is in order
_MOST_REFUSED = 10  # of a page's rows; more are not single values that are wrong
_AHEAD_US = MINUTE_US  # of the clock: a time beyond is no proof by itself
_FIRST_LOOK_MS = 1_000
_LONGEST_LOOK_MS = 59 * 60_000  # the exchange wants less than an hour
_LOOK_BEHIND_US = 2 * HOUR_US  # further off, the newest aggregate is found with fewer requests
_REPORTED = 100  # rows that are refused; beyond that they are only counted
# Ranges of withheld ids; likewise. A gap is settled by them, so all are needed, but progress passes through
# the state machine, which takes 256 KiB: these are about 80.
_WITHHELD_KEPT = 3000
_STREAMS = ("sbe", "json")  # sources of bronze other than REST that record the real market


class HistoryIncomplete(RuntimeError):
    """What the exchange gave is not all of the window; another try may get the rest."""


class HistoryNotKept(HistoryIncomplete):
    """The exchange does not keep all of the window, or not any more: another try would get no more."""


class MarketHalted(HistoryIncomplete):
    """Nothing is known behind the window, and nothing will be until the market trades again."""


@dataclass
class Progress:
    """What of a window is in bronze, in whole files, and the aggregate to continue with."""

    next_id: int | None = None  # None: the window's first has yet to be found
    last_id: int | None = None  # the newest trade before `next_id`
    before_id: int | None = None  # the newest trade before the window; None: the market began later
    after_id: int | None = None  # the first trade behind the window
    first_id: int | None = None
    until_us: int = 0  # the end of the last file
    trades: int = 0
    rows: int = 0
    withheld_trades: int = 0  # ids that the exchange itself has no trades for
    withheld: list[tuple[int, int]] = field(default_factory=list)
    refused_rows: int = 0  # that no market can have produced, or that are far out of order
    refused: list[dict[str, Any]] = field(default_factory=list)  # with the reasons
    keys: list[dict[str, Any]] = field(default_factory=list)


def _progress_from(data: Any) -> Progress:
    """The progress in a request. Raises `WindowError`."""
    try:
        return Progress(**(data or {}))
    except TypeError:
        raise WindowError(f"resume should be that of an earlier answer, not {str(data)[:200]}") from None


class FetchHistory:
    """Fetches windows with `rest` into `bucket`. `clock_us` is the time now, in µs."""

    def __init__(self, rest: BinanceRest, s3: Any, bucket: str, clock_us: Callable[[], int]) -> None:
        self._rest = rest
        self._s3 = s3
        self._bucket = bucket
        self._clock_us = clock_us

    def __call__(self, request: dict[str, Any], remaining_ms: Callable[[], int]) -> dict[str, Any]:
        """Fetch the window of `request`, or as much of it as time and the exchange allow.

        Returns a document whose `status` is `done`, `continue` (call again with its `resume`) or
        `rate_limited` (likewise, after `retry_after_s`). Raises `WindowError`, `HistoryIncomplete`, and what
        `BinanceRest` raises.
        """
        window = window_from(request.get("window"))
        marker = self._marker(window)
        if marker is not None and not (window.reason == "gap" and _is_cut_short(marker)):
            return self._document("done", marker)
        progress = _progress_from(request.get("resume"))
        until_us = progress.until_us
        try:
            is_whole = self._fetch(window, progress, remaining_ms)
        except RateLimited as limited:
            return self._document("rate_limited", progress, wait_s=limited.retry_after_s)
        if is_whole:
            self._put_marker(window, progress)
            return self._document("done", progress)
        if progress.until_us == until_us:
            raise HistoryIncomplete(f"{_named(window)}: the time of a call is not enough for one file")
        return self._document("continue", progress)

    def _fetch(self, window: Window, progress: Progress, remaining_ms: Callable[[], int]) -> bool:
        """Fetch until the window is whole: True; or False when time runs out."""
        rows: list[AggTrade] | None = None
        if progress.next_id is None:
            rows = self._beginning(window, progress)
        writer = _Writer(window, progress, self._put_file, self._clock_us())
        while remaining_ms() > _RESERVE_MS:
            if rows is None:
                rows = self._page(window, writer.next_id)
            if writer.add(rows):
                return True
            if not rows:
                raise self._unproven(window, f"aggregate {writer.next_id} is not there yet")
            rows = None
        return False

    def _page(self, window: Window, agg_id: int) -> list[AggTrade]:
        """What the exchange has from `agg_id` on, at most a page, each aggregate once; none: nothing yet."""
        return _each_once(window, self._rest.agg_trades_from(window.symbol, agg_id), agg_id)

    def _unproven(self, window: Window, why: str) -> HistoryIncomplete:
        """The error for a window behind which nothing is known."""
        if self._clock_us() < window.to_us:
            return HistoryIncomplete(f"{_named(window)} has not passed yet")
        status = self._rest.market_status(window.symbol)
        if status not in (None, "TRADING"):
            return MarketHalted(
                f"{_named(window)}: nothing newer than its end is known, and the market is in {status}: "
                f"that no trade is missing shows when it trades again"
            )
        return HistoryIncomplete(
            f"{_named(window)}: nothing newer than its end is known ({why}): the exchange's database lags, "
            f"or the market has not traded since"
        )

    # ------------------------------------------------------------------------------------ the beginning

    def _beginning(self, window: Window, progress: Progress) -> list[AggTrade]:
        """Rows that begin with all that may be the window's first; what came before goes into `progress`."""
        rows = self._around(window)
        usable = [(at, row.time_us) for at, row in _usable(rows)]
        out = out_of_order([time_us for _, time_us in usable])
        in_order = [each for n, each in enumerate(usable) if n not in out]
        before = [at for at, time_us in in_order if time_us < window.from_us]
        lead = before[0] if before else -1
        first = next((at for at, time_us in usable if at > lead and time_us >= window.from_us), None)
        if first is None:
            raise HistoryIncomplete(f"{_named(window)}: aggregates that were there before are gone")
        begin = max((at for at in before if at < first), default=-1) + 1
        progress.next_id = rows[begin - 1].id + 1 if begin else rows[0].id
        progress.last_id = progress.before_id = rows[begin - 1].last_id if begin else None
        return rows[begin:]

    def _around(self, window: Window) -> list[AggTrade]:
        """Rows that begin before the window, or with the market's first, and reach into it or behind it.

        From a hint backwards in growing steps, then by halves. The hint is an aggregate that time finds, any
        of the window or behind it, and even wrong; or the newest of all.
        """
        symbol, now_us = window.symbol, self._clock_us()
        hint = self._look(symbol, window.from_us, window.to_us)
        if hint is None:
            hint = self._look(symbol, window.to_us, min(window.to_us + _LOOK_BEHIND_US, now_us))
        above = self._newest(window) if hint is None else hint
        below: list[AggTrade] = []  # before the window
        step = _AROUND
        while True:
            if below and below[-1].id + 1 >= above:
                return below[-_AROUND:] + self._page(window, below[-1].id + 1)
            at = (below[-1].id + above) // 2 if below else max(above - step, 0)
            rows = self._page(window, at)
            times_us = _times_in_order(rows)
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
                    f"{_named(window)}: the exchange's times and ids contradict each other"
                )
            else:
                hint, above, below, step = None, self._newest(window), [], _AROUND

    def _look(self, symbol: str, from_us: int, to_us: int) -> int | None:
        """An aggregate between two instants, near the first. Looks further and further until there is one."""
        at_ms, end_ms, look_ms = from_us // 1000, to_us // 1000, _FIRST_LOOK_MS
        while at_ms < end_ms:
            until_ms = min(at_ms + look_ms, end_ms)
            rows = self._rest.agg_trades_between(symbol, at_ms, until_ms)
            inside = [row.id for _, row in _usable(rows) if from_us <= row.time_us < to_us]
            if inside:
                return inside[0]
            at_ms, look_ms = until_ms, min(look_ms * 4, _LONGEST_LOOK_MS)
        return None

    def _newest(self, window: Window) -> int:
        """The newest aggregate there is. Raises `HistoryIncomplete` if it does not lie behind the window."""
        rows = _each_once(window, self._rest.newest_agg_trades(window.symbol), 0)
        times_us = _times_in_order(rows)
        if not times_us or times_us[-1] < window.to_us:
            newest = f"the newest trade is of {_time(times_us[-1])}" if times_us else "there are no trades"
            raise self._unproven(window, newest)
        return rows[-1].id

    def _check_first(self, window: Window, row: AggTrade, asked_id: int, time_us: int) -> None:
        """Raises `HistoryIncomplete` unless `row`, the answer to `asked_id`, is the market's first."""
        if asked_id > 0 and (older := self._page(window, 0)) and older[0].id < row.id:
            raise HistoryIncomplete(f"{_named(window)}: aggregate {asked_id} was to come next, not {row.id}")
        if row.id != 0 and row.first_id != 0:
            raise HistoryNotKept(
                f"{_named(window)}: the exchange keeps trades from {_time(time_us)} on, aggregate {row.id}; "
                f"what came before cannot be had: ask from then on"
            )
        hour_us = time_us // HOUR_US * HOUR_US
        for source in (bronze.REST, *_STREAMS):
            folder = bronze.prefix(source, window.symbol, hour_us)
            dates = folder.partition("date=")[0] + "date="
            found = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=dates, MaxKeys=1).get("Contents", [])
            if found and found[0]["Key"] < folder:  # keys are in the order of time
                raise HistoryNotKept(
                    f"{_named(window)}: the exchange's trades begin at {_time(time_us)}, aggregate {row.id}, "
                    f"but {found[0]['Key']} is older: ids restarted, and what came before cannot be had"
                )

    # ------------------------------------------------------------------------------------------- bronze

    def _put_file(self, window: Window, from_us: int, to_us: int, rows: list[AggTrade]) -> dict[str, Any]:
        folder = bronze.prefix(bronze.REST, window.symbol, from_us)
        key = f"{folder}aggtrades-{from_us}-{to_us}.avro"
        body = bronze.write_file(bronze.market_data(_batch(window.symbol, rows)))
        answer = self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        return {"key": key, "etag": answer["ETag"].strip('"'), "rows": len(rows)}

    def _put_marker(self, window: Window, progress: Progress) -> None:
        about = asdict(progress) | {"symbol": window.symbol, "from_us": window.from_us, "to_us": window.to_us}
        key = bronze.window_key(window.symbol, window.from_us, window.to_us)
        body = json_text.strict(about, indent=2, sort_keys=True).encode()
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType="application/json")

    def _marker(self, window: Window) -> Progress | None:
        """What the window's marker says; None if it has none."""
        key = bronze.window_key(window.symbol, window.from_us, window.to_us)
        try:
            body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None
        about = json_text.read(body)
        return Progress(**{name: about[name] for name in Progress.__dataclass_fields__ if name in about})

    def _document(self, status: str, progress: Progress, wait_s: int = 0) -> dict[str, Any]:
        """What the state machine reads: every field in every answer."""
        is_done = status == "done"
        return {
            "status": status,
            "retry_after_s": wait_s,
            "resume": None if is_done else asdict(progress),
            "keys": progress.keys if is_done else [],
            "trades": progress.trades,
            "rows": progress.rows,
            "withheld_trades": progress.withheld_trades,
            "refused_rows": progress.refused_rows,
            "used_weight": self._rest.used_weight,
            "requests": self._rest.requests,
        }


class _Entry(NamedTuple):
    """A row that was judged: the trade ids missing before it, and why it is left out."""

    row: AggTrade
    withheld: tuple[int, int] | None
    why: str


class _Writer:
    """Checks that aggregates follow each other, and writes those of the window in files of an hour.

    A row is judged once those behind it are known, and belongs to the hour and the window that its time
    says. Since times may fall back a little, an hour is written when a time lies well behind it.
    """

    def __init__(
        self, window: Window, progress: Progress, put: Callable[..., dict[str, Any]], now_us: int
    ) -> None:
        assert progress.next_id is not None
        self.next_id = progress.next_id  # of the page to add
        self._last_id = progress.last_id
        self._window = window
        self._progress = progress
        self._put = put
        self._now_us = now_us
        self._unjudged: list[AggTrade] = []
        # The last row that was in order, or what is known of it: as often as it outweighs those behind it.
        self._anchor: list[AggTrade] = []
        if progress.last_id is not None:
            begin_us = max(window.from_us, progress.until_us)
            known = progress.next_id - 1, progress.last_id, progress.last_id, begin_us - 1
            self._anchor = [AggTrade(*known, price=0, qty=0, side=0)] * (_MOST_REFUSED + 1)
        self._entries: list[_Entry] = []  # from `progress.next_id` on
        self._oldest_us: int | None = None  # of the rows to be written
        self._newest_inside: int | None = progress.last_id if progress.rows else None  # trade id

    def add(self, rows: list[AggTrade]) -> bool:
        """Take the next rows, or none where there are none yet; True when all of the window is written.

        Raises `HistoryIncomplete`.
        """
        for row in rows:
            if row.id != self.next_id:
                raise self._incomplete(f"aggregate {self.next_id} was to come next, not {row.id}")
            self.next_id += 1
        known = self._unjudged + rows
        judged = self._judge(known)
        count = max(len(known) - _AROUND, 0) if rows else len(known)
        trades = [(at, row) for at, (row, why) in enumerate(judged) if not why and not row.is_placeholder]
        behind = [at for at, row in trades if row.time_us >= self._window.to_us]
        is_over = bool(behind) and (behind[0] < count if rows else self._is_plausible_end(known, behind))
        if is_over:
            # Some of the window may stand behind the first that is not of it.
            inside = [at for at, row in trades if row.time_us < self._window.to_us]
            count = max(behind[0], inside[-1] if inside else -1) + 1
        for row, why in judged[:count]:
            self._take(row, why)
        self._unjudged = known[count:]
        if is_over:
            self._finish()
        return is_over

    def _judge(self, rows: list[AggTrade]) -> list[tuple[AggTrade, str]]:
        """Rows with the reason why each is left out, empty if it is not."""
        refused = _refused(self._anchor + rows)
        if len(refused) > _MOST_REFUSED:
            raise self._incomplete(
                f"{len(refused)} rows of a page are wrong, one because {next(iter(refused.values()))}"
            )
        return [(row, refused.get(at, "")) for at, row in enumerate(rows, start=len(self._anchor))]

    def _is_plausible_end(self, rows: list[AggTrade], behind: list[int]) -> bool:
        """Where the newest row of all is the only one behind the window, its time may be wrong."""
        return len(behind) > 1 or rows[behind[0]].time_us <= self._now_us + _AHEAD_US

    def _take(self, row: AggTrade, why: str) -> None:
        is_trade = not why and not row.is_placeholder
        self._entries.append(_Entry(row, self._follow(row) if is_trade else None, why))
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

    def _follow(self, row: AggTrade) -> tuple[int, int] | None:
        """The trade ids that are missing before `row`. Raises `HistoryIncomplete`."""
        last_id, self._last_id = self._last_id, row.last_id
        if last_id is None or row.first_id == last_id + 1:
            return None
        if row.first_id <= last_id:
            raise self._incomplete(
                f"aggregate {row.id} begins with trade {row.first_id}, which was in an earlier one: "
                f"they reach to {last_id}"
            )
        return last_id + 1, row.first_id - 1

    def _end_of_hour(self) -> int:
        """The end of the file that is due next, µs."""
        assert self._oldest_us is not None
        return min((self._oldest_us // HOUR_US + 1) * HOUR_US, self._window.to_us)

    def _flush(self, until_us: int) -> None:
        """Write the file that ends at `until_us`, and enter it as progress.

        Rows of the next hour may stand between those of this one: from the first of them on all rows are
        gone through again, by this call or by the next, but those before `until_us` are not written again.
        """
        progress, window = self._progress, self._window
        from_us = max(window.from_us, progress.until_us)
        trades = [entry.row for entry in self._entries if not entry.why and not entry.row.is_placeholder]
        rows = [row for row in trades if from_us <= row.time_us < until_us]
        hour_us = max((until_us - 1) // HOUR_US * HOUR_US, window.from_us)
        progress.keys.append(self._put(window, hour_us, until_us, rows))
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

    def _enter(self, count: int) -> None:
        """Enter the first `count` rows as progress."""
        progress = self._progress
        for row, withheld, why in self._entries[:count]:
            if not why and not row.is_placeholder:
                progress.last_id = row.last_id
            if withheld is not None:
                progress.withheld_trades += withheld[1] - withheld[0] + 1
                progress.withheld = [*progress.withheld, withheld][:_WITHHELD_KEPT]
            if why:
                progress.refused_rows += 1
                progress.refused = [*progress.refused, row._asdict() | {"why": why}][:_REPORTED]
            progress.next_id = row.id + 1
        self._entries = self._entries[count:]

    def _finish(self) -> None:
        """Write what is left, and compare with the ids that are missing in a gap."""
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
                f"{_named(window)}: trades {window.first_id} to {window.last_id} are missing, but those of "
                f"the exchange have ids between {before_id} and {progress.after_id}: another series"
            )

    def _incomplete(self, why: str) -> HistoryIncomplete:
        return HistoryIncomplete(f"{_named(self._window)}: {why}")


def _is_cut_short(marker: Progress) -> bool:
    """Whether the marker lacks withheld ranges that it has room for: older versions kept fewer."""
    listed = sum(int(last) - int(first) + 1 for first, last in marker.withheld)
    return listed < marker.withheld_trades and len(marker.withheld) < _WITHHELD_KEPT


def _each_once(window: Window, rows: list[AggTrade], from_id: int) -> list[AggTrade]:
    """Rows by id, from `from_id` on. Raises `HistoryIncomplete` where two contradict each other."""
    found: dict[int, AggTrade] = {}
    for row in rows:
        if row.id >= from_id and found.setdefault(row.id, row) != row:
            raise HistoryIncomplete(f"{_named(window)}: aggregate {row.id} is there twice, and not alike")
    return [found[agg_id] for agg_id in sorted(found)]


def _refused(rows: Sequence[AggTrade]) -> dict[int, str]:
    """The positions of rows to be left out, and why. Placeholders, which say nothing, are not among them."""
    refused = {at: row.why for at, row in enumerate(rows) if row.why}
    series: tuple[tuple[Callable[[Sequence[int]], set[int]], Callable[[AggTrade], int], str], ...] = (
        (out_of_order, lambda row: row.first_id, "its trade ids are out of order"),
        (out_of_order, lambda row: row.last_id, "its trade ids are out of order"),
        (times_far_off, lambda row: row.time_us, "its time is out of order"),
    )
    for wrong_in, value_of, why in series:
        left = [at for at, row in enumerate(rows) if not row.is_placeholder and at not in refused]
        refused |= {left[n]: why for n in wrong_in([value_of(rows[at]) for at in left])}
    return refused


def _usable(rows: Sequence[AggTrade]) -> list[tuple[int, AggTrade]]:
    """The rows that time may be read from, with their positions."""
    refused = _refused(rows)
    return [(at, row) for at, row in enumerate(rows) if not row.is_placeholder and at not in refused]


def _times_in_order(rows: Sequence[AggTrade]) -> list[int]:
    """The times of the usable rows, without those that fall back."""
    times_us = [row.time_us for _, row in _usable(rows)]
    out = out_of_order(times_us)
    return [time_us for at, time_us in enumerate(times_us) if at not in out]


def _named(window: Window) -> str:
    return f"{window.symbol} from {_time(window.from_us)} to {_time(window.to_us)}"


def _time(time_us: int) -> str:
    """For people, and as `make backfill` reads it."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=min(time_us // 1000, 10**14))
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _batch(symbol: str, rows: list[AggTrade]) -> wire.TickBatch:
    """The trades, received when they happened: when they were fetched must not make the bytes differ."""
    trades = trades_array((r.time_us, r.time_us, r.first_id, r.last_id, r.price, r.qty, r.side) for r in rows)
    return wire.TickBatch(symbol, bronze.REST, "history", wire.NO_WATERMARK, trades, quotes_array([]))

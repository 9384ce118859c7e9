"""A window of history from REST into bronze, whole or not at all.

The first trade of a window is found by time and the rest by id. A window is whole when its aggregates follow
each other without a hole, from the one before its beginning to the one behind its end; only then its marker
is written, which is what "done" means to the planner. Files hold at most an hour, under names that follow
from the window alone and with bytes that follow from the trades alone: a repeat overwrites.

A function that runs out of time, or is told to wait, gives back where to go on: behind the last whole file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple

from tickcast import json_text, wire
from tickcast.adapters import bronze
from tickcast.adapters.binance_rest import PAGE, AggTrade, BinanceRest, RateLimited
from tickcast.backfill import HOUR_US, Window
from tickcast.ticks import quotes_array, trades_array

_RESERVE_MS = 120_000  # the longest that a page with its retries, and a file, may take
_SETTLED_AFTER_US = 10 * 1_000_000  # the newest aggregate grows while fills of its order follow
_FIRST_LOOK_MS = 1_000
_LONGEST_LOOK_MS = 59 * 60_000  # the exchange wants less than an hour
_WITHHELD_TOLD = 100  # ranges; beyond that they are only counted


class WindowError(ValueError):
    """A request that names no window."""


class HistoryIncomplete(RuntimeError):
    """What the exchange gave is not all of the window; another try may get the rest."""


@dataclass
class Progress:
    """What of a window is in bronze, in whole files, and the aggregate to go on with."""

    next_id: int | None = None  # None: the window's first has yet to be found
    last_id: int | None = None  # the newest trade before `next_id`; at first one before the window
    first_id: int | None = None
    until_us: int = 0  # the end of the last file
    trades: int = 0
    rows: int = 0
    withheld_trades: int = 0  # ids that the exchange itself has no trades for
    withheld: list[tuple[int, int]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)


class _Page(NamedTuple):
    rows: list[AggTrade]
    is_end: bool  # nothing is known behind it yet


def window_from(data: Any) -> Window:
    """The window in a request. Raises `WindowError`."""
    try:
        window = Window(**data)
    except TypeError:
        raise WindowError(f"window should be like the planner's, not {data!r}") from None
    if not window.from_us < window.to_us or window.from_us % 1000 or window.to_us % 1000:
        raise WindowError(f"a window is made of whole milliseconds and ends after it begins, not {data!r}")
    return window


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
        if marker is not None:
            return self._document("done", marker)
        progress = Progress(**(request.get("resume") or {}))
        rows_before = progress.rows
        try:
            is_whole = self._fetch(window, progress, remaining_ms)
        except RateLimited as limited:
            return self._document("rate_limited", progress, wait_s=limited.retry_after_s)
        if is_whole:
            if progress.keys:
                self._put_marker(window, progress)
            return self._document("done", progress)
        if progress.rows == rows_before:
            raise HistoryIncomplete(f"{window}: the time of a call is not enough for one file")
        return self._document("continue", progress)

    def _fetch(self, window: Window, progress: Progress, remaining_ms: Callable[[], int]) -> bool:
        """Fetch until the window is whole: True; or False when time runs out."""
        page: _Page | None = None
        if progress.next_id is None:
            page = self._beginning(window, progress)
            if page is None:
                return True  # no trades in it
        writer = _Writer(window, progress, self._put_file)
        while remaining_ms() > _RESERVE_MS:
            rows, is_end = page or self._page(window, writer.next_id)
            page = None
            if writer.add(rows):
                return True
            if is_end:
                if self._clock_us() < window.to_us + _SETTLED_AFTER_US:
                    raise HistoryIncomplete(f"{window} has not passed yet")
                writer.flush()
                return True
        return False

    def _page(self, window: Window, agg_id: int) -> _Page:
        rows = self._rest.agg_trades_from(window.symbol, agg_id)
        return _Page(rows, len(rows) < PAGE)

    def _beginning(self, window: Window, progress: Progress) -> _Page | None:
        """The page that begins with the window's first aggregate; None if there are none in the window.

        A look by time tells only about where it is: the exchange may give the last trades of the time it is
        asked for. That none is left out is told by the aggregate before, which happened before the window.
        """
        agg_id = self._look(window)
        step = 1
        while agg_id is not None:
            asked_id = max(agg_id - step, 0)
            rows, is_end = self._page(window, asked_id)
            before = list(takewhile(lambda row: row.time_us < window.from_us, rows))
            rows = rows[len(before) :]
            if not rows:
                raise HistoryIncomplete(f"{window}: of aggregate {agg_id} the exchange told only once")
            is_first_of_all = rows[0].id > asked_id or asked_id == 0
            if before or is_first_of_all:
                progress.next_id = rows[0].id
                progress.last_id = max((row.last_id for row in before), default=None)
                return _Page(rows, is_end)
            agg_id, step = asked_id, PAGE - 1
        return None

    def _look(self, window: Window) -> int | None:
        """An aggregate of the window, near its beginning. Looks further and further until there is one."""
        at_ms, end_ms, look_ms = window.from_us // 1000, window.to_us // 1000, _FIRST_LOOK_MS
        while at_ms < end_ms:
            until_ms = min(at_ms + look_ms, end_ms)
            rows = self._rest.agg_trades_between(window.symbol, at_ms, until_ms)
            if rows:
                return rows[0].id
            at_ms, look_ms = until_ms, min(look_ms * 4, _LONGEST_LOOK_MS)
        return None

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
        return Progress(**{name: about[name] for name in Progress.__dataclass_fields__})

    def _document(self, status: str, progress: Progress, wait_s: int = 0) -> dict[str, Any]:
        """What the state machine goes by: every field in every answer."""
        is_done = status == "done"
        return {
            "status": status,
            "retry_after_s": wait_s,
            "resume": None if is_done else asdict(progress),
            "keys": progress.keys if is_done else [],
            "trades": progress.trades,
            "rows": progress.rows,
            "withheld_trades": progress.withheld_trades,
            "used_weight": self._rest.used_weight,
            "requests": self._rest.requests,
        }


class _Writer:
    """Checks that aggregates follow each other, and writes them in files of an hour.

    A time that falls back behind an hour that is written, which the exchange's should not, does not reopen
    it: order is by id.
    """

    def __init__(self, window: Window, progress: Progress, put: Callable[..., dict[str, Any]]) -> None:
        assert progress.next_id is not None
        self.next_id = progress.next_id
        self._last_id = progress.last_id
        self._window = window
        self._progress = progress
        self._put = put
        self._hour = max(window.from_us, progress.until_us) // HOUR_US
        self._rows: list[AggTrade] = []
        self._withheld: list[tuple[int, int]] = []

    def add(self, rows: list[AggTrade]) -> bool:
        """Take rows; True when one lies behind the window, so that all of it is written.

        Raises `HistoryIncomplete`.
        """
        for row in rows:
            if row.id != self.next_id:
                raise HistoryIncomplete(
                    f"{self._window}: aggregate {self.next_id} was to come next, not {row.id}"
                )
            if row.time_us >= self._window.to_us:
                self.flush()
                return True
            hour = row.time_us // HOUR_US
            if hour > self._hour:
                self.flush()
                self._hour = hour
            self._follow(row)
            self.next_id = row.id + 1
        return False

    def _follow(self, row: AggTrade) -> None:
        if row.first_id < 0:
            return  # a placeholder: no more than an aggregate's id
        if self._last_id is not None and row.first_id != self._last_id + 1:
            if row.first_id <= self._last_id:
                raise HistoryIncomplete(
                    f"{self._window}: aggregate {row.id} begins with trade {row.first_id}, "
                    f"which was in an earlier one: they reach to {self._last_id}"
                )
            self._withheld.append((self._last_id + 1, row.first_id - 1))
        self._last_id = row.last_id
        self._rows.append(row)

    def flush(self) -> None:
        """Write the file of the hour, if it has any trades, and enter it as progress."""
        progress, window = self._progress, self._window
        until_us = min((self._hour + 1) * HOUR_US, window.to_us)
        if self._rows:
            from_us = max(self._hour * HOUR_US, window.from_us)
            progress.keys.append(self._put(window, from_us, until_us, self._rows))
        progress.next_id, progress.last_id, progress.until_us = self.next_id, self._last_id, until_us
        if progress.first_id is None and self._rows:
            progress.first_id = self._rows[0].first_id
        progress.rows += len(self._rows)
        progress.trades += sum(row.last_id - row.first_id + 1 for row in self._rows)
        progress.withheld_trades += sum(last - first + 1 for first, last in self._withheld)
        progress.withheld = (progress.withheld + self._withheld)[:_WITHHELD_TOLD]
        self._rows, self._withheld = [], []


def _batch(symbol: str, rows: list[AggTrade]) -> wire.TickBatch:
    """The trades, received when they happened: when they were fetched must not make the bytes differ."""
    trades = trades_array((r.time_us, r.time_us, r.first_id, r.last_id, r.price, r.qty, r.side) for r in rows)
    return wire.TickBatch(symbol, bronze.REST, "history", wire.NO_WATERMARK, trades, quotes_array([]))

"""Windows of REST history in bronze: their files, and the marker of a complete window.

A file covers at most an hour. Its name depends only on the window's beginning and the trades, and its bytes
only on the trades, so a repeat overwrites it. After each file the progress is written: a fetch that is
interrupted, by whatever, is continued by the next call for a window that begins there. The marker is written
last, also for a window without any trade; the planner takes a window that has one as fetched.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tickcast.adapters import json_text
from tickcast.adapters.lake import bronze
from tickcast.market import wire
from tickcast.market.fetch_plan import Window
from tickcast.market.sources import Source
from tickcast.market.ticks import Trades, quotes_array
from tickcast.units import DAY_US

# Ranges of withheld ids that are kept: a gap is settled by them, so as many as a gap can need. They are
# written again with every file.
WITHHELD_KEPT = 3000
REFUSED_KEPT = 100  # rows that are refused; the marker only counts those beyond, quarantine has them all
# Older progress is not continued: its first files may expire long before the marker would.
_PROGRESS_KEPT_US = DAY_US


class WindowFile(msgspec.Struct):
    key: str
    etag: str
    rows: int  # aggregates


class Progress(msgspec.Struct):
    """How much of a window is in bronze, in complete files, and the aggregate to continue with."""

    next_id: int | None = None  # None: the window's first has yet to be found
    last_id: int | None = None  # the newest trade before `next_id`
    before_id: int | None = None  # the newest trade before the window; None: the market began later
    after_id: int | None = None  # the first trade behind the window
    first_id: int | None = None
    until_us: int = 0  # the end of the last file
    trades: int = 0
    rows: int = 0
    withheld_trades: int = 0  # ids that the exchange itself has no trades for
    withheld: list[tuple[int, int]] = []
    refused_rows: int = 0  # that no market can have produced, or that are far out of order
    refused: list[dict[str, Any]] = []  # with the reasons
    keys: list[WindowFile] = []

    @property
    def is_cut_short(self) -> bool:
        """Whether fewer withheld ranges are listed than there is room for: older versions kept fewer."""
        listed = sum(last - first + 1 for first, last in self.withheld)
        return listed < self.withheld_trades and len(self.withheld) < WITHHELD_KEPT


class _Kept(Progress):
    """Progress in the lake, as of `at_us`."""

    at_us: int = 0


class _Withheld(msgspec.Struct):
    """The only field of a marker that a repair reads."""

    withheld: list[tuple[int, int]] = []


class WindowLake:
    """The windows in `bucket`."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    def put_file(self, symbol: str, from_us: int, to_us: int, trades: Trades) -> WindowFile:
        """Write the aggregates of [from_us, to_us), an hour at most."""
        key = f"{bronze.prefix(Source.REST, symbol, from_us)}aggtrades-{from_us}-{to_us}.avro"
        batch = wire.TickBatch(symbol, Source.REST, "history", wire.NO_WATERMARK, trades, quotes_array([]))
        body = bronze.write_file(bronze.market_data(batch))
        answer = self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        return WindowFile(key, answer["ETag"].strip('"'), len(trades))

    def put_progress(self, window: Window, progress: Progress, now_us: int) -> None:
        """Record what the lake has of a window that is not complete."""
        text = json_text.strict(msgspec.to_builtins(progress) | {"at_us": now_us}, sort_keys=True)
        key = bronze.progress_key(window.symbol, window.from_us)
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=text.encode(), ContentType="application/json")

    def progress(self, window: Window, now_us: int) -> Progress:
        """What an earlier call for a window with the same beginning left; its end may have been another."""
        try:
            body = self._body(bronze.progress_key(window.symbol, window.from_us))
            found = msgspec.convert(json_text.read(body or b"{}"), _Kept)
        except ValueError:  # msgspec's are too
            return Progress()
        if found.next_id is None or found.until_us > window.to_us or found.at_us < now_us - _PROGRESS_KEPT_US:
            return Progress()
        known = msgspec.structs.asdict(found)
        del known["at_us"]
        # The first trade behind the window depends on its end; it is among the rows to be read again.
        return Progress(**known | {"after_id": None})

    def put_marker(self, window: Window, progress: Progress) -> None:
        """Mark a window as complete."""
        about = {"symbol": window.symbol, "from_us": window.from_us, "to_us": window.to_us}
        text = json_text.strict(msgspec.to_builtins(progress) | about, indent=2, sort_keys=True)
        self._s3.put_object(
            Bucket=self._bucket, Key=_marker_key(window), Body=text.encode(), ContentType="application/json"
        )

    def marker(self, window: Window) -> Progress | None:
        """The content of a window's marker; None if it has none that can be read."""
        body = self._body(_marker_key(window))
        try:
            return None if body is None else msgspec.convert(json_text.read(body), Progress)
        except ValueError:  # msgspec's are too
            return None

    def withheld(self, window: Window) -> list[tuple[int, int]]:
        """The ids that the exchange had no trades for, by the marker. Raises LookupError where there is none:
        the window was not fetched whole."""
        if (body := self._body(_marker_key(window))) is None:
            raise LookupError(f"{_marker_key(window)} is not there: the window was not fetched whole")
        return msgspec.convert(json_text.read(body), _Withheld).withheld

    def _body(self, key: str) -> bytes | None:
        try:
            stored = self._s3.get_object(Bucket=self._bucket, Key=key)
        except self._s3.exceptions.NoSuchKey:
            return None
        return bytes(stored["Body"].read())


def _marker_key(window: Window) -> str:
    return bronze.window_key(window.symbol, window.from_us, window.to_us)

"""A window of history from REST into bronze, whole or not at all.

`rest.window_search` finds where the window begins, `rest.window_proof` checks that nothing of it is missing,
and `lake.windows` writes files, progress and marker. However a call ends (out of time, rate-limited, killed,
by an error), the next one continues after the last file in the lake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from tickcast.adapters.lake import bronze
from tickcast.adapters.lake.objects import first_key
from tickcast.adapters.lake.quarantine import quarantine_rows
from tickcast.adapters.lake.windows import Progress, WindowFile, WindowLake
from tickcast.adapters.rest.agg_trades import AggTrade
from tickcast.adapters.rest.binance import BinanceRest, RateLimited
from tickcast.adapters.rest.window_proof import HistoryIncomplete, WindowProof, named
from tickcast.adapters.rest.window_search import WindowSearch
from tickcast.market.fetch_plan import Window, window_from
from tickcast.market.sources import EXCHANGE_STREAMS, Source
from tickcast.market.ticks import trades_array
from tickcast.units import HOUR_US

SERVICE = "fetch_history"
# The longest that a page may take, about 170 s, and a file: waiting for the next minute's weight, then every
# attempt at an exchange that hangs.
_RESERVE_MS = 200_000


class FetchAnswer(msgspec.Struct):
    """For the state machine: every field is always there. After `continue` call again, after `rate_limited`
    likewise, `retry_after_s` later. The counts are of what is kept of the window so far."""

    status: Literal["done", "continue", "rate_limited"]
    retry_after_s: int
    files: int
    trades: int
    rows: int
    withheld_trades: int
    refused_rows: int
    quarantined: int  # the refused rows, once it is done; 0 where it was fetched before
    used_weight: int
    requests: int


class FetchHistory:
    """Fetches windows with `rest` into `bucket`. `clock_us` returns the current time, µs."""

    def __init__(self, rest: BinanceRest, s3: Any, bucket: str, clock_us: Callable[[], int]) -> None:
        self._rest = rest
        self._s3 = s3
        self._bucket = bucket
        self._clock_us = clock_us
        self._lake = WindowLake(s3, bucket)
        self._search = WindowSearch(rest, clock_us, self._older_key)

    def __call__(self, event: dict[str, Any], remaining_ms: Callable[[], int]) -> FetchAnswer:
        """Fetch the `window` of `event`, or as much of it as time and the exchange allow.

        Raises `WindowError`, `HistoryIncomplete`, and what `BinanceRest` raises.
        """
        window = window_from(event.get("window"))
        marker = self._lake.marker(window)
        if marker is not None and not (window.reason == "gap" and marker.is_cut_short):
            return self._answer("done", marker)
        progress = self._lake.progress(window, self._clock_us())
        until_us = progress.until_us
        try:
            is_whole = self._fetch(window, progress, remaining_ms)
        except RateLimited as limited:
            return self._answer("rate_limited", progress, limited.retry_after_s)
        except HistoryIncomplete as error:
            if error.contradicts and until_us and progress.until_us == until_us:
                # The beginning may be what is wrong, such as ids of a series that restarted.
                self._lake.put_progress(window, Progress(), self._clock_us())
            raise
        if is_whole:
            self._lake.put_marker(window, progress)
            return self._answer("done", progress, quarantined=progress.refused_rows)
        if progress.until_us == until_us:
            raise HistoryIncomplete(f"{named(window)}: the time of a call is not enough for one file")
        return self._answer("continue", progress)

    def _fetch(self, window: Window, progress: Progress, remaining_ms: Callable[[], int]) -> bool:
        """Fetch until the window is complete (True) or time runs out (False)."""
        rows = self._search.beginning(window, progress) if progress.next_id is None else None
        now_us = self._clock_us()
        proof = WindowProof(
            window, progress, _LakeSink(self._s3, self._bucket, self._lake, window, now_us), now_us
        )
        while remaining_ms() > _RESERVE_MS:
            if rows is None:
                rows = self._search.page(window, proof.next_id)
            if proof.add(rows):
                return True
            if not rows:
                raise self._search.unproven(window, f"aggregate {proof.next_id} is not there yet")
            rows = None
        return False

    def _older_key(self, symbol: str, time_us: int) -> str | None:
        """An object of the exchange's trades from an hour before that of `time_us`."""
        for source in (Source.REST, *EXCHANGE_STREAMS):
            folder = bronze.prefix(source, symbol, time_us // HOUR_US * HOUR_US)
            first = first_key(self._s3, self._bucket, folder.partition("date=")[0] + "date=")
            if first is not None and first < folder:  # keys are in the order of time
                return first
        return None

    def _answer(
        self,
        status: Literal["done", "continue", "rate_limited"],
        progress: Progress,
        wait_s: int = 0,
        quarantined: int = 0,
    ) -> FetchAnswer:
        return FetchAnswer(
            status=status,
            retry_after_s=wait_s,
            files=len(progress.keys),
            trades=progress.trades,
            rows=progress.rows,
            withheld_trades=progress.withheld_trades,
            refused_rows=progress.refused_rows,
            quarantined=quarantined,
            used_weight=self._rest.used_weight,
            requests=self._rest.requests,
        )


class _LakeSink:
    """Writes a window into the lake, as of `now_us`."""

    def __init__(self, s3: Any, bucket: str, lake: WindowLake, window: Window, now_us: int) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._lake = lake
        self._window = window
        self._now_us = now_us

    def put(self, from_us: int, to_us: int, rows: list[AggTrade]) -> WindowFile:
        # Received when they happened: the time of the fetch must not change the bytes.
        trades = ((r.time_us, r.time_us, r.first_id, r.last_id, r.price, r.qty, r.side) for r in rows)
        return self._lake.put_file(self._window.symbol, from_us, to_us, trades_array(trades))

    def refuse(self, rows: list[dict[str, Any]]) -> None:
        reason = f"{named(self._window)}: {len(rows)} rows, one because {rows[0]['why']}"
        quarantine_rows(self._s3, self._bucket, SERVICE, self._window.symbol, rows, reason)

    def keep(self, progress: Progress) -> None:
        self._lake.put_progress(self._window, progress, self._now_us)

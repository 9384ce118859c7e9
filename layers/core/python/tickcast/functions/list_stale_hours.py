"""Which hours of history have to be derived: a comparison of bronze with `tickcast.hours`.

An hour is stale when bronze has an object that it was not derived from, or when it was derived by another
definition of features or labels, or never; or when its trades are to be kept and are not there, as after
`tables.trades_keep_days` was raised. So whatever kept an hour from being loaded, this finds it, and
nothing has to be remembered for it.

The days are gone through from the newest to the oldest. A call returns a bounded number of windows, of a day
and a market each, and the day to continue before. An hour that could not be loaded is not listed again by the
same execution: that passes every day once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec
import psycopg

from tickcast.adapters.lake import hour_inputs
from tickcast.adapters.postgres.history_store import day_of, derived_hours, hours_without_trades
from tickcast.adapters.settings import HistorySettings
from tickcast.functions.load_history import LoadWindow, is_stale
from tickcast.functions.request import RequestError
from tickcast.market.sources import Source
from tickcast.units import DAY_US, HOUR_US, SECOND_US

MAX_WINDOWS = 8  # of a day and a market each: a busy one takes some minutes
# After this an execution continues with the training, and another one with the rest: newest hours first.
_LOADING_US = 2 * 3600 * SECOND_US
_RESERVE_MS = 30_000  # a day of all markets takes seconds


class ListRequest(msgspec.Struct):
    """For which markets; the rest is of the answer before, of the same execution, if there was one."""

    symbols: list[Annotated[str, msgspec.Meta(min_length=1)]]
    execution_id: str
    before_us: int | None = None  # only days before; None: all
    started_us: int | None = None
    train: dict[str, Any] | None = None  # the training that follows the last hour


class NextInput(msgspec.Struct):
    """The request to the state machine for what is left: nothing is to be fetched."""

    symbols: list[str]
    spans: list[Any]
    train: dict[str, Any] | None


class NextExecution(msgspec.Struct):
    """Its name depends on this execution's only: started twice, it runs once."""

    name: str
    input: NextInput


class StaleHours(msgspec.Struct):
    """For the state machine: every field is always there. `left`: there may be more before `before_us`; where
    `more` as well, this execution continues with it, otherwise `next`."""

    windows: list[LoadWindow]
    hours: int  # in these windows
    before_us: int | None
    started_us: int
    left: bool
    more: bool
    next: NextExecution


class ListStaleHours:
    """Compares `bucket` with the database of `connect`. `now_us` is the wall clock."""

    def __init__(
        self,
        settings: HistorySettings,
        s3: Any,
        bucket: str,
        connect: Callable[[], psycopg.Connection[Any]],
        now_us: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._s3 = s3
        self._bucket = bucket
        self._connect = connect
        self._now_us = now_us

    def __call__(self, event: dict[str, Any], remaining_ms: Callable[[], float]) -> StaleHours:
        """Raises `RequestError`, and what S3 and PostgreSQL raise."""
        request = _request(event)
        connection, now_us = self._connect(), self._now_us()
        sources = hour_inputs.sources_of(self._s3, self._bucket)
        windows: list[LoadWindow] = []
        hours, before_us = 0, None
        for place, day_us in enumerate(self._days(request, sources, now_us)):
            if place and (len(windows) >= MAX_WINDOWS or remaining_ms() < _RESERVE_MS):
                before_us = day_us + DAY_US
                break
            for symbol in request.symbols:
                if stale := self._stale(connection, symbol, day_us, sources, now_us):
                    windows.append(LoadWindow(symbol, stale[0], stale[-1] + HOUR_US))
                    hours += len(stale)
        started_us = now_us if request.started_us is None else request.started_us
        name = f"load-{hashlib.sha256(request.execution_id.encode()).hexdigest()[:32]}"
        return StaleHours(
            windows=windows,
            hours=hours,
            before_us=before_us,
            started_us=started_us,
            left=before_us is not None,
            more=before_us is not None and now_us - started_us < _LOADING_US,
            next=NextExecution(name, NextInput(request.symbols, [], request.train)),
        )

    def _days(self, request: ListRequest, sources: list[Source], now_us: int) -> Iterator[int]:
        """The days to look at, the newest first: with objects, or next to such a day, whose ticks may reach
        into it."""
        cutoff_us = _cutoff_us(now_us, self._settings.keep_days)
        days: set[int] = set()
        for symbol in request.symbols:
            days |= hour_inputs.days_of(self._s3, self._bucket, symbol, sources)
        around = {day_us + step for day_us in days for step in (-DAY_US, 0, DAY_US)}
        for day_us in sorted(around, reverse=True):
            if day_us >= cutoff_us and (request.before_us is None or day_us < request.before_us):
                yield day_us

    def _stale(
        self,
        connection: psycopg.Connection[Any],
        symbol: str,
        day_us: int,
        sources: list[Source],
        now_us: int,
    ) -> list[int]:
        """The stale hours of a day, in order."""
        hours = range(day_us, day_us + DAY_US, HOUR_US)
        inputs = hour_inputs.hour_inputs(self._s3, self._bucket, symbol, hours, sources)
        derived = derived_hours(connection, symbol, hours.start, hours.stop)
        keeps_trades = day_us >= _cutoff_us(now_us, self._settings.trades_keep_days)
        lacking = hours_without_trades(connection, symbol, hours.start, hours.stop) if keeps_trades else set()
        return [
            hour_us
            for hour_us in sorted(inputs)
            if is_stale(
                hour_inputs.digests(inputs[hour_us], *self._settings.grids_ms),
                derived.get(hour_us),
                hour_us in lacking,
            )
        ]


def _cutoff_us(now_us: int, keep_days: int) -> int:
    """The first day that is kept; 0 days are all."""
    return day_of(now_us) - keep_days * DAY_US if keep_days else 0


def _request(event: dict[str, Any]) -> ListRequest:
    """Raises `RequestError`."""
    try:
        return msgspec.convert(event, ListRequest)
    except msgspec.ValidationError as error:
        example = '{"symbols": ["BTCUSDT"], "execution_id": "by-hand"}'
        raise RequestError(f"the request should be like {example}: {error}") from None

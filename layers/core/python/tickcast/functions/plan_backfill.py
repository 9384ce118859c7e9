"""The plan of an execution, from the request, the windows in bronze and the gap ledger.

A request names spans of time in one of these ways, and may ask for repair as well:

    {"symbols": ["BTCUSDT"], "from": "2024-08-01", "to": "2024-08-03T12:00"}     UTC, `to` excluded
    {"days": 2}                                                                  today and the two days before
    {"repair": true}                                                             the gaps of the gap ledger
    {"spans": [...]}                                                             what another plan left over

Without `symbols` all that are served are planned. With `dry` nothing but the plan is made. `train` is the
request of the training that follows the last window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tickcast.adapters.lake import bronze
from tickcast.adapters.lake.objects import list_objects
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.registry.served_symbols import served_or
from tickcast.adapters.settings import MAX_DAYS
from tickcast.functions.request import RequestError, check_fields, days_in, symbols_in
from tickcast.market.fetch_plan import Plan, Window, WindowError, of_gap, plan, window_from
from tickcast.market.gaps import WITHHELD
from tickcast.units import DAY_US, HOUR_US, MILLISECOND_US, MINUTE_US

# Newer trades may still arrive by the stream, and newer gaps may grow.
SETTLED_AFTER_US = MINUTE_US
_KNOWN = {"symbols", "from", "to", "days", "repair", "spans", "dry", "train"}


class MarketWindows(msgspec.Struct):
    """A market's windows, which are fetched one after another."""

    symbol: str
    windows: list[Window]


class NextInput(msgspec.Struct):
    symbols: list[str]
    spans: list[Window]
    train: dict[str, Any] | None


class NextExecution(msgspec.Struct):
    """Its name depends on this execution's only: started twice, it runs once."""

    name: str
    input: NextInput


class Totals(msgspec.Struct):
    """A plan's totals, in hours of markets. What several spans request counts once."""

    hours_asked: float
    hours_held: float  # fetched before
    hours_planned: float
    hours_left: float
    gaps: int


class BackfillPlan(msgspec.Struct):
    """For the state machine: every field is always there. `windows` counts those of `markets`; where there is
    `more`, `next` is started."""

    symbols: list[str]
    dry: bool
    train: dict[str, Any] | None
    markets: list[MarketWindows]
    windows: int
    more: bool
    next: NextExecution
    totals: Totals


class PlanBackfill:
    """Plans for the lake in `bucket`; `configured` are the symbols served until they are changed."""

    def __init__(self, s3: Any, bucket: str, store: HotStore, configured: Sequence[str]) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._store = store
        self._configured = configured

    def __call__(self, request: dict[str, Any], execution_id: str, now_us: int) -> BackfillPlan:
        """The plan of `request` at `now_us`. Raises `RequestError`, and what `served_or` raises."""
        check_fields(request, _KNOWN)
        symbols = (request.get("symbols") and symbols_in(request)) or self._served()
        until_us = (now_us - SETTLED_AFTER_US) // MILLISECOND_US * MILLISECOND_US
        requested = _requested(request, symbols, until_us)
        if request.get("repair"):
            requested += self._gaps(symbols, until_us)
        planned = plan(
            requested, {symbol: self._fetched(symbol) for symbol in {each.symbol for each in requested}}
        )
        name = f"more-{hashlib.sha256(execution_id.encode()).hexdigest()[:32]}"
        train = request.get("train")
        return BackfillPlan(
            symbols=symbols,
            dry=bool(request.get("dry")),
            train=train,
            markets=_by_symbol(planned.windows),
            windows=len(planned.windows),
            more=bool(planned.left),
            next=NextExecution(name, NextInput(symbols, planned.left, train)),
            totals=_totals(requested, planned),
        )

    def _served(self) -> list[str]:
        return list(dict.fromkeys(served_or(self._s3, self._bucket, self._configured)))

    def _gaps(self, symbols: list[str], until_us: int) -> list[Window]:
        windows = []
        for symbol, ledger in self._store.gaps(symbols).items():
            for gap in ledger.gaps if ledger else ():
                window = of_gap(symbol, gap)
                if window.to_us <= until_us and gap.cause != WITHHELD:
                    windows.append(window)
        return windows

    def _fetched(self, symbol: str) -> list[tuple[int, int]]:
        """The spans that have a marker."""
        markers = list_objects(self._s3, self._bucket, bronze.windows_prefix(symbol))
        return [bronze.window_in(marker.key) for marker in markers]


def _requested(request: dict[str, Any], symbols: list[str], until_us: int) -> list[Window]:
    ways = [way for way in (("spans",), ("from", "to"), ("days",)) if any(name in request for name in way)]
    if len(ways) > 1:
        raise RequestError("a request has spans, from and to, or days: one of these alone")
    if not ways:
        if request.get("repair"):
            return []
        raise RequestError(
            'nothing is requested; request {"from": "2024-08-01", "to": "2024-08-02"} or {"days": 2}, say'
        )
    if "spans" in request:
        try:
            return [window_from(span) for span in request["spans"]]
        except (TypeError, WindowError) as error:
            raise RequestError(f"spans should be those that another plan left over: {error}") from None
    from_us, to_us = _stretch(request, until_us)
    return [Window(from_us, to_us, symbol) for symbol in symbols] if from_us < to_us else []


def _stretch(request: dict[str, Any], until_us: int) -> tuple[int, int]:
    if (days := days_in(request, MAX_DAYS)) is not None:
        return (until_us // DAY_US - days) * DAY_US, until_us
    if not {"from", "to"} <= request.keys():
        raise RequestError("from and to belong together: give both")
    from_us, to_us = _time_us("from", request["from"]), _time_us("to", request["to"])
    if from_us >= to_us:
        raise RequestError(f"from {request['from']} is not before to {request['to']}")
    if to_us - from_us > MAX_DAYS * DAY_US:
        raise RequestError(f"from {request['from']} to {request['to']} is more than {MAX_DAYS} days")
    if from_us >= until_us:
        raise RequestError(f"from {request['from']} has not passed yet, or is less than a minute ago")
    return from_us, min(to_us, until_us)


def _time_us(name: str, text: Any) -> int:
    """The time in whole milliseconds, as µs; UTC unless it has an offset."""
    try:
        time = datetime.fromisoformat(text)
        seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise RequestError(
            f"{name} should be a time like 2024-08-01 or 2024-08-01T12:00:00Z, not {text!r}"
        ) from None
    return round(seconds * 1000) * MILLISECOND_US


def _by_symbol(windows: list[Window]) -> list[MarketWindows]:
    symbols = sorted({window.symbol for window in windows})
    return [MarketWindows(symbol, [each for each in windows if each.symbol == symbol]) for symbol in symbols]


def _totals(requested: list[Window], planned: Plan) -> Totals:
    wanted, planned_now, later = (
        _hours(w) for w in (plan(requested, {}, 10**9).windows, planned.windows, planned.left)
    )
    gaps = sum(window.reason == "gap" for window in planned.windows)
    return Totals(wanted, round(wanted - planned_now - later, 3), planned_now, later, gaps)


def _hours(windows: list[Window]) -> float:
    return round(sum(window.to_us - window.from_us for window in windows) / HOUR_US, 3)

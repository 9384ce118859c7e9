"""The plan of an execution: from what is asked, what bronze holds and the gap ledger.

A request names stretches of time in one of these ways, and may ask for repair besides:

    {"symbols": ["BTCUSDT"], "from": "2024-08-01", "to": "2024-08-03T12:00"}     UTC, `to` excluded
    {"days": 2}                                                                  today and so many days before
    {"repair": true}                                                             the holes of the gap ledger
    {"spans": [...]}                                                             what another plan left over

Without `symbols` all configured ones are meant. With `dry` the plan is made and nothing else. `train` is a
request for the training that follows the last window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from tickcast.adapters.lake import bronze
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.settings import MAX_DAYS
from tickcast.market.fetch_plan import Plan, Window, WindowError, of_gap, plan, window_from
from tickcast.market.gaps import WITHHELD
from tickcast.market.symbols import is_symbol
from tickcast.units import DAY_US, HOUR_US, MILLISECOND_US, MINUTE_US

# What is younger may still come by the stream, or grow.
SETTLED_AFTER_US = MINUTE_US
_KNOWN = {"symbols", "from", "to", "days", "repair", "spans", "dry", "train"}


class RequestError(ValueError):
    """A request that cannot be planned; the message says what it should have held."""


class PlanBackfill:
    """Plans for the lake in `bucket`; `symbols` are those configured."""

    def __init__(self, s3: Any, bucket: str, store: HotStore, symbols: Sequence[str]) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._store = store
        self._symbols = symbols

    def __call__(self, request: dict[str, Any], execution_id: str, now_us: int) -> dict[str, Any]:
        """The plan of `request` at `now_us`; for the state machine, with all fields in every answer.

        `next` is the input of the execution to be chained when there is `more`, and its name, which follows
        from this execution's: asked for twice, it is started once. Raises `RequestError`.
        """
        symbols = self._check(request)
        until_us = (now_us - SETTLED_AFTER_US) // MILLISECOND_US * MILLISECOND_US
        asked = _asked(request, symbols, until_us)
        if request.get("repair"):
            asked += self._gaps(symbols, until_us)
        held = {symbol: self._held(symbol) for symbol in sorted({window.symbol for window in asked})}
        planned = plan(asked, held)
        return {
            "symbols": symbols,
            "dry": bool(request.get("dry")),
            "train": request.get("train"),
            "markets": _by_symbol(planned.windows),
            "windows": len(planned.windows),
            "more": bool(planned.left),
            "next": {
                "name": f"more-{hashlib.sha256(execution_id.encode()).hexdigest()[:32]}",
                "input": {
                    "symbols": symbols,
                    "spans": [asdict(window) for window in planned.left],
                    "train": request.get("train"),
                },
            },
            "totals": _totals(asked, planned),
        }

    def _check(self, request: dict[str, Any]) -> list[str]:
        """The symbols meant. Raises `RequestError`."""
        if unknown := request.keys() - _KNOWN:
            raise RequestError(
                f"unknown: {', '.join(sorted(unknown))}; a request has {', '.join(sorted(_KNOWN))}"
            )
        asked = request.get("symbols") or list(self._symbols)
        if not isinstance(asked, list) or not all(isinstance(s, str) and is_symbol(s) for s in asked):
            raise RequestError(f'symbols should be a list like ["BTCUSDT"], not {asked!r}')
        return list(dict.fromkeys(asked))

    def _gaps(self, symbols: list[str], until_us: int) -> list[Window]:
        windows = []
        for symbol, ledger in self._store.gaps(symbols).items():
            for gap in ledger.gaps if ledger else ():
                window = of_gap(symbol, gap)
                if window.to_us <= until_us and gap.cause != WITHHELD:
                    windows.append(window)
        return windows

    def _held(self, symbol: str) -> list[tuple[int, int]]:
        """The stretches whose markers are there."""
        pages = self._s3.get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self._bucket, Prefix=bronze.windows_prefix(symbol))
        return [bronze.window_in(item["Key"]) for page in found for item in page.get("Contents", [])]


def _asked(request: dict[str, Any], symbols: list[str], until_us: int) -> list[Window]:
    ways = [way for way in (("spans",), ("from", "to"), ("days",)) if any(name in request for name in way)]
    if len(ways) > 1:
        raise RequestError("ask for spans, for from and to, or for days: for one of them alone")
    if not ways:
        if request.get("repair"):
            return []
        raise RequestError('ask for something: {"from": "2024-08-01", "to": "2024-08-02"}, {"days": 2} or …')
    if "spans" in request:
        try:
            return [window_from(span) for span in request["spans"]]
        except (TypeError, WindowError) as error:
            raise RequestError(f"spans should be those another plan left over: {error}") from None
    from_us, to_us = _stretch(request, until_us)
    return [Window(from_us, to_us, symbol) for symbol in symbols] if from_us < to_us else []


def _stretch(request: dict[str, Any], until_us: int) -> tuple[int, int]:
    if "days" in request:
        days = request["days"]
        if not isinstance(days, int) or isinstance(days, bool) or not 0 < days <= MAX_DAYS:
            raise RequestError(f"days should be a whole number from 1 to {MAX_DAYS}, not {days!r}")
        return (until_us // DAY_US - days) * DAY_US, until_us
    if not {"from", "to"} <= request.keys():
        raise RequestError("from and to are needed both")
    from_us, to_us = _time_us("from", request["from"]), _time_us("to", request["to"])
    if from_us >= to_us:
        raise RequestError(f"from {request['from']} is not before to {request['to']}")
    if to_us - from_us > MAX_DAYS * DAY_US:
        raise RequestError(f"from {request['from']} to {request['to']} is more than {MAX_DAYS} days")
    if from_us >= until_us:
        raise RequestError(f"from {request['from']} has not passed yet, or is less than a minute ago")
    return from_us, min(to_us, until_us)


def _time_us(name: str, text: Any) -> int:
    """The time in whole milliseconds, as µs; UTC unless it says otherwise."""
    try:
        time = datetime.fromisoformat(text)
        seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise RequestError(
            f"{name} should be a time like 2024-08-01 or 2024-08-01T12:00:00Z, not {text!r}"
        ) from None
    return round(seconds * 1000) * MILLISECOND_US


def _by_symbol(windows: list[Window]) -> list[dict[str, Any]]:
    """A market each, of which one window after another is fetched."""
    symbols = sorted({window.symbol for window in windows})
    return [
        {"symbol": symbol, "windows": [asdict(window) for window in windows if window.symbol == symbol]}
        for symbol in symbols
    ]


def _totals(asked: list[Window], planned: Plan) -> dict[str, Any]:
    """What people want to know of a plan, in hours of markets. What several ask for counts once."""
    wanted, planned_now, later = (
        _hours(w) for w in (plan(asked, {}, 10**9).windows, planned.windows, planned.left)
    )
    return {
        "hours_asked": wanted,
        "hours_held": round(wanted - planned_now - later, 3),
        "hours_planned": planned_now,
        "hours_left": later,
        "gaps": sum(window.reason == "gap" for window in planned.windows),
    }


def _hours(windows: list[Window]) -> float:
    return round(sum(window.to_us - window.from_us for window in windows) / HOUR_US, 3)

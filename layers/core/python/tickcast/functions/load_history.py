"""Bronze into PostgreSQL: trades once each, and of them one-second bars and labelled feature rows.

An object is loaded in one transaction: its trades, its line in the ledger, and which hours' rows are stale
now. Then each stale hour's rows are made anew, each in a transaction of its own, of the trades held and the
quotes of the objects loaded around it. So a load that is killed anywhere and asked for again ends as if it
had not been; and hours may come in any order, for the rows at a neighbour's edge are made anew with them.

An object that cannot be used goes to quarantine with the reason and holds up nothing.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.adapters.lake.bronze import BronzeError
from tickcast.adapters.lake.bronze_objects import (
    BronzeObject,
    ObjectGone,
    ObjectTicks,
    fetch,
    object_at,
    objects_between,
    ticks_of,
)
from tickcast.adapters.lake.quarantine import quarantine_object
from tickcast.adapters.postgres.history_store import HistoryStore, LoadedObject, day_of, days_between
from tickcast.adapters.settings import HistorySettings
from tickcast.market.ticks import QUOTE, span_us
from tickcast.market.trade_ledger import TradesContradict, as_trades, changes, held, merged
from tickcast.model.dataset import AFTER_US, BEFORE_US, affected_hours, rows_of_hour
from tickcast.units import DAY_US, HOUR_US

SERVICE = "load_history"
MAX_DAYS = 3_660  # of a request
_ENOUGH_MS = 90_000  # what an object or an hour takes at most, with room
_QUOTES_AT_HAND = 1_000_000  # that need not be read again: 56 MB


class RequestError(ValueError):
    """A request that cannot be carried out; the message says what it should have held."""


@dataclass
class Loaded:
    """What a load came to. `complete` is False when time ran out: the same request goes on from there."""

    objects: int = 0
    trades: int = 0  # ticks read, known or not
    quotes: int = 0
    added: int = 0  # rows of trades that were not held as they are now
    hours: int = 0
    bars: int = 0
    feature_rows: int = 0
    skipped: int = 0  # objects known
    expired: int = 0  # objects older than what is kept
    quarantined: list[str] = field(default_factory=list)  # reasons
    problems: list[str] = field(default_factory=list)
    complete: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class LoadHistory:
    """Loads from `bucket` into the history that `open_store` gives. `now_us` is the wall clock."""

    def __init__(
        self,
        settings: HistorySettings,
        s3: Any,
        bucket: str,
        open_store: Callable[[], HistoryStore],
        now_us: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._s3 = s3
        self._bucket = bucket
        self._open_store = open_store
        self._now_us = now_us
        self._at_hand = _AtHand()

    def __call__(self, request: dict[str, Any], remaining_ms: Callable[[], float]) -> Loaded:
        """Load the objects of `request["keys"]`, or all that bronze has for the hours of its `window`.

        Raises `RequestError`, and what S3 and PostgreSQL raise: then it can be asked for again.
        """
        symbol, from_us, to_us = _window(request)
        store, loaded = self._open_store(), Loaded()
        objects = self._objects(request, symbol, from_us, to_us, loaded)
        first_us = min([from_us, *(about.hour_us for about in objects)])
        last_us = max([to_us, *(about.hour_us + HOUR_US for about in objects)])
        hours = affected_hours(first_us, last_us)
        for work in self._work(store, symbol, hours, self._unknown(store, objects, loaded), loaded):
            if remaining_ms() < _ENOUGH_MS:
                loaded.complete = False
                break
            work()
        if self._settings.keep_days > 0:
            store.expire(self._cutoff_us())
        return loaded

    def _work(
        self, store: HistoryStore, symbol: str, hours: range, objects: list[BronzeObject], loaded: Loaded
    ) -> Iterator[Callable[[], None]]:
        """The steps of a load. An hour's rows are made once the hour after it is loaded, for they need its
        beginning, and while the quotes of both are at hand."""
        for hour_us, of_hour in itertools.groupby(objects, lambda about: about.hour_us):
            for about in of_hour:
                yield partial(self._load, store, about, loaded)
            for stale_us in store.dirty_hours(symbol, hours.start, hour_us):
                yield partial(self._refresh, store, symbol, stale_us, loaded)
        for stale_us in store.dirty_hours(symbol, hours.start, hours[-1] + HOUR_US):
            yield partial(self._refresh, store, symbol, stale_us, loaded)

    def _objects(
        self, request: dict[str, Any], symbol: str, from_us: int, to_us: int, loaded: Loaded
    ) -> list[BronzeObject]:
        if "keys" not in request:
            found = objects_between(self._s3, self._bucket, symbol, from_us, to_us)
        else:
            found = (object_at(item["key"], item["etag"]) for item in request["keys"])
        cutoff_us = self._cutoff_us()
        kept = []
        for about in found:
            if about.symbol != symbol:
                raise RequestError(f"{about.key} is not of {symbol}")
            if about.hour_us < cutoff_us:
                loaded.expired += 1
            else:
                kept.append(about)
        return sorted(kept, key=lambda about: (about.hour_us, about.key))

    def _cutoff_us(self) -> int:
        keep_days = self._settings.keep_days
        return max(day_of(self._now_us()) - keep_days * DAY_US, 0) if keep_days else 0

    def _unknown(
        self, store: HistoryStore, objects: list[BronzeObject], loaded: Loaded
    ) -> list[BronzeObject]:
        known = store.known_objects([about.key for about in objects])
        unknown = [about for about in objects if known.get(about.key) != about.etag]
        loaded.skipped += len(objects) - len(unknown)
        return unknown

    def _load(self, store: HistoryStore, about: BronzeObject, loaded: Loaded) -> None:
        try:
            data = fetch(self._s3, self._bucket, about.key, about.etag)
        except ObjectGone as error:
            loaded.problems.append(str(error))
            return
        try:
            ticks = ticks_of(data, about)
            loaded.added += self._keep(store, about, ticks)
        except (BronzeError, TradesContradict) as error:
            reason = str(error)
            quarantine_object(self._s3, self._bucket, SERVICE, about.key, about.etag, data, reason)
            with store.connection.transaction():
                store.note(LoadedObject(about.key, about.etag, about.symbol, 0, 0, reason=reason), [])
            loaded.quarantined.append(reason)
            return
        self._at_hand.put(about.key, about.etag, ticks)
        loaded.objects += 1
        loaded.trades += len(ticks.trades)
        loaded.quotes += len(ticks.quotes)

    def _keep(self, store: HistoryStore, about: BronzeObject, ticks: ObjectTicks) -> int:
        """Hold the trades of an object; returns how many rows that added. Raises `TradesContradict`."""
        span = span_us(ticks.trades, ticks.quotes) or (about.hour_us, about.hour_us)
        store.add_days([day_of(about.hour_us)])
        with store.connection.transaction():
            store.lock(about.symbol, [day_of(about.hour_us)])
            add = 0
            if len(ticks.trades):
                ids = int(ticks.trades["first_id"].min()), int(ticks.trades["last_id"].max())
                known = store.trades_by_id(about.symbol, *ids, *span)
                remove, new = changes(known, merged(known, held(ticks.trades, ticks.origin)))
                store.replace_trades(about.symbol, remove, new)
                add = len(new)
            counts = len(ticks.trades), len(ticks.quotes)
            entry = LoadedObject(about.key, about.etag, about.symbol, *counts, *span, ticks.origin)
            store.note(entry, affected_hours(*span))
        return add

    def _refresh(self, store: HistoryStore, symbol: str, hour_us: int, loaded: Loaded) -> None:
        """Make an hour's bars and feature rows anew."""
        from_us, to_us = hour_us - BEFORE_US, hour_us + HOUR_US + AFTER_US
        if hour_us >= self._cutoff_us():
            store.add_days([day_of(hour_us)])
        with store.connection.transaction():
            store.lock(symbol, days_between(from_us, to_us - 1))
            if not store.freshen(symbol, hour_us) or hour_us < self._cutoff_us():
                return
            try:
                quotes, quote_origins = self._quotes(store, symbol, from_us, to_us)
            except ObjectGone as error:
                # Without its quotes an hour's rows would be worse than as they are.
                loaded.problems.append(f"rows of {symbol}'s hour {hour_us} stay as they are: {error}")
                return
            trades = store.trades_by_time(symbol, from_us, to_us)
            grids_us = self._settings.grid_ms * 1000, self._settings.quoted_grid_ms * 1000
            bars, rows = rows_of_hour(as_trades(trades), quotes, hour_us, *grids_us)
            newest = _Newest(
                np.concatenate([trades["time_us"], quotes["time_us"]]),
                np.concatenate([trades["origin"], quote_origins]),
            )
            store.replace_hour(
                symbol, hour_us, bars, newest.at(bars.columns["end_us"]), rows, newest.at(rows.end_us)
            )
        loaded.hours += 1
        loaded.bars += len(bars.has_quotes)
        loaded.feature_rows += len(rows.end_us)

    def _quotes(
        self, store: HistoryStore, symbol: str, from_us: int, to_us: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int16]]:
        """The quotes of [from_us, to_us) that bronze has in what is loaded, with their origins."""
        quotes, origins = [np.empty(0, QUOTE)], [np.empty(0, np.int16)]
        for entry in store.objects_with_quotes(symbol, from_us, to_us):
            found = self._at_hand.get(entry.key, entry.etag)
            if found is None:
                data = fetch(self._s3, self._bucket, entry.key, entry.etag)
                found = ticks_of(data, object_at(entry.key, entry.etag))
                self._at_hand.put(entry.key, entry.etag, found)
            times_us = found.quotes["time_us"]
            quotes.append(found.quotes[(times_us >= from_us) & (times_us < to_us)])
            origins.append(np.full(len(quotes[-1]), found.origin, np.int16))
        return np.concatenate(quotes), np.concatenate(origins)


class _AtHand:
    """The objects with quotes that were read last, as far as memory is set aside for them."""

    def __init__(self) -> None:
        self._quotes: OrderedDict[tuple[str, str], ObjectTicks] = OrderedDict()

    def put(self, key: str, etag: str, ticks: ObjectTicks) -> None:
        if len(ticks.quotes):
            self._quotes[key, etag] = ticks._replace(trades=ticks.trades[:0].copy())
            while sum(len(kept.quotes) for kept in self._quotes.values()) > _QUOTES_AT_HAND:
                self._quotes.popitem(last=False)

    def get(self, key: str, etag: str) -> ObjectTicks | None:
        return self._quotes.get((key, etag))


class _Newest:
    """The origin of the newest tick before an instant; of ticks at one time the last in ORIGINS."""

    def __init__(self, times_us: npt.NDArray[np.int64], origins: npt.NDArray[np.int16]) -> None:
        order = np.lexsort((origins, times_us))
        self._times_us, self._origins = times_us[order], origins[order]

    def at(self, ends_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """For instants with a tick before them. Shape (ends_us,)."""
        if not len(ends_us):
            return np.empty(0, np.int16)
        return np.asarray(self._origins[np.searchsorted(self._times_us, ends_us) - 1])


def _window(request: dict[str, Any]) -> tuple[str, int, int]:
    window = request.get("window") or {}
    example = '{"window": {"symbol": "BTCUSDT", "from_us": 1754006400000000, "to_us": 1754010000000000}}'
    try:
        symbol, from_us, to_us = window["symbol"], window["from_us"], window["to_us"]
    except (KeyError, TypeError):
        raise RequestError(f"the window is {window!r}; a request should be like {example}") from None
    if not isinstance(symbol, str) or not all(type(time_us) is int for time_us in (from_us, to_us)):
        raise RequestError(f"the window is {window!r}; a request should be like {example}")
    if not symbol or not 0 <= from_us < to_us:
        raise RequestError(f"the window is {window!r}; it should name a symbol and end after it begins")
    if to_us - from_us > MAX_DAYS * DAY_US:
        raise RequestError(f"the window is {window!r}; it should span at most {MAX_DAYS} days")
    return symbol, from_us, to_us

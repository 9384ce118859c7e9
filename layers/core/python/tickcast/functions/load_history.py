"""Bronze into PostgreSQL: each trade once, one-second bars and labelled feature rows.

An object is loaded in one transaction: its trades, its entry in the ledger of loads, and the marks of the
hours that are dirty now, their rows being out of date. Then the rows of each dirty hour are recomputed, in a
transaction of its own, from the stored trades and the quotes of the objects loaded around it. So a load that
is killed anywhere and repeated ends in the same tables; and hours may come in any order, for rows at the edge
of the next hour are recomputed too.

An unusable object goes to quarantine with the reason and blocks nothing.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from tickcast.adapters.lake.bronze import BronzeError
from tickcast.adapters.lake.bronze_reader import (
    BronzeObject,
    ObjectGone,
    ObjectTicks,
    fetch,
    object_at,
    objects_between,
    ticks_of,
)
from tickcast.adapters.lake.quarantine import quarantine_object
from tickcast.adapters.postgres.history_store import HistoryStore, LoadedObject, Origins, day_of, days_between
from tickcast.adapters.settings import MAX_DAYS, HistorySettings
from tickcast.functions.request import RequestError
from tickcast.market.ticks import NO_QUOTES, QUOTE, Quotes, span_us
from tickcast.market.trade_ledger import TradesContradict, as_trades, changes, ledger_rows, merged
from tickcast.model.dataset import AFTER_US, BEFORE_US, affected_hours, rows_of_hour
from tickcast.units import DAY_US, HOUR_US

SERVICE = "load_history"
_MOST_US = (MAX_DAYS + 10) * DAY_US  # of a request: the longest plan, and the hours around it
_ENOUGH_MS = 90_000  # the longest that an object or an hour takes, with a margin
_CACHED_QUOTES = 1_000_000  # 56 MB
_EXAMPLE = '{"window": {"symbol": "BTCUSDT", "from_us": 1754006400000000, "to_us": 1754010000000000}}'

Times = npt.NDArray[np.int64]


class LoadWindow(msgspec.Struct):
    """The hours of [from_us, to_us), µs."""

    symbol: Annotated[str, msgspec.Meta(min_length=1)]
    from_us: Annotated[int, msgspec.Meta(ge=0)]
    to_us: int


class ObjectVersion(msgspec.Struct):
    """An object of bronze, as `fetch_history` names it."""

    key: str
    etag: str


class LoadRequest(msgspec.Struct):
    window: LoadWindow
    keys: list[ObjectVersion] | None = None  # None: all that bronze has for the hours of the window


class Loaded(msgspec.Struct):
    """The result of a load. `complete` is False when time ran out: the same request then continues it."""

    objects: int = 0
    trades: int = 0  # ticks read, known or not
    quotes: int = 0
    added: int = 0  # new or changed rows of trades
    hours: int = 0
    bars: int = 0
    feature_rows: int = 0
    skipped: int = 0  # objects loaded before
    expired: int = 0  # objects older than the retention
    quarantined: list[str] = []  # reasons
    problems: list[str] = []
    complete: bool = True


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
        self._cache = _QuoteCache()

    def __call__(self, event: dict[str, Any], remaining_ms: Callable[[], float]) -> Loaded:
        """Load what `event`, a `LoadRequest`, names.

        Raises `RequestError`, and what S3 and PostgreSQL raise: then it can be repeated.
        """
        request = _request(event)
        symbol, store, loaded = request.window.symbol, self._open_store(), Loaded()
        objects = self._objects(request, loaded)
        first_us = min([request.window.from_us, *(about.hour_us for about in objects)])
        last_us = max([request.window.to_us, *(about.hour_us + HOUR_US for about in objects)])
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
        """The steps of a load. An hour's rows are computed once the next hour is loaded, for they need its
        beginning, and while the quotes of both are cached."""
        for hour_us, of_hour in itertools.groupby(objects, lambda about: about.hour_us):
            for about in of_hour:
                yield partial(self._load, store, about, loaded)
            for dirty_us in store.dirty_hours(symbol, hours.start, hour_us):
                yield partial(self._refresh, store, symbol, dirty_us, loaded)
        for dirty_us in store.dirty_hours(symbol, hours.start, hours[-1] + HOUR_US):
            yield partial(self._refresh, store, symbol, dirty_us, loaded)

    def _objects(self, request: LoadRequest, loaded: Loaded) -> list[BronzeObject]:
        symbol, from_us, to_us = request.window.symbol, request.window.from_us, request.window.to_us
        if request.keys is None:
            found = objects_between(self._s3, self._bucket, symbol, from_us, to_us)
        else:
            found = (object_at(version.key, version.etag) for version in request.keys)
        cutoff_us = self._cutoff_us()
        kept = []
        for about in found:
            if about.symbol != symbol:
                raise RequestError(f"{about.key} is not of {symbol}")
            if about.source.is_reference:
                continue  # never among the spot market's quotes
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
        self._cache.put(about.key, about.etag, ticks)
        loaded.objects += 1
        loaded.trades += len(ticks.trades)
        loaded.quotes += len(ticks.quotes)

    def _keep(self, store: HistoryStore, about: BronzeObject, ticks: ObjectTicks) -> int:
        """Store the trades of an object; returns how many rows that added. Raises `TradesContradict`."""
        span = span_us(ticks.trades, ticks.quotes) or (about.hour_us, about.hour_us)
        store.add_days([day_of(about.hour_us)])
        with store.connection.transaction():
            store.lock(about.symbol, [day_of(about.hour_us)])
            add = 0
            if len(ticks.trades):
                ids = int(ticks.trades["first_id"].min()), int(ticks.trades["last_id"].max())
                known = store.trades_by_id(about.symbol, *ids, *span)
                remove, new = changes(known, merged(known, ledger_rows(ticks.trades, ticks.origin)))
                store.replace_trades(about.symbol, remove, new)
                add = len(new)
            counts = len(ticks.trades), len(ticks.quotes)
            entry = LoadedObject(about.key, about.etag, about.symbol, *counts, *span, ticks.origin)
            store.note(entry, affected_hours(*span))
        return add

    def _refresh(self, store: HistoryStore, symbol: str, hour_us: int, loaded: Loaded) -> None:
        """Recompute an hour's bars and feature rows."""
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
                # Without its quotes the hour's new rows would be worse than the stored ones.
                loaded.problems.append(f"rows of {symbol}'s hour {hour_us} stay as they are: {error}")
                return
            trades = store.trades_by_time(symbol, from_us, to_us)
            grids_us = self._settings.grid_ms * 1000, self._settings.quoted_grid_ms * 1000
            hour = rows_of_hour(as_trades(trades), quotes, NO_QUOTES, hour_us, *grids_us)
            ends_us = hour.bars.columns["end_us"], hour.rows.end_us
            origins = _newest_origins(
                np.concatenate([trades["time_us"], quotes["time_us"]]),
                np.concatenate([trades["origin"], quote_origins]),
                np.concatenate(ends_us),
            )
            store.replace_hour(symbol, hour_us, hour, *np.split(origins, [len(ends_us[0])]))
        loaded.hours += 1
        loaded.bars += len(hour.bars.has_quotes)
        loaded.feature_rows += len(hour.rows.end_us)

    def _quotes(self, store: HistoryStore, symbol: str, from_us: int, to_us: int) -> tuple[Quotes, Origins]:
        """The quotes of [from_us, to_us) in loaded objects, with their origins."""
        quotes, origins = [np.empty(0, QUOTE)], [np.empty(0, np.int16)]
        for entry in store.objects_with_quotes(symbol, from_us, to_us):
            found = self._cache.get(entry.key, entry.etag)
            if found is None:
                data = fetch(self._s3, self._bucket, entry.key, entry.etag)
                found = ticks_of(data, object_at(entry.key, entry.etag))
                self._cache.put(entry.key, entry.etag, found)
            times_us = found.quotes["time_us"]
            quotes.append(found.quotes[(times_us >= from_us) & (times_us < to_us)])
            origins.append(np.full(len(quotes[-1]), found.origin, np.int16))
        return np.concatenate(quotes), np.concatenate(origins)


class _QuoteCache:
    """The quotes of the objects read last, at most `_CACHED_QUOTES`."""

    def __init__(self) -> None:
        self._quotes: OrderedDict[tuple[str, str], ObjectTicks] = OrderedDict()

    def put(self, key: str, etag: str, ticks: ObjectTicks) -> None:
        if len(ticks.quotes):
            self._quotes[key, etag] = ticks._replace(trades=ticks.trades[:0].copy())
            while sum(len(kept.quotes) for kept in self._quotes.values()) > _CACHED_QUOTES:
                self._quotes.popitem(last=False)

    def get(self, key: str, etag: str) -> ObjectTicks | None:
        return self._quotes.get((key, etag))


def _newest_origins(times_us: Times, origins: Origins, ends_us: Times) -> Origins:
    """The origin of the newest tick before each of `ends_us`, which must exist; of ticks at the same time the
    least preferred one. Shape (ends_us,)."""
    if not len(ends_us):
        return np.empty(0, np.int16)
    order = np.lexsort((origins, times_us))
    return np.asarray(origins[order][np.searchsorted(times_us[order], ends_us) - 1])


def _request(event: dict[str, Any]) -> LoadRequest:
    """Raises `RequestError`."""
    window = event.get("window")
    try:
        request = msgspec.convert(event, LoadRequest)
    except msgspec.ValidationError as error:
        raise RequestError(
            f"the window is {window!r}; a request should be like {_EXAMPLE}: {error}"
        ) from None
    from_us, to_us = request.window.from_us, request.window.to_us
    if from_us >= to_us:
        raise RequestError(f"the window is {window!r}; it should end after it begins")
    if to_us - from_us > _MOST_US:
        raise RequestError(f"the window is {window!r}; it should span at most {_MOST_US // DAY_US} days")
    return request

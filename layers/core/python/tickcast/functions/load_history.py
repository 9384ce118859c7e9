"""Bronze into PostgreSQL, hour by hour: trades, one-second bars and labelled feature rows.

What is derived of an hour is a function of the objects that reach into it and of the definition of features
and labels. `tickcast.hours` says from which objects it was derived; where bronze has another one, or the
definition is another, the hour is derived again from all of them, in one transaction. So a load that is
killed anywhere and repeated ends in the same tables, objects may come in any order, and whatever was missed
is found by a comparison (`list_stale_hours`). The newest hours come first.

A tick that is impossible, or contradicts others, goes to quarantine by itself; so does an object that cannot
be read. Neither blocks the rest.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from tickcast.adapters.lake import hour_inputs
from tickcast.adapters.lake.bronze import BronzeError
from tickcast.adapters.lake.bronze_reader import (
    BronzeObject,
    ObjectGone,
    ObjectTicks,
    fetch,
    object_at,
    ticks_of,
)
from tickcast.adapters.lake.quarantine import quarantine_object, quarantine_ticks
from tickcast.adapters.postgres.history_store import HistoryStore, HourRecord, Origins, day_of
from tickcast.adapters.settings import MAX_DAYS, HistorySettings
from tickcast.functions.request import RequestError
from tickcast.market.ticks import NO_QUOTES, TRADE, Quotes
from tickcast.market.trade_ledger import LEDGER_ROW, LedgerRows, as_trades, changes, ledger_rows, settled
from tickcast.model.dataset import AFTER_US, BEFORE_US, HourRows, affected_hours, rows_of_hour
from tickcast.units import DAY_US, HOUR_US

SERVICE = "load_history"
_MOST_US = (MAX_DAYS + 10) * DAY_US  # of a request: the longest plan, and the hours around it
_ENOUGH_MS = 240_000  # the longest that an hour takes, with a margin
_FETCHED_AT_ONCE = 8
_CACHED_TICKS = 500_000  # 32 MB: what the next hour needs of this one's objects
_REFUSED_SIZE = 10  # of a refused tick, which is a dictionary, in ticks of an array
_EXAMPLE = '{"window": {"symbol": "BTCUSDT", "from_us": 1754006400000000, "to_us": 1754010000000000}}'

Times = npt.NDArray[np.int64]


class LoadWindow(msgspec.Struct):
    """The hours that the time from `from_us` to `to_us`, µs, reaches into."""

    symbol: Annotated[str, msgspec.Meta(min_length=1)]
    from_us: Annotated[int, msgspec.Meta(ge=0)]
    to_us: int


class ObjectVersion(msgspec.Struct):
    """An object of bronze, as it was written."""

    key: str
    etag: str


class LoadRequest(msgspec.Struct):
    window: LoadWindow
    # What hours are derived from, instead of all that bronze has: then the hours of these alone are derived.
    keys: list[ObjectVersion] | None = None


class Loaded(msgspec.Struct):
    """The result of a load. `complete` is False when time ran out: the same request then continues it."""

    objects: int = 0
    trades: int = 0  # ticks read, known or not
    quotes: int = 0  # with reference quotes
    added: int = 0  # new or changed rows of trades
    hours: int = 0
    bars: int = 0
    feature_rows: int = 0
    skipped: int = 0  # hours that were derived from the same before
    expired: int = 0  # hours older than the retention
    quarantined: list[str] = []  # reasons
    problems: list[str] = []
    complete: bool = True


class _Hour(NamedTuple):
    """All that one hour is derived from."""

    symbol: str
    hour_us: int
    objects: list[BronzeObject]
    inputs: hour_inputs.Inputs

    @property
    def span_us(self) -> tuple[int, int]:
        """The time that its rows depend on, the end excluded."""
        return self.hour_us - BEFORE_US, self.hour_us + HOUR_US + AFTER_US


class _Ticks(NamedTuple):
    """The ticks of an hour, each trade id once; origins are of each quote."""

    trades: LedgerRows
    quotes: Quotes
    quote_origins: Origins
    reference: Quotes
    quarantined: int


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
        self._cache = _TickCache()

    def __call__(self, event: dict[str, Any], remaining_ms: Callable[[], float]) -> Loaded:
        """Derive what `event`, a `LoadRequest`, names and is out of date.

        Raises `RequestError`, and what S3 and PostgreSQL raise: then it can be repeated. An error of one hour
        is raised after the others are derived, so that it never blocks older ones.
        """
        request = _request(event)
        store, loaded, is_begun, failed = self._open_store(), Loaded(), False, None
        hours = affected_hours(request.window.from_us, request.window.to_us - 1)
        inputs = self._inputs(request, hours)
        derived = store.derived(request.window.symbol, hours.start, hours.stop)
        trades_from_us = max(self._cutoff_us(self._settings.trades_keep_days), hours.start)
        lacking = store.without_trades(request.window.symbol, trades_from_us, hours.stop)
        for hour_us in sorted(inputs, reverse=True):
            if hour_us < self._cutoff_us(self._settings.keep_days):
                loaded.expired += 1
                continue
            hour = _Hour(request.window.symbol, hour_us, inputs[hour_us], self._digests(inputs[hour_us]))
            if not is_stale(hour.inputs, derived.get(hour_us), hour_us in lacking):
                loaded.skipped += 1
            elif remaining_ms() < _ENOUGH_MS and is_begun:
                loaded.complete = False
                break
            else:
                is_begun = True  # one at least: a call that did nothing would be repeated indefinitely
                try:
                    self._derive(store, hour, derived.get(hour_us), loaded)
                except Exception as error:
                    if store.connection.closed:
                        raise
                    failed = failed or error
        if self._settings.keep_days > 0 or self._settings.trades_keep_days > 0:
            store.expire(*map(self._cutoff_us, (self._settings.keep_days, self._settings.trades_keep_days)))
        if failed:
            raise failed
        return loaded

    def _inputs(self, request: LoadRequest, hours: range) -> dict[int, list[BronzeObject]]:
        symbol = request.window.symbol
        if request.keys is None:
            sources = hour_inputs.sources_of(self._s3, self._bucket)
            return hour_inputs.hour_inputs(self._s3, self._bucket, symbol, hours, sources)
        objects = [object_at(version.key, version.etag) for version in request.keys]
        for about in objects:
            if about.symbol != symbol:
                raise RequestError(f"{about.key} is not of {symbol}")
        return hour_inputs.by_hour(objects, hours)

    def _digests(self, objects: list[BronzeObject]) -> hour_inputs.Inputs:
        return hour_inputs.digests(objects, *self._settings.grids_ms)

    def _cutoff_us(self, keep_days: int) -> int:
        return max(day_of(self._now_us()) - keep_days * DAY_US, 0) if keep_days else 0

    def _derive(self, store: HistoryStore, hour: _Hour, before: HourRecord | None, loaded: Loaded) -> None:
        """Derive an hour from its objects, and replace what is stored of it."""
        try:
            ticks = self._ticks(hour, loaded)
        except ObjectGone as error:
            loaded.problems.append(f"{hour.symbol}'s hour {hour.hour_us} stays as it is: {error}")
            return
        if before and hour_inputs.unpacked(before.inputs) - hour.inputs and _is_less(hour, ticks, before):
            # Bronze has deleted some: the new rows would be worse than those there are.
            self._keep(store, hour, ticks, before, loaded)
            return
        grids_us = [grid_ms * 1000 for grid_ms in self._settings.grids_ms]
        rows = rows_of_hour(as_trades(ticks.trades), ticks.quotes, ticks.reference, hour.hour_us, *grids_us)
        record = HourRecord(
            hour_inputs.packed(hour.inputs),
            _count_in(ticks.trades, hour.hour_us),
            len(ticks.quotes),
            len(rows.bars.has_quotes),
            len(rows.rows.end_us),
            ticks.quarantined,
        )
        self._store(store, hour, ticks, rows, record, before, loaded)

    def _keep(
        self, store: HistoryStore, hour: _Hour, ticks: _Ticks, before: HourRecord, loaded: Loaded
    ) -> None:
        """Note that an hour stays as it is, whatever bronze has of it now."""
        left = f"{len(ticks.quotes)} quotes and {_count_in(ticks.trades, hour.hour_us)} trades"
        loaded.problems.append(
            f"rows of {hour.symbol}'s hour {hour.hour_us} stay as they are: of {before.quotes} quotes and "
            f"{before.trades} trades bronze has {left} left"
        )
        inputs = hour_inputs.packed(hour_inputs.unpacked(before.inputs) | hour.inputs)
        with store.connection.transaction():
            store.lock(hour.symbol, [day_of(hour.hour_us)])
            if store.derived(hour.symbol, hour.hour_us, hour.hour_us + 1).get(hour.hour_us) == before:
                store.record(hour.symbol, hour.hour_us, before._replace(inputs=inputs))

    def _store(
        self,
        store: HistoryStore,
        hour: _Hour,
        ticks: _Ticks,
        rows: HourRows,
        record: HourRecord,
        before: HourRecord | None,
        loaded: Loaded,
    ) -> None:
        ends_us = rows.bars.columns["end_us"], rows.rows.end_us
        origins = _newest_origins(
            np.concatenate([ticks.trades["time_us"], ticks.quotes["time_us"]]),
            np.concatenate([ticks.trades["origin"], ticks.quote_origins]),
            np.concatenate(ends_us),
        )
        symbol, hour_us = hour.symbol, hour.hour_us
        store.add_days([day_of(hour_us)])
        with store.connection.transaction():
            store.lock(symbol, [day_of(hour_us)])
            if store.derived(symbol, hour_us, hour_us + 1).get(hour_us) != before:
                return  # another load was faster: whether it had all of this will be seen by the next
            if hour_us >= self._cutoff_us(self._settings.trades_keep_days):
                known = store.trades_by_time(symbol, hour_us, hour_us + HOUR_US)
                remove, add = changes(known, ticks.trades[_is_in(ticks.trades, hour_us)])
                store.replace_trades(symbol, remove, add)
                loaded.added += len(add)
            store.replace_hour(symbol, hour_us, rows, *np.split(origins, [len(ends_us[0])]))
            store.record(symbol, hour_us, record)
        loaded.hours += 1
        loaded.bars += record.bars
        loaded.feature_rows += record.feature_rows

    def _ticks(self, hour: _Hour, loaded: Loaded) -> _Ticks:
        """The ticks of the objects of an hour, those that it depends on. Raises `ObjectGone`.

        The objects of the hour before come last: they are still cached when that is derived."""
        from_us, to_us = hour.span_us
        quarantined = len(loaded.quarantined)
        ledger, quotes, reference = [np.empty(0, LEDGER_ROW)], [NO_QUOTES], [NO_QUOTES]
        quote_origins = [np.empty(0, np.int16)]
        objects = sorted(hour.objects, key=lambda about: (-about.hour_us, about.key))
        for about, data in self._fetched(objects):
            found = self._read(about, data, loaded if about.hour_us == hour.hour_us else Loaded())
            ledger.append(ledger_rows(_within(found.trades, from_us, to_us), found.origin))
            quotes.append(_within(found.quotes, from_us, to_us))
            reference.append(_within(found.reference, from_us, to_us))
            quote_origins.append(np.full(len(quotes[-1]), found.origin, np.int16))
        rows, refused = settled(np.concatenate(ledger))
        self._quarantine_rows(hour, refused[_is_in(refused, hour.hour_us)], loaded)
        return _Ticks(
            rows,
            np.concatenate(quotes),
            np.concatenate(quote_origins),
            np.concatenate(reference),
            len(loaded.quarantined) - quarantined,
        )

    def _fetched(self, objects: Iterable[BronzeObject]) -> Iterator[tuple[BronzeObject, bytes | ObjectTicks]]:
        """Each of `objects` with its bytes, or its ticks where they are cached. A few are fetched at once:
        waiting takes many times as long as reading a small object. Raises `ObjectGone`."""

        def found(about: BronzeObject) -> bytes | ObjectTicks:
            cached = self._cache.get(about)
            return fetch(self._s3, self._bucket, about.key, about.etag) if cached is None else cached

        remaining = iter(objects)
        with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
            while some := list(itertools.islice(remaining, _FETCHED_AT_ONCE)):
                yield from zip(some, pool.map(found, some), strict=True)

    def _read(self, about: BronzeObject, data: bytes | ObjectTicks, loaded: Loaded) -> ObjectTicks:
        """The possible ticks of an object, counted in `loaded`; the others go to quarantine."""
        if isinstance(data, ObjectTicks):
            ticks = data
        else:
            try:
                ticks = ticks_of(data, about)
            except BronzeError as error:
                quarantine_object(self._s3, self._bucket, SERVICE, about.key, about.etag, data, str(error))
                loaded.quarantined.append(str(error))
                ticks = ObjectTicks(np.empty(0, TRADE), NO_QUOTES, about.source.origin)
            else:
                self._cache.put(about, ticks)
        if ticks.refused:
            reason = "; ".join(each.why for each in ticks.refused)
            rows = [row for each in ticks.refused for row in each.rows]
            quarantine_ticks(self._s3, self._bucket, SERVICE, f"{about.key}/{about.etag}", rows, reason)
            loaded.quarantined.append(reason)
        loaded.objects += 1
        loaded.trades += len(ticks.trades)
        loaded.quotes += len(ticks.quotes) + len(ticks.reference)
        return ticks

    def _quarantine_rows(self, hour: _Hour, rows: LedgerRows, loaded: Loaded) -> None:
        if not len(rows):
            return
        names = LEDGER_ROW.names or ()
        reason = (
            f"{hour.symbol}'s hour {hour.hour_us}: {len(rows)} aggregates contradict other trades, the first "
            f"of ids {rows['aggregate_first_id'][0]}..{rows['aggregate_last_id'][0]}"
        )
        listed = [dict(zip(names, row, strict=True)) for row in rows.tolist()]
        name = f"{hour.symbol}/{hour.hour_us}"
        quarantine_ticks(self._s3, self._bucket, SERVICE, name, listed, reason)
        loaded.quarantined.append(reason)


def is_stale(inputs: hour_inputs.Inputs, derived: HourRecord | None, lacks_trades: bool = False) -> bool:
    """Whether an hour with these inputs has to be derived: never was by this definition, or from others, or
    its trades are to be kept and none is stored. What bronze has deleted since makes it no staler."""
    if derived is None:
        return True
    known = hour_inputs.unpacked(derived.inputs)
    return bool(inputs - known) or (lacks_trades and known <= inputs)


class _TickCache:
    """The ticks of the objects read last, at most `_CACHED_TICKS`."""

    def __init__(self) -> None:
        self._ticks: OrderedDict[tuple[str, str], ObjectTicks] = OrderedDict()
        self._count = 0  # of ticks

    def put(self, about: BronzeObject, ticks: ObjectTicks) -> None:
        """Keep the ticks of an object that is not there."""
        self._ticks[about.key, about.etag] = ticks
        self._count += _size(ticks)
        while self._count > _CACHED_TICKS:
            _, oldest = self._ticks.popitem(last=False)
            self._count -= _size(oldest)

    def get(self, about: BronzeObject) -> ObjectTicks | None:
        return self._ticks.get((about.key, about.etag))


def _is_less(hour: _Hour, ticks: _Ticks, before: HourRecord) -> bool:
    """Whether an hour has fewer ticks than it was derived from; of trades less than half, for one that comes
    singly or as an aggregate may be more rows or fewer."""
    return len(ticks.quotes) < before.quotes or 2 * _count_in(ticks.trades, hour.hour_us) < before.trades


def _size(ticks: ObjectTicks) -> int:
    refused = sum(len(each.rows) for each in ticks.refused)
    return len(ticks.trades) + len(ticks.quotes) + len(ticks.reference) + _REFUSED_SIZE * refused


def _within(ticks: npt.NDArray[Any], from_us: int, to_us: int) -> npt.NDArray[Any]:
    is_within = (ticks["time_us"] >= from_us) & (ticks["time_us"] < to_us)
    return ticks if is_within.all() else ticks[is_within]


def _is_in(rows: LedgerRows, hour_us: int) -> npt.NDArray[np.bool_]:
    return np.asarray((rows["time_us"] >= hour_us) & (rows["time_us"] < hour_us + HOUR_US))


def _count_in(rows: LedgerRows, hour_us: int) -> int:
    return int(_is_in(rows, hour_us).sum())


def _newest_origins(times_us: Times, origins: Origins, ends_us: Times) -> Origins:
    """The origin of the newest tick before each of `ends_us`, which must exist; of ticks at the same time the
    least preferred one. Shape (ends_us,)."""
    if not len(ends_us):
        return np.empty(0, np.int16)
    if (origins == origins[0]).all():
        return np.full(len(ends_us), origins[0], np.int16)
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

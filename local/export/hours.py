"""What bronze and the archive of receipts have of one hour of a market, as columns of the exported tables.

Bars and feature rows are derived from bronze by the code that fills PostgreSQL (`model.dataset`), so that an
export needs nothing but the bucket. A damaged object or an impossible tick is left out and reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from local.export.tables import (
    BARS,
    FEATURE_ROWS,
    MOVE_COLUMNS,
    OUTCOMES,
    QUOTES,
    RECEIPTS,
    REFERENCE_QUOTES,
    TRADES,
    Table,
)
from tickcast.adapters.lake.bronze import BronzeError
from tickcast.adapters.lake.bronze_reader import BronzeObject, ObjectGone, ObjectTicks, fetch, ticks_of
from tickcast.features.vector import FEATURE_NAMES
from tickcast.market.sources import Origin
from tickcast.market.sums import integers
from tickcast.market.ticks import NO_QUOTES, SCALE, Quotes
from tickcast.market.trade_ledger import LEDGER_ROW, LedgerRows, as_trades, ledger_rows, settled
from tickcast.model.dataset import AFTER_US, BEFORE_US, HourRows, rows_of_hour
from tickcast.serving.records import Outcome, Prediction
from tickcast.units import HOUR_US

_FETCHED_AT_ONCE = 8
_SIDES = ("sell", "buy")
_ORIGINS = tuple(origin.label for origin in Origin)

Flags = npt.NDArray[np.bool_]


class Coded(NamedTuple):
    """A column of text: which of `labels` each row has."""

    labels: Sequence[str]
    codes: npt.NDArray[Any]


class Masked(NamedTuple):
    """A column of numbers, null where `is_null`."""

    values: npt.NDArray[Any]
    is_null: Flags


# A text is the same in all rows; records are Python's values.
Column = str | Coded | Masked | npt.NDArray[Any] | list[Any]
Columns = dict[str, Column]


class HourTicks(NamedTuple):
    """The ticks that an hour's rows depend on: each trade id once, each quote once in the order of time."""

    trades: LedgerRows
    quotes: Quotes
    quote_origins: npt.NDArray[np.int64]
    reference: Quotes
    reference_origins: npt.NDArray[np.int64]


class TickReader:
    """Reads the objects of hours in their order. `problems` says what was left out, each once."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._cache: dict[BronzeObject, ObjectTicks] = {}
        self.problems: list[str] = []

    def __call__(
        self, hour_us: int, objects: Sequence[BronzeObject], kept: Iterable[BronzeObject] = ()
    ) -> HourTicks:
        """The ticks of an hour's `objects`. Those that are also among `kept`, the next hour's, are not
        fetched again then. Raises what S3 raises."""
        from_us, to_us = hour_us - BEFORE_US, hour_us + HOUR_US + AFTER_US
        with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
            fetched = list(pool.map(self._bytes, objects))
        ledger, spot, perpetual = [np.empty(0, LEDGER_ROW)], [_tagged(NO_QUOTES, 0)], [_tagged(NO_QUOTES, 0)]
        still_needed, cache = set(kept), {}
        for about, data in zip(objects, fetched, strict=True):
            ticks = self._cache.get(about) or self._read(about, data)
            if about in still_needed:
                cache[about] = ticks
            ledger.append(ledger_rows(_within(ticks.trades, from_us, to_us), ticks.origin))
            spot.append(_tagged(_within(ticks.quotes, from_us, to_us), ticks.origin))
            perpetual.append(_tagged(_within(ticks.reference, from_us, to_us), ticks.origin))
        self._cache = cache
        rows, refused = settled(np.concatenate(ledger))
        of_hour = refused[_is_in(refused["time_us"], hour_us, hour_us + HOUR_US)]
        if len(of_hour):
            self.problems.append(f"{len(of_hour)} aggregates of the hour {hour_us} contradict other trades")
        return HourTicks(rows, *_each_once(spot), *_each_once(perpetual))

    def _bytes(self, about: BronzeObject) -> bytes | None:
        """The bytes of an object; None where its ticks are cached, or it was deleted since it was listed."""
        if about in self._cache:
            return None
        try:
            return fetch(self._s3, self._bucket, about.key, about.etag)
        except ObjectGone:
            return None

    def _read(self, about: BronzeObject, data: bytes | None) -> ObjectTicks:
        nothing = ObjectTicks(as_trades(np.empty(0, LEDGER_ROW)), NO_QUOTES, about.source.origin)
        if data is None:
            self._report(f"{about.key} was deleted or overwritten meanwhile: export again")
            return nothing
        try:
            ticks = ticks_of(data, about)
        except BronzeError as error:
            self._report(str(error))
            return nothing
        for refused in ticks.refused:
            self._report(refused.why)
        return ticks

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def market_columns(
    symbol: str, hour_us: int, span_us: tuple[int, int], ticks: HourTicks, grids_us: tuple[int, int]
) -> dict[Table, Columns]:
    """Ticks, bars and feature rows of the part of an hour that lies in `span_us`, its end excluded.
    `grids_us`: a feature row every so often, without quotes and with."""
    from_us, to_us = max(span_us[0], hour_us), min(span_us[1], hour_us + HOUR_US)
    trades = ticks.trades[_is_in(ticks.trades["time_us"], from_us, to_us)]
    derived = rows_of_hour(as_trades(ticks.trades), ticks.quotes, ticks.reference, hour_us, *grids_us)
    return {
        TRADES: _trade_columns(symbol, trades[np.lexsort([trades["first_id"], trades["time_us"]])]),
        QUOTES: _quote_columns(symbol, ticks.quotes, ticks.quote_origins, from_us, to_us),
        REFERENCE_QUOTES: _quote_columns(symbol, ticks.reference, ticks.reference_origins, from_us, to_us),
        BARS: _bar_columns(symbol, derived, from_us, to_us),
        FEATURE_ROWS: _feature_columns(symbol, derived, from_us, to_us),
    }


def record_columns(
    receipts: Iterable[Prediction], outcomes: Iterable[Outcome], from_ms: int, to_ms: int
) -> dict[Table, Columns]:
    """Receipts of predictions as of [`from_ms`, `to_ms`) and outcomes of targets in it, each once, in the
    order of time."""
    made = {each.id: each for each in receipts if from_ms <= each.timestamp < to_ms}
    known = {(each.id, each.horizon_s): each for each in outcomes if from_ms <= each.target_time < to_ms}
    return {
        RECEIPTS: _columns_of(Prediction, sorted(made.values(), key=lambda each: each.timestamp)),
        OUTCOMES: _columns_of(
            Outcome, sorted(known.values(), key=lambda each: (each.target_time, each.horizon_s))
        ),
    }


def _trade_columns(symbol: str, rows: LedgerRows) -> Columns:
    return {
        "symbol": symbol,
        **{name: rows[name] for name in ("time_us", "first_id", "last_id", "trades")},
        "price": rows["price"] / SCALE,
        "qty": rows["qty"] / SCALE,
        "side": Coded(_SIDES, (rows["side"] > 0).astype(np.int64)),
        "origin": Coded(_ORIGINS, rows["origin"].astype(np.int64)),
    }


def _quote_columns(
    symbol: str, quotes: Quotes, origins: npt.NDArray[np.int64], from_us: int, to_us: int
) -> Columns:
    inside = _is_in(quotes["time_us"], from_us, to_us)
    quotes = quotes[inside]
    return {
        "symbol": symbol,
        **{name: quotes[name] for name in ("time_us", "receive_time_us", "update_id")},
        **_book(quotes),
        "origin": Coded(_ORIGINS, origins[inside]),
    }


def _bar_columns(symbol: str, derived: HourRows, from_us: int, to_us: int) -> Columns:
    inside = _is_in(derived.bars.columns["end_us"], from_us, to_us)
    bars = {name: values[inside] for name, values in derived.bars.columns.items()}
    has_quotes = derived.bars.has_quotes[inside]
    never_traded = bars["last_trade_price"] == 0
    return {
        "symbol": symbol,
        "end_us": bars["end_us"],
        "has_quotes": has_quotes,
        "trade_count": bars["trade_count"],
        "buy_qty": _sums(bars["buy_qty"], SCALE),
        "sell_qty": _sums(bars["sell_qty"], SCALE),
        "notional": _sums(bars["notional"], SCALE**2),
        "quote_count": bars["quote_count"],
        "last_trade_id": Masked(bars["last_trade_id"], never_traded),
        "last_trade_price": Masked(bars["last_trade_price"] / SCALE, never_traded),
        "update_id": Masked(bars["update_id"], bars["update_id"] == 0),
        **_book(bars),
    }


def _feature_columns(symbol: str, derived: HourRows, from_us: int, to_us: int) -> Columns:
    inside = _is_in(derived.rows.end_us, from_us, to_us)
    rows, last_trade_bp = derived.rows.chosen(inside), derived.last_trade_bp[inside]
    features = rows.features.T.astype(np.float32)
    moves = rows.moves_bp.T.astype(np.float32)
    return {
        "symbol": symbol,
        "end_us": rows.end_us,
        **dict(zip(FEATURE_NAMES, features, strict=True)),
        **dict(zip(MOVE_COLUMNS, moves, strict=True)),
        "last_trade_bp": Masked(last_trade_bp.astype(np.float32), np.isnan(last_trade_bp)),
    }


def _columns_of(kind: type[Struct], records: Sequence[Struct]) -> Columns:
    return {name: [_plain(getattr(each, name)) for each in records] for name in kind.__struct_fields__}


def _plain(value: Any) -> Any:
    """Python's values of a record: a struct as a dictionary, a dictionary as pairs."""
    if isinstance(value, Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return [(key, _plain(each)) for key, each in value.items()]
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


def _book(rows: Mapping[str, npt.NDArray[Any]] | Quotes) -> Columns:
    """Both sides of the book, null where one is empty."""
    names = ("bid_price", "bid_qty", "ask_price", "ask_qty")
    return {name: Masked(rows[name] / SCALE, rows[name] == 0) for name in names}


def _sums(limbs: npt.NDArray[np.int64], scale: int) -> npt.NDArray[np.float64]:
    """The values of sums in limbs, (rows, limbs), correctly rounded. Shape (rows,)."""
    return np.array([value / scale for value in integers(limbs.T)], float)


_TAGGED = np.dtype([("quote", NO_QUOTES.dtype), ("origin", "<i8")])


def _tagged(quotes: Quotes, origin: int) -> npt.NDArray[Any]:
    """`quotes` with their origin."""
    rows = np.empty(len(quotes), _TAGGED)
    rows["quote"], rows["origin"] = quotes, origin
    return rows


def _each_once(parts: Sequence[npt.NDArray[Any]]) -> tuple[Quotes, npt.NDArray[np.int64]]:
    """Each quote once, as it was received first, in the order of time; and their origins. Ids alone do not
    tell quotes apart, since the exchange may start them over."""
    rows = np.concatenate(list(parts))
    quotes = rows["quote"]
    rows = rows[np.lexsort([quotes["receive_time_us"], quotes["update_id"], quotes["time_us"]])]
    quotes, is_new = rows["quote"], np.ones(len(rows), bool)
    same_time, same_id = (quotes[name][1:] == quotes[name][:-1] for name in ("time_us", "update_id"))
    is_new[1:] = ~(same_time & same_id)
    return np.ascontiguousarray(quotes[is_new]), rows["origin"][is_new]


def _within(rows: npt.NDArray[Any], from_us: int, to_us: int) -> npt.NDArray[Any]:
    return rows[_is_in(rows["time_us"], from_us, to_us)]


def _is_in(times_us: npt.NDArray[np.int64], from_us: int, to_us: int) -> Flags:
    return np.asarray((times_us >= from_us) & (times_us < to_us))

"""Bronze: every tick, as the MarketData contract, in Avro container files on S3.

The first seven fields are the contract; the others are optional with a default. A value that an event does
not carry is NaN (null for whole numbers), never carried forward from another event: a trade has no bid. An
empty side of the book is NaN as well. Reference quotes have a source of their own, and so folders.

A double cannot represent every 64-bit price or quantity at 1e-8: from about 20 million units on, the last
digits may be lost. Then `mantissas` has the exact integers; otherwise it is null, for they can be computed
from the doubles. A double that was edited overrides its integer.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import fastavro
import numpy as np

from tickcast.market.sources import Source
from tickcast.market.ticks import QUOTE, SCALE, TRADE, Quotes, Trades
from tickcast.market.wire import TickBatch

CODEC = "deflate"
_OPTIONAL_LONG = ["null", "long"]
# Its default is null, for a schema is JSON, which has no NaN (RFC 8259). A double is always written, so that
# readers with the older schema, where this was not a union, can read it.
_OPTIONAL_DOUBLE = ["null", "double"]
_EXACT_BELOW = 2**50  # there a double divided and multiplied by 10^8 is off by less than half a unit
_REFERENCES = frozenset(source.value for source in Source if source.is_reference)
_OF_TRADE = ("price", "volume")
_OF_QUOTE = ("bid_price", "bid_qty", "ask_price", "ask_qty")
MARKET_DATA = fastavro.parse_schema(
    {
        "type": "record",
        "name": "MarketData",
        "namespace": "tickcast",
        "fields": [
            {"name": "symbol", "type": "string"},
            {"name": "timestamp", "type": "long", "doc": "µs since the epoch, the exchange's clock"},
            {"name": "price", "type": "double", "doc": "of a trade; NaN on a quote"},
            {"name": "volume", "type": "double", "doc": "base quantity of a trade; NaN on a quote"},
            {"name": "bid_price", "type": "double", "doc": "of a quote; NaN on a trade"},
            {"name": "ask_price", "type": "double", "doc": "of a quote; NaN on a trade"},
            {"name": "source", "type": "string", "doc": f"one of {', '.join(Source)}"},
            {"name": "kind", "type": "string", "default": "trade", "doc": "trade or quote"},
            {"name": "bid_qty", "type": _OPTIONAL_DOUBLE, "default": None, "doc": "NaN on a trade"},
            {"name": "ask_qty", "type": _OPTIONAL_DOUBLE, "default": None, "doc": "NaN on a trade"},
            {"name": "first_trade_id", "type": _OPTIONAL_LONG, "default": None},
            {"name": "last_trade_id", "type": _OPTIONAL_LONG, "default": None},
            {"name": "update_id", "type": _OPTIONAL_LONG, "default": None},
            {"name": "aggressor", "type": "string", "default": "", "doc": "buy or sell; empty on a quote"},
            {"name": "receive_time", "type": _OPTIONAL_LONG, "default": None, "doc": "µs, ingest's clock"},
            {
                "name": "mantissas",
                "type": ["null", {"type": "array", "items": "long"}],
                "default": None,
                "doc": f"at 1e-8, of a trade {', '.join(_OF_TRADE)}, of a quote {', '.join(_OF_QUOTE)}; "
                "null where the doubles give them back",
            },
        ],
    }
)


# What fastavro raises on bytes that are not Avro, or Avro of another schema.
_UNREADABLE = (
    *(ValueError, TypeError, AttributeError, LookupError, EOFError, OverflowError, RecursionError),
    *(zlib.error, struct.error),
    *(fastavro.schema.SchemaParseException, fastavro.read.SchemaResolutionError),
)


class BronzeError(ValueError):
    """An object that is not a whole Avro file of MarketData; the message names the object."""


class StreamPart(NamedTuple):
    """An object that the archive wrote, by its name: the records of the stream that its ticks came in (from
    the first to the last of the event, of which some may have had other ticks only), and the span of the
    ticks."""

    key: str
    shard_id: str
    first_sequence: int
    last_sequence: int
    from_us: int
    to_us: int


_PART = re.compile(r"/([^/]+?)-(\d+)-(\d+)-(\d+)-(\d+)\.avro$")


def stream_part_key(folder: str, shard_id: str, sequences: tuple[str, str], span_us: tuple[int, int]) -> str:
    """The key of an archived object. Keys sort by shard, then in the order of the stream."""
    return f"{folder}{shard_id}-{'-'.join(sequences)}-{span_us[0]}-{span_us[1]}.avro"


def stream_part(key: str) -> StreamPart | None:
    """The part of the stream in the object `key`; None for an object of another kind, such as history."""
    if found := _PART.search(key):
        shard_id, *numbers = found.groups()
        return StreamPart(key, shard_id, *map(int, numbers))
    return None


def prefix(source: str, symbol: str, hour_us: int) -> str:
    """The folder of the ticks of the hour of `hour_us`."""
    hour = datetime.fromtimestamp(hour_us / 1e6, UTC)
    return f"bronze/source={source}/symbol={symbol}/date={hour:%Y-%m-%d}/hour={hour:%H}/"


def windows_prefix(symbol: str) -> str:
    """The folder of the markers of fetched windows."""
    return f"bronze/source={Source.REST}/symbol={symbol}/windows/"


def window_key(symbol: str, from_us: int, to_us: int) -> str:
    """The marker of a window of history: it is written last, so a window that has one is complete."""
    return f"{windows_prefix(symbol)}{from_us}-{to_us}.json"


def progress_key(symbol: str, from_us: int) -> str:
    """How much is kept of a window that begins at `from_us`, whichever its end."""
    return f"bronze/source={Source.REST}/symbol={symbol}/progress/{from_us}.json"


def window_in(key: str) -> tuple[int, int]:
    """The times in the key of a marker. Raises ValueError for any other key."""
    name = key.rpartition("/")[2]
    from_us, to_us = name.removesuffix(".json").split("-")
    return int(from_us), int(to_us)


def market_data(batch: TickBatch) -> Iterator[dict[str, Any]]:
    """The MarketData records of `batch`: its trades, its quotes, then its reference quotes. Raises ValueError
    where these come with a source that has none."""
    for time_us, receive_time_us, first_id, last_id, price, qty, side in batch.trades.tolist():
        yield {
            "symbol": batch.symbol,
            "timestamp": time_us,
            "price": price / SCALE,
            "volume": qty / SCALE,
            "bid_price": math.nan,
            "ask_price": math.nan,
            "bid_qty": math.nan,
            "ask_qty": math.nan,
            "source": batch.source,
            "kind": "trade",
            "first_trade_id": first_id,
            "last_trade_id": last_id,
            "aggressor": "buy" if side > 0 else "sell",
            "receive_time": receive_time_us,
            "mantissas": _if_needed(price, qty),
        }
    yield from _quotes(batch.symbol, batch.source, batch.quotes)
    if len(batch.reference):
        yield from _quotes(batch.symbol, Source(batch.source).reference, batch.reference)


def _quotes(symbol: str, source: str, quotes: Quotes) -> Iterator[dict[str, Any]]:
    for time_us, receive_time_us, update_id, bid, bid_qty, ask, ask_qty in quotes.tolist():
        yield {
            "symbol": symbol,
            "timestamp": time_us,
            "price": math.nan,
            "volume": math.nan,
            "bid_price": _of_side(bid),
            "ask_price": _of_side(ask),
            "source": source,
            "kind": "quote",
            "bid_qty": _of_side(bid_qty),
            "ask_qty": _of_side(ask_qty),
            "update_id": update_id,
            "receive_time": receive_time_us,
            "mantissas": _if_needed(bid, bid_qty, ask, ask_qty),
        }


def ticks_from(records: Iterable[dict[str, Any]]) -> tuple[Trades, Quotes, Quotes]:
    """Trades, quotes and reference quotes of MarketData records, as exact integers."""
    trades: list[tuple[int, ...]] = []
    quotes: list[tuple[int, ...]] = []
    reference: list[tuple[int, ...]] = []
    for r in records:
        received = r["receive_time"] if r["receive_time"] is not None else r["timestamp"]
        if r["kind"] == "quote":
            rows = reference if r["source"] in _REFERENCES else quotes
            rows.append((r["timestamp"], received, r["update_id"], *_mantissas(r, _OF_QUOTE)))
        else:
            side = -1 if r["aggressor"] == "sell" else 1
            ids = (r["first_trade_id"], r["last_trade_id"])
            trades.append((r["timestamp"], received, *ids, *_mantissas(r, _OF_TRADE), side))
    return np.array(trades, TRADE), np.array(quotes, QUOTE), np.array(reference, QUOTE)


def write_file(records: Iterable[dict[str, Any]]) -> bytes:
    """An Avro container file of `records`."""
    file = io.BytesIO()
    # The sync marker is arbitrary; a fixed one makes the same records the same bytes.
    fastavro.writer(file, MARKET_DATA, records, codec=CODEC, sync_marker=b"tickcast.bronze.")
    return file.getvalue()


def read_file(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The records of an Avro container file. Raises `BronzeError` naming the file."""
    try:
        for record in fastavro.reader(io.BytesIO(data), MARKET_DATA):
            yield cast(dict[str, Any], record)
    except _UNREADABLE as error:
        raise BronzeError(f"{name} is not a whole Avro file of MarketData: {error}") from error


def _if_needed(*mantissas: int) -> list[int] | None:
    return list(mantissas) if max(mantissas) >= _EXACT_BELOW else None


def _of_side(mantissa: int) -> float:
    return mantissa / SCALE if mantissa else math.nan


def _mantissas(record: dict[str, Any], names: tuple[str, ...]) -> list[int]:
    """The exact integers of the fields `names`; 0 on an empty side of the book."""
    values = [record[name] for name in names]
    if record["kind"] == "quote":
        values = [0.0 if value is None or math.isnan(value) else value for value in values]
    exact = record["mantissas"]
    if exact is None:
        return [round(value * SCALE) for value in values]
    return [
        mantissa if mantissa / SCALE == value else round(value * SCALE)
        for mantissa, value in zip(exact, values, strict=True)
    ]

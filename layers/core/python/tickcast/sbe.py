"""Binance's SBE market-data frames (schema 1): bytes in, events out, and back.

A frame is an 8-byte header (blockLength, templateId, schemaId, version: u16 little-endian), a fixed
block, repeating groups and the symbol as a u8-prefixed string. Prices and quantities stay integers:
``value = mantissa * 10**exponent``.

The exchange may lengthen a block in a later version of the schema, so every block and every group entry is
skipped by the length *it states*; only one shorter than the fields read here is refused. A later version may
also append groups and texts: in a frame of version 1 or later whatever follows the symbol is skipped, in
version 0 it is an error.

Anything that is not a whole, known frame raises `SbeError` with the offset and the reason. Nothing is
guessed: no default time, no default price, no skipping ahead to find the next frame.

Source of the layout: Binance's ``stream_1_0.xml`` (binance-spot-api-docs, SBE schemas).

``python -m tickcast.sbe FILE…`` prints each frame of a file as one JSON object.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA_ID = 1
NULL_INT8, NULL_INT64 = -(2**7), -(2**63)  # what SBE writes for "no value"
TRADES, BEST_BID_ASK, DEPTH_SNAPSHOT, DEPTH_DIFF = 10000, 10001, 10002, 10003

_NULL_UINT8 = 255
_HEADER = struct.Struct("<HHHH")
_TRADES_BLOCK = struct.Struct("<qqbb")
_TRADES_GROUP = struct.Struct("<HI")
_TRADE = struct.Struct("<qqqB")
_BEST_BID_ASK_BLOCK = struct.Struct("<qqbbqqqq")
_DEPTH_SNAPSHOT_BLOCK = struct.Struct("<qqbb")
_DEPTH_DIFF_BLOCK = struct.Struct("<qqqbb")
_LEVELS_GROUP = struct.Struct("<HH")
_LEVEL = struct.Struct("<qq")
_BLOCKS = {
    TRADES: _TRADES_BLOCK,
    BEST_BID_ASK: _BEST_BID_ASK_BLOCK,
    DEPTH_SNAPSHOT: _DEPTH_SNAPSHOT_BLOCK,
    DEPTH_DIFF: _DEPTH_DIFF_BLOCK,
}
# Most frames are quotes with the layout of version 0, whatever version they state.
_QUOTE_START = struct.pack("<HHH", _BEST_BID_ASK_BLOCK.size, BEST_BID_ASK, SCHEMA_ID)
_QUOTE_BYTES = _HEADER.size + _BEST_BID_ASK_BLOCK.size + 1  # up to the symbol's text


class SbeError(ValueError):
    """A frame that cannot be read: `offset` in the buffer and `reason` say where and why."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"offset {offset}: {reason}")
        self.offset = offset
        self.reason = reason


class SbeTrade(NamedTuple):
    id: int
    price: int
    qty: int
    is_buyer_maker: bool


class TradesEvent(NamedTuple):
    """Stream ``<symbol>@trade``: the trades of one taker order; times in µs."""

    event_time_us: int
    transact_time_us: int
    price_exponent: int
    qty_exponent: int
    trades: tuple[SbeTrade, ...]
    symbol: str


class BestBidAskEvent(NamedTuple):
    """Stream ``<symbol>@bestBidAsk``: the top of the book; time in µs."""

    event_time_us: int
    book_update_id: int
    price_exponent: int
    qty_exponent: int
    bid_price: int
    bid_qty: int
    ask_price: int
    ask_qty: int
    symbol: str


Levels = tuple[tuple[int, int], ...]  # (price, quantity) mantissas, best first


class DepthSnapshotEvent(NamedTuple):
    """Stream ``<symbol>@depth20``: the best levels of the book; time in µs."""

    event_time_us: int
    book_update_id: int
    price_exponent: int
    qty_exponent: int
    bids: Levels
    asks: Levels
    symbol: str


class DepthDiffEvent(NamedTuple):
    """Stream ``<symbol>@depth``: changed levels, quantity 0 deletes one; time in µs."""

    event_time_us: int
    first_book_update_id: int
    last_book_update_id: int
    price_exponent: int
    qty_exponent: int
    bids: Levels
    asks: Levels
    symbol: str


Event = TradesEvent | BestBidAskEvent | DepthSnapshotEvent | DepthDiffEvent


# --------------------------------------------------------------------------------------------- decode


def decode(frame: bytes) -> Event:
    """The event in `frame`, which must hold exactly one. Raises `SbeError`."""
    if frame[:6] == _QUOTE_START and _QUOTE_BYTES < len(frame) == _QUOTE_BYTES + frame[_QUOTE_BYTES - 1]:
        # Twice as fast as the general decoder below, which gives the same event and names what is wrong.
        block = _BEST_BID_ASK_BLOCK.unpack_from(frame, _HEADER.size)
        try:
            return tuple.__new__(BestBidAskEvent, block + (frame[_QUOTE_BYTES:].decode(),))
        except UnicodeDecodeError:
            pass
    event, end = decode_from(frame, 0)
    if end != len(frame) and not _version(frame, 0):
        raise SbeError(end, f"{len(frame) - end} bytes after the end of the frame")
    return event


def decode_from(buffer: bytes, offset: int) -> tuple[Event, int]:
    """The event that starts at `offset` and the offset just past it. Raises `SbeError`."""
    if len(buffer) - offset < _HEADER.size:
        raise SbeError(offset, f"truncated header: {len(buffer) - offset} of {_HEADER.size} bytes")
    block_length, template_id, schema_id, _version = _HEADER.unpack_from(buffer, offset)
    if schema_id != SCHEMA_ID:
        raise SbeError(offset, f"unknown schema {schema_id} (this decoder reads schema {SCHEMA_ID})")
    read = _DECODERS.get(template_id)
    if read is None:
        raise SbeError(offset, f"unknown template {template_id}")
    try:
        return read(buffer, offset + _HEADER.size, block_length)
    except struct.error:
        raise SbeError(
            len(buffer), f"truncated {_NAMES[template_id]} that starts at offset {offset}"
        ) from None


def decode_all(buffer: bytes) -> Iterator[Event]:
    """Every event of a buffer of frames laid end to end. Raises `SbeError` at the first bad one.

    Frames do not state their length: behind one of a later version, the next begins with the next header.
    """
    offset = 0
    while offset < len(buffer):
        event, end = decode_from(buffer, offset)
        yield event
        offset = _next_header(buffer, end, offset) if _version(buffer, offset) else end


def _version(buffer: bytes, offset: int) -> int:
    version: int = _HEADER.unpack_from(buffer, offset)[3]
    return version


def _next_header(buffer: bytes, end: int, newer: int) -> int:
    """Where the frame behind that at `newer` begins: past what its version added, which is not known here."""
    schema = buffer[newer + 4 : newer + 8]  # and the version, which one exchange does not change in between
    while (at := buffer.find(schema, end + 4)) >= 0:
        block_length, template_id, _, _ = _HEADER.unpack_from(buffer, at - 4)
        if template_id in _BLOCKS and block_length >= _BLOCKS[template_id].size:
            return at - 4
        end = at - 3
    return len(buffer)


def _trades(buffer: bytes, offset: int, block_length: int) -> tuple[TradesEvent, int]:
    block = _block(_TRADES_BLOCK, buffer, offset, block_length)
    offset += block_length
    entry_length, count = _TRADES_GROUP.unpack_from(buffer, offset)
    offset += _TRADES_GROUP.size
    _check_group(buffer, offset, entry_length, count, _TRADE.size)
    trades = []
    for at in _entries(offset, entry_length, count):
        trade_id, price, qty, is_buyer_maker = _TRADE.unpack_from(buffer, at)
        if is_buyer_maker > 1:
            value = "null" if is_buyer_maker == _NULL_UINT8 else is_buyer_maker
            raise SbeError(at + _TRADE.size - 1, f"isBuyerMaker is {value}, neither 0 nor 1")
        trades.append(SbeTrade(trade_id, price, qty, is_buyer_maker == 1))
    symbol, offset = _symbol(buffer, offset + entry_length * count)
    return TradesEvent._make((*block, tuple(trades), symbol)), offset


def _best_bid_ask(buffer: bytes, offset: int, block_length: int) -> tuple[BestBidAskEvent, int]:
    block = _block(_BEST_BID_ASK_BLOCK, buffer, offset, block_length)
    symbol, end = _symbol(buffer, offset + block_length)
    return BestBidAskEvent._make((*block, symbol)), end


def _depth_snapshot(buffer: bytes, offset: int, block_length: int) -> tuple[DepthSnapshotEvent, int]:
    fields, end = _depth(_DEPTH_SNAPSHOT_BLOCK, buffer, offset, block_length)
    return DepthSnapshotEvent._make(fields), end


def _depth_diff(buffer: bytes, offset: int, block_length: int) -> tuple[DepthDiffEvent, int]:
    fields, end = _depth(_DEPTH_DIFF_BLOCK, buffer, offset, block_length)
    return DepthDiffEvent._make(fields), end


def _depth(
    block: struct.Struct, buffer: bytes, offset: int, block_length: int
) -> tuple[tuple[Any, ...], int]:
    fields = _block(block, buffer, offset, block_length)
    bids, offset = _levels(buffer, offset + block_length)
    asks, offset = _levels(buffer, offset)
    symbol, offset = _symbol(buffer, offset)
    return (*fields, bids, asks, symbol), offset


def _block(fields: struct.Struct, buffer: bytes, offset: int, block_length: int) -> tuple[Any, ...]:
    if block_length < fields.size:
        raise SbeError(
            offset, f"blockLength {block_length} is shorter than the {fields.size} bytes of fields"
        )
    return fields.unpack_from(buffer, offset)


def _levels(buffer: bytes, offset: int) -> tuple[Levels, int]:
    entry_length, count = _LEVELS_GROUP.unpack_from(buffer, offset)
    offset += _LEVELS_GROUP.size
    _check_group(buffer, offset, entry_length, count, _LEVEL.size)
    end = offset + entry_length * count
    return tuple(_LEVEL.unpack_from(buffer, at) for at in _entries(offset, entry_length, count)), end


def _entries(offset: int, entry_length: int, count: int) -> range:
    """Where the entries of a group start. An empty group may state that its entries take no bytes."""
    return range(offset, offset + entry_length * count, entry_length or 1)


def _check_group(buffer: bytes, offset: int, entry_length: int, count: int, fields_length: int) -> None:
    """Before anything is allocated: a damaged count must not ask for gigabytes."""
    if count and entry_length < fields_length:
        raise SbeError(offset, f"group entry of {entry_length} bytes, its fields take {fields_length}")
    if offset + entry_length * count > len(buffer):
        raise SbeError(offset, f"truncated group: {count} entries of {entry_length} bytes do not fit")


def _symbol(buffer: bytes, offset: int) -> tuple[str, int]:
    if offset >= len(buffer):
        raise SbeError(len(buffer), "truncated: the symbol is missing")
    start, end = offset + 1, offset + 1 + buffer[offset]
    if end > len(buffer):
        raise SbeError(offset, f"truncated symbol: {len(buffer) - start} of {buffer[offset]} bytes")
    try:
        symbol = buffer[start:end].decode()
    except UnicodeDecodeError:
        raise SbeError(start, f"symbol {buffer[start:end]!r} is not UTF-8") from None
    if not symbol:
        raise SbeError(offset, "empty symbol")
    return symbol, end


_DECODERS: dict[int, Callable[[bytes, int, int], tuple[Event, int]]] = {
    TRADES: _trades,
    BEST_BID_ASK: _best_bid_ask,
    DEPTH_SNAPSHOT: _depth_snapshot,
    DEPTH_DIFF: _depth_diff,
}
_NAMES = {
    TRADES: "TradesStreamEvent",
    BEST_BID_ASK: "BestBidAskStreamEvent",
    DEPTH_SNAPSHOT: "DepthSnapshotStreamEvent",
    DEPTH_DIFF: "DepthDiffStreamEvent",
}
_TEMPLATES: dict[type, int] = {
    TradesEvent: TRADES,
    BestBidAskEvent: BEST_BID_ASK,
    DepthSnapshotEvent: DEPTH_SNAPSHOT,
    DepthDiffEvent: DEPTH_DIFF,
}

# --------------------------------------------------------------------------------------------- encode


def encode(event: Event) -> bytes:
    """The frame of `event` (schema 1 version 0), for the local exchange and for tests."""
    template = _TEMPLATES[type(event)]
    block = _BLOCKS[template]
    fields: tuple[Any, ...]
    match event:
        case TradesEvent():
            fields, trades = event[:4], event.trades
            groups = _TRADES_GROUP.pack(_TRADE.size, len(trades)) + b"".join(_TRADE.pack(*t) for t in trades)
        case BestBidAskEvent():
            fields, groups = event[:8], b""
        case _:
            fields, groups = event[:-3], _pack_levels(event.bids) + _pack_levels(event.asks)
    symbol = event.symbol.encode()
    header = _HEADER.pack(block.size, template, SCHEMA_ID, 0)
    return header + block.pack(*fields) + groups + bytes((len(symbol),)) + symbol


def _pack_levels(levels: Levels) -> bytes:
    return _LEVELS_GROUP.pack(_LEVEL.size, len(levels)) + b"".join(_LEVEL.pack(*level) for level in levels)


# -------------------------------------------------------------------------------------------- command


def decimal_text(mantissa: int, exponent: int) -> str:
    """`mantissa * 10**exponent` as an exact decimal without trailing zeros.

    >>> decimal_text(6183763000000, -8), decimal_text(-5, -1), decimal_text(12, 2), decimal_text(0, -8)
    ('61837.63', '-0.5', '1200', '0')
    """
    digits = str(abs(mantissa)) + "0" * max(exponent, 0)
    if exponent < 0:
        digits = digits.rjust(1 - exponent, "0")
        digits = f"{digits[:exponent]}.{digits[exponent:]}".rstrip("0").rstrip(".")
    return f"-{digits}" if mantissa < 0 else digits


def describe(event: Event) -> dict[str, Any]:
    """`event` as JSON-ready fields under the schema's own names, prices and quantities as decimals, None
    where they are null."""

    def decimal(mantissa: int, exponent: int) -> str | None:
        return None if mantissa == NULL_INT64 or exponent == NULL_INT8 else decimal_text(mantissa, exponent)

    def price(mantissa: int) -> str | None:
        return decimal(mantissa, event.price_exponent)

    def qty(mantissa: int) -> str | None:
        return decimal(mantissa, event.qty_exponent)

    fields: dict[str, Any]
    match event:
        case TradesEvent():
            trades = [
                {"id": t.id, "price": price(t.price), "qty": qty(t.qty), "isBuyerMaker": t.is_buyer_maker}
                for t in event.trades
            ]
            fields = {"transactTime": event.transact_time_us, "trades": trades}
        case BestBidAskEvent():
            fields = {
                "bookUpdateId": event.book_update_id,
                "bidPrice": price(event.bid_price),
                "bidQty": qty(event.bid_qty),
                "askPrice": price(event.ask_price),
                "askQty": qty(event.ask_qty),
            }
        case DepthSnapshotEvent():
            fields = {"bookUpdateId": event.book_update_id}
        case DepthDiffEvent():
            fields = {
                "firstBookUpdateId": event.first_book_update_id,
                "lastBookUpdateId": event.last_book_update_id,
            }
    if isinstance(event, DepthSnapshotEvent | DepthDiffEvent):
        fields["bids"] = [[price(p), qty(q)] for p, q in event.bids]
        fields["asks"] = [[price(p), qty(q)] for p, q in event.asks]
    template = _TEMPLATES[type(event)]
    return {
        "template": _NAMES[template],
        "templateId": template,
        "eventTime": event.event_time_us,
        **fields,
        "symbol": event.symbol,
    }


def main(paths: list[str]) -> int:
    """Print the frames of `paths` as JSON lines; 1 when one could not be read, 2 without a path."""
    if not paths:
        print("usage: python -m tickcast.sbe FILE…  (files of SBE frames laid end to end)", file=sys.stderr)
        return 2
    status = 0
    for path in paths:
        try:
            for event in decode_all(Path(path).read_bytes()):
                print(json.dumps(describe(event)))
        except (OSError, SbeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            print(f"{path}: {reason}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The wire batch: many ticks of one symbol in one Kinesis record.

A batch is an Avro single-object encoding (marker, schema fingerprint, body; Avro 1.11 specification,
"Single-object encoding"). Every field of a tick is an Avro *fixed*, so a block of ticks is exactly the
memory of a numpy structured array: writing is ``tobytes``, reading is ``frombuffer``, and any Avro
library reads the same bytes by the schema.

`connection` names the socket that delivered the ticks. `watermark_us` is ingest's claim that this connection
is caught up to that exchange time; `NO_WATERMARK` claims nothing new, `WATERMARK_WITHDRAWN` withdraws its
claims. `quiet_us` is evidence of a quiet market: at that instant of ingest's clock the exchange's REST had no
trade or quote newer than those received; `QUIET_UNKNOWN`: no evidence. `notices` list what ingest may have
missed; whether it is missing is decided downstream, where all connections meet. `reference` are the best
prices of the USD-M perpetual of the same base, by the exchange's transaction time; none where it is absent.

A batch of another schema is for `adapters.kinesis.schema_registry`, which finds it by fingerprint.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tickcast.market.ticks import NO_QUOTES, QUOTE, TRADE, Quotes, Trades

NO_WATERMARK = -1
WATERMARK_WITHDRAWN = -2
QUIET_UNKNOWN = -1
SENT_UNKNOWN = -1
STAMP_BYTES = 9  # what `stamped` adds at most
_MARKER = b"\xc3\x01"
_INT64 = {"type": "fixed", "name": "Int64LE", "size": 8, "doc": "little-endian two's complement"}
_INT8 = {"type": "fixed", "name": "Int8", "size": 1, "doc": "two's complement"}


def _record(name: str, types: dict[str, Any], defaults: dict[str, Any], **about: str) -> dict[str, Any]:
    fields = [
        {"name": field, "type": kind} | ({"default": defaults[field]} if field in defaults else {})
        for field, kind in types.items()
    ]
    return {"type": "record", "name": name, **about, "fields": fields}


def _ticks_schema(name: str, dtype: np.dtype[Any], defined: set[str]) -> dict[str, Any]:
    """The Avro record whose encoding is the memory of `dtype` (packed, every field a fixed)."""
    types: dict[str, Any] = {}
    for field in dtype.names or ():
        fixed = _INT64 if dtype[field].itemsize == 8 else _INT8
        # Avro defines a named type once and refers to it by name afterwards.
        types[field] = fixed if fixed["name"] not in defined else fixed["name"]
        defined.add(str(fixed["name"]))
    return _record(name, types, {})


def _schema() -> dict[str, Any]:
    defined: set[str] = set()
    trade, quote = _ticks_schema("Trade", TRADE, defined), _ticks_schema("Quote", QUOTE, defined)
    notice = _record("Notice", {"cause": "string", "from_us": "long", "to_us": "long"}, {})
    types = dict.fromkeys(("symbol", "source", "connection"), "string") | {
        "watermark_us": "long",
        "trades": {"type": "array", "items": trade},
        "quotes": {"type": "array", "items": quote},
        "notices": {"type": "array", "items": notice},
        "quiet_us": "long",
        "host_offset_us": "long",
        "sent_us": "long",
        "reference": {"type": "array", "items": "Quote"},
    }
    defaults = {
        "notices": [],
        "quiet_us": QUIET_UNKNOWN,
        "host_offset_us": 0,
        "sent_us": SENT_UNKNOWN,
        "reference": [],
    }
    return _record("TickBatch", types, defaults, namespace="tickcast")


SCHEMA = _schema()
# CRC-64-AVRO of the schema's canonical form, little-endian. A test compares it with fastavro's, so that
# a change of the dtypes cannot be published under the old fingerprint.
FINGERPRINT = bytes.fromhex("487be34e8be24358")
_HEADER = _MARKER + FINGERPRINT


class WireError(ValueError):
    """A record that is not a whole batch of a known schema; the message says what was wrong."""


class UnknownSchemaError(WireError):
    """A record of another schema than this code's: `fingerprint` names it."""

    def __init__(self, fingerprint: bytes) -> None:
        super().__init__(f"unknown schema fingerprint {fingerprint.hex()}")
        self.fingerprint = fingerprint


class Notice(NamedTuple):
    """Ticks between two instants of the exchange's clock may have been missed, and why."""

    cause: str
    from_us: int
    to_us: int


class TickBatch(NamedTuple):
    symbol: str
    source: str
    connection: str
    watermark_us: int
    trades: Trades
    quotes: Quotes
    notices: tuple[Notice, ...] = ()
    quiet_us: int = QUIET_UNKNOWN
    host_offset_us: int = 0
    sent_us: int = SENT_UNKNOWN
    reference: Quotes = NO_QUOTES

    @property
    def tick_count(self) -> int:
        return len(self.trades) + len(self.quotes) + len(self.reference)


def encode(batch: TickBatch) -> bytes:
    """The Kinesis record of `batch`."""
    return b"".join(
        (
            _HEADER,
            _text(batch.symbol),
            _text(batch.source),
            _text(batch.connection),
            _zigzag(batch.watermark_us),
            _block(batch.trades, TRADE),
            _block(batch.quotes, QUOTE),
            _notices(batch.notices),
            _zigzag(batch.quiet_us),
            _zigzag(batch.host_offset_us),
            _zigzag(batch.sent_us),
            _block(batch.reference, QUOTE),
        )
    )


def stamped(record: bytes, sent_us: int) -> bytes:
    """`record`, which `encode` made of a batch that was not sent yet, with `sent_us`."""
    at = len(_HEADER)
    for _ in range(3):
        _, at = _read_text(record, at)
    _, at = _read_zigzag(record, at)
    for dtype in (TRADE, QUOTE):
        count, at = _read_zigzag(record, at)
        at += count * dtype.itemsize + 1 if count else 0  # with the 0 that closes the array
    _, at = _read_notices(record, at)
    for _ in range(2):
        _, at = _read_zigzag(record, at)
    unknown = _zigzag(SENT_UNKNOWN)
    assert record[at : at + len(unknown)] == unknown
    return record[:at] + _zigzag(sent_us) + record[at + len(unknown) :]


def decode(record: bytes) -> TickBatch:
    """The batch in `record`; its arrays are read-only. Raises `WireError`."""
    if record[:2] != _MARKER:
        raise WireError(f"not an Avro single object: starts with {record[:2].hex() or 'nothing'}, not c301")
    if record[:10] != _HEADER:
        raise UnknownSchemaError(record[2:10])
    symbol, at = _read_text(record, 10)
    source, at = _read_text(record, at)
    connection, at = _read_text(record, at)
    watermark_us, at = _read_zigzag(record, at)
    trades, at = _read_array(record, at, TRADE)
    quotes, at = _read_array(record, at, QUOTE)
    notices, at = _read_notices(record, at)
    quiet_us, at = _read_zigzag(record, at)
    host_offset_us, at = _read_zigzag(record, at)
    sent_us, at = _read_zigzag(record, at)
    reference, at = _read_array(record, at, QUOTE)
    if at != len(record):
        raise WireError(f"{len(record) - at} bytes after the end of the batch at offset {at}")
    if not symbol:
        raise WireError("the batch names no symbol")
    return TickBatch(
        symbol,
        source,
        connection,
        watermark_us,
        trades,
        quotes,
        notices,
        quiet_us,
        host_offset_us,
        sent_us,
        reference,
    )


def _zigzag(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(value: str) -> bytes:
    data = value.encode()
    return _zigzag(len(data)) + data


def _block(rows: Trades | Quotes, dtype: np.dtype[Any]) -> bytes:
    if rows.dtype != dtype:
        raise TypeError(f"rows of {rows.dtype}, the wire carries {dtype}")
    return _zigzag(len(rows)) + rows.tobytes() + b"\0" if len(rows) else b"\0"


def _notices(notices: tuple[Notice, ...]) -> bytes:
    if not notices:
        return b"\0"
    items = (_text(n.cause) + _zigzag(n.from_us) + _zigzag(n.to_us) for n in notices)
    return _zigzag(len(notices)) + b"".join(items) + b"\0"


def _read_zigzag(record: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(record):
            raise WireError(f"truncated at offset {at}")
        byte = record[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
        if shift > 63:
            raise WireError(f"a number longer than 64 bits ends at offset {at}")


def _read_text(record: bytes, at: int) -> tuple[str, int]:
    length, at = _read_zigzag(record, at)
    if not 0 <= length <= len(record) - at:
        raise WireError(f"truncated text at offset {at}")
    try:
        return record[at : at + length].decode(), at + length
    except UnicodeDecodeError:
        raise WireError(f"text at offset {at} is not UTF-8") from None


def _read_array(record: bytes, at: int, dtype: np.dtype[Any]) -> tuple[Any, int]:
    """An Avro array: blocks of a count and that many items, closed by a count of 0."""
    blocks = []
    while True:
        count, at = _read_zigzag(record, at)
        if count == 0:
            break
        if count < 0:  # a negative count is followed by the block's size in bytes
            count = -count
            _size, at = _read_zigzag(record, at)
        size = count * dtype.itemsize
        if size > len(record) - at:
            raise WireError(f"truncated block at offset {at}: {count} ticks of {dtype.itemsize} bytes")
        # A slice is a copy and so aligned to machine words; numpy is slow with unaligned integers.
        blocks.append(np.frombuffer(record[at : at + size], dtype))
        at += size
    if not blocks:
        return np.empty(0, dtype), at
    return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks)), at


def _read_notices(record: bytes, at: int) -> tuple[tuple[Notice, ...], int]:
    notices: list[Notice] = []
    while True:
        count, at = _read_zigzag(record, at)
        if count == 0:
            return tuple(notices), at
        if count < 0:
            count = -count
            _size, at = _read_zigzag(record, at)
        for _ in range(count):  # every notice takes bytes, so a damaged count ends in "truncated"
            cause, at = _read_text(record, at)
            from_us, at = _read_zigzag(record, at)
            to_us, at = _read_zigzag(record, at)
            notices.append(Notice(cause, from_us, to_us))

"""Decode many SBE frames at once into tick arrays, column by column.

Frames of one kind, one symbol length and one number of trades have one layout, so they are joined and
read through one structured dtype: some tens of nanoseconds a frame instead of a microsecond. Every
other frame (fields that a later schema version added, exponents other than -8, a missing side of the book, a
damaged or impossible frame) is decoded singly by `tickcast.sbe`, which handles all of it and names errors.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast import sbe
from tickcast.market.ticks import (
    QUOTE,
    SCALE_EXPONENT,
    TRADE,
    QuoteRow,
    Quotes,
    TickError,
    TradeRow,
    Trades,
    joined,
    quotes_array,
    raw,
    tick_rows,
    trades_array,
)

_QUOTE_BYTES = 8 + 50 + 1  # without the symbol
_TRADES_BYTES = 8 + 18 + 6 + 1  # without the symbol and the trades
_TRADE_BYTES = 25
_COUNT_AT = 28  # offset of the number of trades in a trades frame

# Headers (blockLength, templateId, schemaId, version) and pairs of exponents, each read as one number. The
# version is masked out: frames of the same layout are read alike.
_ANY_VERSION = np.uint64(0x0000_FFFF_FFFF_FFFF)
_QUOTE_HEADER = np.uint64(int.from_bytes(struct.pack("<HHH", 50, sbe.BEST_BID_ASK, sbe.SCHEMA_ID), "little"))
_TRADES_HEADER = np.uint64(int.from_bytes(struct.pack("<HHH", 18, sbe.TRADES, sbe.SCHEMA_ID), "little"))
_EXPONENTS = np.uint16(int.from_bytes(struct.pack("<bb", SCALE_EXPONENT, SCALE_EXPONENT), "little"))

Array = npt.NDArray[Any]


class Ticks(NamedTuple):
    """The ticks of a group of frames by symbol, the frames that could not be read, and, of text feeds, the
    messages about the connection."""

    trades: dict[str, Trades]
    quotes: dict[str, Quotes]
    errors: list[tuple[int, Exception]]  # index of the frame, and why
    control: Sequence[dict[str, Any]] = ()


def decode_frames(frames: Sequence[bytes], received_us: Array) -> Ticks:
    """The ticks of `frames`, received at the local times `received_us` (int64 µs, one a frame).

    The rows of a symbol are in no particular order: their ids order them. Never raises for the content of a
    frame: its error is in `errors`, and the others are read.
    """
    ticks = Ticks({}, {}, [])
    if not frames:
        return ticks
    size = len(frames[0])
    sizes = list(map(len, frames))
    if sizes.count(size) == len(frames):
        left = _read_alike(b"".join(frames), size, received_us, ticks)
        _read_singly(frames, np.flatnonzero(left), received_us, ticks)
        return ticks
    size_of = np.fromiter(sizes, np.int64, len(sizes))
    for size in set(sizes):
        is_alike = size_of == size
        joined = b"".join(itertools.compress(frames, is_alike.tolist()))
        left = _read_alike(joined, size, received_us[is_alike], ticks)
        _read_singly(frames, np.flatnonzero(is_alike)[left], received_us, ticks)
    return ticks


def _read_alike(joined: bytes, size: int, received_us: Array, ticks: Ticks) -> Array:
    """Read the plain frames among those of one size into `ticks`; True for each of the others."""
    if size <= _TRADES_BYTES:
        return np.ones(len(received_us), bool)
    frames = np.frombuffer(joined, _header(size))
    headers = frames["header"] & _ANY_VERSION
    is_left = np.ones(len(frames), bool)
    is_quote = headers == _QUOTE_HEADER
    if size > _QUOTE_BYTES and np.count_nonzero(is_quote):
        _read_quotes(np.frombuffer(joined, _quote_frame(size)), is_quote, received_us, ticks)
        is_left &= ~is_quote
        if not np.count_nonzero(is_left):
            return is_left
    is_trades = headers == _TRADES_HEADER
    for count in np.unique(frames["trade_count"][is_trades]).tolist():
        if 0 < count * _TRADE_BYTES < size - _TRADES_BYTES:
            is_alike = is_trades & (frames["trade_count"] == count)
            _read_trades(np.frombuffer(joined, _trades_frame(size, count)), is_alike, received_us, ticks)
            is_left &= ~is_alike
    return is_left


def _read_quotes(frames: Array, is_plain: Array, received_us: Array, ticks: Ticks) -> None:
    """Append the quotes of the frames where `is_plain`; it is cleared, in place, for those that are not."""
    rows = np.empty(len(frames), _QUOTE_ROW)
    rows["receive_time_us"] = received_us
    for run in ("time_us", "update_id", "book"):
        rows[run] = frames[run]
    is_plain &= frames["exponents"] == _EXPONENTS
    is_plain &= (rows["bid_price"] > 0) & (rows["bid_price"] < rows["ask_price"])
    is_plain &= (rows["bid_qty"] > 0) & (rows["ask_qty"] > 0)
    is_plain &= (rows["time_us"] >= 0) & (rows["update_id"] >= 0)
    for symbol, mine in _by_symbol(frames["symbol"], is_plain):
        _append(ticks.quotes, symbol, raw(rows)[mine].view(QUOTE))


def _read_trades(frames: Array, is_plain: Array, received_us: Array, ticks: Ticks) -> None:
    """Append the trades of the frames where `is_plain`; it is cleared, in place, for those that are not."""
    trades = frames["trades"]  # (frames, trades a frame)
    rows = np.empty(trades.shape, _TRADE_ROW)
    rows["time_us"] = frames["transact_time_us"][:, None]
    rows["receive_time_us"] = received_us[:, None]
    rows["first_id"], rows["trade"] = trades["id"], trades["trade"]
    rows["side"] = 1 - 2 * trades["is_buyer_maker"].view(np.int8)
    is_plain &= (frames["exponents"] == _EXPONENTS) & (frames["entry_length"] == _TRADE_BYTES)
    is_plain &= ((rows["price"] > 0) & (rows["qty"] > 0) & (trades["is_buyer_maker"] <= 1)).all(axis=1)
    is_plain &= ((rows["time_us"] >= 0) & (rows["first_id"] >= 0)).all(axis=1)
    for symbol, mine in _by_symbol(frames["symbol"], is_plain):
        _append(ticks.trades, symbol, raw(rows)[mine].view(TRADE).ravel())


def _by_symbol(symbols: Array, is_plain: Array) -> Iterator[tuple[str, Array | slice]]:
    """Each symbol and which plain frames are its; `is_plain` is cleared, in place, for those of other
    symbols.

    `symbols` are length bytes followed by texts, all of one size.
    """
    waiting = is_plain.copy()
    while np.count_nonzero(waiting):
        first = symbols[waiting.argmax()]
        mine = waiting & (symbols == first)
        waiting ^= mine
        text = first.tobytes()
        # numpy's bytes drop trailing NULs, and UTF-8 may be damaged: `tickcast.sbe` decides on those.
        if len(text) == symbols.itemsize == text[0] + 1 and text[-1] and text.isascii():
            yield text[1:].decode(), slice(None) if np.count_nonzero(mine) == len(mine) else mine
        else:
            is_plain &= ~mine


def _append(by_symbol: dict[str, Array], symbol: str, rows: Array) -> None:
    if symbol in by_symbol:
        rows = joined(by_symbol[symbol], rows)
    by_symbol[symbol] = rows


def _read_singly(frames: Sequence[bytes], left: Array, received_us: Array, ticks: Ticks) -> None:
    trades: dict[str, list[TradeRow]] = {}
    quotes: dict[str, list[QuoteRow]] = {}
    for i in left.tolist():
        try:
            event = sbe.decode(frames[i])
            some_trades, some_quotes = tick_rows(event, int(received_us[i]))
        except (sbe.SbeError, TickError) as error:
            ticks.errors.append((i, error))
            continue
        if some_trades:
            trades.setdefault(event.symbol, []).extend(some_trades)
        if some_quotes:
            quotes.setdefault(event.symbol, []).extend(some_quotes)
    for symbol, trade_rows in trades.items():
        _append(ticks.trades, symbol, trades_array(trade_rows))
    for symbol, quote_rows in quotes.items():
        _append(ticks.quotes, symbol, quotes_array(quote_rows))


# Fields that are adjacent both in a frame and in a row are copied in one piece, a run of bytes; `_overlaid`
# makes the numbers in it readable too.


def _overlaid(size: int, **fields: tuple[int, Any]) -> np.dtype[Any]:
    """A dtype of `size` bytes from fields given as (offset, format), which may lie over one another."""
    offsets, formats = zip(*fields.values(), strict=True)
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size})


def _row(dtype: np.dtype[Any], **runs: tuple[int, Any]) -> np.dtype[Any]:
    fields = {name: (field[1], field[0]) for name, field in (dtype.fields or {}).items()}
    return _overlaid(dtype.itemsize, **fields, **runs)


_QUOTE_ROW = _row(QUOTE, book=(24, "V32"))  # bid price and quantity, ask price and quantity
_TRADE_ROW = _row(TRADE, trade=(24, "V24"))  # last id, price, quantity


@functools.cache
def _header(size: int) -> np.dtype[Any]:
    return _overlaid(size, header=(0, "<u8"), trade_count=(_COUNT_AT, "<u4"))


@functools.cache
def _quote_frame(size: int) -> np.dtype[Any]:
    return _overlaid(
        size,
        time_us=(8, "<i8"),
        update_id=(16, "<i8"),
        exponents=(24, "<u2"),
        book=(26, "V32"),
        symbol=(58, _symbol_format(size - 58)),
    )


@functools.cache
def _trades_frame(size: int, count: int) -> np.dtype[Any]:
    trade = _overlaid(_TRADE_BYTES, id=(0, "<i8"), trade=(0, "V24"), is_buyer_maker=(24, "u1"))
    symbol_at = 32 + count * _TRADE_BYTES
    return _overlaid(
        size,
        transact_time_us=(16, "<i8"),
        exponents=(24, "<u2"),
        entry_length=(26, "<u2"),
        trades=(32, (trade, (count,))),
        symbol=(symbol_at, _symbol_format(size - symbol_at)),
    )


def _symbol_format(size: int) -> str:
    """Seven letters, like BTCUSDT, and their length compare fastest as one number."""
    return "<u8" if size == 8 else f"S{size}"

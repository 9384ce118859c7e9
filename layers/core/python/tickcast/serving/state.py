"""What Redis keeps of a symbol: its bar ring, what is remembered of its predictions, and the fence.

The encoding is a JSON header (version, scalars, row counts), the bytes of the arrays and a checksum: about
25 KB in all, and reading it costs microseconds. A version that the code does not know is refused by name, so
that after a deployment bars are warmed up again instead of misread.

A state that is lost, damaged or of another version is recalled (`recalled_state`) from what was written with
it: the newest receipts and the gap ledger. Of another version's state, `salvage` keeps what has not changed
its shape. Bars alone cannot be had again: they are warmed up.
"""

from __future__ import annotations

import json
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tickcast.features.bars import BAR, SECOND
from tickcast.features.ring import BarRing
from tickcast.market.gaps import GapLedger
from tickcast.market.id_ranges import IdRanges
from tickcast.market.id_series import QUOTE_PACE, TRADE_PACE, IdSeries, trade_series
from tickcast.market.ticks import QUOTE, TRADE
from tickcast.market.wire import Notice
from tickcast.serving.outcomes import PendingPredictions

VERSION = 3
_LENGTH = struct.Struct("<I")
_CHECKSUM = struct.Struct("<I")  # CRC-32 of all before it
_ARRAYS = (("bars", BAR), ("seconds", SECOND), ("open_trades", TRADE), ("open_quotes", QUOTE))
# Where the ring keeps what the header calls so: its part ("" is the ring itself) and the attribute.
_SCALARS = {
    "next_bar": ("", "next_bar"),
    "history_from_us": ("", "history_from_us"),
    "watermark_us": ("watermark", "reached_us"),
    "claims_us": ("watermark", "claims_us"),
    "quiet_us": ("watermark", "quiet_us"),
    "received_us": ("", "received_us"),
    "newest_trade_us": ("trade_ids", "newest_us"),
    "newest_quote_us": ("quote_ids", "newest_us"),
    "late_trades": ("trade_ids", "late_count"),
    "late_quotes": ("quote_ids", "late_count"),
    "late_ids": ("trade_ids", "late_ids"),
    "late_update_ids": ("quote_ids", "late_ids"),
    "closed_update_id": ("quote_ids", "closed_id"),
    "refused_trades": ("trade_ids", "refused_count"),
    "refused_quotes": ("quote_ids", "refused_count"),
}


# Causes of a hole in trade ids that the store made.
STATE_LOST = "the state was lost"
WRITES_LOST = "the store lost its newest writes"

_MISSHAPEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)


class StateError(ValueError):
    """Bytes that are not a state of this version; the message says what they are."""


@dataclass
class SymbolState:
    """A symbol's ring, its memory of predictions, and its fence: `sequence` is the last Kinesis sequence
    number applied, 0 before the first. `failures` counts the records left out since the newest prediction
    because something raised on them, and `failure` is the text of the last."""

    symbol: str
    ring: BarRing
    memory: PendingPredictions = field(default_factory=PendingPredictions)
    sequence: int = 0
    failures: int = 0
    failure: str | None = None


def encode_state(state: SymbolState) -> bytes:
    """All of `state` but its symbol and sequence, which are read without decoding. Raises ValueError on a
    number that JSON does not have, TypeError on what is no JSON at all."""
    ring = state.ring
    header = {
        "version": VERSION,
        **{name: getattr(_part(ring, part), attribute) for name, (part, attribute) in _SCALARS.items()},
        "trade_ids": ring.trade_ids.seen.intervals,
        "gaps": ring.gaps.as_dict(),
        "trade_series": ring.trade_ids.series.as_dict(),
        "quote_series": ring.quote_ids.series.as_dict(),
        "memory": state.memory.as_dict(),
        "failures": [state.failures, state.failure],
        "rows": [len(getattr(ring, name)) for name, _ in _ARRAYS],
    }
    text = json.dumps(header, allow_nan=False).encode()
    arrays = (getattr(ring, name).tobytes() for name, _ in _ARRAYS)
    data = b"".join((_LENGTH.pack(len(text)), text, *arrays))
    return data + _CHECKSUM.pack(zlib.crc32(data))


def decode_state(symbol: str, sequence: int, data: bytes, lateness_us: int) -> SymbolState:
    """The state in `data`. Raises `StateError` on another version or on damaged bytes."""
    try:
        header, at = _header(data)
        if header["version"] != VERSION:
            raise StateError(f"state of version {header['version']}, this code reads version {VERSION}")
        if _CHECKSUM.pack(zlib.crc32(data[: -_CHECKSUM.size])) != data[-_CHECKSUM.size :]:
            raise StateError("damaged state: its checksum is of other bytes")
        ring = BarRing(lateness_us)
        for name, (part, attribute) in _SCALARS.items():
            setattr(_part(ring, part), attribute, header[name])
        ring.trade_ids.seen = IdRanges([(first, last) for first, last in header["trade_ids"]])
        ring.gaps = GapLedger.from_dict(header["gaps"])
        ring.trade_ids.series = IdSeries.from_dict(TRADE_PACE, header["trade_series"])
        ring.quote_ids.series = IdSeries.from_dict(QUOTE_PACE, header["quote_series"])
        memory = PendingPredictions.from_dict(header["memory"])
        failures, failure = header["failures"]
        for (name, dtype), rows in zip(_ARRAYS, header["rows"], strict=True):
            setattr(ring, name, np.frombuffer(data, dtype, rows, at))
            at += rows * dtype.itemsize
    except (struct.error, *_MISSHAPEN) as error:
        raise error if isinstance(error, StateError) else StateError(f"damaged state: {error}") from error
    return SymbolState(symbol, ring, memory, sequence, failures, failure)


def recalled_state(
    symbol: str, lateness_us: int, predictions: list[dict[str, Any]], ledger: dict[str, Any] | None
) -> SymbolState:
    """The state of `symbol` as far as its newest `predictions` (newest first) and its gap ledger
    (`GapLedger.record`) know it; what is not as it should be in them is left out.

    The highest trade id is that of the newest bar predicted on. Those after it were folded into bars that are
    lost, or never seen: either way no bar to come has them, and the ledger will show the hole.
    """
    ring = BarRing(lateness_us)
    state = SymbolState(symbol, ring)
    with suppress(*_MISSHAPEN):
        state.memory = PendingPredictions.recalled(predictions)
    with suppress(*_MISSHAPEN):
        ring.gaps = GapLedger.from_record(ledger) if ledger else GapLedger()
    for prediction in predictions:
        with suppress(*_MISSHAPEN):
            if ring.trade_ids.newest_us < 0 and prediction["last_trade_id"]:
                newest_us = _instant_us(prediction["timestamp"], prediction["trade_age_ms"])
                _recall_trades(ring, int(prediction["last_trade_id"]), newest_us)
        with suppress(*_MISSHAPEN):
            if ring.quote_ids.newest_us < 0 and prediction["quote_age_ms"] is not None:
                ring.quote_ids.newest_us = _instant_us(prediction["timestamp"], prediction["quote_age_ms"])
                _begin_series(ring.quote_ids.series, int(prediction["update_id"]), ring.quote_ids.newest_us)
    note_loss(ring, STATE_LOST)
    return state


def salvage(state: SymbolState, data: bytes) -> None:
    """Enter into `state`, which was recalled, what `data`, a state of another version, says as this one
    would: it knows of trades, holes and outcomes that no receipt shows. Of damaged bytes nothing is used."""
    with suppress(struct.error, *_MISSHAPEN):
        header, _ = _header(data)
        if header["version"] == VERSION:
            return
        ring = state.ring
        with suppress(*_MISSHAPEN):
            state.memory.calibrators |= PendingPredictions.from_dict(header["memory"]).calibrators
        with suppress(*_MISSHAPEN):
            seen = IdRanges([(int(first), int(last)) for first, last in header["trade_ids"]])
            gaps, newest_us = GapLedger.from_dict(header["gaps"]), int(header["newest_trade_us"])
            if seen.newest is not None and newest_us > 0:
                ring.trade_ids.seen, ring.gaps, ring.trade_ids.newest_us = seen, gaps, newest_us
                ring.quote_ids.newest_us = int(header["newest_quote_us"])
                ring.trade_ids.series = trade_series()
                _begin_series(ring.trade_ids.series, seen.newest, newest_us)


def note_loss(ring: BarRing, cause: str) -> None:
    """Tell the ledger the `cause` of a hole that begins behind the newest trade or quote."""
    known_us = [us for us in (ring.trade_ids.newest_us, ring.quote_ids.newest_us) if us > 0]
    if known_us:
        ring.gaps.noticed((Notice(cause, min(known_us), max(known_us)),))


def _part(ring: BarRing, name: str) -> Any:
    return getattr(ring, name) if name else ring


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The header, and where the arrays begin."""
    (length,) = _LENGTH.unpack_from(data)
    header: dict[str, Any] = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    return header, _LENGTH.size + length


def _recall_trades(ring: BarRing, newest_id: int, newest_us: int) -> None:
    """What was seen up to `newest_id`. Holes behind it are part of the one that the loss makes."""
    ring.trade_ids.newest_us = newest_us
    behind = [
        gap for gap in ring.gaps.gaps if gap.last_id > newest_id and gap.to_us > ring.trade_ids.newest_us
    ]
    ring.gaps.gaps = [gap for gap in ring.gaps.gaps if gap not in behind]
    holes = [(gap.first_id, gap.last_id) for gap in ring.gaps.gaps if gap.last_id < newest_id]
    ring.trade_ids.seen = IdRanges.up_to(newest_id, holes)
    _begin_series(ring.trade_ids.series, newest_id, ring.trade_ids.newest_us)


def _begin_series(series: IdSeries, newest_id: int, newest_us: int) -> None:
    """By what the next ids are judged: whether they continue `series`, are far off, or begin a new one.
    `newest_us` may be up to a millisecond early (`_instant_us`), but the tick itself must not seem later."""
    series.advance(newest_id, newest_us + 1000, 1)


def _instant_us(end_ms: Any, age_ms: Any) -> int:
    """When a tick of that age came; ages are whole milliseconds, rounded down."""
    return (int(end_ms) - int(age_ms) - 1) * 1000

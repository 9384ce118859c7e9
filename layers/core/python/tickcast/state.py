"""What Redis keeps of a symbol: its bar ring, what is remembered of its predictions, and the fence.

The encoding is a JSON header (version, scalars, row counts) and the bytes of the arrays: about 25 KB in
all, and reading it costs microseconds. A version the code does not know is refused by name, so that after a
deployment the ring is warmed up anew instead of misread.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tickcast.bars import BAR, SECOND, BarRing
from tickcast.gaps import GapLedger
from tickcast.intervals import IntervalSet
from tickcast.outcomes import Memory
from tickcast.plausible import QUOTE_PACE, TRADE_PACE, IdSeries
from tickcast.ticks import QUOTE, TRADE

VERSION = 3
_LENGTH = struct.Struct("<I")
_ARRAYS = (("bars", BAR), ("seconds", SECOND), ("open_trades", TRADE), ("open_quotes", QUOTE))
_SCALARS = (
    "next_bar",
    "history_from_us",
    "watermark_us",
    "claims_us",
    "quiet_us",
    "received_us",
    "newest_trade_us",
    "newest_quote_us",
    "late_trades",
    "late_quotes",
    "late_ids",
    "late_update_ids",
    "closed_update_id",
    "refused_trades",
    "refused_quotes",
)


class StateError(ValueError):
    """Bytes that are not a state of this version; the message says what they are."""


@dataclass
class SymbolState:
    """A symbol's ring, its memory of predictions, and its fence: `sequence` is the last Kinesis sequence
    number applied, 0 before the first."""

    symbol: str
    ring: BarRing
    memory: Memory = field(default_factory=Memory)
    sequence: int = 0


def encode_state(state: SymbolState) -> bytes:
    """All of `state` but its symbol and sequence, which are read without decoding."""
    ring = state.ring
    header = {
        "version": VERSION,
        **{name: getattr(ring, name) for name in _SCALARS},
        "trade_ids": ring.trade_ids.intervals,
        "gaps": ring.gaps.as_dict(),
        "trade_series": ring.trade_series.as_dict(),
        "quote_series": ring.quote_series.as_dict(),
        "memory": state.memory.as_dict(),
        "rows": [len(getattr(ring, name)) for name, _ in _ARRAYS],
    }
    text = json.dumps(header).encode()
    return b"".join((_LENGTH.pack(len(text)), text, *(getattr(ring, name).tobytes() for name, _ in _ARRAYS)))


def decode_state(symbol: str, sequence: int, data: bytes, lateness_us: int) -> SymbolState:
    """The state in `data`. Raises `StateError` on another version or on damaged bytes."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        header: dict[str, Any] = json.loads(data[_LENGTH.size : _LENGTH.size + length])
        if header["version"] != VERSION:
            raise StateError(f"state of version {header['version']}, this code reads version {VERSION}")
        ring = BarRing(lateness_us, **{name: header[name] for name in _SCALARS})
        ring.trade_ids = IntervalSet([(first, last) for first, last in header["trade_ids"]])
        ring.gaps = GapLedger.from_dict(header["gaps"])
        ring.trade_series = IdSeries.from_dict(TRADE_PACE, header["trade_series"])
        ring.quote_series = IdSeries.from_dict(QUOTE_PACE, header["quote_series"])
        memory = Memory.from_dict(header["memory"])
        at = _LENGTH.size + length
        for (name, dtype), rows in zip(_ARRAYS, header["rows"], strict=True):
            setattr(ring, name, np.frombuffer(data, dtype, rows, at))
            at += rows * dtype.itemsize
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise error if isinstance(error, StateError) else StateError(f"damaged state: {error}") from error
    return SymbolState(symbol, ring, memory, sequence)

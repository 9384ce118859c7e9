"""The state of a symbol in Redis: bar ring, pending predictions, calibrators, and the fence.

The encoding is a JSON header (version, scalars, row counts), the bytes of the arrays and a checksum: about
25 KB in all, read in microseconds. An unknown version is refused by name, so that after a deployment bars are
warmed up again instead of misread.

A state that is lost, damaged or of another version is recalled (`recalled_state`) from what was written with
it: the newest receipts and the gap ledger. Of another version's state, `salvage` keeps the parts whose format
has not changed. Only bars cannot be recovered: they are warmed up.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec import Raw, Struct

from tickcast.features.bars import BAR, SECOND
from tickcast.features.quote_ids import QuoteIds
from tickcast.features.reference_quotes import ReferenceQuotes
from tickcast.features.ring import BarRing
from tickcast.features.trade_ids import TradeIds
from tickcast.market.gaps import GapLedger, LedgerRecord
from tickcast.market.id_ranges import IdRanges
from tickcast.market.id_series import QUOTE_PACE, TRADE_PACE, IdSeries, trade_series
from tickcast.market.ticks import QUOTE, TRADE
from tickcast.market.watermark import Watermark
from tickcast.market.wire import Notice
from tickcast.serving.outcomes import Calibrators, PendingPredictions
from tickcast.serving.records import Prediction, decode, encode

VERSION = 5
_LENGTH = struct.Struct("<I")
_CHECKSUM = struct.Struct("<I")  # CRC-32 of all before it
_ARRAYS = (
    ("bars", BAR),
    ("seconds", SECOND),
    ("open_trades", TRADE),
    ("open_quotes", QUOTE),
    ("open_reference", QUOTE),
)

# Causes of a hole in trade ids for which the store is responsible.
STATE_LOST = "the state was lost"
WRITES_LOST = "the store lost its newest writes"

_MISSHAPEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)


class StateError(ValueError):
    """Bytes that are not a state of this version; the message says what they are."""


class StateHeader(Struct, kw_only=True):
    """The JSON in front of the arrays."""

    version: int
    next_bar: int
    history_from_us: int
    received_us: int
    watermark: Watermark
    trade_ids: list[tuple[int, int]]
    trade_series: dict[str, Any]
    newest_trade_us: int
    late_trades: int
    late_ids: list[int]
    refused_trades: int
    quote_series: dict[str, Any]
    closed_update_id: int
    newest_quote_us: int
    late_quotes: int
    late_update_ids: list[int]
    refused_quotes: int
    reference: ReferenceQuotes
    gaps: GapLedger
    memory: PendingPredictions
    failures: tuple[int, str | None]
    predicted_us: tuple[int, int]
    rows: tuple[int, int, int, int, int]  # of each array


@dataclass
class SymbolState:
    """A symbol's ring, its pending predictions, and its fence: `sequence` is the last Kinesis sequence number
    applied, 0 before the first. `failures` counts the records left out since the newest prediction because
    something raised on them, and `failure` is the text of the last. The newest prediction was made as of
    `as_of_us`, the newest that is kept for the hour as of `kept_us`; -1 before the first."""

    symbol: str
    ring: BarRing
    pending: PendingPredictions = field(default_factory=PendingPredictions)
    sequence: int = 0
    failures: int = 0
    failure: str | None = None
    as_of_us: int = -1
    kept_us: int = -1


def encode_state(state: SymbolState) -> bytes:
    """All of `state` but its symbol and sequence, which are stored apart. Raises ValueError on a number that
    is not finite, and on a field of a wrong type, which it names."""
    header = encode(_header_of(state))
    arrays = (getattr(state.ring, name).tobytes() for name, _ in _ARRAYS)
    data = b"".join((_LENGTH.pack(len(header)), header, *arrays))
    return data + _CHECKSUM.pack(zlib.crc32(data))


def decode_state(symbol: str, sequence: int, data: bytes, lateness_us: int) -> SymbolState:
    """The state in `data`. Raises `StateError` on another version or on damaged bytes."""
    try:
        text, at = _header(data)
        if (version := decode(_Version, text).version) != VERSION:
            raise StateError(f"state of version {version}, this code reads version {VERSION}")
        if _CHECKSUM.pack(zlib.crc32(data[: -_CHECKSUM.size])) != data[-_CHECKSUM.size :]:
            raise StateError("damaged state: wrong checksum")
        header = decode(StateHeader, text)
        ring = _ring_of(header, lateness_us)
        for (name, dtype), rows in zip(_ARRAYS, header.rows, strict=True):
            setattr(ring, name, np.frombuffer(data, dtype, rows, at))
            at += rows * dtype.itemsize
    except StateError:
        raise
    except (struct.error, *_MISSHAPEN) as error:
        raise StateError(f"damaged state: {error}") from error
    return SymbolState(symbol, ring, header.memory, sequence, *header.failures, *header.predicted_us)


def _header_of(state: SymbolState) -> StateHeader:
    ring = state.ring
    trade_ids, quote_ids = ring.trade_ids, ring.quote_ids
    return StateHeader(
        version=VERSION,
        next_bar=ring.next_bar,
        history_from_us=ring.history_from_us,
        received_us=ring.received_us,
        watermark=ring.watermark,
        trade_ids=trade_ids.seen.intervals,
        trade_series=trade_ids.series.as_dict(),
        newest_trade_us=trade_ids.newest_us,
        late_trades=trade_ids.late_count,
        late_ids=trade_ids.late_ids,
        refused_trades=trade_ids.refused_count,
        quote_series=quote_ids.series.as_dict(),
        closed_update_id=quote_ids.closed_id,
        newest_quote_us=quote_ids.newest_us,
        late_quotes=quote_ids.late_count,
        late_update_ids=quote_ids.late_ids,
        refused_quotes=quote_ids.refused_count,
        reference=ring.reference,
        gaps=ring.gaps,
        memory=state.pending,
        failures=(state.failures, state.failure),
        predicted_us=(state.as_of_us, state.kept_us),
        rows=(
            *(len(ring.bars), len(ring.seconds)),
            *(len(ring.open_trades), len(ring.open_quotes), len(ring.open_reference)),
        ),
    )


def _ring_of(header: StateHeader, lateness_us: int) -> BarRing:
    """The ring in `header`, without its arrays. Raises TypeError or KeyError on series of another shape."""
    return BarRing(
        lateness_us,
        next_bar=header.next_bar,
        history_from_us=header.history_from_us,
        received_us=header.received_us,
        watermark=header.watermark,
        trade_ids=TradeIds(
            seen=IdRanges(header.trade_ids),
            series=IdSeries.from_dict(TRADE_PACE, header.trade_series),
            newest_us=header.newest_trade_us,
            late_count=header.late_trades,
            late_ids=header.late_ids,
            refused_count=header.refused_trades,
        ),
        quote_ids=QuoteIds(
            series=IdSeries.from_dict(QUOTE_PACE, header.quote_series),
            closed_id=header.closed_update_id,
            newest_us=header.newest_quote_us,
            late_count=header.late_quotes,
            late_ids=header.late_update_ids,
            refused_count=header.refused_quotes,
        ),
        reference=header.reference,
        gaps=header.gaps,
    )


def recalled_state(
    symbol: str, lateness_us: int, predictions: list[Prediction], ledger: LedgerRecord | None
) -> SymbolState:
    """The state of `symbol` as far as its newest `predictions` (newest first) and its gap ledger tell.

    The highest trade id is that of the newest bar with a prediction. Trades after it were folded into bars
    that are lost, or never seen: either way no future bar has them, and the ledger will show the hole.
    """
    ring = BarRing(lateness_us, gaps=GapLedger.from_record(ledger) if ledger else GapLedger())
    for prediction in predictions:
        trade_age_ms, quote_age_ms = prediction.trade_age_ms, prediction.quote_age_ms
        if ring.trade_ids.newest_us < 0 and prediction.last_trade_id and trade_age_ms is not None:
            newest_us = _instant_us(prediction.timestamp, trade_age_ms)
            _recall_trades(ring, prediction.last_trade_id, newest_us)
        if ring.quote_ids.newest_us < 0 and quote_age_ms is not None:
            ring.quote_ids.newest_us = _instant_us(prediction.timestamp, quote_age_ms)
            if prediction.update_id is not None:
                _begin_series(ring.quote_ids.series, prediction.update_id, ring.quote_ids.newest_us)
    note_loss(ring, STATE_LOST)
    newest_us = predictions[0].timestamp * 1000 if predictions else -1
    pending = PendingPredictions.recalled(predictions)
    return SymbolState(symbol, ring, pending, as_of_us=newest_us, kept_us=newest_us)


def salvage(state: SymbolState, data: bytes) -> None:
    """Add to `state`, which was recalled, what can be read from `data`, a state of another version: it knows
    trades, holes and outcomes that no receipt shows. Of damaged bytes nothing is used."""
    with suppress(struct.error, *_MISSHAPEN):
        text, _ = _header(data)
        if decode(_Version, text).version == VERSION:
            return
        header = decode(dict[str, Raw], text)
        with suppress(*_MISSHAPEN):
            state.pending.calibrators |= decode(_Calibrators, header["memory"]).calibrators
        with suppress(*_MISSHAPEN):
            _take_trades(state.ring, header)


def _take_trades(ring: BarRing, header: dict[str, Raw]) -> None:
    """Add the trade ids seen, holes and times in another version's header. On damage raises one of
    `_MISSHAPEN`, having added nothing."""
    seen = IdRanges(decode(list[tuple[int, int]], header["trade_ids"]))
    gaps = decode(GapLedger, header["gaps"])
    newest_trade_us, newest_quote_us = (
        decode(int, header[name]) for name in ("newest_trade_us", "newest_quote_us")
    )
    if seen.newest is None or newest_trade_us <= 0:
        return
    ring.trade_ids = TradeIds(seen, trade_series(), newest_trade_us)
    ring.gaps, ring.quote_ids.newest_us = gaps, newest_quote_us
    _begin_series(ring.trade_ids.series, seen.newest, newest_trade_us)


class _Version(Struct):
    """What the header of every version has."""

    version: int


class _Calibrators(Struct):
    """The part of another version's pending predictions that is kept."""

    calibrators: dict[str, Calibrators]


def note_loss(ring: BarRing, cause: str) -> None:
    """Enter into the ledger the `cause` of a hole that begins after the newest trade or quote."""
    known_us = [us for us in (ring.trade_ids.newest_us, ring.quote_ids.newest_us) if us > 0]
    if known_us:
        ring.gaps.noticed((Notice(cause, min(known_us), max(known_us)),))


def _header(data: bytes) -> tuple[bytes, int]:
    """The header's JSON, and where the arrays begin."""
    (length,) = _LENGTH.unpack_from(data)
    return data[_LENGTH.size : _LENGTH.size + length], _LENGTH.size + length


def _recall_trades(ring: BarRing, newest_id: int, newest_us: int) -> None:
    """Enter what was seen up to `newest_id`. Holes after it are part of the one across the loss."""
    ring.gaps.gaps = [gap for gap in ring.gaps.gaps if gap.last_id <= newest_id or gap.to_us <= newest_us]
    holes = [(gap.first_id, gap.last_id) for gap in ring.gaps.gaps if gap.last_id < newest_id]
    ring.trade_ids.seen, ring.trade_ids.newest_us = IdRanges.up_to(newest_id, holes), newest_us
    _begin_series(ring.trade_ids.series, newest_id, newest_us)


def _begin_series(series: IdSeries, newest_id: int, newest_us: int) -> None:
    """Set the id and time by which the next ids continue `series`, are refused, or begin a new one.
    `newest_us` may be up to a millisecond early (`_instant_us`), but the tick itself must not seem later."""
    series.advance(newest_id, newest_us + 1000, 1)


def _instant_us(end_ms: int, age_ms: int) -> int:
    """The time of a tick of that age; ages are whole milliseconds, rounded down."""
    return (end_ms - age_ms - 1) * 1000

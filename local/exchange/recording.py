"""Recordings in the format of the hftbacktest collector: gzip, ``<local time in ns> <one JSON message>``.

Messages of the streams ``@trade``, ``@bookTicker`` and ``@depth…`` are read, others skipped; one
without a stream is the REST depth snapshot. Decimals become mantissas at 1e-8 digit by digit.

Spot ``bookTicker`` messages state no event time. It is estimated as the local time of arrival plus the
offset of the recorder's clock, taken from the recording itself: the median over its trades of event time
minus local time, which also cancels the usual network delay. It needs a first pass over the file
(`inspect`), which finds its symbols and its span as well. Those of the futures state both the event
time E and the transaction time T; `references` reads them as the reference quotes of spot markets.

Events are in the order of arrival. Times of trades and quotes interleave slightly, and a trade and the quote
it hit are in no fixed order, as on the streams.
"""

from __future__ import annotations

import gzip
import heapq
import json
import re
import statistics
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from local.exchange.events import (
    BookDiff,
    BookSnapshot,
    Event,
    Feed,
    Levels,
    Quote,
    ReferenceQuote,
    Sending,
    Tick,
    Trade,
)
from tickcast.market.ticks import mantissa

_TICK_LINE = re.compile(rb'(\d+) \{"stream":"\w+@(trade|bookTicker)"')
_SYMBOL = re.compile(rb'"s":"(\w+)"')
_EVENT_TIME = re.compile(rb'"E":(\d+)')
_TRANSACTION_TIME = re.compile(rb'"T":\d+')


class RecordingError(ValueError):
    """A recording that cannot be read; the message names the file and the line, if it has one."""

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        where = f"{path}" if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {reason}")


class Recording(NamedTuple):
    """The results of the first pass over a file. Times are µs of the exchange's clock."""

    path: Path
    symbols: frozenset[str]
    offset_us: int  # what to add to the recorder's local time
    first_us: int  # arrival of the first trade or quote
    last_us: int
    is_futures: bool = False  # its quotes state their transaction time


def inspect(path: Path) -> Recording:
    """The symbols, clock offset and span of the file. Raises `RecordingError`."""
    symbols: set[bytes] = set()
    offsets: dict[bytes, list[int]] = {b"trade": [], b"bookTicker": []}
    first_us = last_us = 0
    is_futures = False
    for number, line in _lines(path):
        tick = _TICK_LINE.match(line)
        if tick is None:
            continue
        last_us = int(tick[1]) // 1000
        first_us = first_us or last_us
        symbol = _SYMBOL.search(line)
        if symbol is None:
            raise RecordingError(path, number, "the message states no symbol")
        symbols.add(symbol[1])
        if event_time := _EVENT_TIME.search(line):
            offsets[tick[2]].append(int(event_time[1]) * 1000 - last_us)
            is_futures |= tick[2] == b"bookTicker" and _TRANSACTION_TIME.search(line) is not None
    stated = offsets[b"trade"] or offsets[b"bookTicker"]  # a perpetual may be recorded without its trades
    if not stated:
        reason = "no trade with an event time in it: not a recording of the hftbacktest collector"
        raise RecordingError(path, None, reason)
    offset_us = round(statistics.median(stated))
    names = frozenset(symbol.decode() for symbol in symbols)
    return Recording(path, names, offset_us, first_us + offset_us, last_us + offset_us, is_futures)


def read(paths: Iterable[Path]) -> Iterator[Tick]:
    """The trades and quotes of one or several recordings, merged in the order of arrival.

    Files may hold different symbols of one time, or one symbol at different times, in any order. Where
    they overlap, an event recorded twice is returned once. Times and ids stay as recorded; a hole between
    two files remains. Raises `RecordingError`, for a damaged line when it is reached.
    """
    for sending in merge(inspect(path) for path in paths):
        if isinstance(sending.event, Trade | Quote):
            yield sending.event


def merge(recordings: Iterable[Recording]) -> Feed:
    """`arrivals` of all recordings in one order, each trade and quote once. Raises `RecordingError`."""
    newest_ids: dict[tuple[str, type], int] = {}
    for sending in heapq.merge(*map(arrivals, recordings), key=lambda sending: sending.due_us):
        event = sending.event
        if isinstance(event, Trade | Quote):
            key = event.symbol, type(event)
            id_ = event.id if isinstance(event, Trade) else event.update_id
            if id_ <= newest_ids.get(key, -1):
                continue
            newest_ids[key] = id_
        yield sending


def arrivals(recording: Recording) -> Feed:
    """Everything in the file, with its arrival by the exchange's clock as `due_us`.

    Never due before its event time, nor before what arrived earlier. Raises `RecordingError`.
    """
    due_us = 0
    for number, line in _lines(recording.path):
        local_ns, _, text = line.partition(b" ")
        try:
            arrival_us = int(local_ns) // 1000 + recording.offset_us
            found = _event(recording, json.loads(text), arrival_us)
        except KeyError as error:
            raise RecordingError(recording.path, number, f"field {error} is missing") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise RecordingError(recording.path, number, f"damaged: {error}") from None
        if found is not None:
            event, event_time_us = found
            due_us = max(due_us, arrival_us, event_time_us)
            yield Sending(due_us, event_time_us, event)


def references(recording: Recording) -> Feed:
    """The quotes of a recording of futures as reference quotes, due at their arrival as in `arrivals`.

    Raises `RecordingError`.
    """
    due_us = 0
    for number, line in _lines(recording.path):
        tick = _TICK_LINE.match(line)
        if tick is None or tick[2] != b"bookTicker":
            continue
        try:
            data = json.loads(line.partition(b" ")[2])["data"]
            event_time_us, quote = _time_us(data, "E"), _quote(data, _time_us(data, "T"))
        except KeyError as error:
            raise RecordingError(recording.path, number, f"field {error} is missing") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise RecordingError(recording.path, number, f"damaged: {error}") from None
        due_us = max(due_us, int(tick[1]) // 1000 + recording.offset_us, event_time_us)
        yield Sending(due_us, event_time_us, ReferenceQuote(*quote))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise RecordingError(path, number + 1 if number else None, reason) from error


def _event(recording: Recording, message: dict[str, Any], arrival_us: int) -> tuple[Event, int] | None:
    """The event in a message and its event time (µs); None for a message that is skipped."""
    if "stream" not in message:
        return _reply(recording, message, arrival_us)
    kind = message["stream"].partition("@")[2]
    data = message["data"]
    if kind == "trade":
        return _trade(data), _time_us(data, "E")
    if kind == "bookTicker":
        event_time_us = _time_us(data, "E") if "E" in data else arrival_us  # futures state it
        return _quote(data, event_time_us), event_time_us
    if kind.startswith("depth"):
        first_id, last_id = _integer(data, "U"), _integer(data, "u")
        diff = BookDiff(data["s"], first_id, last_id, _levels(data["b"]), _levels(data["a"]))
        return diff, _time_us(data, "E")
    return None


def _reply(recording: Recording, message: dict[str, Any], arrival_us: int) -> tuple[Event, int] | None:
    """A response to the recorder's own request: the depth snapshot, or one to a subscription."""
    if "lastUpdateId" in message:
        if len(recording.symbols) != 1:  # it does not say whose book it is
            return None
        (symbol,) = recording.symbols
        bids, asks = _levels(message["bids"]), _levels(message["asks"])
        return BookSnapshot(symbol, _integer(message, "lastUpdateId"), bids, asks), arrival_us
    if "result" in message:
        return None
    raise ValueError("neither a message of a stream nor a depth snapshot")


def _trade(data: dict[str, Any]) -> Trade:
    if not isinstance(data["m"], bool):
        raise ValueError(f"field 'm' is {data['m']!r}, neither true nor false")
    price, qty = mantissa(data["p"]), mantissa(data["q"])
    return Trade(data["s"], _time_us(data, "T"), _integer(data, "t"), price, qty, data["m"])


def _quote(data: dict[str, Any], event_time_us: int) -> Quote:
    bid_price, bid_qty = mantissa(data["b"]), mantissa(data["B"])
    ask_price, ask_qty = mantissa(data["a"]), mantissa(data["A"])
    update_id = _integer(data, "u")
    return Quote(data["s"], event_time_us, update_id, bid_price, bid_qty, ask_price, ask_qty)


def _levels(levels: list[list[str]]) -> Levels:
    return tuple((mantissa(price), mantissa(qty)) for price, qty in levels)


def _time_us(data: dict[str, Any], field: str) -> int:
    return _integer(data, field) * 1000


def _integer(data: dict[str, Any], field: str) -> int:
    value = data[field]
    if type(value) is not int:
        raise ValueError(f"field {field!r} is {value!r}, not an integer")
    return value

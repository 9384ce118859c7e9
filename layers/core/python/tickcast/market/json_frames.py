"""The keyless feed: the same trades and quotes as JSON text frames of Binance's public mirror.

The spot market's `bookTicker` carries no event time. It is estimated from the local clock and the smallest
delay that trades on this connection have shown lately, which includes the clocks' difference; quotes from
before the first trade wait for it. Times are requested in µs (`timeUnit=MICROSECOND`).

The USD-M futures' `bookTicker` carries two, in ms: of the event and of the transaction, which is the time of
the quote (`decode_references`).

Messages are classified by their members, which come in any order, with the wrapper of a combined stream
(`stream`, `data`) or without. Messages about the connection are returned.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy.typing as npt

from tickcast.market.exchange_clock import AGREEING_FRAMES, AHEAD_US, MAX_CLOCK_ERROR_US
from tickcast.market.frames import Ticks
from tickcast.market.ticks import (
    QuoteRow,
    TickError,
    TradeRow,
    check_trade,
    checked_book,
    mantissa,
    quotes_array,
    trades_array,
)

MAX_UNTIMED = 1000
MAX_MS = 10**14  # beyond it a time is in another unit
_QUOTE_MEMBERS = {"u", "s", "b", "B", "a", "A"}
_CONTROL_MEMBERS = {"result", "error", "code"}  # of replies; one of them is always there

Message = dict[str, Any]


class JsonFrameError(ValueError):
    """A text frame that is not a trade or quote of the streams; the message says what is wrong."""


def unwrapped(message: Message) -> Message:
    """What is in the wrapper of a combined stream; `message` itself where it has none."""
    data = message.get("data")
    return data if "stream" in message and isinstance(data, dict) else message


def is_control(message: Message) -> bool:
    """Whether `message`, unwrapped, is about the connection: a reply to a request, an announced shutdown."""
    if "e" in message:
        return bool(message["e"] == "serverShutdown")
    return not message.keys() >= _QUOTE_MEMBERS and bool(_CONTROL_MEMBERS & message.keys())


class JsonFrames:
    """Decodes the frames of one connection; tracks the offset between the clocks."""

    # The offset decays by this much a second, so that a drifting clock is followed.
    FORGET_US_PER_S = 50

    def __init__(self) -> None:
        self._offset_us: float | None = None  # exchange minus local, at the smallest delay
        self._untimed: list[tuple[str, QuoteRow]] = []  # quotes from before the first trade
        self._offset_at_us = 0
        self._early: list[int] = []  # the latest consecutive offsets that were too far ahead to be accepted

    def decode(self, frames: Sequence[str], received_us: npt.NDArray[Any]) -> Ticks:
        """The ticks of `frames`; a frame's error is in `errors`, and the others are read."""
        trades: dict[str, list[TradeRow]] = defaultdict(list)
        quotes: dict[str, list[QuoteRow]] = defaultdict(list)
        errors, control = _read_each(
            frames, received_us, lambda data, at_us: self._read(data, at_us, trades, quotes)
        )
        if self._offset_us is not None:
            for symbol, (_, at_us, *rest) in self._untimed:
                quotes[symbol].append(cast(QuoteRow, (at_us + round(self._offset_us), at_us, *rest)))
            self._untimed = []
        return Ticks(
            {symbol: trades_array(rows) for symbol, rows in trades.items()},
            {symbol: quotes_array(rows) for symbol, rows in quotes.items()},
            errors,
            control,
        )

    def _read(
        self,
        data: Message,
        received_us: int,
        trades: dict[str, list[TradeRow]],
        quotes: dict[str, list[QuoteRow]],
    ) -> None:
        if data.get("e") == "trade":
            symbol, row = self._trade(data, received_us)
            trades[symbol].append(row)
        elif data.get("e") in (None, "bookTicker") and data.keys() & {"b", "B", "a", "A"}:
            symbol, quote = self._quote(data, received_us)
            if self._offset_us is None:
                self._untimed = [*self._untimed[-MAX_UNTIMED:], (symbol, quote)]
            else:
                quotes[symbol].append(quote)
        else:
            raise JsonFrameError(f"neither a trade nor a quote: {str(data)[:200]}")

    def _trade(self, data: dict[str, Any], received_us: int) -> tuple[str, TradeRow]:
        price, qty = mantissa(data["p"]), mantissa(data["q"])
        trade_id = whole(data["t"])
        check_trade(data["s"], trade_id, price, qty)
        if not isinstance(data["m"], bool):
            raise JsonFrameError(f"m is {data['m']!r}, neither true nor false")
        self._update_offset(whole(data["E"]), received_us)
        side = -1 if data["m"] else 1
        return _symbol(data), (whole(data["T"]), received_us, trade_id, trade_id, price, qty, side)

    def _quote(self, data: dict[str, Any], received_us: int) -> tuple[str, QuoteRow]:
        time_us = received_us + round(self._offset_us or 0.0)
        return _symbol(data), _quote_row(data, time_us, received_us)

    def _update_offset(self, event_time_us: int, received_us: int) -> None:
        """Update the clocks' offset. One event time far ahead would shift all quotes that follow."""
        offset_us = event_time_us - received_us
        if abs(offset_us) > MAX_CLOCK_ERROR_US:
            return
        if offset_us > (self._offset_us or 0.0) + AHEAD_US:
            self._early = [early for early in self._early if abs(early - offset_us) <= AHEAD_US]
            self._early.append(offset_us)
            if len(self._early) < AGREEING_FRAMES:
                return
            self._offset_us = None
        self._early = []
        if self._offset_us is None:
            self._offset_us = offset_us
        else:
            elapsed_s = max(0, received_us - self._offset_at_us) / 1e6
            self._offset_us = max(self._offset_us - self.FORGET_US_PER_S * elapsed_s, offset_us)
        self._offset_at_us = received_us


def decode_references(frames: Sequence[str], received_us: npt.NDArray[Any]) -> Ticks:
    """The quotes of `frames` of the USD-M futures' public streams, by perpetual, with the time of
    the transaction; a frame's error is in `errors`, and the others are read."""
    quotes: dict[str, list[QuoteRow]] = defaultdict(list)

    def read(data: Message, at_us: int) -> None:
        if data.get("e") != "bookTicker":
            raise JsonFrameError(f"not a quote of the futures: {str(data)[:200]}")
        event_ms, transaction_ms = whole(data["E"]), whole(data["T"])
        if max(event_ms, transaction_ms) > MAX_MS:
            raise JsonFrameError(f"a time that is not one in ms: E {event_ms}, T {transaction_ms}")
        symbol, quote = _symbol(data), _quote_row(data, transaction_ms * 1000, at_us)
        quotes[symbol].append(quote)

    errors, control = _read_each(frames, received_us, read)
    return Ticks({}, {symbol: quotes_array(rows) for symbol, rows in quotes.items()}, errors, control)


def _read_each(
    frames: Sequence[str], received_us: npt.NDArray[Any], read: Callable[[Message, int], None]
) -> tuple[list[tuple[int, Exception]], list[Message]]:
    """`read` the messages of `frames` that are data; returns the errors with their frames' indices, and the
    messages about the connection."""
    errors: list[tuple[int, Exception]] = []
    control: list[Message] = []
    for i, (text, at_us) in enumerate(zip(frames, received_us.tolist(), strict=True)):
        try:
            data = _message(text)
            if is_control(data):
                control.append(data)
            else:
                read(data, at_us)
        except (JsonFrameError, TickError) as error:
            errors.append((i, error))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            errors.append((i, JsonFrameError(f"{type(error).__name__} {error} in {str(text)[:200]}")))
    return errors, control


def _quote_row(data: Message, time_us: int, received_us: int) -> QuoteRow:
    bid, bid_qty, ask, ask_qty = (mantissa(data[name]) for name in "bBaA")
    update_id = whole(data["u"])
    return time_us, received_us, update_id, *checked_book(data["s"], update_id, bid, bid_qty, ask, ask_qty)


def _message(text: str | bytes) -> Message:
    """The message in `text`, unwrapped. Raises `JsonFrameError`."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JsonFrameError(f"{type(error).__name__} {error} in {text[:200]!r}") from None
    if not isinstance(message, dict):
        raise JsonFrameError(f"not an object: {text[:200]!r}")
    return unwrapped(message)


def _symbol(data: Message) -> str:
    symbol = data["s"]
    if not isinstance(symbol, str) or not symbol or not symbol.isprintable():
        raise JsonFrameError(f"{symbol!r:.40} is not a symbol")
    return symbol


def whole(value: Any) -> int:
    """`value` if it is a whole number of 64 bits. Raises `JsonFrameError` on anything else."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise JsonFrameError(f"{value!r:.40} is not a whole number of 64 bits")
    return value

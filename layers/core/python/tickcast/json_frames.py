"""The keyless feed: the same trades and quotes as JSON text frames of Binance's public mirror.

`bookTicker` carries no event time. It is estimated from the local clock and the smallest delay that
trades on this connection have lately shown, which holds the clocks' difference too; quotes from before the
first trade wait for it. Times are asked for in µs (`timeUnit=MICROSECOND`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, cast

import numpy.typing as npt

from tickcast.frames import Ticks
from tickcast.ticks import (
    QuoteRow,
    TickError,
    TradeRow,
    check_quote,
    check_trade,
    mantissa,
    quotes_array,
    trades_array,
)

MAX_UNTIMED = 1000


class JsonFrameError(ValueError):
    """A text frame that is no trade or quote of the streams; the message says what is wrong."""


class JsonFrames:
    """Reads the frames of one connection; remembers how far the clocks are apart."""

    # The remembered offset gives way by this much a second, so that a drifting clock is followed.
    FORGET_US_PER_S = 50

    def __init__(self) -> None:
        self._offset_us: float | None = None  # exchange minus local, at the smallest delay
        self._untimed: list[tuple[str, QuoteRow]] = []  # quotes from before the first trade
        self._offset_at_us = 0

    def decode(self, frames: Sequence[str], received_us: npt.NDArray[Any]) -> Ticks:
        """The ticks of `frames`; what is wrong with one is in `errors`, and the others are read."""
        trades: dict[str, list[TradeRow]] = defaultdict(list)
        quotes: dict[str, list[QuoteRow]] = defaultdict(list)
        errors: list[tuple[int, Exception]] = []
        for i, (text, at_us) in enumerate(zip(frames, received_us.tolist(), strict=True)):
            try:
                self._read(text, at_us, trades, quotes)
            except (JsonFrameError, TickError) as error:
                errors.append((i, error))
        if self._offset_us is not None:
            for symbol, (_, at_us, *rest) in self._untimed:
                quotes[symbol].append(cast(QuoteRow, (at_us + round(self._offset_us), at_us, *rest)))
            self._untimed = []
        return Ticks(
            {symbol: trades_array(rows) for symbol, rows in trades.items()},
            {symbol: quotes_array(rows) for symbol, rows in quotes.items()},
            errors,
        )

    def _read(
        self,
        text: str,
        received_us: int,
        trades: dict[str, list[TradeRow]],
        quotes: dict[str, list[QuoteRow]],
    ) -> None:
        try:
            message = json.loads(text)
            data = message["data"]
            kind = message["stream"].rpartition("@")[2]
            if kind == "trade":
                symbol, row = self._trade(data, received_us)
                trades[symbol].append(row)
            elif kind == "bookTicker":
                symbol, quote = self._quote(data, received_us)
                if self._offset_us is None:
                    self._untimed = [*self._untimed[-MAX_UNTIMED:], (symbol, quote)]
                else:
                    quotes[symbol].append(quote)
            else:
                raise JsonFrameError(f"unknown stream {message['stream']!r}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, JsonFrameError | TickError):
                raise
            raise JsonFrameError(f"{type(error).__name__} {error} in {text[:200]!r}") from None

    def _trade(self, data: dict[str, Any], received_us: int) -> tuple[str, TradeRow]:
        price, qty = mantissa(data["p"]), mantissa(data["q"])
        trade_id = whole(data["t"])
        check_trade(data["s"], trade_id, price, qty)
        if not isinstance(data["m"], bool):
            raise JsonFrameError(f"m is {data['m']!r}, neither true nor false")
        self._see_delay(whole(data["E"]), received_us)
        side = -1 if data["m"] else 1
        return str(data["s"]), (whole(data["T"]), received_us, trade_id, trade_id, price, qty, side)

    def _quote(self, data: dict[str, Any], received_us: int) -> tuple[str, QuoteRow]:
        bid, bid_qty, ask, ask_qty = (mantissa(data[name]) for name in "bBaA")
        update_id = whole(data["u"])
        check_quote(data["s"], update_id, bid, bid_qty, ask, ask_qty)
        time_us = received_us + round(self._offset_us or 0.0)
        return str(data["s"]), (time_us, received_us, update_id, bid, bid_qty, ask, ask_qty)

    def _see_delay(self, event_time_us: int, received_us: int) -> None:
        offset_us = event_time_us - received_us
        if self._offset_us is None:
            self._offset_us = offset_us
        else:
            elapsed_s = max(0, received_us - self._offset_at_us) / 1e6
            self._offset_us = max(self._offset_us - self.FORGET_US_PER_S * elapsed_s, offset_us)
        self._offset_at_us = received_us


def whole(value: Any) -> int:
    """`value` if it is a whole number of 64 bits. Raises `JsonFrameError` on anything else."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise JsonFrameError(f"{value!r:.40} is no whole number of 64 bits")
    return value

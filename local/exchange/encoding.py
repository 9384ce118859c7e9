"""Binance's two encodings of market data streams; a connection selects one by the path it connects to.

`Sbe` is that of stream-sbe.binance.com, which asks for a key. `Json` is that of the public mirror,
data-stream.binance.vision, here under the prefix `/json`. They differ in the frames and in the name of the
stream of quotes; the rest of the protocol is the same.

`Usdm` is that of the public streams of the USD-M futures, fstream.binance.com/public, here under the prefix
`/usdm/public`: texts as well, but their quotes state an event time and a transaction time, in ms.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

from local.exchange.events import Quote, ReferenceQuote, Sending, Trade, decimal
from tickcast.market.ticks import SCALE_EXPONENT
from tickcast.sbe import BestBidAskEvent, SbeTrade, TradesEvent, encode


class Message(NamedTuple):
    """A message of one stream: a binary frame (bytes) or a text frame (str)."""

    stream: str
    symbol: str
    kind: type  # Trade, Quote or ReferenceQuote
    content: bytes | str


@dataclass(frozen=True)
class Sbe:
    needs_key: ClassVar = True
    streams: ClassVar[Mapping[type, str]] = {Trade: "trade", Quote: "bestBidAsk"}

    def messages(self, symbol: str, sendings: Sequence[Sending]) -> Iterator[Message]:
        """The frames of one symbol's ticks, in order."""
        for kind, frame in frames(sendings):
            yield Message(stream_name(symbol, self.streams[kind]), symbol, kind, frame)


@dataclass(frozen=True)
class Json:
    """`is_combined` wraps a payload in an object that names its stream; `is_micro` states times in µs."""

    is_combined: bool
    is_micro: bool
    needs_key: ClassVar = False
    streams: ClassVar[Mapping[type, str]] = {Trade: "trade", Quote: "bookTicker"}

    def messages(self, symbol: str, sendings: Sequence[Sending]) -> Iterator[Message]:
        """The texts of one symbol's ticks, in order."""
        for kind, text in texts(sendings, self.is_micro):
            stream = stream_name(symbol, self.streams[kind])
            content = _combined(stream, text) if self.is_combined else text
            yield Message(stream, symbol, kind, content)


@dataclass(frozen=True)
class Usdm:
    """`is_combined` as of `Json`. Of a market it has the perpetual's quotes alone."""

    is_combined: bool
    needs_key: ClassVar = False
    streams: ClassVar[Mapping[type, str]] = {ReferenceQuote: "bookTicker"}

    def messages(self, symbol: str, sendings: Sequence[Sending]) -> Iterator[Message]:
        """The texts of the quotes of one market's perpetual, in order."""
        stream = stream_name(symbol, self.streams[ReferenceQuote])
        for _, event_time_us, event in sendings:
            if isinstance(event, ReferenceQuote):
                text = _text(_futures_book_ticker(event, event_time_us))
                content = _combined(stream, text) if self.is_combined else text
                yield Message(stream, symbol, ReferenceQuote, content)


Encoding = Sbe | Json | Usdm


def stream_name(symbol: str, suffix: str) -> str:
    """
    >>> stream_name("BTCUSDT", "trade")
    'btcusdt@trade'
    """
    return f"{symbol.lower()}@{suffix}"


def frames(sendings: Iterable[Sending]) -> Iterator[tuple[type, bytes]]:
    """The frames of one symbol's ticks in order, each with what it holds: `Trade` or `Quote`.

    Consecutive trades of one transact time and event time share a frame, as the fills of an order do.
    """
    for _, group in groupby(sendings, key=_frame_key):
        ticks = list(group)
        _, event_time_us, first = ticks[0]
        if isinstance(first, Quote):
            yield Quote, encode(_best_bid_ask(first, event_time_us))
        else:
            trades = [tick.event for tick in ticks if isinstance(tick.event, Trade)]
            yield Trade, encode(_trades(trades, event_time_us))


def _frame_key(sending: Sending) -> tuple[str, int, int]:
    if isinstance(sending.event, Trade):
        return "trade", sending.event.time_us, sending.event_time_us
    return "quote", id(sending), 0  # every quote has a frame to itself


def _best_bid_ask(quote: Quote, event_time_us: int) -> BestBidAskEvent:
    symbol, _, update_id, *top = quote
    return BestBidAskEvent._make((event_time_us, update_id, SCALE_EXPONENT, SCALE_EXPONENT, *top, symbol))


def _trades(trades: list[Trade], event_time_us: int) -> TradesEvent:
    symbol, transact_time_us = trades[0].symbol, trades[0].time_us
    fills = tuple(SbeTrade(trade.id, trade.price, trade.qty, trade.is_buyer_maker) for trade in trades)
    return TradesEvent(event_time_us, transact_time_us, SCALE_EXPONENT, SCALE_EXPONENT, fills, symbol)


def texts(sendings: Iterable[Sending], is_micro: bool) -> Iterator[tuple[type, str]]:
    """The payload of each tick, with what it holds: `Trade` or `Quote`. Times in µs or else in ms."""
    for _, event_time_us, event in sendings:
        match event:
            case Trade():
                yield Trade, _text(_trade(event, event_time_us, 1 if is_micro else 1_000))
            case Quote():
                yield Quote, _text(_book_ticker(event))


def _trade(trade: Trade, event_time_us: int, unit_us: int) -> dict[str, Any]:
    return {
        "e": "trade",
        "E": event_time_us // unit_us,
        "s": trade.symbol,
        "t": trade.id,
        "p": decimal(trade.price),
        "q": decimal(trade.qty),
        "T": trade.time_us // unit_us,
        "m": trade.is_buyer_maker,
        "M": True,
    }


def _book_ticker(quote: Quote | ReferenceQuote) -> dict[str, Any]:
    return {
        "u": quote.update_id,
        "s": quote.symbol,
        "b": decimal(quote.bid_price),
        "B": decimal(quote.bid_qty),
        "a": decimal(quote.ask_price),
        "A": decimal(quote.ask_qty),
    }


def _futures_book_ticker(quote: ReferenceQuote, event_time_us: int) -> dict[str, Any]:
    return {
        "e": "bookTicker",
        **_book_ticker(quote),
        "T": quote.time_us // 1_000,
        "E": event_time_us // 1_000,
    }


def _combined(stream: str, text: str) -> str:
    return f'{{"stream":"{stream}","data":{text}}}'


def _text(payload: dict[str, Any]) -> str:
    return json.dumps(payload, separators=(",", ":"))

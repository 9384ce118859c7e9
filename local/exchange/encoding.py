"""Binance's two encodings of market data streams; a connection selects one by the path it connects to.

`Sbe` is that of stream-sbe.binance.com, which asks for a key. `Json` is that of the public mirror,
data-stream.binance.vision, here under the prefix `/json`. They differ in the frames and in the name of the
stream of quotes; the rest of the protocol is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from local.exchange.events import Quote, Sending, Trade
from local.exchange.frames import frames
from local.exchange.json_frames import texts


class Message(NamedTuple):
    """A message of one stream: a binary frame (bytes) or a text frame (str)."""

    stream: str
    symbol: str
    kind: type  # Trade or Quote
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
            content = f'{{"stream":"{stream}","data":{text}}}' if self.is_combined else text
            yield Message(stream, symbol, kind, content)


Encoding = Sbe | Json


def stream_name(symbol: str, suffix: str) -> str:
    """
    >>> stream_name("BTCUSDT", "trade")
    'btcusdt@trade'
    """
    return f"{symbol.lower()}@{suffix}"

"""A connection's frames on their way to becoming ticks: taken one by one, decoded a linger at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.frames import Ticks, decode_frames
from tickcast.json_frames import JsonFrames
from tickcast.session import Newest
from tickcast.ticks import TRADE, Quotes, TickError, Trades
from tickcast.wire import CLOCKS_APART_US

# How far the exchange's clock may be apart between the streams of one connection, which keeps their order.
STREAMS_APART_US = 100_000
# A claim rests on data that came: it is not repeated for longer than this after the newest of them.
CLAIM_LIFE_US = 2_000_000

Decode = Callable[[Sequence[Any], npt.NDArray[Any]], Ticks]


def decoder(protocol: str) -> Decode:
    return decode_frames if protocol == "sbe" else JsonFrames().decode


class Lane:
    """One connection. `name` tells connections, and tasks, apart downstream.

    `newest` is what was known by symbol when the connection opened; from then on what came by it.
    """

    def __init__(
        self, number: int, name: str, protocol: str, newest: Mapping[str, Newest] | None = None
    ) -> None:
        self.number = number
        self.name = name
        self.withdrawn: set[str] = set()  # symbols it may claim nothing of, though it delivers
        self.newest = dict(newest or {})
        self._newest_us: dict[str, int] = {}  # exchange time, by symbol
        self._newest_received_us = -1
        self._decode = decoder(protocol)
        self._frames: list[Any] = []
        self._received_us: list[int] = []

    def take(self, frame: bytes | str, received_us: int) -> None:
        self._frames.append(frame)
        self._received_us.append(received_us)

    def drain(self) -> Ticks:
        """The ticks of the frames taken since the last time."""
        frames, received_us = self._frames, np.array(self._received_us, np.int64)
        self._frames, self._received_us = [], []
        ticks = self._decode(frames, received_us)
        for by_symbol in (ticks.trades, ticks.quotes):
            for symbol in list(by_symbol):
                rows = by_symbol[symbol]
                is_wild = rows["time_us"] - rows["receive_time_us"] > CLOCKS_APART_US
                if is_wild.any():
                    wild_us = int(rows["time_us"][is_wild].max())
                    ticks.errors.append((-1, TickError(f"{symbol}: a tick from the future, {wild_us} µs")))
                    rows = by_symbol[symbol] = rows[~is_wild]
                if not len(rows):
                    del by_symbol[symbol]
                    continue
                self._saw(symbol, rows)
        return ticks

    @property
    def delivers(self) -> bool:
        """Whether any tick came."""
        return bool(self._newest_us)

    def watermark_us(self, symbol: str, now_us: int) -> int | None:
        """The exchange time up to which all of `symbol` has come; None where nothing can be claimed.

        Streams of one connection arrive in their order: what came of any of them, but for their clocks being
        apart, proves how far all have come. Without new data nothing is claimed, whatever the clock says.
        """
        if symbol in self.withdrawn or not self.delivers or now_us - self._newest_received_us > CLAIM_LIFE_US:
            return None
        newest_us = max(self._newest_us.values())
        return max(newest_us - STREAMS_APART_US, self._newest_us.get(symbol, -1))

    def _saw(self, symbol: str, rows: Trades | Quotes) -> None:
        self._newest_us[symbol] = max(self._newest_us.get(symbol, -1), int(rows["time_us"].max()))
        self._newest_received_us = max(self._newest_received_us, int(rows["receive_time_us"].max()))
        known = self.newest.get(symbol, Newest())
        if rows.dtype == TRADE:
            self.newest[symbol] = known._replace(trade_id=int(rows["last_id"].max()))
        else:
            bid_price, bid_qty, ask_price, ask_qty = rows[rows["update_id"].argmax()].tolist()[3:]
            self.newest[symbol] = known._replace(book=(bid_price, bid_qty, ask_price, ask_qty))

"""A connection's frames on their way to becoming ticks: taken one by one, decoded a linger at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.frames import Ticks, decode_frames
from tickcast.json_frames import JsonFrames
from tickcast.session import Watermark
from tickcast.ticks import TickError
from tickcast.wire import CLOCKS_APART_US

Decode = Callable[[Sequence[Any], npt.NDArray[Any]], Ticks]


def decoder(protocol: str) -> Decode:
    return decode_frames if protocol == "sbe" else JsonFrames().decode


class Lane:
    """One connection. `name` tells connections, and tasks, apart downstream."""

    def __init__(self, number: int, name: str, protocol: str) -> None:
        self.number = number
        self.name = name
        self.is_stalled = False  # it may deliver, but claims nothing any more
        self.watermarks: dict[str, Watermark] = {}
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
                newest = rows["receive_time_us"].argmax()
                self.watermarks.setdefault(symbol, Watermark()).saw(
                    int(rows["time_us"].max()), int(rows["receive_time_us"][newest])
                )
        return ticks

    def watermark_us(self, symbol: str, now_us: int) -> int | None:
        watermark = self.watermarks.get(symbol)
        return None if watermark is None or self.is_stalled else watermark.at(now_us)

"""A connection's frames on their way to becoming ticks: taken one by one, decoded a linger at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.market.exchange_clock import BEHIND_US, TIMING_REASONS, ExchangeClock, Timing
from tickcast.market.frames import Ticks, decode_frames
from tickcast.market.json_frames import JsonFrames
from tickcast.market.session import Newest
from tickcast.market.ticks import QUOTE, TRADE, Quotes, TickError, Trades

# How far the exchange's clock may be apart between the streams of one connection, which keeps their order.
STREAMS_APART_US = 100_000
# A claim rests on data that came: it is not repeated for longer than this after the newest of them.
CLAIM_LIFE_US = 2_000_000

Decode = Callable[[Sequence[Any], npt.NDArray[Any]], Ticks]
Control = Callable[[dict[str, Any]], None]

_NO_TRADES, _NO_QUOTES = np.empty(0, TRADE), np.empty(0, QUOTE)


def decoder(protocol: str) -> Decode:
    return decode_frames if protocol == "sbe" else JsonFrames().decode


class RefusedFrame(NamedTuple):
    data: bytes
    error: Exception


class RefusedTicks(NamedTuple):
    """Ticks of one symbol that cannot be."""

    symbol: str
    trades: Trades
    quotes: Quotes
    error: Exception


class FeedBuffer:
    """One connection. `name` tells connections, and tasks, apart downstream; `on_control` is given the
    messages among the frames that are about the connection. `newest` is what came by it, by symbol."""

    def __init__(
        self,
        number: int,
        name: str,
        protocol: str,
        on_control: Control = lambda message: None,
    ) -> None:
        self.number = number
        self.name = name
        self.withdrawn: set[str] = set()  # symbols it may claim nothing of, though it delivers
        self.newest: dict[str, Newest] = {}
        self.refused: list[RefusedFrame | RefusedTicks] = []  # since the caller last took them
        self._reached_us: dict[tuple[str, Any], int] = {}  # exchange time, by symbol and dtype
        self._newest_of_all_us = -1
        self._newest_received_us = -1
        self._decode = decoder(protocol)
        self._on_control = on_control
        self._frames: list[Any] = []
        self._received_us: list[int] = []
        self._clock = ExchangeClock()
        # On the keyless feed a quote's time is made from its receipt, and is no evidence.
        self._are_quotes_stamped = protocol == "sbe"
        self._undecided: list[tuple[str, Trades | Quotes]] = []

    def take(self, frame: bytes | str, received_us: int) -> None:
        self._frames.append(frame)
        self._received_us.append(received_us)

    def drain(self) -> Ticks:
        """The ticks of the frames taken since the last time, but for those that cannot be."""
        frames, received_us = self._frames, np.array(self._received_us, np.int64)
        self._frames, self._received_us = [], []
        ticks = self._decode(frames, received_us)
        for index, error in ticks.errors:
            frame = frames[index]
            data = frame.encode(errors="replace") if isinstance(frame, str) else frame
            self.refused.append(RefusedFrame(data, error))
        self._judge_times(ticks)
        for by_symbol in (ticks.trades, ticks.quotes):
            for symbol, rows in by_symbol.items():
                self._saw(symbol, rows)
        for message in ticks.control:
            self._on_control(message)
        return ticks

    @property
    def delivers(self) -> bool:
        """Whether any tick came."""
        return bool(self._reached_us)

    def give_up_undecided(self) -> None:
        """Nothing comes any more by which the ticks that are still undecided could be judged."""
        for symbol, rows in self._undecided:
            self._refuse(symbol, rows, "a time off the clock, with nothing to compare it with")
        self._undecided = []

    def watermark_us(self, symbol: str, now_us: int) -> int | None:
        """The exchange time up to which all of `symbol` has come; None where nothing can be claimed.

        Streams of one connection arrive in their order: what came of any of them, but for their clocks being
        apart, proves how far all have come. Without new data nothing is claimed, whatever the clock says.
        """
        if symbol in self.withdrawn or not self.delivers or now_us - self._newest_received_us > CLAIM_LIFE_US:
            return None
        own_us = max(self._reached_us.get((symbol, dtype), -1) for dtype in (TRADE, QUOTE))
        claim_us = max(self._newest_of_all_us - STREAMS_APART_US, own_us)
        # The clock may have been found to be elsewhere since.
        return min(claim_us, self._clock.latest_us(self._newest_received_us))

    def _saw(self, symbol: str, rows: Trades | Quotes) -> None:
        received_us = int(rows["receive_time_us"].max())
        newest_us = min(int(rows["time_us"].max()), self._clock.latest_us(received_us))
        self._newest_of_all_us = max(self._newest_of_all_us, newest_us)
        stream = symbol, rows.dtype
        self._reached_us[stream] = max(self._reached_us.get(stream, -1), newest_us)
        self._newest_received_us = max(self._newest_received_us, received_us)
        known = self.newest.get(symbol, Newest())
        if rows.dtype == TRADE:
            self.newest[symbol] = known._replace(trade_id=int(rows["last_id"].max()))
        else:
            bid_price, bid_qty, ask_price, ask_qty = rows[rows["update_id"].argmax()].tolist()[3:]
            self.newest[symbol] = known._replace(book=(bid_price, bid_qty, ask_price, ask_qty))

    def _judge_times(self, ticks: Ticks) -> None:
        """Leave in `ticks` what the clock allows, with what it could not decide before."""
        stamped = (ticks.trades, ticks.quotes) if self._are_quotes_stamped else (ticks.trades,)
        for symbol, rows in self._undecided:
            by_symbol = ticks.trades if rows.dtype == TRADE else ticks.quotes
            by_symbol[symbol] = np.concatenate([rows, by_symbol[symbol]]) if symbol in by_symbol else rows
        self._undecided = []
        parts = [(by, symbol, by[symbol]) for by in stamped for symbol in by]
        if not parts:
            return
        times_us, received_us = (
            np.concatenate([rows[name] for _, _, rows in parts]) for name in ("time_us", "receive_time_us")
        )
        verdicts = self._clock.classify(times_us, received_us)
        if not verdicts.any():
            return
        at = 0
        for by_symbol, symbol, rows in parts:
            of_rows = verdicts[at : at + len(rows)]
            at += len(rows)
            # What lags behind the other streams is late, but right as long as it continues its own.
            reached_us = self._reached_us.get((symbol, rows.dtype))
            if reached_us is not None:
                continues = rows["time_us"] >= reached_us - BEHIND_US
                of_rows[(of_rows == Timing.BEHIND) & continues] = Timing.FITS
            by_symbol[symbol] = rows[of_rows == Timing.FITS]
            if not len(by_symbol[symbol]):
                del by_symbol[symbol]
            undecided = rows[of_rows == Timing.UNDECIDED]
            if len(undecided):
                self._undecided.append((symbol, undecided))
            for verdict, reason in TIMING_REASONS.items():
                if (of_rows == verdict).any():
                    far_off = rows[of_rows == verdict]
                    ticks.errors.append((-1, self._refuse(symbol, far_off, reason)))

    def _refuse(self, symbol: str, rows: Trades | Quotes, reason: str) -> TickError:
        error = TickError(f"{symbol}: {reason}")
        trades, quotes = (rows, _NO_QUOTES) if rows.dtype == TRADE else (_NO_TRADES, rows)
        self.refused.append(RefusedTicks(symbol, trades, quotes, error))
        return error

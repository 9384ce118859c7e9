"""A connection's frames on their way to ticks: taken one by one, decoded together after each linger."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.market.exchange_clock import BEHIND_US, TIMING_REASONS, ExchangeClock, Timing, Timings
from tickcast.market.frames import Ticks, decode_frames
from tickcast.market.json_frames import JsonFrames, decode_references
from tickcast.market.liveness import Newest
from tickcast.market.ticks import QUOTE, TRADE, Quotes, TickArray, TickError, Trades, selected
from tickcast.market.watermark import ConnectionProgress, SymbolStream

Decode = Callable[[Sequence[Any], npt.NDArray[Any]], Ticks]
Control = Callable[[dict[str, Any]], None]

_NO_TRADES, _NO_QUOTES = np.empty(0, TRADE), np.empty(0, QUOTE)


class RefusedFrame(NamedTuple):
    data: bytes
    error: Exception


class RefusedTicks(NamedTuple):
    """Impossible ticks of one symbol."""

    symbol: str
    trades: Trades
    quotes: Quotes
    error: Exception


class FeedBuffer:
    """One connection. `protocol`: "sbe", "json", or "usdm" for the quotes of the USD-M futures. `name`
    identifies it downstream, across tasks; `on_control` gets the messages about the connection. `newest` is
    the newest data received on it, by symbol. It can claim something of `symbols` alone; None: of any."""

    def __init__(
        self,
        number: int,
        name: str,
        protocol: str,
        on_control: Control = lambda message: None,
        symbols: Collection[str] | None = None,
    ) -> None:
        self.number = number
        self.name = name
        self._symbols = symbols
        self.withdrawn: set[str] = set()  # symbols of which it may claim nothing
        self.newest: dict[str, Newest] = {}
        self.refused: list[RefusedFrame | RefusedTicks] = []  # since the caller last took them
        self._progress = ConnectionProgress()
        self._decode = _decoder(protocol)
        self._on_control = on_control
        self._frames: list[Any] = []
        self._received_us: list[int] = []
        self._clock = ExchangeClock()
        # On the keyless feed a quote's time is estimated from its receipt: no evidence.
        self._are_quotes_stamped = protocol != "json"
        self._undecided: list[tuple[str, TickArray]] = []

    def take(self, frame: bytes | str, received_us: int) -> None:
        self._frames.append(frame)
        self._received_us.append(received_us)

    def drain(self) -> Ticks:
        """The ticks of the frames taken since the last call, without impossible ones."""
        frames, received_us = self._frames, np.array(self._received_us, np.int64)
        self._frames, self._received_us = [], []
        ticks = self._decode(frames, received_us)
        for index, error in ticks.errors:
            frame = frames[index]
            data = frame.encode(errors="replace") if isinstance(frame, str) else frame
            self.refused.append(RefusedFrame(data, error))
        self._check_times(ticks)
        for by_symbol in (ticks.trades, ticks.quotes):
            for symbol, rows in by_symbol.items():
                self._advance(symbol, rows)
        for message in ticks.control:
            self._on_control(message)
        return ticks

    def delivers(self, symbol: str) -> bool:
        """Whether it carries `symbol`, and any tick came."""
        return self._carries(symbol) and bool(self._progress.reached_us)

    def _carries(self, symbol: str) -> bool:
        return self._symbols is None or symbol in self._symbols

    def refuse_undecided(self) -> None:
        """Refuse the undecided ticks: nothing more will arrive to compare them with."""
        for symbol, rows in self._undecided:
            self._refuse(symbol, rows, "a time off the clock, with nothing to compare it with")
        self._undecided = []

    def claim_us(self, symbol: str, now_us: int) -> int | None:
        """The exchange time (µs) up to which all of `symbol` has arrived on the connection; None if nothing
        can be claimed at the local time `now_us`."""
        # What other streams prove holds only for a symbol whose streams come on the same connection.
        if symbol in self.withdrawn or not self._carries(symbol):
            return None
        claim_us = self._progress.claim_us(symbol, now_us)
        if claim_us is None:
            return None
        # Another offset of the clock may have been adopted since.
        return min(claim_us, self._clock.latest_us(self._progress.newest_received_us))

    def _advance(self, symbol: str, rows: TickArray) -> None:
        received_us = int(rows["receive_time_us"].max())
        newest_us = min(int(rows["time_us"].max()), self._clock.latest_us(received_us))
        self._progress.advance(_stream(symbol, rows), newest_us, received_us)
        known = self.newest.get(symbol, Newest())
        if rows.dtype == TRADE:
            self.newest[symbol] = known._replace(trade_id=int(rows["last_id"].max()))
        else:
            bid_price, bid_qty, ask_price, ask_qty = rows[rows["update_id"].argmax()].tolist()[3:]
            self.newest[symbol] = known._replace(book=(bid_price, bid_qty, ask_price, ask_qty))

    def _check_times(self, ticks: Ticks) -> None:
        """Keep in `ticks` those that fit the clock, including those undecided before."""
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
        timings = self._clock.classify(times_us, received_us)
        if not timings.any():
            return
        at = 0
        for by_symbol, symbol, rows in parts:
            fitting = self._fitting(symbol, rows, timings[at : at + len(rows)], ticks)
            at += len(rows)
            if len(fitting):
                by_symbol[symbol] = fitting
            else:
                del by_symbol[symbol]

    def _fitting(self, symbol: str, rows: TickArray, timings: Timings, ticks: Ticks) -> TickArray:
        """Those of `rows` that fit; the others wait until they are decided, or are refused as errors of
        `ticks`."""
        # A stream that lags behind the others is late, but valid as long as it continues.
        reached_us = self._progress.reached_us.get(_stream(symbol, rows))
        if reached_us is not None:
            continues = rows["time_us"] >= reached_us - BEHIND_US
            timings[(timings == Timing.BEHIND) & continues] = Timing.FITS
        undecided = rows[timings == Timing.UNDECIDED]
        if len(undecided):
            self._undecided.append((symbol, undecided))
        for timing, reason in TIMING_REASONS.items():
            if (timings == timing).any():
                ticks.errors.append((-1, self._refuse(symbol, rows[timings == timing], reason)))
        return selected(rows, timings == Timing.FITS)

    def _refuse(self, symbol: str, rows: TickArray, reason: str) -> TickError:
        error = TickError(f"{symbol}: {reason}")
        trades, quotes = (rows, _NO_QUOTES) if rows.dtype == TRADE else (_NO_TRADES, rows)
        self.refused.append(RefusedTicks(symbol, trades, quotes, error))
        return error


def _decoder(protocol: str) -> Decode:
    if protocol == "usdm":
        return decode_references
    return decode_frames if protocol == "sbe" else JsonFrames().decode


def _stream(symbol: str, rows: TickArray) -> SymbolStream:
    return symbol, "trades" if rows.dtype == TRADE else "quotes"

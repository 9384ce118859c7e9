"""Ticks into Kinesis: one wire batch per symbol and linger, in order, nothing accepted is lost.

PutRecords keeps no order across partial failures, so a call carries at most one record per symbol, and a
record that failed stays at the head of its symbol's queue: later ones wait behind it. The queue is bounded
in bytes (a minute at a quarter of what a shard takes, an hour of an ordinary market); beyond that the oldest
batch is dropped, counted, and reported downstream as a notice, for REST to repair.

Batches also carry what only ingest knows: how far a connection has come (watermarks), and between which
instants ticks may have been missed and why (notices). A jump in trade ids gets a notice of its own, of the
exact time between the trades before and after it: a connection's end or a bad frame may lie well apart from
the trade that shows the hole.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from ingest_ecs.lane import Lane
from tickcast import wire
from tickcast.sbe import SbeError
from tickcast.session import Stall
from tickcast.ticks import Quotes, Trades, quotes_array, span_us, trades_array
from tickcast.wire import Notice

MAX_TICKS_PER_RECORD = 10_000  # 600 KB, within Kinesis' 1 MB a record
MAX_WAITING_BYTES = 16 * 2**20  # of one symbol
WATERMARK_EVERY_S = 1.0
RETRY_S = 0.5
STARTED = "ingest was not running"
UNREADABLE = "a frame could not be read"
OVERFLOW = "overflow: Kinesis was out of reach"
SKIPPED = "skipped by the exchange on an open connection"

_NO_TRADES, _NO_QUOTES = trades_array([]), quotes_array([])


@dataclass
class _Queue:
    """One symbol's batches on their way."""

    waiting: deque[tuple[bytes, int]] = field(default_factory=deque)  # encoded records and their ticks
    waiting_bytes: int = 0
    notices: list[Notice] = field(default_factory=list)  # to go with the next batch
    newest_us: int = 0  # exchange time of the newest tick
    lost_why: str | None = STARTED  # set while no connection delivers: the next tick ends the gap
    claimed_s: dict[str, float] = field(default_factory=dict)  # by connection: when it last claimed
    quiet_us: int = wire.NEVER_QUIET  # when the exchange last had nothing that had not come
    newest_id: int | None = None  # the highest trade id
    newest_trade_us: int = 0  # its exchange time
    suspect: str | None = None  # why trades may be missing before the next one

    def tell(self, notice: Notice) -> None:
        """Add `notice`, as one with another of the same cause: a flood of them must not fill a record."""
        for at, told in enumerate(self.notices):
            if told.cause == notice.cause:
                from_us, to_us = min(told.from_us, notice.from_us), max(told.to_us, notice.to_us)
                self.notices[at] = Notice(notice.cause, from_us, to_us)
                return
        self.notices.append(notice)


@dataclass
class Counts:
    ticks_in: int = 0
    ticks_put: int = 0
    records_put: int = 0
    bytes_put: int = 0
    put_failures: int = 0
    dropped_records: int = 0
    dropped_ticks: int = 0


class Producer:
    """`run` turns what lanes took into records and puts them, until `drain` was asked for and all are out.

    `saw_data(connection, symbol, kind)` is called for each stream that delivered. The ticks of `busy_symbol`,
    unless it is one of `symbols`, are for nothing else: they show that a connection is alive.
    """

    def __init__(
        self,
        kinesis: Any,
        stream_name: str,
        symbols: tuple[str, ...],
        source: str,
        linger_s: float,
        logger: Logger,
        saw_data: Callable[[int, str, str], None] = lambda connection, symbol, kind: None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        busy_symbol: str | None = None,
    ) -> None:
        self._kinesis = kinesis
        self._stream_name = stream_name
        self._source = source
        self._linger_s = linger_s
        self._logger = logger
        self._saw_data = saw_data
        self._now_us = now_us
        self._busy_symbol = busy_symbol
        self._queues = {symbol: _Queue() for symbol in symbols}
        self._lanes: list[Lane] = []
        self._draining = asyncio.Event()
        self.counts = Counts()
        self.bad_frames: Counter[str] = Counter()  # by reason
        self.last_tick_us: dict[str, int] = {}  # local time, by symbol
        self.last_error: str | None = None
        self.turned_s = time.monotonic()  # when the loop last came round: a stuck task shows by it

    def open_lane(self, lane: Lane) -> None:
        self._lanes.append(lane)

    def close_lane(self, lane: Lane, why: str) -> None:
        """`lane`'s connection ended; if no other delivers, what follows begins with a gap."""
        for each in self._lanes:  # what another has taken counts as delivered
            self._pack_lane(each)
        self._lanes.remove(lane)
        for symbol in self._queues:
            self._withdraw(symbol, lane)
        if not any(other.delivers for other in self._lanes):
            for queue in self._queues.values():
                queue.lost_why = queue.lost_why or why
                queue.suspect = queue.suspect or why

    def stalled(self, stall: Stall) -> None:
        """A stream brought nothing for so long that it is held to have been missed."""
        queue, now_us = self._queues[stall.symbol], self._now_us()
        why = f"no {stall.kind} came on an open connection"
        queue.notices.append(Notice(why, now_us - int(stall.seconds * 1e6), now_us))
        if stall.kind == "trades":
            queue.suspect = queue.suspect or why

    def quiet(self, symbol: str, at_us: int) -> None:
        """At the local time `at_us` the exchange had nothing of `symbol` that had not come."""
        queue = self._queues[symbol]
        queue.quiet_us = max(queue.quiet_us, at_us)
        queue.claimed_s = dict.fromkeys(queue.claimed_s, float("-inf"))  # goes with a claim, now

    def drain(self) -> None:
        """Put what was taken, then let `run` return."""
        self._draining.set()

    async def run(self) -> None:
        while True:
            self.turned_s = time.monotonic()
            if not self._draining.is_set():
                await self._linger(self._linger_s)
            self.pack()
            if self._draining.is_set() and not self.waiting_records():
                return
            if not await self._put_heads():
                await self._linger(RETRY_S)

    async def _linger(self, seconds: float) -> None:
        if self._draining.is_set():
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()

    # ------------------------------------------------------------------------------------------ packing

    def pack(self) -> None:
        """Turn what the lanes took into records; a quiet symbol gets a bare watermark now and then."""
        for lane in self._lanes:
            self._pack_lane(lane)
        now_us = self._now_us()
        for symbol, queue in self._queues.items():
            for lane in self._lanes:
                watermark_us = lane.watermark_us(symbol, now_us)
                if watermark_us is None:
                    self._withdraw(symbol, lane)
                elif now_us / 1e6 - queue.claimed_s.get(lane.name, float("-inf")) >= WATERMARK_EVERY_S:
                    self._enqueue(symbol, lane, _NO_TRADES, _NO_QUOTES, watermark_us)

    def _withdraw(self, symbol: str, lane: Lane) -> None:
        """Take back what `lane` claimed of `symbol`: bars shall not wait for it."""
        if self._queues[symbol].claimed_s.pop(lane.name, None) is not None:
            self._enqueue(symbol, lane, _NO_TRADES, _NO_QUOTES, wire.WITHDRAWN)

    def _pack_lane(self, lane: Lane) -> None:
        ticks = lane.drain()
        now_us = self._now_us()
        for _, error in ticks.errors:
            self._bad_frame(error)
        for symbol in {*ticks.trades, *ticks.quotes}:
            trades = ticks.trades.get(symbol, _NO_TRADES)
            quotes = ticks.quotes.get(symbol, _NO_QUOTES)
            queue = self._queues.get(symbol)
            if queue is None and symbol == self._busy_symbol:
                self._saw_data(lane.number, symbol, "trades" if len(trades) else "quotes")
                continue
            if queue is None:
                self._bad_frame(KeyError(f"symbol {symbol} was not subscribed"))
                continue
            for kind, rows in (("trades", trades), ("quotes", quotes)):
                if len(rows):
                    self._saw_data(lane.number, symbol, kind)
            if len(trades):
                self._note_holes(queue, trades, is_unread=bool(ticks.errors))
            self._end_gap(queue, trades, quotes)
            self.counts.ticks_in += len(trades) + len(quotes)
            self.last_tick_us[symbol] = now_us
            self._split(symbol, lane, trades, quotes, lane.watermark_us(symbol, now_us))

    def _note_holes(self, queue: _Queue, trades: Trades, *, is_unread: bool) -> None:
        """Say of each jump in the trade ids why it may be; `is_unread`: some frames among these were bad."""
        first_id, last_id, time_us = trades["first_id"], trades["last_id"], trades["time_us"]
        before_id = queue.newest_id if queue.newest_id is not None else int(first_id[0]) - 1
        reached = np.maximum.accumulate(np.concatenate([[before_id], last_id]))
        since_us = np.concatenate([[queue.newest_trade_us], time_us])
        for row in np.flatnonzero(first_id > reached[:-1] + 1).tolist():
            why = queue.suspect or SKIPPED
            queue.notices.append(Notice(why, int(since_us[row]), int(time_us[row])))
        if reached[-1] > before_id:
            queue.newest_id, queue.newest_trade_us = int(reached[-1]), int(time_us[last_id.argmax()])
        # Whether a bad frame was ahead of these trades or behind them is not known: it may explain more.
        queue.suspect = UNREADABLE if is_unread else None

    def _end_gap(self, queue: _Queue, trades: Trades, quotes: Quotes) -> None:
        span = span_us(trades, quotes)
        assert span is not None  # a symbol without ticks is not packed
        first_us, last_us = span
        if queue.lost_why:
            lost = Notice(queue.lost_why, queue.newest_us or first_us, first_us)
            if lost not in queue.notices:  # as the notice of a hole it may have been given already
                queue.notices.append(lost)
            queue.lost_why = None
        queue.newest_us = max(queue.newest_us, last_us)

    def _split(
        self, symbol: str, lane: Lane, trades: Trades, quotes: Quotes, watermark_us: int | None
    ) -> None:
        """One record, or several if a burst does not fit; only the last may claim that all is in."""
        while len(trades) + len(quotes) > MAX_TICKS_PER_RECORD:
            some = trades[:MAX_TICKS_PER_RECORD]
            rest = MAX_TICKS_PER_RECORD - len(some)
            self._enqueue(symbol, lane, some, quotes[:rest], wire.NO_WATERMARK)
            trades, quotes = trades[len(some) :], quotes[rest:]
        claim = wire.NO_WATERMARK if watermark_us is None else watermark_us
        self._enqueue(symbol, lane, trades, quotes, claim)

    def _enqueue(self, symbol: str, lane: Lane, trades: Trades, quotes: Quotes, watermark_us: int) -> None:
        queue = self._queues[symbol]
        notices, queue.notices = tuple(queue.notices), []
        batch = wire.TickBatch(
            symbol, self._source, lane.name, watermark_us, trades, quotes, notices, queue.quiet_us
        )
        if watermark_us >= 0:
            queue.claimed_s[lane.name] = self._now_us() / 1e6
        queue.waiting.append((wire.encode(batch), batch.tick_count))
        queue.waiting_bytes += len(queue.waiting[-1][0])
        while queue.waiting_bytes > MAX_WAITING_BYTES:
            self._drop(symbol, queue)

    def _drop(self, symbol: str, queue: _Queue) -> None:
        data, ticks = queue.waiting.popleft()
        queue.waiting_bytes -= len(data)
        dropped = wire.decode(data)
        self.counts.dropped_records += 1
        self.counts.dropped_ticks += ticks
        for notice in dropped.notices:
            queue.tell(notice)
        if span := span_us(dropped.trades, dropped.quotes):
            queue.tell(Notice(OVERFLOW, *span))
        ids = dropped.trades["first_id"]
        self._logger.error(
            "ticks dropped: Kinesis has been out of reach for longer than the queue holds",
            extra={
                "symbol": symbol,
                "ticks": ticks,
                "trade_ids": [int(ids.min()), int(ids.max())] if len(ids) else [],
            },
        )

    def _bad_frame(self, error: Exception) -> None:
        """Count it, say so once a reason, and tell downstream: nobody knows which symbol it was about."""
        reason = error.reason if isinstance(error, SbeError) else str(error)
        kind = f"{type(error).__name__}: {reason}"[:80]
        self.bad_frames[kind] += 1
        for queue in self._queues.values():
            queue.tell(Notice(UNREADABLE, queue.newest_us, queue.newest_us))
            queue.suspect = queue.suspect or UNREADABLE
        if self.bad_frames[kind] == 1:
            self._logger.error("frame skipped", extra={"reason": kind})

    # ------------------------------------------------------------------------------------------ putting

    async def _put_heads(self) -> bool:
        """Put the oldest record of every symbol, call by call, until none waits; False on a failure."""
        while True:
            heads = [
                (symbol, queue, *queue.waiting[0]) for symbol, queue in self._queues.items() if queue.waiting
            ]
            if not heads:
                return True
            records = [{"Data": data, "PartitionKey": symbol} for symbol, _, data, _ in heads]
            try:
                answer = await asyncio.to_thread(
                    self._kinesis.put_records, StreamName=self._stream_name, Records=records
                )
            except (BotoCoreError, ClientError) as error:
                self._failed(f"{type(error).__name__}: {error}")
                return False
            for (_, queue, data, ticks), result in zip(heads, answer["Records"], strict=True):
                if result.get("ErrorCode"):
                    self._failed(f"{result['ErrorCode']}: {result.get('ErrorMessage', '')}")
                    continue
                # The head may have been dropped while the call was under way.
                if queue.waiting and queue.waiting[0][0] is data:
                    queue.waiting.popleft()
                    queue.waiting_bytes -= len(data)
                self.counts.records_put += 1
                self.counts.ticks_put += ticks
                self.counts.bytes_put += len(data)
            if answer.get("FailedRecordCount"):
                return False
            self.last_error = None
            self.turned_s = time.monotonic()

    def _failed(self, reason: str) -> None:
        self.counts.put_failures += 1
        if reason != self.last_error:  # once for a stretch of the same failure
            self._logger.warning("put failed, will be tried again", extra={"reason": reason})
        self.last_error = reason

    def waiting_records(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues.values())

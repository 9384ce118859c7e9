"""Ticks into Kinesis: one wire batch per symbol and linger, in order, nothing accepted is lost.

PutRecords keeps no order across partial failures, so a call carries at most one record per symbol, and a
record that failed stays at the head of its symbol's queue: later ones wait behind it. A call stays within the
limits of 500 records and 5 MiB, and the symbols take turns in being first. All queues together are bounded in
bytes (a minute of what a shard takes, an hour of several ordinary markets); beyond that the oldest batch of
the longest queue is dropped, counted, and reported downstream as a notice, for REST to repair.

Batches also carry what only ingest knows: how far a connection has come (watermarks), and between which
instants ticks may have been missed and why (notices). A jump in trade ids gets a notice of its own, of the
exact time between the trades before and after it: a connection's end or a bad frame may lie well apart from
the trade that shows the hole.

Ids are judged here, where all connections of the task meet (`market.plausibility.IdSeries`). What is refused
is counted by its reason and goes into quarantine.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from ingest_ecs.feed_buffer import FeedBuffer, RefusedFrame, RefusedTicks
from tickcast.adapters.redaction import describe, redact
from tickcast.market import wire
from tickcast.market.id_series import IdSeries, RefusedRow, quote_series, trade_series
from tickcast.market.session import Newest, Stall
from tickcast.market.ticks import QUOTE, TRADE, Quotes, TickError, Trades, quotes_array, span_us, trades_array
from tickcast.market.wire import Notice
from tickcast.sbe import SbeError

MAX_TICKS_PER_RECORD = 10_000  # 600 KB, within Kinesis' 1 MB a record
MAX_WAITING_BYTES = 64 * 2**20  # of all symbols together
MAX_CALL_BYTES = 5 * 2**20  # Kinesis' own limits of PutRecords, partition keys included
MAX_CALL_RECORDS = 500
TURN_S = 1.0  # whoever puts comes round this often, though nothing waits
MAX_NOTICES = 50  # of one symbol, singly: further ones of a cause become one
MAX_REASONS = 100
WATERMARK_EVERY_S = 1.0
RETRY_S = 0.5
STARTED = "ingest was not running"
UNREADABLE = "a frame could not be read"
OVERFLOW = "overflow: Kinesis was out of reach"
SKIPPED = "skipped by the exchange on an open connection"
REFUSED = "a tick that cannot be was refused"
RESTARTED = "the exchange started its ids over"

NO_LANE = "none"  # what is refused once no connection is left

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
    book: tuple[int, int, int, int] | None = None  # the newest, by whichever connection
    quiet_us: int = wire.QUIET_UNKNOWN  # when the exchange last had nothing that had not come
    newest_id: int | None = None  # the highest trade id
    newest_trade_us: int = 0  # its exchange time
    suspect: str | None = None  # why trades may be missing before the next one
    trade_series: IdSeries = field(default_factory=trade_series)
    quote_series: IdSeries = field(default_factory=quote_series)
    is_head_on_its_way: bool = False

    def add(self, notice: Notice) -> None:
        """Add `notice` by itself while there are few."""
        if len(self.notices) < MAX_NOTICES:
            self.notices.append(notice)
        else:
            self.tell(notice)

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

    `saw_data(connection, symbol, kind)` is called for each stream that delivered, and
    `quarantine(data, reason, connection)` with what was refused. The ticks of `busy_symbol`, unless it is one
    of `symbols`, are for nothing else: they show that a connection is alive.
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
        quarantine: Callable[[bytes, str, str], None] = lambda data, reason, connection: None,
    ) -> None:
        self._kinesis = kinesis
        self._stream_name = stream_name
        self._source = source
        self._linger_s = linger_s
        self._logger = logger
        self._saw_data = saw_data
        self._now_us = now_us
        self._busy_symbol = busy_symbol
        self._quarantine = quarantine
        self._queues = {symbol: _Queue() for symbol in symbols}
        self._turns = deque(self._queues)  # whose record is first in the next call
        self._waiting_bytes = 0
        self._buffers: list[FeedBuffer] = []
        self._draining = asyncio.Event()
        self._is_waiting = asyncio.Event()  # for whoever puts: there is something to put
        self._is_packed = False  # all that will ever be
        self.counts = Counts()
        self.bad_frames: Counter[str] = Counter()  # by reason
        self.last_tick_us: dict[str, int] = {}  # local time, by symbol
        self.last_error: str | None = None
        self.turned_s = time.monotonic()  # when the loop last came round: a stuck task shows by it

    def open_lane(self, buffer: FeedBuffer) -> None:
        self._buffers.append(buffer)

    def close_lane(self, buffer: FeedBuffer, why: str) -> None:
        """`lane`'s connection ended; if no other delivers, what follows begins with a gap."""
        for each in self._buffers:  # what another has taken counts as delivered
            self._pack_lane(each)
        buffer.give_up_undecided()
        self._take_refused(buffer)
        self._buffers.remove(buffer)
        for symbol in self._queues:
            self._withdraw(symbol, buffer)
        if not any(other.delivers for other in self._buffers):
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

    def newest(self, symbol: str) -> Newest:
        """What came of `symbol`, by whichever connection."""
        queue = self._queues[symbol]
        newest_id = queue.trade_series.newest_id
        return Newest(newest_id if newest_id >= 0 else None, queue.book)

    def quiet(self, symbol: str, at_us: int) -> None:
        """At the local time `at_us` the exchange had nothing of `symbol` that had not come."""
        queue = self._queues[symbol]
        queue.quiet_us = max(queue.quiet_us, at_us)
        queue.claimed_s = dict.fromkeys(queue.claimed_s, float("-inf"))  # goes with a claim, now

    def drain(self) -> None:
        """Put what was taken, then let `run` return."""
        self._draining.set()

    async def run(self) -> None:
        """A call to Kinesis may take seconds: packing does not wait for it."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pack_each_linger())
            both.create_task(self._put_until_drained())

    async def _pack_each_linger(self) -> None:
        while not self._draining.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger_s):
                    await self._draining.wait()
            self.pack()
        self.pack()
        self._give_up_suspects()
        self._is_packed = True
        self._is_waiting.set()

    async def _put_until_drained(self) -> None:
        while self.waiting_records() or not self._is_packed:
            self.turned_s = time.monotonic()
            self._is_waiting.clear()
            if not await self._put_heads():
                await asyncio.sleep(RETRY_S)
            elif not self._is_packed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_S):
                        await self._is_waiting.wait()

    # ------------------------------------------------------------------------------------------ packing

    def pack(self) -> None:
        """Turn what the lanes took into records; a quiet symbol gets a bare watermark now and then."""
        for buffer in self._buffers:
            self._pack_lane(buffer)
        now_us = self._now_us()
        for symbol, queue in self._queues.items():
            for buffer in self._buffers:
                watermark_us = buffer.watermark_us(symbol, now_us)
                if watermark_us is None:
                    self._withdraw(symbol, buffer)
                elif now_us / 1e6 - queue.claimed_s.get(buffer.name, float("-inf")) >= WATERMARK_EVERY_S:
                    self._enqueue(symbol, buffer, _NO_TRADES, _NO_QUOTES, watermark_us)

    def _withdraw(self, symbol: str, buffer: FeedBuffer) -> None:
        """Take back what `lane` claimed of `symbol`: bars shall not wait for it."""
        if self._queues[symbol].claimed_s.pop(buffer.name, None) is not None:
            self._enqueue(symbol, buffer, _NO_TRADES, _NO_QUOTES, wire.WATERMARK_WITHDRAWN)

    def _pack_lane(self, buffer: FeedBuffer) -> None:
        ticks = buffer.drain()
        self._take_refused(buffer)
        is_unread = bool(ticks.errors)
        for symbol in {*ticks.trades, *ticks.quotes}:
            trades = ticks.trades.get(symbol, _NO_TRADES)
            quotes = ticks.quotes.get(symbol, _NO_QUOTES)
            queue = self._queues.get(symbol)
            if queue is None and symbol == self._busy_symbol:
                self._saw_data(buffer.number, symbol, "trades" if len(trades) else "quotes")
                continue
            if queue is None:
                error = KeyError(f"symbol {symbol} was not subscribed")
                self._refused_ticks(buffer.name, RefusedTicks(symbol, trades, quotes, error))
                continue
            for kind, rows in (("trades", trades), ("quotes", quotes)):
                if len(rows):
                    self._saw_data(buffer.number, symbol, kind)
            trades = self._trades_in_series(buffer, symbol, queue, trades, is_unread=is_unread)
            quotes = np.concatenate(self._in_series(buffer, symbol, queue.quote_series, quotes))
            if len(trades) or len(quotes):
                self._pack_ticks(buffer, symbol, queue, trades, quotes)

    def _pack_ticks(
        self, buffer: FeedBuffer, symbol: str, queue: _Queue, trades: Trades, quotes: Quotes
    ) -> None:
        now_us = self._now_us()
        if len(quotes):
            newest = quotes[quotes["update_id"].argmax()]
            if newest["update_id"] >= queue.quote_series.newest_id:
                bid_price, bid_qty, ask_price, ask_qty = newest.tolist()[3:]
                queue.book = bid_price, bid_qty, ask_price, ask_qty
        self._end_gap(queue, trades, quotes)
        self.counts.ticks_in += len(trades) + len(quotes)
        self.last_tick_us[symbol] = now_us
        self._split(symbol, buffer, trades, quotes, buffer.watermark_us(symbol, now_us))

    def _trades_in_series(
        self, buffer: FeedBuffer, symbol: str, queue: _Queue, trades: Trades, *, is_unread: bool
    ) -> Trades:
        """Those of `trades` whose ids can be, what is missing between them noted."""
        runs = self._in_series(buffer, symbol, queue.trade_series, trades)
        for n, run in enumerate(runs):
            if n:
                queue.add(Notice(RESTARTED, queue.newest_trade_us, int(run["time_us"][0])))
                queue.newest_id = None
            if len(run):
                self._note_holes(queue, run, is_unread=is_unread)
        return np.concatenate(runs)

    def _in_series(self, buffer: FeedBuffer, symbol: str, series: IdSeries, rows: Any) -> list[Any]:
        """The runs of `rows` whose ids can be: all but the first begin a series of their own."""
        before_id = series.newest_id
        judged = series.admit(rows)
        if len(judged.runs) > 1:
            self._logger.error(
                RESTARTED, extra={"symbol": symbol, "before": before_id, "now": series.newest_id}
            )
        self._refuse_rows(buffer.name, symbol, judged.refused, rows.dtype)
        return judged.runs

    def _refuse_rows(self, connection: str, symbol: str, refused: list[RefusedRow], dtype: Any) -> None:
        for reason in {reason for _, reason in refused}:
            rows = np.array([row for row, why in refused if why == reason], dtype)
            trades, quotes = (rows, _NO_QUOTES) if dtype == TRADE else (_NO_TRADES, rows)
            self._refused_ticks(
                connection, RefusedTicks(symbol, trades, quotes, TickError(f"{symbol}: {reason}"))
            )

    def _give_up_suspects(self) -> None:
        """Nothing comes any more by which the ids that are held back could be judged."""
        for symbol, queue in self._queues.items():
            for series, dtype in ((queue.trade_series, TRADE), (queue.quote_series, QUOTE)):
                self._refuse_rows(NO_LANE, symbol, series.refuse_suspects(), dtype)

    def _note_holes(self, queue: _Queue, trades: Trades, *, is_unread: bool) -> None:
        """Say of each jump in the trade ids why it may be; `is_unread`: some frames among these were bad."""
        trades = trades[np.argsort(trades["first_id"], kind="stable")]  # a drain has them in any order
        first_id, last_id, time_us = trades["first_id"], trades["last_id"], trades["time_us"]
        before_id = queue.newest_id if queue.newest_id is not None else int(first_id[0]) - 1
        reached = np.maximum.accumulate(np.concatenate([[before_id], last_id]))
        since_us = np.concatenate([[queue.newest_trade_us], time_us])
        for row in np.flatnonzero(first_id > reached[:-1] + 1).tolist():
            why = queue.suspect or (UNREADABLE if is_unread else SKIPPED)
            queue.add(Notice(why, int(since_us[row]), int(time_us[row])))
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
        self, symbol: str, buffer: FeedBuffer, trades: Trades, quotes: Quotes, watermark_us: int | None
    ) -> None:
        """One record, or several if a burst does not fit; only the last may claim that all is in."""
        while len(trades) + len(quotes) > MAX_TICKS_PER_RECORD:
            some = trades[:MAX_TICKS_PER_RECORD]
            rest = MAX_TICKS_PER_RECORD - len(some)
            self._enqueue(symbol, buffer, some, quotes[:rest], wire.NO_WATERMARK)
            trades, quotes = trades[len(some) :], quotes[rest:]
        claim = wire.NO_WATERMARK if watermark_us is None else watermark_us
        self._enqueue(symbol, buffer, trades, quotes, claim)

    def _enqueue(
        self, symbol: str, buffer: FeedBuffer, trades: Trades, quotes: Quotes, watermark_us: int
    ) -> None:
        queue = self._queues[symbol]
        notices, queue.notices = tuple(queue.notices), []
        batch = wire.TickBatch(
            symbol, self._source, buffer.name, watermark_us, trades, quotes, notices, queue.quiet_us
        )
        if watermark_us >= 0:
            queue.claimed_s[buffer.name] = self._now_us() / 1e6
        queue.waiting.append((wire.encode(batch), batch.tick_count))
        self._is_waiting.set()
        size = len(queue.waiting[-1][0])
        queue.waiting_bytes += size
        self._waiting_bytes += size
        while self._waiting_bytes > MAX_WAITING_BYTES and self._drop():
            pass

    def _drop(self) -> bool:
        """Drop the oldest batch of the longest queue that is not on its way; False where there is none."""
        droppable = [
            (queue.waiting_bytes, symbol)
            for symbol, queue in self._queues.items()
            if len(queue.waiting) > queue.is_head_on_its_way
        ]
        if not droppable:
            return False
        _, symbol = max(droppable)
        queue = self._queues[symbol]
        oldest = int(queue.is_head_on_its_way)
        data, ticks = queue.waiting[oldest]
        del queue.waiting[oldest]
        queue.waiting_bytes -= len(data)
        self._waiting_bytes -= len(data)
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
        return True

    def _take_refused(self, buffer: FeedBuffer) -> None:
        refused, buffer.refused = buffer.refused, []
        for each in refused:
            if isinstance(each, RefusedTicks):
                self._refused_ticks(buffer.name, each)
            else:
                self._refused_frame(buffer, each)

    def _refused_frame(self, buffer: FeedBuffer, refused: RefusedFrame) -> None:
        """Count it, and tell downstream: nobody knows which symbol it was about."""
        reason = self._count(refused.error, 1)
        for queue in self._queues.values():
            queue.tell(Notice(UNREADABLE, queue.newest_us, queue.newest_us))
            queue.suspect = queue.suspect or UNREADABLE
        self._quarantine(refused.data, reason, buffer.name)

    def _refused_ticks(self, connection: str, refused: RefusedTicks) -> None:
        """Count them, and tell downstream if they are of a symbol that goes there."""
        reason = self._count(refused.error, len(refused.trades) + len(refused.quotes))
        if queue := self._queues.get(refused.symbol):
            queue.tell(Notice(REFUSED, queue.newest_us, queue.newest_us))
            if len(refused.trades):
                queue.suspect = queue.suspect or REFUSED
        batch = wire.TickBatch(
            refused.symbol, self._source, connection, wire.NO_WATERMARK, refused.trades, refused.quotes
        )
        self._quarantine(wire.encode(batch), reason, connection)

    def _count(self, error: Exception, frames: int) -> str:
        """Count by the kind of reason, numbers aside, and say so once a kind. Returns the whole reason."""
        text = error.reason if isinstance(error, SbeError) else str(error)
        reason = f"{type(error).__name__}: {text}".encode(errors="replace").decode()
        kind = re.sub(r"\d[\d.]*", "N", reason)[:80]
        if kind not in self.bad_frames and len(self.bad_frames) >= MAX_REASONS:
            kind = "other reasons"
        self.bad_frames[kind] += frames
        if self.bad_frames[kind] == frames:
            self._logger.error("refused", extra={"reason": reason})
        return reason

    # ------------------------------------------------------------------------------------------ putting

    async def _put_heads(self) -> bool:
        """Put the oldest record of every symbol, call by call, until none waits; False on a failure."""
        while symbols := self._next_call():
            heads = [(self._queues[symbol], *self._queues[symbol].waiting[0]) for symbol in symbols]
            records = [
                {"Data": data, "PartitionKey": symbol}
                for symbol, (_, data, _) in zip(symbols, heads, strict=True)
            ]
            for queue, _, _ in heads:
                queue.is_head_on_its_way = True
            try:
                answer = await asyncio.to_thread(
                    self._kinesis.put_records, StreamName=self._stream_name, Records=records
                )
            except (BotoCoreError, ClientError) as error:
                self._failed(describe(error))
                return False
            finally:
                for queue, _, _ in heads:
                    queue.is_head_on_its_way = False
            for (queue, data, ticks), result in zip(heads, answer["Records"], strict=True):
                if result.get("ErrorCode"):
                    self._failed(redact(f"{result['ErrorCode']}: {result.get('ErrorMessage', '')}"))
                    continue
                queue.waiting.popleft()
                queue.waiting_bytes -= len(data)
                self._waiting_bytes -= len(data)
                self.counts.records_put += 1
                self.counts.ticks_put += ticks
                self.counts.bytes_put += len(data)
            if answer.get("FailedRecordCount"):
                return False
            self.last_error = None
            self.turned_s = time.monotonic()
        return True

    def _next_call(self) -> list[str]:
        """The symbols whose heads are put next, within the limits of a call; whoever does not fit in, or
        came late, is first the next time."""
        chosen: list[str] = []
        size = 0
        for _ in range(len(self._turns)):
            symbol = self._turns[0]
            if self._queues[symbol].waiting:
                size += len(self._queues[symbol].waiting[0][0]) + len(symbol.encode())
                if len(chosen) == MAX_CALL_RECORDS or (chosen and size > MAX_CALL_BYTES):
                    break
                chosen.append(symbol)
            self._turns.rotate(-1)
        return chosen

    def _failed(self, reason: str) -> None:
        self.counts.put_failures += 1
        if reason != self.last_error:  # once for a stretch of the same failure
            self._logger.warning("put failed, will be tried again", extra={"reason": reason})
        self.last_error = reason

    def waiting_records(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues.values())

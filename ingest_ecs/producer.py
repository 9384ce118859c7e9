"""Ticks into Kinesis: one wire batch per symbol and linger, in order, nothing accepted is lost.

PutRecords keeps no order across partial failures, so a call carries at most one record per symbol, and a
record that failed stays at the head of its symbol's queue: later ones wait behind it. The queue holds
about a minute; beyond that the oldest batch is dropped, counted and reported, for REST to repair.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from tickcast import wire
from tickcast.session import Watermark
from tickcast.ticks import QuoteRow, TradeRow, quotes_array, trades_array

MAX_TICKS_PER_RECORD = 10_000  # 600 KB, within Kinesis' 1 MB a record
MAX_WAITING_RECORDS = 600  # a minute of lingers
WATERMARK_EVERY_S = 1.0
RETRY_S = 0.5


@dataclass
class _Queue:
    """One symbol's ticks on their way."""

    trades: list[TradeRow] = field(default_factory=list)
    quotes: list[QuoteRow] = field(default_factory=list)
    waiting: deque[bytes] = field(default_factory=deque)  # encoded records, oldest first
    watermark: Watermark = field(default_factory=Watermark)
    watermark_sent_s: float = 0.0


@dataclass
class Counts:
    ticks_in: int = 0
    records_put: int = 0
    ticks_put: int = 0
    put_failures: int = 0
    dropped_records: int = 0


class Producer:
    """`accept` ticks in the socket loop; `run` puts them until `drain` was asked for and all are out."""

    def __init__(
        self,
        kinesis: Any,
        stream_name: str,
        symbols: tuple[str, ...],
        source: str,
        connection: str,
        linger_s: float,
        logger: Logger,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._kinesis = kinesis
        self._stream_name = stream_name
        self._source = source
        self._connection = connection
        self._linger_s = linger_s
        self._logger = logger
        self._now_us = now_us
        self._queues = {symbol: _Queue() for symbol in symbols}
        self._draining = asyncio.Event()
        self.counts = Counts()
        self.last_error: str | None = None
        self.turned_s = time.monotonic()  # when the loop last came round: a stuck task shows by it

    def accept(self, symbol: str, trades: list[TradeRow], quotes: list[QuoteRow], received_us: int) -> None:
        queue = self._queues[symbol]
        queue.trades += trades
        queue.quotes += quotes
        for row in (*trades, *quotes):
            queue.watermark.saw(row[0], received_us)
        self.counts.ticks_in += len(trades) + len(quotes)

    def connection_lost(self) -> None:
        """Nothing more is claimed about how far the stream has come."""
        for queue in self._queues.values():
            queue.watermark.withdraw()

    def drain(self) -> None:
        """Put what was accepted, then let `run` return."""
        self._draining.set()

    async def run(self) -> None:
        while True:
            self.turned_s = time.monotonic()
            if not self._draining.is_set():
                await self._linger(self._linger_s)
            self._pack()
            if self._draining.is_set() and not any(queue.waiting for queue in self._queues.values()):
                return
            if not await self._put_heads():
                await self._linger(RETRY_S)

    async def _linger(self, seconds: float) -> None:
        if self._draining.is_set():
            await asyncio.sleep(seconds)
            return
        try:
            await asyncio.wait_for(self._draining.wait(), seconds)
        except TimeoutError:
            return

    def _pack(self) -> None:
        """Turn pending ticks into records; a quiet symbol gets a bare watermark now and then."""
        now_us = self._now_us()
        for symbol, queue in self._queues.items():
            watermark = queue.watermark.at(now_us)
            is_due = now_us / 1e6 - queue.watermark_sent_s >= WATERMARK_EVERY_S
            if not (queue.trades or queue.quotes) and (watermark is None or not is_due):
                continue
            queue.watermark_sent_s = now_us / 1e6
            while True:
                trades = queue.trades[:MAX_TICKS_PER_RECORD]
                quotes = queue.quotes[: MAX_TICKS_PER_RECORD - len(trades)]
                del queue.trades[: len(trades)], queue.quotes[: len(quotes)]
                is_last = not (queue.trades or queue.quotes)
                batch = wire.TickBatch(
                    symbol,
                    self._source,
                    self._connection,
                    # Only the last record of several may claim that everything up to then is in.
                    watermark if is_last and watermark is not None else wire.NO_WATERMARK,
                    trades_array(trades),
                    quotes_array(quotes),
                )
                self._enqueue(symbol, queue, batch)
                if is_last:
                    break

    def _enqueue(self, symbol: str, queue: _Queue, batch: wire.TickBatch) -> None:
        queue.waiting.append(wire.encode(batch))
        while len(queue.waiting) > MAX_WAITING_RECORDS:
            dropped = wire.decode(queue.waiting.popleft())
            ids = dropped.trades["first_id"]
            self.counts.dropped_records += 1
            self._logger.error(
                "ticks dropped: Kinesis has been out of reach for longer than the queue holds",
                extra={
                    "symbol": symbol,
                    "ticks": dropped.tick_count,
                    "trade_ids": [int(ids.min()), int(ids.max())] if len(ids) else [],
                },
            )

    async def _put_heads(self) -> bool:
        """Put the oldest record of every symbol in one call; False when something has to be tried again."""
        heads = [(symbol, queue.waiting[0]) for symbol, queue in self._queues.items() if queue.waiting]
        if not heads:
            return True
        records = [{"Data": data, "PartitionKey": symbol} for symbol, data in heads]
        try:
            answer = await asyncio.to_thread(
                self._kinesis.put_records, StreamName=self._stream_name, Records=records
            )
        except (BotoCoreError, ClientError) as error:
            self._failed(f"{type(error).__name__}: {error}")
            return False
        for (symbol, data), result in zip(heads, answer["Records"], strict=True):
            if result.get("ErrorCode"):
                self._failed(f"{result['ErrorCode']}: {result.get('ErrorMessage', '')}")
                continue
            queue = self._queues[symbol]
            # The head may have been dropped while the call was under way.
            if queue.waiting and queue.waiting[0] is data:
                queue.waiting.popleft()
            self.counts.records_put += 1
        if not answer.get("FailedRecordCount"):
            self.last_error = None
            return True
        return False

    def _failed(self, reason: str) -> None:
        self.counts.put_failures += 1
        if reason != self.last_error:  # once for a stretch of the same failure
            self._logger.warning("put failed, will be tried again", extra={"reason": reason})
        self.last_error = reason

    def waiting_records(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues.values())

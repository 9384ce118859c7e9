"""What ingest refuses: all of it is counted by reason, and a sample is kept in S3.

The sample is the first so many a minute, each of bounded size, from a queue of bounded length, put by a task
of its own. A flood of bad frames must not become one of S3 puts, and an S3 that
fails or hangs delays nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger

from ingest_ecs.feed_buffer import RefusedFrame, RefusedTicks
from ingest_ecs.threads import in_thread
from tickcast.adapters.redaction import describe
from tickcast.market import wire
from tickcast.sbe import SbeError

FOLDER = "quarantine/ingest_ecs"
PUTS_A_MINUTE = 30
MAX_BYTES = 256 * 2**10
MAX_WAITING = 30
MAX_KINDS = 100

_Sample = tuple[str, bytes, dict[str, Any]]  # key, data, what the JSON says about them
QuarantineSink = Callable[[bytes, str, str], None]  # data, reason, connection


class Refusals:
    """`counts` are frames or ticks by kind of reason: the reason without its numbers."""

    def __init__(
        self, source: str, logger: Logger, quarantine: QuarantineSink, counts: Counter[str] | None = None
    ) -> None:
        self._source = source
        self._logger = logger
        self._quarantine = quarantine
        self.counts: Counter[str] = Counter() if counts is None else counts

    def of(self, source: str) -> Refusals:
        """The same of another source, with the same counts."""
        return Refusals(source, self._logger, self._quarantine, self.counts)

    def add(self, refused: RefusedFrame | RefusedTicks, connection: str) -> None:
        if isinstance(refused, RefusedFrame):
            reason = self._count(refused.error, 1)
            self._quarantine(refused.data, reason, connection)
            return
        batch = wire.TickBatch(
            refused.symbol, self._source, connection, wire.NO_WATERMARK, refused.trades, refused.quotes
        )
        reason = self._count(refused.error, batch.tick_count)
        self._quarantine(wire.encode(batch), reason, connection)

    def _count(self, error: Exception, count: int) -> str:
        """Count a refusal; returns the full reason."""
        text = error.reason if isinstance(error, SbeError) else str(error)
        reason = f"{type(error).__name__}: {text}".encode(errors="replace").decode()
        kind = re.sub(r"\d[\d.]*", "N", reason)[:80]
        if kind not in self.counts and len(self.counts) >= MAX_KINDS:
            kind = "other reasons"
        self.counts[kind] += count
        if self.counts[kind] == count:
            self._logger.error("refused", extra={"reason": reason})
        return reason


class Quarantine:
    """`keep` never waits; `run` puts the samples. `s3` None: nothing is kept."""

    def __init__(
        self,
        s3: Any,
        bucket: str,
        logger: Logger,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._logger = logger
        self._now_us = now_us
        self._task_name = uuid.uuid4().hex[:8]
        self._waiting: asyncio.Queue[_Sample] = asyncio.Queue(MAX_WAITING)
        self._under_way: _Sample | None = None
        self._kept = 0
        self._minute = -1
        self._kept_in_minute = 0
        self.left_out = 0  # since the start, because the minute's share or the queue was full
        self.failed = 0  # puts

    def keep(self, data: bytes, reason: str, connection: str) -> None:
        """Queue `data` for quarantine, unless the minute's share or the queue is full."""
        now_us = self._now_us()
        if now_us // 60_000_000 != self._minute:
            self._minute, self._kept_in_minute = now_us // 60_000_000, 0
        if self._s3 is None or self._kept_in_minute >= PUTS_A_MINUTE or self._waiting.full():
            self.left_out += 1
            return
        self._kept_in_minute += 1
        self._kept += 1
        key = f"{FOLDER}/{self._task_name}/{now_us}-{self._kept}"
        about = {"reason": reason, "connection": connection, "at_us": now_us, "bytes": len(data)}
        self._waiting.put_nowait((key, data[:MAX_BYTES], about))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._under_way = await self._waiting.get()
            await self._put(*self._under_way)
            self._under_way = None

    async def drain(self, seconds: float) -> None:
        """Put the waiting samples, for at most `seconds`, after `run` was cancelled."""
        try:
            async with asyncio.timeout(seconds):
                while self._under_way or not self._waiting.empty():
                    self._under_way = self._under_way or self._waiting.get_nowait()
                    await self._put(*self._under_way)
                    self._under_way = None
        except TimeoutError:
            self.left_out += self._waiting.qsize() + 1

    async def put_whole(self, name: str, body: Callable[[], bytes], seconds: float) -> str | None:
        """Put all of what `body` returns, which is called in a thread, for at most `seconds`. Returns its key
        in S3, which ends in `name`; None if it was not put."""
        if self._s3 is None or seconds <= 0:
            return None
        key = f"{FOLDER}/{self._task_name}/{name}"
        try:
            async with asyncio.timeout(seconds):
                return key if await self._put_objects({key: body}) else None
        except TimeoutError:
            return None

    async def _put(self, key: str, data: bytes, about: dict[str, Any]) -> None:
        await self._put_objects(
            {f"{key}.bin": lambda: data, f"{key}.json": lambda: json.dumps(about).encode()}
        )

    async def _put_objects(self, bodies: dict[str, Callable[[], bytes]]) -> bool:
        def put(key: str, body: Callable[[], bytes]) -> None:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=body())

        try:
            for key, body in bodies.items():
                await in_thread(put, key, body)
        except Exception as error:  # a sample must not end the task
            self.failed += 1
            if self.failed == 1:
                self._logger.warning("quarantine: a put failed", extra={"reason": describe(error)})
            return False
        return True

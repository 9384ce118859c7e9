"""A sample of what ingest refused, in S3 with its reason.

All of it is counted elsewhere; here are the first so many a minute, each of bounded size, from a queue of
bounded length, put by a task of its own. A flood of bad frames must not become one of S3 puts, and an S3 that
fails or hangs holds up nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger

from tickcast.adapters.redaction import describe

FOLDER = "quarantine/ingest_ecs"
PUTS_A_MINUTE = 30
MAX_BYTES = 256 * 2**10
MAX_WAITING = 30


class Quarantine:
    """`keep` never waits; `run` puts what it kept. `s3` None: nothing is kept."""

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
        self._waiting: asyncio.Queue[tuple[str, bytes, dict[str, Any]]] = asyncio.Queue(MAX_WAITING)
        self._kept = 0
        self._minute = -1
        self._kept_in_minute = 0
        self.left_out = 0  # since the start, as the minute's share or the queue was full
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
            await self._put(*await self._waiting.get())

    async def drain(self, seconds: float) -> None:
        """Put what waits, for at most so many `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not self._waiting.empty():
                    await self._put(*self._waiting.get_nowait())
        except TimeoutError:
            self.left_out += self._waiting.qsize()

    async def _put(self, key: str, data: bytes, about: dict[str, Any]) -> None:
        texts = ((f"{key}.bin", data), (f"{key}.json", json.dumps(about).encode()))
        try:
            for name, body in texts:
                await asyncio.to_thread(self._s3.put_object, Bucket=self._bucket, Key=name, Body=body)
        except Exception as error:  # a sample must not end the task
            self.failed += 1
            if self.failed == 1:
                self._logger.warning("quarantine: a put failed", extra={"reason": describe(error)})

"""Puts the outbox into Kinesis: call by call, retrying what failed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from ingest_ecs.outbox import Outbox, Record
from ingest_ecs.threads import in_thread
from tickcast.adapters.redaction import describe, redact
from tickcast.market import wire

ExchangeNow = Callable[[], int | None]  # µs by the exchange's clock; None where it is not known

TURN_S = 1.0  # the loop runs this often even if nothing waits
RETRY_S = 0.5


@dataclass
class Counts:
    """Since the start; the names are those of `/health` and `/metrics`."""

    ticks_in: int = 0
    references_in: int = 0  # quotes of perpetuals, which are not among the ticks
    ticks_put: int = 0
    records_put: int = 0
    bytes_put: int = 0
    put_failures: int = 0
    dropped_records: int = 0
    dropped_ticks: int = 0


class KinesisWriter:
    def __init__(
        self,
        kinesis: Any,
        stream_name: str,
        outbox: Outbox,
        counts: Counts,
        logger: Logger,
        exchange_now_us: ExchangeNow,
    ) -> None:
        self._kinesis = kinesis
        self._stream_name = stream_name
        self._outbox = outbox
        self._counts = counts
        self._logger = logger
        self._exchange_now_us = exchange_now_us
        self._has_work = asyncio.Event()
        self._is_finished = False
        self.last_error: str | None = None
        self.turned_s = time.monotonic()  # when the loop last ran: shows whether the task is stuck

    def wake(self) -> None:
        """There is something to put."""
        self._has_work.set()

    def finish(self) -> None:
        """Nothing more will be added to the outbox."""
        self._is_finished = True
        self.wake()

    async def run(self) -> None:
        """Until `finish` was called and all is put."""
        while len(self._outbox) or not self._is_finished:
            self.turned_s = time.monotonic()
            self._has_work.clear()
            if not await self.put_waiting():
                await asyncio.sleep(RETRY_S)
            elif not self._is_finished:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_S):
                        await self._has_work.wait()

    async def put_waiting(self) -> bool:
        """Put the oldest record of every symbol, call by call, until none waits; False on a failure."""
        while heads := self._outbox.next_call():
            records = self._stamped(heads)
            try:
                with self._outbox.in_flight(heads):
                    response = await in_thread(
                        self._kinesis.put_records, StreamName=self._stream_name, Records=records
                    )
            except (BotoCoreError, ClientError) as error:
                self._note_failure(describe(error))
                return False
            for head, result in zip(heads, response["Records"], strict=True):
                if result.get("ErrorCode"):
                    self._note_failure(redact(f"{result['ErrorCode']}: {result.get('ErrorMessage', '')}"))
                    continue
                self._outbox.remove(head)
                self._counts.records_put += 1
                self._counts.ticks_put += head.ticks
                self._counts.bytes_put += len(head.data)
            if response.get("FailedRecordCount"):
                return False
            self.last_error = None
            self.turned_s = time.monotonic()
        return True

    def _stamped(self, heads: list[Record]) -> list[dict[str, Any]]:
        """The records of a call, each with the instant at which it is sent: at every try another one."""
        sent_us = self._exchange_now_us()
        return [
            {
                "Data": head.data if sent_us is None else wire.stamped(head.data, sent_us),
                "PartitionKey": head.symbol,
            }
            for head in heads
        ]

    def _note_failure(self, reason: str) -> None:
        self._counts.put_failures += 1
        if reason != self.last_error:  # once for consecutive failures of one reason
            self._logger.warning("put failed, will be tried again", extra={"reason": reason})
        self.last_error = reason

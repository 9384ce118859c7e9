"""Asks the exchange's REST about symbols that are silent: evidence of whether they are quiet or dead.

In a thread and one request at a time: whatever goes wrong with REST costs nothing but the evidence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from aws_lambda_powertools import Logger

from ingest_ecs.feed_buffer import FeedBuffer
from ingest_ecs.producer import Producer
from tickcast.adapters.redaction import describe
from tickcast.adapters.rest.binance import BinanceRest, RateLimited
from tickcast.market.liveness import Newest
from tickcast.market.session import Session

TIMEOUT_S = 2.0  # an answer that takes longer comes too late for what it is asked for


class RestProbe:
    """`buffers` are those of the open connections; `answered` is called after each answer."""

    def __init__(
        self,
        rest: BinanceRest,
        session: Session,
        producer: Producer,
        buffers: Mapping[int, FeedBuffer],
        logger: Logger,
        answered: Callable[[], None],
    ) -> None:
        self._rest = rest
        self._session = session
        self._producer = producer
        self._buffers = buffers
        self._logger = logger
        self._answered = answered
        self._last_error = ""
        self.task: asyncio.Task[None] | None = None  # the newest request

    def start_if_due(self) -> None:
        """Ask about the symbols that are due, unless an answer is still awaited."""
        if self.task is not None and not self.task.done():
            return
        if symbols := self._session.due_probes(time.monotonic()):
            self.task = asyncio.create_task(self._ask(symbols))

    async def _ask(self, symbols: list[str]) -> None:
        asked_s, asked_us = time.monotonic(), time.time_ns() // 1000
        try:
            newest = await asyncio.to_thread(self._rest.newest, symbols)
        except Exception as error:
            retry_after_s = error.retry_after_s if isinstance(error, RateLimited) else 0.0
            self._session.probe_failed(time.monotonic(), retry_after_s)
            if (problem := describe(error)) != self._last_error:
                self._logger.warning("REST cannot say whether markets are quiet", extra={"reason": problem})
            self._last_error = problem
            return
        self._last_error = ""
        for symbol, exchange in newest.items():
            delivered = {c: buffer.newest.get(symbol, Newest()) for c, buffer in self._buffers.items()}
            received = self._producer.newest(symbol)
            if self._session.probed(symbol, exchange, received, delivered, asked_s):
                self._producer.note_quiet(symbol, asked_us)
        self._answered()

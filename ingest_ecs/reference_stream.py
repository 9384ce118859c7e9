"""The stream of the perpetuals' quotes: a second source, which the first never waits for.

It is held like the first one, but whatever happens to it ends nothing: where the exchange refuses it, another
attempt is made some minutes later, and meanwhile the batches go without.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
import uuid
from typing import Any

from aws_lambda_powertools import Logger

from ingest_ecs.feed_buffer import FeedBuffer
from ingest_ecs.reference_feed import ReferenceFeed
from ingest_ecs.sockets import Sockets, Take
from tickcast.adapters.redaction import describe
from tickcast.market.reconnect import FatalSessionError
from tickcast.market.session import Session

AGAIN_AFTER_S = 300.0  # a permanent refusal: of the region, say


class ReferenceStream:
    """Holds the stream at `address` open for `feed`; without an address there is none."""

    def __init__(
        self, address: str, rollover_s: float, feed: ReferenceFeed, logger: Logger, rng: random.Random
    ) -> None:
        self._feed = feed
        self._logger = logger
        self._is_wanted = bool(address)
        self._problem = ""
        self._task_name = uuid.uuid4().hex[:8]
        self._buffers: dict[int, FeedBuffer] = {}
        streams = [(perpetual, "quotes") for perpetual in feed.perpetuals]
        # Among the streams is the busiest there is (`settings.reference_address`).
        self._session = Session(streams, rng, rollover_s, has_busy_stream=True)
        about = {"perpetuals": feed.perpetuals}
        self._sockets = Sockets("reference", address, self._session, self, logger, about=about)
        feed.saw_quotes = lambda connection, perpetual: self._session.data(
            connection, perpetual, "quotes", time.monotonic()
        )

    async def run(self) -> None:
        """Until cancelled."""
        while self._is_wanted:
            try:
                await self._sockets.run(self._session.take_stalls)
            except FatalSessionError as error:
                self._problem = f"REFERENCE_URL: {error}"
            except Exception as error:  # the spot market must not be affected
                self._problem = describe(error)
            self._logger.error(
                "the perpetuals are not available", extra={"reason": self._problem, "again_s": AGAIN_AFTER_S}
            )
            await asyncio.sleep(AGAIN_AFTER_S)
            self._problem = ""

    def report(self, now_us: int) -> dict[str, Any]:
        """Its part of `/health`: whether it is live and why not, and by spot symbol the age of the newest
        quote (s; None: none came)."""
        is_live = self._session.is_live
        last_us = self._feed.last_received_us
        why = "" if is_live or not self._is_wanted else self._problem or self._session.reason
        return {
            "wanted": self._is_wanted,
            "live": is_live,
            "why": why,
            "connections": self._sockets.connections,
            "age_s": {
                symbol: (now_us - last_us[symbol]) / 1e6 if symbol in last_us else None
                for symbol in (self._feed.symbols if self._is_wanted else ())
            },
        }

    def opened(self, connection: int) -> Take:
        """`connection` was established; returns what takes its frames."""
        control = functools.partial(self._sockets.control, connection)
        buffer = FeedBuffer(connection, f"{self._task_name}-usdm-{connection}", "usdm", control)
        self._buffers[connection] = buffer
        self._feed.attach(buffer)
        return buffer.take

    def ended(self, connection: int, reason: str) -> None:
        """`connection` ended, or was never established."""
        if buffer := self._buffers.pop(connection, None):
            self._feed.detach(buffer)

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


class _Unwanted(Exception):
    """No perpetual is wanted any longer."""


class ReferenceStream:
    """Holds the stream at `address` open for `feed`; without an address there is none."""

    def __init__(
        self, address: str, rollover_s: float, feed: ReferenceFeed, logger: Logger, rng: random.Random
    ) -> None:
        self._feed = feed
        self._logger = logger
        self._is_wanted = asyncio.Event()
        self._problem = ""
        self._task_name = uuid.uuid4().hex[:8]
        self._buffers: dict[int, FeedBuffer] = {}
        self._session = Session([], rng, rollover_s, has_busy_stream=True)
        self._sockets = Sockets("reference", address, self._session, self, logger)
        self.follow(address)
        feed.saw_quotes = lambda connection, perpetual: self._session.data(
            connection, perpetual, "quotes", time.monotonic()
        )

    def follow(self, address: str) -> None:
        """Carry the perpetuals that the feed wants now, at `address`; empty: there are none."""
        self._sockets.address, self._sockets.about = address, {"perpetuals": self._feed.perpetuals}
        # Among the streams is the busiest there is (`settings.reference_address`).
        streams = [(perpetual, "quotes") for perpetual in self._feed.perpetuals]
        self._session.follow(streams, has_busy_stream=True)
        if address:
            self._is_wanted.set()
        else:
            self._is_wanted.clear()
        self._sockets.happened.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._is_wanted.wait()
            try:
                await self._sockets.run(self._turn)
            except _Unwanted:
                continue
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
        is_live, is_wanted = self._session.is_live, self._is_wanted.is_set()
        last_us = self._feed.last_received_us
        why = "" if is_live or not is_wanted else self._problem or self._session.reason
        return {
            "wanted": is_wanted,
            "live": is_live,
            "why": why,
            "connections": self._sockets.connections,
            "age_s": {
                symbol: (now_us - last_us[symbol]) / 1e6 if symbol in last_us else None
                for symbol in (self._feed.symbols if is_wanted else ())
            },
        }

    def _turn(self) -> None:
        self._session.take_stalls()
        if not self._is_wanted.is_set():
            raise _Unwanted

    def opened(self, connection: int, about: dict[str, Any]) -> Take:
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

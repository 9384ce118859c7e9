"""The stream of trades and quotes: its connections' buffers, and what REST says of its silent symbols.

On the keyless feed control messages are taken like data, for only decoding distinguishes them.
"""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aws_lambda_powertools import Logger

from ingest_ecs.feed_buffer import FeedBuffer
from ingest_ecs.producer import Producer
from ingest_ecs.settings import IngestSettings
from ingest_ecs.sockets import Sockets, Take
from ingest_ecs.threads import in_thread
from tickcast.adapters.redaction import describe
from tickcast.adapters.rest.binance import BinanceRest, RateLimited
from tickcast.market.liveness import Newest
from tickcast.market.session import Session
from tickcast.market.watermark import SymbolStream

REST_TIMEOUT_S = 2.0  # a later answer would be useless


class RestProbe:
    """Asks REST whether silent symbols are quiet or dead, in a thread and one request at a time, so that a
    failure costs only the evidence.

    `buffers` are those of the open connections; `answered` is called after each answer.
    """

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
            newest = await in_thread(self._rest.newest, symbols)
        except Exception as error:
            retry_after_s = error.retry_after_s if isinstance(error, RateLimited) else 0.0
            self._session.probe_failed(time.monotonic(), retry_after_s)
            if (problem := describe(error)) != self._last_error:
                self._logger.warning("REST cannot say whether markets are quiet", extra={"reason": problem})
            self._last_error = problem
            return
        self._last_error = ""
        for symbol, exchange in newest.items():
            if not self._producer.serves(symbol):  # removed while REST was asked
                continue
            delivered = {c: buffer.newest.get(symbol, Newest()) for c, buffer in self._buffers.items()}
            received = self._producer.newest(symbol)
            if self._session.probed(symbol, exchange, received, delivered, asked_s):
                self._producer.note_quiet(symbol, asked_us)
        self._answered()


def symbol_streams(symbols: Iterable[str]) -> list[SymbolStream]:
    """The streams of trades and quotes of `symbols`, as `Session` wants them."""
    return [(symbol, kind) for symbol in symbols for kind in ("trades", "quotes")]


class Stream:
    """Holds the stream open."""

    def __init__(
        self,
        settings: IngestSettings,
        session: Session,
        producer: Producer,
        logger: Logger,
        rest: BinanceRest | None = None,
    ) -> None:
        self._settings = settings
        self._session = session
        self._producer = producer
        self._task_name = uuid.uuid4().hex[:8]
        self._buffers: dict[int, FeedBuffer] = {}
        self._sockets = Sockets(
            "market",
            settings.stream_address(),
            session,
            self,
            logger,
            api_key=settings.api_key,
            about={"symbols": settings.symbols},  # of a connection: which it carries
        )
        self._probe = RestProbe(
            rest or BinanceRest(settings.rest_url, timeout_s=REST_TIMEOUT_S, tries=1),
            session,
            producer,
            self._buffers,
            logger,
            self._sockets.happened.set,
        )

    @property
    def connections(self) -> int:
        """Handshakes that succeeded."""
        return self._sockets.connections

    def follow(self, settings: IngestSettings) -> None:
        """Carry the symbols of `settings` from now on: by a new connection, which replaces the others once it
        delivers what they do."""
        symbols = settings.symbols
        self._sockets.address, self._sockets.about = settings.stream_address(), {"symbols": symbols}
        self._session.follow(symbol_streams(symbols), has_busy_stream=settings.busy_symbol not in symbols)
        self._sockets.happened.set()

    async def run(self) -> None:
        """Until cancelled. Raises `FatalSessionError` when the exchange refuses permanently."""
        try:
            await self._sockets.run(self._turn)
        finally:
            if self._probe.task:
                self._probe.task.cancel()
                await asyncio.gather(self._probe.task, return_exceptions=True)

    def _turn(self) -> None:
        for stall in self._session.take_stalls():
            self._producer.note_stall(stall)
        for connection, buffer in self._buffers.items():
            buffer.withdrawn = self._session.withdrawn(connection)
        self._probe.start_if_due()

    def opened(self, connection: int, about: dict[str, Any]) -> Take:
        """`connection` was established; returns what takes its frames."""
        protocol = self._settings.protocol
        control = functools.partial(self._sockets.control, connection)
        name = f"{self._task_name}-{connection}"
        buffer = FeedBuffer(connection, name, protocol, control, about["symbols"])
        self._buffers[connection] = buffer
        self._producer.attach(buffer)

        def take_sbe(frame: bytes | str, received_us: int) -> None:
            if isinstance(frame, str):  # data are binary
                self._sockets.control_text(connection, frame)
            else:
                buffer.take(frame, received_us)

        return take_sbe if protocol == "sbe" else buffer.take

    def ended(self, connection: int, reason: str) -> None:
        """`connection` ended, or was never established."""
        if buffer := self._buffers.pop(connection, None):
            self._producer.detach(buffer, reason)

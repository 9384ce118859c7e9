"""The sockets: carries out the actions of `tickcast.market.session`, and notifies it of events.

Nothing slow may run between two frames, or pings go unanswered and the exchange hangs up: a frame is put into
its connection's buffer, and decoded with the others after a linger. On the keyless feed this applies to
control messages too, which only decoding distinguishes from data.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import websockets
from aws_lambda_powertools import Logger
from websockets.exceptions import InvalidStatus, WebSocketException

from ingest_ecs.feed_buffer import FeedBuffer
from ingest_ecs.producer import Producer
from ingest_ecs.settings import IngestSettings
from ingest_ecs.threads import in_thread
from tickcast.adapters.redaction import describe
from tickcast.adapters.rest.binance import BinanceRest, RateLimited
from tickcast.market.json_frames import unwrapped
from tickcast.market.liveness import Newest
from tickcast.market.reconnect import FatalSessionError
from tickcast.market.session import Close, Open, Session

OPEN_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 2
REST_TIMEOUT_S = 2.0  # a later answer would be useless
TURN_S = 0.25  # the session is asked this often, and after every event


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
            delivered = {c: buffer.newest.get(symbol, Newest()) for c, buffer in self._buffers.items()}
            received = self._producer.newest(symbol)
            if self._session.probed(symbol, exchange, received, delivered, asked_s):
                self._producer.note_quiet(symbol, asked_us)
        self._answered()


class Stream:
    """Holds the stream open. `connections` counts handshakes that succeeded."""

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
        self._logger = logger
        self._task_name = uuid.uuid4().hex[:8]
        self._sockets: dict[int, asyncio.Task[None]] = {}
        self._buffers: dict[int, FeedBuffer] = {}
        self._closing: dict[int, str] = {}  # connections that are being closed, and why
        self._happened = asyncio.Event()
        self._probe = RestProbe(
            rest or BinanceRest(settings.rest_url, timeout_s=REST_TIMEOUT_S, tries=1),
            session,
            producer,
            self._buffers,
            logger,
            self._happened.set,
        )
        self._fatal: FatalSessionError | None = None
        self.connections = 0

    async def run(self) -> None:
        """Until cancelled. Raises `FatalSessionError` when the exchange refuses permanently."""
        try:
            while self._fatal is None:
                for action in self._session.actions(time.monotonic()):
                    self._act(action)
                for stall in self._session.take_stalls():
                    self._producer.note_stall(stall)
                for connection, buffer in self._buffers.items():
                    buffer.withdrawn = self._session.withdrawn(connection)
                self._probe.start_if_due()
                self._happened.clear()
                # Not wait_for, which on Python 3.11 can swallow a cancellation that arrives at the same time.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_S):
                        await self._happened.wait()
            raise self._fatal
        finally:
            tasks = [*self._sockets.values(), *([self._probe.task] if self._probe.task else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _act(self, action: Open | Close) -> None:
        if isinstance(action, Open):
            self._logger.info("connecting", extra={"connection": action.connection, "why": action.reason})
            self._sockets[action.connection] = asyncio.create_task(self._hold(action.connection))
        elif action.connection in self._sockets:
            self._logger.info("closing", extra={"connection": action.connection, "why": action.reason})
            self._closing[action.connection] = action.reason
            self._sockets[action.connection].cancel()

    async def _hold(self, connection: int) -> None:
        """One connection, from handshake to its end."""
        buffer = FeedBuffer(
            connection,
            f"{self._task_name}-{connection}",
            self._settings.protocol,
            functools.partial(self._control, connection),
        )
        reason, status, retry_after_s = "closed by the exchange", None, 0.0
        try:
            await self._receive(connection, buffer)
        except InvalidStatus as error:
            status = error.response.status_code
            reason = f"HTTP {status}"
            retry_after_s = _seconds(error.response.headers.get("Retry-After", ""))
        except (OSError, WebSocketException, TimeoutError) as error:
            # The library's messages may contain the headers, and so the key.
            reason = describe(error, self._settings.api_key)
        except asyncio.CancelledError:
            reason = self._closing.pop(connection, "ingest was stopped")
        finally:
            self._ended(connection, buffer, reason, status, retry_after_s)

    async def _receive(self, connection: int, buffer: FeedBuffer) -> None:
        headers = {"X-MBX-APIKEY": self._settings.api_key} if self._settings.api_key else {}
        async with websockets.connect(
            self._settings.stream_address(),
            additional_headers=headers,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,  # the exchange pings; the library answers
            compression=None,
            max_queue=4096,
        ) as socket:
            self.connections += 1
            self._logger.info(
                "connected", extra={"connection": connection, "symbols": self._settings.symbols}
            )
            self._session.opened(connection, time.monotonic())
            self._buffers[connection] = buffer
            self._producer.attach(buffer)
            self._happened.set()
            async for frame in socket:
                if isinstance(frame, str) and self._settings.protocol == "sbe":
                    self._control_text(connection, frame)  # data are binary
                else:
                    buffer.take(frame, time.time_ns() // 1000)

    def _ended(
        self, connection: int, buffer: FeedBuffer, reason: str, status: int | None, retry_after_s: float
    ) -> None:
        self._logger.warning("connection ended", extra={"connection": connection, "why": reason})
        if self._buffers.pop(connection, None):
            self._producer.detach(buffer, reason)
        self._sockets.pop(connection, None)
        try:
            self._session.closed(connection, reason, status, time.monotonic(), retry_after_s)
        except FatalSessionError as error:
            self._fatal = error
        self._happened.set()

    def _control_text(self, connection: int, text: str) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict):
            self._control(connection, unwrapped(message))
        else:
            self._logger.warning("text frame", extra={"connection": connection, "text": text[:500]})

    def _control(self, connection: int, message: dict[str, Any]) -> None:
        """Handle a message that is not data: a reply to a request, or the announcement of a shutdown."""
        is_refusal = message.get("error") is not None or "code" in message
        log = self._logger.error if is_refusal else self._logger.info
        log("control message", extra={"connection": connection, "text": str(message)[:500]})
        if message.get("e") == "serverShutdown":
            self._session.shutdown_announced(connection)
            self._happened.set()


def _seconds(text: str) -> float:
    """`Retry-After` in seconds; 0 for anything else, including a date."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0

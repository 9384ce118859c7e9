"""The sockets: does what `tickcast.market.session` decides, and tells it what happened.

Nothing slow happens between two frames, or pings go unanswered and the exchange hangs up: a frame is put
on its connection's lane, and decoded a linger later with the others. On the keyless feed that applies to
control messages too, which only reading tells from data. REST is asked in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
import uuid
from typing import Any

import websockets
from aws_lambda_powertools import Logger
from websockets.exceptions import InvalidStatus, WebSocketException

from ingest_ecs.feed_buffer import FeedBuffer
from ingest_ecs.producer import Producer
from ingest_ecs.settings import IngestSettings
from tickcast.adapters.redaction import describe
from tickcast.adapters.rest.binance import BinanceRest, RateLimited
from tickcast.market.json_frames import unwrapped
from tickcast.market.session import Close, FatalSessionError, Newest, Open, Session

OPEN_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 2
TURN_S = 0.25  # the session is asked this often, and whenever something happens
REST_TIMEOUT_S = 2.0  # an answer that takes longer comes too late for what it is asked for


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
        self._closed_why: dict[int, str] = {}  # of those that are being closed
        self._rest = rest or BinanceRest(settings.rest_url, timeout_s=REST_TIMEOUT_S, tries=1)
        self._look: asyncio.Task[None] | None = None
        self._look_problem = ""
        self._happened = asyncio.Event()
        self._fatal: FatalSessionError | None = None
        self.connections = 0

    async def run(self) -> None:
        """Until cancelled. Raises `FatalSessionError` when the exchange refuses for good."""
        try:
            while self._fatal is None:
                for action in self._session.actions(time.monotonic()):
                    self._act(action)
                for stall in self._session.take_stalls():
                    self._producer.stalled(stall)
                for connection, buffer in self._buffers.items():
                    buffer.withdrawn = self._session.withdrawn(connection)
                self._look_if_due()
                self._happened.clear()
                # Not wait_for, which on Python 3.11 can swallow a cancellation that comes just then.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_S):
                        await self._happened.wait()
            raise self._fatal
        finally:
            tasks = [*self._sockets.values(), *([self._look] if self._look else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _act(self, action: Open | Close) -> None:
        if isinstance(action, Open):
            self._logger.info("connecting", extra={"connection": action.connection, "why": action.why})
            self._sockets[action.connection] = asyncio.create_task(self._hold(action.connection))
        elif action.connection in self._sockets:
            self._logger.info("closing", extra={"connection": action.connection, "why": action.why})
            self._closed_why[action.connection] = action.why
            self._sockets[action.connection].cancel()

    def _look_if_due(self) -> None:
        """Ask REST about the symbols that are silent, unless an answer is still waited for."""
        if self._look is not None and not self._look.done():
            return
        if symbols := self._session.looks(time.monotonic()):
            self._look = asyncio.create_task(self._look_at(symbols))

    async def _look_at(self, symbols: list[str]) -> None:
        asked_s, asked_us = time.monotonic(), time.time_ns() // 1000
        try:
            found = await asyncio.to_thread(self._rest.newest, symbols)
        except Exception as error:  # REST is a help: whatever goes wrong with it costs nothing but that
            retry_after_s = error.retry_after_s if isinstance(error, RateLimited) else 0.0
            self._session.look_failed(time.monotonic(), retry_after_s)
            if (problem := describe(error)) != self._look_problem:
                self._logger.warning("REST cannot say whether markets are quiet", extra={"reason": problem})
            self._look_problem = problem
            return
        self._look_problem = ""
        for symbol, exchange in found.items():
            brought = {c: buffer.newest.get(symbol, Newest()) for c, buffer in self._buffers.items()}
            come = self._producer.newest(symbol)
            if self._session.looked(symbol, exchange, come, brought, asked_s):
                self._producer.quiet(symbol, asked_us)
        self._happened.set()

    async def _hold(self, connection: int) -> None:
        """One connection, from handshake to its end."""
        buffer = FeedBuffer(
            connection,
            f"{self._task_name}-{connection}",
            self._settings.protocol,
            functools.partial(self._control, connection),
        )
        why, status, retry_after_s = "closed by the exchange", None, 0.0
        try:
            await self._receive(connection, buffer)
        except InvalidStatus as error:
            status = error.response.status_code
            why = f"HTTP {status}"
            retry_after_s = _seconds(error.response.headers.get("Retry-After", ""))
        except (OSError, WebSocketException, TimeoutError) as error:
            # The library puts what it was given, the key among it, into its messages.
            why = describe(error, self._settings.api_key)
        except asyncio.CancelledError:
            why = self._closed_why.pop(connection, "ingest was stopped")
        finally:
            self._ended(connection, buffer, why, status, retry_after_s)

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
            self._producer.open_lane(buffer)
            self._happened.set()
            async for frame in socket:
                if isinstance(frame, str) and self._settings.protocol == "sbe":
                    self._control_text(connection, frame)  # data are binary
                else:
                    buffer.take(frame, time.time_ns() // 1000)

    def _ended(
        self, connection: int, buffer: FeedBuffer, why: str, status: int | None, retry_after_s: float
    ) -> None:
        self._logger.warning("connection ended", extra={"connection": connection, "why": why})
        if self._buffers.pop(connection, None):
            self._producer.close_lane(buffer, why)
        self._sockets.pop(connection, None)
        try:
            self._session.closed(connection, why, status, time.monotonic(), retry_after_s)
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
        """A message that is no data: a reply to a request, or the announcement of a shutdown."""
        is_refusal = message.get("error") is not None or "code" in message
        log = self._logger.error if is_refusal else self._logger.info
        log("control message", extra={"connection": connection, "text": str(message)[:500]})
        if message.get("e") == "serverShutdown":
            self._session.shutdown_announced(connection)
            self._happened.set()


def _seconds(text: str) -> float:
    """`Retry-After` in seconds; 0 for anything else, a date among it."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0

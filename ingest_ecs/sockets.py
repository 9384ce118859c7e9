"""The sockets of a stream: carries out the actions of `tickcast.market.session`, and notifies it of events.

Nothing slow may run between two frames, or pings go unanswered and the exchange hangs up: a frame is handed
on, and decoded with the others after a linger.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any, Protocol

import websockets
from aws_lambda_powertools import Logger
from websockets.exceptions import InvalidStatus, WebSocketException

from tickcast.adapters.redaction import describe
from tickcast.market.json_frames import unwrapped
from tickcast.market.reconnect import FatalSessionError
from tickcast.market.session import Close, Open, Session

OPEN_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 2
TURN_S = 0.25  # the session is asked this often, and after every event

Take = Callable[[bytes | str, int], None]  # a frame, and when it was received, µs


class Receiver(Protocol):
    """What the frames are for."""

    def opened(self, connection: int, about: dict[str, Any]) -> Take:
        """`connection` was established, `about` as when it was wanted; returns what takes its frames."""

    def ended(self, connection: int, reason: str) -> None:
        """`connection` ended, or was never established."""


class Sockets:
    """Holds the connections that `session` wants to `address`, with `api_key` if it is not empty. In the log
    `name` tells streams apart, and `about` is what it says of a connection. `address` and `about` may be
    changed: connections that the session opens from then on are to the new one.

    `connections` counts handshakes that succeeded. `happened` makes `run` look at the session at once.
    """

    def __init__(
        self,
        name: str,
        address: str,
        session: Session,
        receiver: Receiver,
        logger: Logger,
        *,
        api_key: str = "",
        about: dict[str, Any] | None = None,
    ) -> None:
        self._name = name
        self.address = address
        self._session = session
        self._receiver = receiver
        self._logger = logger
        self._api_key = api_key
        self.about = about or {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._closing: dict[int, str] = {}  # connections that are being closed, and why
        self._fatal: FatalSessionError | None = None
        self.happened = asyncio.Event()
        self.connections = 0

    async def run(self, each_turn: Callable[[], object] = lambda: None) -> None:
        """Until cancelled. Raises `FatalSessionError` when the exchange refuses permanently."""
        self._fatal = None
        try:
            while self._fatal is None:
                for action in self._session.actions(time.monotonic()):
                    self._act(action)
                each_turn()
                self.happened.clear()
                # Not wait_for, which on Python 3.11 can swallow a cancellation that arrives at the same time.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_S):
                        await self.happened.wait()
            raise self._fatal
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for connection in list(self._tasks):  # one cancelled before it began ran no `finally` of its own
                self._ended(connection, "ingest was stopped", None, 0.0)

    def control(self, connection: int, message: dict[str, Any]) -> None:
        """Handle a message that is not data: a reply to a request, or the announcement of a shutdown."""
        is_refusal = message.get("error") is not None or "code" in message
        log = self._logger.error if is_refusal else self._logger.info
        log("control message", extra=self._of(connection, text=str(message)[:500]))
        if message.get("e") == "serverShutdown":
            self._session.shutdown_announced(connection)
            self.happened.set()

    def control_text(self, connection: int, text: str) -> None:
        """Handle `text`, which is not data."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict):
            self.control(connection, unwrapped(message))
        else:
            self._logger.warning("text frame", extra=self._of(connection, text=text[:500]))

    def _act(self, action: Open | Close) -> None:
        if isinstance(action, Open):
            self._logger.info("connecting", extra=self._of(action.connection, why=action.reason))
            self._tasks[action.connection] = asyncio.create_task(
                self._hold(action.connection, self.address, self.about)
            )
        elif action.connection in self._tasks:
            self._logger.info("closing", extra=self._of(action.connection, why=action.reason))
            self._closing[action.connection] = action.reason
            self._tasks[action.connection].cancel()

    async def _hold(self, connection: int, address: str, about: dict[str, Any]) -> None:
        """One connection, from handshake to its end."""
        reason, status, retry_after_s = "closed by the exchange", None, 0.0
        try:
            await self._receive(connection, address, about)
        except InvalidStatus as error:
            status = error.response.status_code
            reason = f"HTTP {status}"
            retry_after_s = _seconds(error.response.headers.get("Retry-After", ""))
        except (OSError, WebSocketException, TimeoutError) as error:
            # The library's messages may contain the headers, and so the key.
            reason = describe(error, self._api_key)
        except asyncio.CancelledError:
            reason = self._closing.pop(connection, "ingest was stopped")
        finally:
            self._ended(connection, reason, status, retry_after_s)

    async def _receive(self, connection: int, address: str, about: dict[str, Any]) -> None:
        async with websockets.connect(
            address,
            additional_headers={"X-MBX-APIKEY": self._api_key} if self._api_key else {},
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,  # the exchange pings; the library answers
            compression=None,
            max_queue=4096,
        ) as socket:
            self.connections += 1
            self._logger.info("connected", extra=self._of(connection, **about))
            self._session.opened(connection, time.monotonic())
            take = self._receiver.opened(connection, about)
            self.happened.set()
            async for frame in socket:
                take(frame, time.time_ns() // 1000)

    def _ended(self, connection: int, reason: str, status: int | None, retry_after_s: float) -> None:
        self._logger.warning("connection ended", extra=self._of(connection, why=reason))
        self._receiver.ended(connection, reason)
        self._tasks.pop(connection, None)
        try:
            self._session.closed(connection, reason, status, time.monotonic(), retry_after_s)
        except FatalSessionError as error:
            self._fatal = error
        self.happened.set()

    def _of(self, connection: int, **fields: Any) -> dict[str, Any]:
        return {"stream": self._name, "connection": connection, **fields}


def _seconds(text: str) -> float:
    """`Retry-After` in seconds; 0 for anything else, including a date."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0

"""The sockets: does what `tickcast.session` decides, and tells it what happened.

Nothing slow happens between two frames, or pings go unanswered and the exchange hangs up: a frame is put
on its connection's lane, and decoded a linger later with the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid

import websockets
from aws_lambda_powertools import Logger
from websockets.exceptions import InvalidStatus, WebSocketException

from ingest_ecs.lane import Lane
from ingest_ecs.producer import Producer
from ingest_ecs.settings import IngestSettings
from tickcast.adapters.redaction import describe
from tickcast.session import Close, FatalSessionError, Open, Session

OPEN_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 2
TURN_S = 0.25  # the session is asked this often, beside whenever something happens


class Stream:
    """Holds the stream open. `connections` counts handshakes that succeeded."""

    def __init__(
        self, settings: IngestSettings, session: Session, producer: Producer, logger: Logger
    ) -> None:
        self._settings = settings
        self._session = session
        self._producer = producer
        self._logger = logger
        self._task_name = uuid.uuid4().hex[:8]
        self._sockets: dict[int, asyncio.Task[None]] = {}
        self._lanes: dict[int, Lane] = {}
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
                for connection, lane in self._lanes.items():
                    lane.is_stalled = self._session.is_stalled(connection)
                self._happened.clear()
                # Not wait_for, which on Python 3.11 can swallow a cancellation that comes just then.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_S):
                        await self._happened.wait()
            raise self._fatal
        finally:
            for task in self._sockets.values():
                task.cancel()
            await asyncio.gather(*self._sockets.values(), return_exceptions=True)

    def _act(self, action: Open | Close) -> None:
        if isinstance(action, Open):
            self._logger.info("connecting", extra={"connection": action.connection, "why": action.why})
            self._sockets[action.connection] = asyncio.create_task(self._hold(action.connection))
        elif action.connection in self._sockets:
            self._logger.info("closing", extra={"connection": action.connection, "why": action.why})
            self._sockets[action.connection].cancel()

    async def _hold(self, connection: int) -> None:
        """One connection, from handshake to its end."""
        lane = Lane(connection, f"{self._task_name}-{connection}", self._settings.protocol)
        why, status, retry_after_s = "closed by the exchange", None, 0.0
        try:
            await self._receive(connection, lane)
        except InvalidStatus as error:
            status = error.response.status_code
            why = f"HTTP {status}"
            retry_after_s = _seconds(error.response.headers.get("Retry-After", ""))
        except (OSError, WebSocketException, TimeoutError) as error:
            # The library puts what it was given, the key among it, into its messages.
            why = describe(error, self._settings.api_key)
        except asyncio.CancelledError:
            why = "closed by us"
        finally:
            self._ended(connection, lane, why, status, retry_after_s)

    async def _receive(self, connection: int, lane: Lane) -> None:
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
            self._lanes[connection] = lane
            self._producer.open_lane(lane)
            self._happened.set()
            async for frame in socket:
                if isinstance(frame, str) and not self._is_data(frame):
                    self._control(connection, frame)
                else:
                    lane.take(frame, time.time_ns() // 1000)

    def _ended(self, connection: int, lane: Lane, why: str, status: int | None, retry_after_s: float) -> None:
        self._logger.warning("connection ended", extra={"connection": connection, "why": why})
        if self._lanes.pop(connection, None):
            self._producer.close_lane(lane, why)
        self._sockets.pop(connection, None)
        try:
            self._session.closed(connection, why, status, time.monotonic(), retry_after_s)
        except FatalSessionError as error:
            self._fatal = error
        self._happened.set()

    def _is_data(self, text: str) -> bool:
        return self._settings.protocol == "json" and text.startswith('{"stream"')

    def _control(self, connection: int, text: str) -> None:
        """A text frame beside the data: replies to subscriptions, and the announcement of a shutdown."""
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        self._logger.info("text frame", extra={"connection": connection, "text": text[:500]})
        if isinstance(message, dict) and message.get("e") == "serverShutdown":
            self._session.shutdown_announced(connection)
            self._happened.set()


def _seconds(text: str) -> float:
    """`Retry-After` in seconds; 0 for anything else, a date among it."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0

"""One client's WebSocket: frames out through a bounded queue, control messages in, pings both ways.

Nothing the market does waits for a client. A frame is put into the client's queue and the client's own
task sends it; a client that leaves more than `max_queued` messages unread is cut off, as an exchange does.

What is sent to a client passes `Connection.offer`, and nothing else: a place to make the exchange misbehave.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from typing import Any

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from local.exchange.log import log
from local.exchange.subscriptions import Subscriptions


class Connection:
    """A client that has been let in. `serve` runs until it has gone."""

    def __init__(
        self,
        transport: asyncio.BaseTransport | None,
        socket: web.WebSocketResponse,
        subscriptions: Subscriptions[Connection],
    ) -> None:
        self._transport = transport
        self._socket = socket
        self._subscriptions = subscriptions
        self._limits = limits = subscriptions.limits
        self._queue: deque[bytes | str] = deque()
        self._queued = asyncio.Event()
        self._is_cut_off = False
        self._received: deque[float] = deque(maxlen=limits.messages_per_s)
        self._unanswered: dict[bytes, float] = {}  # pings by payload, oldest first

    def offer(self, message: bytes | str) -> None:
        """Queue a binary frame or a text; never waits."""
        if self._is_cut_off:
            return
        if len(self._queue) >= self._limits.max_queued:
            self._is_cut_off = True
            self._queue.clear()
            log("client_too_slow", queued=self._limits.max_queued, streams=self._subscriptions.of(self))
            if isinstance(self._transport, asyncio.WriteTransport):
                self._transport.abort()  # a goodbye would have to wait behind what it does not read
            return
        self._queue.append(message)
        self._queued.set()

    async def serve(self) -> None:
        tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._ping())]
        try:
            await self._read()
        finally:
            self._subscriptions.drop(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, code: WSCloseCode, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())

    async def _write(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                message = self._queue.popleft()
                if isinstance(message, bytes):
                    await self._socket.send_bytes(message)
                else:
                    await self._socket.send_str(message)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._limits.ping_every_s)
            now = time.monotonic()
            if self._unanswered and now - next(iter(self._unanswered.values())) > self._limits.pong_within_s:
                log("client_without_pong", streams=self._subscriptions.of(self))
                await self.close(WSCloseCode.POLICY_VIOLATION, "Pong timeout")
                return
            payload = str(time.time_ns() // 1_000_000).encode()
            self._unanswered.setdefault(payload, now)
            await self._socket.ping(payload)

    async def _read(self) -> None:
        async for message in self._socket:
            now = time.monotonic()
            if len(self._received) == self._received.maxlen and now - self._received[0] < 1.0:
                log("client_too_many_messages", streams=self._subscriptions.of(self))
                await self.close(WSCloseCode.POLICY_VIOLATION, "Too many requests")
                return
            self._received.append(now)
            await self._handle(message)

    async def _handle(self, message: WSMessage) -> None:
        match message.type:
            case WSMsgType.TEXT:
                self.offer(json.dumps(self._reply(message.data)))
            case WSMsgType.PING:
                await self._socket.pong(message.data)
            case WSMsgType.PONG:
                self._answered(bytes(message.data))

    def _answered(self, payload: bytes) -> None:
        """A pong answers its ping and those before it; an unsolicited one answers none."""
        if payload in self._unanswered:
            while next(iter(self._unanswered)) != payload:
                del self._unanswered[next(iter(self._unanswered))]
            del self._unanswered[payload]

    # ----------------------------------------------------------------------------------------- control

    def _reply(self, text: str) -> dict[str, Any]:
        """The answer to a control message."""
        try:
            request = json.loads(text)
        except ValueError as error:
            return _error(None, 3, f"Invalid JSON: {error}")
        if not isinstance(request, dict):
            return _error(None, 2, "Invalid request: expected an object")
        id_ = request.get("id")
        if not isinstance(id_, int | str | None) or isinstance(id_, bool):
            return _error(None, 2, "Invalid request: request ID must be an integer, a string or null")
        streams = request.get("params", [])
        if not isinstance(streams, list) or not all(isinstance(stream, str) for stream in streams):
            return _error(id_, 2, "Invalid request: params must be a list of strings")
        try:
            return {"result": self._control(request.get("method"), streams), "id": id_}
        except ValueError as error:
            return _error(id_, 2, f"Invalid request: {error}")

    def _control(self, method: object, streams: list[str]) -> list[str] | None:
        """Do what is asked; the result to report. Raises ValueError."""
        if method == "LIST_SUBSCRIPTIONS":
            return self._subscriptions.of(self)
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            known = "SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS"
            raise ValueError(f"unknown method {method!r}, expected one of {known}")
        if method == "SUBSCRIBE":
            self._subscriptions.add(self, streams)
        else:
            self._subscriptions.remove(self, streams)
        return None


def _error(id_: int | str | None, code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "msg": message}, "id": id_}

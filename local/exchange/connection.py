"""One client's WebSocket: frames out through a bounded queue, control messages in, pings both ways.

The market never waits for a client. A frame is put into the client's queue and sent by the client's own task;
a client that leaves more than `max_queued` messages unread is disconnected, as an exchange does.

Everything sent to a client passes `Connection.offer`. What it gets and when is decided earlier, by the market
and by `local.exchange.fault_injector`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import deque
from typing import Any

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from local.exchange.encoding import Encoding
from local.exchange.log import log
from local.exchange.subscriptions import Subscriptions

_NO_LINGER = struct.pack("ii", 1, 0)  # closing discards what was not sent and resets the connection


class Connection:
    """An accepted client. `serve` runs until it has disconnected."""

    def __init__(
        self,
        transport: asyncio.BaseTransport | None,
        websocket: web.WebSocketResponse,
        subscriptions: Subscriptions,
        encoding: Encoding,
    ) -> None:
        self.encoding = encoding
        self._transport = transport
        self._websocket = websocket
        self._subscriptions = subscriptions
        self._limits = limits = subscriptions.limits
        self._queue: deque[bytes | str] = deque()
        self._queued = asyncio.Event()
        self._is_cut_off = False
        self._opened_s = asyncio.get_running_loop().time()
        self._end: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._received: deque[float] = deque(maxlen=limits.messages_per_s)
        self._unanswered: dict[bytes, float] = {}  # pings by payload, oldest first
        self.end_at_age(limits.max_age_s)

    def offer(self, message: bytes | str) -> None:
        """Queue a binary frame or a text; never waits."""
        if self._is_cut_off:
            return
        if len(self._queue) >= self._limits.max_queued:
            log("client_too_slow", queued=self._limits.max_queued, streams=self._subscriptions.of(self))
            self.abort()  # a closing frame would wait behind the unread messages
            return
        self._queue.append(message)
        self._queued.set()

    def abort(self) -> None:
        """Reset the TCP connection: without a closing handshake, discarding the queue."""
        self._is_cut_off = True
        self._queue.clear()
        if isinstance(self._transport, asyncio.WriteTransport):
            endpoint = self._transport.get_extra_info("socket")
            if endpoint is not None:
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()

    def close_soon(self, code: WSCloseCode, reason: str) -> None:
        """Start the closing handshake without waiting for the client."""
        if self._closing is None:
            self._closing = asyncio.create_task(self.close(code, reason))

    def end_at_age(self, age_s: float) -> None:
        """Close once the connection is `age_s` old; replaces the previous age."""
        if self._end is not None:
            self._end.cancel()
        loop = asyncio.get_running_loop()
        self._end = loop.call_at(self._opened_s + age_s, self._end_of_life)

    async def serve(self) -> None:
        tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._ping())]
        try:
            await self._read()
        finally:
            self._subscriptions.drop(self)
            if self._end is not None:
                self._end.cancel()
            for task in tasks:
                task.cancel()
            if self._closing is not None:
                tasks.append(self._closing)
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, code: WSCloseCode, reason: str) -> None:
        await self._websocket.close(code=code, message=reason.encode())

    def _end_of_life(self) -> None:
        log("connection_too_old", streams=self._subscriptions.of(self))
        self.close_soon(WSCloseCode.GOING_AWAY, "The connection has reached its maximum age")

    async def _write(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                message = self._queue.popleft()
                if isinstance(message, bytes):
                    await self._websocket.send_bytes(message)
                else:
                    await self._websocket.send_str(message)

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
            await self._websocket.ping(payload)

    async def _read(self) -> None:
        async for message in self._websocket:
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
                await self._websocket.pong(message.data)
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
        """Execute the request; the result to report. Raises ValueError."""
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

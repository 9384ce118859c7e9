"""The socket loop: connect, decode, hand over; connect again when the stream is lost.

Nothing slow happens between two frames, or pings go unanswered and the exchange hangs up.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import websockets
from aws_lambda_powertools import Logger
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from ingest_ecs.producer import Producer
from ingest_ecs.settings import IngestSettings
from tickcast import sbe
from tickcast.session import backoff, refusal, stream_names
from tickcast.ticks import TickError, tick_rows

OPEN_TIMEOUT_S = 10
# The exchange pings every 20 s and sends a symbol's quotes many times a second: half a minute without
# any frame is a dead stream, whatever its pings say.
SILENCE_S = 30
HEALTHY_AFTER_S = 10  # a connection that held this long makes the next backoff start small again


@dataclass
class StreamHealth:
    is_connected: bool = False
    why: str = "not connected yet"
    connections: int = 0
    frames: int = 0
    bad_frames: Counter[str] = field(default_factory=Counter)  # by reason
    last_tick_us: dict[str, int] = field(default_factory=dict)  # local time by symbol


class Stream:
    def __init__(self, settings: IngestSettings, producer: Producer, logger: Logger) -> None:
        self._settings = settings
        self._producer = producer
        self._logger = logger
        self.health = StreamHealth()

    async def run(self) -> None:
        """Hold the stream open until cancelled. Raises `FatalSessionError` when the exchange refuses."""
        delays = backoff(random.Random())
        while True:
            started_s = time.monotonic()
            try:
                await self._hold()
                why = "the exchange closed the connection"
            except InvalidStatus as error:
                fatal = refusal(error.response.status_code)
                if fatal:
                    raise fatal from error
                why = f"HTTP {error.response.status_code}"
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError) as error:
                why = f"{type(error).__name__}: {error}"
            self.health.is_connected, self.health.why = False, why
            self._producer.connection_lost()
            if time.monotonic() - started_s > HEALTHY_AFTER_S:
                delays = backoff(random.Random())
            delay_s = next(delays)
            self._logger.warning("stream lost", extra={"why": why, "retry_in_s": round(delay_s, 2)})
            await asyncio.sleep(delay_s)

    async def _hold(self) -> None:
        """One connection, from handshake to its end."""
        url = f"{self._settings.stream_url}/stream?streams={'/'.join(stream_names(self._settings.symbols))}"
        async with websockets.connect(
            url,
            additional_headers={"X-MBX-APIKEY": self._settings.api_key},
            open_timeout=OPEN_TIMEOUT_S,
            ping_interval=None,  # the exchange pings; the library answers
            max_queue=4096,
        ) as socket:
            self.health.is_connected, self.health.why = True, ""
            self.health.connections += 1
            self._logger.info("stream connected", extra={"symbols": self._settings.symbols})
            while True:
                # Not `wait_for`: before Python 3.12 it may swallow a cancellation when a frame is just in.
                async with asyncio.timeout(SILENCE_S):
                    frame = await socket.recv()
                if isinstance(frame, str):
                    if self._is_shutdown(frame):
                        return
                else:
                    self._take(frame)

    def _take(self, frame: bytes) -> None:
        received_us = time.time_ns() // 1000
        self.health.frames += 1
        try:
            event = sbe.decode(frame)
            trades, quotes = tick_rows(event, received_us)
            self._producer.accept(event.symbol, trades, quotes, received_us)
        except (sbe.SbeError, TickError) as error:
            self._bad_frame(error.reason if isinstance(error, sbe.SbeError) else "impossible tick", error)
        except KeyError as error:
            self._bad_frame("symbol not subscribed", error)
        else:
            self.health.last_tick_us[event.symbol] = received_us

    def _bad_frame(self, reason: str, error: Exception) -> None:
        self.health.bad_frames[reason] += 1
        if self.health.bad_frames[reason] == 1:  # then only counted: a line per frame would be a flood
            self._logger.error("frame skipped", extra={"reason": str(error)})

    def _is_shutdown(self, text: str) -> bool:
        try:
            message = json.loads(text)
        except ValueError:
            self._bad_frame("text frame that is not JSON", ValueError(text[:200]))
            return False
        self._logger.info("text frame", extra={"text": text[:500]})
        return isinstance(message, dict) and message.get("e") == "serverShutdown"

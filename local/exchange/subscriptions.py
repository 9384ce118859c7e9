"""The listeners of each stream, and the limits of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local.exchange.encoding import Encoding

if TYPE_CHECKING:
    from local.exchange.connection import Connection


@dataclass(frozen=True)
class Limits:
    """Binance's rules for connections, but for `max_queued`, which it does not publish."""

    attempts: int = 300  # to connect, per address
    attempts_within_s: float = 300.0
    max_age_s: float = 86_400.0
    ping_every_s: float = 20.0
    pong_within_s: float = 60.0
    messages_per_s: int = 5
    max_streams: int = 1024
    max_queued: int = 50_000


# Those of the USD-M futures' streams: https://developers.binance.com/docs/derivatives/usds-margined-futures
USDM_LIMITS = Limits(ping_every_s=180.0, pong_within_s=600.0, messages_per_s=10)


class Subscriptions:
    """The listeners of every stream."""

    def __init__(self, streams: Iterable[str], limits: Limits) -> None:
        self.limits = limits
        # Ordered, so that faults affect connections in the order of subscription.
        self._listeners: dict[str, dict[Connection, None]] = {stream: {} for stream in streams}
        self._heard = asyncio.Event()

    def check(self, streams: Sequence[str], encoding: Encoding, held: int = 0) -> None:
        """Raises ValueError for a stream that `encoding` lacks, or for too many with the `held` ones."""
        suffixes = encoding.streams.values()
        for stream in streams:
            if stream not in self._listeners or stream.partition("@")[2] not in suffixes:
                raise ValueError(f"unknown stream {stream!r}")
        if len(streams) + held > self.limits.max_streams:
            raise ValueError(f"more than {self.limits.max_streams} streams on one connection")

    def add(self, listener: Connection, streams: Sequence[str]) -> None:
        """Subscribe to all of `streams` or, with a ValueError, to none."""
        self.check(streams, listener.encoding, held=len(self.of(listener)))
        for stream in streams:
            self._listeners[stream][listener] = None
        self._heard.set()

    def remove(self, listener: Connection, streams: Sequence[str]) -> None:
        """Raises ValueError for a stream that does not exist."""
        self.check(streams, listener.encoding)
        for stream in streams:
            self._listeners[stream].pop(listener, None)

    def drop(self, listener: Connection) -> None:
        for listeners in self._listeners.values():
            listeners.pop(listener, None)

    def of(self, listener: Connection) -> list[str]:
        return [stream for stream, listeners in self._listeners.items() if listener in listeners]

    def to(self, stream: str) -> Collection[Connection]:
        return self._listeners[stream]

    async def first_to(self, streams: Collection[str]) -> None:
        """Wait until one of `streams` has a listener."""
        while not any(self._listeners[stream] for stream in streams):
            self._heard.clear()
            await self._heard.wait()

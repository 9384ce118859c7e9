"""Who listens to which stream, and what a connection may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Listener = TypeVar("Listener", bound=Hashable)


@dataclass(frozen=True)
class Limits:
    """Binance's rules for a connection, but for `max_queued`, which it does not publish."""

    ping_every_s: float = 20.0
    pong_within_s: float = 60.0
    messages_per_s: int = 5
    max_streams: int = 1024
    max_queued: int = 50_000


class Subscriptions(Generic[Listener]):
    """The listeners of every stream there is."""

    def __init__(self, streams: Iterable[str], limits: Limits) -> None:
        self.limits = limits
        self._listeners: dict[str, set[Listener]] = {stream: set() for stream in streams}
        self._heard = asyncio.Event()

    def check(self, streams: Sequence[str], held: int = 0) -> None:
        """Raises ValueError for a stream that does not exist, or too many beside the `held` ones."""
        for stream in streams:
            if stream not in self._listeners:
                raise ValueError(f"unknown stream {stream!r}")
        if len(streams) + held > self.limits.max_streams:
            raise ValueError(f"more than {self.limits.max_streams} streams on one connection")

    def add(self, listener: Listener, streams: Sequence[str]) -> None:
        """Subscribe to all of `streams` or, with a ValueError, to none."""
        self.check(streams, held=len(self.of(listener)))
        for stream in streams:
            self._listeners[stream].add(listener)
        self._heard.set()

    def remove(self, listener: Listener, streams: Sequence[str]) -> None:
        """Raises ValueError for a stream that does not exist."""
        self.check(streams)
        for stream in streams:
            self._listeners[stream].discard(listener)

    def drop(self, listener: Listener) -> None:
        for listeners in self._listeners.values():
            listeners.discard(listener)

    def of(self, listener: Listener) -> list[str]:
        return [stream for stream, listeners in self._listeners.items() if listener in listeners]

    def to(self, stream: str) -> Collection[Listener]:
        return self._listeners[stream]

    async def first_to(self, streams: Collection[str]) -> None:
        """Wait until one of `streams` has a listener."""
        while not any(self._listeners[stream] for stream in streams):
            self._heard.clear()
            await self._heard.wait()

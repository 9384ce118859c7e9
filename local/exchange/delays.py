"""Queues of messages delayed by random times: order holds within each queue, and is lost between them."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

_STEP_S = 1e-6  # timers of the same instant fire in no fixed order, so those of a queue differ


@dataclass
class _Queue:
    delay_s: float = 0.0
    until_s: float = 0.0  # then the delay is drawn again
    last_due_s: float = 0.0
    held: deque[tuple[asyncio.TimerHandle, Callable[[], None]]] = field(default_factory=deque)


class Delays:
    """Delays of up to `within_s` seconds. A queue's delay holds for that long, then it is drawn again.

    If it were drawn for each message, the longest of the last few would delay all queues alike.
    """

    def __init__(self, within_s: float, rng: random.Random) -> None:
        self._within_s = within_s
        self._rng = rng
        self._queues: dict[Hashable, _Queue] = {}

    def hold(self, name: Hashable, deliver: Callable[[], None]) -> None:
        """Call `deliver` later, after everything already in its queue."""
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(name, _Queue())
        now_s = loop.time()
        if now_s >= queue.until_s:
            queue.delay_s = self._rng.uniform(0.0, self._within_s)
            queue.until_s = now_s + self._within_s
        queue.last_due_s = max(now_s + queue.delay_s, queue.last_due_s + _STEP_S)
        queue.held.append((loop.call_at(queue.last_due_s, self._deliver, queue), deliver))

    def flush(self) -> None:
        """Deliver everything at once; nothing is lost."""
        for queue in self._queues.values():
            while queue.held:
                queue.held[0][0].cancel()
                self._deliver(queue)

    def _deliver(self, queue: _Queue) -> None:
        _, deliver = queue.held.popleft()
        deliver()

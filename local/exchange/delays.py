"""Lines of messages held back for random times: each keeps its order, against each other they lose it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

_STEP_S = 1e-6  # timers of one moment fire in no fixed order, so no two of a line share one


@dataclass
class _Line:
    delay_s: float = 0.0
    until_s: float = 0.0  # then the delay is drawn anew
    last_due_s: float = 0.0
    held: deque[tuple[asyncio.TimerHandle, Callable[[], None]]] = field(default_factory=deque)


class Delays:
    """Delays of up to `within_s` seconds. A line's delay holds for as long, then it is drawn anew.

    Drawn for each message instead, the longest of the last few would hold up all, on every line alike.
    """

    def __init__(self, within_s: float, rng: random.Random) -> None:
        self._within_s = within_s
        self._rng = rng
        self._lines: dict[Hashable, _Line] = {}

    def hold(self, name: Hashable, deliver: Callable[[], None]) -> None:
        """Call `deliver` later, after whatever its line holds already."""
        loop = asyncio.get_running_loop()
        line = self._lines.setdefault(name, _Line())
        now_s = loop.time()
        if now_s >= line.until_s:
            line.delay_s = self._rng.uniform(0.0, self._within_s)
            line.until_s = now_s + self._within_s
        line.last_due_s = max(now_s + line.delay_s, line.last_due_s + _STEP_S)
        line.held.append((loop.call_at(line.last_due_s, self._deliver, line), deliver))

    def flush(self) -> None:
        """Deliver everything at once; nothing is lost."""
        for line in self._lines.values():
            while line.held:
                line.held[0][0].cancel()
                self._deliver(line)

    def _deliver(self, line: _Line) -> None:
        _, deliver = line.held.popleft()
        deliver()

"""How far the hot store's clock is from the exchange's, as distinct from a pipeline that is slow.

A one-way delay cannot be distinguished from a clock that is off, so an offset counts only as far as it is
proven. With E the exchange's clock, K the one that stamps arrivals on the stream, R the hot store's:

- Ingest stamps a record with the instant of its put, `sent_us` (E). It has arrived by `arrived_us` (K) only
  after that: K - E <= arrived - sent. A claim, which is never ahead of E, bounds it likewise.
- A task sends the next record of a symbol only after the previous one was acknowledged: it had arrived before
  the next was sent, so K - E >= arrived of the previous - sent of the next.
- What is written into the hot store had arrived before: R - K <= redis - arrived. Only a negative one is
  proof. Nothing proves a positive one, so it counts as 0: on AWS the stream and the store are kept in time by
  the same service, on a laptop they share a clock.

Each bound is the tightest of the last minute; one slow put, or a minute of them, only widens the interval.
Offsets within `SPREAD_US` count as 0: the exchange's clock is measured by REST, with half a round trip of
uncertainty.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

SPREAD_US = 250_000
WINDOW_US = 60_000_000
_BUCKET_US = 1_000_000
SET_BACK = 1000  # arrivals in a row from before the window: the clock of arrivals was set back
# Of which the previous record is remembered, those heard last: all of the exchange's symbols from two tasks,
# and those of the tasks that they replaced.
MAX_SENDERS = 10_000


@dataclass
class _Bounds:
    """The tightest bounds of some arrivals, µs."""

    from_us: int = 0  # the second of a bucket
    low_us: float = -inf  # of K - E
    high_us: float = inf
    store_us: float = inf  # R - K is at most this

    def add(self, low_us: float, high_us: float, store_us: float) -> None:
        self.low_us, self.high_us = max(self.low_us, low_us), min(self.high_us, high_us)
        self.store_us = min(self.store_us, store_us)


class ClockOffset:
    """Feed it every record in the order of the shard, and the hot store's time after a write."""

    def __init__(self) -> None:
        self._buckets: deque[_Bounds] = deque()  # a second each
        self._window = _Bounds()  # of all of them
        self._behind = 0  # arrivals in a row from before the window
        self._previous: dict[tuple[str, str], tuple[int, int]] = {}  # by symbol and task: sent, arrived
        self._own_to_store_us: float | None = None  # the store's clock less this host's

    def record(self, symbol: str, connection: str, sent_us: int, claim_us: int, arrived_us: int) -> None:
        """A record arrived; `sent_us` and `claim_us` are negative where the batch has none."""
        low_us, high_us = -inf, inf
        if claim_us >= 0:
            high_us = arrived_us - claim_us
        if sent_us >= 0:
            sender = symbol, connection.rpartition("-")[0]  # connections of a task share its outbox
            before = self._previous.get(sender)
            if before is not None and sent_us <= before[0]:
                return  # delivered before
            self._previous.pop(sender, None)  # so that the first is the one that has been silent for longest
            self._previous[sender] = sent_us, arrived_us
            if len(self._previous) > MAX_SENDERS:
                del self._previous[next(iter(self._previous))]
            low_us = before[1] - sent_us if before else -inf
            high_us = min(high_us, arrived_us - sent_us)
        window = self._window
        if max(window.low_us, low_us) - min(window.high_us, high_us) > SPREAD_US:  # a clock was set since
            self._clear()
            low_us = -inf  # it compares instants before and after
        self._add(arrived_us, low_us, high_us, inf)

    def written(self, arrived_us: int, asked_us: int, redis_us: int, answered_us: int) -> None:
        """The hot store's time was `redis_us` between `asked_us` and `answered_us` of this host's clock,
        after a record that arrived at `arrived_us` was read."""
        self._add(arrived_us, -inf, inf, redis_us - arrived_us)
        self._own_to_store_us = redis_us - (asked_us + answered_us) / 2

    @property
    def store_ms(self) -> float | None:
        """The hot store's clock less the exchange's, ms; None while nothing is known."""
        if self._window.high_us == inf:
            return None
        behind_us = min(0.0, self._window.store_us)
        return _proven_us(self._window.low_us + behind_us, self._window.high_us + behind_us) / 1000

    @property
    def own_ms(self) -> float | None:
        """This host's clock less the exchange's, ms; None while nothing is known."""
        store_ms = self.store_ms
        if store_ms is None or self._own_to_store_us is None:
            return None
        own_us = store_ms * 1000 - self._own_to_store_us
        return own_us / 1000 if abs(own_us) > SPREAD_US else 0.0

    def _add(self, arrived_us: int, low_us: float, high_us: float, store_us: float) -> None:
        """Tighten the bounds of the second of `arrived_us`, and forget those older than the window."""
        from_us, buckets = arrived_us // _BUCKET_US * _BUCKET_US, self._buckets
        if buckets and from_us < buckets[-1].from_us - WINDOW_US:
            # Of a shard that is far behind, which says nothing of now; or the clock of arrivals was set back.
            self._behind += 1
            if self._behind < SET_BACK:
                return
            self._clear()
        self._behind = 0
        if not buckets or from_us > buckets[-1].from_us:
            buckets.append(_Bounds(from_us))
            self._window = _Bounds()
            while buckets[0].from_us <= from_us - WINDOW_US:
                buckets.popleft()
            for each in buckets:
                self._window.add(each.low_us, each.high_us, each.store_us)
        buckets[-1].add(low_us, high_us, store_us)
        self._window.add(low_us, high_us, store_us)

    def _clear(self) -> None:
        self._buckets.clear()
        self._window = _Bounds()


def _proven_us(low_us: float, high_us: float) -> float:
    """The offset that lies between both: 0 if that is possible, or nearly; else the middle, but at most
    `SPREAD_US` above the lower bound, so that ages are hardly underestimated."""
    if low_us <= SPREAD_US and high_us >= -SPREAD_US:
        return 0.0
    if low_us == -inf:
        return high_us
    return min((low_us + high_us) / 2, low_us + SPREAD_US)

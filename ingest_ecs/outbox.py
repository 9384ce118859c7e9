"""Records waiting for Kinesis: per symbol in order, all together bounded in bytes.

PutRecords keeps no order across partial failures, so a call carries at most one record per symbol, and a
record that failed stays at the head of its symbol's queue. A call stays within Kinesis' limits, and the
symbols take turns in being first.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tickcast.market.wire import STAMP_BYTES

MAX_WAITING_BYTES = 64 * 2**20  # of all symbols: a minute of what a shard takes, an hour of several markets
MAX_CALL_BYTES = 5 * 2**20  # Kinesis' own limits of PutRecords, partition keys included
MAX_CALL_RECORDS = 500


class Record(NamedTuple):
    symbol: str  # the partition key
    data: bytes
    ticks: int  # of the symbol itself


@dataclass
class _Queue:
    records: deque[Record] = field(default_factory=deque)
    size: int = 0  # bytes
    is_head_in_flight: bool = False

    @property
    def has_droppable(self) -> bool:
        return len(self.records) > self.is_head_in_flight


class Outbox:
    """`size` is the bytes waiting; `len` the number of records."""

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self._queues = {symbol: _Queue() for symbol in symbols}
        self._turns = deque(symbols)  # whose record comes first in the next call
        self.size = 0

    def __len__(self) -> int:
        return sum(len(queue.records) for queue in self._queues.values())

    def waiting(self) -> dict[str, list[Record]]:
        """The waiting records of each symbol that has any, oldest first."""
        return {symbol: list(queue.records) for symbol, queue in self._queues.items() if queue.records}

    def add(self, record: Record) -> list[Record]:
        """Queue `record`. Returns the records dropped to stay within `MAX_WAITING_BYTES`: the oldest of the
        longest queue, but none in flight."""
        queue = self._queues.get(record.symbol)
        if queue is None:  # a symbol that is served since
            queue = self._queues[record.symbol] = _Queue()
            self._turns.append(record.symbol)
        queue.records.append(record)
        self._resize(queue, len(record.data))
        dropped: list[Record] = []
        while self.size > MAX_WAITING_BYTES:
            droppable = [(each.size, symbol) for symbol, each in self._queues.items() if each.has_droppable]
            if not droppable:
                break
            queue = self._queues[max(droppable)[1]]
            oldest = int(queue.is_head_in_flight)
            dropped.append(queue.records[oldest])
            del queue.records[oldest]
            self._resize(queue, -len(dropped[-1].data))
        return dropped

    def next_call(self) -> list[Record]:
        """The heads for the next call, within its limits; a symbol that does not fit is first the next
        time."""
        heads: list[Record] = []
        size = 0
        for _ in range(len(self._turns)):
            queue = self._queues[self._turns[0]]
            if queue.records:
                head = queue.records[0]
                size += len(head.data) + STAMP_BYTES + len(head.symbol.encode())
                if len(heads) == MAX_CALL_RECORDS or (heads and size > MAX_CALL_BYTES):
                    break
                heads.append(head)
            self._turns.rotate(-1)
        return heads

    @contextlib.contextmanager
    def in_flight(self, heads: list[Record]) -> Iterator[None]:
        """Protect `heads` from being dropped while they are being put."""
        queues = [self._queues[head.symbol] for head in heads]
        for queue in queues:
            queue.is_head_in_flight = True
        try:
            yield
        finally:
            for queue in queues:
                queue.is_head_in_flight = False

    def remove(self, head: Record) -> None:
        """`head` was put."""
        queue = self._queues[head.symbol]
        queue.records.popleft()
        self._resize(queue, -len(head.data))

    def _resize(self, queue: _Queue, by: int) -> None:
        queue.size += by
        self.size += by

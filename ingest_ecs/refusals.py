"""What ingest refuses: counted by the kind of reason, logged once a kind, and offered to quarantine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from aws_lambda_powertools import Logger

from ingest_ecs.feed_buffer import RefusedFrame, RefusedTicks
from tickcast.market import wire
from tickcast.sbe import SbeError

MAX_KINDS = 100

QuarantineSink = Callable[[bytes, str, str], None]  # data, reason, connection


class Refusals:
    """`counts` are frames or ticks by kind of reason: the reason without its numbers."""

    def __init__(self, source: str, logger: Logger, quarantine: QuarantineSink) -> None:
        self._source = source
        self._logger = logger
        self._quarantine = quarantine
        self.counts: Counter[str] = Counter()

    def add(self, refused: RefusedFrame | RefusedTicks, connection: str) -> None:
        if isinstance(refused, RefusedFrame):
            reason = self._count(refused.error, 1)
            self._quarantine(refused.data, reason, connection)
            return
        batch = wire.TickBatch(
            refused.symbol, self._source, connection, wire.NO_WATERMARK, refused.trades, refused.quotes
        )
        reason = self._count(refused.error, batch.tick_count)
        self._quarantine(wire.encode(batch), reason, connection)

    def _count(self, error: Exception, count: int) -> str:
        """Returns the whole reason."""
        text = error.reason if isinstance(error, SbeError) else str(error)
        reason = f"{type(error).__name__}: {text}".encode(errors="replace").decode()
        kind = re.sub(r"\d[\d.]*", "N", reason)[:80]
        if kind not in self.counts and len(self.counts) >= MAX_KINDS:
            kind = "other reasons"
        self.counts[kind] += count
        if self.counts[kind] == count:
            self._logger.error("refused", extra={"reason": reason})
        return reason

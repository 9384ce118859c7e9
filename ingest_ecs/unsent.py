"""What a stopping task could not put into Kinesis: named in the log, and kept whole in S3 where that works.

REST has the missing trades, which the backfill fetches by their ids; missing quotes are in S3 alone. There a
symbol's records follow each other, each preceded by its length in four bytes, most significant first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from ingest_ecs.outbox import Record
from ingest_ecs.quarantine import Quarantine
from tickcast.market import wire
from tickcast.market.ticks import span_us

LENGTH_BYTES = 4


def joined(records: list[Record]) -> bytes:
    """The object in S3 of `records`."""
    return b"".join(len(r.data).to_bytes(LENGTH_BYTES, "big") + r.data for r in records)


def about(symbol: str, records: list[Record]) -> dict[str, Any]:
    """What `records` hold: the counts, the first and last trade id, and the first and last time (µs).

    Kinesis may have the first of them all the same: the outcome of a put that did not answer is not known.
    """
    batches = [wire.decode(record.data) for record in records]
    ids = [
        int(i)
        for b in batches
        if len(b.trades)
        for i in (b.trades["first_id"].min(), b.trades["last_id"].max())
    ]
    span = span_us(*(ticks for batch in batches for ticks in (batch.trades, batch.quotes)))
    return {
        "symbol": symbol,
        "records": len(records),
        "trades": sum(len(batch.trades) for batch in batches),
        "quotes": sum(len(batch.quotes) for batch in batches),
        "trade_ids": [min(ids), max(ids)] if ids else [],
        "times_us": list(span) if span else [],
    }


async def keep(
    waiting: Mapping[str, list[Record]],
    quarantine: Quarantine,
    logger: Logger,
    reason: str,
    deadline_s: float,
) -> None:
    """Keep the outbox's `waiting` records in S3 until `deadline_s` of the monotonic clock, and log each
    symbol's part: `kept` is its key in S3, empty if S3 did not take it."""

    async def keep_one(symbol: str, records: list[Record]) -> None:
        described = about(symbol, records)
        stored = {"reason": reason, "length_bytes": LENGTH_BYTES, **described}
        seconds = deadline_s - time.monotonic()
        kept = await quarantine.keep_unsent(symbol, joined(records), stored, seconds) or ""
        logger.error("ticks not put", extra={"reason": reason, "kept": kept, **described})

    await asyncio.gather(*(keep_one(symbol, records) for symbol, records in waiting.items()))

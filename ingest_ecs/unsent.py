"""What a stopping task could not put into Kinesis: kept whole in S3 where that works, and named in the log.

There may be minutes of it and a second to save it in: it is put as it is, and described meanwhile. REST has
the missing trades, which the backfill fetches by their ids; missing quotes are in S3 alone. There a symbol's
records follow each other, each preceded by its length in four bytes, most significant first.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from aws_lambda_powertools import Logger

from ingest_ecs.outbox import Record
from ingest_ecs.quarantine import Quarantine
from ingest_ecs.threads import in_thread
from tickcast.market import wire
from tickcast.market.ticks import span_us

LENGTH_BYTES = 4
PUTS_AT_ONCE = 4  # more would only divide the line, and each holds a copy of its records
# Records with trades that are read at each end: several, as connections deliver side by side.
READ_AT_ENDS = 16


def joined(records: list[Record]) -> bytes:
    """The object in S3 of `records`."""
    return b"".join(len(r.data).to_bytes(LENGTH_BYTES, "big") + r.data for r in records)


def about(symbol: str, records: list[Record], deadline_s: float = math.inf) -> dict[str, Any]:
    """What `records`, oldest first, hold: the counts, the first and last trade id, and the first and last
    time (µs); read from both ends alone, until `deadline_s` of the monotonic clock.

    Kinesis may have the first of them all the same: the outcome of a put that did not answer is not known.
    """
    ids: list[int] = []
    times_us: list[int] = []
    for end in (records, reversed(records)):
        end_ids, end_times_us = _read_end(end, deadline_s)
        ids += end_ids
        times_us += end_times_us
    return {
        "symbol": symbol,
        "records": len(records),
        "ticks": sum(record.ticks for record in records),
        "trade_ids": [min(ids), max(ids)] if ids else [],
        "times_us": [min(times_us), max(times_us)] if times_us else [],
    }


def _read_end(records: Iterable[Record], deadline_s: float) -> tuple[list[int], list[int]]:
    """The trade ids and times (µs) at which the first of `records` begin and end."""
    ids: list[int] = []
    times_us: list[int] = []
    for record in records:
        if len(ids) >= 2 * READ_AT_ENDS or time.monotonic() > deadline_s:
            break
        batch = wire.decode(record.data)
        times_us += span_us(batch.trades, batch.quotes) or ()
        if len(batch.trades):
            ids += int(batch.trades["first_id"].min()), int(batch.trades["last_id"].max())
    return ids, times_us


async def keep(
    waiting: Mapping[str, list[Record]],
    quarantine: Quarantine,
    logger: Logger,
    reason: str,
    deadline_s: float,
) -> None:
    """Keep the outbox's `waiting` records in S3 until `deadline_s` of the monotonic clock, and log each
    symbol's part: `kept` is its key in S3, empty if S3 did not take it."""
    turns = asyncio.Semaphore(PUTS_AT_ONCE)

    async def put(symbol: str, records: list[Record]) -> str:
        async with turns:
            body = functools.partial(joined, records)
            return await quarantine.put_whole(f"unsent-{symbol}.bin", body, _until(deadline_s)) or ""

    async def put_about(symbol: str, described: dict[str, Any]) -> None:
        stored = {"reason": reason, "length_bytes": LENGTH_BYTES, **described}
        async with turns:
            body = json.dumps(stored).encode()
            await quarantine.put_whole(f"unsent-{symbol}.json", lambda: body, _until(deadline_s))

    def describe_all() -> dict[str, dict[str, Any]]:
        return {symbol: about(symbol, records, deadline_s) for symbol, records in waiting.items()}

    puts = {symbol: asyncio.create_task(put(symbol, records)) for symbol, records in waiting.items()}
    await asyncio.sleep(0)  # they begin first
    described = await in_thread(describe_all)
    kept = dict(zip(puts, await asyncio.gather(*puts.values()), strict=True))
    for symbol, key in kept.items():
        logger.error("ticks not put", extra={"reason": reason, "kept": key, **described[symbol]})
    await asyncio.gather(*(put_about(symbol, described[symbol]) for symbol, key in kept.items() if key))


def _until(deadline_s: float) -> float:
    return max(0.0, deadline_s - time.monotonic())

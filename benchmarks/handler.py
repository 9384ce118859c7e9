"""The cost of a tick in the Lambda function: packed records compared with the usual one record a tick.

Ours is what `predict_stream` does with an event up to the prediction: base64, decoding, folding into bars.
The usual handler (`benchmarks.usual_handler`) decodes each record and keeps the same bars; one that stops
after decoding is measured too.
"""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Iterator
from typing import Any

import fastavro
import numpy as np

from benchmarks import usual_handler
from benchmarks.sample import START_US, SYMBOL, mixed_frames, quote_events
from benchmarks.side_by_side import Comparison, Effort, Work, comparison, side_by_side
from tickcast import sbe
from tickcast.adapters.kinesis.records import records_in
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.lake.bronze import MARKET_DATA, market_data
from tickcast.features.ring import BarRing
from tickcast.market import wire
from tickcast.market.frames import decode_frames
from tickcast.market.sums import total
from tickcast.market.ticks import SCALE, TRADE
from tickcast.units import SECOND_US

EVENTS, TICKS_PER_EVENT = 20, 1000
TICKS_PER_SMALL_RECORD = 20  # a lively market at a linger of 100 ms
LATENESS_US = 100_000  # the default
FIRST_SEQUENCE = 49590338271490256608559692538361571095921575989136588898
_CHECKED = ("trade_count", "quote_count", "buy_qty", "sell_qty", "ofi", "bid_price", "ask_price")


def measure(effort: Effort) -> list[Comparison]:
    frames = mixed_frames(EVENTS * TICKS_PER_EVENT)
    large = [packed(_batches(some, TICKS_PER_EVENT)) for some in _cut(frames, TICKS_PER_EVENT)]
    small = [packed(_batches(some, TICKS_PER_SMALL_RECORD)) for some in _cut(frames, TICKS_PER_EVENT)]
    singles = [singly(batch) for batch in _batches(frames, TICKS_PER_EVENT)]
    warm = _warm_ring()
    schemas = SchemaRegistry(None, "")  # never used: the schema is this code's

    def fold(events: list[dict[str, Any]]) -> BarRing:
        ring = copy.deepcopy(warm)
        for event in events:
            for record in records_in(event):
                for _ in ring.fold(schemas.decode(record.data), SECOND_US):
                    pass
        return ring

    def fold_singly(events: list[dict[str, Any]]) -> usual_handler.PlainBars:
        bars = usual_handler.PlainBars()
        for event in events:
            usual_handler.handle(event, bars.update)
        return bars

    def decode_singly() -> None:
        kept: list[usual_handler.Tick] = []
        usual_handler.handle(singles[0], kept.append)

    _check(fold(large), fold(small), fold_singly(singles))
    all_ticks = EVENTS * TICKS_PER_EVENT
    choices = {
        "packed": Work(lambda: fold(large), all_ticks),
        "packed by 20": Work(lambda: fold(small), all_ticks),
        "a record a tick": Work(lambda: fold_singly(singles[:1]), TICKS_PER_EVENT),
        "a record a tick, only decoded": Work(decode_singly, TICKS_PER_EVENT),
    }
    times = side_by_side(choices, effort)
    return [
        comparison(times, "handler_per_tick_vs_per_record", "packed", "a record a tick", 20),
        comparison(times, "handler_per_tick_vs_decoding", "packed", "a record a tick, only decoded"),
        comparison(times, "handler_by_20_vs_per_record", "packed by 20", "a record a tick"),
    ]


def _check(packed: BarRing, small: BarRing, plain: usual_handler.PlainBars) -> None:
    """All three give the same bars; ours the same bits."""
    if packed.bars.tobytes() != small.bars.tobytes():
        raise AssertionError("the bars depend on how the ticks were packed")
    ours = {int(bar["end_us"]): bar for bar in packed.bars}
    for theirs in plain.closed[1:]:  # the first bar depends on what only the warm ring knows
        if (bar := ours.get(theirs["end_us"])) is None:
            continue  # ours waits for late ticks
        for name in _CHECKED:
            whole = total(bar[name][None]) if bar[name].ndim else int(bar[name])
            value = whole if name.endswith("count") else whole / SCALE
            if abs(value - theirs[name]) > 1e-6 * max(1.0, abs(value)):
                raise AssertionError(f"the usual handler's {name} is {theirs[name]}, ours {value}")


def _cut(frames: list[bytes], size: int) -> Iterator[list[bytes]]:
    return (frames[start : start + size] for start in range(0, len(frames), size))


def _batches(frames: list[bytes], size: int) -> Iterator[wire.TickBatch]:
    """Wire batches of `size` ticks each, with a watermark as ingest claims it."""
    for some in _cut(frames, size):
        ticks = decode_frames(some, START_US + np.arange(len(some)))
        trades, quotes = ticks.trades.get(SYMBOL, np.empty(0, TRADE)), ticks.quotes[SYMBOL]
        watermark_us = max(int(rows["time_us"].max()) for rows in (trades, quotes) if len(rows))
        yield wire.TickBatch(SYMBOL, "sbe", "bench-1", watermark_us, trades, quotes)


def _warm_ring() -> BarRing:
    """A ring with a minute of bars before the sample begins."""
    minute = [
        sbe.encode(
            event._replace(
                event_time_us=START_US - 60_000_000 + 100_000 * n,
                book_update_id=event.book_update_id - 3 * 600,  # up to where the sample's begin
            )
        )
        for n, event in enumerate(quote_events(600))
    ]
    ring = BarRing(LATENESS_US)
    (batch,) = _batches(minute, len(minute))
    for _ in ring.fold(batch, SECOND_US):
        pass
    return ring


def singly(batch: wire.TickBatch) -> dict[str, Any]:
    """The event with every tick of `batch` as a record of its own, in the order of time."""
    ticks = sorted(market_data(batch), key=lambda tick: tick["timestamp"])
    return {"Records": [record(n, _avro(tick)) for n, tick in enumerate(ticks)]}


def packed(batches: Iterator[wire.TickBatch], first: int = 0, arrived_us: int = START_US) -> dict[str, Any]:
    """The event with a record for each batch, numbered from `first` on; records do not arrive before their
    ticks."""
    records = [
        record(n, wire.encode(batch), max(arrived_us, batch.watermark_us))
        for n, batch in enumerate(batches, first)
    ]
    return {"Records": records}


def record(
    number: int, data: bytes, arrived_us: int = START_US, key: str = SYMBOL, shard: int = 0
) -> dict[str, Any]:
    """A record of an event as Lambda passes it."""
    sequence = str(FIRST_SEQUENCE + number)
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": key,
            "sequenceNumber": sequence,
            "data": base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": arrived_us / 1e6,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-{shard:012}:{sequence}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::000000000000:role/lambda",
        "awsRegion": "ap-northeast-1",
        "eventSourceARN": "arn:aws:kinesis:ap-northeast-1:000000000000:stream/ticks",
    }


def _avro(tick: dict[str, Any]) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, MARKET_DATA, tick)
    return body.getvalue()

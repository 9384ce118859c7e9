"""Kinesis events as Lambda delivers them, around given records."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

from tickcast import wire

# Real sequence numbers have 56 digits; only their order matters.
FIRST_SEQUENCE = 49590338271490256608559692538361571095921575989136588898


def arrived_s(data: bytes) -> float:
    """When a record of these ticks arrives: as soon as the newest of them was received."""
    received_us = [1_754_000_000_123_000]
    with contextlib.suppress(wire.WireError):
        batch = wire.decode(data)
        received_us += [
            int(rows["receive_time_us"].max()) for rows in (batch.trades, batch.quotes) if len(rows)
        ]
    return max(received_us) / 1e6


def record(sequence: int, data: bytes, partition_key: str = "BTCUSDT", shard: int = 0) -> dict[str, Any]:
    sequence_text = str(FIRST_SEQUENCE + sequence)
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": partition_key,
            "sequenceNumber": sequence_text,
            "data": base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": arrived_s(data),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-{shard:012}:{sequence_text}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::000000000000:role/lambda",
        "awsRegion": "ap-northeast-1",
        "eventSourceARN": "arn:aws:kinesis:ap-northeast-1:000000000000:stream/ticks",
    }


def event(*records: dict[str, Any]) -> dict[str, Any]:
    return {"Records": list(records)}


def batch_event(sequence: int, *batches: wire.TickBatch) -> dict[str, Any]:
    """One record per batch, sequence numbers rising from `sequence`."""
    return event(*(record(sequence + n, wire.encode(b), b.symbol) for n, b in enumerate(batches)))

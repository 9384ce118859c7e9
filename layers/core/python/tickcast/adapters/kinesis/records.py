"""Kinesis as a Lambda function sees it: the records of an event, in order."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple


class StreamRecord(NamedTuple):
    sequence: int
    sequence_text: str  # as the event source mapping expects it back
    shard_id: str
    partition_key: str
    arrived_s: float  # at Kinesis, since the epoch
    data: bytes


def records_in(event: dict[str, Any]) -> list[StreamRecord]:
    """The records of a Kinesis event, in the order of the shard."""
    return [
        StreamRecord(
            sequence=int(record["kinesis"]["sequenceNumber"]),
            sequence_text=record["kinesis"]["sequenceNumber"],
            shard_id=record["eventID"].partition(":")[0],
            partition_key=record["kinesis"]["partitionKey"],
            arrived_s=float(record["kinesis"]["approximateArrivalTimestamp"]),
            data=base64.b64decode(record["kinesis"]["data"]),
        )
        for record in event["Records"]
    ]

"""Bad records: kept in S3 with their reason, so that they block nothing and none is lost."""

from __future__ import annotations

from typing import Any

from tickcast.adapters import json_text
from tickcast.adapters.kinesis.records import StreamRecord
from tickcast.market import wire
from tickcast.market.wire import TickBatch


def quarantine(s3: Any, bucket: str, service: str, record: StreamRecord, reason: str) -> str:
    """Store the record and why it could not be used; the key is the same for a repeat. Returns the key."""
    key = f"quarantine/{service}/{record.shard_id}/{record.sequence_text}"
    s3.put_object(Bucket=bucket, Key=f"{key}.bin", Body=record.data)
    about = {"reason": reason, "partition_key": record.partition_key, "arrived_s": record.arrived_s}
    s3.put_object(Bucket=bucket, Key=f"{key}.json", Body=json_text.text(about).encode())
    return key


def rows_of(record: StreamRecord, rows: TickBatch, suffix: str = "rows") -> StreamRecord:
    """The ticks `rows` of `record` that cannot be, as a record of their own. Its key ends in `suffix`: the
    record itself may go into quarantine as well."""
    return record._replace(sequence_text=f"{record.sequence_text}-{suffix}", data=wire.encode(rows))


def quarantine_state(
    s3: Any, bucket: str, service: str, symbol: str, sequence: int, data: bytes, reason: str
) -> str:
    """Store a symbol's state that nothing could be folded into any more, and why. Returns the key."""
    key = f"quarantine/{service}/state/{symbol}/{sequence}"
    s3.put_object(Bucket=bucket, Key=f"{key}.bin", Body=data)
    about = {"reason": reason, "symbol": symbol, "sequence": str(sequence)}
    s3.put_object(Bucket=bucket, Key=f"{key}.json", Body=json_text.text(about).encode())
    return key


def quarantine_object(
    s3: Any, bucket: str, service: str, key: str, etag: str, data: bytes, reason: str
) -> str:
    """Store an object of bronze and why it could not be used, each version once. Returns the key."""
    kept = f"quarantine/{service}/{key}/{etag}"
    s3.put_object(Bucket=bucket, Key=f"{kept}.avro", Body=data)
    about = {"reason": reason, "key": key, "etag": etag}
    s3.put_object(Bucket=bucket, Key=f"{kept}.json", Body=json_text.text(about).encode())
    return kept

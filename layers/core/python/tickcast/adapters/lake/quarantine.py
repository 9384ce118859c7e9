"""Bad records: kept in S3 with the reason, so that they block nothing and none is lost.

The same record has the same key, however often it comes.
"""

from __future__ import annotations

from typing import Any

from tickcast.adapters import json_text
from tickcast.adapters.kinesis.records import StreamRecord
from tickcast.market import wire
from tickcast.market.wire import TickBatch


def quarantine(s3: Any, bucket: str, service: str, record: StreamRecord, reason: str) -> None:
    """Store a record of the stream and why it could not be used."""
    about = {"partition_key": record.partition_key, "arrived_s": record.arrived_s}
    _put(s3, bucket, f"{service}/{record.shard_id}/{record.sequence_text}", record.data, reason, about)


def rows_of(record: StreamRecord, rows: TickBatch, suffix: str = "rows") -> StreamRecord:
    """The impossible ticks `rows` of `record`, as a record of their own. Its key ends in `suffix`: the record
    itself may go into quarantine as well."""
    return record._replace(sequence_text=f"{record.sequence_text}-{suffix}", data=wire.encode(rows))


def quarantine_state(
    s3: Any, bucket: str, service: str, symbol: str, sequence: int, data: bytes, reason: str
) -> None:
    """Store a symbol's state to which no record could be added, and why."""
    about = {"symbol": symbol, "sequence": str(sequence)}
    _put(s3, bucket, f"{service}/state/{symbol}/{sequence}", data, reason, about)


def quarantine_object(
    s3: Any, bucket: str, service: str, key: str, etag: str, data: bytes, reason: str
) -> None:
    """Store a version of an object of bronze and why it could not be used."""
    _put(s3, bucket, f"{service}/{key}/{etag}", data, reason, {"key": key, "etag": etag}, "avro")


def quarantine_ticks(
    s3: Any, bucket: str, service: str, name: str, rows: list[dict[str, int]], reason: str
) -> None:
    """Store single ticks of bronze, with the names of their fields, and why they could not be used."""
    text = json_text.text({"reason": reason, "rows": rows})
    s3.put_object(Bucket=bucket, Key=f"quarantine/{service}/{name}-rows.json", Body=text.encode())


def quarantine_rows(
    s3: Any, bucket: str, service: str, symbol: str, rows: list[dict[str, Any]], reason: str
) -> None:
    """Store rows of REST, each with its `id` and `why`; `rows` must not be empty."""
    lines = "".join(f"{json_text.text(row)}\n" for row in rows)
    about = {"symbol": symbol, "rows": len(rows)}
    _put(s3, bucket, f"{service}/{symbol}/{rows[0]['id']}", lines.encode(), reason, about, "ndjson")


def _put(
    s3: Any, bucket: str, name: str, data: bytes, reason: str, about: dict[str, Any], ending: str = "bin"
) -> None:
    s3.put_object(Bucket=bucket, Key=f"quarantine/{name}.{ending}", Body=data)
    text = json_text.text({"reason": reason, **about})
    s3.put_object(Bucket=bucket, Key=f"quarantine/{name}.json", Body=text.encode())

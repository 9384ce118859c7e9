"""Every tick into bronze: the second consumer of the stream.

One file per event, source, symbol and hour, named by shard and sequence numbers: a repeated event
overwrites its own files instead of doubling them. The span of time in the name spares readers those that
they do not need.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tickcast.adapters import bronze
from tickcast.adapters.kinesis import records_in
from tickcast.adapters.quarantine import quarantine, quarantine_rows
from tickcast.adapters.schema_book import SchemaBook
from tickcast.wire import WireError

SERVICE = "archive_ticks"
_HOUR_US = 3600 * 1_000_000


@dataclass
class Outcome:
    records: int = 0
    ticks: int = 0
    files: list[str] = field(default_factory=list)  # keys
    quarantined: list[str] = field(default_factory=list)  # reasons


def archive(event: dict[str, Any], s3: Any, bucket: str, schemas: SchemaBook) -> Outcome:
    """Write the ticks of a Kinesis event to bronze. Raises what S3 raises: Lambda then tries again."""
    outcome = Outcome()
    records = records_in(event)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        outcome.records += 1
        try:
            batch, refused, reason = schemas.read(record)
        except WireError as error:
            quarantine(s3, bucket, SERVICE, record, str(error))
            outcome.quarantined.append(str(error))
            continue
        if refused:
            quarantine_rows(s3, bucket, SERVICE, record, refused, reason)
            outcome.quarantined.append(reason)
        for row in bronze.market_data(batch):
            hour_us = row["timestamp"] // _HOUR_US * _HOUR_US
            rows[bronze.prefix(batch.source, batch.symbol, hour_us)].append(row)
        outcome.ticks += batch.tick_count
    for folder, ticks in rows.items():
        # Numbers of 56 digits make long names; the shard tells shards apart, first and last the event.
        sequences = (records[0].sequence_text, records[-1].sequence_text)
        times_us = [tick["timestamp"] for tick in ticks]
        span_us = (min(times_us), max(times_us))
        key = bronze.part_key(folder, records[0].shard_id, sequences, span_us)
        s3.put_object(Bucket=bucket, Key=key, Body=bronze.write_file(ticks))
        outcome.files.append(key)
    return outcome

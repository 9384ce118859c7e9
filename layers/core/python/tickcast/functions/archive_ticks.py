"""Every tick into bronze: the second consumer of the stream.

One file per event, source, symbol and hour, named by shard and sequence numbers: a repeated event overwrites
its own files instead of duplicating them. By the span of time in the name readers skip files that they do not
need.

A record that cannot be written, whatever is wrong with it, goes into quarantine: an event that fails is
repeated for as long as the stream keeps it, and all later records would wait.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters.kinesis.records import StreamRecord, records_in
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.lake import bronze
from tickcast.adapters.lake.quarantine import quarantine, rows_of
from tickcast.adapters.redaction import describe
from tickcast.market.wire import TickBatch, WireError
from tickcast.units import HOUR_US

SERVICE = "archive_ticks"

Row = dict[str, Any]  # of `MarketData`


@dataclass
class ArchiveResult:
    records: int = 0
    ticks: int = 0
    files: list[str] = field(default_factory=list)  # keys
    quarantined: list[str] = field(default_factory=list)  # reasons
    problems: list[str] = field(default_factory=list)  # claims and notices that were refused: no ticks


def archive(event: dict[str, Any], s3: Any, bucket: str, schemas: SchemaRegistry) -> ArchiveResult:
    """Write the ticks of a Kinesis event to bronze. Raises what S3 raises: Lambda then tries again."""
    outcome = ArchiveResult()
    records = records_in(event)
    folders: dict[str, list[tuple[StreamRecord, list[Row]]]] = defaultdict(list)
    for record in records:
        outcome.records += 1
        try:
            batch, refused, reason = schemas.read(record)
            for folder, rows in _by_folder(batch).items():
                folders[folder].append((record, rows))
                outcome.ticks += len(rows)
        except (BotoCoreError, ClientError):  # S3's fault, not the record's
            raise
        except Exception as error:
            _set_aside(s3, bucket, record, error, outcome)
            continue
        if refused:
            quarantine(s3, bucket, SERVICE, rows_of(record, refused), reason)
            outcome.quarantined.append(reason)
        elif reason:
            outcome.problems.append(reason)
    for folder, parts in folders.items():
        if not (file := _file_of(parts, s3, bucket, outcome)):
            continue
        data, span_us = file
        # Numbers of 56 digits make long names; the shard tells shards apart, first and last the event.
        sequences = (records[0].sequence_text, records[-1].sequence_text)
        key = bronze.stream_part_key(folder, records[0].shard_id, sequences, span_us)
        s3.put_object(Bucket=bucket, Key=key, Body=data)
        outcome.files.append(key)
    return outcome


def _by_folder(batch: TickBatch) -> dict[str, list[Row]]:
    """The ticks of `batch` by the folder they belong to."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in bronze.market_data(batch):
        hour_us = row["timestamp"] // HOUR_US * HOUR_US
        rows[bronze.prefix(row["source"], batch.symbol, hour_us)].append(row)
    return rows


def _file_of(
    parts: list[tuple[StreamRecord, list[Row]]], s3: Any, bucket: str, outcome: ArchiveResult
) -> tuple[bytes, tuple[int, int]] | None:
    """A file of all `parts`, or of those that a file can be made of; and the span of its ticks, µs."""
    try:
        data = bronze.write_file([row for _, rows in parts for row in rows])
    except Exception:
        parts = [part for part in parts if _can_be_written(*part, s3, bucket, outcome)]
        if not parts:
            return None
        data = bronze.write_file([row for _, rows in parts for row in rows])
    times_us = [row["timestamp"] for _, rows in parts for row in rows]
    return data, (min(times_us), max(times_us))


def _can_be_written(
    record: StreamRecord, rows: list[Row], s3: Any, bucket: str, outcome: ArchiveResult
) -> bool:
    """Whether a file can be made of `rows` alone; else `record` goes into quarantine."""
    try:
        bronze.write_file(rows)
    except Exception as error:
        outcome.ticks -= len(rows)
        _set_aside(s3, bucket, record, error, outcome)
        return False
    return True


def _set_aside(s3: Any, bucket: str, record: StreamRecord, error: Exception, outcome: ArchiveResult) -> None:
    reason = str(error) if isinstance(error, WireError) else describe(error)
    quarantine(s3, bucket, SERVICE, record, reason)
    outcome.quarantined.append(reason)

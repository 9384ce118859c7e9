"""Wire schemas in S3, under `schemas/<fingerprint>.avsc`: a batch of any version is read by its fingerprint.

A writer publishes its schema before its first batch. A batch of this code's schema is decoded at full speed
without a look-up; for any other, fastavro resolves the writer's schema against this code's: fields
that this code does not know are skipped, fields that are missing take their defaults (Avro 1.11, "Schema
Resolution"). fastavro is imported only then: the ingest image, which publishes, does not have it.
"""

from __future__ import annotations

import functools
import io
from typing import Any, cast

import numpy as np
from botocore.exceptions import ClientError

from tickcast.adapters import json_text
from tickcast.adapters.kinesis.records import StreamRecord
from tickcast.market import plausibility, wire
from tickcast.market.plausibility import Screened
from tickcast.market.ticks import QUOTE, TRADE
from tickcast.market.wire import Notice, TickBatch, UnknownSchemaError, WireError


def schema_key(fingerprint: bytes) -> str:
    return f"schemas/{fingerprint.hex()}.avsc"


def publish(s3: Any, bucket: str) -> None:
    """Store this code's schema, so that other versions can read its batches."""
    body = json_text.strict(wire.SCHEMA, indent=1).encode()
    s3.put_object(Bucket=bucket, Key=schema_key(wire.FINGERPRINT), Body=body, ContentType="application/json")


class SchemaRegistry:
    """Reads batches. Schemas are cached once found; missing ones are looked up again."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._schemas: dict[bytes, Any] = {}

    def read(self, record: StreamRecord) -> Screened:
        """The batch in a stream's record without impossible rows; times are checked against its arrival.
        Raises as `decode` does."""
        return plausibility.screen(self.decode(record.data), int(record.arrived_s * 1e6))

    def decode(self, record: bytes) -> TickBatch:
        """The batch in `record`. Raises `WireError`, and S3's own errors except for "not found"."""
        try:
            return wire.decode(record)
        except UnknownSchemaError as unknown:
            schema = self._schema(unknown)
        return _resolved(record, schema)

    def _schema(self, unknown: UnknownSchemaError) -> Any:
        if unknown.fingerprint not in self._schemas:
            key = schema_key(unknown.fingerprint)
            try:
                found = self._s3.get_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if error.response["Error"]["Code"] in ("NoSuchKey", "AccessDenied", "404"):
                    raise unknown from error
                raise
            self._schemas[unknown.fingerprint] = _parsed(found["Body"].read(), key)
        return self._schemas[unknown.fingerprint]


@functools.cache
def _reader_schema() -> Any:
    import fastavro

    return fastavro.parse_schema(wire.SCHEMA)


def _parsed(text: bytes, key: str) -> Any:
    import fastavro

    try:
        return fastavro.parse_schema(json_text.read(text))
    except (ValueError, fastavro.schema.SchemaParseException) as error:
        raise WireError(f"{key} is not an Avro schema: {error}") from error


def _resolved(record: bytes, schema: Any) -> TickBatch:
    """The batch in `record`, whose parsed schema is `schema`. Raises `WireError`."""
    import fastavro

    fingerprint = record[2:10].hex()
    try:
        fields = fastavro.schemaless_reader(io.BytesIO(record[10:]), schema, _reader_schema())
        return _batch(cast(dict[str, Any], fields))
    except (EOFError, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise WireError(f"damaged batch of schema {fingerprint}: {error!r}") from error
    except fastavro.read.SchemaResolutionError as error:
        raise WireError(f"schema {fingerprint} cannot be read as this code's: {error}") from error


def _batch(fields: dict[str, Any]) -> TickBatch:
    def rows(records: list[dict[str, bytes]], dtype: np.dtype[Any]) -> Any:
        packed = b"".join(record[name] for record in records for name in dtype.names or ())
        return np.frombuffer(packed, dtype)

    return TickBatch(
        fields["symbol"],
        fields["source"],
        fields["connection"],
        fields["watermark_us"],
        rows(fields["trades"], TRADE),
        rows(fields["quotes"], QUOTE),
        tuple(Notice(n["cause"], n["from_us"], n["to_us"]) for n in fields["notices"]),
        fields["quiet_us"],
        fields["host_offset_us"],
        fields["sent_us"],
        rows(fields["reference"], QUOTE),
    )

"""Wire batches of every schema: this code's at full speed, an older or newer one by its fingerprint.

Schemas live in S3 under `schemas/<fingerprint>.avsc`. fastavro resolves the writer's against this code's:
fields it does not know are skipped, fields it misses take their defaults (Avro 1.11, "Schema Resolution").
"""

from __future__ import annotations

import io
from typing import Any, cast

import fastavro
import numpy as np
from botocore.exceptions import ClientError

from tickcast.adapters import json_text
from tickcast.adapters.kinesis.records import StreamRecord
from tickcast.adapters.kinesis.wire_schema import schema_key
from tickcast.market import wire
from tickcast.market.ticks import QUOTE, TRADE
from tickcast.market.wire import Checked, Notice, TickBatch, UnknownSchemaError, WireError


class SchemaRegistry:
    """Reads batches. Schemas that were looked up are kept; those that were not found are tried again."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._schemas: dict[bytes, Any] = {}

    def read(self, record: StreamRecord) -> Checked:
        """The batch in a stream's record without the ticks that cannot be, its times compared with its
        arrival. Raises as `decode` does."""
        return wire.check_times(self.decode(record.data), int(record.arrived_s * 1e6))

    def decode(self, record: bytes) -> TickBatch:
        """The batch in `record`. Raises `WireError`; S3's own errors, but for "not there", pass through."""
        try:
            return wire.decode(record)
        except UnknownSchemaError as unknown:
            schema = self._schema(unknown)
        try:
            fields = fastavro.schemaless_reader(io.BytesIO(record[10:]), schema, _READER)
            return _batch(cast(dict[str, Any], fields))
        except (EOFError, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
            raise WireError(f"damaged batch of schema {record[2:10].hex()}: {error!r}") from error
        except fastavro.read.SchemaResolutionError as error:
            raise WireError(f"schema {record[2:10].hex()} cannot be read as this code's: {error}") from error

    def _schema(self, unknown: UnknownSchemaError) -> Any:
        if unknown.fingerprint not in self._schemas:
            try:
                answer = self._s3.get_object(Bucket=self._bucket, Key=schema_key(unknown.fingerprint))
            except ClientError as error:
                if error.response["Error"]["Code"] in ("NoSuchKey", "AccessDenied", "404"):
                    raise unknown from error
                raise
            try:
                self._schemas[unknown.fingerprint] = fastavro.parse_schema(
                    json_text.read(answer["Body"].read())
                )
            except (ValueError, fastavro.schema.SchemaParseException) as error:
                raise WireError(
                    f"{schema_key(unknown.fingerprint)} is not an Avro schema: {error}"
                ) from error
        return self._schemas[unknown.fingerprint]


_READER = fastavro.parse_schema(wire.SCHEMA)


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
    )

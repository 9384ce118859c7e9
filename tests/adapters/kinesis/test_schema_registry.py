"""Batches of an older and of a newer schema are read by their fingerprint."""

import copy
import io
import json
from typing import Any, cast

import fastavro
import fastavro.schema
import pytest

from tests.fixtures.aws import BUCKET
from tests.fixtures.market import batch, random_ticks
from tests.market.test_wire import NOTICES, as_fields
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry, publish, schema_key
from tickcast.market import wire

BATCH = batch(*random_ticks(1, 0.5))._replace(notices=NOTICES, reference=random_ticks(2, 0.5)[1])


def older() -> dict[str, Any]:
    """Without notices and reference quotes."""
    schema = copy.deepcopy(wire.SCHEMA)
    missing = ("notices", "reference")
    schema["fields"] = [field for field in schema["fields"] if field["name"] not in missing]
    return schema


def newer() -> dict[str, Any]:
    """With a field more in the batch and in each trade."""
    schema = copy.deepcopy(wire.SCHEMA)
    schema["fields"].insert(1, {"name": "region", "type": ["null", "string"], "default": None})
    trades = next(field for field in schema["fields"] if field["name"] == "trades")
    trades["type"]["items"]["fields"].append({"name": "venue", "type": "string", "default": ""})
    return schema


def written_by(schema: dict[str, Any], fields: dict[str, Any]) -> tuple[bytes, bytes]:
    """The record and its fingerprint."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), fields)
    return b"\xc3\x01" + fingerprint + body.getvalue(), fingerprint


def put_schema(s3: Any, fingerprint: bytes, schema: dict[str, Any]) -> None:
    s3.put_object(Bucket=BUCKET, Key=schema_key(fingerprint), Body=json.dumps(schema).encode())


@pytest.mark.parametrize("schema", [older(), newer()], ids=["older", "newer"])
def test_another_version_s_batch_is_read(s3: Any, schema: dict[str, Any]) -> None:
    fields = as_fields(BATCH) | {"region": "ap-northeast-1"}
    fields["trades"] = [trade | {"venue": "spot"} for trade in fields["trades"]]
    record, fingerprint = written_by(schema, fields)
    assert fingerprint != wire.FINGERPRINT
    registry = SchemaRegistry(s3, BUCKET)
    with pytest.raises(wire.UnknownSchemaError, match=fingerprint.hex()):
        registry.decode(record)
    put_schema(s3, fingerprint, schema)  # published since: found without a restart
    got = registry.decode(record)
    assert got[:4] == BATCH[:4]
    assert got.trades.tobytes() == BATCH.trades.tobytes()
    assert got.quotes.tobytes() == BATCH.quotes.tobytes()
    is_newer = any(field["name"] == "notices" for field in schema["fields"])
    assert got.notices == (NOTICES if is_newer else ())
    assert got.reference.tobytes() == (BATCH.reference.tobytes() if is_newer else b"")


def test_the_published_schema_reads_this_code_s_batches(s3: Any) -> None:
    publish(s3, BUCKET)
    stored = s3.get_object(Bucket=BUCKET, Key=schema_key(wire.FINGERPRINT))["Body"].read()
    schema = fastavro.schema.parse_schema(json.loads(stored))
    fields = fastavro.schemaless_reader(io.BytesIO(wire.encode(BATCH)[10:]), schema, None)
    assert cast(dict[str, Any], fields)["symbol"] == "BTCUSDT"


def test_a_damaged_batch_of_another_version_is_a_wire_error(s3: Any) -> None:
    record, fingerprint = written_by(older(), as_fields(BATCH))
    put_schema(s3, fingerprint, older())
    registry = SchemaRegistry(s3, BUCKET)
    for size in range(10, len(record), 37):
        with pytest.raises(wire.WireError):
            registry.decode(record[:size])


def test_an_invalid_schema_is_an_error_that_names_it(s3: Any) -> None:
    record, fingerprint = written_by(older(), as_fields(BATCH))
    s3.put_object(Bucket=BUCKET, Key=schema_key(fingerprint), Body=b"not a schema")
    with pytest.raises(wire.WireError, match=r"\.avsc is not an Avro schema"):
        SchemaRegistry(s3, BUCKET).decode(record)


def test_an_incompatible_schema_is_an_error_that_names_it(s3: Any) -> None:
    schema = {
        "type": "record",
        "name": "TickBatch",
        "namespace": "tickcast",
        "fields": [{"name": "x", "type": "int"}],
    }
    record, fingerprint = written_by(schema, {"x": 1})
    put_schema(s3, fingerprint, schema)
    with pytest.raises(wire.WireError, match="cannot be read as this code's"):
        SchemaRegistry(s3, BUCKET).decode(record)

"""The factories of events have the shape of captured ones, and captured events are decoded."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest

from tests.fixtures.api_gateway import KEY, ApiGateway, Event
from tests.fixtures.aws import BUCKET
from tests.fixtures.kinesis_events import event, record
from tests.fixtures.paths import EVENTS
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry, schema_key
from tickcast.market import wire


def captured(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EVENTS / "aws" / f"{name}.json").read_text())
    return found


def test_kinesis_records_have_the_captured_shape() -> None:
    found = captured("kinesis")
    made = event(record(1, b"x"))
    assert made.keys() == found.keys()
    for each in found["Records"]:
        assert made["Records"][0].keys() == each.keys()
        assert made["Records"][0]["kinesis"].keys() == each["kinesis"].keys()


def test_a_captured_kinesis_record_of_release_0_1_0_is_read_by_its_schema(s3: Any) -> None:
    ticks, other = (base64.b64decode(each["kinesis"]["data"]) for each in captured("kinesis")["Records"])
    schema = copy.deepcopy(wire.SCHEMA)
    schema["fields"] = [
        each for each in schema["fields"] if each["name"] not in ("host_offset_us", "sent_us", "reference")
    ]
    s3.put_object(Bucket=BUCKET, Key=schema_key(ticks[2:10]), Body=json.dumps(schema).encode())
    registry = SchemaRegistry(s3, BUCKET)
    batch = registry.decode(ticks)
    assert (batch.symbol, len(batch.trades), len(batch.quotes)) == ("BTCUSDT", 9, 6)
    assert (batch.host_offset_us, batch.sent_us) == (0, wire.SENT_UNKNOWN)
    again = wire.encode(batch)
    assert wire.decode(again).trades.tobytes() == batch.trades.tobytes()
    assert ticks[10:] in again[10:]  # all that it had, and what is new behind it
    with pytest.raises(wire.WireError):
        registry.decode(other)


def test_requests_have_the_captured_shape() -> None:
    made: list[Event] = []

    def handler(request: Event, _: Any) -> dict[str, Any]:
        made.append(request)
        return {}

    document: dict[str, Any] = {"paths": {"/predictions/{symbol}": {"get": {}}}}
    ApiGateway(document, handler).answer(
        {
            "PATH_INFO": "/predictions/BTCUSDT",
            "REQUEST_METHOD": "GET",
            "QUERY_STRING": "horizon=10&history=5",
            "HTTP_X_API_KEY": KEY,
        }
    )
    found = captured("api_gateway")
    for name, value in made[0].items():
        if name != "headers":  # which the emulator passes on in lower case
            assert value == found[name], name
    assert found["headers"]["x-api-key"] == KEY

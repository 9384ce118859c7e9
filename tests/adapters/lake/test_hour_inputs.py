"""What an hour is derived from: objects by the times that their names, or else their folders, say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.aws import BUCKET
from tickcast.adapters.lake import bronze, hour_inputs
from tickcast.adapters.lake.bronze_reader import BronzeObject
from tickcast.market.sources import Source
from tickcast.model.dataset import AFTER_US, BEFORE_US
from tickcast.units import DAY_US, HOUR_US

SYMBOL = "BTCUSDT"
DAY = 1_754_006_400_000_000
HOURS = range(DAY, DAY + DAY_US, HOUR_US)


def put(s3: Any, source: str, hour_us: int, name: str) -> str:
    key = f"{bronze.prefix(source, SYMBOL, hour_us)}{name}.avro"
    s3.put_object(Bucket=BUCKET, Key=key, Body=name.encode())
    return key


@pytest.mark.parametrize(
    ("from_us", "to_us", "hours"),
    [
        (10 * HOUR_US, 10 * HOUR_US + 60_000_000, (9, 10)),
        (10 * HOUR_US + AFTER_US, 11 * HOUR_US - BEFORE_US - 1, (10,)),
        (11 * HOUR_US - 60_000_000, 11 * HOUR_US - 1, (10, 11)),
        (10 * HOUR_US + AFTER_US, 11 * HOUR_US - BEFORE_US, (10, 11)),
    ],
)
def test_an_object_is_an_input_of_the_hours_that_it_reaches_into(
    s3: Any, from_us: int, to_us: int, hours: tuple[int, ...]
) -> None:
    put(s3, "sbe", DAY + 10 * HOUR_US, f"shard-1-2-{DAY + from_us}-{DAY + to_us}")
    found = hour_inputs.hour_inputs(s3, BUCKET, SYMBOL, HOURS, [Source.SBE])
    assert [(hour_us - DAY) // HOUR_US for hour_us in found] == list(hours)


def test_all_sources_are_listed_and_the_hours_next_to_a_day(s3: Any) -> None:
    keys = [
        put(s3, "sbe", DAY - HOUR_US, "evening"),
        put(s3, "usdm", DAY + HOUR_US, "part"),
        put(s3, "rest", DAY + HOUR_US, f"aggtrades-{DAY + HOUR_US}-{DAY + 2 * HOUR_US}"),
        put(s3, "sbe", DAY + DAY_US, "morning"),
    ]
    put(s3, "sbe", DAY - 2 * HOUR_US, "long before")
    sources = hour_inputs.sources_of(s3, BUCKET)
    assert set(sources) == {Source.SBE, Source.USDM, Source.REST}
    found = hour_inputs.hour_inputs(s3, BUCKET, SYMBOL, HOURS, sources)
    by_hour = {(hour_us - DAY) // HOUR_US: {each.key for each in found[hour_us]} for hour_us in found}
    assert by_hour == {0: {*keys[:3]}, 1: {*keys[1:3]}, 2: {*keys[1:3]}, 23: {keys[3]}}
    assert hour_inputs.days_of(s3, BUCKET, SYMBOL, sources) == {DAY - DAY_US, DAY, DAY + DAY_US}


def test_inputs_are_told_apart_by_content_name_and_settings() -> None:
    def about(key: str, etag: str) -> BronzeObject:
        return BronzeObject(key, etag, Source.SBE, SYMBOL, DAY)

    inputs = hour_inputs.digests([about("a", "1"), about("b", "2")], 1000, 100)
    assert hour_inputs.unpacked(hour_inputs.packed(inputs)) == inputs and len(inputs) == 3
    assert hour_inputs.digests([about("b", "2"), about("a", "1")], 1000, 100) == inputs
    for others in ([about("a", "2"), about("b", "2")], [about("a", "1")]):
        assert hour_inputs.digests(others, 1000, 100) != inputs
    assert len(hour_inputs.digests([about("a", "1"), about("b", "2")], 1000, 500) - inputs) == 1

"""The lake's listings and the markers of windows, in moto's S3."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.aws import BUCKET
from tickcast.adapters.lake import bronze
from tickcast.adapters.lake.bronze import BronzeError
from tickcast.adapters.lake.bronze_reader import object_at
from tickcast.adapters.lake.objects import first_key, list_folders, list_objects
from tickcast.adapters.lake.windows import WITHHELD_KEPT, Progress, WindowFile, WindowLake
from tickcast.market.fetch_plan import Window
from tickcast.market.sources import Source

WINDOW = Window(0, 60_000_000, "BTCUSDT")


def test_objects_folders_and_the_first_key(s3: Any) -> None:
    for key in ("a/x=1/k", "a/x=2/k", "a/x=2/l", "b"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    found = list(list_objects(s3, BUCKET, "a/"))
    assert [stored.key for stored in found] == ["a/x=1/k", "a/x=2/k", "a/x=2/l"]
    assert not any('"' in stored.etag for stored in found)
    assert list_folders(s3, BUCKET, "a/x=") == ["1", "2"]
    assert (first_key(s3, BUCKET, "a/x=2"), first_key(s3, BUCKET, "c")) == ("a/x=2/k", None)


def test_a_key_of_no_source_is_no_object_of_bronze() -> None:
    key = "bronze/source=sim/symbol=BTCUSDT/date=2024-08-01/hour=13/part.avro"
    assert object_at(key, '"e"')[1:] == ("e", Source.SIM, "BTCUSDT", 1_722_517_200_000_000)
    with pytest.raises(BronzeError, match="of one of sbe, json, rest, sim, replay"):
        object_at(key.replace("sim", "ftx"), "e")


def test_a_marker_says_what_was_fetched(s3: Any) -> None:
    lake = WindowLake(s3, BUCKET)
    assert lake.marker(WINDOW) is None
    with pytest.raises(LookupError, match="was not fetched whole"):
        lake.withheld(WINDOW)
    progress = Progress(
        next_id=8, trades=3, withheld_trades=2, withheld=[(4, 5)], keys=[WindowFile("k", "e", 1)]
    )
    lake.put_marker(WINDOW, progress)
    assert lake.marker(WINDOW) == progress
    assert lake.withheld(WINDOW) == [(4, 5)]


def test_a_marker_that_lists_fewer_withheld_ranges_than_it_has_room_for_is_cut_short() -> None:
    ranges = [(n, n) for n in range(WITHHELD_KEPT)]
    assert not Progress(withheld_trades=2, withheld=[(4, 5)]).is_cut_short
    assert Progress(withheld_trades=3, withheld=[(4, 5)]).is_cut_short
    assert not Progress(withheld_trades=10_000, withheld=ranges).is_cut_short


def test_of_a_damaged_marker_the_withheld_ids_are_read_all_the_same(s3: Any) -> None:
    lake = WindowLake(s3, BUCKET)
    key = bronze.window_key(WINDOW.symbol, WINDOW.from_us, WINDOW.to_us)
    s3.put_object(Bucket=BUCKET, Key=key, Body=b'{"withheld": [[4, 5]], "rows": "many", "keys": null}')
    assert lake.marker(WINDOW) is None  # it is fetched again
    assert lake.withheld(WINDOW) == [(4, 5)]

"""The history of a first model in bronze: a market's ticks, and its perpetual's under their own source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local.system.seed import SeededObject, load_requests, seed_bronze
from tests.fixtures.aws import BUCKET
from tests.fixtures.recordings import T0_MS, perpetual_quote, quote, text, trade, write
from tickcast.adapters.lake.bronze_reader import ObjectTicks, object_at, ticks_of
from tickcast.market.sources import Source

START_US = 1_770_000_000_000_000


def read(s3: Any, objects: list[SeededObject]) -> dict[Source, ObjectTicks]:
    """The ticks of one symbol's objects, by source; there is one of each."""
    found = {}
    for each in objects:
        about = object_at(each.key, each.etag)
        assert about.source not in found
        found[about.source] = ticks_of(s3.get_object(Bucket=BUCKET, Key=each.key)["Body"].read(), about)
    return found


def test_a_simulated_market_has_the_history_of_its_perpetual(s3: Any) -> None:
    objects = seed_bronze(s3, BUCKET, ["BTCUSDT"], 7, START_US, 30, [])
    spot, perpetual = (read(s3, objects)[source] for source in (Source.SIM, Source.SIM_USDM))
    assert len(spot.trades) > 100 and len(spot.quotes) > 1_000 and not len(spot.reference)
    assert 300 < len(perpetual.reference) < 1_200 and not len(perpetual.quotes) + len(perpetual.trades)
    (request,) = load_requests(objects).values()
    assert {each["key"] for each in request["keys"]} == {each.key for each in objects}


@pytest.mark.parametrize("has_reference", [True, False])
def test_a_recording_has_that_of_its_reference(s3: Any, tmp_path: Path, has_reference: bool) -> None:
    spot = write(tmp_path / "spot.gz", text([quote(0, 10), trade(5, 1), trade(20, 2)]))
    perpetual = write(tmp_path / "usdm.gz", text([perpetual_quote(3, 7, late_ms=2), perpetual_quote(9, 8)]))
    found = read(s3, seed_bronze(s3, BUCKET, [], 7, 0, 0, [spot], [perpetual] if has_reference else []))
    assert found.keys() == ({Source.REPLAY, Source.REPLAY_USDM} if has_reference else {Source.REPLAY})
    assert found[Source.REPLAY].quotes["update_id"].tolist() == [10]
    if has_reference:
        reference = found[Source.REPLAY_USDM].reference
        assert reference["update_id"].tolist() == [7, 8]
        # As of its arrival, as the spot market's quotes are.
        assert (reference["time_us"] - T0_MS * 1000).tolist() == [3_000, 9_000]

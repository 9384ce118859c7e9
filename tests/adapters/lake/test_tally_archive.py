"""Tallies by day in moto's S3."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from tests.fixtures import tallies as planted
from tests.fixtures.aws import BUCKET
from tickcast.adapters.lake.tally_archive import (
    TallyArchive,
    TallyArchiveError,
    decode_day,
    encode_day,
    key,
)
from tickcast.evaluation.live_scores import TALLY, score
from tickcast.units import DAY_US, HOUR_US

DAY = 1_767_225_600_000_000  # 2026-01-01
NAME = "tallies/symbol=BTCUSDT/date=2026-01-01.json.gz"
TALLIES = planted.tallies(planted.at_seconds(range(DAY // 10**6, DAY // 10**6 + 7200, 40)), HOUR_US)


@pytest.fixture
def archive(s3: Any) -> TallyArchive:
    return TallyArchive(lambda: s3, BUCKET)


def test_a_day_is_read_as_it_was_written() -> None:
    assert key("BTCUSDT", DAY) == key("BTCUSDT", DAY + DAY_US - 1) == NAME
    data = encode_day("BTCUSDT", (DAY, DAY + 2 * HOUR_US), DAY, TALLIES)
    assert encode_day("BTCUSDT", (DAY, DAY + 2 * HOUR_US), DAY, TALLIES) == data
    day, tallies = decode_day(data, NAME)
    assert (day.symbol, day.from_us, day.until_us, day.first_us) == (
        *("BTCUSDT", DAY, DAY + 2 * HOUR_US),
        DAY,
    )
    assert np.array_equal(tallies, TALLIES)


def test_what_an_older_release_did_not_count_is_unknown() -> None:
    document = json.loads(gzip.decompress(encode_day("BTCUSDT", (DAY, DAY + HOUR_US), DAY, TALLIES)))
    del document["columns"]["crps"]
    document["columns"]["of_a_later_release"] = document["columns"]["bin"]
    _, tallies = decode_day(gzip.compress(json.dumps(document).encode()), NAME)
    figures, whole = score(tallies)[2], score(TALLIES)[2]
    assert (figures.crps_bp, figures.crps_skill) == (None, None)
    assert whole.crps_bp is not None
    assert (figures.count, figures.skill, figures.direction) == (whole.count, whole.skill, whole.direction)


def test_days_are_read_together_and_hours_chosen(archive: TallyArchive) -> None:
    assert archive.newest_day_us("BTCUSDT") is None
    nothing = archive.read("BTCUSDT", DAY, DAY + HOUR_US)
    assert (len(nothing.tallies), nothing.first_us, nothing.until_us) == (0, None, None)
    later = TALLIES.copy()
    later["block"] += 48
    archive.put("BTCUSDT", (DAY, DAY + DAY_US), DAY + 7, TALLIES)
    archive.put("BTCUSDT", (DAY + 2 * DAY_US, DAY + 2 * DAY_US + HOUR_US), DAY + 2 * DAY_US, later)
    assert archive.newest_day_us("BTCUSDT") == DAY + 2 * DAY_US
    assert archive.newest_day_us("ETHUSDT") is None
    found = archive.read("BTCUSDT", DAY + HOUR_US, DAY + 2 * DAY_US + HOUR_US)
    assert (found.first_us, found.until_us) == (DAY + 7, DAY + 2 * DAY_US + HOUR_US)
    hours = (found.tallies["block"] - DAY // HOUR_US).tolist()
    assert set(hours) == {1, 48}
    assert (
        len(hours) == (TALLIES["block"] > DAY // HOUR_US).sum() + (TALLIES["block"] == DAY // HOUR_US).sum()
    )


def test_hours_that_the_database_has_lost_stay(archive: TallyArchive) -> None:
    """Its snapshot was taken in the second hour; then it has a third."""
    archive.put("BTCUSDT", (DAY, DAY + 2 * HOUR_US), DAY + 7, TALLIES)
    first, second = (TALLIES[TALLIES["block"] == DAY // HOUR_US + n] for n in range(2))
    third = second.copy()
    third["block"] += 1
    restored = np.concatenate([first, second[: len(second) // 2], third])
    archive.put("BTCUSDT", (DAY, DAY + 3 * HOUR_US), DAY + 7, restored)
    whole = np.concatenate([first, second, third])
    found = archive.read("BTCUSDT", DAY, DAY + DAY_US)
    assert np.array_equal(found.tallies, whole)
    emptied = third.copy()
    emptied["block"] += 1
    archive.put("BTCUSDT", (DAY, DAY + 4 * HOUR_US), DAY + 3 * HOUR_US, emptied)
    found = archive.read("BTCUSDT", DAY, DAY + DAY_US)
    assert np.array_equal(found.tallies, np.concatenate([whole, emptied]))
    assert (found.first_us, found.until_us) == (DAY + 7, DAY + 4 * HOUR_US)


def test_what_stays_of_an_older_release_stays_unknown_and_what_is_damaged_goes(
    archive: TallyArchive, s3: Any
) -> None:
    document = json.loads(gzip.decompress(encode_day("BTCUSDT", (DAY, DAY + HOUR_US), DAY, TALLIES)))
    del document["columns"]["crps"]
    s3.put_object(Bucket=BUCKET, Key=NAME, Body=gzip.compress(json.dumps(document).encode()))
    for _ in range(2):
        archive.put("BTCUSDT", (DAY, DAY + HOUR_US), DAY, TALLIES[:0])
    found = archive.read("BTCUSDT", DAY, DAY + DAY_US)
    assert np.isnan(found.tallies["crps"]).all()
    assert np.array_equal(found.tallies["count"], TALLIES["count"])
    s3.put_object(Bucket=BUCKET, Key=NAME, Body=b"damaged")
    archive.put("BTCUSDT", (DAY, DAY + 2 * HOUR_US), DAY, TALLIES)
    assert np.array_equal(archive.read("BTCUSDT", DAY, DAY + DAY_US).tallies, TALLIES)


@pytest.mark.parametrize(
    "data", [b"x", gzip.compress(b"{}", mtime=0), gzip.compress(b'{"columns": 1}', mtime=0)]
)
def test_a_damaged_object_is_named(data: bytes) -> None:
    with pytest.raises(TallyArchiveError, match=NAME):
        decode_day(data, NAME)


def test_columns_of_different_lengths_are_refused() -> None:
    document = json.loads(gzip.decompress(encode_day("BTCUSDT", (DAY, DAY + HOUR_US), DAY, TALLIES)))
    document["columns"]["count"].pop()
    with pytest.raises(TallyArchiveError, match=NAME):
        decode_day(gzip.compress(json.dumps(document).encode()), NAME)
    assert TALLY.names


def test_a_long_span_fits_into_memory(archive: TallyArchive) -> None:
    """As Python's numbers a hundred days of a busy symbol took 300 MB, and the API's function has 512."""
    rows = np.resize(TALLIES, 500)
    for n in range(20):
        rows["block"] = DAY // HOUR_US + 24 * n
        archive.put("BTCUSDT", (DAY + n * DAY_US, DAY + (n + 1) * DAY_US), DAY, rows)
    archive.read("BTCUSDT", DAY, DAY + DAY_US)  # what is imported is not counted
    tracemalloc.start()
    found = archive.read("BTCUSDT", DAY, DAY + 20 * DAY_US)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.tallies) == 20 * 500
    assert peak < 3 * found.tallies.nbytes

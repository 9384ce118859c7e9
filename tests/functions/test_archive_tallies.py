"""Which days' tallies are copied into the lake, and when."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.aws import BUCKET
from tickcast.adapters.lake.tally_archive import TallyArchive
from tickcast.evaluation.live_scores import NO_TALLIES, Tallies
from tickcast.functions.archive_tallies import ArchiveTallies
from tickcast.units import DAY_US, HOUR_US, MINUTE_US

DAY = 1_767_225_600_000_000  # 2026-01-01
SYMBOL = "BTCUSDT"


class Stored:
    """A PostgreSQL with outcomes since noon of the first day; remembers which spans were read."""

    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []

    def extent(self, symbol: str) -> tuple[int, int]:
        return DAY + DAY_US // 2, DAY + 30 * DAY_US

    def tallies(self, symbol: str, from_us: int, to_us: int, block_us: int) -> Tallies:
        assert block_us == HOUR_US
        self.read.append(((from_us - DAY) // HOUR_US, (to_us - DAY) // HOUR_US))
        return NO_TALLIES


@pytest.fixture
def stored() -> Stored:
    return Stored()


def copy(
    archive: ArchiveTallies, stored: Stored, hour: float, left_ms: float = 60_000
) -> list[tuple[int, int]]:
    """The spans copied so many hours after DAY, in hours since DAY."""
    stored.read.clear()
    now_us = DAY + round(hour * HOUR_US) + MINUTE_US
    archive(stored, SYMBOL, now_us, lambda: left_ms)  # type: ignore[arg-type]
    return list(stored.read)


def test_each_hour_replaces_its_day_and_the_first_also_the_day_before(s3: Any, stored: Stored) -> None:
    archive = ArchiveTallies(TallyArchive(lambda: s3, BUCKET))
    assert copy(archive, stored, 12.9) == []  # no hour with outcomes is over
    assert copy(archive, stored, 13) == [(0, 13)]
    assert copy(archive, stored, 13.9) == []
    assert copy(archive, stored, 23) == [(0, 23)]
    assert copy(archive, stored, 24) == [(0, 24)]
    assert copy(archive, stored, 25) == [(0, 24), (24, 25)]
    assert copy(archive, stored, 26) == [(24, 26)]


def test_after_an_interruption_all_days_are_copied(s3: Any, stored: Stored) -> None:
    lake = TallyArchive(lambda: s3, BUCKET)
    assert copy(ArchiveTallies(lake), stored, 30) == [(0, 24), (24, 30)]
    assert copy(ArchiveTallies(lake), stored, 80) == [(0, 24), (24, 48), (48, 72), (72, 80)]


def test_what_there_is_no_time_for_is_copied_by_the_next_run(s3: Any, stored: Stored) -> None:
    archive = ArchiveTallies(TallyArchive(lambda: s3, BUCKET))
    assert copy(archive, stored, 30, left_ms=19_000) == []
    assert copy(archive, stored, 30) == [(0, 24), (24, 30)]

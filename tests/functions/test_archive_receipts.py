"""Receipts from a real Redis into the lake, once nothing can be added to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import commit
from tests.fixtures.records import SYMBOL, outcome, prediction
from tickcast.adapters.lake.receipt_archive import Folder, ReceiptArchive
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore, Writes
from tickcast.features.ring import BarRing
from tickcast.functions.archive_receipts import STANDSTILL_MS, ArchiveReceipts
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.state import SymbolState

pytestmark = pytest.mark.integration

BLOCK_MS = 1_767_225_600_000  # where a block begins
LENGTH_S = Folder.SECONDS.block_ms // 1000
PLENTY: Callable[[], float] = lambda: 60_000.0  # noqa: E731


class Hot:
    """Writes like the hot path, and has a clock that says how late it is after BLOCK_MS."""

    def __init__(self, client: redis.Redis) -> None:
        self.store = HotStore(client, 100_000)
        self.second = 0.0
        self._sequence = 0

    def clock_ms(self) -> float:
        return BLOCK_MS + 1000 * self.second

    def write(self, *seconds: float, outcomes: bool = True, between: bool = False) -> None:
        """Predictions of these seconds after BLOCK_MS; likewise those in between; with their outcomes."""
        writes = Writes()
        for second in seconds:
            at_ms = BLOCK_MS + round(1000 * second)
            record = prediction(at_ms)
            (writes.recent if between else writes.prediction)(record)
        for at_ms in [BLOCK_MS + round(1000 * second) for second in seconds if outcomes]:
            self.resolve(writes, at_ms)
        self.commit(writes)

    def resolve(self, writes: Writes, at_ms: int) -> None:
        for horizon_s in HORIZONS_S:
            writes.outcome(outcome(at_ms, horizon_s))

    def commit(self, writes: Writes, symbol: str = SYMBOL) -> None:
        # The stream takes entries in the order of their ids alone.
        writes.append.sort(key=lambda each: tuple(map(int, each[2].split("-"))))
        before, self._sequence = self._sequence, self._sequence + 1
        state = SymbolState(symbol, BarRing(100_000), sequence=self._sequence)
        assert commit(self.store, state, before, writes)


@pytest.fixture
def hot(redis_client: redis.Redis) -> Hot:
    return Hot(redis_client)


@pytest.fixture
def archive(s3: Any) -> ReceiptArchive:
    return ReceiptArchive(lambda: s3, BUCKET)


@pytest.fixture
def copy(hot: Hot, archive: ReceiptArchive) -> ArchiveReceipts:
    return ArchiveReceipts(hot.store, archive, hot.clock_ms, with_between=True)


def archived(archive: ReceiptArchive, second: float = 0) -> dict[float, list[int]]:
    """The horizons of the outcomes of each receipt in a block, by its second after BLOCK_MS."""
    at_ms = BLOCK_MS + round(1000 * second)
    return {
        (each.timestamp - BLOCK_MS) / 1000: list(each.outcomes)
        for each in archive.block(Folder.SECONDS, SYMBOL, at_ms).receipts.values()
    }


ALL = list(HORIZONS_S)


def test_a_block_is_copied_once_no_outcome_of_it_can_come(
    hot: Hot, archive: ReceiptArchive, copy: ArchiveReceipts
) -> None:
    """15 s after its end: a delivery may be 5 s late, and its target is 10 s further."""
    last = LENGTH_S - 1
    hot.write(0, 1, last, LENGTH_S + 4)  # whose last outcome is of LENGTH_S + 14.13
    assert copy([SYMBOL], PLENTY).objects == 0
    hot.write(LENGTH_S + 5)
    assert copy([SYMBOL], PLENTY).objects == 1
    assert archived(archive) == {0: ALL, 1: ALL, last: ALL}
    assert archived(archive, LENGTH_S) == {}
    assert archive.find(SYMBOL, BLOCK_MS) is not None


def test_what_is_archived_is_not_read_again(hot: Hot, copy: ArchiveReceipts, archive: ReceiptArchive) -> None:
    hot.write(0, LENGTH_S, LENGTH_S + 5)
    assert copy([SYMBOL], PLENTY).objects == 1
    archive._bucket = None  # type: ignore[assignment]  # a request to S3 would fail
    again = copy([SYMBOL], PLENTY)
    assert (again.objects, again.problems) == (0, [])
    assert hot.store.archived_until(SYMBOL).seconds_ms == BLOCK_MS + 1000 * LENGTH_S


def test_a_stream_that_stands_still_is_archived_and_late_outcomes_are_merged(
    hot: Hot, archive: ReceiptArchive, copy: ArchiveReceipts
) -> None:
    hot.write(0)
    hot.write(11, outcomes=False)
    hot.second = LENGTH_S + STANDSTILL_MS / 1000 - 1
    assert copy([SYMBOL], PLENTY).objects == 0
    hot.second += 2
    assert copy([SYMBOL], PLENTY).objects == 1
    assert archived(archive) == {0: ALL, 11: []}
    writes = Writes()
    hot.resolve(writes, BLOCK_MS + 11_000)
    hot.commit(writes)
    hot.write(LENGTH_S + 900)
    assert copy([SYMBOL], PLENTY).objects == 1
    assert archived(archive) == {0: ALL, 11: ALL}


def test_those_in_between_are_archived_after_a_minute_where_that_is_wanted(
    hot: Hot, archive: ReceiptArchive, copy: ArchiveReceipts
) -> None:
    hot.write(0, 59)
    hot.write(0.1, 59.9, 60.1, outcomes=False, between=True)
    assert copy([SYMBOL], PLENTY).objects == 0
    hot.write(60)
    without = ArchiveReceipts(hot.store, archive, hot.clock_ms, with_between=False)
    assert without([SYMBOL], PLENTY).objects == 0
    assert copy([SYMBOL], PLENTY).objects == 1
    found = archive.block(Folder.BETWEEN, SYMBOL, BLOCK_MS).receipts
    assert list(found) == [f"{SYMBOL}-{BLOCK_MS + 100}", f"{SYMBOL}-{BLOCK_MS + 59_900}"]


def test_a_run_without_time_is_continued(hot: Hot, archive: ReceiptArchive, copy: ArchiveReceipts) -> None:
    hot.write(0, LENGTH_S, 2 * LENGTH_S, 3 * LENGTH_S + 5)
    left_ms = iter([60_000, 29_000]).__next__
    first = copy([SYMBOL], left_ms)
    assert (first.objects, first.is_complete) == (1, False)
    assert first.problems == ["no time was left to archive all receipts"]
    assert copy([SYMBOL], PLENTY).objects == 2
    assert [archived(archive, LENGTH_S * n) for n in range(4)] == [
        {LENGTH_S * n: ALL} if n < 3 else {} for n in range(4)
    ]


def test_each_symbol_gets_its_turn_where_time_is_always_short(
    hot: Hot, archive: ReceiptArchive, copy: ArchiveReceipts, redis_client: redis.Redis
) -> None:
    """The first one always has something new, and a call has time for one object."""
    waiting, writes = "ETHUSDT", Writes()
    for at_ms in (BLOCK_MS, BLOCK_MS + 1000 * LENGTH_S + 5000):
        id_ = f"{waiting}-{at_ms}"
        writes.prediction(replace(prediction(at_ms), id=id_, symbol=waiting))
        for horizon_s in HORIZONS_S:
            writes.outcome(replace(outcome(at_ms, horizon_s), id=id_, symbol=waiting))
    Hot(redis_client).commit(writes, waiting)
    hot.write(0)
    for block in range(1, 4):
        hot.write(block * LENGTH_S + 5)
        copy([SYMBOL, waiting], iter([60_000, 29_000]).__next__)
    assert archive.block(Folder.SECONDS, waiting, BLOCK_MS).receipts
    assert [len(archived(archive, n * LENGTH_S)) for n in range(3)] == [1, 1, 0]
    assert hot.store.archived_until(SYMBOL).seconds_ms == BLOCK_MS + 2000 * LENGTH_S


def test_a_position_that_is_lost_changes_nothing(
    hot: Hot, copy: ArchiveReceipts, redis_client: redis.Redis
) -> None:
    hot.write(0, LENGTH_S + 5)
    assert copy([SYMBOL], PLENTY).objects == 1
    redis_client.delete(keys.archived(SYMBOL))
    assert copy([SYMBOL], PLENTY).objects == 0


def test_a_damaged_record_or_object_costs_itself(
    hot: Hot, s3: Any, archive: ReceiptArchive, copy: ArchiveReceipts
) -> None:
    writes = Writes()
    entry = keys.prediction_entry(BLOCK_MS + 1)
    writes.append.append((keys.predictions(SYMBOL), keys.PREDICTIONS_KEPT, entry, b"{}"))
    hot.commit(writes)
    hot.write(2, LENGTH_S + 1, 2 * LENGTH_S + 5)
    damaged = Folder.SECONDS.key(SYMBOL, BLOCK_MS + 1000 * LENGTH_S)
    s3.put_object(Bucket=BUCKET, Key=damaged, Body=b"x")
    result = copy([SYMBOL], PLENTY)
    assert (result.objects, result.failed) == (1, [SYMBOL])
    assert f"not archived: predictions:{SYMBOL} {entry}" in result.problems[0]
    assert damaged in result.problems[1]
    assert archived(archive) == {2: ALL}
    assert copy([SYMBOL], PLENTY).problems == []  # it blocks nothing that comes later


def test_s3_that_fails_concerns_no_position(hot: Hot, copy: ArchiveReceipts, s3: Any) -> None:
    hot.write(0, LENGTH_S + 5)
    s3.delete_bucket(Bucket=BUCKET)
    result = copy([SYMBOL], PLENTY)
    assert (result.objects, result.failed) == (0, [SYMBOL])
    assert "NoSuchBucket" in result.problems[0]
    s3.create_bucket(Bucket=BUCKET)
    assert copy([SYMBOL], PLENTY).objects == 1


def test_a_symbol_that_is_served_no_more_is_completed(
    hot: Hot, archive: ReceiptArchive, copy: ArchiveReceipts
) -> None:
    hot.write(0)
    copy([SYMBOL], PLENTY)
    assert copy([], PLENTY).objects == 0
    hot.second = LENGTH_S + STANDSTILL_MS / 1000 + 1
    assert copy([], PLENTY).objects == 1
    assert archived(archive) == {0: ALL}
    copy([], PLENTY)
    assert hot.store.archiving() == []


def test_a_symbol_that_is_served_no_more_is_completed_by_another_process(
    hot: Hot, archive: ReceiptArchive, copy: ArchiveReceipts
) -> None:
    hot.write(0)
    copy([SYMBOL], PLENTY)
    hot.second = LENGTH_S + STANDSTILL_MS / 1000 + 1
    another = ArchiveReceipts(hot.store, archive, hot.clock_ms, with_between=True)
    assert another(["ETHUSDT"], PLENTY).objects == 1
    assert archived(archive) == {0: ALL}
    assert hot.store.archiving() == [SYMBOL, "ETHUSDT"]
    another(["ETHUSDT"], PLENTY)
    assert hot.store.archiving() == ["ETHUSDT"]


def test_outcomes_go_to_the_receipt_that_they_name(
    hot: Hot, archive: ReceiptArchive, copy: ArchiveReceipts
) -> None:
    """Two predictions may be delivered in the same millisecond, and a target has one outcome a horizon."""
    writes = Writes()
    writes.prediction(prediction(BLOCK_MS))
    writes.prediction(prediction(BLOCK_MS + 1000))
    writes.outcome(replace(outcome(BLOCK_MS, 1), id=f"{SYMBOL}-{BLOCK_MS + 1000}"))
    hot.commit(writes)
    hot.write(LENGTH_S + 5)
    copy([SYMBOL], PLENTY)
    assert archived(archive) == {0: [], 1: [1]}


def test_an_object_of_an_earlier_run_keeps_its_receipts(
    hot: Hot, archive: ReceiptArchive, copy: ArchiveReceipts, redis_client: redis.Redis
) -> None:
    """A store that lost its newest writes has fewer receipts than were archived."""
    hot.write(0, 1, LENGTH_S + 5)
    copy([SYMBOL], PLENTY)
    before = archived(archive)
    redis_client.delete(keys.archived(SYMBOL), keys.predictions(SYMBOL), keys.outcomes(SYMBOL))
    hot.write(1, 2, LENGTH_S + 5)
    copy([SYMBOL], PLENTY)
    assert archived(archive) == before | {2: ALL}

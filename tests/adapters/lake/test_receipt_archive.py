"""The archive of receipts, in moto's S3."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from msgspec.structs import asdict

from tests.fixtures.aws import BUCKET
from tests.fixtures.records import SYMBOL, outcome, prediction
from tickcast.adapters.lake.receipt_archive import (
    ArchiveRace,
    Folder,
    ReceiptArchive,
    ReceiptArchiveError,
    decode_block,
    encode_block,
    merged,
)
from tickcast.serving.records import ArchivedReceipt

BLOCK = 1_767_225_600_000  # 2026-01-01T00:00:00Z
KEY = f"receipts/symbol={SYMBOL}/date=2026-01-01/hour=00/minute=00.ndjson.gz"


def receipt(at_ms: int, *horizons_s: int, **changed: Any) -> ArchivedReceipt:
    outcomes = {horizon_s: outcome(at_ms, horizon_s) for horizon_s in horizons_s}
    return ArchivedReceipt(**asdict(prediction(at_ms, **changed)), outcomes=outcomes)


@pytest.fixture
def archive(s3: Any) -> ReceiptArchive:
    return ReceiptArchive(lambda: s3, BUCKET)


def test_the_key_follows_from_the_instant() -> None:
    assert Folder.SECONDS.key(SYMBOL, BLOCK) == Folder.SECONDS.key(SYMBOL, BLOCK + 299_999) == KEY
    assert Folder.SECONDS.key(SYMBOL, BLOCK + 300_000) == KEY.replace("minute=00", "minute=05")
    between = KEY.replace("receipts/", "receipts_between/")
    assert Folder.BETWEEN.key(SYMBOL, BLOCK + 59_999) == between
    assert Folder.BETWEEN.key(SYMBOL, BLOCK - 1) == between.replace(
        "date=2026-01-01/hour=00/minute=00", "date=2025-12-31/hour=23/minute=59"
    )
    assert not Folder.BETWEEN.key(SYMBOL, BLOCK).startswith(Folder.SECONDS.prefix)  # rules go by prefixes


@pytest.mark.parametrize(
    ("from_ms", "to_ms", "blocks"),
    [
        (0, 0, []),
        (0, 1, [0]),
        (1, 300_000, [0]),
        (299_999, 300_001, [0, 300_000]),
        (5, 4, []),
        (300_001, 300_001, []),
    ],
)
def test_the_blocks_of_a_span(from_ms: int, to_ms: int, blocks: list[int]) -> None:
    assert list(Folder.SECONDS.blocks(from_ms, to_ms)) == blocks


def test_receipts_are_the_same_bytes_in_any_order_and_lines_of_json() -> None:
    receipts = [receipt(BLOCK, 1, 2), receipt(BLOCK + 1000)]
    data = encode_block(receipts)
    assert encode_block(receipts[::-1]) == data
    assert decode_block(data, KEY) == receipts
    lines = [json.loads(line) for line in gzip.decompress(data).splitlines()]
    assert [(line["id"], list(line["outcomes"])) for line in lines] == [
        (f"{SYMBOL}-{BLOCK}", ["1", "2"]),
        (f"{SYMBOL}-{BLOCK + 1000}", []),
    ]


def test_a_receipt_is_found_by_its_id_alone(archive: ReceiptArchive) -> None:
    first, second, between = receipt(BLOCK, 1, 2, 5, 10), receipt(BLOCK + 1000, 1), receipt(BLOCK + 100)
    assert archive.add(Folder.SECONDS, SYMBOL, [second, first])
    assert archive.add(Folder.BETWEEN, SYMBOL, [between])
    for each in (first, second, between):
        assert archive.find(SYMBOL, each.timestamp) == each
    # None of another market, of another instant, nor one whose id only begins like another's.
    assert archive.find("ETHUSDT", BLOCK) is None
    assert archive.find(SYMBOL, BLOCK + 200) is None
    assert archive.find(SYMBOL, BLOCK // 10) is None


def test_receipts_of_a_span_come_in_the_order_of_time(archive: ReceiptArchive) -> None:
    times = [BLOCK - 1000, BLOCK, BLOCK + 299_000, BLOCK + 900_000]
    for at_ms in times:
        archive.add(Folder.SECONDS, SYMBOL, [receipt(at_ms)])
    found = archive.receipts(Folder.SECONDS, SYMBOL, BLOCK - 1000, BLOCK + 900_000)
    assert isinstance(found, Iterator)
    assert [each.timestamp for each in found] == times[:3]
    assert not list(archive.receipts(Folder.SECONDS, SYMBOL, BLOCK + 1, BLOCK + 1))


def test_outcomes_that_come_later_are_merged_and_nothing_is_written_twice(
    s3: Any, archive: ReceiptArchive
) -> None:
    assert archive.add(Folder.SECONDS, SYMBOL, [receipt(BLOCK, 1, 2)])
    assert archive.add(Folder.SECONDS, SYMBOL, [receipt(BLOCK, 5, 10), receipt(BLOCK + 1000)])
    before = (
        s3.head_object(Bucket=BUCKET, Key=KEY)["LastModified"],
        archive.block(Folder.SECONDS, SYMBOL, BLOCK),
    )
    assert not archive.add(Folder.SECONDS, SYMBOL, [receipt(BLOCK, 2)])
    block = archive.block(Folder.SECONDS, SYMBOL, BLOCK)
    assert (s3.head_object(Bucket=BUCKET, Key=KEY)["LastModified"], block) == before
    assert list(block.receipts.values()) == [receipt(BLOCK, 1, 2, 5, 10), receipt(BLOCK + 1000)]


def test_the_first_receipt_of_an_id_stays() -> None:
    """A store that went back in time may predict an instant again: what was answered first is the record."""
    first, again = receipt(BLOCK, 1, sequence="1"), receipt(BLOCK, 2, sequence="2")
    assert merged([first], [again]) == {first.id: receipt(BLOCK, 1, 2, sequence="1")}


class OtherWriter:
    """An S3 in which someone else writes `receipts` before each of the first `times` writes."""

    def __init__(self, s3: Any, receipts: list[ArchivedReceipt], times: int) -> None:
        self._s3, self._receipts, self._times = s3, receipts, times

    def put_object(self, **request: Any) -> Any:
        if self._times:
            self._times -= 1
            body = encode_block([*self._receipts[: -self._times or None]])
            self._s3.put_object(Bucket=request["Bucket"], Key=request["Key"], Body=body)
        return self._s3.put_object(**request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)


def test_of_two_writers_neither_loses_anything(s3: Any, archive: ReceiptArchive) -> None:
    other = OtherWriter(s3, [receipt(BLOCK + 1000)], times=1)
    assert ReceiptArchive(lambda: other, BUCKET).add(Folder.SECONDS, SYMBOL, [receipt(BLOCK)])
    assert set(archive.block(Folder.SECONDS, SYMBOL, BLOCK).receipts) == {
        f"{SYMBOL}-{BLOCK}",
        f"{SYMBOL}-{BLOCK + 1000}",
    }


def test_who_loses_every_race_says_so(s3: Any) -> None:
    other = OtherWriter(s3, [receipt(BLOCK + 1000 * n) for n in range(1, 10)], times=9)
    with pytest.raises(ArchiveRace, match="minute=00"):
        ReceiptArchive(lambda: other, BUCKET).add(Folder.SECONDS, SYMBOL, [receipt(BLOCK)])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{}", "not a whole gzip file"),
        (encode_block([receipt(BLOCK)])[:-9], "not a whole gzip file"),
        (gzip.compress(b'{"id": "x"}\n', mtime=0), "missing required field"),
    ],
)
def test_a_damaged_object_is_named_and_never_overwritten(
    s3: Any, archive: ReceiptArchive, data: bytes, why: str
) -> None:
    s3.put_object(Bucket=BUCKET, Key=KEY, Body=data)
    with pytest.raises(ReceiptArchiveError, match=rf"{KEY} .*{why}"):
        archive.add(Folder.SECONDS, SYMBOL, [receipt(BLOCK)])
    assert s3.get_object(Bucket=BUCKET, Key=KEY)["Body"].read() == data


def test_what_s3_refuses_is_raised() -> None:
    class Refusing:
        def get_object(self, **_: Any) -> Any:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")

    with pytest.raises(ClientError, match="AccessDenied"):
        ReceiptArchive(Refusing, BUCKET).find(SYMBOL, BLOCK)

"""The archive of receipts in the lake: predictions with their outcomes, after the hot store has dropped them.

An object holds the receipts of one symbol and one block of time, so that its key follows from a prediction's
id and nothing is ever listed. The first receipt of each second lies in one folder in blocks of five minutes;
those in between, of which there are ten times as many and which have no outcomes, in another in blocks of a
minute: the hot store drops them after five. An object is gzip-compressed JSON, a receipt a line, in the order
of time. The same receipts are the same bytes.

Outcomes may come after an object was written. Then they are merged into it, by conditional write: of two
writers each keeps what the other has added.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple

from msgspec import structs

from tickcast.adapters.lake.objects import GONE, LazyBucket
from tickcast.serving.records import ArchivedReceipt, decode, encode

LEVEL = 6  # of gzip: 9 is a hundredth smaller, and takes half as long again
_ATTEMPTS = 5
# 409: another conditional write was under way; 404: the object that was to be matched is gone.
_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409", *GONE)


class ReceiptArchiveError(ValueError):
    """An object of the archive that cannot be read; the message names it."""


class ArchiveRace(RuntimeError):
    """Others changed an object each time between reading and writing it: to be tried again."""


class Folder(Enum):
    """The two parts of the archive: the name of their keys, and how long a block is (ms)."""

    SECONDS = "receipts", 300_000  # the first receipt of each second, with outcomes
    BETWEEN = "receipts_between", 60_000  # all others

    @property
    def prefix(self) -> str:
        """What its keys begin with."""
        return f"{self.value[0]}/"

    @property
    def block_ms(self) -> int:
        return self.value[1]

    def key(self, symbol: str, at_ms: int) -> str:
        """The key of the object with the receipts of the block that contains `at_ms` (since 1970)."""
        start = datetime.fromtimestamp(self.block_of(at_ms) / 1000, UTC)
        folder = f"{self.prefix}symbol={symbol}/date={start:%Y-%m-%d}/hour={start:%H}/"
        return f"{folder}minute={start:%M}.ndjson.gz"

    def block_of(self, at_ms: int) -> int:
        """The start of the block that contains `at_ms`."""
        return at_ms // self.block_ms * self.block_ms

    def blocks(self, from_ms: int, to_ms: int) -> range:
        """The starts of the blocks that [`from_ms`, `to_ms`) touches, ascending."""
        return range(self.block_of(from_ms), to_ms if to_ms > from_ms else 0, self.block_ms)


class StoredBlock(NamedTuple):
    """An object's receipts by id, and its ETag; None where there is no object."""

    receipts: dict[str, ArchivedReceipt]
    etag: str | None


def encode_block(receipts: Iterable[ArchivedReceipt]) -> bytes:
    """The object of `receipts`, which are of one block. Raises ValueError on a number that is not finite."""
    ordered = sorted(receipts, key=lambda each: each.timestamp)
    return gzip.compress(b"".join(encode(each) + b"\n" for each in ordered), LEVEL, mtime=0)


def decode_block(data: bytes, key: str) -> list[ArchivedReceipt]:
    """The receipts in the object `key`, oldest first. Raises `ReceiptArchiveError`."""
    return [_receipt(line, key) for line in _lines(data, key).splitlines()]


def _lines(data: bytes, key: str) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ReceiptArchiveError(f"{key} is not a whole gzip file: {error}") from error


def _receipt(line: bytes, key: str) -> ArchivedReceipt:
    try:
        return decode(ArchivedReceipt, line)
    except ValueError as error:
        raise ReceiptArchiveError(f"{key} has a receipt that cannot be read: {error}") from error


def merged(known: Sequence[ArchivedReceipt], more: Sequence[ArchivedReceipt]) -> dict[str, ArchivedReceipt]:
    """Both by id. Where both have one, that of `known` stays: an id's first receipt is what was answered
    from. It gets the outcomes that it lacks."""
    found = {each.id: each for each in known}
    for each in more:
        first = found.get(each.id, each)
        outcomes = dict(sorted((each.outcomes | first.outcomes).items()))
        found[each.id] = structs.replace(first, outcomes=outcomes)
    return found


class ReceiptArchive:
    """Reads the archive and adds to it.

    `connect` gives the S3 client, when it is first needed. All methods raise what S3 raises, and
    `ReceiptArchiveError` where an object is damaged.
    """

    def __init__(self, connect: Callable[[], Any], bucket: str) -> None:
        self._bucket = LazyBucket(connect, bucket)

    def find(self, symbol: str, timestamp_ms: int) -> ArchivedReceipt | None:
        """The receipt `{symbol}-{timestamp_ms}`, of a second or in between; None if none is archived."""
        for folder in Folder:
            key = folder.key(symbol, timestamp_ms)
            found = self._bucket.get(key)
            if found is None:
                continue
            lines = _lines(found.data, key)
            at = lines.find(f'"id":"{symbol}-{timestamp_ms}"'.encode())
            if at >= 0:  # only its line is decoded
                return _receipt(lines[lines.rfind(b"\n", 0, at) + 1 : lines.index(b"\n", at)], key)
        return None

    def block(self, folder: Folder, symbol: str, at_ms: int) -> StoredBlock:
        """What is archived of the block that contains `at_ms`."""
        key = folder.key(symbol, at_ms)
        found = self._bucket.get(key)
        if found is None:
            return StoredBlock({}, None)
        return StoredBlock({each.id: each for each in decode_block(found.data, key)}, found.etag)

    def receipts(self, folder: Folder, symbol: str, from_ms: int, to_ms: int) -> Iterator[ArchivedReceipt]:
        """The receipts of [`from_ms`, `to_ms`), oldest first, an object at a time. Blocks without an object
        are skipped, each by a request."""
        for at_ms in folder.blocks(from_ms, to_ms):
            for receipt in self.block(folder, symbol, at_ms).receipts.values():
                if from_ms <= receipt.timestamp < to_ms:
                    yield receipt

    def stored_blocks(self, folder: Folder, symbol: str, from_ms: int, to_ms: int) -> list[int]:
        """The starts of the blocks of [`from_ms`, `to_ms`) that there is an object of, newest first, by a
        listing: all of it must lie on one day."""
        day = folder.key(symbol, from_ms).partition("/hour=")[0] + "/"
        keys = {stored.key for stored in self._bucket.list(day)}
        blocks = folder.blocks(from_ms, to_ms)
        return [at_ms for at_ms in reversed(blocks) if folder.key(symbol, at_ms) in keys]

    def add(self, folder: Folder, symbol: str, receipts: Sequence[ArchivedReceipt]) -> bool:
        """Merge `receipts`, all of one block, into its object; returns whether that was changed. Raises
        `ArchiveRace`."""
        from botocore.exceptions import ClientError

        at_ms = receipts[0].timestamp
        key = folder.key(symbol, at_ms)
        for _ in range(_ATTEMPTS):
            known, etag = self.block(folder, symbol, at_ms)
            changed = merged(list(known.values()), receipts)
            if changed == known:
                return False
            condition = {"IfMatch": f'"{etag}"'} if etag else {"IfNoneMatch": "*"}
            try:
                self._bucket.put_gzip(key, encode_block(changed.values()), **condition)
                return True
            except ClientError as error:
                if error.response["Error"]["Code"] not in _LOST:
                    raise
        raise ArchiveRace(f"others changed {key} {_ATTEMPTS} times while it was being changed")

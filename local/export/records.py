"""Receipts and outcomes of a span of time, from their archive."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tickcast.adapters.lake.receipt_archive import Folder, ReceiptArchive, ReceiptArchiveError
from tickcast.functions.archive_receipts import LATEST_TARGET_MS
from tickcast.serving.records import ArchivedReceipt, Outcome
from tickcast.units import SECOND_US

_FETCHED_AT_ONCE = 8
# By then the receipts of an instant are archived with their outcomes: blocks are, when they are over.
ARCHIVED_AFTER_MS = Folder.SECONDS.block_ms + LATEST_TARGET_MS + 2 * 60_000


class RecordReader:
    """Reads the archive of `bucket`; with `between` also the receipts between the seconds, which have no
    outcomes. `problems` says what was left out."""

    def __init__(self, s3: Any, bucket: str, *, between: bool = False) -> None:
        self._archive = ReceiptArchive(lambda: s3, bucket)
        self._folders = tuple(Folder) if between else (Folder.SECONDS,)
        self.problems: list[str] = []

    def __call__(self, symbol: str, from_us: int, to_us: int) -> tuple[list[ArchivedReceipt], list[Outcome]]:
        """All receipts of [`from_us`, `to_us`) and all outcomes of targets in it, and some of earlier
        instants. Raises what S3 raises."""
        from_ms, to_ms = from_us * 1000 // SECOND_US - LATEST_TARGET_MS, -(-to_us * 1000 // SECOND_US)
        blocks = [(folder, at_ms) for folder in self._folders for at_ms in folder.blocks(from_ms, to_ms)]
        with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
            found = pool.map(lambda block: self._block(symbol, *block), blocks)
            receipts = [receipt for block in found for receipt in block]
        return receipts, [outcome for receipt in receipts for outcome in receipt.outcomes.values()]

    def _block(self, symbol: str, folder: Folder, at_ms: int) -> list[ArchivedReceipt]:
        try:
            return list(self._archive.block(folder, symbol, at_ms).receipts.values())
        except ReceiptArchiveError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return []

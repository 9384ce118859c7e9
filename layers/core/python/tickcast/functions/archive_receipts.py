"""Copy receipts with their outcomes from the hot store into the lake, before the hot store drops them.

A block of time is copied once nothing can be added to it: of the first receipts of each second, once an
outcome of a later target than any of theirs is known (outcomes are stored in the order of their targets); of
those in between, which have no outcomes, once a later receipt is there. While the stream is stalled a block
is copied as it is, and again when the stream continues: then the outcomes that came late are merged into it.
Whatever is interrupted is repeated by the next run, and changes nothing that is archived already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import redis
from msgspec import Struct
from msgspec.structs import asdict

from tickcast.adapters.lake.receipt_archive import Folder, ReceiptArchive, ReceiptArchiveError
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.model.forecast import HORIZONS_S, MAX_AGE_S
from tickcast.serving.records import ArchivedReceipt, ArchivedUntil, Outcome, Prediction, decode

# The latest target of a receipt's outcomes, after its own instant: it is delivered late, and looks far ahead.
LATEST_TARGET_MS = round(MAX_AGE_S * 1000) + max(HORIZONS_S) * 1000
STANDSTILL_MS = 600_000  # after this a block is copied although something may still be added to it
_PAGE = 200  # entries per request: more would keep Redis from answering others for milliseconds
ENOUGH_MS = 30_000  # of an invocation are left for what follows

R = TypeVar("R", bound=Struct)


@dataclass
class Archived:
    """What a run archived, and what it could not."""

    objects: int = 0  # written, or added to
    is_complete: bool = True  # False when time ran out: the next run continues from there
    failed: list[str] = field(default_factory=list)  # symbols of which something was not archived
    problems: list[str] = field(default_factory=list)


class ArchiveReceipts:
    """Of the symbols it is called with: those that are no longer served are completed by later calls, even in
    another process, since the store has their names. Where time runs out, the next call begins with the
    symbol that it ran out on: none waits until its receipts are dropped."""

    def __init__(
        self, store: HotStore, archive: ReceiptArchive, clock_ms: Callable[[], float], with_between: bool
    ) -> None:
        self._store = store
        self._archive = archive
        self._clock_ms = clock_ms
        self._folders = tuple(Folder) if with_between else (Folder.SECONDS,)
        self._known: dict[str, None] | None = None  # before the first call
        self._next: str | None = None

    def __call__(self, symbols: Sequence[str], remaining_ms: Callable[[], float]) -> Archived:
        """Raises what Redis raises; any other exception concerns its symbol alone."""
        result = Archived()
        known = dict.fromkeys(self._store.archiving()) if self._known is None else self._known
        self._known = known | dict.fromkeys(symbols)
        self._store.put_archiving(list(self._known))
        for symbol in self._in_turn(list(self._known)):
            try:
                self._copy(symbol, remaining_ms, result)
                if symbol not in symbols and self._is_over(symbol):
                    del self._known[symbol]
            except redis.RedisError:
                raise
            except Exception as error:
                result.failed.append(symbol)
                result.problems.append(f"receipts of {symbol} are not archived: {describe(error)}")
            if not result.is_complete:
                self._next = symbol
                result.problems.append("no time was left to archive all receipts")
                break
        return result

    def _in_turn(self, symbols: list[str]) -> list[str]:
        """All `symbols`; first the one that the previous call had no time for."""
        first = symbols.index(self._next) if self._next in symbols else 0
        return [*symbols[first:], *symbols[:first]]

    def _is_over(self, symbol: str) -> bool:
        """Whether nothing came for so long that all has been copied."""
        found = self._store.extent(keys.predictions(symbol))
        longest_ms = max(folder.block_ms for folder in Folder) + STANDSTILL_MS
        return found is None or self._clock_ms() > found[1] + longest_ms

    def _copy(self, symbol: str, remaining_ms: Callable[[], float], result: Archived) -> None:
        """Copy what is due of `symbol`."""
        before = self._store.archived_until(symbol)
        after = ArchivedUntil(**asdict(before))
        try:
            for folder in self._folders:
                name = f"{folder.name.lower()}_ms"
                until_ms = getattr(before, name)
                for at_ms, is_final in self._due(symbol, folder, until_ms):
                    if remaining_ms() < ENOUGH_MS:
                        result.is_complete = False
                        return
                    self._copy_block(symbol, folder, at_ms, result)
                    if is_final:
                        until_ms = at_ms + folder.block_ms
                        setattr(after, name, until_ms)
        finally:
            if after != before:
                self._store.put_archived_until(symbol, after)

    def _due(self, symbol: str, folder: Folder, until_ms: int) -> Iterator[tuple[int, bool]]:
        """The starts of the blocks that are to be copied, and whether nothing can be added to them."""
        found = self._store.extent(_stream(symbol, folder))
        if found is None:
            return
        final_ms, oldest_ms, newest_ms = self._final_ms(symbol, folder), *found
        now_ms = self._clock_ms()
        for at_ms in folder.blocks(max(until_ms, oldest_ms), newest_ms + 1):
            end_ms = at_ms + folder.block_ms
            if end_ms > final_ms and now_ms < end_ms + STANDSTILL_MS:
                return
            yield at_ms, end_ms <= final_ms

    def _final_ms(self, symbol: str, folder: Folder) -> int:
        """Nothing can be added any more to what was predicted before this instant."""
        is_seconds = folder is Folder.SECONDS
        found = self._store.extent(keys.outcomes(symbol) if is_seconds else keys.predictions(symbol))
        return found[1] - (LATEST_TARGET_MS if is_seconds else 0) if found else 0

    def _copy_block(self, symbol: str, folder: Folder, at_ms: int, result: Archived) -> None:
        end_ms = at_ms + folder.block_ms
        stream = _stream(symbol, folder)
        receipts = {
            record.id: ArchivedReceipt(**asdict(record))
            for record in self._read(Prediction, stream, at_ms, end_ms, result)
        }
        if not receipts:
            return
        if folder is Folder.SECONDS:
            last_ms = end_ms + LATEST_TARGET_MS
            for outcome in self._read(Outcome, keys.outcomes(symbol), at_ms, last_ms, result):
                if receipt := receipts.get(outcome.id):
                    receipt.outcomes[outcome.horizon_s] = outcome
        try:
            result.objects += self._archive.add(folder, symbol, list(receipts.values()))
        except ReceiptArchiveError as error:  # what cannot be added to, is not waited for either
            result.failed.append(symbol)
            result.problems.append(f"{error}; nothing is added to it")

    def _read(self, kind: type[R], stream: str, from_ms: int, to_ms: int, result: Archived) -> Iterator[R]:
        """The records of a stream; one that cannot be read is reported and left out."""
        for id_, data in self._store.entries_between(stream, from_ms, to_ms, _PAGE):
            try:
                yield decode(kind, data)
            except ValueError as error:
                result.problems.append(f"not archived: {stream} {id_}: {describe(error)}")


def _stream(symbol: str, folder: Folder) -> str:
    return keys.predictions(symbol) if folder is Folder.SECONDS else keys.recent_predictions(symbol)

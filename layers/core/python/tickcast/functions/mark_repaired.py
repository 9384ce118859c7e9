"""The result of repairing a gap: which trades bronze has now, which the exchange withholds, which predictions
were affected.

The trades are those that were fetched for it, and those in PostgreSQL, where the stream may have brought some
after all. It keeps trades of the last days alone.

It goes into PostgreSQL. The newest results are also one key of the hot store, by which readers of the gap
ledger know what is no longer missing: `repaired:{symbol}`, `{"repaired": [[first_id, last_id, from_us,
to_us], …], "withheld": […]}`: ids, and between which two instants they were missing, since the exchange may
restart its ids. It may be read at any time and repeatedly; it expires as an idle state does, for the ledger
of the next state includes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from typing import Any

import msgspec
import numpy as np
import redis

from tickcast.adapters import json_text
from tickcast.adapters.lake.bronze import read_file
from tickcast.adapters.lake.bronze_reader import ObjectGone, fetch, object_at, ticks_of
from tickcast.adapters.lake.windows import WindowLake
from tickcast.adapters.postgres.gap_store import GapStore
from tickcast.adapters.redis import keys
from tickcast.market.fetch_plan import Window, subtract
from tickcast.market.gaps import Gap, touched_ms
from tickcast.market.trade_ledger import LEDGER_ROW, LedgerRows, known_ranges, ledger_rows

KEPT = 1000  # ranges in the hot store
_MIXED_IDS = 1000  # how far ids of two files may reach into each other, at most
NO_ROWS = np.empty(0, LEDGER_ROW)


class MarkedGap(msgspec.Struct):
    """The ids of a gap by result. `missing_trades` are neither repaired nor withheld."""

    symbol: str
    first_id: int
    last_id: int
    repaired_trades: int
    withheld_trades: int
    missing_trades: int


def lacking(window: Window, withheld: Iterable[tuple[int, int]], store: GapStore) -> list[tuple[int, int]]:
    """The ranges of a gap's ids, ends excluded, that PostgreSQL lacks and the exchange did not withhold."""
    first_id, last_id = window.first_id, window.last_id
    assert first_id is not None and last_id is not None
    known = store.trades_by_id(window.symbol, first_id, last_id, window.from_us, window.to_us)
    covered = [*known_ranges(known, first_id, last_id), *withheld]
    return subtract((first_id, last_id + 1), [(begin, end + 1) for begin, end in covered])


def fetched_rows(s3: Any, bucket: str, window: Window, ids: Collection[tuple[int, int]]) -> LedgerRows:
    """The rows of the files that were fetched for a window and may have `ids` (ends excluded); none where its
    marker is not there. A window may be a busy day: of the other files only the first row is decoded."""
    marker = WindowLake(s3, bucket).marker(window) if ids else None
    parts, next_id = [NO_ROWS], 2**63
    for file in reversed(marker.keys if marker else ()):
        about = object_at(file.key, file.etag)
        with contextlib.suppress(ObjectGone):
            data = fetch(s3, bucket, about.key, about.etag)
            first_id = int(next(read_file(data, about.key), {"first_trade_id": 0})["first_trade_id"])
            # Ids that do not rise from file to file were restarted: then any file may have them.
            if first_id >= next_id or any(
                begin < next_id + _MIXED_IDS and end > first_id - _MIXED_IDS for begin, end in ids
            ):
                ticks = ticks_of(data, about)
                parts.append(ledger_rows(ticks.trades, ticks.origin))
            next_id = first_id
    return np.concatenate(parts)


def mark_repaired(
    window: Window,
    withheld: Iterable[tuple[int, int]],
    store: GapStore,
    client: redis.Redis,
    fetched: LedgerRows = NO_ROWS,
) -> MarkedGap:
    """Mark the gap of a window that was fetched. Repeating it changes nothing.

    `withheld` are ids that the exchange had no trades for, `fetched` rows that it gave: those of the ids that
    PostgreSQL is `lacking`.
    """
    symbol, first_id, last_id = window.symbol, window.first_id, window.last_id
    assert first_id is not None and last_id is not None
    times_us = window.from_us, window.to_us
    counts = {"repaired": 0, "withheld": 0}
    with store.connection.transaction():
        store.lock(symbol, [0])  # stands for all marks of the symbol, for the key below has the newest
        known = store.trades_by_id(symbol, first_id, last_id, *times_us)
        ranges = known_ranges(np.concatenate([known, fetched]), first_id, last_id)
        marks = [(run, "repaired") for run in ranges]
        for begin, end in withheld:
            if begin <= last_id and end >= first_id:
                marks.append(((max(begin, first_id), min(end, last_id)), "withheld"))
        for (begin, end), status in marks:
            gap = Gap(begin, end, *times_us)
            store.mark(symbol, gap, status, touched_ms(gap))
            counts[status] += gap.trades
        newest: dict[str, list[tuple[int, int, int, int]]] = {"repaired": [], "withheld": []}
        for begin, end, from_us, to_us, status in store.marked(symbol, KEPT):
            newest[status].append((begin, end, from_us, to_us))
        client.set(keys.repaired(symbol), json_text.strict(newest), ex=keys.TTL_S)
    missing = last_id - first_id + 1 - sum(counts.values())
    return MarkedGap(symbol, first_id, last_id, counts["repaired"], counts["withheld"], missing)

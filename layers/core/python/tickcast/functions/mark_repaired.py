"""The result of repairing a gap: which trades are stored now, which the exchange withholds, which predictions
were affected.

It goes into PostgreSQL. The newest results are also one key of the hot store, by which readers of the gap
ledger know what is no longer missing: `repaired:{symbol}`, `{"repaired": [[first_id, last_id, from_us,
to_us], …], "withheld": […]}`: ids, and between which two instants they were missing, since the exchange may
restart its ids. It may be read at any time and repeatedly; it expires as an idle state does, for the ledger
of the next state includes it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import redis

from tickcast.adapters import json_text
from tickcast.adapters.postgres.gap_store import GapStore
from tickcast.adapters.redis import keys
from tickcast.market.fetch_plan import Window
from tickcast.market.gaps import Gap, touched_ms
from tickcast.market.trade_ledger import known_ranges

KEPT = 1000  # ranges in the hot store


class MarkedGap(msgspec.Struct):
    """The ids of a gap by result. `missing_trades` are neither repaired nor withheld: part of the window was
    not loaded."""

    symbol: str
    first_id: int
    last_id: int
    repaired_trades: int
    withheld_trades: int
    missing_trades: int


def mark_repaired(
    window: Window, withheld: Iterable[tuple[int, int]], store: GapStore, client: redis.Redis
) -> MarkedGap:
    """Mark the gap of a window that was fetched and loaded. Repeating it changes nothing.

    `withheld` are ids that the exchange had no trades for.
    """
    symbol, first_id, last_id = window.symbol, window.first_id, window.last_id
    assert first_id is not None and last_id is not None
    times_us = window.from_us, window.to_us
    counts = {"repaired": 0, "withheld": 0}
    with store.connection.transaction():
        store.lock(symbol, [0])  # stands for all marks of the symbol, for the key below has the newest
        known = store.trades_by_id(symbol, first_id, last_id, *times_us)
        ranges = known_ranges(known, first_id, last_id)
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

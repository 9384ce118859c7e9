"""What became of a gap: which of its trades are held now, which the exchange withholds, what it touched.

The facts go into PostgreSQL. The hot store gets the newest of them as one key, from which readers of the gap
ledger know what is no longer missing: `repaired:{symbol}`, `{"repaired": [[first_id, last_id,
from_us, to_us], …], "withheld": […]}`: missing ids, and between which two instants they were missing, since
the exchange may restart its ids. It may be read at any time and twice; it lives as long as a state does that
nothing is added to, for what it says is in the ledger of the next state.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis

from tickcast.adapters import json_text
from tickcast.adapters.lake import bronze
from tickcast.adapters.postgres.history_store import HistoryStore
from tickcast.adapters.redis import keys
from tickcast.market.gaps import Gap, touched_ms
from tickcast.market.trade_ledger import held_ranges

KEPT = 1000  # ranges told to the hot store


def mark_repaired(
    window: dict[str, Any], withheld: Iterable[tuple[int, int]], store: HistoryStore, client: redis.Redis
) -> dict[str, Any]:
    """Mark the gap of a window that was fetched and loaded. Repeating it changes nothing.

    `withheld` are ids that the exchange, asked, had no trades for. Returns `repaired_trades`,
    `withheld_trades`, and `missing_trades` for what is neither: something of the window was not loaded.
    """
    symbol, first_id, last_id = window["symbol"], int(window["first_id"]), int(window["last_id"])
    times_us = int(window["from_us"]), int(window["to_us"])
    counts = {"repaired": 0, "withheld": 0}
    with store.connection.transaction():
        store.lock(symbol, [0])  # of all marks of this symbol: the key below is of the newest
        known = store.trades_by_id(symbol, first_id, last_id, *times_us)
        ranges = held_ranges(known, first_id, last_id)
        marks = [(run, "repaired") for run in ranges]
        for begin, end in withheld:
            if begin <= last_id and end >= first_id:
                marks.append(((max(begin, first_id), min(end, last_id)), "withheld"))
        for (begin, end), status in marks:
            gap = Gap(begin, end, *times_us)
            store.mark(symbol, gap, status, touched_ms(gap))
            counts[status] += gap.trades
        told: dict[str, list[tuple[int, int, int, int]]] = {"repaired": [], "withheld": []}
        for begin, end, from_us, to_us, status in store.marked(symbol, KEPT):
            told[status].append((begin, end, from_us, to_us))
        client.set(keys.repaired(symbol), json_text.strict(told), ex=keys.TTL_S)
    missing = last_id - first_id + 1 - sum(counts.values())
    return {
        "symbol": symbol,
        "first_id": first_id,
        "last_id": last_id,
        "repaired_trades": counts["repaired"],
        "withheld_trades": counts["withheld"],
        "missing_trades": missing,
    }


def withheld_in(s3: Any, bucket: str, window: dict[str, Any]) -> list[tuple[int, int]]:
    """The ids that the exchange had no trades for, as the marker of a fetched window says.

    Raises what S3 raises where there is no marker: the window was not fetched whole.
    """
    key = bronze.window_key(window["symbol"], int(window["from_us"]), int(window["to_us"]))
    about = json_text.read(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    return [(int(first), int(last)) for first, last in about["withheld"]]

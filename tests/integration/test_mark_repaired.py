"""What became of a gap, from the trades that are held to the readers of the ledger."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.aws import BUCKET
from tests.history_tables import SYMBOL, aggregates, put_hours
from tests.market import START_US, random_ticks
from tickcast.adapters import bronze
from tickcast.adapters.history_store import OpenStore
from tickcast.adapters.load_history import LoadHistory
from tickcast.adapters.mark_repaired import mark_repaired, withheld_in
from tickcast.adapters.postgres_connection import Database
from tickcast.adapters.settings import HistorySettings
from tickcast.gaps import WITHHELD, GapLedger


def test_a_gap_that_rest_fills_leaves_the_ledger_but_for_what_is_withheld(
    s3: Any, owner: Any, history_database: Database, redis_client: Any
) -> None:
    trades, quotes = random_ticks(5, 120, trades_s=10)
    lost = (trades["first_id"] >= 1100) & (trades["first_id"] <= 1199)
    never_given = trades["first_id"] == 1150
    put_hours(s3, trades[~lost], quotes)
    before, after = trades[trades["first_id"] == 1099][0], trades[trades["first_id"] == 1200][0]
    ledger = GapLedger()
    ledger.missing(1100, 1199, int(before["time_us"]), int(after["time_us"]))
    ledger.missing(9000, 9001, START_US, START_US)  # another, not asked for
    window = {"symbol": SYMBOL, "from_us": int(before["time_us"]), "to_us": int(after["time_us"]) + 1}
    window |= {"first_id": 1100, "last_id": 1199}
    store = OpenStore(history_database)
    loader = LoadHistory(HistorySettings(0, 1000, 1000), s3, BUCKET, store, lambda: START_US)
    loader({"window": window}, lambda: 1e9)

    # Nothing of it is held yet.
    marked = mark_repaired(window, [], store(), redis_client)
    assert (marked["repaired_trades"], marked["missing_trades"]) == (0, 100)

    rest = np.concatenate([aggregates(part) for part in (trades[:150], trades[151:])])
    put_hours(s3, rest, quotes[:0], source="rest")
    loader({"window": window}, lambda: 1e9)
    key = bronze.window_key(SYMBOL, window["from_us"], window["to_us"])
    s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps({"withheld": [[1150, 1150]]}))
    assert trades[never_given]["first_id"].tolist() == [1150]
    for _ in range(2):
        marked = mark_repaired(window, withheld_in(s3, BUCKET, window), store(), redis_client)
        assert (marked["repaired_trades"], marked["withheld_trades"], marked["missing_trades"]) == (99, 1, 0)

    told = json.loads(redis_client.get(f"repaired:{SYMBOL}"))
    assert told == {"repaired": [[1100, 1149], [1151, 1199]], "withheld": [[1150, 1150]]}
    ledger.settle(**told)
    assert [(gap.first_id, gap.last_id) for gap in ledger.gaps] == [(1150, 1150), (9000, 9001)]
    assert ledger.gaps[0].cause == WITHHELD
    rows = owner.execute(
        "select first_id, last_id, status, touched_from_ms, touched_to_ms from tickcast.gaps_repaired "
        "order by first_id"
    ).fetchall()
    touched = window["from_us"] // 1000, -(-(window["to_us"] + 61_000_000) // 1000)
    assert rows == [
        (1100, 1149, "repaired", *touched),
        (1150, 1150, "withheld", *touched),
        (1151, 1199, "repaired", *touched),
    ]

"""A gap marked as repaired or withheld, from stored trades to the readers of the ledger."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.fixtures.aws import BUCKET
from tests.fixtures.history_tables import SYMBOL, aggregates, put_hours
from tests.fixtures.market import START_US, random_ticks
from tickcast.adapters.lake import bronze, bronze_reader
from tickcast.adapters.lake.windows import WindowLake
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.gap_store import GapStore
from tickcast.adapters.postgres.history_store import OpenStore
from tickcast.adapters.settings import HistorySettings
from tickcast.functions import mark_repaired as mark_repaired_module
from tickcast.functions.load_history import LoadHistory
from tickcast.functions.mark_repaired import MarkedGap, fetched_rows, lacking, mark_repaired
from tickcast.market.fetch_plan import Window
from tickcast.market.gaps import WITHHELD, GapLedger
from tickcast.units import DAY_US, HOUR_US


@pytest.mark.parametrize("is_recent", [True, False])
def test_a_gap_that_rest_fills_leaves_the_ledger_but_for_what_is_withheld(
    s3: Any,
    owner: Any,
    history_database: Database,
    repairer_database: Database,
    redis_client: Any,
    is_recent: bool,
) -> None:
    """Where it is older than the trades that PostgreSQL keeps, from the files that were fetched."""
    trades, quotes = random_ticks(5, 120, trades_s=10)
    lost = (trades["first_id"] >= 1100) & (trades["first_id"] <= 1199)
    never_given = trades["first_id"] == 1150
    put_hours(s3, trades[~lost], quotes)
    before, after = trades[trades["first_id"] == 1099][0], trades[trades["first_id"] == 1200][0]
    ledger = GapLedger()
    ledger.missing(1100, 1199, int(before["time_us"]), int(after["time_us"]))
    ledger.missing(9000, 9001, START_US, START_US)  # another, not asked for
    window: dict[str, Any] = {
        "symbol": SYMBOL,
        "from_us": int(before["time_us"]),
        "to_us": int(after["time_us"]) + 1,
    }
    window |= {"first_id": 1100, "last_id": 1199}
    store = GapStore(repairer_database.connection())
    open_store = OpenStore(history_database)
    loader = LoadHistory(HistorySettings(0, 1000, 1000, 3), s3, BUCKET, open_store, lambda: START_US)
    loader({"window": window}, lambda: 1e9)

    # Nothing of it is known yet: of the trades that were loaded, none is of the gap.
    marked = mark_repaired(Window(**window), [], store, redis_client)
    assert (marked.repaired_trades, marked.missing_trades) == (0, 100)

    rest = np.concatenate([aggregates(part) for part in (trades[:150], trades[151:])])
    files = put_hours(s3, rest, quotes[:0], source="rest")
    key = bronze.window_key(SYMBOL, window["from_us"], window["to_us"])
    keys = [file | {"rows": 1} for file in files]
    s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps({"withheld": [[1150, 1150]], "keys": keys}))
    if is_recent:  # its trades are in PostgreSQL, and the files not read
        loader({"window": window}, lambda: 1e9)
    assert trades[never_given]["first_id"].tolist() == [1150]
    gap = Window(**window)
    for _ in range(2):
        withheld = WindowLake(s3, BUCKET).withheld(gap)
        ids = lacking(gap, withheld, store)
        assert ids == ([] if is_recent else [(1100, 1150), (1151, 1200)])
        fetched = fetched_rows(s3, BUCKET, gap, ids)
        assert is_recent == (not len(fetched))
        marked = mark_repaired(gap, withheld, store, redis_client, fetched)
        assert (marked.repaired_trades, marked.withheld_trades, marked.missing_trades) == (99, 1, 0)

    stored = json.loads(redis_client.get(f"repaired:{SYMBOL}"))
    times_us = [window["from_us"], window["to_us"]]
    assert stored == {
        "repaired": [[1100, 1149, *times_us], [1151, 1199, *times_us]],
        "withheld": [[1150, 1150, *times_us]],
    }
    ledger.settle(**stored)
    assert [(each.first_id, each.last_id) for each in ledger.gaps] == [(1150, 1150), (9000, 9001)]
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


def test_of_a_window_of_many_files_those_with_the_ids_are_read(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap of some trades in a busy day; and one whose ids were restarted within the window."""
    trades, quotes = random_ticks(5, 6 * 3600, trades_s=1)
    restarted = trades.copy()
    is_new = restarted["time_us"] >= START_US + 3 * HOUR_US
    for name in ("first_id", "last_id"):
        restarted[name][is_new] -= trades["first_id"][is_new][0] - 1
    wanted = int(trades["first_id"][len(trades) // 3])
    read: list[str] = []
    real = bronze_reader.ticks_of

    def counted(data: bytes, about: Any) -> Any:
        read.append(about.key)
        return real(data, about)

    monkeypatch.setattr(mark_repaired_module, "ticks_of", counted)
    monkeypatch.setattr(mark_repaired_module, "_MIXED_IDS", 10)
    window = Window(START_US, START_US + DAY_US, SYMBOL, "gap", wanted, wanted + 9)
    for rows, most in ((trades, 2), (restarted, 7)):
        read.clear()
        files = [file | {"rows": 1} for file in put_hours(s3, rows, quotes[:0], source="rest")]
        key = bronze.window_key(SYMBOL, window.from_us, window.to_us)
        s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps({"keys": files}))
        fetched = fetched_rows(s3, BUCKET, window, [(wanted, wanted + 10)])
        assert set(range(wanted, wanted + 10)) <= set(fetched["first_id"].tolist())
        assert 1 <= len(read) <= most < len(files) + 1


def test_marks_of_a_series_that_was_restarted_stay_apart_from_those_of_the_new_one(
    repairer_database: Database, redis_client: Any
) -> None:
    """The old series had the higher ids; in the new one, trades are missing with ids that the old had too."""
    store = GapStore(repairer_database.connection())
    later_us = START_US + DAY_US

    def mark(first_id: int, last_id: int, from_us: int) -> MarkedGap:
        window = Window(from_us, from_us + 1_000_000, SYMBOL, "gap", first_id, last_id)
        return mark_repaired(window, [(first_id, last_id)], store, redis_client)

    mark(100, 199, START_US)
    mark(9000, 9099, START_US)
    mark(150, 158, later_us)
    mark(50, 300, later_us + 60_000_000)  # around both, but of another time
    mark(9000, 9099, later_us)  # the very same ids
    stored = json.loads(redis_client.get(f"repaired:{SYMBOL}"))
    assert [(first, last, from_us) for first, last, from_us, _ in stored["withheld"]] == [
        (50, 300, later_us + 60_000_000),
        (100, 199, START_US),
        (150, 158, later_us),
        (9000, 9099, later_us),
    ]
    assert [row[:2] for row in store.marked(SYMBOL, 2)] == [(50, 300), (9000, 9099)]

    mark(150, 160, later_us)  # of the same time: replaces the marks within
    stored = json.loads(redis_client.get(f"repaired:{SYMBOL}"))
    assert [tuple(row[:2]) for row in stored["withheld"]] == [(50, 300), (100, 199), (150, 160), (9000, 9099)]


def test_a_gap_of_which_hundreds_of_ranges_are_withheld_is_settled(
    s3: Any,
    history_database: Database,
    repairer_database: Database,
    redis_client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once or, where the hot store gets only some of the ranges, by marking the rest."""
    trades, quotes = random_ticks(5, 120, trades_s=10)
    first_id, last_id = 1001, 1601
    given = (trades["first_id"] % 2 == 0) | (trades["first_id"] < first_id) | (trades["first_id"] > last_id)
    put_hours(s3, trades[given], quotes[:0], source="rest")
    before, after = (int(trades[trades["first_id"] == each][0]["time_us"]) for each in (1000, 1602))
    window: dict[str, Any] = {
        "symbol": SYMBOL,
        "from_us": before // 1000 * 1000,
        "to_us": (after // 1000 + 1) * 1000,
    }
    store = GapStore(repairer_database.connection())
    open_store = OpenStore(history_database)
    loader = LoadHistory(HistorySettings(0, 1000, 1000, 3), s3, BUCKET, open_store, lambda: START_US)
    loader({"window": window}, lambda: 1e9)
    withheld = [(each, each) for each in range(first_id, last_id + 1, 2)]

    for kept, rounds in ((mark_repaired_module.KEPT, 1), (250, 3)):
        monkeypatch.setattr(mark_repaired_module, "KEPT", kept)
        ledger = GapLedger()
        ledger.missing(first_id, last_id, before, after)
        for _ in range(rounds):
            assert any(gap.cause != WITHHELD for gap in ledger.gaps)
            for gap in [gap for gap in ledger.gaps if gap.cause != WITHHELD]:
                ids = {"first_id": gap.first_id, "last_id": gap.last_id}
                marked = mark_repaired(Window(**window | ids), withheld, store, redis_client)
                assert marked.missing_trades == 0
            ledger.settle(**json.loads(redis_client.get(f"repaired:{SYMBOL}")))
        assert {gap.cause for gap in ledger.gaps} == {WITHHELD}
        assert ledger.trades == len(withheld) > 300

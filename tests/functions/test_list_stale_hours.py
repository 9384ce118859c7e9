"""History as a desired state: whatever kept an hour from being loaded, the next execution finds it and loads
it, without fetching again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest
from msgspec.structs import replace

from tests.fixtures.aws import BUCKET
from tests.fixtures.history_tables import SYMBOL, aggregates, checksums, feature_rows, put_hours
from tests.fixtures.market import START_US, random_ticks
from tickcast.adapters.postgres import row_blocks, training_rows
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.history_store import OpenStore
from tickcast.adapters.settings import DatabaseSettings, HistorySettings
from tickcast.functions import list_stale_hours
from tickcast.functions.list_stale_hours import ListStaleHours
from tickcast.functions.load_history import LoadHistory
from tickcast.functions.request import RequestError
from tickcast.market.ticks import NO_QUOTES
from tickcast.units import DAY_US, HOUR_US

NOW_US = START_US + DAY_US
HOUR = START_US // HOUR_US * HOUR_US
SETTINGS = HistorySettings(keep_days=0, grid_ms=1000, quoted_grid_ms=500, trades_keep_days=3)
Answer = dict[str, Any]


@pytest.fixture
def reader(owner: Any, loader_settings: DatabaseSettings) -> Iterator[psycopg.Connection[Any]]:
    with Database(replace(loader_settings, user="tickcast_reader")) as database:
        yield database.connection()


class Execution:
    """What the state machine does after the fetches."""

    def __init__(
        self,
        s3: Any,
        reader: psycopg.Connection[Any],
        database: Database,
        now_us: int,
        settings: HistorySettings,
    ) -> None:
        self._list = ListStaleHours(settings, s3, BUCKET, lambda: reader, lambda: now_us)
        self._load = LoadHistory(settings, s3, BUCKET, OpenStore(database), lambda: now_us)
        self.loaded: list[Answer] = []

    def stale(self, **request: Any) -> Answer:
        event = {"symbols": [SYMBOL], "execution_id": "e"} | request
        return dict(msgspec.to_builtins(self._list(event, lambda: 1e9)))

    def run(self) -> int:
        """Load all that is listed; returns how many hours were derived."""
        listed = self.stale()
        while True:
            for window in listed["windows"]:
                self.loaded.append(msgspec.to_builtins(self._load({"window": window}, lambda: 1e9)))
            if not listed["more"]:
                return sum(each["hours"] for each in self.loaded)
            listed = self.stale(before_us=listed["before_us"], started_us=listed["started_us"])


@pytest.fixture
def execution(
    s3: Any, reader: psycopg.Connection[Any], history_database: Database
) -> Callable[..., Execution]:
    return lambda now_us=NOW_US, settings=SETTINGS: Execution(s3, reader, history_database, now_us, settings)


@pytest.fixture
def ticks() -> Any:
    return random_ticks(7, 1.85 * 3600, trades_s=0.5, quotes_s=1.2)


def test_an_hour_that_was_fetched_and_never_loaded_is_found(
    s3: Any, owner: Any, ticks: Any, execution: Callable[..., Execution]
) -> None:
    """The load had failed, or the database was away, or its migration came late."""
    trades, _ = ticks
    put_hours(s3, aggregates(trades), NO_QUOTES, source="rest")
    assert execution().stale()["hours"] > 0
    assert execution().run() > 0
    [(count,)] = owner.execute("select sum(trades) from tickcast.trades")
    assert count == len(trades)
    assert execution().stale()["windows"] == []
    # The database was lost: all of it is there again, without a fetch.
    expected = checksums(owner)
    owner.execute("truncate tickcast.hours, tickcast.bars_1s, tickcast.feature_blocks, tickcast.trades")
    execution().run()
    assert checksums(owner) == expected


def test_quotes_that_came_after_the_load_make_their_hours_stale_and_no_others(
    s3: Any, ticks: Any, execution: Callable[..., Execution]
) -> None:
    trades, quotes = ticks
    put_hours(s3, trades, NO_QUOTES, source="rest")
    execution().run()
    late = (quotes["time_us"] >= HOUR + HOUR_US + 600_000_000) & (
        quotes["time_us"] < HOUR + HOUR_US + 660_000_000
    )
    some = quotes[late]
    span = f"{some['time_us'].min()}-{some['time_us'].max()}"
    put_hours(s3, trades[:0], some, name=f"shard-1-2-{span}")
    listed = execution().stale()
    assert listed["windows"] == [{"symbol": SYMBOL, "from_us": HOUR + HOUR_US, "to_us": HOUR + 2 * HOUR_US}]
    run = execution()
    assert run.run() == 1
    assert execution().stale()["windows"] == []


def test_after_a_change_of_features_the_old_rows_stay_until_there_are_new_ones(
    s3: Any,
    owner: Any,
    reader: Any,
    ticks: Any,
    execution: Callable[..., Execution],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_hours(s3, *ticks)
    execution().run()
    before = training_rows.row_counts(reader, None, 0)
    assert before
    [(hours,)] = owner.execute("select count(*) from tickcast.hours")
    this_code = dict(row_blocks.THIS_CODE)
    monkeypatch.setitem(row_blocks.THIS_CODE, "row_hash", "of-other-features")
    assert training_rows.row_counts(reader, None, 0) == []
    assert training_rows.rows_left_aside(reader, None, 0) == sum(each.rows for each in before)
    listed = execution().stale()
    assert listed["hours"] == hours
    # Half of it is derived again: the rest still serves the code that was.
    newest = listed["windows"][0]
    run = execution()
    run._load({"window": newest | {"from_us": newest["to_us"] - HOUR_US}}, lambda: 1e9)
    old = owner.execute(
        "select count(*) from tickcast.feature_blocks join tickcast.feature_sets using (feature_set) "
        "where feature_hash = %s",
        (this_code["row_hash"],),
    ).fetchone()
    assert old[0] > 0
    run.run()
    counts = [each._replace(first_us=0, last_us=0) for each in training_rows.row_counts(reader, None, 0)]
    assert counts == [each._replace(first_us=0, last_us=0) for each in before]
    assert training_rows.rows_left_aside(reader, None, 0) == 0
    assert owner.execute("select count(distinct feature_set) from tickcast.hours").fetchone() == (1,)


def test_single_trades_replace_aggregates_whichever_came_first(
    s3: Any, owner: Any, ticks: Any, execution: Callable[..., Execution]
) -> None:
    trades, quotes = ticks
    put_hours(s3, aggregates(trades), NO_QUOTES, source="rest")
    execution().run()
    put_hours(s3, trades, quotes)
    execution().run()
    counted = "select count(*), sum(trades), sum(qty), array_agg(distinct origin)::text from tickcast.trades"
    assert owner.execute(counted).fetchone() == (
        len(trades),
        len(trades),
        int(trades["qty"].sum()),
        "{stream}",
    )


def test_the_newest_come_first_and_a_call_is_bounded(
    s3: Any, ticks: Any, execution: Callable[..., Execution], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_stale_hours, "MAX_WINDOWS", 1)
    days = [ticks, *(_later(ticks, days) for days in (3, 5))]
    for trades, quotes in days:
        put_hours(s3, trades, quotes)
    listed, windows, rounds = execution().stale(), [], 0
    while True:
        windows += listed["windows"]
        assert len(listed["windows"]) <= 1 and listed["left"] == listed["more"] == (
            listed["before_us"] is not None
        )
        if not listed["more"]:
            break
        rounds += 1
        listed = execution().stale(before_us=listed["before_us"], started_us=listed["started_us"])
    starts = [window["from_us"] for window in windows]
    assert starts == sorted(starts, reverse=True) and len(windows) >= 3 and rounds < 12
    # After two hours of loading it is left to another execution.
    late = execution(NOW_US + 3 * 3_600_000_000).stale(started_us=NOW_US)
    assert (late["left"], late["more"]) == (True, False)
    assert late["next"]["input"] == {"symbols": [SYMBOL], "spans": [], "train": None}
    assert late["next"]["name"] == execution().stale()["next"]["name"]


def test_days_beyond_the_retention_are_not_listed(
    s3: Any, reader: Any, ticks: Any, execution: Callable[..., Execution]
) -> None:
    put_hours(s3, *ticks)
    kept = HistorySettings(keep_days=2, grid_ms=1000, quoted_grid_ms=500, trades_keep_days=3)
    for days, is_listed in ((1, True), (9, False)):
        now_us = START_US + days * DAY_US
        clock: Callable[[], int] = functools.partial(int, now_us)
        listing = ListStaleHours(kept, s3, BUCKET, lambda: reader, clock)
        found = listing({"symbols": [SYMBOL], "execution_id": "e"}, lambda: 1e9)
        assert bool(found.windows) is is_listed


def test_after_trades_keep_days_was_raised_older_trades_are_stored_again(
    s3: Any, owner: Any, ticks: Any, execution: Callable[..., Execution]
) -> None:
    put_hours(s3, *ticks)
    execution().run()
    found = checksums(owner)
    later_us = NOW_US + 8 * DAY_US
    few, many = (
        HistorySettings(keep_days=0, grid_ms=1000, quoted_grid_ms=500, trades_keep_days=days)
        for days in (3, 20)
    )
    owner.execute("truncate tickcast.trades")  # as expiry does
    assert execution(later_us, few).stale()["windows"] == []
    assert execution(later_us, many).run() > 0
    assert checksums(owner) == found
    assert execution(later_us, many).stale()["windows"] == []


def test_trades_that_bronze_has_deleted_since_are_not_looked_for_each_time(
    s3: Any, owner: Any, ticks: Any, execution: Callable[..., Execution]
) -> None:
    trades, quotes = ticks
    early = quotes["time_us"] < HOUR + 1_800_000_000
    span = f"{quotes['time_us'][0]}-{quotes['time_us'][early].max()}"
    put_hours(s3, trades, quotes[~early])
    [deleted] = put_hours(s3, trades[:0], quotes[early], name=f"shard-1-2-{span}")
    execution().run()
    s3.delete_object(Bucket=BUCKET, Key=deleted["key"])
    owner.execute("truncate tickcast.trades")
    listed = execution().stale()
    assert min(window["from_us"] for window in listed["windows"]) == HOUR + HOUR_US


def test_the_current_hour_is_loaded_by_every_execution(
    s3: Any, owner: Any, execution: Callable[..., Execution]
) -> None:
    """So a first model needs no full hour of quotes."""
    trades, quotes = random_ticks(7, 600, trades_s=3, quotes_s=5)
    counts = []
    for until_us in (START_US + 240_000_000, START_US + 600_000_000):
        some_trades, some_quotes = (each[each["time_us"] < until_us] for each in (trades, quotes))
        put_hours(s3, some_trades, some_quotes, name=f"part{until_us}")
        execution(until_us).run()
        counts.append(len(feature_rows(owner)[0].end_us))
    assert 0 < counts[0] < counts[1]


@pytest.mark.parametrize("event", [{}, {"symbols": "BTCUSDT", "execution_id": "e"}, {"symbols": [""]}])
def test_a_wrong_request_says_what_it_should_be(
    s3: Any, reader: Any, execution: Callable[..., Execution], event: Answer
) -> None:
    listing = ListStaleHours(SETTINGS, s3, BUCKET, lambda: reader, lambda: NOW_US)
    with pytest.raises(RequestError, match="the request should be like"):
        listing(event, lambda: 1e9)


def _later(ticks: Any, days: int) -> Any:
    moved = [each.copy() for each in ticks]
    for rows, ids in zip(moved, (("first_id", "last_id"), ("update_id",)), strict=True):
        for name in ("time_us", *ids):
            rows[name] += np.int64(days * DAY_US)
    return moved

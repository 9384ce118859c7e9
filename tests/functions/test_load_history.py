"""Bronze into a real PostgreSQL: whatever order, repetition or accident, the same tables."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest

from tests.fixtures.aws import BUCKET
from tests.fixtures.history_tables import SYMBOL, aggregates, checksums, feature_rows, put, put_hours
from tests.fixtures.market import START_US, batch, random_ticks
from tests.market.test_sums import market
from tickcast.adapters.lake import bronze
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.history_store import HistoryStore, OpenStore, days_between
from tickcast.adapters.settings import MAX_DAYS, HistorySettings
from tickcast.adapters.variables import SettingsError
from tickcast.features.bars import segments, whole_seconds
from tickcast.features.vector import FEATURE_NAMES, history_rows
from tickcast.functions.load_history import LoadHistory
from tickcast.functions.request import RequestError
from tickcast.market.sources import Origin
from tickcast.market.sums import total
from tickcast.market.ticks import QUOTE
from tickcast.market.trade_ledger import ledger_rows, merged
from tickcast.model.forecast import PATH_S
from tickcast.units import DAY_US, HOUR_US

HOUR = START_US // HOUR_US * HOUR_US  # START_US is 13 minutes and 20 seconds into it
NO_QUOTES = np.empty(0, QUOTE)
Load = Callable[..., dict[str, Any]]


@pytest.fixture
def ticks() -> Any:
    """Nearly two hours, over midnight: the objects of three hours, with edges that touch."""
    return random_ticks(7, 1.85 * 3600, trades_s=0.5, quotes_s=1.2)


@pytest.fixture
def load(s3: Any, history_database: Database) -> Load:
    open_store = OpenStore(history_database)

    def run(
        keys: list[dict[str, str]] | None = None,
        hours: int = 4,
        now_us: int = START_US + DAY_US,
        remaining_ms: Callable[[], float] = lambda: 1e9,
        **settings: int,
    ) -> dict[str, Any]:
        usual = {"keep_days": 0, "grid_ms": 1000, "quoted_grid_ms": 500, "trades_keep_days": 3}
        kept = HistorySettings(**usual | settings)
        window = {"symbol": SYMBOL, "from_us": HOUR, "to_us": HOUR + hours * HOUR_US}
        request: dict[str, Any] = {"window": window}
        if keys is not None:
            request["keys"] = keys
        loader = LoadHistory(kept, s3, BUCKET, open_store, lambda: now_us)
        return dict(msgspec.to_builtins(loader(request, remaining_ms)))

    return run


def clear(owner: psycopg.Connection) -> None:
    owner.execute(
        "truncate tickcast.trades, tickcast.bars_1s, tickcast.feature_blocks, tickcast.hours, "
        "tickcast.gaps_repaired"
    )


def tables_of(load: Load, owner: psycopg.Connection, objects: list[dict[str, str]]) -> Any:
    """The checksums after one load of `objects`; the tables are empty again."""
    load(objects)
    found = checksums(owner)
    clear(owner)
    return found


def test_loaded_rows_equal_live_ones(s3: Any, load: Load, owner: Any) -> None:
    trades, quotes = random_ticks(7, 4000, trades_s=3, quotes_s=5)
    put_hours(s3, trades, quotes)
    done = load()
    assert (done["objects"], done["trades"], done["quotes"]) == (2, len(trades), len(quotes))
    assert done["complete"] and not done["quarantined"] and not done["problems"]

    ledger_rows = owner.execute(
        "select count(*), sum(qty), sum(trades), array_agg(distinct origin)::text from tickcast.trades"
    ).fetchone()
    assert ledger_rows == (len(trades), int(trades["qty"].sum()), len(trades), "{stream}")

    # All of it at once, as training does, without cuts by the hour.
    [bars] = segments(trades, quotes)
    rows, _ = feature_rows(owner)
    assert len(rows.end_us) == done["feature_rows"] > 7900  # every 500 ms
    assert rows.end_us.tolist() == list(range(rows.end_us[0], rows.end_us[-1] + 1, 500_000))
    at = np.searchsorted(bars["end_us"], rows.end_us)
    assert rows.features.shape[1] == len(FEATURE_NAMES)
    np.testing.assert_array_equal(rows.features, history_rows(bars)[at].astype(np.float16))
    mid = (bars["bid_price"] + bars["ask_price"]) / 2
    ends = at[:, None] + np.rint(np.array(PATH_S) * 10).astype(int)
    expected = (mid[ends] / mid[at][:, None] - 1) * 1e4
    assert rows.has_quotes.all()
    np.testing.assert_allclose(rows.moves_bp, expected, rtol=1e-3, atol=1e-7)

    seconds = owner.execute(
        "select count(*), sum(trade_count), sum(buy_qty + sell_qty), sum(quote_count), bool_and(has_quotes) "
        "from tickcast.bars_1s"
    ).fetchone()
    whole = whole_seconds(bars)
    assert seconds[0] == done["bars"] == len(whole)
    volume = total(whole["buy_qty"]) + total(whole["sell_qty"])
    counts = int(whole["trade_count"].sum()), int(whole["quote_count"].sum())
    assert seconds[1:] == (counts[0], volume, counts[1], True)


def test_the_same_market_in_any_unit_is_the_same_rows_and_exact_sums(s3: Any, load: Load, owner: Any) -> None:
    """At the second unit, sums of a second do not fit into 64 bits."""
    bars = "select end_us, buy_qty, sell_qty, notional from tickcast.bars_1s order by end_us"
    found = {}
    for power in (0, 9):
        trades, quotes = market(power)
        clear(owner)
        load(put_hours(s3, trades, quotes, name=f"unit{power}"))
        found[power] = checksums(owner, ["feature_blocks"]), owner.execute(bars).fetchall()
        second_us = trades["time_us"] // 1_000_000
        sums = {
            (int(second) + 1) * 1_000_000: (
                sum(t[5] for t in mine if t[6] > 0),
                sum(t[5] for t in mine if t[6] < 0),
                sum(t[4] * t[5] for t in mine),
            )
            for second in np.unique(second_us)
            if (mine := trades[second_us == second].tolist())
        }
        for end_us, buy, sell, notional in found[power][1]:
            assert (buy, sell, notional * 10**8) == sums.get(end_us, (0, 0, 0))
    assert found[0][0]["feature_blocks"][0] > 0
    assert found[9][0] == found[0][0]
    assert max(buy + sell for _, buy, sell, _ in found[9][1]) > 2**63


def test_any_order_and_pieces_end_in_the_same_tables(s3: Any, load: Load, owner: Any, ticks: Any) -> None:
    trades, quotes = ticks
    halves = trades["first_id"] % 2 == 0  # the stream in two objects an hour, and REST over most of it
    objects = put_hours(s3, trades[halves][50:], quotes, name="a") + put_hours(
        s3, trades[~halves][:-200], NO_QUOTES, name="b"
    )
    objects += put_hours(s3, aggregates(trades)[:-30], NO_QUOTES, source="rest")
    at_once = tables_of(load, owner, objects)
    for seed in range(2):
        clear(owner)
        shuffled = random.Random(seed).sample(objects, len(objects))
        for count in range(1, len(shuffled) + 1):
            load(shuffled[:count])
        assert checksums(owner) == at_once, f"order {[o['key'] for o in shuffled]}"
    again = load()
    assert (again["hours"], again["skipped"]) == (0, at_once["hours"][0])
    assert checksums(owner) == at_once


def test_stream_and_rest_hold_every_trade_once(s3: Any, load: Load, owner: Any, ticks: Any) -> None:
    trades, quotes = ticks
    lost = (trades["first_id"] >= 2000) & (trades["first_id"] <= 2999)
    put_hours(s3, trades[~lost], quotes)
    put_hours(s3, aggregates(trades), NO_QUOTES, source="rest")
    load()
    total, qty, singles = owner.execute(
        "select sum(trades), sum(qty), sum(trades) filter (where origin = 'stream') from tickcast.trades"
    ).fetchone()
    assert (total, qty, singles) == (len(trades), int(trades["qty"].sum()), len(trades) - 1000)
    # No two rows represent the same id: an aggregate over an edge is cut to its remainder.
    overlapping = owner.execute(
        "select count(*) from (select first_id <= lag(last_id) over (order by first_id) as twice "
        "from tickcast.trades) t where twice"
    ).fetchone()
    assert overlapping == (0,)


def test_rest_alone_gives_rows_without_quotes(s3: Any, load: Load, owner: Any) -> None:
    trades, _ = random_ticks(3, 1200, trades_s=20)
    put_hours(s3, aggregates(trades), NO_QUOTES, source="rest")
    done = load()
    rows, origins = feature_rows(owner)
    assert len(rows.end_us) == done["feature_rows"] > 1100
    assert not rows.has_quotes.any() and not (rows.end_us % 1_000_000).any()
    assert set(origins) == {"rest"}
    assert (rows.moves_bp[:, 0] != 0).any()


def test_bad_objects_are_quarantined_and_block_nothing(s3: Any, load: Load, owner: Any, ticks: Any) -> None:
    trades, quotes = ticks
    good = put_hours(s3, trades, quotes)
    expected = tables_of(load, owner, good)
    folder = bronze.prefix("sbe", SYMBOL, HOUR)
    whole = s3.get_object(Bucket=BUCKET, Key=good[0]["key"])["Body"].read()
    eth = bronze.write_file(list(bronze.market_data(_eth(trades[:2]))))
    bodies = {"cut": whole[:-50], "text": b"not Avro", "empty": b"", "eth": eth}
    for name, body in bodies.items():
        s3.put_object(Bucket=BUCKET, Key=f"{folder}{name}.avro", Body=body)
    done = load()
    assert done["objects"] == len(good) + len(bodies) and len(done["quarantined"]) == len(bodies)
    reasons = "\n".join(sorted(done["quarantined"]))
    assert "holds ticks of ETHUSDT" in reasons and "not a whole" in reasons
    derived = ["trades", "bars_1s", "feature_blocks"]
    assert {name: checksums(owner)[name] for name in derived} == {name: expected[name] for name in derived}
    kept = s3.list_objects_v2(Bucket=BUCKET, Prefix="quarantine/load_history/")["Contents"]
    assert len(kept) == 2 * len(bodies)
    again = load()
    assert (again["hours"], again["quarantined"]) == (0, [])  # each is reported once


def test_a_row_that_is_wrong_costs_itself_alone(s3: Any, load: Load, owner: Any, ticks: Any) -> None:
    """In the files of an hour: of another hour, impossible by itself, or contradicting others."""
    trades, quotes = ticks
    rest = aggregates(trades)
    good = put_hours(s3, rest, quotes, source="rest")
    expected = tables_of(load, owner, good)
    full_hour = HOUR + HOUR_US
    at = int(np.flatnonzero(rest["time_us"] >= full_hour)[0])
    odd = rest[at : at + 4].copy()
    odd["first_id"][0], odd["last_id"][0] = 10**9, 10**9
    odd["time_us"][0] = full_hour - 1  # behind in id, a microsecond before the full hour
    odd["price"][1] = 0
    odd["last_id"][2] = odd["first_id"][2] - 1
    odd["last_id"][3] = odd["first_id"][3] + 999  # overlaps some five hundred aggregates
    put(s3, f"{bronze.prefix('rest', SYMBOL, full_hour)}odd.avro", odd, NO_QUOTES, "rest")
    done = load()
    derived = ["trades", "bars_1s", "feature_blocks"]
    assert {name: checksums(owner)[name] for name in derived} == {name: expected[name] for name in derived}
    assert done["complete"] and len(done["quarantined"]) == 2
    for words in (
        "1 trades of another hour",
        "1 trades without a price",
        "1 trades whose last id",
        "1 aggreg",
    ):
        assert words in "\n".join(done["quarantined"])
    kept = s3.list_objects_v2(Bucket=BUCKET, Prefix="quarantine/load_history/")["Contents"]
    bodies = [json.loads(s3.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read()) for each in kept]
    assert sorted(len(body["rows"]) for body in bodies) == [1, 3]
    counted = "select quarantined from tickcast.hours where hour_us = %s"
    assert owner.execute(counted, (full_hour,)).fetchone() == (2,)


def _eth(trades: Any) -> Any:
    return batch(trades, NO_QUOTES)._replace(symbol="ETHUSDT", source="sbe")


def test_trades_are_stored_exactly_or_not_at_all(history_database: Database, owner: Any, ticks: Any) -> None:
    trades, _ = ticks
    some = trades["first_id"] % 5 == 0
    rows = ledger_rows(aggregates(trades), Origin.REST)
    for n, origin in enumerate((Origin.SIM, Origin.REPLAY, Origin.STREAM)):
        rows = merged(rows, ledger_rows(trades[some][n::3], origin))
    is_cut = rows["trades"] < rows["aggregate_last_id"] - rows["aggregate_first_id"] + 1
    assert set(rows["origin"]) == set(Origin) and 0 < is_cut.sum() < len(rows)
    store = HistoryStore(history_database.connection())
    span_us = int(trades["time_us"][0]), int(trades["time_us"][-1]) + 1
    store.add_days(days_between(*span_us))
    none = rows[:0]
    with store.connection.transaction():
        store.replace_trades(SYMBOL, none, rows)

    def found() -> Any:
        return np.sort(store.trades_by_time(SYMBOL, *span_us), order="first_id")

    np.testing.assert_array_equal(found(), rows)
    counted = (
        "select count(*), count(aggregate), count(distinct symbol), count(distinct tableoid) "
        "from tickcast.trades"
    )
    assert owner.execute(counted).fetchone() == (len(rows), is_cut.sum(), 1, 2)

    with store.connection.transaction():
        store.replace_trades(SYMBOL, rows[::2], none)
    np.testing.assert_array_equal(found(), rows[1::2])
    # One row is there already, of the origin that is copied last.
    again = np.concatenate([rows[::2], rows[1::2][rows["origin"][1::2] == Origin.REST][-1:]])
    with pytest.raises(psycopg.errors.UniqueViolation), store.connection.transaction():
        store.replace_trades(SYMBOL, rows[1:100:2], again)
    np.testing.assert_array_equal(found(), rows[1::2])


class Killed(BaseException):
    """As a process that ends: nobody handles it."""


@pytest.mark.parametrize("step", ["replace_trades", "replace_hour", "record"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_and_repeated_load_ends_in_the_same_tables(
    s3: Any, load: Load, owner: Any, ticks: Any, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    """The server ends the session between two steps, as when the client's machine is lost."""
    objects = put_hours(s3, *ticks)
    expected = tables_of(load, owner, objects)
    real = getattr(HistoryStore, step)
    calls = 0

    def killed(store: HistoryStore, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 and when == "before":
            end(store)
        answer = real(store, *arguments)
        if calls == 2:
            end(store)
        return answer

    def end(store: HistoryStore) -> None:
        owner.execute("select pg_terminate_backend(%s, 5000)", (store.connection.info.backend_pid,))
        raise Killed

    monkeypatch.setattr(HistoryStore, step, killed)
    with pytest.raises(Killed):
        load(objects)
    assert checksums(owner) != expected
    monkeypatch.undo()
    again = load(objects)
    assert again["complete"]
    assert checksums(owner) == expected


def test_a_broken_connection_is_an_error_and_the_next_load_takes_a_new_one(
    s3: Any, load: Load, owner: Any, ticks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = put_hours(s3, *ticks)
    expected = tables_of(load, owner, objects)
    real = HistoryStore.lock

    def cut(store: HistoryStore, *arguments: Any) -> None:
        real(store, *arguments)
        owner.execute("select pg_terminate_backend(%s, 5000)", (store.connection.info.backend_pid,))

    monkeypatch.setattr(HistoryStore, "lock", cut)
    with pytest.raises(psycopg.OperationalError):
        load(objects)
    monkeypatch.undo()
    load(objects)
    assert checksums(owner) == expected


def test_an_hour_that_fails_keeps_no_other_from_being_loaded(
    s3: Any, load: Load, owner: Any, ticks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = put_hours(s3, *ticks)
    expected = tables_of(load, owner, objects)
    real = HistoryStore.record

    def record(store: HistoryStore, symbol: str, hour_us: int, *arguments: Any) -> None:
        if hour_us == HOUR + HOUR_US:
            store.connection.execute("select 1 / 0")
        real(store, symbol, hour_us, *arguments)

    monkeypatch.setattr(HistoryStore, "record", record)
    with pytest.raises(psycopg.errors.DivisionByZero):
        load(objects)
    derived = [hour_us for (hour_us,) in owner.execute("select hour_us from tickcast.hours order by 1")]
    assert HOUR in derived and HOUR + HOUR_US not in derived
    assert len(derived) == expected["hours"][0] - 1
    monkeypatch.undo()
    load(objects)
    assert checksums(owner) == expected


@pytest.mark.parametrize("first_ms", [1e9, 0.0])
def test_time_that_runs_out_ends_a_load_between_hours(
    s3: Any, load: Load, owner: Any, ticks: Any, first_ms: float
) -> None:
    """Every call derives an hour at least: the state machine repeats it until it is complete."""
    objects = put_hours(s3, *ticks)
    expected = tables_of(load, owner, objects)
    runs = 0
    while True:
        runs += 1
        left_ms = iter([first_ms])
        done = load(objects, remaining_ms=lambda left_ms=left_ms: next(left_ms, 0.0))
        newest = owner.execute("select min(hour_us), max(hour_us), count(*) from tickcast.hours").fetchone()
        assert newest[1] - newest[0] == (newest[2] - 1) * HOUR_US  # the newest first
        if done["complete"]:
            break
    assert runs == expected["hours"][0] and checksums(owner) == expected


def test_an_object_that_was_overwritten_is_loaded_again(s3: Any, load: Load, owner: Any, ticks: Any) -> None:
    trades, quotes = ticks
    [*_, last] = put_hours(s3, trades[:-100], quotes[:-100])
    load()
    [*_, again] = put_hours(s3, trades, quotes)
    assert last["key"] == again["key"] and last["etag"] != again["etag"]
    assert 0 < load()["hours"] < 4  # that it reaches into
    found = checksums(owner)
    clear(owner)
    load()
    assert checksums(owner) == found


def test_rows_are_kept_when_their_quotes_are_gone_from_bronze(
    s3: Any, load: Load, owner: Any, ticks: Any
) -> None:
    trades, quotes = ticks
    first, *_ = put_hours(s3, trades, quotes)
    load()
    before = checksums(owner, ["trades", "bars_1s", "feature_blocks"])
    s3.delete_object(Bucket=BUCKET, Key=first["key"])
    assert load()["hours"] == 0  # what is gone makes nothing stale
    put(s3, first["key"].replace("part", "late"), trades[:10], NO_QUOTES)
    done = load()
    assert len(done["problems"]) >= 1 and "stay as they are" in done["problems"][0]
    assert checksums(owner, ["trades", "bars_1s", "feature_blocks"]) == before
    assert load()["problems"] == []  # reported once


def test_rows_are_kept_when_their_trades_are_gone_from_bronze(
    s3: Any, load: Load, owner: Any, ticks: Any
) -> None:
    """Of an hour that never had quotes; a repair then brings some of its trades."""
    rest = aggregates(ticks[0])
    first, *_ = put_hours(s3, rest, NO_QUOTES, source="rest")
    load()
    of_hour = "select trades, bars, feature_rows from tickcast.hours where hour_us = %s"
    bars = "select md5(string_agg(b::text, '|' order by end_us)) from tickcast.bars_1s b where end_us < %s"
    before = owner.execute(of_hour, (HOUR,)).fetchone(), owner.execute(bars, (HOUR + HOUR_US,)).fetchone()
    s3.delete_object(Bucket=BUCKET, Key=first["key"])
    put(s3, first["key"].replace("part", "late"), rest[:10], NO_QUOTES, "rest")
    [problem] = load()["problems"]
    assert problem.endswith(
        "stay as they are: of 0 quotes and 879 trades bronze has 0 quotes and 10 trades left"
    )
    after = owner.execute(of_hour, (HOUR,)).fetchone(), owner.execute(bars, (HOUR + HOUR_US,)).fetchone()
    assert after == before
    assert load()["problems"] == []  # reported once


def test_an_object_that_goes_while_it_is_read_leaves_its_hour_stale(
    s3: Any, load: Load, owner: Any, ticks: Any
) -> None:
    first, *others = put_hours(s3, *ticks)
    s3.delete_object(Bucket=BUCKET, Key=first["key"])
    done = load([first, *others])
    assert done["problems"] and "no longer exists" in done["problems"][0]
    assert owner.execute("select count(*) from tickcast.hours where hour_us = %s", (HOUR,)).fetchone() == (0,)


def test_quotes_that_are_archived_after_their_hour_was_loaded_are_found(
    s3: Any, load: Load, owner: Any, ticks: Any
) -> None:
    trades, quotes = ticks
    put_hours(s3, aggregates(trades), NO_QUOTES, source="rest")
    load()
    assert not feature_rows(owner)[0].has_quotes.any()
    put_hours(s3, trades, quotes)
    assert load()["hours"] > 0
    found = checksums(owner, ["trades", "bars_1s", "feature_blocks"])
    assert feature_rows(owner)[0].has_quotes.any()
    clear(owner)
    load()
    assert checksums(owner, ["trades", "bars_1s", "feature_blocks"]) == found


def test_another_grid_makes_every_hour_stale(s3: Any, load: Load, owner: Any, ticks: Any) -> None:
    put_hours(s3, *ticks)
    load()
    [(hours,)] = owner.execute("select count(*) from tickcast.hours")
    assert load(quoted_grid_ms=1000)["hours"] == hours
    assert set(feature_rows(owner)[0].end_us % 1_000_000) == {0}


def test_the_current_hour_is_loaded_as_far_as_it_is_there(s3: Any, load: Load, owner: Any) -> None:
    trades, quotes = random_ticks(7, 300, trades_s=3, quotes_s=5)
    put_hours(s3, trades, quotes)
    done = load(now_us=START_US + 300_000_000)
    assert done["feature_rows"] > 300
    assert feature_rows(owner)[0].end_us.max() > START_US + 280_000_000


def test_trades_are_kept_for_fewer_days_than_rows(s3: Any, load: Load, owner: Any, ticks: Any) -> None:
    put_hours(s3, *ticks)
    load(trades_keep_days=3)
    found = checksums(owner)
    assert found["trades"][0] > 0
    load(trades_keep_days=3, now_us=START_US + 10 * DAY_US)
    assert checksums(owner) == found | {"trades": (0, None)}
    clear(owner)
    load(trades_keep_days=3, now_us=START_US + 10 * DAY_US)
    assert checksums(owner) == found | {"trades": (0, None)}


def test_old_days_are_dropped_and_not_loaded(s3: Any, load: Load, owner: Any, ticks: Any) -> None:
    objects = put_hours(s3, *ticks)
    load(keep_days=2)
    assert checksums(owner)["trades"][0]
    done = load(keep_days=2, now_us=START_US + 4 * DAY_US)
    assert done["expired"] >= len(objects)
    assert {name: rows for name, (rows, _) in checksums(owner).items()} == dict.fromkeys(checksums(owner), 0)
    partitions = "select count(*) from pg_inherits where inhparent = 'tickcast.trades'::regclass"
    assert owner.execute(partitions).fetchone() == (0,)


@pytest.mark.parametrize(
    "keep_days", [-1, -(10**9), 36_501, 10**12, 1.5, float("nan"), float("inf"), True, None]
)
def test_an_unusable_number_of_days_deletes_nothing(
    s3: Any, load: Load, owner: Any, ticks: Any, keep_days: Any
) -> None:
    put_hours(s3, *ticks)
    load()
    before = checksums(owner)
    with pytest.raises(SettingsError, match="KEEP_DAYS"):
        load(keep_days=keep_days)
    load(keep_days=MAX_DAYS)
    assert checksums(owner) == before


def test_a_clock_that_is_wrong_deletes_nothing(s3: Any, load: Load, owner: Any, ticks: Any) -> None:
    put_hours(s3, *ticks)
    load()
    before = checksums(owner)
    for now_us in (time.time_ns() // 1000 + 10 * DAY_US, 2**62, -(2**62)):
        with contextlib.suppress(ValueError):
            load(keep_days=2, now_us=now_us)
        assert checksums(owner) == before
    store = HistoryStore(owner)
    for before_us in (-1, -(10**17), time.time_ns() // 1000, 2**62):
        with pytest.raises(ValueError, match="not deleted"):
            store.expire(before_us)
    assert checksums(owner) == before


def test_two_loaders_at_once_end_in_the_same_tables(
    s3: Any, load: Load, owner: Any, ticks: Any, loader_settings: Any
) -> None:
    trades, quotes = ticks
    objects = put_hours(s3, trades, quotes) + put_hours(s3, aggregates(trades), NO_QUOTES, source="rest")
    expected = tables_of(load, owner, objects)
    kept = HistorySettings(keep_days=0, grid_ms=1000, quoted_grid_ms=500, trades_keep_days=3)
    window = {"symbol": SYMBOL, "from_us": HOUR, "to_us": HOUR + 4 * HOUR_US}

    def one(_: int) -> None:
        with Database(loader_settings) as database:
            loader = LoadHistory(kept, s3, BUCKET, OpenStore(database), lambda: START_US)
            loader({"window": window}, lambda: 1e9)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(2)))
    assert checksums(owner) == expected


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"window": None},
        {"window": {"symbol": SYMBOL}},
        *({"window": {"symbol": symbol, "from_us": 0, "to_us": 1}} for symbol in ("", None)),
        *(
            {"window": {"symbol": SYMBOL, "from_us": from_us, "to_us": to_us}}
            for from_us, to_us in ((2, 2), (0, 2**62), (-1, 1), (0, 1.5))
        ),
    ],
)
def test_a_request_that_cannot_be_carried_out_says_what_it_should_be(
    s3: Any, history_database: Database, request_: dict[str, Any]
) -> None:
    loader = LoadHistory(HistorySettings(0, 1000, 100, 3), s3, BUCKET, OpenStore(history_database), lambda: 0)
    with pytest.raises(RequestError, match="the window is"):
        loader(request_, lambda: 1e9)

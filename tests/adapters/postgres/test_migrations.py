"""The schema on a real PostgreSQL: created by the tool, used by roles with no more rights than they need."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from msgspec.structs import replace

from local.system import database, servers
from tests.fixtures import records
from tests.fixtures.records import known
from tickcast.adapters.postgres import binary_copy
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.gap_store import GapStore
from tickcast.adapters.postgres.history_store import HistoryStore
from tickcast.adapters.postgres.score_store import ScoreStore, row_of
from tickcast.adapters.settings import DatabaseSettings
from tickcast.market.gaps import Gap
from tickcast.units import DAY_US, MINUTE_US

DAY = 1_754_006_400_000_000  # 2025-08-01


def connected(settings: DatabaseSettings, user: str) -> Any:
    return Database(replace(settings, user=user))


def test_migrations_go_down_and_up_again(owner: Any, postgres_port: int) -> None:
    url = servers.database_url(postgres_port)
    tables = "select count(*) from information_schema.tables where table_schema = 'tickcast'"
    before = owner.execute(tables).fetchone()
    database.migrate(url)  # again: nothing to do
    command = [str(database.DBMATE), "--url", f"{url}?sslmode=disable"]
    command += ["--migrations-dir", str(database.MIGRATIONS)]
    for _ in database.MIGRATIONS.glob("*.sql"):
        subprocess.run([*command, "--no-dump-schema", "rollback"], check=True, capture_output=True)
    assert owner.execute(tables).fetchone() == (0,)
    database.migrate(url)
    assert owner.execute(tables).fetchone() == before


def test_a_filled_database_is_migrated_to_hours(owner: Any) -> None:
    """What bronze can give again is dropped; trades and bars stay, and their days have the new partition."""
    text = (database.MIGRATIONS / "20261127000004_history_by_the_hour.sql").read_text("utf-8")
    up, _, down = text.partition("-- migrate:down")
    with owner.transaction(force_rollback=True):
        owner.execute(down)
        owner.execute("select tickcast.add_day(%s)", (DAY,))
        values = ", ".join(["0"] * 12)
        owner.execute(f"insert into tickcast.bars_1s values ('X', %s, {values}, true, 'sim')", (DAY,))
        owner.execute(
            "insert into tickcast.feature_sets (feature_hash, features, horizons_s) "
            "values ('h', '{a}', '{1}')"
        )
        owner.execute(
            "insert into tickcast.feature_rows "
            "select 'X', %s, feature_set, true, 'sim', '{1}', '{1}' from tickcast.feature_sets",
            (DAY,),
        )
        owner.execute("insert into tickcast.stale_hours values ('X', %s)", (DAY,))
        owner.execute(up)
        assert owner.execute("select count(*) from tickcast.bars_1s").fetchone() == (1,)
        assert owner.execute("select count(*) from tickcast.hours").fetchone() == (0,)
        part = owner.execute("select to_regclass('tickcast.feature_blocks_20250801') is not null").fetchone()
        assert part == (True,)


def test_outcomes_of_the_release_before_stay_and_are_not_counted(owner: Any) -> None:
    text = (database.MIGRATIONS / "20261127000001_outcomes_at_delivery.sql").read_text("utf-8")
    up, _, down = text.partition("-- migrate:down")
    kept = "select move_bp, delivered_price from tickcast.outcomes where symbol = 'X'"
    minute = (DAY, DAY + MINUTE_US, MINUTE_US)
    with owner.transaction(force_rollback=True):
        owner.execute(down)
        owner.execute("select tickcast.add_day(%s)", (DAY,))
        owner.execute(
            "insert into tickcast.outcomes (symbol, target_us, horizon_s, predicted_us, source, basis_price, "
            "outcome_price, move_bp, abstains) values ('X', %s, 1, %s, 'fallback', 100, 101, 100, true)",
            (DAY, DAY - 1_000_000),
        )
        owner.execute(up)
        assert owner.execute(kept).fetchall() == [(100, None)]
        store = ScoreStore(owner)
        assert not len(store.tallies("X", *minute))
        unresolved = records.outcome(DAY // 1000 - 2130, 2, status="unresolved", why="gap", symbol="X")
        unresolved = replace(unresolved, delivered_price=None, outcome_price=None, move_bp=None)
        store.add_outcomes("X", [known(row_of(unresolved))])
        assert store.tallies("X", *minute)["horizon_s"].tolist() == [2]
        assert len(owner.execute(kept).fetchall()) == 2


def test_the_release_before_still_tallies_and_rows_of_it_stay(owner: Any) -> None:
    """Functions of that release name no columns when they tally: what they write has to stay in its place."""
    texts = [
        next(database.MIGRATIONS.glob(name)).read_text("utf-8").partition("-- migrate:down")
        for name in ("*_regimes_and_the_scaled_line.sql", "*_earnings.sql")
    ]
    # Key and counts, then its sums in their order: squared error 11, squared move 12, …, hindsight 20.
    tally = (
        "insert into tickcast.tallies select 'X', {}, 1, 'm', true, false, '', 3, {}, {}, 5, 4, 3, 2.5, 1, "
        "11, 12, 13, 14, 15, 16, 17, 18, 19, 20"
    )
    outcome = (
        "insert into tickcast.outcomes (symbol, target_us, horizon_s, predicted_us, source, model_id, "
        "basis_price, outcome_price, delivered_price, move_bp, abstains) "
        "values ('X', {}, 1, {}, 'model', 'm', 100, 101, 100, 100, false)"
    )
    with owner.transaction(force_rollback=True):
        for _, _, down in reversed(texts):
            owner.execute(down)
        owner.execute("select tickcast.add_day(%s)", (DAY,))
        owner.execute(tally.format(DAY, DAY, DAY))
        owner.execute(outcome.format(DAY, DAY - 1))
        for up, _, _ in texts:
            owner.execute(up)
        later = DAY + MINUTE_US
        owner.execute(tally.format(later, later, later))
        owner.execute(outcome.format(later, later - 1))
        part = owner.execute("select to_regclass('tickcast.earnings_20250801') is not null").fetchone()
        assert part == (True,)
        store = ScoreStore(owner)
        found = store.tallies("X", DAY, DAY + 2 * MINUTE_US, MINUTE_US)
        assert found["count"].tolist() == [5, 5]
        names = ("squared_error", "squared_move", "crps", "crps_of_no_change", "hindsight_squared_move")
        assert [found[name].tolist() for name in names] == [[each] * 2 for each in (11, 12, 15, 16, 20)]
        for name in ("squared_line", "line_move", "line_squared_error", "line_squared_move"):
            assert found[name].tolist() == [0, 0]
        assert not len(store.regimes("X", DAY, DAY + 2 * MINUTE_US, MINUTE_US))
        assert not len(store.earned("X", DAY, DAY + 2 * MINUTE_US, MINUTE_US))
        for _, _, down in reversed(texts):
            owner.execute(down)
        sums = "select squared_imbalance, crps from tickcast.tallies order by minute_us"
        assert owner.execute(sums).fetchall() == [(13, 15), (13, 15)]


def test_a_failed_migration_says_why(owner: Any, postgres_port: int, tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "20990101000000_wrong.sql").write_text(
        "-- migrate:up\nselect nonsense;\n-- migrate:down\n", "utf-8"
    )
    monkeypatch.setattr(database, "MIGRATIONS", tmp_path)
    with pytest.raises(database.MigrationFailed, match='column "nonsense" does not exist'):
        database.migrate(servers.database_url(postgres_port))


def test_on_rds_users_log_in_with_tokens(owner: Any, postgres_port: int) -> None:
    """RDS has a role for that; granting it is what makes a token the password."""
    url = servers.database_url(postgres_port)
    owner.execute("create role rds_iam")
    try:
        database.clear(url)
        database.migrate(url)
        members = owner.execute(
            "select array_agg(member::regrole::text order by member::regrole::text) from pg_auth_members "
            "where roleid = 'rds_iam'::regrole"
        ).fetchone()
        assert members == (["tickcast_loader", "tickcast_reader", "tickcast_repairer", "tickcast_scorer"],)
    finally:
        owner.execute("drop role rds_iam")


def test_the_reader_may_only_read(owner: Any, loader_settings: DatabaseSettings) -> None:
    with connected(loader_settings, "tickcast_reader") as reader:
        connection = reader.connection()
        for table in owner.execute("select tablename from pg_tables where schemaname = 'tickcast'"):
            connection.execute(f"select * from tickcast.{table[0]}")
        for forbidden in (
            "delete from tickcast.trades",
            "delete from tickcast.hours",
            f"select tickcast.add_day({DAY})",
            "select tickcast.drop_day('trades_20250801')",
            "create table public.mine (n int)",
            "create temporary table mine (n int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden)


def test_the_loader_may_not_change_tables(owner: Any, history_database: Database) -> None:
    connection = history_database.connection()
    HistoryStore(connection).add_days([DAY])
    for forbidden in (
        "drop table tickcast.trades",
        "drop table tickcast.trades_20250801",
        "truncate tickcast.trades",
        "alter table tickcast.trades add column n int",
        "create table tickcast.mine (n int)",
        "update tickcast.feature_sets set features = '{}'",
        "delete from tickcast.gaps_repaired",
        "create role mine",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(forbidden)


def test_the_repairer_may_read_trades_and_mark_gaps_and_no_more(
    owner: Any, repairer_database: Database
) -> None:
    connection, store = repairer_database.connection(), GapStore(repairer_database.connection())
    owner.execute("select tickcast.add_day(%s)", (DAY,))
    with connection.transaction():
        store.lock("X", [0])
        assert not len(store.trades_by_id("X", 1, 2, DAY, DAY + 1))
        store.mark("X", Gap(1, 2, DAY, DAY + 1), "withheld", (1, 2))
        assert store.marked("X", 1) == [(1, 2, DAY, DAY + 1, "withheld")]
    tables = {
        name for (name,) in owner.execute("select tablename from pg_tables where schemaname = 'tickcast'")
    }
    for table in tables - {"trades", "gaps_repaired"}:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"select * from tickcast.{table}")
    for forbidden in (
        "delete from tickcast.trades",
        "insert into tickcast.trades select * from tickcast.trades",
        "update tickcast.gaps_repaired set status = 'repaired'",
        f"select tickcast.add_day({DAY})",
        "select tickcast.drop_day('trades_20250801')",
        "create temporary table mine (n int)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(forbidden)


def test_days_are_added_once_and_dropped_whole(owner: Any, history_database: Database) -> None:
    store = HistoryStore(history_database.connection())
    store.add_days([DAY, DAY, DAY - DAY_US])
    HistoryStore(history_database.connection()).add_days([DAY])
    names = (
        "select array_agg(inhrelid::regclass::text order by inhrelid::regclass::text) from pg_inherits "
        "where inhparent = %s::regclass"
    )
    assert owner.execute(names, ("tickcast.bars_1s",)).fetchone() == (
        ["tickcast.bars_1s_20250731", "tickcast.bars_1s_20250801"],
    )
    tables = "select count(*) from pg_class where relkind = 'p' and relnamespace = 'tickcast'::regnamespace"
    assert (store.expire(DAY + DAY_US - 1),) == owner.execute(tables).fetchone()  # the day of each of them
    assert owner.execute(names, ("tickcast.bars_1s",)).fetchone() == (["tickcast.bars_1s_20250801"],)
    with pytest.raises(psycopg.errors.RaiseException, match="not the beginning of a day"):
        store.add_days([DAY + 1])


def test_only_old_days_of_partitioned_tables_can_be_dropped(owner: Any, history_database: Database) -> None:
    store = HistoryStore(history_database.connection())
    now_us = time.time_ns() // 1000
    store.add_days([now_us // DAY_US * DAY_US, DAY])
    newest = time.strftime("%Y%m%d", time.gmtime(now_us / 1e6))
    owner.execute("create table tickcast.kept_20250801 (n int)")
    for part in (f"trades_{newest}", "trades", "outcomes", "trades_20250801; drop schema tickcast"):
        with pytest.raises(psycopg.errors.RaiseException, match="is not a day that may be dropped"):
            store.connection.execute("select tickcast.drop_day(%s)", (part,))
    for part in ("kept_20250801", "trades_20240101"):
        assert store.connection.execute("select tickcast.drop_day(%s)", (part,)).fetchone() == (False,)
    # Trades may be kept for fewer days than the rest.
    assert store.expire(0, DAY + DAY_US) == 1
    assert owner.execute("select to_regclass('tickcast.bars_1s_20250801') is not null").fetchone() == (True,)


def test_a_table_in_use_is_dropped_later_and_makes_nobody_wait(
    owner: Any, history_database: Database, loader_settings: DatabaseSettings
) -> None:
    store = HistoryStore(history_database.connection())
    store.add_days([DAY])
    with connected(loader_settings, "tickcast_reader") as reader, reader.connection().transaction():
        reader.connection().execute("select count(*) from tickcast.feature_blocks")
        dropped = store.expire(DAY + DAY_US)
        assert owner.execute("select to_regclass('tickcast.outcomes_20250801')").fetchone() == (None,)
        waiting = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and not granted"
        assert owner.execute(waiting).fetchone() == (0,)
    assert dropped >= 4 and store.expire(DAY + DAY_US) == 1


def test_connections_take_no_numbers_of_definitions(owner: Any, loader_settings: DatabaseSettings) -> None:
    for _ in range(3):
        with Database(loader_settings) as database:
            HistoryStore(database.connection())
    found = owner.execute("select last_value from tickcast.feature_sets_feature_set_seq").fetchone()
    assert found == (1,)


def test_binary_copy_stores_every_value_exactly(owner: Any) -> None:
    columns: list[npt.NDArray[Any]] = [
        np.array([-(2**15), 0, 7], np.int16),
        np.array([-(2**31), 0, 7], np.int32),
        np.array([-(2**63), 0, 2**63 - 1], np.int64),
        np.array([1.5, np.nan, -0.0], np.float32),
        np.array([1e300, np.inf, 0.1], np.float64),
        np.array([True, False, True]),
        np.array([[1.5, 2.5], [np.nan, 0], [-1, 1e30]], np.float32),
        np.array([[1, -(2**63), 3], [0, 0, 0], [4, 5, 2**63 - 1]], np.int64),
    ]
    labels = [np.array([b"BTCUSDT", b"ETHUSDT", b"1000SAT"]), np.full(3, b"stream")]
    owner.execute(
        "create temporary table copied "
        "(a smallint, b integer, c bigint, d real, e double precision, f boolean, g real[], h bigint[], "
        "i text, j tickcast.origin)"
    )

    def copy(count: int, times: int = 1) -> None:
        with owner.cursor().copy("copy copied from stdin (format binary)") as stream:
            for piece in binary_copy.encode([np.repeat(c[:count], times, 0) for c in (*columns, *labels)]):
                stream.write(piece)

    copy(3)
    rows = owner.execute("select * from copied").fetchall()
    for at, column in enumerate(columns):
        np.testing.assert_array_equal(np.array([row[at] for row in rows], column.dtype), column)
    assert [row[-2:] for row in rows] == [("BTCUSDT", "stream"), ("ETHUSDT", "stream"), ("1000SAT", "stream")]
    copy(0)
    assert owner.execute("select count(*) from copied").fetchone() == (3,)
    copy(1, 2_500)  # several pieces
    counted = "select count(*), count(distinct c) from copied where i = 'BTCUSDT'"
    assert owner.execute(counted).fetchone() == (2_501, 1)
    owner.execute("drop table copied")

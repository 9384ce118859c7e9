"""The real Valkey and PostgreSQL out of their wheels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from local.system import servers
from local.system.processes import MARK, Processes
from tests.fixtures.paths import ROOT

pytestmark = pytest.mark.server


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    root = str(ROOT)
    started = Processes(tmp_path, tmp_path, os.environ | {"PYTHONPATH": root})
    yield started
    started.stop_all()


def test_free_ports_differ() -> None:
    assert len(set(servers.free_ports(20))) == 20


def test_without_perpetuals_ingest_asks_for_none() -> None:
    assert servers.stream_variables("http://x:1") == {
        "STREAM_URL": "ws://x:1",
        "REFERENCE_URL": "ws://x:1/usdm/public",
    }
    assert servers.stream_variables("http://x:1", has_perpetuals=False)["REFERENCE_URL"] == ""


def test_valkey_responds_and_is_marked(processes: Processes, tmp_path: Path) -> None:
    (port,) = servers.free_ports(1)
    process = servers.start_valkey(processes, port, tmp_path)
    servers.wait_for_valkey(processes, process, port)
    with redis.Redis(port=port) as client:
        assert client.set("a", 1)
    if (environment := Path(f"/proc/{process.process.pid}/environ")).exists():
        assert f"{MARK}={tmp_path}" in environment.read_text()


def test_postgres_keeps_its_data_over_a_kill(processes: Processes, tmp_path: Path) -> None:
    (port,) = servers.free_ports(1)
    folder = tmp_path / "postgres"

    process = servers.start_postgres(processes, port, folder)
    servers.wait_for_postgres(processes, process, port)
    with psycopg.connect(servers.database_url(port), autocommit=True) as connection:
        connection.execute("create table kept (n int)")
    process.process.kill()
    assert processes.stop(process) != 0

    process = servers.start_postgres(processes, port, folder)
    servers.wait_for_postgres(processes, process, port)
    with psycopg.connect(servers.database_url(port)) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)
    assert processes.stop(process) == 0

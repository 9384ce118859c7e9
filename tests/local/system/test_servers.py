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
def parts(tmp_path: Path) -> Iterator[Processes]:
    root = str(ROOT)
    started = Processes(tmp_path, tmp_path, os.environ | {"PYTHONPATH": root})
    yield started
    started.stop_all()


def test_free_ports_differ() -> None:
    assert len(set(servers.free_ports(20))) == 20


def test_valkey_answers_and_carries_the_mark(parts: Processes, tmp_path: Path) -> None:
    (port,) = servers.free_ports(1)
    part = servers.start_valkey(parts, port, tmp_path)
    servers.wait_for_valkey(parts, part, port)
    with redis.Redis(port=port) as client:
        assert client.set("a", 1)
    if (environment := Path(f"/proc/{part.process.pid}/environ")).exists():
        assert f"{MARK}={tmp_path}" in environment.read_text()


def test_postgres_keeps_its_data_over_a_kill(parts: Processes, tmp_path: Path) -> None:
    (port,) = servers.free_ports(1)
    folder = tmp_path / "postgres"

    part = servers.start_postgres(parts, port, folder)
    servers.wait_for_postgres(parts, part, port)
    with psycopg.connect(servers.database_url(port), autocommit=True) as connection:
        connection.execute("create table kept (n int)")
    part.process.kill()
    assert parts.stop(part) != 0

    part = servers.start_postgres(parts, port, folder)
    servers.wait_for_postgres(parts, part, port)
    with psycopg.connect(servers.database_url(port)) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)
    assert parts.stop(part) == 0

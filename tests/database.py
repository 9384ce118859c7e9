"""A real PostgreSQL with the project's schema, for tests of what is kept there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local import database, servers
from local.processes import Parts
from tickcast.adapters.postgres_connection import Database
from tickcast.adapters.settings import DatabaseSettings

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def postgres_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server of this session's own."""
    folder = tmp_path_factory.mktemp("postgres")
    parts = Parts(folder, folder, os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        (port,) = servers.free_ports(1)
        part = servers.start_postgres(parts, port, folder / "server")
        servers.wait_for_postgres(parts, part, port)
        yield port
    finally:
        parts.stop_all()


@pytest.fixture
def owner(postgres_port: int) -> Iterator[psycopg.Connection]:
    """A connection of the owner's to an empty database with the newest schema."""
    url = servers.database_url(postgres_port)
    database.forget(url)
    database.migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def loader_settings(owner: psycopg.Connection, postgres_port: int) -> DatabaseSettings:
    return DatabaseSettings(
        host=servers.HOST, port=postgres_port, name="postgres", user="tickcast_loader", application="test"
    )


@pytest.fixture
def history_database(loader_settings: DatabaseSettings) -> Iterator[Database]:
    """The database as the function load_history has it: by the loader's rights alone."""
    with Database(loader_settings) as database:
        yield database

"""One PostgreSQL connection for a process: verified TLS and IAM tokens on AWS, neither on a laptop.

A function handles one event at a time, so it needs only one connection; the database user's connection limit
bounds how many functions have one. Tokens are signed locally, so nothing in the VPC needs a route out. They
are checked at login only: a connection outlives its token.

`rds_roots.pem` holds the root certificates (RSA 2048, G1) that RDS instances of each region are signed by.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from tickcast.adapters.settings import DatabaseSettings

RDS_ROOTS = Path(__file__).with_name("rds_roots.pem")
_CONNECT_TIMEOUT_S = 5
_IDLE_IN_TRANSACTION_S = 300  # then the locks of a killed function are released, if its socket was not closed


class Database:
    """The database of `settings`. Nothing is sent before the first use, nor after `close`."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._connection: psycopg.Connection[Any] | None = None

    def connection(self) -> psycopg.Connection[Any]:
        """The connection, in autocommit; a new one where the last one broke. Raises OperationalError."""
        if self._connection is None or self._connection.closed or self._connection.broken:
            self._connection = psycopg.connect(**parameters(self._settings), autocommit=True)
        return self._connection

    def ping(self) -> None:
        """Raises psycopg's errors when the database does not answer."""
        self.connection().execute("select 1")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parameters(settings: DatabaseSettings) -> dict[str, Any]:
    """libpq's parameters of a new connection, the token included (PostgreSQL 18, "Parameter Key Words")."""
    limits = {
        "statement_timeout": f"{settings.statement_timeout_s}s",
        "lock_timeout": f"{settings.statement_timeout_s}s",
        "idle_in_transaction_session_timeout": f"{_IDLE_IN_TRANSACTION_S}s",
        "timezone": "UTC",
    }
    found: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "dbname": settings.name,
        "user": settings.user,
        "application_name": settings.application,
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "options": " ".join(f"-c {name}={value}" for name, value in limits.items()),
    }
    if not settings.iam:
        return found | {"sslmode": "disable"}
    return found | {"sslmode": "verify-full", "sslrootcert": str(RDS_ROOTS), "password": _token(settings)}


def _token(settings: DatabaseSettings) -> str:
    import boto3  # slow to import, and not needed on a laptop

    client = boto3.client("rds", region_name=settings.region)
    return str(
        client.generate_db_auth_token(DBHostname=settings.host, Port=settings.port, DBUsername=settings.user)
    )

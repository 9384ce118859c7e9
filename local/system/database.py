"""The database's schema and users, by dbmate over `migrations/`: in AWS the task `migrate` does this."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg

from local.system.state_folder import ROOT

MIGRATIONS = ROOT / "migrations"
DBMATE = Path(sys.executable).parent / "dbmate"
_MIGRATION_S = 120


class MigrationFailed(RuntimeError):
    """A migration failed; the message has dbmate's output."""


def migrate(url: str) -> None:
    """Bring the database at `url` to the newest schema. Raises `MigrationFailed`."""
    command = [
        str(DBMATE),
        *("--url", f"{url}?sslmode=disable"),
        *("--migrations-dir", str(MIGRATIONS)),
        "--no-dump-schema",
        "--migration-lock",
        *("migrate", "--strict"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_MIGRATION_S)
    if done.returncode:
        raise MigrationFailed(f"the migrations in {MIGRATIONS} failed: {done.stderr.strip()}")


def clear(url: str) -> None:
    """Drop the schema with all data of the database at `url`."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop schema if exists tickcast cascade")
        connection.execute("drop table if exists public.schema_migrations")

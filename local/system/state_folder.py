"""`.local/<name>`: the files of a run, used by one run at a time.

    logs/       a file for each process, empty at the start of a run
    postgres/   the database, kept
    s3/         the emulator's objects: written through to disk, so they survive a kill
    models/     the models of earlier runs until they are restored into a new bucket
    cdk.out/    the synthesised app, with the zipped assets
    tmp/        TMPDIR of all processes, removed after a run and before the next
    system.json the feed and the API's address while the system runs; no key

A file lock guards the folder; the kernel releases it with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from local.system.processes import sweep

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".build"
LOCAL = ROOT / ".local"
_POLL_S = 0.1


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock `path`, once no other process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class StateInUse(RuntimeError):
    """Another run uses the folder; the message says which."""


def throw_away(kind: str) -> StateFolder:
    """A folder for this process alone; removes those left by killed processes."""
    for path in LOCAL.glob(f"{kind}-*"):
        left = StateFolder(path.name)
        if left.is_abandoned():
            sweep(left.path)
            left.discard(keep_logs=False)
    return StateFolder(f"{kind}-{os.getpid()}")


class StateFolder:
    """The folder, held from `open` to `close`."""

    def __init__(self, name: str) -> None:
        self.path = LOCAL / name
        self.logs = self.path / "logs"
        self.postgres = self.path / "postgres"
        self.s3 = self.path / "s3"
        self.models = self.path / "models"
        self.assembly = self.path / "cdk.out"
        self.temp = self.path / "tmp"
        self.about = self.path / "system.json"
        self.keeps_logs = False  # of a temporary system
        self._lock: IO[str] | None = None

    def open(self, patience_s: float = 0) -> None:
        """Lock the folder, waiting up to `patience_s` if another run uses it. Raises `StateInUse`."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock_file = (self.path / "lock").open("a+", encoding="utf-8")
        deadline = time.monotonic() + patience_s
        while not _is_taken(lock_file):
            if time.monotonic() >= deadline:
                lock_file.seek(0)
                holder = lock_file.read().strip()
                lock_file.close()
                raise StateInUse(
                    f"already running in this checkout (process {holder}, state in {self.path}); "
                    f"stop that one first, by Ctrl-C or `kill {holder}`"
                )
            time.sleep(_POLL_S)
        lock_file.truncate(0)
        lock_file.write(str(os.getpid()))
        lock_file.flush()
        self._lock = lock_file

    def prepare(self) -> None:
        """Empty the folders of logs and temporary files. Call once no process of an earlier run is left."""
        for folder in (self.logs, self.temp):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def close(self) -> None:
        """Unlock the folder."""
        shutil.rmtree(self.temp, ignore_errors=True)
        self.about.unlink(missing_ok=True)
        if self._lock:
            self._lock.close()

    def is_abandoned(self) -> bool:
        """Whether a killed run left the folder: its lock is free."""
        try:
            with (self.path / "lock").open() as file:
                return _is_taken(file)
        except FileNotFoundError:
            return False

    def discard(self, *, keep_logs: bool) -> None:
        """Remove the files of a temporary system, with or without its logs."""
        kept = {self.logs} if keep_logs else set()
        for entry in set(self.path.iterdir()) - kept:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        if not keep_logs:
            self.path.rmdir()


def _is_taken(file: IO[str]) -> bool:
    """Lock `file` until it is closed, if the lock is free."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

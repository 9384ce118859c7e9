"""`.local/<name>`: what a run keeps on disk, for one run at a time.

    logs/       a file for each part, begun anew with each run
    postgres/   the database, kept
    s3/         the emulator's objects: written through to disk, so they survive a kill
    models/     the models of earlier runs on their way into a freshly deployed bucket
    cdk.out/    the synthesised app, with the zipped assets
    tmp/        TMPDIR of all parts, removed after a run and before the next
    system.json where the running system is to be found; no key in it

A lock on a file guards the folder; the kernel drops it with the process, however that ends.
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
    """Hold the lock `path`, waiting for another process to give it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class StateInUse(RuntimeError):
    """Another run holds the folder; the message says which."""


def throw_away(kind: str) -> StateFolder:
    """A folder for this process alone; what killed processes left of their own is removed."""
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
        self._lock: IO[str] | None = None

    def open(self, patience_s: float = 0) -> None:
        """Take the folder, waiting for `patience_s` if another run holds it. Raises `StateInUse`."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock_file = (self.path / "lock").open("a+", encoding="utf-8")
        deadline = time.monotonic() + patience_s
        while not _is_taken(lock_file):
            if time.monotonic() >= deadline:
                lock_file.seek(0)
                holder = lock_file.read().strip()
                lock_file.close()
                raise StateInUse(
                    f"this is running already in this checkout (process {holder}, state in {self.path}); "
                    "stop that one first"
                )
            time.sleep(_POLL_S)
        lock_file.truncate(0)
        lock_file.write(str(os.getpid()))
        lock_file.flush()
        self._lock = lock_file

    def prepare(self) -> None:
        """Empty folders for logs and temporary files. To be called once nothing of an earlier run lives."""
        for folder in (self.logs, self.temp):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def close(self) -> None:
        """Give the folder back."""
        shutil.rmtree(self.temp, ignore_errors=True)
        self.about.unlink(missing_ok=True)
        if self._lock:
            self._lock.close()

    def is_abandoned(self) -> bool:
        """Whether a killed run left the folder: it has a lock that nobody holds."""
        try:
            with (self.path / "lock").open() as file:
                return _is_taken(file)
        except FileNotFoundError:
            return False

    def discard(self, *, keep_logs: bool) -> None:
        """Remove what a throw-away run left, but for its logs if asked to."""
        kept = {self.logs} if keep_logs else set()
        for entry in set(self.path.iterdir()) - kept:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        if not keep_logs:
            self.path.rmdir()


def _is_taken(file: IO[str]) -> bool:
    """Take the lock on `file` if it is free, until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

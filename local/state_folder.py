"""`.local/<name>`: what a run keeps on disk, for one run at a time.

    logs/       a file for each part, begun anew with each run
    postgres/   the database, kept
    s3/         the emulator's objects: written through to disk, so they survive a kill
    models/     the models of earlier runs on their way into a freshly deployed bucket
    cdk.out/    the synthesised app, with the zipped assets
    tmp/        TMPDIR of all parts, removed after a run and before the next

A lock on a file guards the folder; the kernel drops it with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from local.processes import sweep

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"
LOCAL = ROOT / ".local"


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
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Take the folder and make it ready for a run. Raises `StateInUse`."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip()
            self._lock.close()
            raise StateInUse(
                f"this is running already in this checkout (process {holder}, state in {self.path}); "
                "stop that one first"
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def prepare(self) -> None:
        """Empty folders for logs and temporary files. To be called once nothing of an earlier run lives."""
        for folder in (self.logs, self.temp):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def close(self) -> None:
        """Give the folder back."""
        shutil.rmtree(self.temp, ignore_errors=True)
        if self._lock:
            self._lock.close()

    def is_abandoned(self) -> bool:
        """Whether a killed run left the folder: it has a lock that nobody holds."""
        try:
            with (self.path / "lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            return False
        return True

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

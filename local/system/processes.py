"""The system's child processes: started, watched, and stopped with all their descendants.

Every process has a session of its own, so Ctrl-C in the terminal reaches the launcher alone, which then stops
them in the right order, and a log file for its output. Three mechanisms ensure that no process is left,
however the launcher ends: a stop signal with a grace period and then a kill of the process group; on
Linux the kernel kills a process when the launcher dies; and all carry the path of their state folder in
their environment, which their own children inherit, so that `sweep` finds those of a run that was killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

MARK = "TICKCAST_STATE"  # the environment variable that names the state folder a process belongs to
TAIL_LINES = 15
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ProcessFailed(RuntimeError):
    """A process ended by itself, or was not ready in time. The message has the end of its log."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        lines = log.read_text("utf-8", "replace").splitlines()[-TAIL_LINES:] if log.is_file() else []
        tail = "\n".join(f"  | {line}" for line in lines)
        super().__init__(f"{name} {what}; log: {log}\n{tail}".rstrip())


class Process:
    """One child process."""

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        log: Path,
        is_step: bool,
        stop_signal: int,
        grace_s: float,
    ) -> None:
        self.name = name
        self.log = log
        self.process = process
        self.is_step = is_step
        self._stop_signal = stop_signal
        self._grace_s = grace_s

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.process.poll()

    def event(self, name: str) -> dict[str, Any] | None:
        """The first JSON line in the log whose `event` is `name`, if there is one by now."""
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with suppress(ValueError):
                    found = json.loads(line)
                    if isinstance(found, dict) and found.get("event") == name:
                        return found
        return None

    def stop(self, stop_signal: int | None = None) -> None:
        """Signal the process, wait, and kill the rest of its process group."""
        if self.status is None:
            self.process.send_signal(stop_signal or self._stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(self._grace_s)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Processes:
    """The processes of one run, in the order in which they were started."""

    def __init__(self, state: Path, logs: Path, environment: Mapping[str, str]) -> None:
        """`environment` is that of every process, before what each adds."""
        self._logs = logs
        self._environment = {**environment, MARK: str(state)}
        self._running: list[Process] = []

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        is_step: bool = False,
        stop_signal: int = signal.SIGTERM,
        grace_s: float = 10,
    ) -> Process:
        """Start a process, which runs until it is stopped, or ends by itself if it `is_step`. Its output goes
        to `<name>.log`.

        From the main thread only: the kernel's signal at the parent's death follows the thread that forked.
        """
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                env={**self._environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        started = Process(name, process, log, is_step, stop_signal, grace_s)
        self._running.append(started)
        return started

    def check(self) -> None:
        """Raise `ProcessFailed` for the first process that has ended, unless it is a step that succeeded."""
        for process in self._running:
            if process.status is not None and not (process.is_step and process.status == 0):
                raise ProcessFailed(process.name, _ended(process.status), process.log)

    def wait_until(self, ready: Callable[[], bool], process: Process, timeout_s: float) -> None:
        """Wait until `process` is `ready`. Raises `ProcessFailed` when any ends, or it takes too long."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(process.name, f"took longer than {timeout_s:.0f} s", process.log)
            time.sleep(_POLL_S)

    def wait_for_event(self, process: Process, event: str, timeout_s: float) -> dict[str, Any]:
        """The JSON line by which `process` reports that it is ready. Raises `ProcessFailed`."""
        self.wait_until(lambda: process.event(event) is not None, process, timeout_s)
        found = process.event(event)
        assert found is not None
        return found

    def finish(self, process: Process, timeout_s: float) -> None:
        """Wait for a step to succeed. Raises `ProcessFailed`."""
        self.wait_until(lambda: process.status == 0, process, timeout_s)
        self._running.remove(process)

    def stop(self, process: Process, stop_signal: int | None = None) -> int:
        """Stop a process, with `stop_signal` instead of its own if given; its exit status."""
        self._running.remove(process)
        process.stop(stop_signal)
        return process.process.returncode

    def stop_all(self) -> None:
        """Stop all processes, the last one started first."""
        while self._running:
            self._running.pop().stop()


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent dies; Linux only."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, number)


def sweep(state: Path) -> list[str]:
    """Kill every other process that belongs to the state folder `state`; their names."""
    swept = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == str(state):
                swept.append(process.name())
                process.kill()
    return swept


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    return f"was killed by signal {signal.Signals(-status).name}"

"""The programs that emulate AWS for a local system: MiniStack, the default, and LocalStack in host mode.

MiniStack is light and runs on the project's own Python. LocalStack needs Python 3.13 and 800 MB of memory,
and is closer to AWS: a function's error reaches Step Functions by its class name, and batch windows are
applied. Both run functions as processes on the same interpreter, with the same layers, and need no Docker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from local.system.emulator.localstack import LocalStack
from local.system.emulator.ministack import MiniStack
from local.system.processes import Process, Processes
from local.system.state_folder import StateFolder


class Emulator(Protocol):
    """A program that emulates AWS on one port of this machine."""

    title: str  # its name, for people
    installed: Path  # a file that is there once it is installed
    target: str  # the make target that installs it
    # In what the two differ. AWS applies batch windows and names errors.
    keeps_objects: bool  # whether S3's objects are in the state folder, even after a kill
    applies_batch_windows: bool  # whether a record waits for its batch to fill
    names_errors: bool  # whether Step Functions sees a function's error by its class name
    streams_for_long: bool  # whether Kinesis keeps its speed over hours of ticks

    def start(self, endpoint_url: str, processes: Processes, state: StateFolder) -> Process:
        """Start it; ready once `is_ready`. Stopped with the other `processes`."""

    def is_ready(self, endpoint_url: str) -> bool:
        """Whether it serves. Raises OSError or ValueError while it does not listen."""


EMULATORS: dict[str, Emulator] = {"ministack": MiniStack(), "localstack": LocalStack()}

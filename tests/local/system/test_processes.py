"""The processes are real: small Python programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local.system.processes import MARK, Process, Processes, ProcessFailed, sweep

pytestmark = pytest.mark.server

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
# Ignores SIGTERM, and has a child.
STUBBORN = (
    "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(child.pid, flush=True); time.sleep(600)"
)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path, tmp_path, dict(os.environ))
    yield started
    started.stop_all()


def start(
    processes: Processes, name: str, program: str, *, is_step: bool = False, grace_s: float = 10
) -> Process:
    return processes.start(name, [sys.executable, "-c", program], is_step=is_step, grace_s=grace_s)


def printed(processes: Processes, process: Process) -> str:
    processes.wait_until(lambda: bool(process.log.read_text()), process, 30)
    return process.log.read_text().strip()


def has_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while not has_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_processes_are_stopped_last_started_first(processes: Processes, tmp_path: Path) -> None:
    program = (
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        f"    with open({str(tmp_path / 'order')!r}, 'a') as file: file.write(NAME)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, stop); print('up', flush=True); time.sleep(600)"
    )
    for name in "abc":
        printed(processes, start(processes, name, f"NAME = {name!r}\n{program}"))
    processes.stop_all()
    assert (tmp_path / "order").read_text() == "cba"


def test_a_stubborn_process_is_killed_with_its_children(processes: Processes) -> None:
    process = start(processes, "stubborn", STUBBORN, grace_s=0.2)
    child = int(printed(processes, process))
    assert processes.stop(process) == -signal.SIGKILL
    wait_until_gone(child)


def test_a_process_that_ends_is_reported_with_the_end_of_its_log(processes: Processes) -> None:
    process = start(processes, "ingest", "import sys; print('no such stream'); sys.exit(3)")
    process.process.wait()
    with pytest.raises(ProcessFailed, match="ingest ended with exit status 3") as failure:
        processes.check()
    assert str(process.log) in str(failure.value)
    assert "| no such stream" in str(failure.value)


def test_a_process_killed_from_outside_is_reported_by_its_signal(processes: Processes) -> None:
    process = start(processes, "exchange", SLEEPER)
    process.process.kill()
    process.process.wait()
    with pytest.raises(ProcessFailed, match="was killed by signal SIGKILL"):
        processes.check()


def test_waiting_for_one_process_ends_when_another_fails(processes: Processes) -> None:
    waited_for = start(processes, "slow", SLEEPER)
    start(processes, "broken", "raise SystemExit(1)")
    with pytest.raises(ProcessFailed, match="broken"):
        processes.wait_until(lambda: False, waited_for, timeout_s=60)


def test_a_process_that_is_not_ready_in_time_is_reported(processes: Processes) -> None:
    process = start(processes, "slow", SLEEPER)
    with pytest.raises(ProcessFailed, match="slow took longer than 0 s"):
        processes.wait_until(lambda: False, process, timeout_s=0.1)


def test_a_step_may_end_and_must_succeed(processes: Processes) -> None:
    good = start(processes, "good", "pass", is_step=True)
    good.process.wait()
    processes.check()
    processes.finish(good, 30)
    with pytest.raises(ProcessFailed, match="bad ended with exit status 1"):
        processes.finish(start(processes, "bad", "raise SystemExit(1)", is_step=True), 30)


def test_the_ready_line_is_found_among_others(processes: Processes) -> None:
    lines = ["x", "[1]", '{"event": "starting"}', '{"event": "listening", "port": 7}']
    program = f"print(*{lines!r}, sep=chr(10), flush=True); {SLEEPER}"
    process = start(processes, "exchange", program)
    assert processes.wait_for_event(process, "listening", 30)["port"] == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_processes_end_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    launcher = (
        "import os, pathlib, sys, time; from local.system.processes import Processes\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        f"command = [sys.executable, '-c', {SLEEPER!r}]\n"
        "process = Processes(folder, folder, dict(os.environ)).start('sleeper', command)\n"
        "print(process.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        process.kill()
    wait_until_gone(pid)


def test_sweep_kills_only_marked_processes(tmp_path: Path) -> None:
    def sleeper(folder: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: str(tmp_path / folder)})

    with sleeper("mine") as mine, sleeper("other") as other:
        assert sweep(tmp_path / "mine") == ["sleep"]
        assert mine.wait() == -signal.SIGKILL
        assert other.poll() is None
        other.kill()

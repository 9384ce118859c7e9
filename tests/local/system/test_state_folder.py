from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from local.system import state_folder
from local.system.state_folder import StateFolder, StateInUse, throw_away

KILLED = (
    "import os, pathlib, sys; from local.system import state_folder\n"
    "state_folder.LOCAL = pathlib.Path(sys.argv[1])\n"
    "state = state_folder.throw_away('smoke'); state.open(); print(state.path.name, flush=True)\n"
    "os.kill(os.getpid(), 9)"
)


@pytest.fixture(autouse=True)
def local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state_folder, "LOCAL", tmp_path)
    return tmp_path


def test_a_folder_is_for_one_run_at_a_time() -> None:
    first, second = StateFolder("sim"), StateFolder("sim")
    first.open()
    with pytest.raises(StateInUse, match="already running"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_two_feeds_run_at_the_same_time() -> None:
    folders = [StateFolder("sim"), StateFolder("replay")]
    for folder in folders:
        folder.open()
    for folder in folders:
        folder.close()


def test_logs_and_temporary_files_start_empty_and_the_rest_is_kept() -> None:
    state = StateFolder("sim")
    for _ in range(2):
        state.open()
        state.prepare()
        assert list(state.logs.iterdir()) == []
        (state.logs / "ingest.log").write_text("a line")
        (state.path / "model-origin").write_text("simulated history")
        state.close()
        assert not state.temp.exists()
    assert (state.path / "model-origin").is_file()


def test_a_throw_away_folder_leaves_nothing_or_only_its_logs() -> None:
    for keep_logs in (False, True):
        state = throw_away("smoke")
        state.open()
        state.prepare()
        state.close()
        state.discard(keep_logs=keep_logs)
        assert state.path.exists() == keep_logs
    assert [path.name for path in state.path.iterdir()] == ["logs"]


def test_folders_of_killed_runs_are_removed_by_the_next(local_folder: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(local_folder)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    (failed := local_folder / "smoke-1" / "logs").mkdir(parents=True)  # kept on purpose: no lock
    assert killed and (local_folder / killed / "lock").is_file()
    throw_away("smoke")
    assert not (local_folder / killed).exists()
    assert failed.exists()

"""docs/walkthroughs/extending.md, followed: its changes are applied to a copy of the repository, and the
commands that it gives after them are run there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.documents import document
from tests.fixtures.paths import ROOT

pytestmark = pytest.mark.slow

LEFT_OUT = shutil.ignore_patterns(".*", "node_modules", "out", "cdk.out", "__pycache__", "benchmarks", "*.gz")
PAGE = document("docs/walkthroughs/extending.md")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository, with the packages that are installed in this one."""
    folder = tmp_path / "tickcast"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=LEFT_OUT)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.mark.parametrize("change", ["feature", "horizon"])
def test_a_change_of_the_page_works(change: str, copy: Path) -> None:
    patches, scripts = PAGE.blocks_of(f"diff {change}"), PAGE.blocks_of(f"sh {change}")
    assert patches and scripts
    run(copy, ["git", "apply", "--whitespace=nowarn", "-"], "".join(patches))
    run(copy, ["bash", "-euo", "pipefail", "-s"], "".join(scripts))


def run(folder: Path, command: list[str], text: str) -> None:
    """`command` in the copy, `text` as its input."""
    done = subprocess.run(
        command,
        cwd=folder,
        input=text,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "GIT_CEILING_DIRECTORIES": str(folder.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"

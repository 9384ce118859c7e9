"""The hashes of the packages in the images: `requirements.lock` from each image's `requirements.txt`.

All files of a version are in it, so the images build on x86_64 and aarch64 alike.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from local.commands.command import Command, ExitStatus
from local.system.state_folder import ROOT
from operations.failures import OperationFailed
from operations.images.builders import IMAGES

_TOOLS = Path(__file__).parent / "requirements.txt"
_HEADING = "# Generated from requirements.txt by `make images-lock`.\n"
_OPTIONS = (
    "--generate-hashes",
    "--no-annotate",
    "--no-header",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-options",
    "--strip-extras",
    "--quiet",
)


def lock(folder: Path, tools: Path) -> None:
    """Write the lock of the image in `folder`, with pip-tools of the environment `tools`. Raises
    `OperationFailed`."""
    target = folder / "requirements.lock"
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "requirements.lock"
        if target.is_file():  # what it pins stays
            made.write_bytes(target.read_bytes())
        source = folder / "requirements.txt"
        command: list[str | Path] = [tools / "bin" / "pip-compile", *_OPTIONS, "--output-file", made, source]
        done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
        if done.returncode:
            raise OperationFailed(f"pip-compile of {source.relative_to(ROOT)} failed: {done.stderr.strip()}")
        target.write_text(_HEADING + made.read_text("utf-8").removeprefix(_HEADING), "utf-8")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def _run(given: argparse.Namespace) -> ExitStatus:
    with tempfile.TemporaryDirectory() as folder:
        tools = Path(folder)
        venv.create(tools, with_pip=True)
        python: list[str | Path] = [tools / "bin" / "python", "-m"]
        pip = ["pip", "--quiet", "--disable-pip-version-check", "install", "--requirement", str(_TOOLS)]
        if subprocess.run([*python, *pip]).returncode:
            raise OperationFailed(f"pip-tools could not be installed from {_TOOLS.relative_to(ROOT)}")
        for image in IMAGES:
            lock(ROOT / image.folder, tools)
            print(f"images-lock: {image.folder}/requirements.lock", file=sys.stderr)
    return ExitStatus.OK


COMMAND = Command("images-lock", "write the hashes of the packages in the images", _add_arguments, _run)

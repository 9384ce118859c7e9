"""Which version of the code this checkout is."""

from __future__ import annotations

import subprocess

from operations.deployment.toolkit import ROOT
from tickcast.functions.train_model import code_version


def version() -> str:
    """The commit, with `.changed` where files under version control have changes that are not committed;
    outside a git checkout a digest of the package."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit}.changed" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return code_version()


def _git(*arguments: str) -> str:
    found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return found.stdout.strip()

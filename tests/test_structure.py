"""Rules of the repository that neither ruff nor mypy knows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.paths import ROOT

MAX_LINES = 70
# Functions that may be longer, and why. One that has become short enough has to leave the list.
LONGER = {
    "tests/features/test_vector.py:by_definition": "an oracle: every feature by its definition",
}
# Put together, so that this file passes its own test.
REGISTRY_HOSTS = [
    ".".join(words)
    for words in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("yarnpkg", "com"),
        ("deb", "debian", "org"),
    )
]
HOME = re.compile(r"(?:^|[\s\"'=:(])/(?:home|root|Users|work|mnt)/\w")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """All files under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """(qualified name, lines) of every function in `node`; decorators do not count."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}{child.name}"
            if not isinstance(child, ast.ClassDef):
                assert child.end_lineno is not None
                yield name, child.end_lineno - child.lineno + 1
            yield from functions(child, f"{name}.")
        else:
            yield from functions(child, prefix)


def test_functions_are_short(tracked: list[Path]) -> None:
    longer = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for path in tracked
        if path.suffix == ".py"
        for name, lines in functions(ast.parse(path.read_text("utf-8")))
        if lines > MAX_LINES
    }
    assert sorted(longer.keys() - LONGER.keys()) == [], f"longer than {MAX_LINES} lines"
    assert sorted(LONGER.keys() - longer.keys()) == [], "short enough by now: remove from LONGER"


def test_no_file_names_a_registry_host_or_somebody_s_folder(tracked: list[Path]) -> None:
    found = []
    for path in tracked:
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if any(host in line for host in REGISTRY_HOSTS) or HOME.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found

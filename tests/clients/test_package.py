"""The package as it is built: what is in it, and that it stands alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from flit_core.wheel import make_wheel_in

import tickcast_client
from tests.fixtures.paths import ROOT

PACKAGE = ROOT / "clients" / "python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make client` builds it."""
    found: Path = make_wheel_in(PACKAGE / "pyproject.toml", tmp_path_factory.mktemp("wheel")).file
    return found


def test_the_wheel_has_the_package_its_types_and_its_command(wheel: Path) -> None:
    assert wheel.name == f"tickcast_client-{tickcast_client.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        modules = {path.relative_to(PACKAGE / "src").as_posix() for path in PACKAGE.glob("src/**/*.py")}
        assert names >= modules | {"tickcast_client/py.typed"}
        [metadata] = [archive.read(name) for name in names if name.endswith(".dist-info/METADATA")]
        [commands] = [archive.read(name) for name in names if name.endswith("entry_points.txt")]
        assert any(name.endswith("/LICENSE") for name in names)
    assert "tickcast-mcp=tickcast_client.mcp_command:main" in commands.decode()
    described = message_from_bytes(metadata)
    assert described["Name"] == "tickcast-client"
    assert {"iam", "mcp"} <= set(described.get_all("Provides-Extra", []))


def test_it_stands_alone(wheel: Path) -> None:
    """Without the extras, and without anything of this repository."""
    program = (
        "import sys; sys.modules |= dict.fromkeys(['mcp', 'botocore', 'tickcast']); import tickcast_client"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(wheel)}
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=wheel.parent, check=True)


def test_its_packages_are_those_that_the_tests_run_with() -> None:
    """Loosely pinned for its users, exactly for the tests."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for some in project["optional-dependencies"].values() for each in some),
    ]
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()}
    assert {each.partition(">=")[0] for each in wanted} - pinned == set()

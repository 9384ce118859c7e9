"""The whole embedded system, started once for all tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from localstack_client.session import Session
from rich.console import Console

from local import cloud
from local.options import Options
from local.progress import Progress
from local.state_folder import BUILD, ROOT, throw_away
from local.system import System


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """A running system on the simulated market, with a model."""
    for prepared in (BUILD / "ministack-venv" / ".stamp", ROOT / "node_modules" / ".bin" / "cdk"):
        if not prepared.exists():
            pytest.skip(f"needs {prepared.relative_to(ROOT)}: run `make setup` first")
    state = throw_away("test")
    failed = True
    try:
        with System(Options(feed="sim"), state, Progress(Console(stderr=True))) as running:
            yield running
            failed = False
    finally:
        state.discard(keep_logs=failed)


@pytest.fixture
def aws(system: System, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Makes boto3 clients for whichever emulator the environment names: here the one of `system`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", system.cloud.endpoint_url)
    keys: dict[str, Any] = {name.lower(): value for name, value in cloud.CREDENTIALS.items()}
    return Session(region_name=cloud.REGION, **keys)

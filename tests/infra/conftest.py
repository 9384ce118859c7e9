"""Every environment's templates, synthesised once for all tests."""

from __future__ import annotations

import os

import pytest

# jsii warns, in nine lines on stderr, of a Node past its end of life; Node 20 is what the project asks for.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")

from cdk.config import parse  # noqa: E402
from tests.infra.synthesis import Synthesised, synthesise  # noqa: E402  (starts Node)

ENVIRONMENTS = ("local", "dev", "prod")
CHANGED = {
    "name": "dev",
    "region": "eu-central-1",
    "log_level": "ERROR",
    "tracing": True,
    "stream": {"shards": 3, "parallelism": 2},
    "lake": {"bronze_days": 400, "bronze_cheaper_after_days": 30},
    "functions": {"serve_predictions": {"memory_mb": 512, "timeout_s": 10, "reserved_concurrency": 5}},
    "api": {"authorisation": "iam"},
    "aws": {
        "ingest": {"architecture": "x86_64"},
        "container_insights": True,
        "concurrent_executions": 200,
    },
}


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Synthesised]:
    return {name: synthesise(name, tmp_path_factory.mktemp(name)) for name in ENVIRONMENTS}


@pytest.fixture(scope="session")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Synthesised:
    """An environment in an account with every option at another value than in dev and prod."""
    return synthesise("dev", tmp_path_factory.mktemp("changed"), parse(CHANGED))


@pytest.fixture(params=ENVIRONMENTS)
def synthesised(request: pytest.FixtureRequest, environments: dict[str, Synthesised]) -> Synthesised:
    """Every environment in turn."""
    return environments[request.param]


@pytest.fixture(params=("dev", "prod"))
def on_aws(request: pytest.FixtureRequest, environments: dict[str, Synthesised]) -> Synthesised:
    """Every environment that runs in an account, in turn."""
    return environments[request.param]

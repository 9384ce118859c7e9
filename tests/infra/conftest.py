"""Every environment's templates, synthesised once for all tests."""

from __future__ import annotations

import os

import pytest

# jsii warns, in nine lines on stderr, of a Node past its end of life; Node 20 is what the project asks for.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")

from tests.infra.synthesis import Synthesised, synthesise  # noqa: E402  (starts Node)

ENVIRONMENTS = ("local", "dev", "prod")


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Synthesised]:
    return {name: synthesise(name, tmp_path_factory.mktemp(name)) for name in ENVIRONMENTS}


@pytest.fixture(params=ENVIRONMENTS)
def synthesised(request: pytest.FixtureRequest, environments: dict[str, Synthesised]) -> Synthesised:
    """Every environment in turn."""
    return environments[request.param]


@pytest.fixture(params=("dev", "prod"))
def on_aws(request: pytest.FixtureRequest, environments: dict[str, Synthesised]) -> Synthesised:
    """Every environment that runs in an account, in turn."""
    return environments[request.param]

"""The environments' resources and estimates, of one symbol, as `make cost` makes them without arguments."""

from __future__ import annotations

import pytest

from cdk.config import load
from operations.cost import Estimate, monthly
from operations.cost.inventory import Resource
from operations.cost.synthesis import resources_of

NAMES = ("dev", "prod")


@pytest.fixture(scope="session")
def resources() -> dict[str, list[Resource]]:
    """By environment: those of the templates."""
    return {name: resources_of(load(name, symbols="BTCUSDT")) for name in NAMES}


@pytest.fixture(scope="session")
def estimates(resources: dict[str, list[Resource]]) -> dict[str, Estimate]:
    """By environment."""
    with pytest.MonkeyPatch.context() as patch:
        # The templates are there already.
        patch.setattr("operations.cost.synthesis.resources_of", lambda asked: resources[asked.name])
        return {name: monthly(load(name, symbols="BTCUSDT")) for name in NAMES}

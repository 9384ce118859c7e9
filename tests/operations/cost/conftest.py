"""Estimates of the environments, of one symbol, by their templates."""

from __future__ import annotations

import pytest

from cdk.config import load
from operations.cost import Estimate, monthly


@pytest.fixture(scope="session")
def estimates() -> dict[str, Estimate]:
    """By environment, as `make cost` makes them without arguments."""
    return {name: monthly(load(name, symbols="BTCUSDT")) for name in ("dev", "prod")}

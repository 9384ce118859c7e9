"""The hot path as a fixture: over an empty Redis and an empty S3, on a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from tests.hot_path import SETTINGS, Clock, hot_path
from tickcast.adapters.hot_store import HotStore
from tickcast.adapters.predict_stream import PredictStream


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(redis_client: redis.Redis) -> HotStore:
    return HotStore(redis_client, SETTINGS.lateness_us)


@pytest.fixture
def predict(store: HotStore, s3: Any, clock: Clock) -> PredictStream:
    return hot_path(store, s3, clock)

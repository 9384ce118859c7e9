"""The hot path over a real Redis and moto's S3, with a model whose weights are random and a clock that tests
put where they want it."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import redis

from tests.aws import BUCKET
from tests.market import START_US, batches, random_ticks
from tickcast import wire
from tickcast.adapters import model_registry
from tickcast.adapters.hot_store import HotStore
from tickcast.adapters.model_store import ModelFollower, at_once
from tickcast.adapters.onnx_model import export
from tickcast.adapters.predict_stream import PredictStream
from tickcast.adapters.schema_book import SchemaBook
from tickcast.adapters.settings import Settings
from tickcast.features import EVEN_FEATURES, FEATURE_HASH, ODD_FEATURES, QUOTE_FEATURES
from tickcast.model import HORIZONS_S
from tickcast.network import Inputs, Network

SETTINGS = Settings.from_environment({"ENVIRONMENT": "test", "BUCKET": BUCKET, "SYMBOLS": "BTCUSDT,ETHUSDT"})
START_MS = START_US // 1000
CARD = {
    "model_id": "m1",
    "provisional": True,
    "feature_hash": FEATURE_HASH,
    "calibration": {str(h): {"direction_slope": 2.0, "interval_width": 1.0} for h in HORIZONS_S},
}


@functools.cache
def network() -> Network:
    """One whose weights are random, and whose answers therefore show which vector they were given."""
    trades_alone = tuple(name for name in ODD_FEATURES if name not in QUOTE_FEATURES)
    network = Network.zeros(Inputs(ODD_FEATURES, EVEN_FEATURES, trades_alone, EVEN_FEATURES), hidden=8)
    rng = np.random.default_rng(1)
    random = {name: rng.normal(0, 0.4, weights.shape) for name, weights in network.weights.items()}
    return replace(network, **random | {"usual_sigma": np.ones(1), "knows_quotes": np.ones(1)})


class Clock:
    """A clock that stands where it is put, or goes on by `step_ms` whenever it is looked at; ms."""

    def __init__(self) -> None:
        self.ms = START_US / 1000
        self.step_ms = 0.0

    def __call__(self) -> float:
        self.ms += self.step_ms
        return self.ms


def hot_path(store: HotStore, s3: Any, clock: Clock) -> PredictStream:
    """The function as it stands after a cold start."""
    return PredictStream(
        SETTINGS, store, ModelFollower(s3, BUCKET, clock, at_once), SchemaBook(s3, BUCKET), s3, clock
    )


@functools.cache
def _network_file() -> bytes:
    return export(network())


def save_model(s3: Any, model_id: str, **card: Any) -> None:
    model_registry.save(s3, BUCKET, model_id, _network_file(), CARD | {"model_id": model_id} | card)


def put_model(s3: Any, model_id: str = "m1", challenger: str | None = None, **card: Any) -> None:
    """A model, put in force."""
    save_model(s3, model_id, **card)
    model_registry.promote(s3, BUCKET, model_id, "2026-01-01T00:00:00+00:00", challenger)


def ticks_in(seconds: int, piece_us: int = 100_000, seed: int = 1) -> list[wire.TickBatch]:
    return list(
        batches(*random_ticks(seed, seconds), [START_US + t for t in range(0, seconds * 10**6, piece_us)])
    )


def stored(client: redis.Redis, key: str) -> dict[str, Any]:
    text = client.get(key)
    assert text is not None, key
    return json.loads(text)

"""A hot store as `predict_stream` fills it: two minutes of a random market, predicted by a simple model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import redis

from tests.kinesis_events import batch_event
from tests.market import START_US, batches, random_ticks
from tickcast.adapters.hot_store import HotStore
from tickcast.adapters.predict_stream import PredictStream
from tickcast.adapters.schema_book import SchemaBook
from tickcast.adapters.settings import Settings
from tickcast.features import FEATURE_NAMES, Floats
from tickcast.model import HORIZONS_S, Calibration
from tickcast.prediction import ServingModel

SECONDS = 40
END_MS = (START_US + SECONDS * 1_000_000) // 1000


def lean_on_imbalance(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """A model's answer for `rows` (N, F): a third of the volatility, in the direction of book imbalance."""
    scale_bp = rows[:, [FEATURE_NAMES.index("sigma_bp")]] * np.sqrt(np.array(HORIZONS_S, float))
    return rows[:, :1] * scale_bp / 3, scale_bp, np.full_like(scale_bp, 0.2)


@dataclass
class OneModel:
    """Stands where the follower of the model in S3 does."""

    model: ServingModel
    challenger: ServingModel | None = None
    problem: str | None = None
    challenger_problem: str | None = None
    refusal: str | None = None
    is_refused: bool = False

    def current(self) -> ServingModel:
        return self.model

    def follow(self) -> None:
        pass


MODELS = OneModel(
    ServingModel("m1", True, {h: Calibration(2.0, 1.3) for h in HORIZONS_S}, lean_on_imbalance),
    ServingModel("m2", True, {h: Calibration(1.0, 1.3) for h in HORIZONS_S}, lean_on_imbalance),
)


def fill(client: redis.Redis, s3: Any, bucket: str, settings: Settings) -> None:
    """Let predict_stream work off a market of every symbol of `settings`."""
    clock_ms = START_US / 1000
    stream = PredictStream(
        settings,
        HotStore(client, settings.lateness_us),
        MODELS,  # type: ignore[arg-type]
        SchemaBook(s3, bucket),
        s3,
        lambda: clock_ms,
    )
    for n, symbol in enumerate(settings.symbols):
        cuts = [START_US + second * 1_000_000 for second in range(1, SECONDS)]
        for at, piece in enumerate(batches(*random_ticks(n, SECONDS), cuts)):
            clock_ms = piece.watermark_us / 1000 + 150
            event = batch_event(at, piece._replace(symbol=symbol))
            event["Records"][0]["kinesis"]["approximateArrivalTimestamp"] = clock_ms / 1000 - 0.05
            result = stream(event)
        assert result.outcomes and result.predictions[-1]["source"] == "model"

"""Receipts as the hot path writes them, without its stores: a market folded, predicted, and remembered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from tickcast.adapters import bronze
from tickcast.bars import BarRing
from tickcast.features import FEATURE_NAMES, Floats
from tickcast.model import HORIZONS_S, Calibration
from tickcast.outcomes import Memory, mid_at
from tickcast.prediction import (
    PREDICT_EVERY_US,
    ServingModel,
    Terms,
    challenger_record,
    features_record,
    prediction_record,
)
from tickcast.ticks import Quotes, Trades
from tickcast.wire import TickBatch

LATENESS_US = 100_000
TERMS = Terms(primary_horizon_s=2, fee_bp=10.0, min_confidence=0.55)


def lean(rows: Floats, on: str) -> tuple[Floats, Floats, Floats]:
    """A model's answer for `rows` (N, F): a third of the volatility in the direction of one feature."""
    scale_bp = rows[:, [FEATURE_NAMES.index("sigma_bp")]] * np.sqrt(np.array(HORIZONS_S, float))
    return rows[:, [FEATURE_NAMES.index(on)]] * scale_bp / 3, scale_bp, np.full_like(scale_bp, 0.2)


CALIBRATIONS = {h: Calibration(2.0, 1.3) for h in HORIZONS_S}
MODEL = ServingModel("m1", True, CALIBRATIONS, lambda rows: lean(rows, "imbalance"))
CHALLENGER = ServingModel("m2", True, CALIBRATIONS, lambda rows: lean(rows, "microprice"))


def receipts_of(
    stream: Iterable[TickBatch],
    ring: BarRing | None = None,
    first_sequence: int = 0,
    model: ServingModel | None = MODEL,
) -> list[dict[str, Any]]:
    """The receipts of `stream`, through JSON and back, as one reads them."""
    ring, memory = ring or BarRing(LATENESS_US), Memory()
    receipts = []
    for sequence, batch in enumerate(stream, first_sequence):
        for instant_us in ring.fold(batch, PREDICT_EVERY_US):
            memory.resolve(instant_us, lambda us: mid_at(ring.bars, us))
            features = features_record(batch.symbol, ring)
            if features is None:
                continue
            record = prediction_record(features, model, None, memory, TERMS, lambda: 0.0)
            if record["horizons"]:
                record["challenger"] = challenger_record(record, CHALLENGER, memory)
            record |= {
                "late_ids": ring.late_ids,
                "late_update_ids": ring.late_update_ids,
                "history_from_us": ring.history_from_us,
                "sequence": str(sequence),
                "latency_ms": 150,
            }
            ring.late_ids, ring.late_update_ids = [], []
            memory.expect(record)
            receipts.append(json.loads(json.dumps(record)))
    return receipts


def through_bronze(stream: Iterable[TickBatch]) -> tuple[Trades, Quotes]:
    """The ticks of `stream` as bronze gives them back, in stream order."""
    rows = [row for batch in stream for row in bronze.market_data(batch)]
    return bronze.ticks_from(bronze.read_file(bronze.write_file(rows), "x"))

"""From a closed bar to the records people read: the features of a second and the prediction made on them.

Both are plain dictionaries under the names of the contract (docs/contracts.md), ready for JSON. Whatever
is not known is None; it is never filled in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tickcast.bars import BAR_US, WINDOW_BARS, BarRing, mids
from tickcast.features import FEATURE_NAMES, Floats, feature_rows
from tickcast.model import Calibration, forecast
from tickcast.ticks import SCALE

PREDICT_EVERY_US = 1_000_000
WINDOW_S = WINDOW_BARS * BAR_US // 1_000_000

# features (rows, F) -> move_bp, scale_bp, p_flat, each (rows, H)
RunModel = Callable[[Floats], tuple[Floats, Floats, Floats]]

# Why a prediction is a fallback.
NO_MODEL = "no_model"
MODEL_REFUSED = "model_refused"
NO_QUOTES = "no_quotes"
WARMING_UP = "warming_up"
STALE_FEATURES = "stale_features"


@dataclass(frozen=True)
class ServingModel:
    model_id: str
    provisional: bool
    calibrations: dict[int, Calibration]
    run: RunModel


def features_record(symbol: str, ring: BarRing) -> dict[str, Any] | None:
    """The features as of the newest closed bar; None while neither a trade nor a quote is known.

    `timestamp` s, `price`, `vwap` in quote currency, `volume` in base currency and `price_change` in
    percent over the window (a minute).
    """
    bars, bar = ring.bars, ring.bars[-1]
    mid_e8 = float(mids(bars[-1:])[0])
    has_quote, has_trade = not np.isnan(mid_e8), bar["last_trade_price"] > 0
    if not has_quote and not has_trade:
        return None
    mid = mid_e8 / SCALE if has_quote else None
    price = float(bar["last_trade_price"]) / SCALE if has_trade else mid
    volume = int(bars["buy_qty"].sum() + bars["sell_qty"].sum())
    earlier = bars["last_trade_price"][bars["last_trade_price"] > 0]
    vector = feature_rows(bars, 1)[0]
    return {
        "symbol": symbol,
        "timestamp": int(bar["end_us"]) // 1_000_000,
        "window_s": WINDOW_S,
        "price": price,
        "volume": volume / SCALE,
        "vwap": int(bars["notional"].sum()) / volume if volume else None,
        "price_change": float(bar["last_trade_price"] / earlier[0] - 1) * 100 if len(earlier) else None,
        "mid": mid,
        "bid_price": float(bar["bid_price"]) / SCALE if has_quote else None,
        "ask_price": float(bar["ask_price"]) / SCALE if has_quote else None,
        "trade_count": int(bars["trade_count"].sum()),
        "last_trade_id": int(bar["last_trade_id"]) or None,
        "update_id": int(bar["update_id"]) or None,
        "features": None
        if np.isnan(vector).any()
        else dict(zip(FEATURE_NAMES, vector.tolist(), strict=True)),
    }


def prediction_record(
    features: dict[str, Any],
    model: ServingModel | None,
    refusal: str | None,
    horizon_s: int,
    clock_ms: Callable[[], float],
) -> dict[str, Any]:
    """The prediction on `features`; a fallback that says why where the model cannot give one.

    `refusal` is why there is no model in force, if there is a reason beyond its absence. `clock_ms`
    times the inference. `latency_ms` is left for the writer, who alone knows when it was written.
    """
    timestamp_ms = features["timestamp"] * 1000
    record: dict[str, Any] = {
        "id": f"{features['symbol']}-{timestamp_ms}",
        "symbol": features["symbol"],
        "timestamp": timestamp_ms,
        "basis_price": features["mid"] if features["mid"] is not None else features["price"],
        "horizon_s": horizon_s,
        "target_time": timestamp_ms + horizon_s * 1000,
        "model_id": model.model_id if model else None,
        "provisional": model.provisional if model else None,
        "last_trade_id": features["last_trade_id"],
        "update_id": features["update_id"],
    }
    reason = _why_not(features, model, refusal)
    if model is None or reason:
        return record | fallback(record["basis_price"], str(reason))
    vector = np.array([[features["features"][name] for name in FEATURE_NAMES]])
    started_ms = clock_ms()
    move_bp, scale_bp, p_flat = model.run(vector)
    inference_ms = clock_ms() - started_ms
    answers = forecast(record["basis_price"], move_bp[0], scale_bp[0], p_flat[0], model.calibrations)
    primary = next(answer for answer in answers if answer.horizon_s == horizon_s)
    return record | {
        "source": "model",
        "reason": None,
        **primary.as_dict(),
        "inference_ms": round(inference_ms, 3),
        "horizons": {str(answer.horizon_s): answer.as_dict() for answer in answers},
    }


def fallback(known_price: float, reason: str) -> dict[str, Any]:
    """The part of an answer that says: no prediction, this is the last known price, and why."""
    return {
        "source": "fallback",
        "reason": reason,
        "predicted_price": known_price,
        "confidence": 0.0,
        "expected_move_bp": None,
        "p_flat": None,
        "lower": None,
        "upper": None,
        "inference_ms": None,
        "horizons": {},
    }


def _why_not(features: dict[str, Any], model: ServingModel | None, refusal: str | None) -> str | None:
    if features["mid"] is None:
        return NO_QUOTES
    if features["features"] is None:
        return WARMING_UP
    return None if model else (refusal or NO_MODEL)

"""From a closed bar to the records people read: the features of a second and the prediction made on them.

Both are plain dictionaries under the names of the contract (docs/contracts.md), ready for JSON. Whatever
is not known is None; it is never filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec.structs import asdict

from tickcast.features.bars import BarRing, Seconds, mids, proxy_mids
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES, Floats, feature_rows
from tickcast.market.sums import total
from tickcast.market.ticks import SCALE
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import Calibration, HorizonForecast, ModelError, forecast
from tickcast.serving.outcomes import PendingPredictions
from tickcast.units import SECOND_US

PREDICT_EVERY_US = SECOND_US
WINDOW_S = 60

# features (rows, F) -> move_bp, scale_bp, p_flat, each (rows, H)
RunModel = Callable[[Floats], tuple[Floats, Floats, Floats]]
Record = dict[str, Any]

# Why a prediction is a fallback.
NO_QUOTES = "no_quotes"  # the numbers are the masked model's, where there is one
WARMING_UP = "warming_up"
NO_MODEL = "no_model"
MODEL_REFUSED = "model_refused"
OUTSIDE_SUPPORT = "outside_support"
STALE_FEATURES = "stale_features"  # judged where predictions are read
REASONS = (NO_QUOTES, WARMING_UP, NO_MODEL, MODEL_REFUSED, OUTSIDE_SUPPORT, STALE_FEATURES)


@dataclass(frozen=True)
class ServingModel:
    """A model as it serves. `support` is the lowest and highest value of a feature that it was trained on,
    for the features that its card names."""

    model_id: str
    provisional: bool
    calibrations: Mapping[int, Calibration]
    run: RunModel
    support: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    masked_calibrations: Mapping[int, Calibration] | None = None  # for rows without quotes, if they are known

    def calibrators(self, memory: PendingPredictions, vector: Mapping[str, float]) -> dict[int, Calibrator]:
        """What its answer on `vector` is calibrated by. Without quotes that is the card alone: such answers
        are fallbacks, from which nothing is learnt."""
        if self.masked_calibrations and not vector["has_quotes"]:
            return {h: Calibrator.of(calibration) for h, calibration in self.masked_calibrations.items()}
        return memory.calibrators_of(self.model_id, self.calibrations)


@dataclass(frozen=True)
class TradingTerms:
    """What an answer is judged by: the horizon told first, the fee of one side of a trade (bp of the price),
    and the confidence below which a move counts as noise."""

    primary_horizon_s: int
    fee_bp: float
    min_confidence: float


@dataclass(frozen=True)
class Freshness:
    """How old the features are when they are read. `claim_age_s`: since the instant up to which the stream
    was claimed to be complete in them. `tick_age_s`: since their newest tick; None if that is not known.
    `is_quiet`: the tick is old because nothing has happened since, as the exchange itself says."""

    claim_age_s: float
    tick_age_s: float | None
    is_quiet: bool
    is_stale: bool


def freshness(features: Mapping[str, Any], now_ms: float, limit_s: float) -> Freshness:
    """The freshness at `now_ms` of features as they are stored: nothing in them may be older than `limit_s`,
    but for ticks of a market that was quiet no longer ago than that."""
    claim_age_s = now_ms / 1000 - features["timestamp"]
    tick_us, quiet_us = features.get("last_tick_us"), features.get("quiet_us")
    tick_age_s = None if tick_us is None else now_ms / 1000 - tick_us / 1e6
    is_old = tick_age_s is not None and tick_age_s > limit_s
    is_known_quiet = quiet_us is not None and abs(now_ms / 1000 - quiet_us / 1e6) <= limit_s
    is_stale = claim_age_s > limit_s or (is_old and not is_known_quiet)
    return Freshness(claim_age_s, tick_age_s, is_quiet=is_old and not is_stale, is_stale=is_stale)


def features_record(symbol: str, ring: BarRing) -> Record | None:
    """The features as of the newest closed bar; None while neither a trade nor a quote is known.

    `timestamp` s, `price`, `vwap` in quote currency, `volume` in base currency and `price_change` (of the
    mid, or of what stands in for it) in percent, over the window (a minute).
    """
    bar, minute = ring.bars[-1], ring.seconds[-WINDOW_S:]
    mid, proxy_mid = _price(mids(ring.bars[-1:])), _price(proxy_mids(ring.bars[-1:]))
    price = int(bar["last_trade_price"]) / SCALE if bar["last_trade_price"] > 0 else mid
    if price is None:
        return None
    volume = total(minute["buy_qty"]) + total(minute["sell_qty"])
    (vector,) = feature_rows(ring.bars, ring.seconds, 1)
    return {
        "symbol": symbol,
        "timestamp": int(bar["end_us"]) // 1_000_000,
        "window_s": WINDOW_S,
        "price": price,
        "volume": volume / SCALE,
        "vwap": total(minute["notional"]) / (volume * SCALE) if volume else None,
        "price_change": _change_percent(ring.seconds, "proxy2" if mid is None else "mid2"),
        "mid": mid,
        "proxy_mid": proxy_mid,
        "bid_price": int(bar["bid_price"]) / SCALE if mid is not None else None,
        "ask_price": int(bar["ask_price"]) / SCALE if mid is not None else None,
        "trade_count": int(minute["trade_count"].sum()),
        "last_trade_id": int(bar["last_trade_id"]) or None,
        "update_id": int(bar["update_id"]) or None,
        "features": None
        if np.isnan(vector).any()
        else dict(zip(FEATURE_NAMES, vector.tolist(), strict=True)),
    }


def prediction_record(
    features: Record,
    model: ServingModel | None,
    refusal: str | None,
    memory: PendingPredictions,
    terms: TradingTerms,
    clock_ms: Callable[[], float],
    report: Callable[[str], object] = str,
) -> Record:
    """The prediction on `features`; a fallback that says why where the model does not stand for one.

    `refusal` is why there is no model in force, if there is a reason beyond its absence. `memory` has the
    calibrators. `clock_ms` times the inference; `report` gets the text of an error in it. What only the
    stream knows is left for who reads it.
    """
    vector = features["features"]
    outside = outside_support(vector, model) if model and vector else []
    reason = _why_not(features, model, refusal, outside)
    record = _known(features, model, terms) | {"outside": outside}
    if model is None or vector is None or outside:
        return record | fallback(record["basis_price"], str(reason))
    calibrators = model.calibrators(memory, vector)
    calibrations = {horizon_s: calibrator.calibration for horizon_s, calibrator in calibrators.items()}
    started_ms = clock_ms()
    try:
        forecasts = run(model, vector, record["basis_price"], calibrations)
    except ModelError as error:
        report(str(error))
        return record | fallback(record["basis_price"], MODEL_REFUSED)
    inference_ms = clock_ms() - started_ms
    horizons = {
        str(answer.horizon_s): asdict(answer)
        | _judged(answer, calibrations[answer.horizon_s], terms, record["cost_bp"], is_fallback=bool(reason))
        for answer in forecasts
    }
    return record | {
        "source": "fallback" if reason else "model",
        "reason": reason,
        **horizons[str(terms.primary_horizon_s)],
        "inference_ms": round(inference_ms, 3),
        "horizons": horizons,
        "calibrator": {str(h): calibrator.as_dict() for h, calibrator in calibrators.items()},
    }


def challenger_record(prediction: Record, challenger: ServingModel, memory: PendingPredictions) -> Record:
    """What `challenger` says in shadow, on the vector of `prediction`. Raises `ModelError` when it says
    nothing that a number could be made of."""
    calibrators = challenger.calibrators(memory, prediction["features"])
    calibrations = {horizon_s: calibrator.calibration for horizon_s, calibrator in calibrators.items()}
    forecasts = run(challenger, prediction["features"], prediction["basis_price"], calibrations)
    return {
        "model_id": challenger.model_id,
        "horizons": {str(answer.horizon_s): asdict(answer) for answer in forecasts},
        "calibrator": {str(h): calibrator.as_dict() for h, calibrator in calibrators.items()},
    }


def fallback(known_price: float, reason: str) -> Record:
    """The part of an answer that says: no prediction, this is the last known price, and why."""
    return {
        "source": "fallback",
        "reason": reason,
        "predicted_price": known_price,
        "confidence": 0.0,
        "expected_move_bp": None,
        "scale_bp": None,
        "p_flat": None,
        "lower": None,
        "upper": None,
        "noise_bp": None,
        "edge_bp": None,
        "abstains": True,
        "inference_ms": None,
        "horizons": {},
        "calibrator": {},
    }


def outside_support(vector: Mapping[str, float], model: ServingModel) -> list[str]:
    """The features of `vector` that lie outside what `model` was trained on."""
    return [name for name, (low, high) in model.support.items() if not low <= vector[name] <= high]


def run(
    model: ServingModel,
    vector: Mapping[str, float],
    basis_price: float,
    calibrations: Mapping[int, Calibration],
) -> list[HorizonForecast]:
    """The forecasts of `model` for every horizon. Raises `ModelError` when they are no finite numbers, or the
    model does not run."""
    try:
        rows = model.run(np.array([[vector[name] for name in FEATURE_NAMES]]))
        move_bp, scale_bp, p_flat = (row[0] for row in rows)
    except Exception as error:  # onnxruntime raises its own classes, with no common base
        raise ModelError(f"model {model.model_id} does not run: {type(error).__name__}: {error}") from error
    is_sound = (
        np.isfinite([move_bp, scale_bp, p_flat]).all()
        and (scale_bp > 0).all()
        and ((p_flat >= 0) & (p_flat <= 1)).all()
    )
    forecasts = forecast(basis_price, move_bp, scale_bp, p_flat, dict(calibrations)) if is_sound else []
    prices = ((each.predicted_price, each.lower, each.upper, each.confidence) for each in forecasts)
    if not is_sound or not all(math.isfinite(value) for of_horizon in prices for value in of_horizon):
        raise ModelError(f"model {model.model_id} answers {move_bp}, {scale_bp}, {p_flat}")
    return forecasts


def _known(features: Record, model: ServingModel | None, terms: TradingTerms) -> Record:
    """What is known whether or not there is a model."""
    timestamp_ms = features["timestamp"] * 1000
    mid, proxy_mid = features["mid"], features["proxy_mid"]
    spread_bp = None if mid is None else (features["ask_price"] - features["bid_price"]) / mid * 1e4
    return {
        "id": f"{features['symbol']}-{timestamp_ms}",
        "symbol": features["symbol"],
        "timestamp": timestamp_ms,
        "horizon_s": terms.primary_horizon_s,
        "target_time": timestamp_ms + terms.primary_horizon_s * 1000,
        "basis_price": next(price for price in (mid, proxy_mid, features["price"]) if price is not None),
        "spread_bp": spread_bp,
        "fee_bp": terms.fee_bp,
        # In and out again: the spread is crossed once, the fee paid twice.
        "cost_bp": None if spread_bp is None else spread_bp + 2 * terms.fee_bp,
        "model_id": model.model_id if model else None,
        "provisional": model.provisional if model else None,
        "challenger": None,
        "last_trade_id": features["last_trade_id"],
        "update_id": features["update_id"],
        "features": features["features"],
        "feature_hash": FEATURE_HASH,
    }


def _why_not(
    features: Record, model: ServingModel | None, refusal: str | None, outside: list[str]
) -> str | None:
    if features["mid"] is None:
        return NO_QUOTES
    if features["features"] is None:
        return WARMING_UP
    if model is None:
        return refusal or NO_MODEL
    return OUTSIDE_SUPPORT if outside else None


def _judged(
    answer: HorizonForecast,
    calibration: Calibration,
    terms: TradingTerms,
    cost_bp: float | None,
    *,
    is_fallback: bool,
) -> Record:
    """What a trader asks first. `noise_bp` is the move at which the calibrated confidence comes to
    `min_confidence` (None: none does); an answer with less of a move, or without a model that stands for
    it, abstains. `edge_bp` is what the move leaves after the cost."""
    move_bp, noise_bp = (
        abs(answer.expected_move_bp),
        calibration.noise_bp(answer.scale_bp, terms.min_confidence),
    )
    return {
        "noise_bp": noise_bp,
        "edge_bp": None if cost_bp is None else move_bp - cost_bp,
        "abstains": is_fallback or noise_bp is None or move_bp < noise_bp,
    }


def _price(price_e8: Floats) -> float | None:
    return None if np.isnan(price_e8[0]) else float(price_e8[0]) / SCALE


def _change_percent(seconds: Seconds, name: str) -> float | None:
    known = seconds[name][seconds[name] > 0]
    return float(known[-1] / known[0] - 1) * 100 if len(known) else None

"""From a closed bar to the records people read: the features of a second and the prediction made on them.

Whatever is not known is None; it is never filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from msgspec.structs import asdict, replace

from tickcast.features.bars import Seconds, mids, proxy_mids
from tickcast.features.ring import BarRing
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES, Floats, feature_rows
from tickcast.market.sums import total
from tickcast.market.ticks import SCALE
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import Calibration, HorizonForecast, ModelError, forecast
from tickcast.serving.outcomes import PendingPredictions
from tickcast.serving.records import ChallengerForecast, Features, HorizonPrediction, Prediction, Timing
from tickcast.units import SECOND_US

PREDICT_EVERY_US = SECOND_US
WINDOW_S = 60

# features (rows, F) -> move_bp, scale_bp, p_flat, each (rows, H)
RunModel = Callable[[Floats], tuple[Floats, Floats, Floats]]

# Why a prediction is a fallback.
NO_QUOTES = "no_quotes"  # the numbers are the masked model's, where there is one
WARMING_UP = "warming_up"
NO_MODEL = "no_model"
MODEL_REFUSED = "model_refused"
OUTSIDE_SUPPORT = "outside_support"
STALE_FEATURES = "stale_features"  # decided where predictions are read
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

    def calibrators(self, pending: PendingPredictions, vector: Mapping[str, float]) -> dict[int, Calibrator]:
        """What its answer on `vector` is calibrated by, as it stands. Without quotes that is the card alone:
        such answers are fallbacks, which calibrators are not updated by."""
        if self.masked_calibrations and not vector["has_quotes"]:
            return {h: Calibrator.of(calibration) for h, calibration in self.masked_calibrations.items()}
        known = pending.calibrators_of(self.model_id, self.calibrations)
        return {h: copy(calibrator) for h, calibrator in known.items()}


@dataclass(frozen=True)
class TradingTerms:
    """By which an answer is evaluated: the primary horizon, the fee of one side of a trade (bp of the price),
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


def freshness(features: Features, now_ms: float, limit_s: float) -> Freshness:
    """The freshness of `features` at `now_ms`: nothing in them may be older than `limit_s`, but for ticks of
    a market that was quiet no longer ago than that."""
    claim_age_s = now_ms / 1000 - features.timestamp
    tick_us, quiet_us = features.last_tick_us, features.quiet_us
    tick_age_s = None if tick_us is None else now_ms / 1000 - tick_us / 1e6
    is_old = tick_age_s is not None and tick_age_s > limit_s
    is_known_quiet = quiet_us is not None and abs(now_ms / 1000 - quiet_us / 1e6) <= limit_s
    is_stale = claim_age_s > limit_s or (is_old and not is_known_quiet)
    return Freshness(claim_age_s, tick_age_s, is_quiet=is_old and not is_stale, is_stale=is_stale)


def features_record(symbol: str, ring: BarRing) -> Features | None:
    """The features as of the newest closed bar; None while neither a trade nor a quote is known."""
    bar, minute = ring.bars[-1], ring.seconds[-WINDOW_S:]
    mid, proxy_mid = _price(mids(ring.bars[-1:])), _price(proxy_mids(ring.bars[-1:]))
    price = int(bar["last_trade_price"]) / SCALE if bar["last_trade_price"] > 0 else mid
    if price is None:
        return None
    volume = total(minute["buy_qty"]) + total(minute["sell_qty"])
    (vector,) = feature_rows(ring.bars, ring.seconds, 1)
    return Features(
        symbol=symbol,
        timestamp=int(bar["end_us"]) // 1_000_000,
        window_s=WINDOW_S,
        price=price,
        volume=volume / SCALE,
        vwap=total(minute["notional"]) / (volume * SCALE) if volume else None,
        price_change=_change_percent(ring.seconds, "proxy2" if mid is None else "mid2"),
        mid=mid,
        proxy_mid=proxy_mid,
        bid_price=int(bar["bid_price"]) / SCALE if mid is not None else None,
        ask_price=int(bar["ask_price"]) / SCALE if mid is not None else None,
        trade_count=int(minute["trade_count"].sum()),
        last_trade_id=int(bar["last_trade_id"]) or None,
        update_id=int(bar["update_id"]) or None,
        features=None if np.isnan(vector).any() else dict(zip(FEATURE_NAMES, vector.tolist(), strict=True)),
        last_tick_us=max(int(bar["last_trade_us"]), int(bar["last_quote_us"])),
        quiet_us=ring.watermark.quiet_us if ring.watermark.quiet_us >= 0 else None,
    )


def prediction_record(
    features: Features,
    model: ServingModel | None,
    refusal: str | None,
    pending: PendingPredictions,
    terms: TradingTerms,
    clock_ms: Callable[[], float],
    report: Callable[[str], object] = str,
) -> Prediction:
    """The prediction on `features`; a fallback that says why where the model does not answer.

    `refusal` is why there is no active model, if there is a reason beyond its absence. `pending` has the
    calibrators. `clock_ms` times the inference; `report` gets the text of an error in it. What only the
    stream knows is left for its reader.
    """
    vector = features.features
    outside = outside_support(vector, model) if model and vector else []
    reason = _why_fallback(features, model, refusal, outside)
    without = _without_forecast(features, model, terms, reason, outside)
    if model is None or vector is None or outside:
        return without
    calibrators = model.calibrators(pending, vector)
    started_ms = clock_ms()
    try:
        forecasts = run(model, vector, without.basis_price, _calibrations(calibrators))
    except ModelError as error:
        report(str(error))
        return replace(without, reason=MODEL_REFUSED)
    inference_ms = clock_ms() - started_ms
    horizons = {
        answer.horizon_s: _evaluated(
            answer,
            calibrators[answer.horizon_s].calibration,
            terms,
            without.cost_bp,
            is_fallback=bool(reason),
        )
        for answer in forecasts
    }
    return replace(
        without,
        source="fallback" if reason else "model",
        **asdict(horizons[terms.primary_horizon_s]),
        inference_ms=round(inference_ms, 3),
        horizons=horizons,
        calibrator=calibrators,
    )


def challenger_record(
    prediction: Prediction, challenger: ServingModel, pending: PendingPredictions
) -> ChallengerForecast:
    """What `challenger` forecasts in shadow, on the vector of `prediction`. Raises `ModelError` when its
    output is not finite."""
    vector = prediction.features or {}
    calibrators = challenger.calibrators(pending, vector)
    forecasts = run(challenger, vector, prediction.basis_price, _calibrations(calibrators))
    return ChallengerForecast(
        model_id=challenger.model_id,
        horizons={answer.horizon_s: answer for answer in forecasts},
        calibrator=calibrators,
    )


def fallback(prediction: Prediction, known_price: float, reason: str) -> Prediction:
    """`prediction` without its forecasts: this is the last known price, and why there is no more."""
    return replace(prediction, **_no_forecast(known_price, reason))


def timing_of(points_ms: list[float]) -> Timing:
    """Where the latency went, from the points in time between one part and the next: nine of them, from the
    bar's end to the prediction handed to Redis."""
    return Timing(**dict(zip(Timing.__struct_fields__, _lengths(points_ms), strict=True)))


def _lengths(points: list[float]) -> list[float]:
    return [round(end - start, 3) for start, end in pairwise(points)]


def _no_forecast(known_price: float, reason: str | None) -> dict[str, Any]:
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
    """The forecasts of `model` for every horizon. Raises `ModelError` when they are not finite, or the model
    does not run."""
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


def _without_forecast(
    features: Features,
    model: ServingModel | None,
    terms: TradingTerms,
    reason: str | None,
    outside: list[str],
) -> Prediction:
    """What is known whether or not a model answers, as a fallback."""
    timestamp_ms = features.timestamp * 1000
    mid, proxy_mid, bid, ask = features.mid, features.proxy_mid, features.bid_price, features.ask_price
    basis_price = next(price for price in (mid, proxy_mid, features.price) if price is not None)
    spread_bp = None if mid is None or bid is None or ask is None else (ask - bid) / mid * 1e4
    return Prediction(
        id=f"{features.symbol}-{timestamp_ms}",
        symbol=features.symbol,
        timestamp=timestamp_ms,
        horizon_s=terms.primary_horizon_s,
        target_time=timestamp_ms + terms.primary_horizon_s * 1000,
        basis_price=basis_price,
        spread_bp=spread_bp,
        fee_bp=terms.fee_bp,
        # In and out again: the spread is crossed once, the fee paid twice.
        cost_bp=None if spread_bp is None else spread_bp + 2 * terms.fee_bp,
        outside=outside,
        model_id=model.model_id if model else None,
        provisional=model.provisional if model else None,
        challenger=None,
        last_trade_id=features.last_trade_id,
        update_id=features.update_id,
        features=features.features,
        feature_hash=FEATURE_HASH,
        **_no_forecast(basis_price, reason),
    )


def _why_fallback(
    features: Features, model: ServingModel | None, refusal: str | None, outside: list[str]
) -> str | None:
    if features.mid is None:
        return NO_QUOTES
    if features.features is None:
        return WARMING_UP
    if model is None:
        return refusal or NO_MODEL
    return OUTSIDE_SUPPORT if outside else None


def _calibrations(calibrators: Mapping[int, Calibrator]) -> dict[int, Calibration]:
    return {horizon_s: calibrator.calibration for horizon_s, calibrator in calibrators.items()}


def _evaluated(
    answer: HorizonForecast,
    calibration: Calibration,
    terms: TradingTerms,
    cost_bp: float | None,
    *,
    is_fallback: bool,
) -> HorizonPrediction:
    """`answer` with what a trader asks first. `noise_bp` is the move at which the calibrated confidence comes
    to `min_confidence` (None: none does); an answer with less of a move, or a fallback, abstains. `edge_bp`
    is what the move leaves after the cost."""
    move_bp = abs(answer.expected_move_bp)
    noise_bp = calibration.noise_bp(answer.scale_bp, terms.min_confidence)
    return HorizonPrediction(
        **asdict(answer),
        noise_bp=noise_bp,
        edge_bp=None if cost_bp is None else move_bp - cost_bp,
        abstains=is_fallback or noise_bp is None or move_bp < noise_bp,
    )


def _price(price_e8: Floats) -> float | None:
    return None if np.isnan(price_e8[0]) else float(price_e8[0]) / SCALE


def _change_percent(seconds: Seconds, name: str) -> float | None:
    known = seconds[name][seconds[name] > 0]
    return float(known[-1] / known[0] - 1) * 100 if len(known) else None

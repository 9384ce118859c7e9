"""From a closed bar to the records that are served: the features of a second and the prediction made on them.

What is not known is None; it is never filled in.
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
from tickcast.serving.records import (
    ChallengerForecast,
    Features,
    HorizonPrediction,
    PathForecast,
    Prediction,
    Timing,
)
from tickcast.units import SECOND_US

PREDICT_EVERY_US = SECOND_US
WINDOW_S = 60

# features (rows, F) -> move_bp, scale_bp, p_flat, each (rows, H)
RunModel = Callable[[Floats], tuple[Floats, Floats, Floats]]

# Why a prediction is a fallback.
NO_QUOTES = "no_quotes"  # with the masked model's numbers, if there are any
WARMING_UP = "warming_up"
NO_MODEL = "no_model"
MODEL_REFUSED = "model_refused"
OUTSIDE_SUPPORT = "outside_support"
STALE_FEATURES = "stale_features"  # decided when predictions are served
REASONS = (NO_QUOTES, WARMING_UP, NO_MODEL, MODEL_REFUSED, OUTSIDE_SUPPORT, STALE_FEATURES)


@dataclass(frozen=True)
class ServingModel:
    """A loaded model. `support` is the lowest and highest value that it was trained on, by feature, for the
    features that its card names."""

    model_id: str
    provisional: bool
    calibrations: Mapping[int, Calibration]
    run: RunModel
    support: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    masked_calibrations: Mapping[int, Calibration] | None = None  # for rows without quotes, if they are known

    def calibrators(self, pending: PendingPredictions, vector: Mapping[str, float]) -> dict[int, Calibrator]:
        """Copies of the calibrators for a forecast on `vector`. Without quotes they are always the card's:
        such forecasts are fallbacks, which update no calibrators."""
        if self.masked_calibrations and not vector["has_quotes"]:
            return {h: Calibrator.of(calibration) for h, calibration in self.masked_calibrations.items()}
        known = pending.calibrators_of(self.model_id, self.calibrations)
        return {h: copy(calibrator) for h, calibrator in known.items()}


@dataclass(frozen=True)
class TradingTerms:
    """What a forecast is evaluated by: the primary horizon, the fee of one side of a trade (bp of the price),
    and the confidence below which a move counts as noise."""

    primary_horizon_s: int
    fee_bp: float
    min_confidence: float


@dataclass(frozen=True)
class Freshness:
    """How old the features are when they are read. `claim_age_s`: since the instant up to which ingest
    claimed the stream complete. `tick_age_s`: since their newest tick; None if that is not known. `is_quiet`:
    the tick is old, but the exchange itself has none newer."""

    claim_age_s: float
    tick_age_s: float | None
    is_quiet: bool
    is_stale: bool


def freshness(forecast: PathForecast, now_ms: float, limit_s: float) -> Freshness:
    """The freshness of `forecast` at `now_ms` of the exchange's clock: it is stale if the claim is older than
    `limit_s`, or the newest tick is and the market was not known to be quiet within `limit_s`."""
    claim_age_s = (now_ms - forecast.timestamp) / 1000
    tick_us, quiet_us = forecast.last_tick_us, forecast.quiet_us
    tick_age_s = None if tick_us is None else now_ms / 1000 - tick_us / 1e6
    is_old = tick_age_s is not None and tick_age_s > limit_s
    is_known_quiet = quiet_us is not None and abs(now_ms / 1000 - quiet_us / 1e6) <= limit_s
    is_stale = claim_age_s > limit_s or (is_old and not is_known_quiet)
    return Freshness(claim_age_s, tick_age_s, is_quiet=is_old and not is_stale, is_stale=is_stale)


def evaluated(path_forecast: PathForecast, age_s: float) -> dict[int, HorizonPrediction]:
    """By horizon what is still to come for a reader at the age of `age_s`, and what it means for a trader;
    empty where no model answers. A forecast with a reason, or a move within the noise, abstains."""
    if path_forecast.path is None:
        return {}
    calibrations = _calibrations(path_forecast.calibrator)
    answers = {}
    for answer in forecast(path_forecast.basis_price, path_forecast.path, age_s, calibrations):
        move_bp, cost_bp = abs(answer.expected_move_bp), path_forecast.cost_bp
        noise_bp = calibrations[answer.horizon_s].noise_bp(answer.scale_bp, path_forecast.min_confidence)
        answers[answer.horizon_s] = HorizonPrediction(
            **asdict(answer),
            noise_bp=noise_bp,
            edge_bp=None if cost_bp is None else move_bp - cost_bp,
            worth_trading=None if cost_bp is None else move_bp > cost_bp,
            abstains=path_forecast.reason is not None or noise_bp is None or move_bp < noise_bp,
        )
    return answers


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
    """The prediction on `features`; a fallback with its reason where the model gives no forecast.

    `refusal` is why there is no active model, if there is a reason beyond its absence. `pending` has the
    calibrators. `clock_ms` times the inference; `report` gets the text of an error in it. What only the
    stream knows is left for the caller to add.
    """
    vector = features.features
    # Features beyond what the model was trained on.
    support = model.support if model and vector else {}
    outside = [name for name, (low, high) in support.items() if vector and not low <= vector[name] <= high]
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
        answer.horizon_s: _evaluated(answer, calibrators[answer.horizon_s].calibration, terms, without)
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
    """The forecast of `challenger`, in shadow, on the vector of `prediction`. Raises `ModelError` as
    `run`."""
    vector = prediction.features or {}
    calibrators = challenger.calibrators(pending, vector)
    forecasts = run(challenger, vector, prediction.basis_price, _calibrations(calibrators))
    return ChallengerForecast(
        model_id=challenger.model_id,
        horizons={answer.horizon_s: answer for answer in forecasts},
        calibrator=calibrators,
    )


def fallback(prediction: Prediction, known_price: float, reason: str) -> Prediction:
    """`prediction` with the last known price in place of its forecasts."""
    return replace(prediction, **_no_forecast(known_price, reason))


def timing_of(points_ms: list[float]) -> Timing:
    """The parts of the latency between nine points in time, from the bar's end to the prediction handed to
    Redis."""
    return Timing(*(round(end - start, 3) for start, end in pairwise(points_ms)))


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


def run(
    model: ServingModel,
    vector: Mapping[str, float],
    basis_price: float,
    calibrations: Mapping[int, Calibration],
) -> list[HorizonForecast]:
    """The forecasts of `model` for every horizon. Raises `ModelError` if one is not finite or has a price or
    bound that is not positive, which no record can have, or if the model does not run."""
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
    if not is_sound or not all(_is_valid(each) for each in forecasts):
        raise ModelError(f"model {model.model_id} answers {move_bp}, {scale_bp}, {p_flat}")
    return forecasts


def _is_valid(answer: HorizonForecast) -> bool:
    prices = answer.predicted_price, answer.lower, answer.upper
    return math.isfinite(answer.confidence) and all(0 < price < math.inf for price in prices)


def _without_forecast(
    features: Features,
    model: ServingModel | None,
    terms: TradingTerms,
    reason: str | None,
    outside: list[str],
) -> Prediction:
    """The fallback: what is known without a model."""
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
        # A round trip crosses the spread once and pays the fee twice.
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
    without: Prediction,
) -> HorizonPrediction:
    """`answer` with what it means for a trader. `noise_bp` is the move at which the calibrated confidence
    reaches `min_confidence` (None: none does); an answer with a smaller move, or a fallback, abstains.
    `edge_bp` is the size of the move less the cost."""
    move_bp = abs(answer.expected_move_bp)
    noise_bp = calibration.noise_bp(answer.scale_bp, terms.min_confidence)
    return HorizonPrediction(
        **asdict(answer),
        noise_bp=noise_bp,
        edge_bp=None if without.cost_bp is None else move_bp - without.cost_bp,
        abstains=without.reason is not None or noise_bp is None or move_bp < noise_bp,
    )


def _price(price_e8: Floats) -> float | None:
    return None if np.isnan(price_e8[0]) else float(price_e8[0]) / SCALE


def _change_percent(seconds: Seconds, name: str) -> float | None:
    known = seconds[name][seconds[name] > 0]
    return float(known[-1] / known[0] - 1) * 100 if len(known) else None

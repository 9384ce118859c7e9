"""From the bars of a symbol to what is served: the features, the forecast made on them, and its receipt.

A forecast (`PathForecast`) is all that an answer needs; it is evaluated when it is read (`evaluated`). Its
receipt (`Prediction`) is written after it. What is not known is None; it is never filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from msgspec.structs import asdict, replace

from tickcast.features.bars import Seconds, proxy_mids
from tickcast.features.ring import View, differences
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES, Floats, newest_row
from tickcast.features.windows import NewestWindows
from tickcast.market.sums import total
from tickcast.market.ticks import SCALE
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import (
    PATH_S,
    Calibration,
    HorizonForecast,
    ModelError,
    Path,
    RunModel,
    forecast,
)
from tickcast.model.reference import ReferenceWeights, corrected
from tickcast.serving.outcomes import PendingPredictions
from tickcast.serving.records import (
    ChallengerForecast,
    Features,
    HorizonPrediction,
    PathForecast,
    Prediction,
    Timing,
    delivered_ms,
)

H = TypeVar("H", bound=HorizonForecast)

WINDOW_S = 60
_DIGITS = 5  # of a path, after the point
_HAS_QUOTES = FEATURE_NAMES.index("has_quotes")

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
    reference: Mapping[str, ReferenceWeights] = field(default_factory=dict)  # by symbol

    def paths(self, symbols: Sequence[str], features: Floats) -> tuple[Floats, Floats, Floats]:
        """`move_bp`, `scale_bp` and `p_flat` of rows (N, F) of `symbols` (N,), each (N, J): the network's,
        corrected by what the perpetual says."""
        move_bp, scale_bp, p_flat = self.run(features)
        return corrected(symbols, features, move_bp, scale_bp, self.reference), scale_bp, p_flat

    def calibrators(self, pending: PendingPredictions, *, has_quotes: bool) -> dict[int, Calibrator]:
        """Copies of the calibrators for a forecast. Without quotes they are always the card's: such forecasts
        are fallbacks, which update no calibrators."""
        if self.masked_calibrations and not has_quotes:
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


class Row(NamedTuple):
    """What a forecast is made from: the bars of `symbol` as of an instant, and the feature vector of the last
    of them (F,), None while warming up. Prices are in quote currency; `price` is that of the last trade, else
    the mid."""

    symbol: str
    view: View
    vector: list[float] | None
    price: float
    mid: float | None
    quiet_us: int | None

    @property
    def proxy_mid(self) -> float | None:
        return _price(proxy_mids(self.view.bars[-1:]))

    @property
    def basis_price(self) -> float:
        """The best known price: the mid, the proxy mid, or the last trade's."""
        return next(p for p in (self.mid or self.proxy_mid, self.price) if p is not None)

    @property
    def last_tick_us(self) -> int:
        bar = self.view.bars[-1]
        return max(int(bar["last_trade_us"]), int(bar["last_quote_us"]))


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


# ---------------------------------------------------------------------------------------------- features


def row_of(symbol: str, view: View, quiet_us: int) -> Row | None:
    """The row as of `view`; None while neither a trade nor a quote is known. `quiet_us` is the watermark's,
    negative where nothing is known of a quiet market."""
    if not len(view.bars):
        return None
    windows, bar = NewestWindows(view.bars), view.bars[-1]
    mid = windows.price / SCALE if windows.is_quoted else None
    price = int(bar["last_trade_price"]) / SCALE if bar["last_trade_price"] > 0 else mid
    if price is None:
        return None
    vector = newest_row(windows, view.seconds)
    known = None if any(map(math.isnan, vector)) else vector
    return Row(symbol, view, known, price, mid, quiet_us if quiet_us >= 0 else None)


def features_record(row: Row) -> Features:
    """The features of `row` as they are stored."""
    bar, minute = row.view.bars[-1], row.view.seconds[-WINDOW_S:]
    volume = total(minute["buy_qty"]) + total(minute["sell_qty"])
    return Features(
        symbol=row.symbol,
        timestamp=row.view.as_of_us // 1_000_000,
        window_s=WINDOW_S,
        price=row.price,
        volume=volume / SCALE,
        vwap=total(minute["notional"]) / (volume * SCALE) if volume else None,
        price_change=_change_percent(row.view.seconds, "proxy2" if row.mid is None else "mid2"),
        mid=row.mid,
        proxy_mid=row.proxy_mid,
        bid_price=int(bar["bid_price"]) / SCALE if row.mid is not None else None,
        ask_price=int(bar["ask_price"]) / SCALE if row.mid is not None else None,
        trade_count=int(minute["trade_count"].sum()),
        last_trade_id=int(bar["last_trade_id"]) or None,
        update_id=int(bar["update_id"]) or None,
        features=vector_by_name(row),
        last_tick_us=row.last_tick_us,
        quiet_us=row.quiet_us,
    )


def vector_by_name(row: Row) -> dict[str, float] | None:
    """The feature vector by name, as records have it; None while warming up."""
    return None if row.vector is None else dict(zip(FEATURE_NAMES, map(_short, row.vector), strict=True))


# ---------------------------------------------------------------------------------------------- forecasts


def path_forecasts(
    rows: Sequence[tuple[Row, PendingPredictions]],
    model: ServingModel | None,
    refusal: str | None,
    terms: TradingTerms,
    clock_ms: Callable[[], float],
    report: Callable[[str], object] = str,
) -> list[PathForecast]:
    """The forecast of each row, by one run of `model`; a fallback with its reason where it gives none.

    With each row come the symbol's calibrators. `refusal` is why there is no active model, if there is a
    reason beyond its absence. `clock_ms` times the inference; `report` gets the text of an error in it. What
    only the stream knows is left for the caller to add.
    """
    found = [_without_path(row, model, refusal, terms) for row, _ in rows]
    chosen = [
        (at, row, pending)
        for at, (row, pending) in enumerate(rows)
        if model and row.vector is not None and not found[at].outside
    ]
    if model is None or not chosen:
        return found
    started_ms = clock_ms()
    vectors = np.array([row.vector for _, row, _ in chosen])
    calibrators = [
        model.calibrators(pending, has_quotes=bool(row.vector and row.vector[_HAS_QUOTES]))
        for _, row, pending in chosen
    ]
    symbols = [row.symbol for _, row, _ in chosen]
    paths = run(model, symbols, vectors, [_widest(each) for each in calibrators])
    inference_ms = round(clock_ms() - started_ms, 3)
    for (at, *_), path, calibrator in zip(chosen, paths, calibrators, strict=True):
        each = found[at]
        if isinstance(path, ModelError):
            report(str(path))
            each.reason = MODEL_REFUSED
            continue
        each.path, each.calibrator, each.inference_ms = path, calibrator, inference_ms
        each.source = "fallback" if each.reason else "model"
    return found


def challenger_forecasts(
    rows: Sequence[tuple[Row, PendingPredictions]],
    forecasts: Sequence[PathForecast],
    challenger: ServingModel,
) -> list[ChallengerForecast | ModelError | None]:
    """What `challenger` forecasts in shadow on the same vectors, read at the same age as `forecasts`; None
    where these have no path."""
    found: list[ChallengerForecast | ModelError | None] = [None] * len(rows)
    chosen = [at for at, each in enumerate(forecasts) if each.path is not None]
    if not chosen:
        return found
    vectors = [rows[at][0].vector or [] for at in chosen]
    calibrators = [
        challenger.calibrators(rows[at][1], has_quotes=bool(vector[_HAS_QUOTES]))
        for at, vector in zip(chosen, vectors, strict=True)
    ]
    symbols = [rows[at][0].symbol for at in chosen]
    paths = run(challenger, symbols, np.array(vectors), [_widest(each) for each in calibrators])
    for at, path, calibrator in zip(chosen, paths, calibrators, strict=True):
        if isinstance(path, ModelError):
            found[at] = path
            continue
        answers = forecast(
            forecasts[at].basis_price, path, delivery_age_s(forecasts[at]), _calibrations(calibrator)
        )
        found[at] = ChallengerForecast(
            model_id=challenger.model_id,
            horizons={answer.horizon_s: _shortened(answer) for answer in answers},
            path=path,
            calibrator=calibrator,
        )
    return found


def run(
    model: ServingModel, symbols: Sequence[str], vectors: Floats, widths: Sequence[float]
) -> list[Path | ModelError]:
    """The path of each row of `vectors` (N, F), of `symbols` (N,), by one run of `model`. `widths` are those
    of the widest interval of each row, in units of its scale.

    `ModelError` in place of a path that is not finite, whose scale does not grow, or that has a price or
    bound that is not positive, which no record can have. If the model does not run, the rows are run singly,
    so that one affects no other.
    """
    try:
        # A model computes in single precision: more digits would only take room in receipts.
        outputs = model.paths(symbols, vectors)
        if any(values.shape != (len(vectors), len(PATH_S)) for values in outputs):
            raise ValueError(f"outputs of shape {', '.join(str(values.shape) for values in outputs)}")
        rounded = np.round(np.stack(outputs, axis=1), _DIGITS).tolist()
    except Exception as error:  # onnxruntime raises its own classes, with no common base
        if len(vectors) > 1:
            return [
                run(model, symbols[n : n + 1], vectors[n : n + 1], [width])[0]
                for n, width in enumerate(widths)
            ]
        problem = ModelError(f"model {model.model_id} does not run: {type(error).__name__}: {error}")
        problem.__cause__ = error
        return [problem]
    return [
        path if _is_sound(path, width) else ModelError(f"model {model.model_id} answers {path}")
        for path, width in zip((Path(*values) for values in rounded), widths, strict=True)
    ]


def _is_sound(path: Path, width: float) -> bool:
    """Whether all of `path` is finite and possible, with an interval of `width` times its scale around it."""
    before = 0.0
    for move_bp, scale_bp, p_flat in zip(path.move_bp, path.scale_bp, path.p_flat, strict=True):
        is_possible = before < scale_bp < math.inf and 0 <= p_flat <= 1  # False of NaN
        if not (is_possible and move_bp < math.inf and 1 + (move_bp - width * scale_bp) / 1e4 > 0):
            return False
        before = scale_bp
    return True


def _widest(calibrators: Mapping[int, Calibrator]) -> float:
    """The widest interval, in units of the scale; NaN where a calibration is not finite."""
    slopes = (calibrator.direction_slope for calibrator in calibrators.values())
    widths = [calibrator.interval_width for calibrator in calibrators.values()]
    return max(widths) if all(map(math.isfinite, (*slopes, *widths))) else math.nan


def _without_path(
    row: Row, model: ServingModel | None, refusal: str | None, terms: TradingTerms
) -> PathForecast:
    """The forecast before the model ran: what is known without one."""
    view, bar = row.view, row.view.bars[-1]
    outside = _outside(row, model)
    as_of_us, trade_us, quote_us = view.as_of_us, int(bar["last_trade_us"]), int(bar["last_quote_us"])
    spread_bp = None
    if row.mid is not None:
        spread_bp = (int(bar["ask_price"]) - int(bar["bid_price"])) / SCALE / row.mid * 1e4
    timestamp_ms = as_of_us // 1000
    return PathForecast(
        id=f"{row.symbol}-{timestamp_ms}",
        symbol=row.symbol,
        timestamp=timestamp_ms,
        basis_price=row.basis_price,
        horizon_s=terms.primary_horizon_s,
        spread_bp=spread_bp,
        fee_bp=terms.fee_bp,
        # A round trip crosses the spread once and pays the fee twice.
        cost_bp=None if spread_bp is None else spread_bp + 2 * terms.fee_bp,
        min_confidence=terms.min_confidence,
        source="fallback",
        reason=_why_fallback(row, model, refusal, outside),
        outside=outside,
        model_id=model.model_id if model else None,
        provisional=model.provisional if model else None,
        feature_hash=FEATURE_HASH,
        last_trade_id=int(bar["last_trade_id"]) or None,
        update_id=int(bar["update_id"]) or None,
        trade_age_ms=(as_of_us - trade_us) // 1000 if trade_us else None,
        quote_age_ms=(as_of_us - quote_us) // 1000 if quote_us else None,
        last_tick_us=max(trade_us, quote_us),
        quiet_us=row.quiet_us,
    )


def _outside(row: Row, model: ServingModel | None) -> list[str]:
    """The features beyond what the model was trained on."""
    if model is None or row.vector is None or not model.support:
        return []
    bounds = (
        (name, value, model.support.get(name)) for name, value in zip(FEATURE_NAMES, row.vector, strict=True)
    )
    return [name for name, value, bound in bounds if bound and not bound[0] <= value <= bound[1]]


def _why_fallback(
    row: Row, model: ServingModel | None, refusal: str | None, outside: list[str]
) -> str | None:
    if row.mid is None:
        return NO_QUOTES
    if row.vector is None:
        return WARMING_UP
    if model is None:
        return refusal or NO_MODEL
    return OUTSIDE_SUPPORT if outside else None


# ---------------------------------------------------------------------------------------------- receipts


def delivery_age_s(path_forecast: PathForecast) -> float:
    """How old `path_forecast` was when it was written, within the ages that are served."""
    timestamp_ms = path_forecast.timestamp
    return (delivered_ms(timestamp_ms, path_forecast.latency_ms) - timestamp_ms) / 1000


def receipt(
    path_forecast: PathForecast, row: Row, challenger: ChallengerForecast | None = None
) -> Prediction:
    """The receipt of `path_forecast`, which was made on `row`, with its horizons as they were delivered. What
    only the stream knows is left for the caller to add."""
    delivered = evaluated(path_forecast, delivery_age_s(path_forecast))
    horizons = {h: _shortened(answer) for h, answer in delivered.items()}
    horizon_s, timestamp_ms = path_forecast.horizon_s, path_forecast.timestamp
    primary: dict[str, Any] = {"predicted_price": path_forecast.basis_price, "confidence": 0.0}
    if horizons:
        primary = asdict(horizons[horizon_s])
    ages_ms = [age for age in (path_forecast.trade_age_ms, path_forecast.quote_age_ms) if age is not None]
    shared = {name: getattr(path_forecast, name) for name in _SHARED if name not in primary}
    view = row.view
    return Prediction(
        **shared,
        **primary,
        target_time=delivered_ms(timestamp_ms, path_forecast.latency_ms) + 1000 * horizon_s,
        horizons=horizons,
        challenger=challenger,
        feature_age_ms=min(ages_ms, default=None),
        features=vector_by_name(row),
        closed_us=view.closed_us,
        open_ids=differences(view.trade_ids),
        open_update_ids=differences(view.update_ids),
        open_reference_ids=differences(view.reference_ids),
        history_from_us=view.history_from_us,
    )


_SHARED = tuple(sorted({*PathForecast.__struct_fields__} & {*Prediction.__struct_fields__}))


def _short(value: float) -> float:
    """`value` to nine significant digits, as many as single precision has: receipts of all digits take a
    quarter more room."""
    return float(f"{value:.9g}")


def _shortened(answer: H) -> H:
    names = (name for name in answer.__struct_fields__ if type(getattr(answer, name)) is float)
    return replace(answer, **{name: _short(getattr(answer, name)) for name in names})


def fallback(prediction: Prediction, known_price: float, reason: str) -> Prediction:
    """`prediction` with the last known price in place of its forecasts."""
    return replace(
        prediction,
        source="fallback",
        reason=reason,
        predicted_price=known_price,
        confidence=0.0,
        expected_move_bp=None,
        scale_bp=None,
        p_flat=None,
        lower=None,
        upper=None,
        noise_bp=None,
        edge_bp=None,
        worth_trading=None,
        abstains=True,
        inference_ms=None,
        horizons={},
        path=None,
        calibrator={},
    )


def timing_of(points_ms: list[float]) -> Timing:
    """The parts of the latency between nine points in time, from the instant of a forecast until it was
    handed to Redis."""
    return Timing(*(round(end - start, 3) for start, end in pairwise(points_ms)))


def _calibrations(calibrators: Mapping[int, Calibrator]) -> dict[int, Calibration]:
    return {horizon_s: calibrator.calibration for horizon_s, calibrator in calibrators.items()}


def _price(price_e8: Floats) -> float | None:
    return None if np.isnan(price_e8[0]) else float(price_e8[0]) / SCALE


def _change_percent(seconds: Seconds, name: str) -> float | None:
    known = seconds[name][seconds[name] > 0]
    return float(known[-1] / known[0] - 1) * 100 if len(known) else None

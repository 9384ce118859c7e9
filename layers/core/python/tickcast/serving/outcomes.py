"""The outcomes of predictions, and what is kept of the predictions until they are known.

A prediction made as of t is delivered at d, when it is written. Its outcome over the horizon h is the move of
the mid from d to d + h, against the move that was still expected then; both prices are those at the end of
the bar that contains the instant, known as soon as the stream has closed it. Until then `PendingPredictions`
keeps what the outcomes repeat of the prediction. An instant that was passed without being closed (the stream
was silent across it, the state was lost) or at which there was no mid leaves the outcome `unresolved`, with
the reason: it is never guessed. So does a delivery so late that no model's answer was served any more.

The move from t to t + h is kept as well: it shows how much skill the delivery cost.

Every outcome is returned once, in the order of target and horizon. Fallbacks have outcomes too, so that
shares can be counted; only those of source `model` update calibrators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Literal

from msgspec import UNSET, Struct
from msgspec.structs import asdict

from tickcast.features.bars import BAR_US, Bars, mids, spreads_bp
from tickcast.market.ticks import SCALE
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import HORIZONS_S, MAX_AGE_S, Calibration, HorizonForecast, at
from tickcast.serving.records import (
    ChallengerOutcome,
    OfPrediction,
    Outcome,
    PendingForecast,
    PendingPrediction,
    PendingShadow,
    Prediction,
    delivered_ms,
)
from tickcast.units import SECOND_US

RESOLVED: Literal["resolved"] = "resolved"
UNRESOLVED: Literal["unresolved"] = "unresolved"
GAP, NO_MID, STALE = "gap", "no_quotes", "stale"  # why an outcome is unresolved

Calibrators = dict[int, Calibrator]  # by horizon, s
# The mid, or the spread in bp of it, at an instant (µs) that the stream has reached; NaN where there was
# none, None where the bar that contains the instant was not closed.
PriceAt = Callable[[int], float | None]

_NO_FORECAST = dict.fromkeys(
    ("expected_move_bp", "scale_bp", "half_width_bp", "confidence", "p_flat", "worth_trading")
)


def mid_at(bars: Bars, instant_us: int) -> float | None:
    """The mid in quote currency at the end of the bar that contains or ends at `instant_us`: NaN if that bar
    had no quote, None if it is not among `bars`."""
    bar = _bar_at(bars, instant_us)
    return float(mids(bar)[0]) / SCALE if len(bar) else None


def spread_at(bars: Bars, instant_us: int) -> float | None:
    """The spread there in bp of the mid, likewise."""
    bar = _bar_at(bars, instant_us)
    return float(spreads_bp(bar)[0]) if len(bar) else None


def _bar_at(bars: Bars, instant_us: int) -> Bars:
    """The bar that contains or ends at `instant_us`, shape (1,); (0,) if it is not among `bars`."""
    at = int(bars["end_us"].searchsorted(instant_us))
    is_known = at < len(bars) and bars["end_us"][at] - instant_us < BAR_US
    return bars[at : at + is_known]


class PendingPredictions(Struct):
    """The predictions whose outcomes are pending, and the calibrators of the models that serve.

    `pending` is in the order of time, ten seconds and a delivery at most. `calibrators` are by model id and
    horizon, for the active model and its challenger only: a model that becomes active again starts from its
    card.
    """

    pending: list[PendingPrediction] = []
    calibrators: dict[str, Calibrators] = {}
    reason: str | None = None  # why the newest prediction was a fallback

    def calibrators_of(self, model_id: str, card: Mapping[int, Calibration]) -> Calibrators:
        """The calibrators of a model by horizon; before its first outcome those of its card."""
        if model_id not in self.calibrators:
            self.calibrators[model_id] = {h: Calibrator.of(calibration) for h, calibration in card.items()}
        return self.calibrators[model_id]

    def keep_calibrators(self, model_ids: Iterable[str]) -> None:
        """Drop those of all other models."""
        self.calibrators = {id_: self.calibrators[id_] for id_ in model_ids if id_ in self.calibrators}

    def expect(self, prediction: Prediction) -> None:
        """Add `prediction`, which was delivered, unless it is pending already."""
        self.reason = prediction.reason
        if all(known.id != prediction.id for known in self.pending):
            self.pending.append(_pending(prediction))
            self.pending.sort(key=lambda known: known.timestamp)

    def resolve(self, closed_us: int, price_at: PriceAt, spread_at: PriceAt) -> list[Outcome]:
        """The outcomes that the closing of bars up to `closed_us` decides, in the order of target and
        horizon. To be called at least once a second of the stream, while `price_at` and `spread_at` still
        know the newest five. Updates the calibrators by them."""
        outcomes = []
        for prediction in self.pending:
            _note_prices(prediction, closed_us, price_at, spread_at)
            for horizon_s, forecast, shadow in _take_due(prediction, closed_us):
                outcomes.append(_outcome(prediction, horizon_s, forecast, shadow, price_at, spread_at))
        self._drop_resolved()
        outcomes.sort(key=lambda outcome: (outcome.target_time, outcome.horizon_s))
        for outcome in outcomes:
            self._calibrate(outcome)
        return outcomes

    def _drop_resolved(self) -> None:
        self.pending = [prediction for prediction in self.pending if prediction.horizons]

    def _calibrate(self, outcome: Outcome) -> None:
        if outcome.status != RESOLVED or outcome.source != "model":
            return
        for forecast in (outcome, outcome.challenger):
            if forecast is None or forecast.expected_move_bp is None or forecast.scale_bp is None:
                continue
            if calibrators := self.calibrators.get(forecast.model_id or ""):
                strength = abs(forecast.expected_move_bp) / forecast.scale_bp
                calibrators[outcome.horizon_s].learn(
                    outcome.horizon_s, bool(forecast.inside), forecast.right, strength
                )

    @classmethod
    def recalled(cls, predictions: list[Prediction]) -> PendingPredictions:
        """What can be recovered of a lost state from the newest stored `predictions`, newest first.

        All outcomes up to the last second that was closed then were written: they are not pending.
        """
        recalled = cls()
        for prediction in predictions:
            with suppress(LookupError, TypeError, ValueError, AttributeError):  # of another release
                recalled.expect(prediction)
            recalled._recall_calibrators(prediction.model_id, prediction.calibrator)
            if shadow := prediction.challenger:
                recalled._recall_calibrators(shadow.model_id, shadow.calibrator)
        if predictions:
            for pending in recalled.pending:
                _take_due(pending, _closed_us(predictions[0]))
            recalled._drop_resolved()
            recalled.reason = predictions[0].reason
        return recalled

    def _recall_calibrators(self, model_id: str | None, calibrators: Calibrators) -> None:
        """Those of a receipt, unless a newer receipt of that model had some: a fallback has none."""
        if model_id and calibrators:
            self.calibrators.setdefault(model_id, calibrators)


def _closed_us(prediction: Prediction) -> int:
    """The last whole second that was closed when `prediction` was made, µs."""
    if prediction.closed_us is None:  # of a release that predicted on closed bars only
        return prediction.timestamp * 1000
    return prediction.closed_us // SECOND_US * SECOND_US


def _pending(prediction: Prediction) -> PendingPrediction:
    challenger, features = prediction.challenger, prediction.features
    moves_bp = prediction.path.move_bp if prediction.path else []
    horizons: dict[int, PendingForecast | None] = dict.fromkeys(HORIZONS_S)
    for h, answer in prediction.horizons.items():
        horizons[h] = PendingForecast(
            *_delivered(answer, prediction.calibrator[h]),
            answer.abstains,
            at(moves_bp, h),
            answer.worth_trading,
        )
    shadow = challenger.horizons if challenger else {}
    return PendingPrediction(
        **{name: getattr(prediction, name) for name in _REPEATED},
        latency_ms=prediction.latency_ms or 0,
        imbalance=features.get("imbalance") if features else None,
        horizons=horizons,
        challenger=challenger.model_id if challenger else None,
        shadow={h: PendingShadow(*_delivered(each, challenger.calibrator[h])) for h, each in shadow.items()}
        if challenger
        else {},
    )


_REPEATED = (
    "id",
    "symbol",
    "timestamp",
    "basis_price",
    "spread_bp",
    "fee_bp",
    "source",
    "reason",
    "model_id",
)


def _delivered(answer: HorizonForecast, calibrator: Calibrator) -> tuple[float, float, float, float, float]:
    """The fields of `PendingShadow`."""
    half_width_bp = calibrator.interval_width * answer.scale_bp
    return answer.expected_move_bp, answer.scale_bp, half_width_bp, answer.confidence, answer.p_flat


def _delivered_us(pending: PendingPrediction) -> int:
    return delivered_ms(pending.timestamp, pending.latency_ms) * 1000


def _is_closed(instant_us: int, closed_us: int) -> bool:
    """Whether the bar that contains or ends at `instant_us` is closed."""
    return -(-instant_us // BAR_US) * BAR_US <= closed_us


def _note_prices(pending: PendingPrediction, closed_us: int, price_at: PriceAt, spread_at: PriceAt) -> None:
    """Enter the mids that the stream has reached, and the spread at the delivery."""
    if pending.delivered_price is UNSET and _is_closed(_delivered_us(pending), closed_us):
        price = price_at(_delivered_us(pending))
        if price is not None:
            pending.delivered_price = _known(price)
            pending.delivered_spread_bp = _known(spread_at(_delivered_us(pending)))
    for h in HORIZONS_S:
        instant_us = (pending.timestamp + h * 1000) * 1000
        if h not in pending.hindsight_prices and _is_closed(instant_us, closed_us):
            price = price_at(instant_us)
            pending.hindsight_prices[h] = _known(price)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _take_due(
    pending: PendingPrediction, closed_us: int
) -> list[tuple[int, PendingForecast | None, PendingShadow | None]]:
    """Remove and return the horizons whose targets are closed, each with both forecasts."""
    return [
        (h, pending.horizons.pop(h), pending.shadow.pop(h, None))
        for h in HORIZONS_S
        if h in pending.horizons and _is_closed(_delivered_us(pending) + h * SECOND_US, closed_us)
    ]


def _outcome(
    pending: PendingPrediction,
    horizon_s: int,
    forecast: PendingForecast | None,
    shadow: PendingShadow | None,
    price_at: PriceAt,
    spread_at: PriceAt,
) -> Outcome:
    """The outcome over one horizon, whose target the stream has reached."""
    delivered_price = pending.delivered_price or None
    target_us = _delivered_us(pending) + horizon_s * SECOND_US
    price = price_at(target_us)
    why, move_bp, spread_paid_bp = _why_not(pending, price), None, None
    if why is None and price is not None and delivered_price is not None:
        move_bp = (price / delivered_price - 1) * 1e4
        spread_bp = _known(spread_at(target_us))
        if spread_bp is not None and pending.delivered_spread_bp is not None:
            spread_paid_bp = (pending.delivered_spread_bp + spread_bp) / 2
    inside, right = _score(forecast, move_bp)
    challenger = None
    if shadow:
        was_inside, was_right = _score(shadow, move_bp)
        challenger = ChallengerOutcome(
            model_id=pending.challenger, inside=was_inside, right=was_right, **asdict(shadow)
        )
    hindsight_price = pending.hindsight_prices.get(horizon_s)
    return Outcome(
        **{name: getattr(pending, name) for name in OfPrediction.__struct_fields__},
        horizon_s=horizon_s,
        target_time=target_us // 1000,
        status=UNRESOLVED if move_bp is None else RESOLVED,
        why=why,
        delivered_price=delivered_price,
        outcome_price=None if move_bp is None else price,
        move_bp=move_bp,
        spread_paid_bp=spread_paid_bp,
        inside=inside,
        right=right,
        hindsight_move_bp=None
        if hindsight_price is None
        else (hindsight_price / pending.basis_price - 1) * 1e4,
        challenger=challenger,
        **(asdict(forecast) if forecast else _NO_FORECAST | {"abstains": True}),
    )


def _why_not(pending: PendingPrediction, price: float | None) -> str | None:
    """Why the outcome is unresolved, with its `price` as of `PriceAt`; None where it is resolved."""
    if (pending.latency_ms or 0) > MAX_AGE_S * 1000:
        return STALE
    if price is None or pending.delivered_price is UNSET:
        return GAP
    return NO_MID if pending.delivered_price is None or math.isnan(price) else None


def _score(forecast: PendingShadow | None, move_bp: float | None) -> tuple[bool | None, bool | None]:
    """Whether the move lies in the interval, and whether the direction was right: None without a forecast or
    a move, and for the direction also where the expected or the actual move is 0."""
    if forecast is None or move_bp is None:
        return None, None
    expected_bp = forecast.expected_move_bp
    right = (expected_bp > 0) == (move_bp > 0) if expected_bp and move_bp else None
    return abs(move_bp - expected_bp) <= forecast.half_width_bp, right

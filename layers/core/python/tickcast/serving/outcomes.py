"""What became of the predictions, and what is kept of a symbol's from one batch to the next.

A prediction made as of t has an outcome for every horizon h: the mid at t + h, known as soon as the stream
has closed that instant. Until then `PendingPredictions` keeps of the prediction what its outcomes will say of
it. An instant that was passed without being closed (the stream was silent across it, the state was lost) or
at which there was no mid leaves the outcome `unresolved`, and says why: it is never guessed.

Every outcome is returned once, in the order of target and horizon. Fallbacks have outcomes too, so that
shares can be counted; calibrators are updated only by those of predictions of source `model`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from msgspec import UNSET, Struct
from msgspec.structs import asdict

from tickcast.features.bars import BAR_US, Bars, mids
from tickcast.market.ticks import SCALE
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import HORIZONS_S, Calibration, HorizonForecast
from tickcast.serving.records import (
    ChallengerOutcome,
    HorizonPrediction,
    Outcome,
    PendingForecast,
    PendingPrediction,
    PendingShadow,
    Prediction,
)

RESOLVED: Literal["resolved"] = "resolved"
UNRESOLVED: Literal["unresolved"] = "unresolved"
GAP, NO_MID = "gap", "no_quotes"  # why an outcome is unresolved

Calibrators = dict[int, Calibrator]  # by horizon, s
PriceAt = Callable[[int], float | None]  # the mid at an instant, µs

_NO_FORECAST = dict.fromkeys(PendingShadow.__struct_fields__) | {"abstains": True}


def mid_at(bars: Bars, instant_us: int) -> float | None:
    """The mid in quote currency at the end of the bar that `instant_us` falls into or ends; None if that bar
    is not among `bars`, or had no quote."""
    at = int(bars["end_us"].searchsorted(instant_us))
    if at == len(bars) or bars["end_us"][at] - instant_us >= BAR_US:
        return None
    mid = float(mids(bars[at : at + 1])[0])
    return None if mid != mid else mid / SCALE  # NaN is all that differs from itself


class PendingPredictions(Struct):
    """The predictions whose outcomes are pending, and the calibrators of the models that serve.

    `pending` is in the order of time, ten seconds of it at most. `calibrators` are by model id and horizon,
    for the active model and its challenger alone: one that comes back starts from its card again.
    """

    pending: list[PendingPrediction] = []
    calibrators: dict[str, Calibrators] = {}
    reason: str | None = None  # why the newest prediction was a fallback

    def calibrators_of(self, model_id: str, card: Mapping[int, Calibration]) -> Calibrators:
        """The calibrators of a model by horizon; as `card` has them before its first outcome."""
        if model_id not in self.calibrators:
            self.calibrators[model_id] = {h: Calibrator.of(calibration) for h, calibration in card.items()}
        return self.calibrators[model_id]

    def keep_calibrators(self, model_ids: Iterable[str]) -> None:
        """Forget those of all other models."""
        self.calibrators = {id_: self.calibrators[id_] for id_ in model_ids if id_ in self.calibrators}

    def expect(self, prediction: Prediction) -> None:
        """Wait for the outcomes of `prediction`, unless it is waited for already."""
        self.reason = prediction.reason
        if all(known.id != prediction.id for known in self.pending):
            self.pending.append(_pending(prediction))
            self.pending.sort(key=lambda known: known.timestamp)

    def resolve(self, instant_us: int, price_at: PriceAt) -> list[Outcome]:
        """The outcomes that the closing of `instant_us` decides, in the order of target and horizon;
        `price_at` gives the mid at an instant near it, in µs, or None. Updates the calibrators by them."""
        price, outcomes = price_at(instant_us), []
        for prediction in self.pending:
            _note_served_price(prediction, instant_us, price_at)
            for horizon_s, forecast, shadow in _take_due(prediction, instant_us // 1000):
                is_now = (prediction.timestamp + horizon_s * 1000) * 1000 == instant_us
                known, why_not = (price, NO_MID) if is_now else (None, GAP)
                outcomes.append(_outcome(prediction, horizon_s, forecast, shadow, known, why_not))
        self._drop_resolved()
        for outcome in outcomes:
            self._calibrate(outcome)
        return sorted(outcomes, key=lambda outcome: (outcome.target_time, outcome.horizon_s))

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
        """What the newest written `predictions`, newest first, still say once the state itself is lost.

        All outcomes up to the newest of them were written with it: they are not waited for.
        """
        recalled = cls()
        for prediction in predictions:
            recalled.expect(prediction)
            recalled._recall_calibrators(prediction.model_id, prediction.calibrator)
            if shadow := prediction.challenger:
                recalled._recall_calibrators(shadow.model_id, shadow.calibrator)
        if predictions:
            for pending in recalled.pending:
                _take_due(pending, predictions[0].timestamp)
            recalled._drop_resolved()
            recalled.reason = predictions[0].reason
        return recalled

    def _recall_calibrators(self, model_id: str | None, calibrators: Calibrators) -> None:
        """Those of a receipt, unless a newer one had some of that model: a fallback has none."""
        if model_id and calibrators:
            self.calibrators.setdefault(model_id, calibrators)


def note_latency(records: Iterable[PendingPrediction | Outcome], now_ms: float) -> None:
    """The predictions of `records` are about to be written, where they were not before."""
    for record in records:
        if record.latency_ms is None:
            record.latency_ms = round(now_ms - record.timestamp)


def _pending(prediction: Prediction) -> PendingPrediction:
    challenger, forecasts = prediction.challenger, prediction.horizons
    return PendingPrediction(
        id=prediction.id,
        symbol=prediction.symbol,
        timestamp=prediction.timestamp,
        basis_price=prediction.basis_price,
        source=prediction.source,
        reason=prediction.reason,
        model_id=prediction.model_id,
        imbalance=prediction.features["imbalance"] if prediction.features else None,
        latency_ms=prediction.latency_ms,
        horizons={h: _forecast(forecasts[h]) if h in forecasts else None for h in HORIZONS_S},
        challenger=challenger.model_id if challenger else None,
        shadow={h: _shadow(forecast) for h, forecast in challenger.horizons.items()} if challenger else {},
    )


def _forecast(forecast: HorizonPrediction) -> PendingForecast:
    return PendingForecast(*_numbers(forecast), forecast.abstains)


def _shadow(forecast: HorizonForecast) -> PendingShadow:
    return PendingShadow(*_numbers(forecast))


def _numbers(forecast: HorizonForecast) -> tuple[float, float, float, float, float, float]:
    """In the order of `PendingShadow`."""
    return (
        forecast.expected_move_bp,
        forecast.scale_bp,
        forecast.lower,
        forecast.upper,
        forecast.confidence,
        forecast.p_flat,
    )


def _note_served_price(pending: PendingPrediction, instant_us: int, price_at: PriceAt) -> None:
    """The mid at the moment the prediction was written, as soon as the stream has come so far: what of the
    move was still to be had."""
    if pending.served_price is not UNSET or pending.latency_ms is None:
        return
    written_us = (pending.timestamp + pending.latency_ms) * 1000
    if written_us <= instant_us:
        pending.served_price = price_at(written_us)


def _take_due(
    pending: PendingPrediction, instant_ms: int
) -> list[tuple[int, PendingForecast | None, PendingShadow | None]]:
    """The horizons with targets up to `instant_ms`, each with both forecasts: they are no longer pending."""
    return [
        (h, pending.horizons.pop(h), pending.shadow.pop(h, None))
        for h in HORIZONS_S
        if h in pending.horizons and pending.timestamp + h * 1000 <= instant_ms
    ]


def _outcome(
    pending: PendingPrediction,
    horizon_s: int,
    forecast: PendingForecast | None,
    shadow: PendingShadow | None,
    price: float | None,
    why_not: str,
) -> Outcome:
    """The outcome over one horizon: the `price` at the target, or that there is none and why."""
    move_bp = None if price is None else (price / pending.basis_price - 1) * 1e4
    inside, right = _score(forecast, price, move_bp)
    latency_ms, served_price = pending.latency_ms, pending.served_price
    was_served = latency_ms is not None and latency_ms <= horizon_s * 1000  # before the target
    return Outcome(
        id=pending.id,
        symbol=pending.symbol,
        timestamp=pending.timestamp,
        basis_price=pending.basis_price,
        source=pending.source,
        reason=pending.reason,
        model_id=pending.model_id,
        horizon_s=horizon_s,
        target_time=pending.timestamp + horizon_s * 1000,
        status=UNRESOLVED if price is None else RESOLVED,
        why=why_not if price is None else None,
        outcome_price=price,
        move_bp=move_bp,
        inside=inside,
        right=right,
        imbalance=pending.imbalance,
        latency_ms=latency_ms,
        served_price=served_price if was_served and served_price is not UNSET else None,
        challenger=_challenger_outcome(pending.challenger, shadow, price, move_bp) if shadow else None,
        **(asdict(forecast) if forecast else _NO_FORECAST),
    )


def _challenger_outcome(
    model_id: str | None, shadow: PendingShadow, price: float | None, move_bp: float | None
) -> ChallengerOutcome:
    inside, right = _score(shadow, price, move_bp)
    return ChallengerOutcome(model_id=model_id, inside=inside, right=right, **asdict(shadow))


def _score(
    forecast: PendingShadow | None, price: float | None, move_bp: float | None
) -> tuple[bool | None, bool | None]:
    """Whether the price lies in the interval, and whether the direction was right; None without a forecast,
    without a price, and for the direction where one of both is 0."""
    if forecast is None or price is None or move_bp is None:
        return None, None
    expected_bp = forecast.expected_move_bp
    right = (expected_bp > 0) == (move_bp > 0) if expected_bp and move_bp else None
    return forecast.lower <= price <= forecast.upper, right

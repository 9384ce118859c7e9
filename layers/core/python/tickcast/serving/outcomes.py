"""The outcomes of predictions, and what is kept of the predictions until they are known.

A prediction made as of t has an outcome for every horizon h: the mid at t + h, known as soon as the stream
has closed that instant. Until then `PendingPredictions` keeps what the outcomes repeat of the prediction. An
instant that was passed without being closed (the stream was silent across it, the state was lost) or at which
there was no mid leaves the outcome `unresolved`, with the reason: it is never guessed.

Every outcome is returned once, in the order of target and horizon. Fallbacks have outcomes too, so that
shares can be counted; only those of source `model` update calibrators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar

from msgspec import UNSET, Struct, convert
from msgspec.structs import asdict

from tickcast.features.bars import BAR_US, Bars, mids
from tickcast.market.ticks import SCALE
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import HORIZONS_S, Calibration, HorizonForecast
from tickcast.serving.records import (
    ChallengerOutcome,
    OfPrediction,
    Outcome,
    PendingForecast,
    PendingPrediction,
    PendingShadow,
    Prediction,
)
from tickcast.units import SECOND_US

RESOLVED: Literal["resolved"] = "resolved"
UNRESOLVED: Literal["unresolved"] = "unresolved"
GAP, NO_MID = "gap", "no_quotes"  # why an outcome is unresolved

F = TypeVar("F", bound=PendingShadow)
Calibrators = dict[int, Calibrator]  # by horizon, s
PriceAt = Callable[[int], float | None]  # the mid at an instant, µs

_NO_FORECAST = dict.fromkeys(PendingShadow.__struct_fields__) | {"abstains": True}


def mid_at(bars: Bars, instant_us: int) -> float | None:
    """The mid in quote currency at the end of the bar that contains or ends at `instant_us`; None if that bar
    is not among `bars`, or had no quote."""
    at = int(bars["end_us"].searchsorted(instant_us))
    if at == len(bars) or bars["end_us"][at] - instant_us >= BAR_US:
        return None
    mid = float(mids(bars[at : at + 1])[0])
    return None if math.isnan(mid) else mid / SCALE


class PendingPredictions(Struct):
    """The predictions whose outcomes are pending, and the calibrators of the models that serve.

    `pending` is in the order of time, ten seconds at most. `calibrators` are by model id and horizon, for the
    active model and its challenger only: a model that becomes active again starts from its card.
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
        """Add `prediction`, unless it is pending already."""
        self.reason = prediction.reason
        if all(known.id != prediction.id for known in self.pending):
            self.pending.append(_pending(prediction))
            self.pending.sort(key=lambda known: known.timestamp)

    def resolve(self, instant_us: int, price_at: PriceAt) -> list[Outcome]:
        """The outcomes that the closing of `instant_us` decides, in the order of target and horizon;
        `price_at` gives the mid at an instant near it, in µs, or None. Updates the calibrators by them."""
        outcomes: list[Outcome] = []
        for prediction in self.pending:
            _note_served_price(prediction, instant_us, price_at)
            for horizon_s, forecast, shadow in _take_due(prediction, instant_us // 1000):
                target_us = (prediction.timestamp + horizon_s * 1000) * 1000
                is_near = instant_us - target_us < SECOND_US  # instants are a second apart, but in a gap
                known, why_not = (price_at(target_us), NO_MID) if is_near else (None, GAP)
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
        """What can be recovered of a lost state from the newest stored `predictions`, newest first.

        All outcomes up to the last second that was closed then were written: they are not pending.
        """
        recalled = cls()
        for prediction in predictions:
            with suppress(KeyError, TypeError, ValueError):  # a receipt of another release, which says less
                recalled.expect(prediction)
            recalled._recall_calibrators(prediction.model_id, prediction.calibrator)
            if shadow := prediction.challenger:
                recalled._recall_calibrators(shadow.model_id, shadow.calibrator)
        if predictions:
            for pending in recalled.pending:
                _take_due(pending, _closed_ms(predictions[0]))
            recalled._drop_resolved()
            recalled.reason = predictions[0].reason
        return recalled

    def _recall_calibrators(self, model_id: str | None, calibrators: Calibrators) -> None:
        """Those of a receipt, unless a newer receipt of that model had some: a fallback has none."""
        if model_id and calibrators:
            self.calibrators.setdefault(model_id, calibrators)


def _closed_ms(prediction: Prediction) -> int:
    """The last whole second that was closed when `prediction` was made, ms."""
    if prediction.closed_us is None:  # of a release that predicted on closed bars only
        return prediction.timestamp
    return prediction.closed_us // SECOND_US * 1000


def note_latency(records: Iterable[PendingPrediction | Outcome], now_ms: float) -> None:
    """Enter the latency of predictions that are written now; those written before keep theirs."""
    for record in records:
        if record.latency_ms is None:
            record.latency_ms = round(now_ms - record.timestamp)


def _pending(prediction: Prediction) -> PendingPrediction:
    challenger, features = prediction.challenger, prediction.features
    return PendingPrediction(
        **_repeated(prediction) | {"imbalance": features.get("imbalance") if features else None},
        horizons=dict.fromkeys(HORIZONS_S) | _converted(prediction.horizons, PendingForecast),
        challenger=challenger.model_id if challenger else None,
        shadow=_converted(challenger.horizons, PendingShadow) if challenger else {},
    )


def _repeated(record: Prediction | PendingPrediction) -> dict[str, Any]:
    """The fields of `OfPrediction` that `record` has."""
    return {name: getattr(record, name, None) for name in OfPrediction.__struct_fields__}


def _converted(forecasts: Mapping[int, HorizonForecast], kind: type[F]) -> dict[int, F]:
    return convert(forecasts, dict[int, kind], from_attributes=True)  # type: ignore[valid-type]


def _note_served_price(pending: PendingPrediction, instant_us: int, price_at: PriceAt) -> None:
    """Enter the mid at the moment the prediction was written, once the stream has reached it: the price that
    was still available then."""
    if pending.served_price is not UNSET or pending.latency_ms is None:
        return
    written_us = (pending.timestamp + pending.latency_ms) * 1000
    if written_us <= instant_us:
        pending.served_price = price_at(written_us)


def _take_due(
    pending: PendingPrediction, instant_ms: int
) -> list[tuple[int, PendingForecast | None, PendingShadow | None]]:
    """Remove and return the horizons with targets up to `instant_ms`, each with both forecasts."""
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
    """The outcome over one horizon: by the `price` at the target, or unresolved because of `why_not`."""
    move_bp = None if price is None else (price / pending.basis_price - 1) * 1e4
    inside, right = _score(forecast, price, move_bp)
    challenger = None
    if shadow:
        was_inside, was_right = _score(shadow, price, move_bp)
        challenger = ChallengerOutcome(
            model_id=pending.challenger, inside=was_inside, right=was_right, **asdict(shadow)
        )
    latency_ms, served_price = pending.latency_ms, pending.served_price
    was_served = latency_ms is not None and latency_ms <= horizon_s * 1000  # before the target
    return Outcome(
        **_repeated(pending),
        horizon_s=horizon_s,
        target_time=pending.timestamp + horizon_s * 1000,
        status=UNRESOLVED if price is None else RESOLVED,
        why=why_not if price is None else None,
        outcome_price=price,
        move_bp=move_bp,
        inside=inside,
        right=right,
        served_price=served_price if was_served and served_price is not UNSET else None,
        challenger=challenger,
        **(asdict(forecast) if forecast else _NO_FORECAST),
    )


def _score(
    forecast: PendingShadow | None, price: float | None, move_bp: float | None
) -> tuple[bool | None, bool | None]:
    """Whether the price lies in the interval, and whether the direction was right: None without a forecast or
    a price, and for the direction also where the expected or the actual move is 0."""
    if forecast is None or price is None or move_bp is None:
        return None, None
    expected_bp = forecast.expected_move_bp
    right = (expected_bp > 0) == (move_bp > 0) if expected_bp and move_bp else None
    return forecast.lower <= price <= forecast.upper, right

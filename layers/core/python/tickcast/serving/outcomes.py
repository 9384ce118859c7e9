"""What became of the predictions, and what is kept of a symbol's from one batch to the next.

A prediction made as of t has an outcome for every horizon h: the mid at t + h, known as soon as the stream
has closed that instant. Until then the `Memory` keeps of the prediction what its outcomes will say of it. An
instant that was passed without being closed (the stream was silent across it, the state was lost)
or at which there was no mid leaves the outcome `unresolved`, and says why: it is never guessed.

Every outcome leaves the memory once, in the order of target and horizon. Fallbacks have outcomes too, so that
shares can be counted; only what a model stood for teaches its calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tickcast.features.bars import BAR_US, Bars, mids
from tickcast.market.ticks import SCALE
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import HORIZONS_S, Calibration

RESOLVED, UNRESOLVED = "resolved", "unresolved"
GAP, NO_MID = "gap", "no_quotes"  # why an outcome is unresolved

Outcome = dict[str, Any]  # docs/contracts.md
Pending = dict[str, Any]  # a prediction with outcomes to come: what they will say of it

# Of a horizon's forecast, the model's and the challenger's; in this order while it waits.
_FORECAST = ("expected_move_bp", "scale_bp", "lower", "upper", "confidence", "p_flat", "abstains")
_SHADOW = _FORECAST[:-1]
_OF_PREDICTION = ("id", "symbol", "timestamp", "basis_price", "source", "reason", "model_id")


def mid_at(bars: Bars, instant_us: int) -> float | None:
    """The mid in quote currency at the end of the bar that `instant_us` falls into or ends; None if that bar
    is not among `bars`, or had no quote."""
    at = int(bars["end_us"].searchsorted(instant_us))
    if at == len(bars) or bars["end_us"][at] - instant_us >= BAR_US:
        return None
    mid = float(mids(bars[at : at + 1])[0])
    return None if mid != mid else mid / SCALE  # NaN is all that differs from itself


@dataclass
class PendingPredictions:
    """The predictions whose outcomes are waited for, and the calibrators of the models that serve.

    `pending` is in the order of time, ten seconds of it at most. `calibrators` are by model id and horizon,
    for the model in force and its challenger alone: one that comes back starts from its card again.
    """

    pending: list[Pending] = field(default_factory=list)
    calibrators: dict[str, dict[int, Calibrator]] = field(default_factory=dict)
    reason: str | None = None  # why the newest prediction was a fallback

    def calibrators_of(self, model_id: str, card: Mapping[int, Calibration]) -> dict[int, Calibrator]:
        """The calibrators of a model by horizon; as `card` has them before its first outcome."""
        if model_id not in self.calibrators:
            self.calibrators[model_id] = {h: Calibrator.of(calibration) for h, calibration in card.items()}
        return self.calibrators[model_id]

    def keep_calibrators(self, model_ids: Iterable[str]) -> None:
        """Forget those of all other models."""
        self.calibrators = {id_: self.calibrators[id_] for id_ in model_ids if id_ in self.calibrators}

    def expect(self, prediction: dict[str, Any]) -> None:
        """Wait for the outcomes of `prediction`, unless it is waited for already."""
        self.reason = prediction["reason"]
        if all(waiting["id"] != prediction["id"] for waiting in self.pending):
            self.pending.append(_waiting(prediction))
            self.pending.sort(key=lambda waiting: int(waiting["timestamp"]))

    def resolve(self, instant_us: int, price_at: Callable[[int], float | None]) -> list[Outcome]:
        """The outcomes that the closing of `instant_us` decides, in the order of target and horizon;
        `price_at` gives the mid at an instant near it, in µs, or None. Calibrators learn from them."""
        price, due = price_at(instant_us), []
        for waiting in self.pending:
            _note_served_price(waiting, instant_us, price_at)
            due += _take_due(waiting, instant_us // 1000)
        self.pending = [waiting for waiting in self.pending if waiting["horizons"]]
        for outcome in due:
            is_now = outcome["target_time"] * 1000 == instant_us
            _settle(outcome, *((price, NO_MID) if is_now else (None, GAP)))
            self._learn(outcome)
        return sorted(due, key=lambda outcome: (outcome["target_time"], outcome["horizon_s"]))

    def _learn(self, outcome: Outcome) -> None:
        if outcome["status"] != RESOLVED or outcome["source"] != "model":
            return
        for forecast in (outcome, outcome["challenger"]):
            if forecast and (calibrators := self.calibrators.get(forecast["model_id"])):
                strength = abs(forecast["expected_move_bp"]) / forecast["scale_bp"]
                calibrators[outcome["horizon_s"]].learn(
                    outcome["horizon_s"], forecast["inside"], forecast["right"], strength
                )

    def as_dict(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "pending": self.pending,
            "calibrators": {
                id_: {str(h): calibrator.as_dict() for h, calibrator in horizons.items()}
                for id_, horizons in self.calibrators.items()
            },
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PendingPredictions:
        """The memory of `as_dict`. Raises TypeError, ValueError or KeyError on anything else."""
        calibrators = {
            id_: {int(h): Calibrator(**calibrator) for h, calibrator in dict(horizons).items()}
            for id_, horizons in dict(data["calibrators"]).items()
        }
        return cls(list(data["pending"]), calibrators, data["reason"])

    @classmethod
    def recalled(cls, predictions: list[dict[str, Any]]) -> PendingPredictions:
        """What the newest written `predictions`, newest first, still say once the state itself is lost.

        All outcomes up to the newest of them were written with it: they are not waited for.
        """
        memory = cls()
        for prediction in predictions:
            with suppress(KeyError, TypeError):  # a receipt of an older version says less
                memory.expect(prediction)
            memory._recall_calibrators(prediction)
        if predictions:
            newest = predictions[0]
            for waiting in memory.pending:
                _take_due(waiting, newest["timestamp"])
            memory.pending = [waiting for waiting in memory.pending if waiting["horizons"]]
            memory.reason = newest.get("reason")
        return memory

    def _recall_calibrators(self, prediction: dict[str, Any]) -> None:
        """Those of the model and of its challenger as `prediction` has them, unless a newer one had them: a
        fallback has none."""
        for of_model in (prediction, prediction.get("challenger") or {}):
            with suppress(KeyError, TypeError, ValueError):
                known = {int(h): Calibrator(**values) for h, values in of_model["calibrator"].items()}
                if known:
                    self.calibrators.setdefault(of_model["model_id"], known)


def note_latency(records: Iterable[Pending | Outcome], now_ms: float) -> None:
    """The predictions of `records` are about to be written, where they were not before."""
    for record in records:
        if record["latency_ms"] is None:
            record["latency_ms"] = round(now_ms - record["timestamp"])


def _waiting(prediction: dict[str, Any]) -> Pending:
    """What is kept of `prediction`. Raises KeyError or TypeError where it has less than is asked."""
    forecasts, challenger = prediction["horizons"], prediction["challenger"]
    return {name: prediction[name] for name in _OF_PREDICTION} | {
        "imbalance": prediction["features"]["imbalance"] if prediction["features"] else None,
        "latency_ms": prediction.get("latency_ms"),
        "horizons": {str(h): _values(forecasts.get(str(h)), _FORECAST) for h in HORIZONS_S},
        "challenger": challenger and challenger["model_id"],
        "shadow": {h: _values(forecast, _SHADOW) for h, forecast in challenger["horizons"].items()}
        if challenger
        else {},
    }


def _values(forecast: dict[str, Any] | None, names: tuple[str, ...]) -> list[Any] | None:
    return [forecast[name] for name in names] if forecast else None


def _note_served_price(waiting: Pending, instant_us: int, price_at: Callable[[int], float | None]) -> None:
    """The mid at the moment the prediction was written, as soon as the stream has come so far: what of the
    move was still to be had."""
    if "served_price" in waiting or waiting["latency_ms"] is None:
        return
    written_us = (waiting["timestamp"] + waiting["latency_ms"]) * 1000
    if written_us <= instant_us:
        waiting["served_price"] = price_at(written_us)


def _take_due(waiting: Pending, instant_ms: int) -> list[Outcome]:
    """The outcomes with targets up to `instant_ms`: they are not waited for any more."""
    reached = [h for h in HORIZONS_S if waiting["timestamp"] + h * 1000 <= instant_ms]
    return [_outcome(waiting, h) for h in reached if str(h) in waiting["horizons"]]


def _outcome(waiting: Pending, horizon_s: int) -> Outcome:
    """The outcome of a prediction over one horizon, but for the price."""
    values, shadow = waiting["horizons"].pop(str(horizon_s)), waiting["shadow"].pop(str(horizon_s), None)
    forecast = dict(zip(_FORECAST, values or [None] * len(_SHADOW) + [True], strict=True))
    challenger = shadow and {"model_id": waiting["challenger"], **dict(zip(_SHADOW, shadow, strict=True))}
    latency_ms = waiting["latency_ms"]
    was_served = latency_ms is not None and latency_ms <= horizon_s * 1000  # before the target
    return {name: waiting[name] for name in _OF_PREDICTION} | {
        "horizon_s": horizon_s,
        "target_time": waiting["timestamp"] + horizon_s * 1000,
        **forecast,
        "imbalance": waiting["imbalance"],
        "latency_ms": latency_ms,
        "served_price": waiting.get("served_price") if was_served else None,
        "challenger": challenger,
    }


def _settle(outcome: Outcome, price: float | None, why_not: str) -> None:
    """Enter what came: the `price` at the target, or that there is none and why."""
    move_bp = None if price is None else (price / outcome["basis_price"] - 1) * 1e4
    outcome |= {
        "status": UNRESOLVED if price is None else RESOLVED,
        "why": why_not if price is None else None,
        "outcome_price": price,
        "move_bp": move_bp,
    }
    _judge(outcome, price, move_bp)
    if outcome["challenger"]:
        _judge(outcome["challenger"], price, move_bp)


def _judge(forecast: dict[str, Any], price: float | None, move_bp: float | None) -> None:
    """Enter into `forecast` whether it held: None where there was none, or nothing to hold it against."""
    expected_bp = forecast["expected_move_bp"]
    forecast["inside"] = forecast["right"] = None
    if expected_bp is None or price is None or move_bp is None:
        return
    forecast["inside"] = forecast["lower"] <= price <= forecast["upper"]
    if expected_bp and move_bp:
        forecast["right"] = (expected_bp > 0) == (move_bp > 0)

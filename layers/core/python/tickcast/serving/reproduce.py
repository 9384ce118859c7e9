"""Recompute a prediction from the ticks in bronze, and compare it with its receipt to the last bit.

The receipt says as of when the prediction was made, since when its bars are unbroken and which ticks came too
late for them; bronze has the ticks; the code that turns them into bars, features and forecasts is the one
that serves. So all of the prediction can be recomputed, and whatever is not equal bit for bit is a
difference.

How far back to begin: windows reach back a minute (`WINDOW_US`), and bars at its start carry values from
before it: the book, the last trade of each side, when the mid moved. Ages are capped at a minute, so that
only the newest of each counts; `LOOK_BACK_US` leaves another minute to find them in. Where history begins
within it (a start, a silence), the recomputation begins there too. What is not found in it is a caveat.

A *caveat* is a reason why bronze and receipts do not determine exactly what the hot path folded. Equality is
proof whatever the caveats; a difference counts only where there is none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import Struct, field

from tickcast.features.bars import (
    BAR_US,
    NO_BAR,
    SILENCE_US,
    Bars,
    bar_index,
    summarise,
    whole_seconds,
)
from tickcast.features.ring import KEPT_BARS, KEPT_SECONDS, BarRing
from tickcast.features.trade_ids import MAX_LATE_IDS
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.market.ticks import Quotes, Trades
from tickcast.model.forecast import HorizonForecast, ModelError
from tickcast.serving.outcomes import Calibrators, PendingPredictions
from tickcast.serving.prediction import (
    MODEL_REFUSED,
    ServingModel,
    TradingTerms,
    challenger_record,
    features_record,
    prediction_record,
)
from tickcast.serving.records import Features, LateTicks, Prediction
from tickcast.units import SECOND_US

WINDOW_US = KEPT_SECONDS * SECOND_US
LOOK_BACK_US = 120 * SECOND_US

_NEEDED = ("sequence", "history_from_us", "feature_hash", "fee_bp")  # which old receipts lack
_OF_THE_BARS = ("basis_price", "spread_bp", "cost_bp", "last_trade_id", "update_id")
_OF_THE_MODEL = ("source", "reason", "outside", "predicted_price", "confidence")
# Without what depends on settings: `noise_bp` and `abstains`.
_UNCALIBRATED = ("predicted_price", "expected_move_bp", "scale_bp", "p_flat")
_OF_A_HORIZON = (*_UNCALIBRATED, "confidence", "lower", "upper")
_ANY_CONFIDENCE = 0.5
# A receipt of another release may lack some of these: a default in its place would seem a difference.
COMPARED = {*_OF_THE_BARS, *_OF_THE_MODEL, "features", "model_id", "calibrator", "horizons", "challenger"}


class ReceiptError(ValueError):
    """A receipt that cannot be recomputed; the message says what it lacks."""


@dataclass(frozen=True)
class Surroundings:
    """What is known of the time around a receipt.

    `trades` and `quotes` are those of bronze in stream order, from the look-back on, or from a minute before
    the beginning of history if that lies within it; `late` the late ticks listed by receipts of the same
    symbol, from the look-back to the newest; `missing` the ranges of trade ids (first, last) that never
    reached the hot path.
    """

    trades: Trades
    quotes: Quotes
    late: Sequence[LateTicks]
    missing: list[tuple[int, int]]


class ComparedValue(Struct, frozen=True):
    """One value of a receipt, and the recomputed one."""

    name: str
    recorded: Any = field(name="told")
    recomputed: Any

    @property
    def is_same(self) -> bool:
        return is_same(self.recorded, self.recomputed)


@dataclass(frozen=True)
class Reproduction:
    """The result of recomputing a receipt. `caveats` excuse differences; `unproven` says what was not
    compared."""

    id: str
    compared: tuple[ComparedValue, ...] = ()
    caveats: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()

    @property
    def differences(self) -> list[ComparedValue]:
        return [each for each in self.compared if not each.is_same]

    @property
    def same(self) -> bool | None:
        """Whether all of the prediction was reproduced to the last bit; None if inconclusive."""
        if self.differences:
            return None if self.caveats else False
        return None if self.unproven else True


def is_same(recorded: Any, recomputed: Any) -> bool:
    """Equality, of floats by their bytes."""
    if isinstance(recorded, float) and isinstance(recomputed, float):
        return struct.pack("<d", recorded) == struct.pack("<d", recomputed)
    return bool(recorded == recomputed)


def look_back_us(receipt: Prediction) -> tuple[int, int]:
    """The start and end of the bars that `receipt` was made from. Raises `ReceiptError`."""
    if lacking := [name for name in _NEEDED if getattr(receipt, name) is None]:
        raise ReceiptError(f"the receipt says nothing of {', '.join(lacking)}: an older version wrote it")
    if receipt.feature_hash != FEATURE_HASH:
        raise ReceiptError(
            f"the receipt is of features {receipt.feature_hash}, this code computes {FEATURE_HASH}"
        )
    end_us = receipt.timestamp * 1000
    return max(receipt.history_from_us or 0, end_us - LOOK_BACK_US), end_us


def reproduce(
    receipt: Prediction,
    around: Surroundings,
    model: ServingModel | None,
    challenger: ServingModel | None,
) -> Reproduction:
    """Recompute `receipt` and compare. `model` and `challenger` are those it names, None where they cannot be
    loaded; their forecasts are then left unproven. Raises `ReceiptError`."""
    from_us, end_us = look_back_us(receipt)
    trades, quotes = _folded(receipt, around, from_us, end_us)
    stragglers = _stragglers(quotes)
    compared: list[ComparedValue] = []
    caveats: list[str] = []
    # Of quotes that came after newer ones, the hot path folds those whose bar is still open, and bronze does
    # not say when bars were closed: try with all of them, then without.
    for chosen in (quotes, quotes[~stragglers]) if stragglers.any() else (quotes,):
        bars = summarise(trades, chosen, bar_index(from_us), end_us, NO_BAR)
        compared = list(_compared(receipt, _ring(bars, from_us), model, challenger))
        caveats = list(_caveats(receipt, around, bars, from_us, end_us))
        if all(each.is_same for each in compared):
            break
    if in_sight := int((stragglers & (quotes["time_us"] >= end_us - WINDOW_US)).sum()):
        caveats.append(f"{in_sight} quotes came out of order: some may have been too late")
    unproven = _unproven(receipt, model, challenger)
    return Reproduction(receipt.id, tuple(compared), tuple(caveats), tuple(unproven))


def _folded(receipt: Prediction, around: Surroundings, from_us: int, end_us: int) -> tuple[Trades, Quotes]:
    """The ticks that the hot path folded into the bars of `receipt`: the first of each id, in stream order,
    without late ones."""
    late_ids, late_update_ids = _late(receipt, around.late)
    trades = _first_of_each(around.trades, "first_id", late_ids)
    quotes = _first_of_each(around.quotes, "update_id", late_update_ids)
    found = [rows[(rows["time_us"] >= from_us) & (rows["time_us"] < end_us)] for rows in (trades, quotes)]
    return found[0], found[1]


def _late(receipt: LateTicks, others: Iterable[LateTicks]) -> tuple[list[int], list[int]]:
    """The ids that came too late for the history of `receipt`, whichever receipt of that history lists them,
    including later ones. A state that started over does not know what the previous one had folded."""
    of_the_same = [receipt, *(other for other in others if other.history_from_us == receipt.history_from_us)]
    trade_ids = [id_ for each in of_the_same for id_ in each.late_ids]
    return trade_ids, [id_ for each in of_the_same for id_ in each.late_update_ids]


def _first_of_each(rows: Any, ids: str, without: list[int]) -> Any:
    first_seen = np.sort(np.unique(rows[ids], return_index=True)[1])
    rows = rows[first_seen]
    return rows[~np.isin(rows[ids], without)] if without else rows


def _stragglers(quotes: Quotes) -> Any:
    """Which of `quotes` came after one of a higher id. Shape (quotes,), bool."""
    ids = quotes["update_id"]
    return ids < np.maximum.accumulate(ids)


def _ring(bars: Bars, from_us: int) -> BarRing:
    """The ring as of the end of `bars`."""
    seconds = whole_seconds(bars)[-KEPT_SECONDS:]
    next_bar = bar_index(int(bars["end_us"][-1]))
    return BarRing(0, next_bar, from_us, bars[-KEPT_BARS:], seconds)


def _caveats(
    receipt: Prediction, around: Surroundings, bars: Bars, from_us: int, end_us: int
) -> Iterator[str]:
    window_us = end_us - WINDOW_US
    begun_us = receipt.history_from_us or 0
    times_us = np.concatenate([around.trades["time_us"], around.quotes["time_us"]])
    if begun_us > window_us and ((times_us >= begun_us - SILENCE_US) & (times_us < begun_us)).any():
        yield "the state was lost and started over within the minute: its first bars lack ticks"
    if begun_us < from_us:
        carried = bars[(window_us - from_us) // BAR_US - 1]
        if not (carried["update_id"] and carried["last_buy_price"] and carried["last_sell_price"]):
            yield f"the book or a side's last trade is from more than {LOOK_BACK_US // SECOND_US} s before"
    if receipt.reason == MODEL_REFUSED and receipt.model_id:
        yield f"model {receipt.model_id} did not answer then"
    if any(len(ids) >= MAX_LATE_IDS for each in around.late for ids in (each.late_ids, each.late_update_ids)):
        yield f"more ticks came late than the {MAX_LATE_IDS} that a receipt lists"
    ids = around.trades["first_id"][around.trades["time_us"] >= from_us]
    unseen = sum(int(((ids >= first) & (ids <= last)).sum()) for first, last in around.missing)
    if unseen:
        yield f"bronze holds {unseen} trades that never reached the hot path"


def _unproven(
    receipt: Prediction, model: ServingModel | None, challenger: ServingModel | None
) -> Iterator[str]:
    if receipt.model_id and model is None:
        yield f"the forecast of model {receipt.model_id}: it cannot be loaded from S3"
    if receipt.challenger and challenger is None:
        yield f"the forecast of challenger {receipt.challenger.model_id}: it cannot be loaded from S3"


def _compared(
    receipt: Prediction, ring: BarRing, model: ServingModel | None, challenger: ServingModel | None
) -> Iterator[ComparedValue]:
    """Every value of `receipt` that can be recomputed, with the recomputed one."""
    features = features_record(receipt.symbol, ring)
    recomputed = _recomputed(receipt, features, model) if features else None
    recorded, vector = receipt.features, features.features if features else None
    if recorded is None or vector is None:
        yield ComparedValue("features", recorded, vector)
    else:
        yield from (ComparedValue(f"features.{name}", recorded[name], vector[name]) for name in FEATURE_NAMES)
    yield from _compared_fields("", _OF_THE_BARS, receipt, recomputed)
    if model is None and receipt.model_id:
        return
    yield from _compared_fields("", _OF_THE_MODEL, receipt, recomputed)
    horizons = recomputed.horizons if recomputed else {}
    yield from _compared_horizons("", _OF_A_HORIZON, receipt.horizons, horizons)
    shadow = receipt.challenger
    if challenger and shadow:
        names = _OF_A_HORIZON if shadow.calibrator else _UNCALIBRATED
        in_shadow = _recomputed_shadow(recomputed, challenger, shadow.calibrator) if horizons else {}
        yield from _compared_horizons("challenger.", names, shadow.horizons, in_shadow)


def _compared_fields(
    prefix: str, names: tuple[str, ...], recorded: object, recomputed: object
) -> Iterator[ComparedValue]:
    for name in names:
        yield ComparedValue(f"{prefix}{name}", getattr(recorded, name, None), getattr(recomputed, name, None))


def _compared_horizons(
    prefix: str,
    names: tuple[str, ...],
    recorded: Mapping[int, HorizonForecast],
    recomputed: Mapping[int, HorizonForecast],
) -> Iterator[ComparedValue]:
    for horizon_s in sorted({*recorded, *recomputed}):
        yield from _compared_fields(
            f"{prefix}horizons.{horizon_s}.", names, recorded.get(horizon_s), recomputed.get(horizon_s)
        )


def _recomputed(receipt: Prediction, features: Features, model: ServingModel | None) -> Prediction:
    """The prediction on `features` by `model`, calibrated as `receipt` says it was."""
    terms = TradingTerms(receipt.horizon_s, receipt.fee_bp or 0.0, _ANY_CONFIDENCE)
    refusal = MODEL_REFUSED if receipt.reason == MODEL_REFUSED else None
    pending = _calibrated(receipt.model_id, receipt.calibrator)
    return prediction_record(features, model, refusal, pending, terms, lambda: 0.0)


def _recomputed_shadow(
    recomputed: Prediction | None, challenger: ServingModel, calibrator: Calibrators
) -> Mapping[int, HorizonForecast]:
    """The challenger's forecast with the recomputed prediction, by horizon; none where it does not answer."""
    pending = _calibrated(challenger.model_id, calibrator)
    try:
        return challenger_record(recomputed, challenger, pending).horizons if recomputed else {}
    except ModelError:
        return {}


def _calibrated(model_id: str | None, calibrator: Calibrators) -> PendingPredictions:
    """Nothing pending, and the calibrators of this model as they were; none where the receipt has none."""
    return PendingPredictions(calibrators={model_id: calibrator} if model_id and calibrator else {})

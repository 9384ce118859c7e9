"""A prediction made once more, from the ticks in bronze, and held against its receipt to the last bit.

The receipt says as of when it was made, since when its bars go back and which ticks came too late for them;
bronze has the ticks; the code that turns them into bars, features and forecasts is the one that serves. So
all that was predicted can be had again, and whatever is not the same bit for bit is a difference.

How far back to begin: windows reach back a minute (`WINDOW_US`), and at its start stands what bars carry on
from before: the book, the last trade of each side, when the mid moved. Ages are capped at a minute, so that
only the newest of each counts; `LOOK_BACK_US` leaves another minute to find them in, and where history begins
within it (a start, a silence) it is begun there, as live did. What is not found in it is a doubt.

A *doubt* is a reason why bronze and receipts cannot tell exactly what live folded. Sameness is proof in spite
of any doubt; a difference counts only where there is none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tickcast.features.bars import (
    BAR,
    BAR_US,
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
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import ModelError
from tickcast.serving.outcomes import PendingPredictions
from tickcast.serving.prediction import (
    MODEL_REFUSED,
    Record,
    ServingModel,
    TradingTerms,
    challenger_record,
    features_record,
    prediction_record,
)
from tickcast.units import SECOND_US

WINDOW_US = KEPT_SECONDS * SECOND_US
LOOK_BACK_US = 120 * SECOND_US

_NEEDED = (
    *("id", "symbol", "timestamp", "sequence", "history_from_us", "late_ids", "late_update_ids"),
    *("features", "feature_hash", "horizon_s", "horizons", "fee_bp", "model_id", "calibrator", "challenger"),
    "reason",
)
_OF_THE_BARS = ("basis_price", "spread_bp", "cost_bp", "last_trade_id", "update_id")
_OF_THE_MODEL = ("source", "reason", "outside", "predicted_price", "confidence")
# Without what depends on settings of the moment: `noise_bp` and `abstains`.
_UNCALIBRATED = ("predicted_price", "expected_move_bp", "scale_bp", "p_flat")
_OF_A_HORIZON = (*_UNCALIBRATED, "confidence", "lower", "upper")
_ANY_CONFIDENCE = 0.5


class ReceiptError(ValueError):
    """A receipt that cannot be recomputed; the message says what it lacks."""


@dataclass(frozen=True)
class Evidence:
    """What is known of the time around a receipt.

    `trades` and `quotes` are those of bronze in stream order, from the look-back on, or from a minute before
    the beginning of history if that lies within it; `receipts` those of the same symbol from the look-back
    on, as late as there are; `missing` the ranges of trade ids (first, last) that never reached the hot path.
    """

    trades: Trades
    quotes: Quotes
    receipts: list[Record]
    missing: list[tuple[int, int]]


@dataclass(frozen=True)
class Compared:
    """One value of a receipt beside the recomputed one."""

    name: str
    told: Any
    recomputed: Any

    @property
    def is_same(self) -> bool:
        return is_same(self.told, self.recomputed)


@dataclass(frozen=True)
class Verdict:
    """What a receipt's proof came to. `doubts` excuse differences; `unproven` says what was not compared."""

    id: str
    compared: tuple[Compared, ...] = ()
    doubts: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()

    @property
    def differences(self) -> list[Compared]:
        return [each for each in self.compared if not each.is_same]

    @property
    def same(self) -> bool | None:
        """Whether all of the prediction was had again to the last bit; None where that cannot be told."""
        if self.differences:
            return None if self.doubts else False
        return None if self.unproven else True


def is_same(told: Any, recomputed: Any) -> bool:
    """Equality, of floats by their bytes."""
    if isinstance(told, float) and isinstance(recomputed, float):
        return struct.pack("<d", told) == struct.pack("<d", recomputed)
    return bool(told == recomputed)


def look_back_us(receipt: Record) -> tuple[int, int]:
    """From when on, and up to when, the bars behind `receipt` go. Raises `ReceiptError`."""
    if lacking := [name for name in _NEEDED if name not in receipt]:
        raise ReceiptError(f"the receipt says nothing of {', '.join(lacking)}: an older version wrote it")
    if receipt["feature_hash"] != FEATURE_HASH:
        raise ReceiptError(
            f"the receipt is of features {receipt['feature_hash']}, this code computes {FEATURE_HASH}"
        )
    end_us = receipt["timestamp"] * 1000
    return max(receipt["history_from_us"], end_us - LOOK_BACK_US), end_us


def judge(
    receipt: Record,
    evidence: Evidence,
    model: ServingModel | None,
    challenger: ServingModel | None,
) -> Verdict:
    """Make `receipt` again and compare. `model` and `challenger` are those it names, None where they cannot
    be had; what they said is then left unproven. Raises `ReceiptError`."""
    from_us, end_us = look_back_us(receipt)
    trades, quotes = _folded(receipt, evidence, from_us, end_us)
    stragglers = _stragglers(quotes)
    compared: list[Compared] = []
    doubts: list[str] = []
    # Of quotes that came out of order, after newer ones, live folds those whose bar is still open, and bronze
    # does not say when bars were closed: all were, or none.
    for chosen in (quotes, quotes[~stragglers]) if stragglers.any() else (quotes,):
        bars = summarise(
            trades, chosen, bar_index(from_us), (end_us - from_us) // BAR_US, np.zeros(1, BAR)[0]
        )
        compared = list(_compared(receipt, _ring(bars, from_us), model, challenger))
        doubts = list(_doubts(receipt, evidence, bars, from_us, end_us))
        if all(each.is_same for each in compared):
            break
    if in_sight := int((stragglers & (quotes["time_us"] >= end_us - WINDOW_US)).sum()):
        doubts.append(f"{in_sight} quotes came out of order: some may have been too late")
    unproven = _unproven(receipt, model, challenger)
    return Verdict(receipt["id"], tuple(compared), tuple(doubts), tuple(unproven))


def _folded(receipt: Record, evidence: Evidence, from_us: int, end_us: int) -> tuple[Trades, Quotes]:
    """The ticks that live folded into the bars behind `receipt`: the first of each id, in stream order, but
    for those that came late."""
    late_ids, late_update_ids = _late(receipt, evidence.receipts)
    trades = _first_of_each(evidence.trades, "first_id", late_ids)
    quotes = _first_of_each(evidence.quotes, "update_id", late_update_ids)
    found = [rows[(rows["time_us"] >= from_us) & (rows["time_us"] < end_us)] for rows in (trades, quotes)]
    return found[0], found[1]


def _late(receipt: Record, others: Iterable[Record]) -> tuple[list[int], list[int]]:
    """The ids that came too late for the history that `receipt` was made from: whichever receipt told it,
    those after it included. A state that was begun anew knows nothing of what the one before had folded."""
    of_the_same = [other for other in others if other.get("history_from_us") == receipt["history_from_us"]]
    trade_ids = [id_ for each in (receipt, *of_the_same) for id_ in each["late_ids"]]
    return trade_ids, [id_ for each in (receipt, *of_the_same) for id_ in each["late_update_ids"]]


def _first_of_each(rows: Any, ids: str, without: list[int]) -> Any:
    first_seen = np.sort(np.unique(rows[ids], return_index=True)[1])
    rows = rows[first_seen]
    return rows[~np.isin(rows[ids], without)] if without else rows


def _stragglers(quotes: Quotes) -> Any:
    """Which of `quotes` came after one of a higher id. Shape (quotes,), bool."""
    ids = quotes["update_id"]
    return ids < np.maximum.accumulate(ids)


def _ring(bars: Bars, from_us: int) -> BarRing:
    """The ring as it stood when the last of `bars` was closed."""
    seconds = whole_seconds(bars)[-KEPT_SECONDS:]
    next_bar = bar_index(int(bars["end_us"][-1]))
    return BarRing(0, next_bar, from_us, bars[-KEPT_BARS:], seconds)


def _doubts(receipt: Record, evidence: Evidence, bars: Bars, from_us: int, end_us: int) -> Iterator[str]:
    window_us = end_us - WINDOW_US
    begun_us = receipt["history_from_us"]
    times_us = np.concatenate([evidence.trades["time_us"], evidence.quotes["time_us"]])
    if begun_us > window_us and ((times_us >= begun_us - SILENCE_US) & (times_us < begun_us)).any():
        yield "the state was lost and begun anew within the minute: its first bars lack ticks"
    if begun_us < from_us:
        carried = bars[(window_us - from_us) // BAR_US - 1]
        if not (carried["update_id"] and carried["last_buy_price"] and carried["last_sell_price"]):
            yield f"the book or a side's last trade is from more than {LOOK_BACK_US // SECOND_US} s before"
    if receipt["reason"] == MODEL_REFUSED and receipt["model_id"]:
        yield f"model {receipt['model_id']} did not answer then"
    lists = [each[name] for each in evidence.receipts for name in ("late_ids", "late_update_ids")]
    if any(len(ids) >= MAX_LATE_IDS for ids in lists):
        yield f"more ticks came late than the {MAX_LATE_IDS} that a receipt lists"
    ids = evidence.trades["first_id"][evidence.trades["time_us"] >= from_us]
    unseen = sum(int(((ids >= first) & (ids <= last)).sum()) for first, last in evidence.missing)
    if unseen:
        yield f"bronze holds {unseen} trades that never reached the hot path"


def _unproven(receipt: Record, model: ServingModel | None, challenger: ServingModel | None) -> Iterator[str]:
    if receipt["model_id"] and model is None:
        yield f"what model {receipt['model_id']} said: it cannot be had from S3"
    if receipt["challenger"] and challenger is None:
        yield f"what challenger {receipt['challenger']['model_id']} said: it cannot be had from S3"


def _compared(
    receipt: Record, ring: BarRing, model: ServingModel | None, challenger: ServingModel | None
) -> Iterator[Compared]:
    """Every value of `receipt` that can be had again, beside what it is now."""
    features = features_record(receipt["symbol"], ring)
    remade = _remade(receipt, features, model)
    told, vector = receipt["features"], remade.get("features")
    if told is None or vector is None:
        yield Compared("features", told, vector)
    else:
        yield from (Compared(f"features.{name}", told[name], vector[name]) for name in FEATURE_NAMES)
    yield from (Compared(name, receipt[name], remade.get(name)) for name in _OF_THE_BARS)
    if model is None and receipt["model_id"]:
        return
    yield from (Compared(name, receipt[name], remade.get(name)) for name in _OF_THE_MODEL)
    yield from _compared_horizons("", _OF_A_HORIZON, receipt["horizons"], remade.get("horizons", {}))
    shadow = receipt["challenger"]
    if challenger and shadow:
        said = _challenged(remade, challenger, shadow.get("calibrator"))
        names = _OF_A_HORIZON if "calibrator" in shadow else _UNCALIBRATED
        yield from _compared_horizons("challenger.", names, shadow["horizons"], said)


def _compared_horizons(
    prefix: str, names: tuple[str, ...], told: Record, recomputed: Record
) -> Iterator[Compared]:
    for horizon in sorted({*told, *recomputed}, key=int):
        ours, theirs = told.get(horizon, {}), recomputed.get(horizon, {})
        for name in names:
            yield Compared(f"{prefix}horizons.{horizon}.{name}", ours.get(name), theirs.get(name))


def _remade(receipt: Record, features: Record | None, model: ServingModel | None) -> Record:
    """The prediction record on `features` by `model`, calibrated as `receipt` says it was."""
    if features is None:
        return {}
    terms = TradingTerms(receipt["horizon_s"], receipt["fee_bp"], _ANY_CONFIDENCE)
    refusal = MODEL_REFUSED if receipt["reason"] == MODEL_REFUSED else None
    memory = _memory(receipt["model_id"], receipt["calibrator"])
    return prediction_record(features, model, refusal, memory, terms, lambda: 0.0)


def _challenged(remade: Record, challenger: ServingModel, calibrator: Record | None) -> Record:
    """What `challenger` says of the remade prediction, by horizon; nothing where it cannot."""
    if not remade.get("horizons"):
        return {}
    try:
        said = challenger_record(remade, challenger, _memory(challenger.model_id, calibrator or {}))
    except ModelError:
        return {}
    horizons: Record = said["horizons"]
    return horizons


def _memory(model_id: str, calibrator: Record) -> PendingPredictions:
    """A memory of this model alone, its calibrators as they were; those of its card where none are told."""
    known = {int(h): Calibrator(**values) for h, values in calibrator.items()}
    return PendingPredictions(calibrators={model_id: known} if known else {})

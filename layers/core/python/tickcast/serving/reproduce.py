"""Recompute a prediction from the ticks in bronze, and compare it with its receipt to the last bit.

The receipt says as of when the prediction was made, since when its bars are unbroken, up to when they were
closed, which ticks came too late for those, and which ticks of the open bars had arrived; bronze has the
ticks; the code that turns them into bars, features and forecasts is the one that serves. So all of the
prediction can be recomputed, and whatever is not equal bit for bit is a difference.

How far back to begin: windows reach back a minute (`WINDOW_US`), and bars at its start carry values from
before it: the book, the last trade of each side, when the mid moved. Ages are capped at a minute, so that
only the newest of each counts; `LOOK_BACK_US` leaves another minute to find them in. Where history begins
within it (a start, a silence), the recomputation begins there too. What is not found in it is a caveat.

A *caveat* is a reason why bronze and receipts do not determine exactly what the hot path folded. Equality is
proof whatever the caveats; a difference counts only where there is none. One is not seen: ticks that came
late while nothing was predicted are listed by the next receipt that is kept, which may be too far away.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct, field

from tickcast.features.bars import BAR_US, NO_BAR, SILENCE_US, Bars, Ints, bar_index, summarise, whole_seconds
from tickcast.features.ring import KEPT_BARS, KEPT_SECONDS, BarRing, View, differences, from_differences
from tickcast.features.trade_ids import MAX_LATE_IDS
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.market.ticks import NO_QUOTES, Quotes, TickArray, Trades
from tickcast.market.wire import QUIET_UNKNOWN
from tickcast.model.forecast import HorizonForecast, Path
from tickcast.serving.outcomes import Calibrators, PendingPredictions
from tickcast.serving.prediction import (
    MODEL_REFUSED,
    Row,
    ServingModel,
    TradingTerms,
    challenger_forecasts,
    path_forecasts,
    row_of,
)
from tickcast.serving.prediction import receipt as receipt_of
from tickcast.serving.records import ChallengerForecast, LateTicks, Prediction
from tickcast.units import SECOND_US

# Whole seconds before the one that the prediction was made in, and the mean basis at the end of the first.
WINDOW_US = (KEPT_SECONDS + 1) * SECOND_US + KEPT_BARS * BAR_US
LOOK_BACK_US = 120 * SECOND_US

# Which old receipts lack.
_NEEDED = ("sequence", "history_from_us", "feature_hash", "fee_bp", "closed_us", "latency_ms")
_OF_THE_BARS = (
    "basis_price",
    "spread_bp",
    "cost_bp",
    "last_trade_id",
    "update_id",
    "trade_age_ms",
    "quote_age_ms",
)
_OF_THE_MODEL = ("source", "reason", "outside", "predicted_price", "confidence")
_OF_A_PATH = ("move_bp", "scale_bp", "p_flat")
# Without what depends on settings: `noise_bp` and `abstains`.
_UNCALIBRATED = ("predicted_price", "expected_move_bp", "scale_bp", "p_flat")
_OF_A_HORIZON = (*_UNCALIBRATED, "confidence", "lower", "upper")
_ANY_CONFIDENCE = 0.55
_OF_OPEN_BARS = ("open_ids", "open_update_ids", "open_reference_ids")
# A receipt of another release may lack some of these: a default in its place would seem a difference.
COMPARED = {
    *_OF_THE_BARS,
    *_OF_OPEN_BARS,
    *_OF_THE_MODEL,
    "closed_us",
    "features",
    "model_id",
    "calibrator",
    "path",
    "horizons",
    "challenger",
}


class ReceiptError(ValueError):
    """A receipt that cannot be recomputed; the message says what it lacks."""


class Surroundings(NamedTuple):
    """What is known of the time around a receipt.

    `trades` and `quotes` are those of bronze in stream order, from the look-back on, or from a minute before
    the beginning of history if that lies within it; `late` the late ticks listed by receipts of the same
    symbol, from the look-back to the newest; `missing` the ranges of trade ids (first, last) that never
    reached the hot path. `reference` are the perpetual's quotes, likewise.
    """

    trades: Trades
    quotes: Quotes
    late: Sequence[LateTicks]
    missing: list[tuple[int, int]]
    reference: Quotes = NO_QUOTES


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
    """Equality, of floats by their bytes, also in lists."""
    if isinstance(recorded, list) and isinstance(recomputed, list):
        pairs = zip(recorded, recomputed, strict=False)
        return len(recorded) == len(recomputed) and all(is_same(*pair) for pair in pairs)
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
    return max(receipt.history_from_us or 0, (end_us - LOOK_BACK_US) // BAR_US * BAR_US), end_us


def reproduce(
    receipt: Prediction,
    around: Surroundings,
    model: ServingModel | None,
    challenger: ServingModel | None,
) -> Reproduction:
    """Recompute `receipt` and compare. `model` and `challenger` are those it names, None where they cannot be
    loaded; their forecasts are then left unproven. Raises `ReceiptError`."""
    from_us, end_us = look_back_us(receipt)
    closed_us = max(receipt.closed_us or 0, from_us)
    trades, quotes, reference = _folded(receipt, around, from_us, closed_us)
    arrived = _arrived(receipt, around, closed_us, end_us)
    stragglers = _stragglers(quotes["update_id"])
    behind = _stragglers(reference["time_us"])
    compared: list[ComparedValue] = []
    caveats: list[str] = []
    # Of quotes that came after newer ones, the hot path folds those whose bar is still open. Which these were
    # in a bar that is closed by now, neither bronze nor the receipt says: try with all of them, then without.
    choices = itertools.product(
        (quotes, quotes[~stragglers]) if stragglers.any() else (quotes,),
        (reference, reference[~behind]) if behind.any() else (reference,),
    )
    for some_quotes, some_reference in choices:
        bars = summarise(trades, some_quotes, bar_index(from_us), closed_us, NO_BAR, some_reference)
        view = _view(bars, from_us, closed_us, arrived, end_us)
        compared = list(_compared(receipt, view, model, challenger))
        caveats = list(_caveats(receipt, around, bars, from_us, end_us))
        if all(each.is_same for each in compared):
            break
    if in_sight := sum(
        int((are_behind & (rows["time_us"] >= end_us - WINDOW_US)).sum())
        for rows, are_behind in ((quotes, stragglers), (reference, behind))
    ):
        caveats.append(f"{in_sight} quotes came out of order: some may have been too late")
    unproven = _unproven(receipt, model, challenger)
    return Reproduction(receipt.id, tuple(compared), tuple(caveats), tuple(unproven))


def _folded(
    receipt: Prediction, around: Surroundings, from_us: int, closed_us: int
) -> tuple[Trades, Quotes, Quotes]:
    """The ticks that the hot path folded into the closed bars of `receipt`: the first of each id, in stream
    order, without late ones."""
    late_ids, late_update_ids, late_reference_ids = _late(receipt, around.late)
    trades = _first_of_each(around.trades, "first_id", late_ids)
    quotes = _first_of_each(around.quotes, "update_id", late_update_ids)
    reference = _first_of_each(around.reference, "update_id", late_reference_ids)
    found = [_between(rows, from_us, closed_us) for rows in (trades, quotes, reference)]
    return found[0], found[1], found[2]


def _arrived(
    receipt: Prediction, around: Surroundings, closed_us: int, end_us: int
) -> tuple[Trades, Quotes, Quotes]:
    """The ticks of open bars that had arrived: those that `receipt` lists, of each the first that was not
    late. What bronze lacks of them is missing here too, and so found when the ids are compared."""
    found: list[TickArray] = []
    for rows, ids, listed in (
        (around.trades, "first_id", receipt.open_ids),
        (around.quotes, "update_id", receipt.open_update_ids),
        (around.reference, "update_id", receipt.open_reference_ids),
    ):
        rows = _between(rows, closed_us, end_us)
        found.append(_first_of_each(rows[np.isin(rows[ids], from_differences(listed))], ids, []))
    return found[0], found[1], found[2]


def _between(rows: TickArray, from_us: int, to_us: int) -> TickArray:
    return rows[(rows["time_us"] >= from_us) & (rows["time_us"] < to_us)]


def _late(receipt: LateTicks, others: Iterable[LateTicks]) -> tuple[list[int], ...]:
    """The ids that came too late for the history of `receipt`, whichever receipt of that history lists them,
    including later ones. A state that started over does not know what the previous one had folded."""
    of_the_same = [receipt, *(other for other in others if other.history_from_us == receipt.history_from_us)]
    return tuple(
        [id_ for each in of_the_same for id_ in getattr(each, name)]
        for name in ("late_ids", "late_update_ids", "late_reference_ids")
    )


def _first_of_each(rows: Any, ids: str, without: list[int]) -> Any:
    first_seen = np.sort(np.unique(rows[ids], return_index=True)[1])
    rows = rows[first_seen]
    return rows[~np.isin(rows[ids], without)] if without else rows


def _stragglers(order: Ints) -> Any:
    """Which rows came after one of a higher `order`. Shape (rows,), bool."""
    return order < np.maximum.accumulate(order)


def _view(
    bars: Bars, from_us: int, closed_us: int, arrived: tuple[Trades, Quotes, Quotes], end_us: int
) -> View:
    """The view as of `end_us`, of a ring that has closed `bars` and in which these ticks have `arrived`."""
    seconds = whole_seconds(bars)[-KEPT_SECONDS:]
    trades, quotes, reference = arrived
    reference = reference[np.argsort(reference["time_us"], kind="stable")]
    ring = BarRing(0, bar_index(closed_us), from_us, bars[-KEPT_BARS:], seconds, trades, quotes, reference)
    return ring.view(end_us)


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
    listed = (ids for each in around.late for ids in _late(each, ()))
    if any(len(ids) >= MAX_LATE_IDS for ids in listed):
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
    receipt: Prediction, view: View, model: ServingModel | None, challenger: ServingModel | None
) -> Iterator[ComparedValue]:
    """Every value of `receipt` that can be recomputed, with the recomputed one."""
    yield ComparedValue("open_ids", receipt.open_ids, differences(view.trade_ids))
    yield ComparedValue("open_update_ids", receipt.open_update_ids, differences(view.update_ids))
    yield ComparedValue("open_reference_ids", receipt.open_reference_ids, differences(view.reference_ids))
    row = row_of(receipt.symbol, view, QUIET_UNKNOWN)
    recomputed = _recomputed(receipt, row, model, challenger) if row else None
    recorded, vector = receipt.features, recomputed.features if recomputed else None
    if recorded is None or vector is None:
        yield ComparedValue("features", recorded, vector)
    else:
        yield from (ComparedValue(f"features.{name}", recorded[name], vector[name]) for name in FEATURE_NAMES)
    yield from _compared_fields("", _OF_THE_BARS, receipt, recomputed)
    if model is None and receipt.model_id:
        return
    yield from _compared_fields("", _OF_THE_MODEL, receipt, recomputed)
    yield from _compared_path("", receipt.path, recomputed.path if recomputed else None)
    horizons = recomputed.horizons if recomputed else {}
    yield from _compared_horizons("", _OF_A_HORIZON, receipt.horizons, horizons)
    if challenger and (shadow := receipt.challenger):
        names = _OF_A_HORIZON if shadow.calibrator else _UNCALIBRATED
        found = recomputed.challenger if recomputed else None
        yield from _compared_path("challenger.", shadow.path, found.path if found else None)
        yield from _compared_horizons("challenger.", names, shadow.horizons, found.horizons if found else {})


def _compared_path(prefix: str, recorded: Path | None, recomputed: Path | None) -> Iterator[ComparedValue]:
    if recorded or recomputed:
        yield from _compared_fields(f"{prefix}path.", _OF_A_PATH, recorded, recomputed)


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


def _recomputed(
    receipt: Prediction, row: Row, model: ServingModel | None, challenger: ServingModel | None
) -> Prediction:
    """The receipt of the prediction on `row` by `model`, and by `challenger` in shadow, calibrated and
    delivered as `receipt` says it was."""
    terms = TradingTerms(receipt.horizon_s, receipt.fee_bp or 0.0, _ANY_CONFIDENCE)
    refusal = MODEL_REFUSED if receipt.reason == MODEL_REFUSED else None
    pending = _calibrated(receipt.model_id, receipt.calibrator)
    (forecast,) = path_forecasts([(row, pending)], model, refusal, terms, lambda: 0.0)
    forecast.latency_ms = receipt.latency_ms
    in_shadow = None
    if challenger and (shadow := receipt.challenger):
        pending = _calibrated(challenger.model_id, shadow.calibrator)
        (in_shadow,) = challenger_forecasts([(row, pending)], [forecast], challenger)
    return receipt_of(forecast, row, in_shadow if isinstance(in_shadow, ChallengerForecast) else None)


def _calibrated(model_id: str | None, calibrator: Calibrators) -> PendingPredictions:
    """Nothing pending, and the calibrators of this model as they were; none where the receipt has none."""
    return PendingPredictions(calibrators={model_id: calibrator} if model_id and calibrator else {})

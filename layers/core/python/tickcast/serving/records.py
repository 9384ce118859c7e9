"""The records that are stored and served, as types: features, predictions, outcomes, heartbeats.

Field names are the JSON names of docs/contracts.md. Reading ignores members that a type does not name, and a
field with a default may be missing: what readers can do without has one, so that records of other releases
stay readable. Every field is written. Units, where not in the name: prices in quote currency, quantities in
base, `timestamp` and `target_time` in ms (`Features` in s).

`encode` and `decode` also serve `market.gaps`, `evaluation.live_scores` and `evaluation.drift`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import MAX_AGE_S, HorizonForecast, Path, Price, Probability

T = TypeVar("T")

TimeMs = Annotated[int, Meta(ge=0, description="ms since 1970")]
Horizon = Annotated[int, Meta(ge=1, description="seconds ahead")]
Id = Annotated[str, Meta(description="`{symbol}-{timestamp}`")]
Source = Literal["model", "fallback"]
Status = Literal["resolved", "unresolved"]
Vector = dict[str, float]  # the features by name


def encode(record: Any) -> bytes:
    """`record` as JSON. A number that is not finite becomes null where the type allows null; elsewhere raises
    ValueError naming its place (TypeError on what JSON does not have)."""
    data = msgspec.json.encode(record)
    msgspec.json.decode(data, type=type(record))  # what could not be read back is never written
    return data


def encode_sound(record: Any) -> bytes:
    """The same of a record whose numbers are known to be finite where they must not be null."""
    return msgspec.json.encode(record)


def decode(kind: type[T], data: bytes | str) -> T:
    """The record in `data`. Raises ValueError naming the field that is missing or of another type."""
    return msgspec.json.decode(data, type=kind)


def delivered_ms(timestamp_ms: int, latency_ms: int | None) -> int:
    """When a prediction counts as delivered, within the ages that are served: what is written later is not
    read, and a latency below 0 is one of clocks."""
    return timestamp_ms + min(max(latency_ms or 0, 0), round(MAX_AGE_S * 1000))


class Features(Struct, kw_only=True):
    """The features of a symbol as of an instant; null where unknown."""

    symbol: str
    timestamp: Annotated[int, Meta(description="s since 1970: the as-of instant, rounded down")]
    window_s: Annotated[int, Meta(description="over which volume, vwap and price_change are computed")] = 60
    price: Annotated[Price, Meta(description="of the last trade, else the mid")]
    volume: Annotated[float, Meta(ge=0, description="base currency, over the window")]
    vwap: float | None = None
    price_change: Annotated[float | None, Meta(description="percent, of the mid over the window")] = None
    mid: float | None = None
    proxy_mid: Annotated[
        float | None, Meta(description="mean of the last buyer's and the last seller's price")
    ] = None
    bid_price: float | None = None
    ask_price: float | None = None
    trade_count: int
    last_trade_id: int | None = None
    update_id: Annotated[int | None, Meta(description="of the newest book update")] = None
    features: Annotated[Vector | None, Meta(description="the vector by name; null while warming up")] = None
    last_tick_us: Annotated[int | None, Meta(description="the newest trade or quote, µs")] = None
    quiet_us: Annotated[int | None, Meta(description="when the exchange last had nothing newer, µs")] = None


class HorizonPrediction(HorizonForecast, frozen=True, kw_only=True):
    """The forecast for one horizon, and what it means for a trader."""

    noise_bp: Annotated[
        float | None, Meta(description="below this, an expected move is noise; null if all is")
    ] = None
    edge_bp: Annotated[
        float | None, Meta(description="|expected move| less the cost of a round trip; null without quotes")
    ] = None
    worth_trading: Annotated[
        bool | None,
        Meta(description="the expected move exceeds spread and fees; null without quotes"),
    ] = None
    abstains: Annotated[
        bool, Meta(description="the expected move is within the noise, or no model answers")
    ] = True


class ChallengerSummary(Struct, frozen=True, kw_only=True):
    """What the challenger forecast in shadow on the same vector."""

    model_id: str
    horizons: dict[int, HorizonForecast]


class ChallengerForecast(ChallengerSummary, frozen=True, kw_only=True):
    """The same with its path and calibrators, which older receipts lack."""

    path: Path | None = None
    calibrator: dict[int, Calibrator] = {}


class Timing(Struct, frozen=True):
    """The parts of `latency_ms`, each from one point in time to the next, from `timestamp` on. The first
    three compare the clocks of the exchange, Kinesis and Lambda, and may be negative."""

    lateness: Annotated[float, Meta(description="0: nothing waits for late ticks")]
    to_kinesis: Annotated[float, Meta(description="`timestamp` … its record arrived")]
    to_function: Annotated[float, Meta(description="… the function started")]
    fold: Annotated[float, Meta(description="… the bars were updated")]
    features: float
    inference: float
    challenger: float
    write: Annotated[float, Meta(description="… handed to Redis")]


class PathForecast(Struct, kw_only=True):
    """What an answer is made from when it is read: the model's path as of an instant, its calibration, and
    how fresh it is. `prediction:{symbol}:latest` holds the newest; its receipt is the `Prediction` of the
    same id."""

    id: Id
    symbol: str
    timestamp: Annotated[TimeMs, Meta(description="as of this instant of the exchange's clock, ms")]
    basis_price: Annotated[Price, Meta(description="the mid at `timestamp`, which the path starts from")]
    path: Annotated[Path | None, Meta(description="null where no model answers")] = None
    calibrator: Annotated[dict[int, Calibrator], Meta(description="as used, by horizon")] = {}
    horizon_s: Annotated[Horizon, Meta(description="the primary one, by configuration")]
    spread_bp: float | None = None
    fee_bp: float | None = None
    cost_bp: float | None = None
    min_confidence: Annotated[float, Meta(description="below it a move counts as noise")] = 0.55
    source: Source
    reason: str | None = None
    outside: list[str] = []
    model_id: str | None = None
    provisional: bool | None = None
    feature_hash: str | None = None
    last_trade_id: int | None = None
    update_id: int | None = None
    trade_age_ms: int | None = None
    quote_age_ms: int | None = None
    last_tick_us: Annotated[int | None, Meta(description="the newest trade or quote, µs")] = None
    quiet_us: Annotated[int | None, Meta(description="when the exchange last had nothing newer, µs")] = None
    latency_ms: int | None = None
    inference_ms: float | None = None
    clock_offset_ms: Annotated[
        float | None, Meta(description="the hot store's clock less the exchange's; null: not known")
    ] = None


class LateTicks(Struct, kw_only=True):
    """The ticks that came too late for the bars of a prediction."""

    late_ids: Annotated[list[int], Meta(description="trades too late for the features, or refused")] = []
    late_update_ids: Annotated[list[int], Meta(description="likewise book updates")] = []
    late_reference_ids: Annotated[list[int], Meta(description="likewise reference quotes")] = []
    history_from_us: Annotated[int | None, Meta(description="since when its bars are unbroken, µs")] = None


class PredictionSummary(LateTicks, kw_only=True):
    """A prediction as in lists, as it was delivered: the primary horizon's forecast of what was still to come
    at `timestamp` + `latency_ms`, when it was written, and all of them in `horizons`, which is empty where no
    model answers."""

    id: Id
    symbol: str
    timestamp: Annotated[TimeMs, Meta(description="as of this instant of the exchange's clock, ms")]
    horizon_s: Horizon
    target_time: Annotated[TimeMs, Meta(description="the instant predicted, horizon_s after delivery, ms")]
    basis_price: Annotated[Price, Meta(description="the mid at `timestamp`, which the path starts from")]
    predicted_price: Annotated[Price, Meta(description="the mid at target_time")]
    expected_move_bp: Annotated[float | None, Meta(description="from the delivery to target_time")] = None
    scale_bp: Annotated[float | None, Meta(description="σ√h, the usual move over this horizon")] = None
    confidence: Annotated[
        Probability, Meta(description="that the direction is right, given that the price moves; 0 without")
    ]
    p_flat: Annotated[Probability | None, Meta(description="that the mid does not move")] = None
    lower: Annotated[Price | None, Meta(description="of the 80 % conformal interval")] = None
    upper: Price | None = None
    noise_bp: float | None = None
    edge_bp: Annotated[
        float | None, Meta(description="|expected move| less cost_bp; null without quotes")
    ] = None
    worth_trading: Annotated[
        bool | None,
        Meta(description="the expected move exceeds spread and fees; null without quotes"),
    ] = None
    abstains: Annotated[bool, Meta(description="the move is within the noise, or no model answers")] = True
    spread_bp: float | None = None
    fee_bp: Annotated[float | None, Meta(description="of one side of a trade, by configuration")] = None
    cost_bp: Annotated[float | None, Meta(description="of a round trip: the spread and two fees")] = None
    source: Source
    reason: Annotated[str | None, Meta(description="why it is a fallback")] = None
    outside: Annotated[list[str], Meta(description="features beyond what the model was trained on")] = []
    model_id: str | None = None
    provisional: Annotated[bool | None, Meta(description="not proven better than the baselines yet")] = None
    horizons: Annotated[
        dict[int, HorizonPrediction], Meta(description="the answer for every horizon, by s")
    ] = {}
    challenger: ChallengerSummary | None = None
    feature_hash: Annotated[str | None, Meta(description="which definitions of the features")] = None
    last_trade_id: int | None = None
    update_id: int | None = None
    trade_age_ms: Annotated[int | None, Meta(description="of the last trade, at `timestamp`")] = None
    quote_age_ms: int | None = None
    feature_age_ms: Annotated[int | None, Meta(description="of the newest tick, at `timestamp`")] = None
    latency_ms: Annotated[int | None, Meta(description="from `timestamp` to the prediction written")] = None
    inference_ms: float | None = None
    timing_ms: Annotated[Timing | None, Meta(description="the parts of `latency_ms`")] = None


class Prediction(PredictionSummary, kw_only=True):
    """A prediction, which is its own receipt: it holds all that it was made from. `calibrator` is empty where
    no model answers.

    It was made from the bars that were closed up to `closed_us`, and of the open ones from those ticks that
    had arrived: `open_ids` and `open_update_ids` list them, ascending, each but the first as its difference
    from the one before; `open_reference_ids` likewise the newest reference quote of each open bar."""

    path: Path | None = None
    closed_us: Annotated[int | None, Meta(description="up to this instant its bars were closed, µs")] = None
    open_ids: Annotated[list[int], Meta(description="trades in open bars: first id, then differences")] = []
    open_update_ids: Annotated[list[int], Meta(description="likewise book updates")] = []
    open_reference_ids: Annotated[
        list[int], Meta(description="likewise the perpetual's newest quote of each bar")
    ] = []
    challenger: ChallengerForecast | None = None
    calibrator: Annotated[dict[int, Calibrator], Meta(description="as used, by horizon")] = {}
    features: Annotated[Vector | None, Meta(description="the vector by name; null while warming up")] = None
    sequence: Annotated[str | None, Meta(description="of the record whose claim it is as of")] = None


class PendingShadow(Struct, array_like=True, frozen=True):
    """The challenger's forecast of the remaining move over one horizon, as it was delivered, while its
    outcome is pending."""

    expected_move_bp: float
    scale_bp: float
    half_width_bp: float  # of the 80 % interval
    confidence: float
    p_flat: float


class PendingForecast(PendingShadow, array_like=True, frozen=True):
    """The active model's, likewise, and the move that it expected over the horizon from `timestamp` on."""

    abstains: bool
    hindsight_expected_bp: float
    worth_trading: bool | None = None


class ChallengerOutcome(Struct, frozen=True, kw_only=True):
    """What the challenger had forecast over the horizon, and whether it was right."""

    model_id: str | None
    expected_move_bp: float
    scale_bp: float
    half_width_bp: float | None = None  # None in records of release 0.1.0
    confidence: float
    p_flat: float
    inside: bool | None = None
    right: bool | None = None


class OfPrediction(Struct, kw_only=True):
    """What an outcome repeats of its prediction."""

    id: Id
    symbol: str
    timestamp: TimeMs
    basis_price: float
    imbalance: Annotated[float | None, Meta(description="the feature that the linear baseline uses")]
    source: Source
    reason: str | None
    model_id: str | None
    latency_ms: Annotated[int | None, Meta(description="from `timestamp` to the delivery")]
    spread_bp: Annotated[float | None, Meta(description="at `timestamp`")] = None
    fee_bp: Annotated[float | None, Meta(description="of one side of a trade, by configuration")] = None


class PendingPrediction(OfPrediction, kw_only=True):
    """What is kept of a prediction while any of its outcomes is pending. `horizons` and `shadow` are by
    seconds, null where there is no forecast. The prices that the stream has reached: `delivered_price` when
    the prediction was delivered, `hindsight_prices` a horizon after `timestamp`; null where there was no mid,
    `delivered_price` unset until then. `delivered_spread_bp` is the spread at the delivery."""

    horizons: dict[int, PendingForecast | None]
    challenger: str | None  # its model id
    shadow: dict[int, PendingShadow]
    delivered_price: float | None | UnsetType = UNSET
    delivered_spread_bp: float | None = None
    hindsight_prices: dict[int, float | None] = {}


class OutcomeSummary(Struct, kw_only=True):
    """An outcome as in lists: what the market did until the target, and whether the forecast was right."""

    status: Status
    why: Annotated[str | None, Meta(description="why it is unresolved")]
    move_bp: Annotated[float | None, Meta(description="of the mid from the delivery to the target")]
    outcome_price: Annotated[float | None, Meta(description="the mid at the target")]
    delivered_price: Annotated[float | None, Meta(description="the mid at the delivery")] = None
    inside: Annotated[bool | None, Meta(description="whether the move lies in the interval")]
    right: Annotated[bool | None, Meta(description="the direction; null if the mid did not move")]


class OutcomeEntry(OutcomeSummary, kw_only=True):
    """What lists read of a stored outcome: the rest of it is not decoded."""

    id: Id
    horizon_s: Horizon


class Outcome(OfPrediction, kw_only=True):
    """What came of a prediction over one horizon: the move that was still to come when it was delivered. The
    forecast is null where there was none."""

    basis_price: Price
    horizon_s: Horizon
    target_time: Annotated[TimeMs, Meta(description="horizon_s after the delivery")]
    status: Status
    why: Annotated[str | None, Meta(description="why it is unresolved")]
    delivered_price: Annotated[float | None, Meta(description="the mid at the delivery")] = None
    outcome_price: Annotated[float | None, Meta(description="the mid at target_time")]
    move_bp: Annotated[float | None, Meta(description="of the mid from the delivery to target_time")]
    expected_move_bp: float | None
    scale_bp: float | None
    half_width_bp: Annotated[float | None, Meta(description="of the 80 % interval around it")] = None
    confidence: float | None
    p_flat: float | None
    abstains: bool
    worth_trading: Annotated[bool | None, Meta(description="whether the expected move exceeded the cost")] = (
        None
    )
    spread_paid_bp: Annotated[
        float | None,
        Meta(description="half the spread at the delivery and half of it at target_time: to enter and leave"),
    ] = None
    inside: Annotated[bool | None, Meta(description="whether the move lies in the interval")]
    right: Annotated[bool | None, Meta(description="the direction; null if the mid did not move")]
    hindsight_move_bp: Annotated[
        float | None, Meta(description="of the mid over the horizon from `timestamp` on")
    ] = None
    hindsight_expected_bp: Annotated[float | None, Meta(description="what was expected of that")] = None
    challenger: ChallengerOutcome | None


class ArchivedReceipt(Prediction, kw_only=True):
    """A prediction with its outcomes, as the archive keeps it (`adapters.lake.receipt_archive`)."""

    outcomes: Annotated[
        dict[int, Outcome], Meta(description="by horizon, as far as they were known when it was archived")
    ] = {}


class ArchivedUntil(Struct, kw_only=True):
    """Up to when a symbol's receipts are in the lake with all that can still come of them, ms: the first of
    each second, and those in between."""

    seconds_ms: int = 0
    between_ms: int = 0


class Heartbeat(Struct, kw_only=True):
    """That a part of the system is alive; `why` says what is wrong if it is not `ok`."""

    at_ms: int
    ok: bool = True
    why: str | None = None


class AuditHeartbeat(Heartbeat, kw_only=True):
    """`audit_predictions`: the predictions of the newest run, by result."""

    audited: int
    differences: int
    pending: int


class ArchiveHeartbeat(Heartbeat, kw_only=True):
    """`archive_ticks`, as the auditor sees it: by symbol the newest tick in bronze, and objects listed."""

    newest_us: dict[str, int | None]
    objects: int


class ScoreHeartbeat(Heartbeat, kw_only=True):
    """`score_predictions`: outcomes drained by the newest run, and symbols that drift."""

    outcomes: int
    drifting: list[str]


class StreamHeartbeat(Struct, kw_only=True):
    """`predict_stream` of one symbol: its progress, and its counts since its state began."""

    at_ms: int
    watermark_ms: int
    received_ms: int
    model_problem: str | None
    challenger_problem: str | None = None
    failure: str | None = None  # why the last record was skipped, until the next prediction
    reason: str | None = None  # of the newest prediction
    warming_since_ms: int | None = None
    late_trades: int = 0
    late_quotes: int = 0
    reference_ms: int | None = None  # of the newest reference quote; null: none yet
    late_reference: int = 0
    missing_trades: int = 0
    quote_gaps: int = 0
    refused_trades: int = 0
    refused_quotes: int = 0
    id_restarts: int = 0
    clock_offset_ms: float | None = None  # the hot store's clock less the exchange's; null: not known
    own_offset_ms: float | None = None  # likewise the function's clock


class FeedHeartbeat(Struct, kw_only=True):
    """`ingest_ecs` of one symbol, from its newest batch; `at_ms` is `received_ms`, the arrival at Kinesis.
    A watermark that does not move says that ingest is not connected or not caught up."""

    at_ms: int
    received_ms: int
    watermark_ms: int
    source: str | None = None
    connections: list[str] = []
    host_offset_ms: float | None = None  # ingest's clock less the exchange's; null: not known

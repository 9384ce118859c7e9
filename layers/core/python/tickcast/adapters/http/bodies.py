"""The bodies of the API's responses as types, from which the OpenAPI document is generated.

They extend the stored records with what is known when they are read. Responses may have further members. A
member that may be missing has `UnsetType`; an unknown value is null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tickcast.evaluation.figures import Count
from tickcast.evaluation.live_scores import AccuracySummary, HorizonAccuracy
from tickcast.market.condition import DayCondition
from tickcast.model.forecast import Price, Probability
from tickcast.serving.records import (
    Horizon,
    HorizonPrediction,
    Outcome,
    OutcomeSummary,
    Prediction,
    PredictionSummary,
    Source,
    TimeMs,
)

HISTORY_MAX = 300
PAGE_MAX = 1000
CARDS_SHOWN = 20
DAYS_MAX = 400
GAPS_SHOWN = 10


class Problem(Struct, kw_only=True):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: Annotated[int, Meta(ge=400, le=599)] | UnsetType = UNSET
    detail: str
    parameter: Annotated[str, Meta(description="the parameter that is wrong")] | UnsetType = UNSET
    request_id: Annotated[str, Meta(description="of the gateway's own problems")] | UnsetType = UNSET


class Ages(Struct, kw_only=True):
    """How old an answer's input is at the moment of reading, in ms. The answer is a fallback when one of them
    is above 5 s, unless the tick is and the market is quiet."""

    tick: Annotated[Count | None, Meta(description="since the newest trade or quote; null: not known")]
    claim: Annotated[Count, Meta(description="since `timestamp`, up to which the market was known")]


class HorizonAnswer(HorizonPrediction, frozen=True, kw_only=True):
    """The answer for one horizon, from the moment of reading on."""

    target_time: Annotated[TimeMs, Meta(description="the instant predicted, ms: as_of and the horizon")]
    p_up: Annotated[Probability, Meta(description="that the mid rises until then")]
    p_down: Annotated[Probability, Meta(description="that it falls; p_up, p_down and p_flat sum to 1")]


class ListedPrediction(PredictionSummary, kw_only=True):
    """A prediction as in lists and, if they are asked for, its outcomes."""

    outcomes: (
        Annotated[
            dict[int, OutcomeSummary],
            Meta(description="with `outcomes=true`: by horizon, as far as they are known"),
        ]
        | UnsetType
    ) = UNSET


class Latest(Struct, kw_only=True):
    """The newest prediction for the moment of reading: what is still to come of it over `horizon_s` from
    `as_of` on. The primary horizon's answer, or that of the horizon asked for; all in `horizons`, which is
    empty where no model answers."""

    symbol: str
    timestamp: Annotated[TimeMs, Meta(description="as of this instant of the exchange's clock, ms")]
    predicted_price: Annotated[Price, Meta(description="the mid at target_time")]
    confidence: Annotated[
        Probability, Meta(description="that the direction is right, given that the price moves; 0 without")
    ]
    latency_ms: Annotated[int | None, Meta(description="from `timestamp` to the prediction written")]
    id: Annotated[str, Meta(description="`{symbol}-{timestamp}`: of its receipt")]
    as_of: Annotated[TimeMs, Meta(description="the moment of reading, on the exchange's clock, ms")]
    horizon_s: Horizon
    target_time: Annotated[TimeMs, Meta(description="the instant predicted, ms: as_of + 1000 horizon_s")]
    basis_price: Annotated[Price, Meta(description="the mid at `timestamp`, which the path starts from")]
    expected_move_bp: Annotated[float | None, Meta(description="still to come, from as_of to target_time")]
    p_up: Annotated[Probability | None, Meta(description="that the mid rises from as_of to target_time")]
    p_down: Annotated[Probability | None, Meta(description="that it falls")]
    p_flat: Annotated[Probability | None, Meta(description="that it does neither; the three sum to 1")]
    lower: Annotated[Price | None, Meta(description="of the 80 % conformal interval at target_time")]
    upper: Price | None
    age_ms: Ages
    quiet: Annotated[
        bool,
        Meta(description="the newest tick is older than 5 s because the exchange itself has no newer one"),
    ]
    worth_trading: Annotated[
        bool | None,
        Meta(description="the expected move exceeds spread and fees; null without quotes or forecast"),
    ]
    abstains: Annotated[bool, Meta(description="the move is within the noise, or it is a fallback")]
    noise_bp: Annotated[
        float | None, Meta(description="below this, an expected move is noise; null if all is")
    ]
    edge_bp: Annotated[float | None, Meta(description="|expected move| less cost_bp")]
    scale_bp: Annotated[float | None, Meta(description="σ√h, the usual move over this horizon")]
    spread_bp: Annotated[float | None, Meta(description="at `timestamp`")]
    fee_bp: Annotated[float | None, Meta(description="of one side of a trade, by configuration")]
    cost_bp: Annotated[float | None, Meta(description="of a round trip: the spread and two fees")]
    source: Source
    reason: Annotated[str | None, Meta(description="why it is a fallback")]
    outside: Annotated[list[str], Meta(description="features beyond what the model was trained on")]
    model_id: str | None
    provisional: Annotated[bool | None, Meta(description="not proven better than the baselines yet")]
    horizons: Annotated[dict[int, HorizonAnswer], Meta(description="the answer for every horizon, by s")]
    feature_hash: Annotated[str | None, Meta(description="which definitions of the features")]
    last_trade_id: Annotated[int | None, Meta(description="the newest trade in the features")]
    update_id: Annotated[int | None, Meta(description="the newest book update in them")]
    trade_age_ms: Annotated[int | None, Meta(description="of the last trade, at `timestamp`")]
    quote_age_ms: Annotated[int | None, Meta(description="of the last quote, at `timestamp`")]
    inference_ms: float | None
    environment: str
    history: (
        Annotated[
            list[ListedPrediction],
            Meta(max_length=HISTORY_MAX, description="the first of each second as delivered, newest first"),
        ]
        | UnsetType
    ) = UNSET


class Several(Struct, kw_only=True):
    """The newest predictions of several symbols, read at one moment. Each symbol is in one of the two."""

    as_of: Annotated[TimeMs, Meta(description="the moment of reading, on the exchange's clock, ms")]
    predictions: Annotated[dict[str, Latest], Meta(description="by symbol")]
    problems: Annotated[dict[str, Problem], Meta(description="why there is none, by symbol")]


class Receipt(Prediction, kw_only=True):
    """A prediction with all that it was made from, and its outcomes."""

    environment: str
    outcomes: Annotated[dict[int, Outcome], Meta(description="by horizon, as far as they are known")]


class History(Struct, kw_only=True):
    """A page of predictions, newest first."""

    symbol: str
    horizon_s: Horizon
    from_: TimeMs = msgspec.field(name="from")
    to: TimeMs
    count: Annotated[int, Meta(ge=0, le=PAGE_MAX)]
    next: Annotated[
        str | None,
        Meta(description="address of the next page, relative to this one's; null on the last page"),
    ]
    predictions: Annotated[list[ListedPrediction], Meta(max_length=PAGE_MAX)]


class Accuracy(Struct, kw_only=True):
    """The figures of the last hour, or of the span asked for; those of the last hour, day and week in
    `summary`."""

    symbol: str
    environment: str
    from_: TimeMs = msgspec.field(name="from")
    to: TimeMs
    horizons: Annotated[dict[int, HorizonAccuracy], Meta(description="by horizon")]
    scored_age_s: Annotated[float | None, Meta(description="how long ago it was scored; null if never")]
    summary: Annotated[AccuracySummary | None, Meta(description="null before the first scoring")]
    first: (
        Annotated[
            TimeMs | None,
            Meta(description="of a span asked for: since when there are outcomes of it; null without any"),
        ]
        | UnsetType
    ) = UNSET
    availability: (
        Annotated[
            Probability | None,
            Meta(description="of a span asked for: share of the seconds since `first` that a model answered"),
        ]
        | UnsetType
    ) = UNSET
    note: (
        Annotated[
            str,
            Meta(description="of a span asked for: how it was rounded, why it is empty, what it has not"),
        ]
        | UnsetType
    ) = UNSET


class Data(Struct, kw_only=True):
    """The condition of the data of a symbol by day."""

    symbol: str
    environment: str
    reported: Annotated[TimeMs, Meta(description="when it was reported, ms")]
    days: Annotated[list[DayCondition], Meta(max_length=DAYS_MAX, description="newest first")]
    total: Annotated[Count, Meta(description="the number of days in all")]


class ModelCard(Struct, kw_only=True):
    """A model's card; one that cannot serve says why in `problem`."""

    model_id: str
    problem: str | UnsetType = UNSET


class Models(Struct, kw_only=True):
    """The active model and the newest cards."""

    current: Annotated[
        dict[str, Any] | None, Meta(description="the pointer to the active model; null if there is none")
    ]
    models: Annotated[list[ModelCard], Meta(max_length=CARDS_SHOWN, description="newest first")]
    total: Annotated[int, Meta(ge=0, description="the number of cards in all")]


class Service(Struct, kw_only=True):
    """The health of one part of the system."""

    ok: Annotated[bool | None, Meta(description="null if it has never been seen")]
    why: Annotated[str | None, Meta(description="what is wrong")]
    age_s: float | UnsetType = UNSET
    source: (
        Annotated[
            str | None,
            Meta(description="of a feed: sbe or json; sim and replay are no live market"),
        ]
        | UnsetType
    ) = UNSET
    missing_trades: Count | None | UnsetType = UNSET
    quote_gaps: Count | None | UnsetType = UNSET
    predicted: (
        Annotated[bool, Meta(description="of a symbol; false: no tick so far, and nothing to answer")]
        | UnsetType
    ) = UNSET
    reference_age_s: (
        Annotated[float | None, Meta(description="of the perpetual's newest quote; null: none so far")]
        | UnsetType
    ) = UNSET
    note: (
        Annotated[str | None, Meta(description="what forecasts do without, though nothing is wrong")]
        | UnsetType
    ) = UNSET
    gaps: (
        Annotated[
            list[dict[str, Any]], Meta(max_length=GAPS_SHOWN, description="missing trades, newest first")
        ]
        | UnsetType
    ) = UNSET
    model_id: str | None | UnsetType = UNSET
    provisional: bool | None | UnsetType = UNSET
    reason: Annotated[str | None, Meta(description="why the newest prediction is a fallback")] | UnsetType = (
        UNSET
    )
    offset_ms: (
        Annotated[
            float | None,
            Meta(description="of a clock: the hot store's less the exchange's; null: not known"),
        ]
        | UnsetType
    ) = UNSET
    own_offset_ms: (
        Annotated[float, Meta(description="of a clock: the API's own less the hot store's")] | UnsetType
    ) = UNSET


class HealthReport(Struct, kw_only=True):
    """Whether all parts of the system are healthy."""

    status: Literal["ok", "degraded"]
    environment: str
    services: Annotated[
        dict[str, Service], Meta(extra_json_schema={"required": ["redis", "model", "age", "clock"]})
    ]

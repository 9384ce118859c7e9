"""The bodies of the API's responses as types, from which the OpenAPI document is generated.

They extend the stored records with what is known when they are read. Responses may have further members. A
member that may be missing has `UnsetType`; an unknown value is null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tickcast.evaluation.live_scores import AccuracySummary, Count, HorizonAccuracy
from tickcast.serving.records import Horizon, Outcome, Prediction, PredictionSummary, TimeMs

# Members of `Latest` that change without a new prediction: an entity tag leaves them out.
AGES = ("age_s", "claim_age_s", "tick_age_s", "feature_age_ms", "seconds_left")

HISTORY_MAX = 300
PAGE_MAX = 1000
CARDS_SHOWN = 20
GAPS_SHOWN = 10


class Latest(PredictionSummary, kw_only=True):
    """The newest prediction as of the moment of reading."""

    age_s: Annotated[float, Meta(description="the same as claim_age_s")]
    claim_age_s: Annotated[
        float,
        Meta(description="since the instant up to which the features are complete; stale above 5 s"),
    ]
    tick_age_s: Annotated[
        float | None,
        Meta(
            description="since the newest trade or quote in the features; stale above 5 s unless the market "
            "is quiet"
        ),
    ]
    quiet: Annotated[
        bool,
        Meta(description="the newest tick is older than 5 s because the exchange itself has no newer one"),
    ]
    feature_age_ms: Annotated[int, Meta(description="of the features, at the moment of reading")]
    seconds_left: Annotated[float, Meta(ge=0, description="until target_time")]
    environment: str
    history: Annotated[list[PredictionSummary], Meta(max_length=HISTORY_MAX)] | UnsetType = UNSET


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
    predictions: Annotated[list[PredictionSummary], Meta(max_length=PAGE_MAX)]


class Accuracy(Struct, kw_only=True):
    """The figures of the last hour; those of all spans in `summary`."""

    symbol: str
    environment: str
    from_: TimeMs = msgspec.field(name="from")
    to: TimeMs
    horizons: Annotated[dict[int, HorizonAccuracy], Meta(description="by horizon")]
    scored_age_s: Annotated[float | None, Meta(description="how long ago it was scored; null if never")]
    summary: Annotated[AccuracySummary | None, Meta(description="null before the first scoring")]


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


class HealthReport(Struct, kw_only=True):
    """Whether all parts of the system are well."""

    status: Literal["ok", "degraded"]
    environment: str
    services: Annotated[dict[str, Service], Meta(extra_json_schema={"required": ["redis", "model", "age"]})]


class Problem(Struct, kw_only=True):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: Annotated[int, Meta(ge=400, le=599)] | UnsetType = UNSET
    detail: str
    parameter: Annotated[str, Meta(description="the parameter that is wrong")] | UnsetType = UNSET
    request_id: Annotated[str, Meta(description="of the gateway's own problems")] | UnsetType = UNSET

"""The faults that the exchange can inject: their kinds and parameters, validated.

`connections` selects those affected: all (the default), the oldest, or the newest. All includes future ones,
except for faults that happen once (`drop`, `server_shutdown`), `stall`, and those with a `count`: they affect
the connections open now, and end when all of them have closed. `count` is the number of frames affected on
each connection. `seconds` is the duration; without it a fault lasts until it is ended. `symbol` and `stream`
restrict it to one market, and to its trades or its quotes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from local.exchange.frame_faults import Corruption

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]

_REST_REFUSALS = (403, 418, 429, 451)


class _Fault(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Lasting(_Fault):
    seconds: Seconds | None = None


class _OfConnections(_Fault):
    connections: Literal["all", "oldest", "newest"] = "all"


class _OfFrames(_Lasting, _OfConnections):
    symbol: str | None = None
    stream: Literal["trade", "quote"] | None = None


class Drop(_OfConnections):
    """Reset the TCP connections, once."""

    kind: Literal["drop"]


class ServerShutdown(_OfConnections):
    """Announce the end of the connections, and end them after `grace_s` (on Binance about ten minutes)."""

    kind: Literal["server_shutdown"]
    grace_s: Annotated[float, Field(ge=0, le=3_600)] = 5.0


class MaxAge(_Lasting):
    """End every connection at this age instead of at 24 hours."""

    kind: Literal["max_age"]
    age_s: Seconds


class Stall(_OfFrames):
    """Discard frames while pings continue. New connections are not affected."""

    kind: Literal["stall"]


class Freeze(_Lasting):
    """Discard the frames of all streams on all connections, future ones too, while pings continue."""

    kind: Literal["freeze"]


class PauseMarket(_Lasting):
    """A quiet market, which is no fault: no trade, and no change of its book."""

    kind: Literal["pause_market"]
    symbol: str


class CullQuotes(_Lasting, _OfConnections):
    """Skip quotes, each with the probability `share`, so that update ids skip."""

    kind: Literal["cull_quotes"]
    symbol: str | None = None
    share: Share = 0.5


class Duplicate(_OfFrames):
    """Send frames twice, each with the probability `share`."""

    kind: Literal["duplicate"]
    share: Share = 1.0
    count: Count | None = None


class Reorder(_Lasting, _OfConnections):
    """Delay the streams of a connection against each other; each by itself keeps its order."""

    kind: Literal["reorder"]
    symbol: str | None = None
    within_ms: Annotated[float, Field(gt=0, le=60_000)] = 50.0


class Corrupt(_OfFrames):
    """Make `count` frames unreadable. See `frame_faults.corrupted`."""

    kind: Literal["corrupt"]
    how: Corruption = "flip"
    count: Count = 1


class SchemaVersion(_OfFrames):
    """Frames of a newer schema version, with longer blocks and group entries. See `frame_faults.newer`."""

    kind: Literal["schema_version"]
    version: Annotated[int, Field(ge=1, le=65_535)] = 1
    block_bytes: Annotated[int, Field(ge=0, le=1_000)] = 8
    entry_bytes: Annotated[int, Field(ge=0, le=1_000)] = 4


class RefuseKey(_Lasting):
    """Refuse connections permanently: for the key (401), by the firewall (403), or for the country (451).

    The keyless streams have no 401.
    """

    kind: Literal["refuse_key"]
    status: Literal[401, 403, 451] = 401


class Refuse(_Lasting):
    """Refuse connections temporarily, with a Retry-After."""

    kind: Literal["refuse"]
    status: Literal[429, 503] = 429
    seconds: Seconds = 10.0


class RestStatus(_Lasting):
    """Answer REST requests with an error (403, 418, 429, 451, 500 to 599), or after a delay, or both."""

    kind: Literal["rest_status"]
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    delay_s: Annotated[float, Field(ge=0, le=300)] = 0.0
    retry_after_s: Annotated[int, Field(ge=1)] | None = None  # 429, 418: the seconds left, or 1
    path: str | None = None  # e.g. /api/v3/aggTrades
    count: Count | None = None

    @model_validator(mode="after")
    def _does_something(self) -> RestStatus:
        if self.status is None and not self.delay_s:
            raise ValueError("a status or a delay_s is needed")
        if self.status is not None and self.status < 500 and self.status not in _REST_REFUSALS:
            raise ValueError(f"status should be one of {_REST_REFUSALS} or 500 to 599")
        return self


BodyFault = Literal["challenge", "html", "redirect", "truncate", "content_type", "nan", "empty", "huge"]


class RestBody(_Lasting):
    """Answer REST requests with another body: a firewall's challenge, a web page, no JSON.

    See `rest_faults.replaced`.
    """

    kind: Literal["rest_body"]
    how: BodyFault
    path: str | None = None
    count: Count | None = None


class RestRows(_Lasting):
    """Answer requests for aggregate trades with missing or wrong rows.

    `lag`: those of the last `age_s` are missing. `forget`: those older than `age_s` are missing. `cap`: at
    most `rows` a page. `repeat`: by id, the oldest ones each time. `empty`: by time, none. `disorder`:
    shuffled, and some twice. `placeholder`, `far_off` (an hour ahead), `hole` (missing): those whose id is
    divisible by `every`.
    """

    kind: Literal["rest_rows"]
    how: Literal["lag", "forget", "cap", "repeat", "empty", "disorder", "placeholder", "far_off", "hole"]
    symbol: str | None = None
    age_s: Annotated[float, Field(gt=0, le=10 * 86_400)] = 300.0
    rows: Annotated[int, Field(ge=1, le=1_000)] = 500
    every: Annotated[int, Field(ge=1)] = 1_000


class MarketStatus(_Lasting):
    """Report in exchangeInfo that a market does not trade. Its streams are not affected."""

    kind: Literal["market_status"]
    status: Literal["PRE_TRADING", "HALT", "BREAK", "END_OF_DAY"] = "BREAK"
    symbol: str | None = None


OnFrames = Stall | Freeze | CullQuotes | Duplicate | Reorder | Corrupt | SchemaVersion
OnRest = RestStatus | RestBody | RestRows | MarketStatus
Fault = Drop | ServerShutdown | MaxAge | OnFrames | RefuseKey | Refuse | OnRest | PauseMarket

_FAULTS: TypeAdapter[Fault] = TypeAdapter(Annotated[Fault, Field(discriminator="kind")])


def parse(body: bytes | str) -> Fault:
    """The fault in a JSON object. Raises ValueError with the reasons."""
    try:
        return _FAULTS.validate_json(body)
    except ValidationError as error:
        reasons = (_reason(detail) for detail in error.errors(include_url=False))
        raise ValueError("; ".join(reasons)) from None


def _reason(detail: Any) -> str:
    # The first part of the location is the kind, unless the kind itself is wrong.
    field = ".".join(str(part) for part in detail["loc"][1:])
    return f"{field}: {detail['msg']}" if field else detail["msg"]

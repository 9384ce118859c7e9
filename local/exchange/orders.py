"""What the exchange can be told to do wrong: the kinds and their parameters, checked.

`connections` names those that are meant: all (the default), the one that is open longest, or the one opened
last. All are those open now and those to come, but for what happens once (`drop`, `server_shutdown`), for
`stall`, and for what has a `count`: these mean the connections open now, and end when all of them have gone.
`count` is how many frames of each connection it is for. `seconds` is how long it goes on; without it, until
it is ended. `symbol` and `stream` restrict it to one market, and to its trades or its quotes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from local.exchange.damage import How

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]

_REST_REFUSALS = (403, 418, 429, 451)


class _Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Lasting(_Order):
    seconds: Seconds | None = None


class _OfConnections(_Order):
    connections: Literal["all", "oldest", "newest"] = "all"


class _OfFrames(_Lasting, _OfConnections):
    symbol: str | None = None
    stream: Literal["trade", "quote"] | None = None


class Drop(_OfConnections):
    """Reset the TCP connections, once."""

    kind: Literal["drop"]


class ServerShutdown(_OfConnections):
    """Announce the end of the connections, and end them after a grace (on Binance about ten minutes)."""

    kind: Literal["server_shutdown"]
    grace_s: Annotated[float, Field(ge=0, le=3_600)] = 5.0


class MaxAge(_Lasting):
    """End every connection at this age instead of at 24 hours."""

    kind: Literal["max_age"]
    age_s: Seconds


class Stall(_OfFrames):
    """Send nothing of what falls due, ever, while pings go on. New connections are not stalled."""

    kind: Literal["stall"]


class Freeze(_Lasting):
    """Send nothing on any stream of any connection, those to come included, while pings go on."""

    kind: Literal["freeze"]


class PauseMarket(_Lasting):
    """No fault: nothing happens on this market, no trade and no change of its book."""

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
    """Spoil so many frames: what was in them never arrives on that connection. See `damage.spoiled`."""

    kind: Literal["corrupt"]
    how: How = "flip"
    count: Count = 1


class SchemaVersion(_OfFrames):
    """Frames of a newer version, with a longer block and longer group entries. See `damage.newer`."""

    kind: Literal["schema_version"]
    version: Annotated[int, Field(ge=1, le=65_535)] = 1
    block_bytes: Annotated[int, Field(ge=0, le=1_000)] = 8
    entry_bytes: Annotated[int, Field(ge=0, le=1_000)] = 4


class RefuseKey(_Lasting):
    """Refuse to connect for good: the key (401), the firewall (403), or the country (451).

    The keyless streams know no 401.
    """

    kind: Literal["refuse_key"]
    status: Literal[401, 403, 451] = 401


class Refuse(_Lasting):
    """Refuse to connect for now, telling how many `seconds` to wait."""

    kind: Literal["refuse"]
    status: Literal[429, 503] = 429
    seconds: Seconds = 10.0


class RestStatus(_Lasting):
    """Answer REST requests with an error (403, 418, 429, 451, 500 to 599), after a delay, or only late."""

    kind: Literal["rest_status"]
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    delay_s: Annotated[float, Field(ge=0, le=300)] = 0.0
    retry_after_s: Annotated[int, Field(ge=1)] | None = None  # 429, 418: what `seconds` leave, or else 1
    path: str | None = None  # e.g. /api/v3/aggTrades
    count: Count | None = None

    @model_validator(mode="after")
    def _does_something(self) -> RestStatus:
        if self.status is None and not self.delay_s:
            raise ValueError("a status or a delay_s is needed")
        if self.status is not None and self.status < 500 and self.status not in _REST_REFUSALS:
            raise ValueError(f"status should be one of {_REST_REFUSALS} or 500 to 599")
        return self


OnFrames = Stall | Freeze | CullQuotes | Duplicate | Reorder | Corrupt | SchemaVersion
Order = Drop | ServerShutdown | MaxAge | OnFrames | RefuseKey | Refuse | RestStatus | PauseMarket

_ORDERS: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="kind")])


def parse(body: bytes | str) -> Order:
    """The order in a JSON object. Raises ValueError, whose message says what is wrong with it."""
    try:
        return _ORDERS.validate_json(body)
    except ValidationError as error:
        reasons = (_reason(detail) for detail in error.errors(include_url=False))
        raise ValueError("; ".join(reasons)) from None


def _reason(detail: Any) -> str:
    # The first part of the place is the kind, unless that is what is wrong.
    field = ".".join(str(part) for part in detail["loc"][1:])
    return f"{field}: {detail['msg']}" if field else detail["msg"]

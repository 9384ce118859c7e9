"""The faults that the exchange can inject: their kinds and parameters, validated.

`connections` selects those affected: all (the default), the oldest, or the newest. All includes future ones,
except for faults that happen once (`drop`, `server_shutdown`), `stall`, and those with a `count`: they affect
the connections open now, and end when all of them have closed. `count` is the number of frames affected on
each connection. `seconds` is the duration; without it a fault lasts until it is ended. `symbol` and `stream`
restrict it to one market, and to its trades or its quotes.

The streams of the USD-M perpetuals are on another host of the exchange: only `perpetual_away` affects them,
and `pause_market` the perpetual of its market.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from local.exchange.frame_faults import Corruption

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0, le=1)]
Selection = Literal["all", "oldest", "newest"]

_REST_REFUSALS = (403, 418, 429, 451)


class _Fault(Struct, forbid_unknown_fields=True, tag_field="kind"):
    @property
    def kind(self) -> str:
        return str(self.__struct_config__.tag)

    def fields(self) -> dict[str, Any]:
        """What is set, the kind first."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if value is not None}


class _Lasting(_Fault, kw_only=True):
    seconds: Seconds | None = None


class _OfFrames(_Lasting, kw_only=True):
    connections: Selection = "all"
    symbol: str | None = None
    stream: Literal["trade", "quote"] | None = None


class Drop(_Fault, tag="drop"):
    """Reset the TCP connections, once."""

    connections: Selection = "all"


class ServerShutdown(_Fault, tag="server_shutdown"):
    """Announce the end of the connections, and end them after `grace_s` (on Binance about ten minutes)."""

    connections: Selection = "all"
    grace_s: Annotated[float, Meta(ge=0, le=3_600)] = 5.0


class MaxAge(_Lasting, tag="max_age"):
    """End every connection at this age instead of at 24 hours."""

    age_s: Seconds


class Stall(_OfFrames, tag="stall"):
    """Discard frames while pings continue. New connections are not affected."""


class Freeze(_Lasting, tag="freeze"):
    """Discard the frames of all streams on all connections, future ones too, while pings continue."""


class PauseMarket(_Lasting, tag="pause_market"):
    """A quiet market, which is no fault: no trade, and no change of its book."""

    symbol: str


class CullQuotes(_Lasting, tag="cull_quotes"):
    """Skip quotes, each with the probability `share`, so that update ids skip."""

    connections: Selection = "all"
    symbol: str | None = None
    share: Share = 0.5


class Duplicate(_OfFrames, tag="duplicate"):
    """Send frames twice, each with the probability `share`."""

    share: Share = 1.0
    count: Count | None = None


class Reorder(_Lasting, tag="reorder"):
    """Delay the streams of a connection against each other; each by itself keeps its order."""

    connections: Selection = "all"
    symbol: str | None = None
    within_ms: Annotated[float, Meta(gt=0, le=60_000)] = 50.0


class Corrupt(_OfFrames, tag="corrupt"):
    """Make `count` frames unreadable. See `frame_faults.corrupted`."""

    how: Corruption = "flip"
    count: Count = 1


class SchemaVersion(_OfFrames, tag="schema_version"):
    """Frames of a newer schema version, with longer blocks and group entries. See `frame_faults.newer`."""

    version: Annotated[int, Meta(ge=1, le=65_535)] = 1
    block_bytes: Annotated[int, Meta(ge=0, le=1_000)] = 8
    entry_bytes: Annotated[int, Meta(ge=0, le=1_000)] = 4


class RefuseKey(_Lasting, tag="refuse_key"):
    """Refuse connections permanently: for the key (401), by the firewall (403), or for the country (451).

    The keyless streams have no 401.
    """

    status: Literal[401, 403, 451] = 401


class Refuse(_Lasting, tag="refuse"):
    """Refuse connections temporarily, with a Retry-After."""

    status: Literal[429, 503] = 429
    seconds: Seconds = 10.0


class RestStatus(_Lasting, tag="rest_status"):
    """Answer REST requests with an error (403, 418, 429, 451, 500 to 599), or after a delay, or both."""

    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    delay_s: Annotated[float, Meta(ge=0, le=300)] = 0.0
    retry_after_s: Annotated[int, Meta(ge=1)] | None = None  # 429, 418: the seconds left, or 1
    path: str | None = None  # e.g. /api/v3/aggTrades
    count: Count | None = None

    def __post_init__(self) -> None:
        if self.status is None and not self.delay_s:
            raise ValueError("a status or a delay_s is needed")
        if self.status is not None and self.status < 500 and self.status not in _REST_REFUSALS:
            raise ValueError(f"status should be one of {_REST_REFUSALS} or 500 to 599")


BodyFault = Literal["challenge", "html", "redirect", "truncate", "content_type", "nan", "empty", "huge"]


class RestBody(_Lasting, tag="rest_body"):
    """Answer REST requests with another body: a firewall's challenge, a web page, no JSON.

    See `rest_faults.replaced`.
    """

    how: BodyFault
    path: str | None = None
    count: Count | None = None


class RestRows(_Lasting, tag="rest_rows"):
    """Answer requests for aggregate trades with missing or wrong rows.

    `lag`: those of the last `age_s` are missing. `forget`: those older than `age_s` are missing. `cap`: at
    most `rows` a page. `repeat`: by id, the oldest ones each time. `empty`: by time, none. `disorder`:
    shuffled, and some twice. `placeholder`, `far_off` (an hour ahead), `hole` (missing): those whose id is
    divisible by `every`.
    """

    how: Literal["lag", "forget", "cap", "repeat", "empty", "disorder", "placeholder", "far_off", "hole"]
    symbol: str | None = None
    age_s: Annotated[float, Meta(gt=0, le=10 * 86_400)] = 300.0
    rows: Annotated[int, Meta(ge=1, le=1_000)] = 500
    every: Annotated[int, Meta(ge=1)] = 1_000


class MarketStatus(_Lasting, tag="market_status"):
    """Report in exchangeInfo that a market does not trade. Its streams are not affected."""

    status: Literal["PRE_TRADING", "HALT", "BREAK", "END_OF_DAY"] = "BREAK"
    symbol: str | None = None


class PerpetualAway(_Lasting, tag="perpetual_away"):
    """The streams of the perpetuals go away, and come back at the fault's end.

    `refused`: connections are reset, new ones refused (503). `silent`: no data while pings continue.
    """

    how: Literal["refused", "silent"] = "refused"


OnFrames = Stall | Freeze | CullQuotes | Duplicate | Reorder | Corrupt | SchemaVersion
OnRest = RestStatus | RestBody | RestRows | MarketStatus
Fault = Drop | ServerShutdown | MaxAge | OnFrames | RefuseKey | Refuse | OnRest | PauseMarket | PerpetualAway


def parse(body: bytes | str) -> Fault:
    """The fault in a JSON object. Raises ValueError with the reason."""
    fault: Fault = msgspec.json.decode(body, type=Fault)
    return fault

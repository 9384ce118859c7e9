"""The task's settings: the environment variables that it reads, and their limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import quote

from msgspec import Meta, field
from msgspec.structs import replace

from tickcast.adapters.settings import Name, NameOrNothing, Settings, SymbolsCheckS
from tickcast.adapters.variables import (
    HttpUrl,
    Secret,
    SettingsError,
    Symbol,
    Symbols,
    WebSocketUrl,
    WebSocketUrlOrNothing,
)
from tickcast.market import symbols
from tickcast.market.perpetuals import perpetual_of
from tickcast.market.sources import STREAMED, Source

# The text of a secret that holds no key: ECS starts no task whose secret is empty.
NO_KEY = "none"

MAX_STREAMS = 1024  # of a connection, as the exchange documents
# Characters: beyond 8004 the exchange refuses an address, which it does not document (found by others: issue
# 19 of oliver-zehentleitner/unicorn-binance-websocket-api).
MAX_ADDRESS = 8000

StreamedSource = Annotated[
    str, Meta(pattern=f"^({'|'.join(STREAMED)})$", description=f"one of {', '.join(STREAMED)}")
]


class IngestSettings(Settings, frozen=True, kw_only=True):
    """`protocol`: "sbe" needs a key, "json" is the public mirror without one. "auto" is one of the two, by
    whether there is a key: `decided`."""

    stream_name: Name
    bucket: NameOrNothing  # for the wire schema and quarantined frames; empty: neither is kept
    symbols: Symbols
    symbols_check_s: SymbolsCheckS  # whether others are to be served
    protocol: Literal["sbe", "json", "auto"]
    stream_url: WebSocketUrl
    public_stream_url: WebSocketUrl  # of the mirror, for "auto" without a key
    source: StreamedSource
    linger_ms: Annotated[float, Meta(ge=1, le=2000)]
    health_port: Annotated[int, Meta(ge=0, le=65_535)]  # 0: any that is free
    health_host: Literal["127.0.0.1", "0.0.0.0"]  # 0.0.0.0: Prometheus is in another container
    rollover_s: Annotated[float, Meta(ge=0.1, lt=86_400)]  # the exchange closes a connection after a day
    reference_url: WebSocketUrlOrNothing  # of the USD-M futures' public streams; empty: no reference quotes
    busy_symbol: Symbol  # its quotes never pause: every connection carries them to show that it is alive
    rest_url: HttpUrl  # of the exchange, to check whether a silent market is quiet
    api_key: Secret = field(default=Secret(), name="BINANCE_API_KEY")

    def __post_init__(self) -> None:
        if self.protocol == "sbe" and not self.api_key:
            raise SettingsError(
                "BINANCE_API_KEY is not set: the SBE stream wants the key of an Ed25519 API key pair "
                "(no permissions needed). PROTOCOL=json uses the public mirror, which wants none"
            )
        try:
            self.stream_address()
            self.reference_address()
        except ValueError as error:
            raise SettingsError(f"SYMBOLS: {error}") from None

    def decided(self) -> IngestSettings:
        """With `protocol` "auto" replaced by what the task does: with a key the SBE stream, without one the
        public mirror, whose ticks have the source "json"."""
        if self.protocol != "auto":
            return self
        if self.api_key and self.api_key != NO_KEY:
            return replace(self, protocol="sbe")
        return replace(
            self,
            protocol="json",
            stream_url=self.public_stream_url,
            source=Source.JSON.value,
            api_key=Secret(),
        )

    @property
    def feed(self) -> str:
        """The source in words of operation: `public_json` is the mirror."""
        return "public_json" if self.source == Source.JSON else self.source

    @property
    def linger_s(self) -> float:
        return self.linger_ms / 1000

    def stream_address(self) -> str:
        """The address that delivers every trade and every change of the best bid and ask."""
        return stream_address(self.stream_url, self.protocol, self.symbols, self.busy_symbol)

    def reference_address(self) -> str:
        """The address that delivers every change of the best bid and ask of the symbols' perpetuals; empty
        if none is wanted or has one."""
        return reference_address(self.reference_url, self.symbols, self.busy_symbol)


def stream_address(url: str, protocol: str, served: Sequence[str], busy_symbol: str) -> str:
    """The same for the symbols `served`. Raises ValueError if one connection cannot hold them."""
    quotes = "bestBidAsk" if protocol == "sbe" else "bookTicker"
    streams = [(symbol, kind) for symbol in served for kind in ("trade", quotes)]
    if busy_symbol not in served:
        # Quotes of the JSON feed have no time of their own; it is estimated from trades.
        kinds = (quotes,) if protocol == "sbe" else (quotes, "trade")
        streams += [(busy_symbol, kind) for kind in kinds]
    unit = "" if protocol == "sbe" else "&timeUnit=MICROSECOND"
    return _address(url, streams, served, unit)


def reference_address(url: str, served: Sequence[str], busy_symbol: str) -> str:
    """The same of the perpetuals of the symbols `served`, and of that of `busy_symbol`."""
    perpetuals = dict.fromkeys(filter(None, map(perpetual_of, served)))
    if not url or not perpetuals:
        return ""
    if busy := perpetual_of(busy_symbol):
        perpetuals[busy] = None
    return _address(url, [(perpetual, "bookTicker") for perpetual in perpetuals], served)


def _address(url: str, streams: Sequence[tuple[str, str]], served: Sequence[str], unit: str = "") -> str:
    # The exchange's names of streams are in lower case; letters beyond ASCII are percent-encoded.
    names = "/".join(f"{quote(symbols.lower(symbol))}@{kind}" for symbol, kind in streams)
    address = f"{url}/stream?streams={names}{unit}"
    if len(streams) > MAX_STREAMS or len(address) > MAX_ADDRESS:
        raise ValueError(
            f"{len(served)} symbols are {len(streams)} streams with an address of {len(address)} characters; "
            f"one connection takes {MAX_STREAMS} streams and an address of {MAX_ADDRESS}: "
            "divide the symbols among deployments (docs/scaling.md)"
        )
    return address

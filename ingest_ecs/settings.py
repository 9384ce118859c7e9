"""The task's settings, read once from its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from tickcast.adapters.settings import NAME, PUBLIC_REST_URL, SettingsError, check_log_level
from tickcast.adapters.variables import Variables
from tickcast.market import symbols
from tickcast.market.session import ROLLOVER_S
from tickcast.market.sources import STREAMED

SBE_URL = "wss://stream-sbe.binance.com:9443"
JSON_URL = "wss://data-stream.binance.vision"
PROTOCOLS = ("sbe", "json")
BUSY_SYMBOL = "BTCUSDT"
MAX_LINGER_MS = 2000
EXCHANGE_CLOSES_AFTER_S = 24 * 3600


@dataclass(frozen=True)
class IngestSettings:
    """`protocol` is what the stream speaks: "sbe" wants a key, "json" is the keyless public mirror."""

    stream_name: str
    bucket: str  # where the wire schema is published; empty: nowhere
    symbols: tuple[str, ...]
    protocol: str
    stream_url: str
    source: str
    linger_s: float
    health_port: int
    rollover_s: float
    busy_symbol: str  # its quotes never pause: every connection carries them to show that it is alive
    rest_url: str  # of the exchange, which is asked whether a silent market is quiet
    api_key: str = field(repr=False)  # never in a log or a dump

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> IngestSettings:
        """The settings in `env` (default: this process's). Raises `SettingsError`."""
        given = Variables(env)
        check_log_level(given)
        stream_name = given.text("STREAM_NAME", pattern=NAME, like="tickcast-ticks")
        asked_for = given.symbols()
        protocol = given.choice("PROTOCOL", PROTOCOLS, "sbe")
        api_key = given.secret("BINANCE_API_KEY")
        if protocol == "sbe" and not api_key:
            raise SettingsError(
                "BINANCE_API_KEY is not set: the SBE stream wants the key of an Ed25519 API key pair "
                "(no permissions needed). PROTOCOL=json uses the public mirror, which wants none"
            )
        return cls(
            stream_name=stream_name,
            bucket=given.text("BUCKET", "", pattern=NAME, like="tickcast-lake"),
            symbols=asked_for,
            protocol=protocol,
            stream_url=given.url("STREAM_URL", SBE_URL if protocol == "sbe" else JSON_URL, ("wss", "ws")),
            source=given.choice("SOURCE", STREAMED, protocol),
            linger_s=given.number("LINGER_MS", 100, 1, MAX_LINGER_MS) / 1000,
            health_port=given.port("HEALTH_PORT", 8080, least=0),  # 0: any that is free
            rollover_s=given.number("ROLLOVER_S", ROLLOVER_S, 0.1, EXCHANGE_CLOSES_AFTER_S, below=True),
            busy_symbol=given.symbol("BUSY_SYMBOL", BUSY_SYMBOL),
            rest_url=given.url("REST_URL", PUBLIC_REST_URL, ("https", "http")),
            api_key=api_key,
        )

    def stream_address(self) -> str:
        """The address that delivers every trade and every change of the best bid and ask."""
        quotes = "bestBidAsk" if self.protocol == "sbe" else "bookTicker"
        streams = [(symbol, kind) for symbol in self.symbols for kind in ("trade", quotes)]
        if self.busy_symbol not in self.symbols:
            # Quotes of the keyless feed have no time but what trades lend them.
            kinds = (quotes,) if self.protocol == "sbe" else (quotes, "trade")
            streams += [(self.busy_symbol, kind) for kind in kinds]
        # The exchange's names of streams are in lower case; letters beyond ASCII are percent-encoded.
        names = "/".join(f"{quote(symbols.lower(symbol))}@{kind}" for symbol, kind in streams)
        unit = "" if self.protocol == "sbe" else "&timeUnit=MICROSECOND"
        return f"{self.stream_url}/stream?streams={names}{unit}"

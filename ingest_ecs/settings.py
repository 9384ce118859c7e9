"""The task's settings, read once from its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from tickcast.adapters.settings import PUBLIC_REST_URL, SettingsError, symbols_in
from tickcast.session import ROLLOVER_S

SBE_URL = "wss://stream-sbe.binance.com:9443"
JSON_URL = "wss://data-stream.binance.vision"
PROTOCOLS = ("sbe", "json")
BUSY_SYMBOL = "BTCUSDT"


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
        env = os.environ if env is None else env
        for name in ("STREAM_NAME", "SYMBOLS"):
            if not env.get(name):
                raise SettingsError(f"the environment variable {name} is not set")
        protocol = env.get("PROTOCOL", "sbe")
        if protocol not in PROTOCOLS:
            raise SettingsError(f"PROTOCOL is {protocol!r}, it should be one of {', '.join(PROTOCOLS)}")
        if protocol == "sbe" and not env.get("BINANCE_API_KEY"):
            raise SettingsError(
                "BINANCE_API_KEY is not set: the SBE stream wants the key of an Ed25519 API key pair "
                "(no permissions needed). PROTOCOL=json uses the public mirror, which wants none"
            )
        stream_url = env.get("STREAM_URL", SBE_URL if protocol == "sbe" else JSON_URL).rstrip("/")
        if not stream_url.startswith(("ws://", "wss://")):
            raise SettingsError(f"STREAM_URL is {stream_url!r}, it should start with wss://")
        return cls(
            stream_name=env["STREAM_NAME"],
            bucket=env.get("BUCKET", ""),
            symbols=symbols_in(env["SYMBOLS"]),
            protocol=protocol,
            stream_url=stream_url,
            source=env.get("SOURCE", protocol),
            linger_s=_number(env, "LINGER_MS", 100) / 1000,
            health_port=int(_number(env, "HEALTH_PORT", 8080)),
            rollover_s=_number(env, "ROLLOVER_S", ROLLOVER_S),
            busy_symbol=symbols_in(env.get("BUSY_SYMBOL", BUSY_SYMBOL))[0],
            rest_url=env.get("REST_URL", PUBLIC_REST_URL),
            api_key=env.get("BINANCE_API_KEY", ""),
        )

    def stream_address(self) -> str:
        """The address that delivers every trade and every change of the best bid and ask."""
        quotes = "bestBidAsk" if self.protocol == "sbe" else "bookTicker"
        names = [f"{s.lower()}@{kind}" for s in self.symbols for kind in ("trade", quotes)]
        if self.busy_symbol not in self.symbols:
            names.append(f"{self.busy_symbol.lower()}@{quotes}")
            if self.protocol == "json":  # whose quotes have no time but what trades lend them
                names.append(f"{self.busy_symbol.lower()}@trade")
        unit = "" if self.protocol == "sbe" else "&timeUnit=MICROSECOND"
        return f"{self.stream_url}/stream?streams={'/'.join(names)}{unit}"


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(env.get(name, default))
    except ValueError:
        raise SettingsError(f"{name} is {env[name]!r}, it should be a number") from None

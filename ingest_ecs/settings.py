"""The task's settings, read once from its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from tickcast.adapters.settings import SettingsError, symbols_in


@dataclass(frozen=True)
class IngestSettings:
    stream_name: str
    symbols: tuple[str, ...]
    stream_url: str
    source: str
    linger_s: float
    health_port: int
    api_key: str = field(repr=False)  # never in a log or a dump

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> IngestSettings:
        """The settings in `env` (default: this process's). Raises `SettingsError`."""
        env = os.environ if env is None else env
        for name in ("STREAM_NAME", "SYMBOLS"):
            if not env.get(name):
                raise SettingsError(f"the environment variable {name} is not set")
        if not env.get("BINANCE_API_KEY"):
            raise SettingsError(
                "BINANCE_API_KEY is not set: the SBE stream wants the key of an Ed25519 API key pair "
                "(no permissions needed); see README, 'Real data'"
            )
        try:
            linger_s = float(env.get("LINGER_MS", "100")) / 1000
            health_port = int(env.get("HEALTH_PORT", "8080"))
        except ValueError as error:
            raise SettingsError(f"LINGER_MS and HEALTH_PORT should be numbers: {error}") from None
        return cls(
            stream_name=env["STREAM_NAME"],
            symbols=symbols_in(env["SYMBOLS"]),
            stream_url=env.get("STREAM_URL", "wss://stream-sbe.binance.com:9443").rstrip("/"),
            source=env.get("SOURCE", "sbe"),
            linger_s=linger_s,
            health_port=health_port,
            api_key=env["BINANCE_API_KEY"],
        )

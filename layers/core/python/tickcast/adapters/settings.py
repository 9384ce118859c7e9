"""The settings of a function, read once from its environment: the only place that reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from tickcast.drift import Policy

PUBLIC_REST_URL = "https://data-api.binance.vision"  # market data only, and no key


class SettingsError(ValueError):
    """A variable that is missing or cannot be read; the message names it and what it should be."""


@dataclass(frozen=True)
class Settings:
    environment: str
    bucket: str
    symbols: tuple[str, ...]
    redis_host: str
    redis_port: int
    redis_tls: bool
    redis_iam_user: str  # empty: no authentication (a local server)
    redis_cache_name: str
    lateness_us: int
    stale_after_s: float
    primary_horizon_s: int
    features_ttl_s: int
    fee_bp: float  # of one side of a trade
    min_confidence: float  # what a move must come to, or it counts as noise
    audit_every_ms: int
    audit_sample: int  # predictions of each symbol, each time
    region: str
    rest_url: str  # of the exchange

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> Settings:
        """The settings in `env` (default: this process's). Raises `SettingsError`."""
        env = os.environ if env is None else env
        return cls(
            environment=_text(env, "ENVIRONMENT"),
            bucket=_text(env, "BUCKET"),
            symbols=symbols_in(_text(env, "SYMBOLS")),
            redis_host=env.get("REDIS_HOST", ""),
            redis_port=int(_number(env, "REDIS_PORT", 6379)),
            redis_tls=env.get("REDIS_TLS", "0") == "1",
            redis_iam_user=env.get("REDIS_IAM_USER", ""),
            redis_cache_name=env.get("REDIS_CACHE_NAME", ""),
            lateness_us=int(_number(env, "LATENESS_MS", 100) * 1000),
            stale_after_s=_number(env, "STALE_AFTER_S", 5),
            primary_horizon_s=int(_number(env, "PRIMARY_HORIZON_S", 2)),
            features_ttl_s=int(_number(env, "FEATURES_TTL_S", 60)),
            fee_bp=_number(env, "FEE_BP", 10),
            min_confidence=_share(env, "MIN_CONFIDENCE", 0.55),
            audit_every_ms=int(_number(env, "AUDIT_EVERY_MINUTES", 5) * 60_000),
            audit_sample=int(_number(env, "AUDIT_SAMPLE", 2)),
            region=env.get("AWS_REGION", "ap-northeast-1"),
            rest_url=env.get("REST_URL", PUBLIC_REST_URL),
        )


@dataclass(frozen=True)
class DatabaseSettings:
    """Where the database is and who asks. With `iam`, as on RDS, the password is a token signed with the
    process's AWS credentials, and TLS is verified; without, as on a laptop, there is neither."""

    host: str
    port: int
    name: str
    user: str
    iam: bool = False
    region: str = "ap-northeast-1"
    application: str = "tickcast"
    connect_timeout_s: int = 5
    statement_timeout_s: int = 120

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> DatabaseSettings:
        """The settings in `env` (default: this process's). Raises `SettingsError`."""
        env = os.environ if env is None else env
        return cls(
            host=_text(env, "DATABASE_HOST"),
            port=int(_number(env, "DATABASE_PORT", 5432)),
            name=_text(env, "DATABASE_NAME"),
            user=_text(env, "DATABASE_USER"),
            iam=env.get("DATABASE_IAM", "0") == "1",
            region=env.get("AWS_REGION", "ap-northeast-1"),
            application=env.get("POWERTOOLS_SERVICE_NAME", "tickcast"),
            statement_timeout_s=int(_number(env, "DATABASE_STATEMENT_TIMEOUT_S", 120)),
        )


@dataclass(frozen=True)
class HistorySettings:
    """What is kept of history: for how many days (0: for ever), and every how many ms a feature row."""

    keep_days: int
    grid_ms: int
    quoted_grid_ms: int

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> HistorySettings:
        """The settings in `env` (default: this process's). Raises `SettingsError`."""
        env = os.environ if env is None else env
        settings = cls(
            keep_days=int(_number(env, "KEEP_DAYS", 0)),
            grid_ms=int(_number(env, "GRID_MS", 1000)),
            quoted_grid_ms=int(_number(env, "QUOTED_GRID_MS", 100)),
        )
        for grid_ms in (settings.grid_ms, settings.quoted_grid_ms):
            if grid_ms < 100 or grid_ms % 100:
                raise SettingsError(f"a grid of {grid_ms} ms: it should be a multiple of a bar's 100 ms")
        return settings


@dataclass(frozen=True)
class ScoreSettings:
    """When the model in force is said to drift, and what history is then asked for and trained on."""

    policy: Policy
    window_s: int  # what is looked at
    history_days: int
    train_days: int  # 0: drift is told, and nothing is trained

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> ScoreSettings:
        """The settings in `env` (default: this process's). Raises `SettingsError`."""
        env = os.environ if env is None else env
        usual = Policy()
        policy = Policy(
            min_scored=int(_number(env, "DRIFT_MIN_SCORED", usual.min_scored)),
            stability_high=_number(env, "DRIFT_STABILITY_HIGH", usual.stability_high),
            stability_low=_number(env, "DRIFT_STABILITY_LOW", usual.stability_low),
            raise_after=int(_number(env, "DRIFT_RAISE_AFTER", usual.raise_after)),
            cool_down_s=int(_number(env, "DRIFT_COOL_DOWN_HOURS", usual.cool_down_s / 3600) * 3600),
        )
        if not 0 < policy.stability_low <= policy.stability_high:
            raise SettingsError(
                f"DRIFT_STABILITY_LOW is {policy.stability_low}: it should be above 0 and at most "
                f"DRIFT_STABILITY_HIGH, {policy.stability_high}"
            )
        return cls(
            policy=policy,
            window_s=int(_number(env, "DRIFT_WINDOW_HOURS", 24) * 3600),
            history_days=int(_number(env, "HISTORY_DAYS", 2)),
            train_days=int(_number(env, "TRAIN_DAYS", 0)),
        )


def symbols_in(text: str) -> tuple[str, ...]:
    """Symbols of a comma-separated list, in upper case. Raises `SettingsError` when there is none."""
    symbols = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    if not symbols or not all(symbol.isalnum() for symbol in symbols):
        raise SettingsError(f"SYMBOLS is {text!r}; it should be a list like BTCUSDT,ETHUSDT")
    return symbols


def _text(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise SettingsError(f"the environment variable {name} is not set")
    return value


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(env.get(name, default))
    except ValueError:
        raise SettingsError(
            f"the environment variable {name} is {env[name]!r}, it should be a number"
        ) from None


def _share(env: Mapping[str, str], name: str, default: float) -> float:
    value = _number(env, name, default)
    if not 0.5 <= value < 1:
        raise SettingsError(
            f"the environment variable {name} is {value}, it should be from 0.5 up to below 1"
        )
    return value

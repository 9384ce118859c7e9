"""The settings of a function, read once from its environment, and checked there: a process that starts can
run by them (docs/adr/0023-input-is-checked-at-the-boundary.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tickcast.adapters.variables import SettingsError as SettingsError
from tickcast.adapters.variables import Variables, wrong
from tickcast.adapters.variables import symbols_in as symbols_in
from tickcast.evaluation.drift import DriftPolicy
from tickcast.model.forecast import HORIZONS_S

PUBLIC_REST_URL = "https://data-api.binance.vision"  # market data only, and no key
LOG_LEVELS = ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL")

MAX_DAYS = 3650
MAX_LATENESS_MS = 2000
MAX_STALE_AFTER_S = 5  # the promise: features that are older are a fallback's
MAX_FEE_BP = 1000
MAX_GRID_MS = 60_000
BAR_MS = 100

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"  # of a bucket, a stream, an environment
_USER = r"[A-Za-z_][A-Za-z0-9_$-]{0,62}"


@dataclass(frozen=True)
class Settings:
    environment: str
    bucket: str
    symbols: tuple[str, ...]
    redis_host: str  # empty: this function has none
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
        given = Variables(env)
        check_log_level(given)
        horizons = [str(horizon_s) for horizon_s in HORIZONS_S]
        return cls(
            environment=given.text("ENVIRONMENT", pattern=NAME, like="prod"),
            bucket=given.text("BUCKET", pattern=NAME, like="tickcast-lake"),
            symbols=given.symbols(),
            redis_host=given.host("REDIS_HOST", ""),
            redis_port=given.port("REDIS_PORT", 6379),
            redis_tls=given.flag("REDIS_TLS"),
            redis_iam_user=given.text("REDIS_IAM_USER", "", pattern=NAME, like="tickcast-prod-reader"),
            redis_cache_name=given.text("REDIS_CACHE_NAME", "", pattern=NAME, like="tickcast-prod"),
            lateness_us=given.whole("LATENESS_MS", 100, 0, MAX_LATENESS_MS) * 1000,
            stale_after_s=given.number("STALE_AFTER_S", 5, 1, MAX_STALE_AFTER_S),
            primary_horizon_s=int(given.choice("PRIMARY_HORIZON_S", horizons, "2")),
            features_ttl_s=given.whole("FEATURES_TTL_S", 60, 10, 86_400),
            fee_bp=given.number("FEE_BP", 10, 0, MAX_FEE_BP),
            min_confidence=given.number("MIN_CONFIDENCE", 0.55, 0.5, 1, below=True),
            # Health takes a quarter of an hour for silence.
            audit_every_ms=given.whole("AUDIT_EVERY_MINUTES", 5, 1, 15) * 60_000,
            audit_sample=given.whole("AUDIT_SAMPLE", 2, 1, 60),
            region=given.region(),
            rest_url=given.url("REST_URL", PUBLIC_REST_URL, ("https", "http")),
        )

    def __post_init__(self) -> None:
        """Raises `SettingsError` on what does not fit together."""
        if self.redis_iam_user and not (self.redis_cache_name and self.redis_tls):
            raise SettingsError(
                "REDIS_IAM_USER is set, so REDIS_CACHE_NAME should be set and REDIS_TLS should be 1: "
                "a token is signed for a cache by its name, and is sent by TLS alone"
            )
        if self.lateness_us >= self.stale_after_s * 1_000_000:
            raise wrong("LATENESS_MS", str(self.lateness_us // 1000), "less than STALE_AFTER_S")


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
        given = Variables(env)
        return cls(
            host=given.host("DATABASE_HOST"),
            port=given.port("DATABASE_PORT", 5432),
            name=given.text("DATABASE_NAME", pattern=_USER, like="tickcast"),
            user=given.text("DATABASE_USER", pattern=_USER, like="tickcast_reader"),
            iam=given.flag("DATABASE_IAM"),
            region=given.region(),
            application=given.text("POWERTOOLS_SERVICE_NAME", "tickcast", pattern=NAME, like="tickcast"),
            statement_timeout_s=given.whole("DATABASE_STATEMENT_TIMEOUT_S", 120, 1, 900),
        )


@dataclass(frozen=True)
class HistorySettings:
    """What is kept of history: for how many days (0: with no end), and every how many ms a feature row."""

    keep_days: int
    grid_ms: int
    quoted_grid_ms: int

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> HistorySettings:
        """The settings in `env` (default: this process's). Raises `SettingsError`."""
        given = Variables(env)
        check_log_level(given)
        return cls(
            keep_days=given.whole("KEEP_DAYS", 0, 0, MAX_DAYS),
            grid_ms=given.whole("GRID_MS", 1000, BAR_MS, MAX_GRID_MS, multiple_of=BAR_MS),
            quoted_grid_ms=given.whole("QUOTED_GRID_MS", 100, BAR_MS, MAX_GRID_MS, multiple_of=BAR_MS),
        )

    def __post_init__(self) -> None:
        """Whoever makes them: a negative number of days would have a load drop what it loaded."""
        if type(self.keep_days) is not int or not 0 <= self.keep_days <= MAX_DAYS:
            raise wrong("KEEP_DAYS", str(self.keep_days), f"a whole number from 0 to {MAX_DAYS}")


@dataclass(frozen=True)
class ScoreSettings:
    """When the model in force is said to drift, and what history is then asked for and trained on."""

    policy: DriftPolicy
    window_s: int  # what is looked at
    history_days: int
    train_days: int  # 0: drift is reported, and nothing is trained

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> ScoreSettings:
        """The settings in `env` (default: this process's). Raises `SettingsError`."""
        given, usual = Variables(env), DriftPolicy()
        policy = DriftPolicy(
            min_scored=given.whole("DRIFT_MIN_SCORED", usual.min_scored, 1, 10**9),
            stability_high=given.number("DRIFT_STABILITY_HIGH", usual.stability_high, 0, 100, above=True),
            stability_low=given.number("DRIFT_STABILITY_LOW", usual.stability_low, 0, 100, above=True),
            raise_after=given.whole("DRIFT_RAISE_AFTER", usual.raise_after, 1, 10_080),
            cool_down_s=given.whole("DRIFT_COOL_DOWN_HOURS", int(usual.cool_down_s // 3600), 1, 8760) * 3600,
        )
        if policy.stability_low > policy.stability_high:
            raise wrong(
                "DRIFT_STABILITY_LOW",
                f"{policy.stability_low:g}",
                f"at most DRIFT_STABILITY_HIGH, {policy.stability_high:g}",
            )
        return cls(
            policy=policy,
            # Whole days are better, for markets have their hours; a week is kept of what it is made from.
            window_s=given.whole("DRIFT_WINDOW_HOURS", 24, 1, 168) * 3600,
            history_days=given.whole("HISTORY_DAYS", 2, 1, MAX_DAYS),
            train_days=given.whole("TRAIN_DAYS", 0, 0, MAX_DAYS),
        )


def bucket_in(env: Mapping[str, str] | None = None) -> str:
    """The bucket of a function that needs no other setting. Raises `SettingsError`."""
    given = Variables(env)
    check_log_level(given)
    return given.text("BUCKET", pattern=NAME, like="tickcast-lake")


def check_log_level(given: Variables) -> None:
    """Powertools reads it by itself; what it does not know it would not name. Raises `SettingsError`."""
    given.choice("LOG_LEVEL", LOG_LEVELS, "INFO")

"""The settings of each function: the environment variables that it reads, and their limits.

A field is a variable of that name in upper case; a field whose type is a Struct is a group of variables. None
has a default: defaults are in `cdk/config` alone, and a function's deployment sets every variable of its type
(docs/adr/0030-each-function-has-its-settings.md). `variables.read` reads and checks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from tickcast.adapters import json_text
from tickcast.adapters.variables import Host, HttpUrl, SettingsError, Symbols, wrong
from tickcast.evaluation.drift import DriftPolicy
from tickcast.serving.signals import Signals

MAX_DAYS = 3650

Name = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="a name like tickcast-prod"),
]
NameOrNothing = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$", description="a name like tickcast-prod, or nothing"
    ),
]
MetricsNamespace = Annotated[
    str,
    Meta(pattern=r"^[\w.#/-]{1,255}$", description="1 to 255 letters, digits and _.#/-, like tickcast/prod"),
]
Region = Annotated[
    str, Meta(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$", description="a region like ap-northeast-1")
]
SqlName = Annotated[
    str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_$-]{0,62}$", description="a name like tickcast_reader")
]
LogLevel = Literal["DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL"]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Authorisation = Literal["api_key", "iam"]
HorizonS = Literal[1, 2, 5, 10]  # tickcast.model.forecast.HORIZONS_S
GridMs = Annotated[int, Meta(ge=100, le=60_000, multiple_of=100)]  # whole bars
PredictEveryMs = Annotated[int, Meta(ge=100, le=1000)]
DaysOrNone = Annotated[int, Meta(ge=0, le=MAX_DAYS)]
Days = Annotated[int, Meta(ge=1, le=MAX_DAYS)]
SymbolsCheckS = Annotated[int, Meta(ge=1, le=60)]
SignalsText = Annotated[
    Signals, Meta(description="JSON of destinations and rules, as `signals` of cdk/config"), json_text.read
]


class Settings(Struct, frozen=True, kw_only=True, rename=str.upper):
    """What every process reads. Powertools reads these three itself, but would not name a wrong one."""

    log_level: LogLevel
    powertools_service_name: Name
    powertools_metrics_namespace: MetricsNamespace


class RedisSettings(Struct, frozen=True, kw_only=True, rename=lambda name: f"REDIS_{name.upper()}"):
    """Where the hot store is and who connects: `iam_user`, by a token signed for the cache `cache_name`; both
    are empty where the server asks for neither user nor password (a local one)."""

    host: Host
    port: Port
    tls: bool
    iam_user: NameOrNothing
    cache_name: NameOrNothing
    region: Region = field(name="AWS_REGION")  # Lambda sets it

    def __post_init__(self) -> None:
        if self.iam_user and not (self.cache_name and self.tls):
            raise SettingsError(
                "REDIS_IAM_USER is set, so REDIS_CACHE_NAME should be set and REDIS_TLS should be 1: "
                "a token is signed for a cache by its name, and is sent by TLS alone"
            )


class DatabaseSettings(Struct, frozen=True, kw_only=True, rename=lambda name: f"DATABASE_{name.upper()}"):
    """Where the database is and who connects. With `iam`, as on RDS, the password is a token signed with the
    process's AWS credentials, and TLS is verified; without, as on a laptop, there is neither."""

    host: Host
    port: Port
    name: SqlName
    user: SqlName
    iam: bool
    statement_timeout_s: Annotated[int, Meta(ge=1, le=900)]
    region: Region = field(name="AWS_REGION")  # Lambda sets it
    application: Name = field(name="POWERTOOLS_SERVICE_NAME")


class HistorySettings(Struct, frozen=True, rename=str.upper):
    """How much history is kept: for how many days (0: indefinitely), its trades for fewer, and a feature row
    every how many ms."""

    keep_days: DaysOrNone
    grid_ms: GridMs
    quoted_grid_ms: GridMs
    trades_keep_days: DaysOrNone

    def __post_init__(self) -> None:
        """Checked wherever they are made: with a negative number of days a load would delete what it
        loaded."""
        if type(self.keep_days) is not int or not 0 <= self.keep_days <= MAX_DAYS:
            raise wrong("KEEP_DAYS", str(self.keep_days), f"a whole number from 0 to {MAX_DAYS}")
        if type(self.trades_keep_days) is not int or not 0 <= self.trades_keep_days <= MAX_DAYS:
            raise wrong(
                "TRADES_KEEP_DAYS", str(self.trades_keep_days), f"a whole number from 0 to {MAX_DAYS}"
            )

    @property
    def grids_ms(self) -> tuple[int, int]:
        """Of rows without quotes and with."""
        return self.grid_ms, self.quoted_grid_ms


class DriftSettings(Struct, frozen=True, kw_only=True, rename=lambda name: f"DRIFT_{name.upper()}"):
    """When the active model counts as drifting, by what was served in the last `window_hours`."""

    # Whole days are better, for markets have daily cycles; bronze's features are kept for a week.
    window_hours: Annotated[int, Meta(ge=1, le=168)]
    min_scored: Annotated[int, Meta(ge=1, le=10**9)]
    stability_high: Annotated[float, Meta(gt=0, le=100)]
    stability_low: Annotated[float, Meta(gt=0, le=100)]
    raise_after: Annotated[int, Meta(ge=1, le=10_080)]
    cool_down_hours: Annotated[int, Meta(ge=1, le=8760)]

    def __post_init__(self) -> None:
        if self.stability_low > self.stability_high:
            raise wrong(
                "DRIFT_STABILITY_LOW",
                f"{self.stability_low:g}",
                f"at most DRIFT_STABILITY_HIGH, {self.stability_high:g}",
            )


class HotStoreSettings(Settings, frozen=True, kw_only=True):
    """What a function reads that works on the states of symbols in the hot store."""

    bucket: Name
    symbols: Symbols
    lateness_ms: Annotated[int, Meta(ge=0, le=2000)]
    redis: RedisSettings

    @property
    def lateness_us(self) -> int:
        return self.lateness_ms * 1000


class ArchiveTicksSettings(Settings, frozen=True, kw_only=True):
    bucket: Name


class AuditPredictionsSettings(HotStoreSettings, frozen=True, kw_only=True):
    audit_every_minutes: Annotated[int, Meta(ge=1, le=15)]  # health expects a heartbeat in 15
    audit_sample: Annotated[int, Meta(ge=1, le=60)]  # predictions of each symbol, each time
    database: DatabaseSettings

    @property
    def audit_every_ms(self) -> int:
        return self.audit_every_minutes * 60_000


class EvaluateModelSettings(Settings, frozen=True, kw_only=True):
    bucket: Name
    symbols: Symbols
    database: DatabaseSettings


class FetchHistorySettings(Settings, frozen=True, kw_only=True):
    bucket: Name
    rest_url: HttpUrl


class ListStaleHoursSettings(Settings, frozen=True, kw_only=True):
    bucket: Name
    history: HistorySettings
    database: DatabaseSettings


class LoadHistorySettings(Settings, frozen=True, kw_only=True):
    bucket: Name
    history: HistorySettings
    database: DatabaseSettings


class MarkRepairedSettings(Settings, frozen=True, kw_only=True):
    bucket: Name
    redis: RedisSettings
    database: DatabaseSettings


class PlanBackfillSettings(HotStoreSettings, frozen=True, kw_only=True):
    pass


class PredictStreamSettings(HotStoreSettings, frozen=True, kw_only=True):
    signals: SignalsText  # of which it matches the rules of predictions
    symbols_check_s: SymbolsCheckS  # whether others are to be served
    predict_every_ms: PredictEveryMs
    features_ttl_s: Annotated[int, Meta(ge=10, le=86_400)]
    primary_horizon_s: HorizonS
    fee_bp: Annotated[float, Meta(ge=0, le=1000)]  # of one side of a trade
    min_confidence: Annotated[float, Meta(ge=0.5, lt=1)]  # below it a move counts as noise


class PromoteModelSettings(Settings, frozen=True, kw_only=True):
    bucket: Name


class ReportConditionSettings(HotStoreSettings, frozen=True, kw_only=True):
    trades_keep_days: DaysOrNone
    database: DatabaseSettings


@dataclass(frozen=True)
class ScoreSettings:
    """When the active model drifts, and which history is then fetched and trained on."""

    policy: DriftPolicy
    window_s: int  # of the past that is compared with the training
    history_days: int
    train_days: int  # 0: drift is reported, and nothing is trained


class ScorePredictionsSettings(HotStoreSettings, frozen=True, kw_only=True):
    primary_horizon_s: HorizonS
    history_days: Days
    train_days: DaysOrNone
    condition_every_minutes: Annotated[int, Meta(ge=1, le=1440)]
    receipts_between_keep_days: DaysOrNone  # 0: receipts between the seconds are not archived
    signals: SignalsText  # of which it matches the rules of drift
    drift: DriftSettings
    database: DatabaseSettings

    @property
    def scores(self) -> ScoreSettings:
        drift = self.drift
        policy = DriftPolicy(
            min_scored=drift.min_scored,
            stability_high=drift.stability_high,
            stability_low=drift.stability_low,
            raise_after=drift.raise_after,
            cool_down_s=drift.cool_down_hours * 3600,
        )
        return ScoreSettings(policy, drift.window_hours * 3600, self.history_days, self.train_days)


class SendSignalsSettings(Settings, frozen=True, kw_only=True):
    environment: Name
    bucket: Name
    api_url: HttpUrl  # which messages link to
    signals: SignalsText
    dead_letter_queue_url: HttpUrl
    region: Region = field(name="AWS_REGION")  # Lambda sets it


class ServePredictionsSettings(HotStoreSettings, frozen=True, kw_only=True):
    environment: Name
    stale_after_s: Annotated[float, Meta(ge=1, le=5)]  # older features are answered by a fallback
    primary_horizon_s: HorizonS
    receipts_keep_days: Days  # in the lake
    receipts_between_keep_days: DaysOrNone  # 0: those between the seconds are not archived
    authorisation: Authorisation  # the API's, which its description says

    def __post_init__(self) -> None:
        if self.lateness_ms >= self.stale_after_s * 1000:
            raise wrong("LATENESS_MS", str(self.lateness_ms), "less than STALE_AFTER_S")


class TrainModelSettings(Settings, frozen=True, kw_only=True):
    bucket: Name
    database: DatabaseSettings

"""What differs between the environments, typed and checked.

There is one application; `local`, `dev` and `prod` are values. An environment's YAML file holds what differs
from the defaults below, and `aws` holds what only a real account can host: without it (locally) the network,
the cache, the database, the ingest task and the alarms are left out, and real servers on the same machine
take their places. Unknown keys are errors, so a mistyped name cannot be ignored.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, structs

from cdk.config import files, wording
from ingest_ecs.settings import reference_address, stream_address
from tickcast.adapters.settings import (
    Authorisation,
    Days,
    GridMs,
    HorizonS,
    PredictEveryMs,
    Region,
    SymbolsCheckS,
)
from tickcast.market.symbols import is_symbol, listed
from tickcast.serving.signals import MOST_CHARACTERS, Signals

# Types with the same limits as in the processes' settings are those of `adapters.settings`; where the
# configuration is stricter, the type is defined here.
Positive = Annotated[int, Meta(gt=0)]
ZoneId = Annotated[
    str, Meta(pattern=r"^[a-z]+[0-9]-az[0-9]$", description="the id of a zone, like apne1-az1 (not its name)")
]
Retention = Literal["ONE_DAY", "ONE_WEEK", "TWO_WEEKS", "ONE_MONTH", "THREE_MONTHS", "ONE_YEAR"]

# Zones without Fargate ("Regions for Amazon ECS on AWS Fargate" in the ECS Developer Guide). Older accounts
# still have apne1-az3, in Tokyo.
ZONES_WITHOUT_FARGATE = {"apne1-az3", "use1-az3", "usw1-az2", "cac1-az3", "cac1-az4"}

_HOST = r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?/?"
Symbols = Annotated[
    tuple[str, ...], Meta(min_length=1, description="a list of symbols, like [BTCUSDT, ETHUSDT]")
]
BusySymbol = Annotated[str, Meta(description="a symbol, like BTCUSDT")]
StreamUrl = Annotated[
    str, Meta(pattern=rf"^wss?://{_HOST}$", description="an address like wss://host:9443, without a path")
]
ReferenceUrl = Annotated[
    str, Meta(pattern=rf"^wss?://{_HOST}(/[a-z]+)?$", description="an address like wss://host/public")
]
RestUrl = Annotated[
    str, Meta(pattern=rf"^https?://{_HOST}$", description="an address like https://host, without a path")
]
NodeType = Annotated[
    str,
    Meta(pattern=r"^cache\.[a-z0-9]+\.[a-z0-9]+$", description="a type of nodes, like cache.t4g.micro"),
]
InstanceType = Annotated[
    str,
    Meta(pattern=r"^[a-z0-9]+\.[a-z0-9]+$", description="a type of instances without `db.`, like t4g.micro"),
]
Schedule = Annotated[
    str,
    Meta(
        pattern=r"^(rate|cron)\(.+\)$",
        description="an expression of EventBridge, like rate(1 day) or cron(17 3 * * ? *)",
    ),
]
Mail = Annotated[
    str, Meta(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", description="an address like me@example.com")
]

FOLDER = Path(__file__).parent  # of the environments' files

DAY_S = 86_400
# What the API has to be left of the account's concurrent executions: at some 20 ms a request, 100 requests/s.
API_EXECUTIONS = 2
# An execution of the state machine of history fetches and loads so many markets at once.
HISTORY_EXECUTIONS = 2
SCHEDULED_EXECUTIONS = 2  # scoring and the audit
SIGNAL_EXECUTIONS = 1  # where there are signals
SCORING_S = 30  # what archiving receipts leaves to scoring, of one execution
# Of which Lambda lets nobody reserve any ("Configuring reserved concurrency" in the Lambda Developer Guide).
UNRESERVED_EXECUTIONS = 100
ON_DEMAND_SHARDS = 4  # with which such a stream begins

POLLS_OF_ONE_SYMBOL_PER_S = 10  # the pace at which its predictions are made

# What a symbol takes of the cache at most, MB: an hour of receipts and outcomes with a challenger, and room
# for receipts that list many late ticks. Measured by tests/adapters/redis/test_store_memory.py.
CACHE_MB_PER_SYMBOL = 43
# The memory of cache nodes, MB, including what is reserved ("Node-type specific parameters" in the
# ElastiCache User Guide).
CACHE_NODE_MB = {
    "cache.t4g.micro": 512,
    "cache.t4g.small": 1402,
    "cache.t4g.medium": 3164,
    "cache.m7g.large": 6537,
    "cache.m7g.xlarge": 13_248,
    "cache.r7g.large": 13_386,
    "cache.r7g.xlarge": 26_952,
}


def reserved_percent(node_type: str) -> int:
    """The share of a cache node's memory that is kept for failover and backup, %, as AWS recommends."""
    return {"micro": 50, "small": 30}.get(node_type.rpartition(".")[2], 25)


def usable_mb(node_type: str) -> int:
    """What a cache node has for data, of those in `CACHE_NODE_MB`."""
    return CACHE_NODE_MB[node_type] * (100 - reserved_percent(node_type)) // 100


def _check_symbols(name: str, *symbols: str) -> None:
    for symbol in symbols:
        if not is_symbol(symbol):
            raise ValueError(
                f"{name}: {symbol[:50]!r} is not a symbol; it should be like BTCUSDT, in upper case"
            )


def _check_different(symbols: tuple[str, ...]) -> None:
    twice = [symbol for symbol, times in Counter(symbols).items() if times > 1]
    if twice:
        raise ValueError(f"symbols: {listed(twice)} more than once; each should be there once")


class _Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Part of an environment's configuration: immutable, without unknown keys."""


class PredictionConfig(_Config, frozen=True, kw_only=True):
    """How often predictions are made at most, how bars are closed, and when a prediction is stale, empty or
    an abstention.

    `fee_bp` is the fee of one side of a trade in basis points (10: the exchange's for a taker of the lowest
    tier). A move that does not bring the calibrated confidence to `min_confidence` counts as noise: the
    prediction abstains.
    """

    predict_every_ms: PredictEveryMs = 100
    lateness_ms: Annotated[int, Meta(ge=1, le=2000)] = 100
    stale_after_s: Annotated[int, Meta(ge=1, le=5)] = 5
    primary_horizon_s: HorizonS = 2
    features_ttl_s: Annotated[int, Meta(ge=10, le=86_400)] = 60
    fee_bp: Annotated[float, Meta(ge=0, le=1000)] = 10.0
    min_confidence: Annotated[float, Meta(ge=0.5, lt=1)] = 0.55

    def __post_init__(self) -> None:
        if self.lateness_ms >= self.stale_after_s * 1000:
            raise ValueError(f"lateness_ms is {self.lateness_ms}, it should be less than stale_after_s")


class AuditConfig(_Config, frozen=True, kw_only=True):
    """How often predictions are recomputed from bronze, and how many of each symbol each time."""

    every_minutes: Annotated[int, Meta(ge=1, le=15)] = 5  # health expects a heartbeat in 15
    sample: Annotated[int, Meta(ge=1, le=60)] = 2


class ConditionConfig(_Config, frozen=True, kw_only=True):
    """How often the condition of the data by day is reported: after the scores of a minute."""

    every_minutes: Annotated[int, Meta(ge=1, le=1440)] = 60


class DriftConfig(_Config, frozen=True, kw_only=True):
    """When the active model counts as drifting (`tickcast.evaluation.drift`), and how often that may start a
    training. Updates are a minute apart; `min_scored` counts outcomes of one symbol and horizon."""

    window_hours: Annotated[int, Meta(ge=1, le=168)] = 24  # whole days, for markets have daily cycles
    min_scored: Annotated[int, Meta(ge=1, le=10**9)] = 3600
    stability_high: Annotated[float, Meta(gt=0, le=100)] = 0.25
    stability_low: Annotated[float, Meta(gt=0, le=100)] = 0.1
    raise_after: Annotated[int, Meta(ge=1, le=10_080)] = 30
    cool_down_hours: Annotated[int, Meta(ge=1, le=8760)] = 12

    def __post_init__(self) -> None:
        if self.stability_low > self.stability_high:
            raise ValueError(
                f"stability_low is {self.stability_low:g}, it should be at most stability_high, "
                f"{self.stability_high:g}"
            )


class StreamConfig(_Config, frozen=True, kw_only=True):
    """The Kinesis stream and how `predict_stream` reads it. `shards: null` means on-demand capacity.

    With `fan_out` records are pushed to it within 70 ms, for some $14 a shard and month; without, it polls.
    `parallelism` is how many batches of a shard it processes at once: symbols do not wait for each other, and
    each keeps its order. docs/latency.md compares both.
    """

    shards: Positive | None = 1
    fan_out: bool = False
    parallelism: Annotated[int, Meta(ge=1, le=10)] = 1
    # From the 25th hour on a shard costs more than twice as much. What would be lost before is what the
    # archive, which is seconds behind, could not write for a whole day; REST has those trades again.
    retention_hours: Annotated[int, Meta(ge=24, le=8760)] = 24

    @property
    def executions(self) -> int:
        """How many functions the stream invokes at once: for each shard, batches to predict and one to
        archive."""
        return (self.shards or ON_DEMAND_SHARDS) * (self.parallelism + 1)


class LakeConfig(_Config, frozen=True, kw_only=True):
    """Days after which the bucket deletes objects, by prefix; null: never. Models are never deleted.

    After `bronze_cheaper_after_days` bronze moves to S3 Glacier Instant Retrieval: read in milliseconds as
    before, a fifth of the price to keep, and a price for each GB read. null: never.
    """

    bronze_days: Days | None = None
    bronze_cheaper_after_days: Days | None = None
    quarantine_days: Days | None = 30

    def __post_init__(self) -> None:
        cheaper, days = self.bronze_cheaper_after_days, self.bronze_days
        # S3 bills 90 days of that class at least.
        if cheaper is not None and days is not None and days < cheaper + 90:
            raise ValueError(
                f"bronze_cheaper_after_days is {cheaper} and bronze_days {days}: the cheaper class is billed "
                "for 90 days at least; set bronze_cheaper_after_days to null, or bronze_days later"
            )


class ReceiptsConfig(_Config, frozen=True, kw_only=True):
    """For how many days receipts are archived in the lake, with their outcomes: the first of each second for
    `keep_days`, those in between, which take eight times as much, for `between_keep_days`; null: not at
    all. A busy symbol's take 0.14 GB a day and 1 GB a day."""

    keep_days: Days = 7
    between_keep_days: Days | None = None


class TablesConfig(_Config, frozen=True, kw_only=True):
    """What PostgreSQL keeps: for how many days (null: indefinitely), and every how many ms a feature row.

    A row a second is enough where there are no quotes, for such rows predict little. Where there are, ten
    times as many train the network better; a day of them is about 200 MB a symbol.
    """

    keep_days: Days | None = 30
    # Trades are read to repair gaps, which are of the last hours. Older ones can be read from bronze.
    trades_keep_days: Days | None = 3
    grid_ms: GridMs = 1000
    quoted_grid_ms: GridMs = 100
    statement_timeout_s: Annotated[int, Meta(ge=1, le=900)] = 120  # in a training, the function's own timeout


class Sizing(_Config, frozen=True, kw_only=True):
    """Memory (which on Lambda is also CPU), time and, only where the account's quota allows, concurrency.

    A fresh account has a quota of 10 concurrent executions, of which none may be reserved: so the default is
    none, and `aws.concurrent_executions` says how many the account has.
    """

    memory_mb: Annotated[int, Meta(ge=128, le=10240)]
    timeout_s: Annotated[int, Meta(ge=1, le=900)]
    reserved_concurrency: Positive | None = None


class FunctionSizes(_Config, frozen=True, kw_only=True):
    """The sizes of the functions, one field for each folder of `lambdas/`."""

    predict_stream: Sizing = Sizing(memory_mb=1024, timeout_s=30)
    archive_ticks: Sizing = Sizing(memory_mb=512, timeout_s=120)
    train_model: Sizing = Sizing(memory_mb=3008, timeout_s=900)
    evaluate_model: Sizing = Sizing(memory_mb=3008, timeout_s=600)
    promote_model: Sizing = Sizing(memory_mb=512, timeout_s=60)
    serve_predictions: Sizing = Sizing(memory_mb=512, timeout_s=10)
    score_predictions: Sizing = Sizing(memory_mb=512, timeout_s=60)
    audit_predictions: Sizing = Sizing(memory_mb=1024, timeout_s=120)
    report_condition: Sizing = Sizing(memory_mb=512, timeout_s=120)
    list_stale_hours: Sizing = Sizing(memory_mb=512, timeout_s=300)
    load_history: Sizing = Sizing(memory_mb=2048, timeout_s=900)
    mark_repaired: Sizing = Sizing(memory_mb=512, timeout_s=60)
    plan_backfill: Sizing = Sizing(memory_mb=512, timeout_s=60)
    # A day is some 1,500 requests: minutes at the exchange's limit; what takes longer is called again.
    fetch_history: Sizing = Sizing(memory_mb=1024, timeout_s=900)
    # Deployed where there are signals. Its time is for three attempts with what a receiver asks to wait.
    send_signals: Sizing = Sizing(memory_mb=512, timeout_s=60)


class ApiConfig(_Config, frozen=True, kw_only=True):
    """Who may call the API, and its limits: the stage's for all callers of a route together, lower where
    anybody may call; the usage plan's for each key, lower where one response costs much.

    `authorisation`: `api_key`, a key in a header; `iam`, requests signed by an AWS identity with the right to
    (the output ApiCallPolicy). There are no keys then, and of limits only the stage's. A browser cannot sign:
    the dashboard needs keys.

    A limit that is null follows from the number of symbols.
    """

    authorisation: Authorisation = "api_key"
    requests_per_s: Positive | None = None
    burst: Positive | None = None
    open_requests_per_s: Positive = 20
    open_burst: Positive = 40
    key_requests_per_s: Positive | None = None
    key_burst: Positive | None = None
    key_heavy_requests_per_s: Positive = 5
    key_heavy_burst: Positive = 10
    key_requests_per_day: Positive | None = None

    def for_symbols(self, symbols: int) -> KnownLimits:
        """All limits of an API of so many symbols. One key can poll each of them once a second, or one of
        them ten times, around the clock, with one further request a second. Its rate is twice that: polls
        come unevenly, and a token bucket at the mean rate would refuse some. The stage has room for three
        such keys."""
        polls_per_s = max(symbols, POLLS_OF_ONE_SYMBOL_PER_S) + 1
        key_rate = self.key_requests_per_s or 2 * polls_per_s
        key_burst = self.key_burst or 2 * key_rate
        return KnownLimits(
            requests_per_s=self.requests_per_s or max(100, 3 * key_rate),
            burst=self.burst or max(200, 3 * key_burst),
            key_requests_per_s=key_rate,
            key_burst=key_burst,
            key_requests_per_day=self.key_requests_per_day or polls_per_s * DAY_S,
        )


@dataclass(frozen=True)
class KnownLimits:
    """Those of `ApiConfig` that follow from the symbols."""

    requests_per_s: int
    burst: int
    key_requests_per_s: int
    key_burst: int
    key_requests_per_day: int


class HistoryConfig(_Config, frozen=True, kw_only=True):
    """History from the exchange's REST: how much of it is fetched on schedule, and when.

    `schedule` is an EventBridge expression (UTC); null is never: then it is started by hand. What bronze has
    is not fetched again, so more days than one only cost something after an outage. Then a challenger is
    trained on the last `train_days`; null: none is.
    """

    rest_url: RestUrl = "https://data-api.binance.vision"
    days: Days = 2
    train_days: Days | None = 7
    schedule: Schedule | None = "cron(17 3 * * ? *)"


class NetworkConfig(_Config, frozen=True, kw_only=True):
    """Two zones. Flow logs (of rejected traffic) are kept for the retention named, or not made.

    `zone_ids` name the same zones in every account, which zones' names do not; null: the first two that the
    account lists, of which one may be without Fargate. A subnet keeps its zone: to change them, destroy the
    environment first.
    """

    zone_ids: tuple[ZoneId, ZoneId] | None = None
    flow_logs: Retention | None = None

    def __post_init__(self) -> None:
        if self.zone_ids is None:
            return
        if self.zone_ids[0] == self.zone_ids[1]:
            raise ValueError(f"zone_ids are twice {self.zone_ids[0]}, they should be two zones")
        for zone in ZONES_WITHOUT_FARGATE.intersection(self.zone_ids):
            raise ValueError(
                f"zone_ids: {zone} has no Fargate, where the ingest task runs; "
                "`aws ec2 describe-availability-zones` lists others"
            )


class CacheConfig(_Config, frozen=True, kw_only=True):
    """The Valkey replication group. Two nodes or more live in different zones and fail over by themselves."""

    node_type: NodeType = "cache.t4g.micro"
    nodes: Annotated[int, Meta(ge=1, le=6)] = 1

    def __post_init__(self) -> None:
        if self.node_type not in CACHE_NODE_MB:
            known = ", ".join(CACHE_NODE_MB)
            raise ValueError(
                f"node_type is {self.node_type!r}, whose memory is not known: one of {known}, or add it to "
                "CACHE_NODE_MB"
            )

    @property
    def usable_mb(self) -> int:
        """What a node has for data. Each node holds all symbols."""
        return usable_mb(self.node_type)


class DatabaseConfig(_Config, frozen=True, kw_only=True):
    """The PostgreSQL instance."""

    instance_type: InstanceType = "t4g.micro"
    storage_gb: Annotated[int, Meta(ge=20)] = 20
    storage_limit_gb: Annotated[int, Meta(ge=22)] = 100
    backup_days: Annotated[int, Meta(ge=1, le=35)] = 1
    multi_az: bool = False


class IngestConfig(_Config, frozen=True, kw_only=True):
    """The Fargate task that holds the exchange's stream. Each further task is a redundant feed.

    `stream_url` asks for a key; without one the task takes the same events as JSON from `public_stream_url`.
    The quotes of `busy_symbol` never pause: every connection carries them to show that it is alive. After
    `rollover_s` a connection is replaced by a new one; the exchange closes each at 24 h.

    With `reference` the best prices of the symbols' perpetuals come along, for which no key is needed, from
    the public streams of the USD-M futures at `reference_url`: of the perpetual in USDT of the same base, for
    symbols in dollars of any kind.

    `architecture` is that of both tasks' images: arm64 is a fifth cheaper, x86_64 for where no builder makes
    arm64 images. (Functions stay x86_64: their layers would have to be built twice.) `spot`
    takes capacity that AWS has to spare, for about a third of the price: a task may be stopped with two
    minutes' notice, and until there is another ticks are missing, of which REST has the trades.
    """

    architecture: Literal["arm64", "x86_64"] = "arm64"
    spot: bool = False
    cpu: Literal[256, 512, 1024] = 256
    memory_mb: Positive = 512
    tasks: Annotated[int, Meta(ge=0, le=4)] = 1
    stream_url: StreamUrl = "wss://stream-sbe.binance.com:9443"
    public_stream_url: StreamUrl = "wss://data-stream.binance.vision"
    reference: bool = True
    reference_url: ReferenceUrl = "wss://fstream.binance.com/public"
    busy_symbol: BusySymbol = "BTCUSDT"
    linger_ms: Annotated[int, Meta(ge=1, le=2000)] = 100
    rollover_s: Annotated[int, Meta(ge=60, le=86_399)] = 81_000
    health_port: Annotated[int, Meta(ge=1, le=65_535)] = 8080  # the Dockerfile has the same
    health_host: Literal["127.0.0.1", "0.0.0.0"] = "127.0.0.1"  # ECS asks from within the container

    def __post_init__(self) -> None:
        _check_symbols("busy_symbol", self.busy_symbol)


class AwsConfig(_Config, frozen=True, kw_only=True):
    """What only an AWS account can host.

    `container_insights` makes some twenty metrics of the ingest task, for $6 to 8 a month.
    `concurrent_executions` is the account's quota of functions that run at once (Service Quotas, Lambda: a
    fresh account's is 10).
    """

    network: NetworkConfig = NetworkConfig()
    cache: CacheConfig = CacheConfig()
    database: DatabaseConfig = DatabaseConfig()
    ingest: IngestConfig = IngestConfig()
    container_insights: bool = False
    concurrent_executions: Annotated[int, Meta(ge=10)] = 10
    alarm_email: Mail | None = None
    dashboards: bool = True  # two, at $3 a month each beyond the three that an account has free
    capacity_alarms: bool = True  # besides those of what fails, those of what is full, busy or slow


class Environment(_Config, frozen=True, kw_only=True):
    """One deployment of tickcast.

    `symbols` are those of a first deployment: `make symbols` changes them at run time. Ingest and the
    stream's consumer look every `symbols_check_s` whether it did, at 10 s for $0.10 a month each.

    `keep_data` retains the bucket and the stream and snapshots the database when their stack is deleted, and
    protects the stacks and the database from deletion. `tracing` records requests with X-Ray, for some $13 a
    month where a function runs once a second or oftener. `signals` (docs/signals.md): without rules nothing
    of them is deployed.
    """

    name: Literal["local", "dev", "prod"]
    region: Region = "ap-northeast-1"
    symbols: Symbols = ("BTCUSDT", "ETHUSDT")
    symbols_check_s: SymbolsCheckS = 10
    log_level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = "INFO"
    log_retention: Retention = "TWO_WEEKS"
    keep_data: bool = False
    tracing: bool = False
    prediction: PredictionConfig = PredictionConfig()
    stream: StreamConfig = StreamConfig()
    lake: LakeConfig = LakeConfig()
    receipts: ReceiptsConfig = ReceiptsConfig()
    tables: TablesConfig = TablesConfig()
    functions: FunctionSizes = FunctionSizes()
    api: ApiConfig = ApiConfig()
    audit: AuditConfig = AuditConfig()
    condition: ConditionConfig = ConditionConfig()
    drift: DriftConfig = DriftConfig()
    history: HistoryConfig = HistoryConfig()
    signals: Signals = Signals()
    aws: AwsConfig | None = None

    def __post_init__(self) -> None:
        _check_symbols("symbols", *self.symbols)
        _check_different(self.symbols)
        self._check_signals()
        self._check_scoring()
        self._check_training()
        if self.aws:
            self._check_cache(self.aws.cache)
            self._check_zones(self.aws.network)
            self._check_stream(self.aws.ingest)
            self._check_concurrency(self.aws.concurrent_executions)

    def _check_scoring(self) -> None:
        timeout_s = self.functions.score_predictions.timeout_s
        if timeout_s <= SCORING_S:
            raise ValueError(
                f"functions.score_predictions.timeout_s is {timeout_s}, of which {SCORING_S} are left for "
                "scoring: no receipts would be archived; take more, such as 60"
            )

    def _check_training(self) -> None:
        kept, trained = self.tables.keep_days, self.history.train_days
        if kept is not None and trained is not None and kept < trained:
            raise ValueError(
                f"tables.keep_days is {kept}, and history.train_days {trained}: a training would lack the "
                "older days; keep as many, or train on fewer"
            )

    def _check_cache(self, cache: CacheConfig) -> None:
        needed_mb = len(self.symbols) * CACHE_MB_PER_SYMBOL
        if needed_mb > cache.usable_mb:
            raise ValueError(
                f"{len(self.symbols)} symbols need {needed_mb} MB of the cache "
                f"({CACHE_MB_PER_SYMBOL} MB each), and {cache.node_type} has {cache.usable_mb} MB for "
                "data: take a larger aws.cache.node_type, or fewer symbols"
            )

    def _check_signals(self) -> None:
        if not self.aws and (of_alarms := self.signals.of("alarm")):
            raise ValueError(
                f"signals: rule {of_alarms[0].name} is of alarms, which there are in an account alone: leave "
                f"it out of {self.name}"
            )
        characters = len(self.signals_text)
        if characters > MOST_CHARACTERS:
            raise ValueError(
                f"signals: the rules and destinations are {characters} characters of JSON, and a function's "
                f"variables have room for {MOST_CHARACTERS}: take fewer rules, or shorter names"
            )

    @property
    def signals_text(self) -> str:
        """As the functions get them."""
        return msgspec.json.encode(self.signals).decode()

    def _check_zones(self, network: NetworkConfig) -> None:
        prefix = zone_prefix(self.region)
        for zone in network.zone_ids or ():
            if zone.partition("-")[0] != prefix:
                raise ValueError(
                    f"aws.network.zone_ids: {zone} is not of {self.region}, whose zones are like "
                    f"{prefix}-az1; null takes the first two"
                )

    def _check_stream(self, ingest: IngestConfig) -> None:
        try:
            stream_address(ingest.stream_url, "sbe", self.symbols, ingest.busy_symbol)
            stream_address(ingest.public_stream_url, "json", self.symbols, ingest.busy_symbol)
            reference_address(ingest.reference_url, self.symbols, ingest.busy_symbol)
        except ValueError as error:
            raise ValueError(f"symbols: {error}") from None

    def _check_concurrency(self, quota: int) -> None:
        """What runs in the background, at its peak, may not leave the API without executions."""
        busy = self.background_executions
        if busy + API_EXECUTIONS > quota:
            raise ValueError(
                f"{busy} functions may run at once (the stream's {self.stream.executions}, "
                f"{busy - self.stream.executions - HISTORY_EXECUTIONS} on schedule and for signals, "
                f"{HISTORY_EXECUTIONS} for history), the API needs "
                f"{API_EXECUTIONS}, and the account's quota is {quota}: take fewer stream.shards or a lower "
                "stream.parallelism, or have the quota raised (Service Quotas, Lambda, concurrent "
                "executions) and set aws.concurrent_executions"
            )
        reserved = sum(sizing.reserved_concurrency or 0 for sizing in structs.asdict(self.functions).values())
        if reserved and reserved + UNRESERVED_EXECUTIONS > quota:
            raise ValueError(
                f"functions: reserved_concurrency is {reserved} in all, and of the account's {quota} Lambda "
                f"keeps {UNRESERVED_EXECUTIONS} unreserved: leave it out, or have the quota raised and set "
                "aws.concurrent_executions"
            )

    @property
    def background_executions(self) -> int:
        """How many functions run at once at most without any caller of the API."""
        signals = SIGNAL_EXECUTIONS if self.signals.rules else 0
        return self.stream.executions + SCHEDULED_EXECUTIONS + signals + HISTORY_EXECUTIONS

    @property
    def metrics_namespace(self) -> str:
        """Each environment's own, or dev's predictions would keep prod's alarms quiet in one account."""
        return f"tickcast/{self.name}"


def zone_prefix(region: str) -> str:
    """What the ids of a region's zones begin with: of ap-northeast-1, apne1."""
    *area, direction, number = region.split("-")
    short = re.sub("north|south|east|west|central", lambda word: word[0][0], direction)
    return "".join(part[:2] if at == 0 else part[0] for at, part in enumerate(area)) + short + number


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the file, the key and what it should be."""


def load(name: str, *, symbols: str = "", rest_url: str = "", signals: str = "") -> Environment:
    """The environment called `name`, of the comma-separated `symbols`, with `rest_url` and with the signals
    of the file `signals`, if there are any.

    Raises `ConfigError` naming the environments there are, or what its file or an argument has wrong.
    """
    paths = {path.stem: path for path in FOLDER.glob("*.yaml")}
    if name not in paths:
        raise ConfigError(f"no environment {name!r}: one of {', '.join(sorted(paths))}")
    try:
        environment = _of_file(name, files.read(paths[name]))
    except ValueError as error:
        raise ConfigError(f"cdk/config/{name}.yaml: {error}") from None
    if not (symbols or rest_url or signals):
        return environment
    values = msgspec.to_builtins(environment)
    if symbols:
        values["symbols"] = [symbol.strip() for symbol in symbols.split(",")]
    if rest_url:
        values["history"]["rest_url"] = rest_url
    if signals:
        values["signals"] = _signals_in(Path(signals))
    return parse(values)


def _signals_in(path: Path) -> Any:
    """The section `signals` of a file of one's own: `destinations` and `rules`. Raises `ConfigError`."""
    try:
        found = files.read(path)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    return found.get("signals", found)


def _of_file(name: str, values: dict[str, Any]) -> Environment:
    if "name" in values:
        raise ValueError("there is no setting name: an environment is called like its file")
    environment = parse({"name": name, **values})
    if name != "local" and environment.aws is None:
        raise ValueError(
            f"aws is missing: {name} is deployed into an account; `aws: {{}}` takes the defaults of all of it"
        )
    return environment


def parse(values: dict[str, Any]) -> Environment:
    """The environment of `values`, as a YAML file has them. Raises `ConfigError` that names what is wrong."""
    try:
        return msgspec.convert(values, Environment)
    except msgspec.ValidationError as error:
        raise ConfigError(wording.explained(error, values, Environment)) from None

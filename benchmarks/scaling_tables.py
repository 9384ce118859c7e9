"""`python -m benchmarks.scaling_tables`: the tables of docs/scaling.md, from two symbols to the whole market.

A calculation from what `python -m benchmarks.scale` measured (`MEASURED`), AWS's quotas (`LIMITS`), list
prices and a configuration (`Preset`). Tokyo, a month of 730 hours, without tax, free tiers, network between
zones and what does not depend on the symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from benchmarks.scale import (
    ARCHIVE_RECORDS,
    ARCHIVE_S,
    EVENT_BYTES,
    RECORD_BYTES,
    SHARD_FILL,
    SHARD_RECORDS_PER_S,
    hottest_share,
    rates_of,
    symbols_of,
)
from cdk.config import (
    API_EXECUTIONS,
    CACHE_MB_PER_SYMBOL,
    CACHE_NODE_MB,
    HISTORY_EXECUTIONS,
    SCHEDULED_EXECUTIONS,
    CacheConfig,
    Environment,
    load,
)
from ingest_ecs.settings import MAX_STREAMS, stream_address
from operations.cost import measured
from operations.cost.inventory import TRADES_KEEP_DAYS
from operations.cost.metrics import metric_months
from operations.cost.prices import prices
from operations.cost.table_sizes import Kept, Rates, table_sizes, year_gb

MONTH_S = 730 * 3600
ALL_SYMBOLS = 1500  # assumed: about as many spot pairs trade at once
CELL = 200  # symbols of a deployment: docs/scaling.md says why
MOST_SYMBOLS = 4000  # more than the exchange has
STEPS = (2, 10, 50, CELL, 1000, ALL_SYMBOLS)


class Measured(NamedTuple):
    """By `python -m benchmarks.scale --tasks 2 --counts 1,10,100,1000`, 2026-11-27, two shared cores: of both
    tasks together; a second is one of the market."""

    ticks_per_s: int
    records_per_s: int
    kb_per_s: int
    predict_us: int  # CPU of an event and symbol
    predict_ms: int  # CPU of all functions a second
    ingest_ms: int
    archive_ms: int
    redis_ms: int
    redis_commands: int
    s3_puts: float
    redis_mb: float  # of a symbol


# By linger (ms) and symbols.
MEASURED: dict[int, dict[int, Measured]] = {
    100: {
        1: Measured(209, 20, 29, 3_129, 63, 78, 11, 10, 268, 0.02, 28.2),
        10: Measured(599, 200, 90, 1_908, 382, 105, 38, 41, 2_708, 0.38, 26.7),
        100: Measured(1_052, 1_998, 264, 1_361, 2_719, 249, 108, 324, 26_812, 8.39, 26.3),
        1_000: Measured(1_514, 19_989, 1_457, 851, 17_009, 777, 687, 2_282, 254_030, 75.25, 26.2),
    },
    1000: {
        1: Measured(209, 2, 28, 4_245, 8, 7, 8, 1, 32, 0.02, 24.4),
        10: Measured(599, 20, 79, 4_100, 82, 19, 30, 6, 309, 0.19, 25.3),
        100: Measured(1_052, 200, 150, 1_317, 263, 31, 43, 26, 3_146, 5.07, 22.8),
        1_000: Measured(1_514, 2_000, 323, 1_526, 3_051, 132, 152, 320, 30_997, 84.88, 22.5),
    },
}

HEADROOM = 0.7  # of a core or quota, on average
SHARD_BUSIEST = 0.9
SCORED_IN_A_RUN = 300  # symbols: 100 to 180 ms each with a real PostgreSQL, and 45 s of a run's 60
PREDICTION_BYTES = 2630  # of a symbol in GET /predictions (tests/functions/test_serve_predictions.py)
LARGE_DATABASE = "db.t4g.medium"  # assumed, for more symbols than `SMALL`
SMALL = 10
SPARE_EXECUTIONS = SCHEDULED_EXECUTIONS + HISTORY_EXECUTIONS + API_EXECUTIONS


def _usd(price: str) -> float:
    return prices()[price].value


@dataclass(frozen=True)
class Preset:
    """Values of the configuration, by their names in `cdk/config`."""

    name: str
    linger_ms: int
    predict_every_ms: int
    fan_out: bool
    quoted_grid_ms: int
    keep_days: int
    tasks: int
    nodes: int
    zones: int
    memory_mb: int
    database: str
    storage_gb: int
    storage_limit_gb: int
    cheaper_after_days: int | None
    task_cpu: float  # cores
    task_gb: float

    @property
    def events_per_s(self) -> float:
        """Of a shard and environment: with fan-out one for each put of a task, without one for each poll."""
        return self.tasks * 1000 / self.linger_ms if self.fan_out else 1.0


def _preset(environment: Environment) -> Preset:
    assert environment.aws
    return Preset(
        environment.name,
        environment.aws.ingest.linger_ms,
        environment.prediction.predict_every_ms,
        environment.stream.fan_out,
        environment.tables.quoted_grid_ms,
        environment.tables.keep_days or 365,
        environment.aws.ingest.tasks,
        environment.aws.cache.nodes,
        1 + environment.aws.database.multi_az,
        environment.functions.predict_stream.memory_mb,
        f"db.{environment.aws.database.instance_type}",
        environment.aws.database.storage_gb,
        environment.aws.database.storage_limit_gb,
        environment.lake.bronze_cheaper_after_days,
        environment.aws.ingest.cpu / 1024,
        environment.aws.ingest.memory_mb / 1024,
    )


PROD = _preset(load("prod"))
CALM = replace(PROD, name="calm", linger_ms=1000, predict_every_ms=1000, quoted_grid_ms=1000, keep_days=30)
PRESETS = (PROD, CALM)


@dataclass(frozen=True)
class Step:
    """`symbols` of a market with `preset`, in deployments of at most `cell` symbols."""

    symbols: int
    preset: Preset
    cell: int = CELL

    @property
    def cells(self) -> int:
        return math.ceil(self.symbols / self.cell)

    @property
    def per_cell(self) -> int:
        return math.ceil(self.symbols / self.cells)

    @property
    def _measured(self) -> tuple[int, Measured]:
        """The measurement with the next larger number of symbols, or the largest."""
        of_linger = MEASURED[self.preset.linger_ms]
        count = min((count for count in of_linger if count >= self.symbols), default=max(of_linger))
        return count, of_linger[count]

    def each(self, of: Callable[[Measured], float]) -> float:
        """A measured figure for one symbol."""
        count, found = self._measured
        return of(found) / count

    @property
    def ticks_per_s(self) -> float:
        """Of the market."""
        return sum(rates_of(self.symbols))

    @property
    def records_per_s(self) -> float:
        return self.symbols * self.preset.tasks * 1000 / self.preset.linger_ms

    @property
    def shards(self) -> int:
        """Of each cell: so many that the busiest takes at most `SHARD_BUSIEST` of its records."""
        records, symbols = self.records_per_s / self.cells, [1.0] * self.per_cell
        count = max(1, math.ceil(records / (SHARD_RECORDS_PER_S * SHARD_FILL)))
        while hottest_share(symbols, count) * records / count > SHARD_RECORDS_PER_S * SHARD_BUSIEST:
            count += 1
        return count

    @property
    def predict_cores(self) -> float:
        return self.symbols * self.each(lambda found: found.predict_ms) / 1000

    @property
    def parallelism(self) -> int:
        """Environments that each shard keeps busy."""
        core = min(1.0, self.preset.memory_mb / measured.FULL_CORE_MB)
        return max(1, math.ceil(self.predict_cores / self.cells / self.shards / (core * HEADROOM)))

    @property
    def executions(self) -> int:
        """Functions that run at once in an account with one cell: `aws.concurrent_executions`."""
        return self.shards * (self.parallelism + 1) + SPARE_EXECUTIONS

    @property
    def cache_mb(self) -> int:
        return self.per_cell * CACHE_MB_PER_SYMBOL

    @property
    def node_type(self) -> str:
        fits = [kind for kind in CACHE_NODE_MB if CacheConfig(node_type=kind).usable_mb >= self.cache_mb]
        return min(fits, key=_usd)

    @property
    def redis_core(self) -> float:
        """The share of its one core that the primary of a cell is busy."""
        return self.per_cell * self.each(lambda found: found.redis_ms) / 1000

    @property
    def file_span_s(self) -> float:
        """The time that an event of the archive covers."""
        shards = self.cells * self.shards
        records = self.records_per_s / shards
        data = self.symbols * self.each(lambda found: found.kb_per_s) * 1000 / shards
        size = data * 4 / 3 + records * RECORD_BYTES  # in base64
        return min(ARCHIVE_S, ARCHIVE_RECORDS / records, EVENT_BYTES / size)

    def _puts_per_s(self, rates: Iterable[float]) -> float:
        span_s = self.file_span_s
        return sum(1 - math.exp(-rate * span_s) for rate in rates) / span_s

    @property
    def s3_puts_per_s(self) -> float:
        """A file for each symbol with ticks in an event; symbols are as busy as in the whole market."""
        return self._puts_per_s(rates_of(self.symbols))

    @property
    def database_gb(self) -> float:
        rates = Rates(self.symbols, self.ticks_per_s, self.preset.quoted_grid_ms)
        return year_gb(table_sizes(rates, Kept(self.preset.keep_days, TRADES_KEEP_DAYS)))

    # --------------------------------------------------------------------------------------- dollars

    @property
    def kinesis_usd(self) -> float:
        shards = self.shards * self.cells * MONTH_S / 3600
        puts = self.records_per_s * MONTH_S * _usd("kinesis_put_unit")
        if not self.preset.fan_out:
            return shards * _usd("kinesis_shard") + puts
        size = self.symbols * self.each(lambda found: found.kb_per_s) * 1000 * MONTH_S / 1e9
        return (
            shards * (_usd("kinesis_shard") + _usd("kinesis_fan_out_shard"))
            + puts
            + size * _usd("kinesis_fan_out_gb")
        )

    @property
    def lambda_usd(self) -> float:
        """Of both consumers: a core is billed as the memory that it comes with."""
        cores = self.predict_cores + self.symbols * self.each(lambda found: found.archive_ms) / 1000
        requests = self.shards * self.cells * self.preset.events_per_s * self.parallelism
        return MONTH_S * (
            cores * measured.FULL_CORE_MB / 1024 * _usd("lambda_x86_gb_s") + requests * _usd("lambda_request")
        )

    @property
    def s3_usd(self) -> float:
        """Requests, and a year of bronze, whose older files move to a cheaper class if they are large."""
        tick_bytes = self.preset.tasks * measured.BRONZE_TICK_BYTES  # each task sends it
        rates = rates_of(self.symbols)
        moved = [rate for rate in rates if rate * tick_bytes * self.file_span_s >= measured.LEAST_MOVED_BYTES]
        day_gb = tick_bytes * 86_400 / 1e9
        far_days = measured.LIFETIME_DAYS - (self.preset.cheaper_after_days or measured.LIFETIME_DAYS)
        far_gb = sum(moved) * day_gb * far_days
        near_gb = sum(rates) * day_gb * measured.LIFETIME_DAYS - far_gb
        moves = self._puts_per_s(moved) if far_days else 0.0
        requests = self.s3_puts_per_s * _usd("s3_put") + moves * _usd("s3_glacier_ir_transition")
        return MONTH_S * requests + near_gb * _usd("s3_standard_gb") + far_gb * _usd("s3_glacier_ir_gb")

    @property
    def cache_usd(self) -> float:
        return self.cells * self.preset.nodes * _usd(self.node_type) * MONTH_S / 3600

    @property
    def database_usd(self) -> float:
        """Storage, and an instance for each cell: the configured one for few symbols."""
        instance = self.preset.database if self.per_cell <= SMALL else LARGE_DATABASE
        instances = self.cells * _usd(instance) * MONTH_S / 3600
        stored_gb = max(self.cells * self.preset.storage_gb, self.database_gb / measured.FULL_AT)
        return self.preset.zones * (instances + stored_gb * _usd("db_storage_gb"))

    @property
    def ingest_usd(self) -> float:
        """On arm64, each task with an address."""
        hour = self.preset.task_cpu * _usd("fargate_arm_vcpu") + self.preset.task_gb * _usd("fargate_arm_gb")
        return self.cells * self.preset.tasks * (hour + _usd("public_ipv4")) * MONTH_S / 3600

    @property
    def watching_usd(self) -> float:
        """Custom metrics of each cell, and the lines of log that grow with symbols and shards."""
        metrics = self.cells * metric_months(self.per_cell)
        scored = self.symbols * (measured.SCORED_LINE_BYTES + measured.EMF_LINE_BYTES) / 60
        predicted = self.cells * self.shards * measured.EMF_LINE_BYTES / measured.EMF_EVERY_S
        return metrics * _usd("metric") + (scored + predicted) * MONTH_S / 1e9 * _usd("log_ingestion_gb")

    @property
    def lines_usd(self) -> tuple[float, ...]:
        return (
            self.kinesis_usd,
            self.lambda_usd,
            self.s3_usd,
            self.cache_usd,
            self.database_usd,
            self.ingest_usd,
            self.watching_usd,
        )

    @property
    def usd(self) -> float:
        return sum(self.lines_usd)


class Limit(NamedTuple):
    """`reached_at` gives the symbols of one deployment at which a preset reaches it."""

    what: str
    value: str
    source: str
    reached_at: Callable[[Preset], float]
    then: str


def _most(fits: Callable[[int], bool]) -> int:
    """The most symbols of which `fits` holds, by halves."""
    low, high = 1, MOST_SYMBOLS
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _address_fits(count: int) -> bool:
    try:
        stream_address("wss://stream-sbe.binance.com:9443", "sbe", symbols_of(count), "BTCUSDT")
    except ValueError:
        return False
    return True


def _per_symbol(preset: Preset, of: Callable[[Measured], float]) -> float:
    return Step(CELL, preset).each(of)


def _database_per_symbol_gb(preset: Preset) -> float:
    return Step(CELL, preset).database_gb / CELL


LIMITS = (
    Limit(
        "address of the exchange's stream",
        "8,000 characters",
        "not documented, found by others; `ingest_ecs/settings.py`",
        lambda preset: _most(_address_fits),
        "another deployment; refused by configuration and task",
    ),
    Limit(
        "streams of a connection",
        f"{MAX_STREAMS:,}",
        "Binance, WebSocket Streams",
        lambda preset: MAX_STREAMS // 2,
        "the same, if streams were subscribed to by messages",
    ),
    Limit(
        "records of a shard",
        "1,000/s",
        "Kinesis Data Streams: Quotas and limits",
        lambda preset: SHARD_RECORDS_PER_S * SHARD_FILL * preset.linger_ms / 1000 / preset.tasks,
        "`stream.shards`; at most 200 in a Tokyo account, then a request to AWS",
    ),
    Limit(
        "one environment of `predict_stream` a shard",
        "0.58 of a core at 1,024 MB",
        "AWS Lambda: Configure memory",
        lambda preset: (
            preset.memory_mb
            / measured.FULL_CORE_MB
            * HEADROOM
            * 1000
            / _per_symbol(preset, lambda found: found.predict_ms)
        ),
        "`stream.parallelism` up to 10, memory up to 1,769 MB, or more shards",
    ),
    Limit(
        "concurrent executions, fresh account",
        "10",
        "AWS Lambda: Quotas",
        lambda preset: _most(lambda count: Step(count, preset, MOST_SYMBOLS).executions <= 10),
        "a request to AWS, and `aws.concurrent_executions`: 1,000 are the default quota",
    ),
    Limit(
        "environment variables of a function",
        "4 KB",
        "AWS Lambda: Quotas",
        lambda preset: (4096 - 1100) / 9.5,
        "another deployment; a list in S3 would be a change of `adapters/variables.py`",
    ),
    Limit(
        "memory of the largest cache node listed",
        f"{CacheConfig(node_type='cache.r7g.xlarge').usable_mb:,} MB usable",
        "ElastiCache: Node-type specific parameters",
        lambda preset: CacheConfig(node_type="cache.r7g.xlarge").usable_mb / CACHE_MB_PER_SYMBOL,
        "larger nodes (`CACHE_NODE_MB`), or another deployment",
    ),
    Limit(
        "one core of Valkey",
        "70 %",
        "measured; commands run in one thread",
        lambda preset: HEADROOM * 1000 / _per_symbol(preset, lambda found: found.redis_ms),
        "another deployment; cluster mode is a change of `adapters/redis`",
    ),
    Limit(
        "storage of the database as configured",
        f"{PROD.storage_limit_gb} GB",
        "`database.storage_limit_gb` of prod",
        lambda preset: preset.storage_limit_gb * measured.FULL_AT / _database_per_symbol_gb(preset),
        "`storage_limit_gb`, `keep_days`, `quoted_grid_ms`",
    ),
    Limit(
        "storage of RDS for PostgreSQL",
        "64 TiB",
        "Amazon RDS: Increasing DB instance storage capacity",
        lambda preset: 64 * 2**40 / 1e9 * measured.FULL_AT / _database_per_symbol_gb(preset),
        "history in S3 (below)",
    ),
    Limit(
        "symbols scored in a run",
        f"{SCORED_IN_A_RUN}",
        "measured: 100 to 180 ms a symbol",
        lambda preset: SCORED_IN_A_RUN,
        "the rest in the next minute; drift is checked in complete runs only",
    ),
    Limit(
        "PUTs to a partitioned prefix of S3",
        "3,500/s",
        "Amazon S3: Optimizing performance",
        lambda preset: 3500 * CELL / Step(CELL, preset).s3_puts_per_s,
        "S3 divides prefixes by itself; a source, symbol and hour have their own",
    ),
    Limit(
        "requests of an API Gateway account",
        "10,000/s",
        "API Gateway: Quotas",
        lambda preset: 10_000 / 6 - 1,
        "`api.requests_per_s`; read `GET /predictions` in place of each symbol",
    ),
    Limit(
        "response of a function",
        "6 MB",
        "AWS Lambda: Quotas",
        lambda preset: 6e6 / PREDICTION_BYTES,
        "`GET /predictions?symbols=`",
    ),
)


# ------------------------------------------------------------------------------------------------- tables


def _table(header: Iterable[str], rows: Iterable[Iterable[str]], left: Collection[str] = ()) -> str:
    """Markdown; columns are aligned to the right, but for those that `left` names."""
    names = [*header]
    lines = [names, ["---" if name in left else "---:" for name in names], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured_table() -> str:
    """Markdown: what the simulation measured."""
    header = (
        *("linger ms", "symbols", "ticks/s", "records/s", "KB/s", "µs an event and symbol"),
        *("CPU ms/s: predict", "ingest", "archive", "Valkey"),
        *("Redis commands/s", "S3 PUTs/s", "Redis MB a symbol"),
    )
    rows = [
        [f"{linger_ms}", f"{symbols:,}"]
        + [f"{value:,}" for value in found[:-2]]
        + [f"{found.s3_puts:,.2f}", f"{found.redis_mb:.1f}"]
        for linger_ms, by_symbols in MEASURED.items()
        for symbols, found in by_symbols.items()
    ]
    return _table(header, rows)


def spread_table() -> str:
    """Markdown: how many times the average the busiest shard has."""
    shards = (2, 4, 8, 15, 29, 58)
    rows = [
        [f"{symbols:,}", name] + [f"{hottest_share(weights, count):.2f}" for count in shards]
        for symbols in (10, CELL, 1000)
        for name, weights in (("records", [1.0] * symbols), ("ticks", rates_of(symbols)))
    ]
    return _table(("symbols", "by", *(f"{count} shards" for count in shards)), rows, left=["by"])


def limit_table() -> str:
    """Markdown: the limits, and with how many symbols a deployment reaches them."""
    names = [preset.name for preset in PRESETS]
    rows = [
        [limit.what, limit.value, limit.source]
        + [f"{math.floor(limit.reached_at(preset)):,}" for preset in PRESETS]
        + [limit.then]
        for limit in LIMITS
    ]
    return _table(("limit", "value", "source", *names, "then"), rows, ("limit", "value", "source", "then"))


def preset_table() -> str:
    """Markdown: what the presets are."""
    fields = ("linger_ms", "predict_every_ms", "fan_out", "quoted_grid_ms", "keep_days", "tasks", "nodes")
    rows = [[preset.name] + [str(getattr(preset, name)).lower() for name in fields] for preset in PRESETS]
    return _table(("preset", *(f"`{name}`" for name in fields)), rows, left=["preset"])


def step_table() -> str:
    """Markdown: what each step configures."""
    header = (
        *("symbols", "preset", "deployments", "symbols in each", "`stream.shards`", "`stream.parallelism`"),
        *("`concurrent_executions`", "`cache.node_type`", "core of Valkey", "S3 PUTs/s", "database GB"),
    )
    rows = [
        [
            *(f"{symbols:,}", preset.name, f"{step.cells}", f"{step.per_cell}", f"{step.shards}"),
            *(f"{step.parallelism}", f"{step.executions}", step.node_type, f"{step.redis_core:.0%}"),
            *(f"{step.s3_puts_per_s:.2f}", f"{step.database_gb:,.0f}"),
        ]
        for symbols in STEPS
        for preset in PRESETS
        for step in [Step(symbols, preset)]
    ]
    return _table(header, rows, left=["preset", "`cache.node_type`"])


def cost_table() -> str:
    """Markdown: dollars a month of each step, of all its deployments."""
    header = (
        *("symbols", "preset", "Kinesis", "Lambda", "S3", "cache", "PostgreSQL", "ingest"),
        *("metrics, logs", "$ a month", "$ a symbol"),
    )
    rows = [
        [f"{symbols:,}", preset.name]
        + [f"{usd:,.0f}" for usd in (*step.lines_usd, step.usd)]
        + [f"{step.usd / symbols:,.2f}"]
        for symbols in STEPS
        for preset in PRESETS
        for step in [Step(symbols, preset)]
    ]
    return _table(header, rows, left=["preset"])


TABLES = (measured_table, spread_table, limit_table, preset_table, step_table, cost_table)


def main() -> None:
    print(*(table() for table in TABLES), sep="\n\n")


if __name__ == "__main__":
    main()

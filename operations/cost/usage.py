"""How much of each billed unit an inventory uses a month under a load."""

from __future__ import annotations

import math
from dataclasses import dataclass

from operations.cost import measured
from operations.cost.inventory import Inventory
from operations.cost.measured import MONTH_DAYS, MONTH_S
from operations.cost.table_sizes import Kept, Rates, TableSize, day_gb, table_sizes, year_gb
from tickcast.adapters.lake.receipt_archive import Folder


@dataclass(frozen=True)
class Load:
    """What is asked of an environment: ticks a second of each symbol, and requests a second of the API
    (one a minute is a probe, and no reader).

    `free_tiers`: what AWS gives every account for nothing, without a limit of time, is taken off.
    """

    ticks_per_s: float = 200
    requests_per_s: float = 1 / 60
    free_tiers: bool = False


def compute_ms(memory_mb: int, symbols: int = 1, ticks: float = measured.EVENT_TICKS) -> float:
    """Fold and inference of an event of so many ticks of each of its symbols, with the share of a core that
    comes with the memory."""
    further_ms = (symbols - 1) * measured.FURTHER_SYMBOL_MS
    further_ms += symbols * max(ticks - measured.EVENT_TICKS, 0) * measured.TICK_US / 1000
    return (measured.EVENT_MS + further_ms) / min(1.0, memory_mb / measured.FULL_CORE_MB)


def billed_s(memory_mb: int, symbols: int = 1, ticks: float = measured.EVENT_TICKS) -> float:
    """Of an event. The write of the state and the receipt after the answer is one more round trip."""
    return math.ceil(compute_ms(memory_mb, symbols, ticks) + 2 * measured.ROUND_TRIP_MS) / 1000


class Usage:
    """All rates are a month's."""

    def __init__(self, inventory: Inventory, load: Load) -> None:
        self.inventory, self.load = inventory, load
        # Each task sends each symbol's ticks in records of its own.
        self.record_rate = inventory.tasks * inventory.symbols * 1000 / inventory.linger_ms
        self.records = self.record_rate * MONTH_S
        self.symbol_rate = load.ticks_per_s + measured.REFERENCE_QUOTES_PER_S  # of a symbol, from each task
        self.ticks = inventory.tasks * inventory.symbols * self.symbol_rate * MONTH_S
        self.bytes = self.ticks * measured.TICK_BYTES + self.records * measured.RECORD_BYTES
        self.bytes_per_s = self.bytes / MONTH_S

    @property
    def shards(self) -> int:
        """Of an on-demand stream as many as it takes: four to begin with."""
        return self.inventory.shards or 4

    @property
    def busy_shards(self) -> int:
        """A symbol is on one shard, by the hash of its name."""
        return min(self.shards, self.inventory.symbols)

    @property
    def symbols_a_shard(self) -> int:
        return math.ceil(self.inventory.symbols / self.busy_shards)

    @property
    def put_units(self) -> float:
        record_bytes = (
            self.symbol_rate * self.inventory.linger_ms / 1000 * measured.TICK_BYTES + measured.RECORD_BYTES
        )
        return self.records * math.ceil(record_bytes / measured.PUT_UNIT_BYTES)

    @property
    def events(self) -> float:
        """Invocations of predict_stream: with fan-out, one for each put of a task on each shard that it
        reaches; without, one for each poll."""
        a_shard = 1000 / measured.POLL_EVERY_MS
        if self.inventory.fan_out:
            a_shard = self.inventory.tasks * 1000 / self.inventory.linger_ms
        return self.busy_shards * a_shard * MONTH_S

    @property
    def event_gb_s(self) -> float:
        memory_mb, symbols = self.inventory.functions["predict_stream"].memory_mb, self.symbols_a_shard
        ticks = self.ticks / self.events / symbols
        return self.events * billed_s(memory_mb, symbols, ticks) * memory_mb / 1024

    @property
    def predictions(self) -> float:
        every_ms = max(
            self.inventory.predict_every_ms,
            self.inventory.linger_ms,
            0 if self.inventory.fan_out else measured.POLL_EVERY_MS,
        )
        return self.inventory.symbols * 1000 / every_ms * MONTH_S

    @property
    def archive_runs(self) -> float:
        """A batch of each shard when its window ends, or it has as many records or bytes as it may have."""
        records, size = self.record_rate / self.busy_shards, self.bytes_per_s / self.busy_shards
        rate = max(
            1 / self.inventory.archive_window_s,
            records / self.inventory.archive_records,
            size / measured.EVENT_BYTES,
        )
        return self.busy_shards * MONTH_S * rate

    @property
    def archive_gb_s(self) -> float:
        memory_mb = self.inventory.functions["archive_ticks"].memory_mb
        cores = min(1.0, memory_mb / measured.FULL_CORE_MB)
        seconds = self.ticks * measured.ARCHIVE_TICK_US / 1e6 / cores
        seconds += self.bronze_files * measured.ARCHIVE_FILE_SECONDS
        return seconds * memory_mb / 1024

    @property
    def requests(self) -> float:
        return self.load.requests_per_s * MONTH_S

    @property
    def serve_gb_s(self) -> float:
        function = self.inventory.functions["serve_predictions"]
        return self.requests * measured.SERVE_SECONDS * function.memory_mb / 1024

    @property
    def audits(self) -> float:
        return MONTH_DAYS * 1440 / self.inventory.audit_every_minutes

    def runs(self, function: str) -> float:
        run = measured.RUNS[function]
        if function == "report_condition":
            return MONTH_DAYS * 1440 / self.inventory.report_every_minutes
        return run.per_day * MONTH_DAYS * (self.inventory.symbols if run.per_symbol else 1)

    @property
    def scheduled_gb_s(self) -> float:
        sizes = self.inventory.functions
        total = sum(
            self.runs(name) * run.seconds * sizes[name].memory_mb / 1024
            for name, run in measured.RUNS.items()
        )
        audit_gb = sizes["audit_predictions"].memory_mb / 1024
        total += self.audits * measured.AUDIT_SECONDS * self.inventory.symbols * audit_gb
        return total + self.receipts_gb_s

    @property
    def scheduled_runs(self) -> float:
        return self.audits + sum(self.runs(name) for name in measured.RUNS)

    @property
    def bronze_day_gb(self) -> float:
        """What a day adds, of all symbols and tasks: a redundant feed's ticks are kept as well."""
        return self.ticks / MONTH_DAYS * measured.BRONZE_TICK_BYTES / 1e9

    @property
    def bronze_days(self) -> int:
        return min(self.inventory.bronze_days or measured.LIFETIME_DAYS, measured.LIFETIME_DAYS)

    @property
    def cheaper_days(self) -> int:
        """Days of bronze that lie in the cheaper class, to which S3 moves no small files."""
        after = self.inventory.bronze_cheaper_after_days
        if after is None or self.bronze_file_bytes < measured.LEAST_MOVED_BYTES:
            return 0
        return max(self.bronze_days - after, 0)

    @property
    def bronze_files(self) -> float:
        """Puts a month: one for each symbol of a batch, or for each symbol and minute."""
        return self.archive_runs * self.symbols_a_shard

    @property
    def lake_writes(self) -> float:
        """Puts and lists a month: of bronze, receipts, tallies, audits and reports on the data."""
        reports = self.runs("report_condition") * self.inventory.symbols
        written = self.bronze_files + self.receipt_files + self.tally_files
        return written + 4 * self.audits + measured.REPORT_LISTS * reports

    @property
    def bronze_file_bytes(self) -> float:
        return self.ticks * measured.BRONZE_TICK_BYTES / self.bronze_files

    @property
    def receipts_of_seconds(self) -> float:
        """The first of each second, a month."""
        return min(self.predictions, self.inventory.symbols * MONTH_S)

    @property
    def receipts_between(self) -> float:
        """All others, a month, where they are archived."""
        return (self.predictions - self.receipts_of_seconds) * (self.inventory.receipts_between_keep_days > 0)

    @property
    def receipts_gb(self) -> float:
        """What is kept of both, and of a year of tallies."""
        inventory = self.inventory
        a_month = (
            self.receipts_of_seconds * inventory.receipts_keep_days * measured.RECEIPT_BYTES
            + self.receipts_between * inventory.receipts_between_keep_days * measured.RECEIPT_BETWEEN_BYTES
        )
        tallies = inventory.symbols * measured.LIFETIME_DAYS * measured.TALLY_DAY_BYTES
        return (a_month / MONTH_DAYS + tallies) / 1e9

    @property
    def receipt_files(self) -> float:
        """Puts a month; each block is read once before."""
        seconds = MONTH_S * 1000 / Folder.SECONDS.block_ms
        between = MONTH_S * 1000 / Folder.BETWEEN.block_ms * (self.receipts_between > 0)
        return self.inventory.symbols * (seconds + between)

    @property
    def tally_files(self) -> float:
        return self.inventory.symbols * measured.TALLY_FILES_PER_DAY * MONTH_DAYS

    @property
    def receipts_gb_s(self) -> float:
        """Of score_predictions, which archives them."""
        memory_mb = self.inventory.functions["score_predictions"].memory_mb
        cores = min(1.0, memory_mb / measured.FULL_CORE_MB)
        receipts = self.receipts_of_seconds + self.receipts_between
        seconds = receipts * measured.RECEIPT_MS / 1000 / cores
        seconds += self.receipt_files * measured.RECEIPT_FILE_SECONDS
        return seconds * memory_mb / 1024

    @property
    def tables(self) -> list[TableSize]:
        """Of PostgreSQL, with all symbols."""
        inventory = self.inventory
        rates = Rates(inventory.symbols, inventory.symbols * self.load.ticks_per_s, inventory.grid_ms)
        return table_sizes(rates, Kept(inventory.keep_days, inventory.trades_keep_days))

    @property
    def database_day_gb(self) -> float:
        """What a day of all symbols takes in PostgreSQL."""
        return day_gb(self.tables)

    @property
    def database_data_gb(self) -> float:
        """What is there after a year."""
        return year_gb(self.tables)

    @property
    def grown_gb(self) -> int:
        """Of storage that the rows take: RDS enlarges it before it is full."""
        return math.ceil(self.database_data_gb / measured.FULL_AT)

    @property
    def database_gb(self) -> int:
        """What is allocated, or grew to by itself."""
        return max(self.inventory.database_gb, self.grown_gb)

    @property
    def backup_gb(self) -> float:
        """Beyond the size of the database: a full copy and what each kept day changed."""
        kept = self.database_data_gb + self.inventory.database_backup_days * self.database_day_gb
        return max(kept - self.database_gb, 0)

    @property
    def log_gb(self) -> float:
        minutes, symbols = MONTH_S / 60, self.inventory.symbols
        by_predict = self.busy_shards * MONTH_S / measured.EMF_EVERY_S
        by_score = minutes * (1 + symbols)
        by_ingest = minutes * self.inventory.tasks
        others = MONTH_DAYS * measured.OTHER_LINES_PER_DAY
        lines = by_predict + by_score + by_ingest + self.requests + others
        scored = minutes * symbols * measured.SCORED_LINE_BYTES
        accessed = self.requests * measured.ACCESS_LINE_BYTES
        return (lines * measured.EMF_LINE_BYTES + scored + accessed) / 1e9

    @property
    def rejected_gb(self) -> float:
        if not self.inventory.has_flow_logs:
            return 0.0
        return self.inventory.tasks * measured.REJECTED_BYTES_PER_ADDRESS_DAY * MONTH_DAYS / 1e9

    @property
    def between_zones_gb(self) -> float:
        """Functions run in two zones, and the cache's primary is in one: half of what they write crosses."""
        return self.events * self.symbols_a_shard * measured.EVENT_TO_STORE_BYTES / 1e9 / 2

    @property
    def out_gb(self) -> float:
        return self.requests * measured.ANSWER_BYTES / 1e9

    @property
    def model_reads(self) -> float:
        """Of the pointer to the active model, by each process that serves one: no oftener than it runs."""
        checks = MONTH_S / measured.MODEL_CHECK_S
        return self.busy_shards * checks + min(self.requests, checks)

    @property
    def symbol_reads(self) -> float:
        """Of the object that names the symbols: by each ingest task, and by the consumer of each shard."""
        return (self.inventory.tasks + self.busy_shards) * MONTH_S / self.inventory.symbols_check_s

    @property
    def traces(self) -> float:
        """Of each traced function, the first request of a second and a share of the others."""
        rates = {
            "predict_stream": self.events,
            "archive_ticks": self.archive_runs,
            "serve_predictions": 0.0 if self.inventory.is_api_traced else self.requests,
            "audit_predictions": self.audits,
            **{name: self.runs(name) for name in measured.RUNS},
        }
        traced = sum(
            _sampled(a_month) for name, a_month in rates.items() if self.inventory.functions[name].is_traced
        )
        return traced + (_sampled(self.requests) if self.inventory.is_api_traced else 0.0)

    @property
    def signals(self) -> float:
        """Sent a month, each written to the lake before."""
        return measured.SIGNALS_PER_DAY * MONTH_DAYS * self.inventory.has_signals

    @property
    def signal_gb_s(self) -> float:
        if not self.inventory.has_signals:
            return 0.0
        return (
            self.signals * measured.SIGNAL_SECONDS * self.inventory.functions["send_signals"].memory_mb / 1024
        )

    @property
    def bucket_events(self) -> float:
        """To EventBridge, where there are signals: of every object that is written, whatever it is."""
        return (self.lake_writes + self.signals) * self.inventory.has_signals

    @property
    def key_requests(self) -> float:
        """Of Kinesis for its data keys: writing, and each consumer's reading, of each shard."""
        return 3 * self.shards * MONTH_S / measured.KMS_CACHE_S

    @property
    def transitions(self) -> float:
        windows = self.inventory.symbols * 2
        return MONTH_DAYS * (measured.TRANSITIONS_PER_NIGHT + windows * measured.TRANSITIONS_PER_WINDOW)

    @property
    def scorings(self) -> float:
        return self.runs("score_predictions")


def _sampled(a_month: float) -> float:
    a_second = a_month / MONTH_S
    return (min(a_second, 1) + measured.TRACED_SHARE * max(a_second - 1, 0)) * MONTH_S

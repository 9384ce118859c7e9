"""The lines of an estimate: a quantity of each billed unit, and its price."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from operations.cost import measured
from operations.cost.inventory import Inventory
from operations.cost.measured import MONTH_H
from operations.cost.metrics import metric_months
from operations.cost.prices import Prices
from operations.cost.usage import Load, Usage


@dataclass(frozen=True)
class Line:
    """`quantity` units of `price_id` a month; the names are stable, for they are in the command's JSON.
    `confidence` is the least of the prices in it."""

    name: str
    what: str
    quantity: float
    price_id: str
    unit: str
    usd: float
    confidence: str


# (name, what it is, quantity, id of the price)
Entry = tuple[str, str, float, str]

# What AWS gives each account for nothing, without a limit of time, by the price it is of. It is of the whole
# account: one that runs something else has used it already.
ALWAYS_FREE = {
    "lambda_request": 1_000_000,
    "lambda_x86_gb_s": 400_000,
    "metric": 10,
    "alarm": 10,
    "dashboard": 3,
    "log_ingestion_gb": 5,
    "states_transition": 4_000,
    "xray_trace": 100_000,
    "kms_request": 20_000,
    "data_out_gb": 100,
}


def lines(inventory: Inventory, load: Load, prices: Prices) -> list[Line]:
    """All lines, those of nothing included. Raises `OperationRefused` where a price is missing."""
    usage = Usage(inventory, load)
    left: dict[str, float] = dict(ALWAYS_FREE) if load.free_tiers else {}
    priced = []
    for part in _PARTS:
        for name, what, quantity, price_id in part(inventory, usage):
            free = min(quantity, left.get(price_id, 0))
            left[price_id] = left.get(price_id, 0) - free
            priced.append(_line(name, what, quantity - free, price_id, inventory, prices))
    return priced


def _line(name: str, what: str, quantity: float, price_id: str, inventory: Inventory, prices: Prices) -> Line:
    factors = []
    if name in {"database_instance", "database_storage"} and inventory.database_is_multi_az:
        factors.append(prices["db_multi_az_factor"])
    if name in {"ingest_cpu", "ingest_memory"} and inventory.task_is_spot:
        factors.append(prices["fargate_spot_factor"])
    price = prices[price_id]
    usd = quantity * math.prod(each.value for each in (price, *factors))
    confidence = max(each.confidence for each in (price, *factors))
    return Line(name, what, quantity, price_id, price.unit, usd, confidence)


def _ingest(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    kind = "arm" if inventory.task_is_arm else "x86"
    hours, tasks = inventory.tasks * MONTH_H, f"{inventory.tasks} task" + "s" * (inventory.tasks != 1)
    machine = f"{kind}, Spot" if inventory.task_is_spot else kind
    yield (
        "ingest_cpu",
        f"ingest: {tasks}, CPU ({machine})",
        hours * inventory.task_vcpu,
        f"fargate_{kind}_vcpu",
    )
    yield "ingest_memory", f"ingest: {tasks}, memory", hours * inventory.task_gb, f"fargate_{kind}_gb"
    yield "ingest_addresses", "ingest: public addresses", hours, "public_ipv4"
    yield "images", "images of the tasks", measured.IMAGES_GB, "ecr_gb"


def _stream(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    if inventory.shards is None:
        yield from _on_demand_stream(inventory, usage)
        return
    hours = inventory.shards * MONTH_H
    shards = f"{inventory.shards} shard" + "s" * (inventory.shards != 1)
    fan_out_gb = usage.bytes / 1e9 if inventory.fan_out else 0.0
    yield "stream_shards", f"stream: {shards}", hours, "kinesis_shard"
    yield "stream_puts", "stream: records put, in units of 25 KB", usage.put_units, "kinesis_put_unit"
    extended = hours if inventory.retention_h > 24 else 0
    yield "stream_retention", "stream: kept beyond 24 h", extended, "kinesis_extended_retention"
    yield "fan_out_shards", "fan-out: shards", hours * inventory.fan_out, "kinesis_fan_out_shard"
    yield "fan_out_data", "fan-out: data", fan_out_gb, "kinesis_fan_out_gb"
    yield "stream_keys", "stream: data keys", usage.key_requests, "kms_request"


def _on_demand_stream(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    gigabytes = usage.bytes / 1e9  # each record counts as 1 KB at least
    billed = max(gigabytes, usage.records * 1024 / 1e9)
    kept_days = max(inventory.retention_h / 24 - 1, 0)
    readers = 1 if inventory.fan_out else 2
    yield "stream_shards", "stream: on demand", MONTH_H, "kinesis_on_demand_stream"
    yield "stream_puts", "stream: data in", billed, "kinesis_on_demand_in_gb"
    yield "stream_reads", "stream: data out", readers * gigabytes, "kinesis_on_demand_out_gb"
    kept_gb = gigabytes / measured.MONTH_DAYS * kept_days
    yield "stream_retention", "stream: kept beyond 24 h", kept_gb, "kinesis_on_demand_retention_gb"
    fan_out_gb = gigabytes if inventory.fan_out else 0.0
    yield "fan_out_data", "fan-out: data", fan_out_gb, "kinesis_on_demand_fan_out_gb"
    yield "stream_keys", "stream: data keys", usage.key_requests, "kms_request"


def _functions(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    def gb_s(function: str) -> str:
        return "lambda_arm_gb_s" if inventory.functions[function].is_arm else "lambda_x86_gb_s"

    runs = usage.archive_runs + usage.requests + usage.scheduled_runs
    yield "predict_requests", "predict_stream: invocations", usage.events, "lambda_request"
    yield "predict_duration", "predict_stream: duration", usage.event_gb_s, gb_s("predict_stream")
    yield "archive_duration", "archive_ticks: duration", usage.archive_gb_s, gb_s("archive_ticks")
    yield "serve_duration", "serve_predictions: duration", usage.serve_gb_s, gb_s("serve_predictions")
    yield "scheduled_duration", "scores, audits, history, training", usage.scheduled_gb_s, gb_s("train_model")
    yield "other_requests", "all other functions: invocations", runs, "lambda_request"


def _stores(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    nodes = f"{inventory.cache_nodes} of {inventory.cache_node_type}"
    standby = " with a standby" if inventory.database_is_multi_az else ""
    yield "cache_nodes", f"Valkey: {nodes}", inventory.cache_nodes * MONTH_H, inventory.cache_node_type
    instance = f"PostgreSQL: {inventory.database_class}{standby}"
    yield "database_instance", instance, MONTH_H, inventory.database_class
    kept = f"{inventory.keep_days} days" if inventory.keep_days else "a year"
    yield "database_storage", f"PostgreSQL: storage, {kept} of rows", usage.database_gb, "db_storage_gb"
    yield "database_backups", "PostgreSQL: backups beyond its size", usage.backup_gb, "db_backup_gb"


def _lake(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    near_days = usage.bronze_days - usage.cheaper_days
    near, far = usage.bronze_day_gb * near_days, usage.bronze_day_gb * usage.cheaper_days
    moved = usage.bronze_files if usage.cheaper_days else 0
    yield "lake_storage", f"S3: {near_days} days of ticks", near, "s3_standard_gb"
    yield "lake_cheaper_storage", f"S3: {usage.cheaper_days} days in a cheaper class", far, "s3_glacier_ir_gb"
    yield "lake_transitions", "S3: moves to the cheaper class", moved, "s3_glacier_ir_transition"
    receipts = "receipts, tallies"
    if usage.receipts_between:
        receipts = f"{inventory.receipts_between_keep_days} days of receipts in between, {receipts}"
    kept = f"S3: {inventory.receipts_keep_days} days of {receipts}"
    yield "receipts_storage", kept, usage.receipts_gb, "s3_standard_gb"
    yield "lake_writes", "S3: writes and lists", usage.lake_writes, "s3_put"
    reads = usage.model_reads + usage.symbol_reads + usage.bronze_files + usage.receipt_files
    yield "lake_reads", "S3: reads", reads, "s3_get"


def _signals(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    yield "signal_events", "signals: the bucket's events", usage.bucket_events, "s3_event"
    yield "signal_writes", "signals: written to the lake", usage.signals, "s3_put"
    yield "signal_requests", "signals: invocations", usage.signals, "lambda_request"
    yield "signal_duration", "signals: duration", usage.signal_gb_s, "lambda_x86_gb_s"


def _api(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    yield "api_requests", "API: requests", usage.requests, "api_rest_request"
    yield "data_out", "API: answers, to the internet", usage.out_gb, "data_out_gb"


def _workflows(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    gb_s = usage.scorings * measured.EXPRESS_SECONDS * measured.EXPRESS_GB
    yield "express_workflow", "scoring: executions", usage.scorings, "states_express_request"
    yield "express_duration", "scoring: duration", gb_s, "states_express_gb_s"
    yield "standard_workflow", "history and training: transitions", usage.transitions, "states_transition"


def _watching(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    metered = inventory.metered_methods * measured.METRICS_PER_METHOD
    insights = measured.INSIGHTS_METRICS if inventory.has_container_insights else 0
    alarms = inventory.alarms + inventory.symbol_alarms * inventory.symbols
    kept_gb = usage.log_gb * inventory.log_days / measured.MONTH_DAYS
    yield "custom_metrics", "metrics of our own", metric_months(inventory.symbols), "metric"
    yield "api_metrics", "metrics by method of the API", metered, "metric"
    yield "container_insights", "Container Insights", insights, "metric"
    yield "alarms", "alarms, by the metrics they watch", alarms, "alarm"
    yield "dashboards", "dashboards", inventory.dashboards, "dashboard"
    yield "logs_ingested", "logs: written", usage.log_gb, "log_ingestion_gb"
    yield "logs_stored", f"logs: kept {inventory.log_days} days", kept_gb, "log_storage_gb"
    yield "flow_logs", "logs of rejected traffic", usage.rejected_gb, "log_vended_gb"
    yield "traces", "traces", usage.traces, "xray_trace"


def _other(inventory: Inventory, usage: Usage) -> Iterator[Entry]:
    between = usage.between_zones_gb
    yield "data_between_zones", "functions to a cache in another zone", between, "data_between_zones_gb"
    yield "secrets", "secrets", inventory.secrets, "secret"


_PARTS: tuple[Callable[[Inventory, Usage], Iterator[Entry]], ...] = (
    *(_ingest, _stream, _functions, _stores, _lake, _signals, _api, _workflows, _watching, _other),
)

"""What is billed of an environment's templates: sizes and switches, read once and then varied by what-ifs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Resource(NamedTuple):
    """A resource of a template."""

    logical_id: str
    type: str
    properties: dict[str, Any]


@dataclass(frozen=True)
class FunctionSize:
    memory_mb: int
    is_arm: bool
    is_traced: bool


TRADES_KEEP_DAYS = 3  # where load_history does not say


@dataclass(frozen=True)
class Inventory:
    """The billed sizes of one environment. `shards`: None is an on-demand stream. `bronze_days`,
    `bronze_cheaper_after_days` and days that are kept: None is indefinitely or never. `database_limit_gb`:
    as far as RDS enlarges the storage by itself, None is not at all. `alarms` are metrics watched,
    `symbol_alarms` those that watch one of each symbol."""

    symbols: int
    functions: dict[str, FunctionSize]
    predict_every_ms: int
    linger_ms: int
    shards: int | None
    retention_h: int
    fan_out: bool
    tasks: int
    task_vcpu: float
    task_gb: float
    task_is_arm: bool
    task_is_spot: bool
    cache_node_type: str
    cache_nodes: int
    database_class: str
    database_gb: int
    database_backup_days: int
    database_is_multi_az: bool
    keep_days: int | None
    grid_ms: int
    archive_records: int
    archive_window_s: int
    audit_every_minutes: int
    report_every_minutes: int
    secrets: int
    alarms: int
    symbol_alarms: int
    dashboards: int
    bronze_days: int | None
    bronze_cheaper_after_days: int | None
    log_days: int
    has_flow_logs: bool
    has_container_insights: bool
    is_api_traced: bool
    metered_methods: int
    receipts_keep_days: int = 7
    receipts_between_keep_days: int = 0  # 0: not archived
    symbols_check_s: int = 10
    trades_keep_days: int | None = None
    database_limit_gb: int | None = None
    has_signals: bool = False


class _Resources:
    def __init__(self, resources: Iterable[Resource]) -> None:
        self._resources = list(resources)

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [each.properties for each in self._resources if each.type == kind]

    def one(self, kind: str) -> dict[str, Any]:
        """Raises ValueError if there is not exactly one."""
        found = self.all(kind)
        if len(found) != 1:
            raise ValueError(f"the templates have {len(found)} of {kind}, and the estimate is of one")
        return found[0]


def inventory(resources: Iterable[Resource]) -> Inventory:
    """The inventory of all stacks' `resources`. Raises ValueError on templates that are not of this app."""
    found = _Resources(resources)
    functions = {
        _variables(each)["POWERTOOLS_SERVICE_NAME"]: each for each in found.all("AWS::Lambda::Function")
    }
    predict, load = _variables(functions["predict_stream"]), _variables(functions["load_history"])
    serve = _variables(functions["serve_predictions"])
    stream, database = found.one("AWS::Kinesis::Stream"), found.one("AWS::RDS::DBInstance")
    service, cache = found.one("AWS::ECS::Service"), found.one("AWS::ElastiCache::ReplicationGroup")
    task, alarms = _ingest_task(found), found.all("AWS::CloudWatch::Alarm")
    stage = found.one("AWS::ApiGateway::Stage")
    mappings = found.all("AWS::Lambda::EventSourceMapping")  # the archive's has the larger batches
    bronze_days, cheaper_days = _bronze_rules(found.one("AWS::S3::Bucket"))
    keep_days = int(load["KEEP_DAYS"])
    return Inventory(
        symbols=len(predict["SYMBOLS"].split(",")),
        functions={name: _size(each) for name, each in functions.items()},
        symbols_check_s=int(predict["SYMBOLS_CHECK_S"]),
        predict_every_ms=int(predict["PREDICT_EVERY_MS"]),
        linger_ms=int(_container(task)["LINGER_MS"]),
        shards=stream.get("ShardCount"),
        retention_h=int(stream.get("RetentionPeriodHours", 24)),
        fan_out=bool(found.all("AWS::Kinesis::StreamConsumer")),
        tasks=int(service["DesiredCount"]),
        task_vcpu=int(task["Cpu"]) / 1024,
        task_gb=int(task["Memory"]) / 1024,
        task_is_arm=task.get("RuntimePlatform", {}).get("CpuArchitecture") == "ARM64",
        task_is_spot=_is_spot(service),
        cache_node_type=str(cache["CacheNodeType"]),
        cache_nodes=int(cache["NumCacheClusters"]),
        database_class=str(database["DBInstanceClass"]),
        database_gb=int(database["AllocatedStorage"]),
        database_backup_days=int(database.get("BackupRetentionPeriod", 1)),
        database_is_multi_az=bool(database.get("MultiAZ", False)),
        keep_days=keep_days or None,
        grid_ms=int(load["QUOTED_GRID_MS"]),
        archive_records=max(int(each["BatchSize"]) for each in mappings),
        archive_window_s=max(int(each.get("MaximumBatchingWindowInSeconds", 0)) for each in mappings),
        audit_every_minutes=int(_variables(functions["audit_predictions"])["AUDIT_EVERY_MINUTES"]),
        report_every_minutes=int(_variables(functions["score_predictions"])["CONDITION_EVERY_MINUTES"]),
        # RDS keeps the master's password in a secret of its own.
        secrets=len(found.all("AWS::SecretsManager::Secret"))
        + bool(database.get("ManageMasterUserPassword")),
        alarms=sum(_metrics_of(each) for each in alarms if not _is_query(each)),
        symbol_alarms=sum(map(_is_query, alarms)),
        dashboards=len(found.all("AWS::CloudWatch::Dashboard")),
        bronze_days=bronze_days,
        bronze_cheaper_after_days=cheaper_days,
        log_days=max(int(each["RetentionInDays"]) for each in found.all("AWS::Logs::LogGroup")),
        has_flow_logs=bool(found.all("AWS::EC2::FlowLog")),
        has_container_insights=any(map(_has_insights, found.all("AWS::ECS::Cluster"))),
        is_api_traced=bool(stage.get("TracingEnabled")),
        metered_methods=_metered_methods(stage, len(found.all("AWS::ApiGateway::Method"))),
        receipts_keep_days=int(serve["RECEIPTS_KEEP_DAYS"]),
        receipts_between_keep_days=int(serve["RECEIPTS_BETWEEN_KEEP_DAYS"]),
        trades_keep_days=int(load.get("TRADES_KEEP_DAYS", TRADES_KEEP_DAYS)) or None,
        has_signals="send_signals" in functions,
        database_limit_gb=limit_gb if (limit_gb := int(database.get("MaxAllocatedStorage", 0))) else None,
    )


def _variables(function: dict[str, Any]) -> dict[str, str]:
    variables: dict[str, str] = function["Environment"]["Variables"]
    return variables


def _size(function: dict[str, Any]) -> FunctionSize:
    return FunctionSize(
        memory_mb=int(function["MemorySize"]),
        is_arm=function.get("Architectures") == ["arm64"],
        is_traced=function.get("TracingConfig", {}).get("Mode") == "Active",
    )


def _container(task: dict[str, Any]) -> dict[str, Any]:
    return {each["Name"]: each["Value"] for each in task["ContainerDefinitions"][0].get("Environment", ())}


def _ingest_task(found: _Resources) -> dict[str, Any]:
    """The definition of the tasks that run all the time; the migration's runs for seconds."""
    [task] = [each for each in found.all("AWS::ECS::TaskDefinition") if "LINGER_MS" in _container(each)]
    return task


def _is_spot(service: dict[str, Any]) -> bool:
    return any(
        each["CapacityProvider"] == "FARGATE_SPOT" for each in service.get("CapacityProviderStrategy", ())
    )


def _bronze_rules(bucket: dict[str, Any]) -> tuple[int | None, int | None]:
    """Days until bronze is deleted, and until it moves to a cheaper class."""
    rules = bucket.get("LifecycleConfiguration", {}).get("Rules", ())
    of_bronze = [rule for rule in rules if rule.get("Prefix", "").startswith("bronze/")]
    deleted = [rule["ExpirationInDays"] for rule in of_bronze if "ExpirationInDays" in rule]
    cheaper = [each["TransitionInDays"] for rule in of_bronze for each in rule.get("Transitions", ())]
    return min(deleted, default=None), min(cheaper, default=None)


def _metrics_of(alarm: dict[str, Any]) -> int:
    """An alarm is billed for each metric in it."""
    return max(sum("MetricStat" in each for each in alarm.get("Metrics", ())), 1)


def _is_query(alarm: dict[str, Any]) -> bool:
    """Whether it watches what a Metrics Insights query finds: here a metric of each symbol, all billed."""
    return any("SELECT" in str(each.get("Expression", "")) for each in alarm.get("Metrics", ()))


def _has_insights(cluster: dict[str, Any]) -> bool:
    return any(
        each["Name"] == "containerInsights" and each["Value"] != "disabled"
        for each in cluster.get("ClusterSettings", ())
    )


def _metered_methods(stage: dict[str, Any], methods: int) -> int:
    """How many methods have metrics of their own, which are custom ones: all of them, or those named."""
    metered = [each for each in stage.get("MethodSettings", ()) if each.get("MetricsEnabled")]
    if any(each["ResourcePath"] == "/*" for each in metered):
        return methods // 2  # half of them are OPTIONS, which browsers alone send
    return len(metered)

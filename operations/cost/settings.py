"""How a what-if is configured: the settings that make an inventory another one."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import structs

from cdk.config import API_EXECUTIONS, Environment, parse
from cdk.config.wording import shown
from operations.cost.inventory import Inventory

# By the inventory's field. What is not here follows from others, or is no setting.
KEYS = {
    "predict_every_ms": "prediction.predict_every_ms",
    "linger_ms": "aws.ingest.linger_ms",
    "shards": "stream.shards",
    "retention_h": "stream.retention_hours",
    "fan_out": "stream.fan_out",
    "tasks": "aws.ingest.tasks",
    "task_is_arm": "aws.ingest.architecture",
    "task_is_spot": "aws.ingest.spot",
    "cache_node_type": "aws.cache.node_type",
    "cache_nodes": "aws.cache.nodes",
    "database_is_multi_az": "aws.database.multi_az",
    "has_container_insights": "aws.container_insights",
    "is_api_traced": "tracing",
}


def settings(environment: Environment, before: Inventory, after: Inventory) -> dict[str, Any]:
    """What has to be set, by key, for the configured `environment`, whose inventory is `before`, to have the
    sizes and switches of `after`. Symbols are not among them."""
    found = {
        key: getattr(after, field)
        for field, key in KEYS.items()
        if getattr(after, field) != getattr(before, field)
    }
    if "aws.ingest.architecture" in found:
        found["aws.ingest.architecture"] = "arm64" if after.task_is_arm else "x86_64"
    if environment.aws and after.shards != before.shards:
        stream = structs.replace(environment.stream, shards=after.shards)
        needed = structs.replace(environment, aws=None, stream=stream).background_executions + API_EXECUTIONS
        if needed > environment.aws.concurrent_executions:
            found["aws.concurrent_executions"] = needed
    return found


def in_words(found: dict[str, Any]) -> str:
    """Settings as one would write them into the file."""
    return ", ".join(f"`{key}: {shown(value)}`" for key, value in found.items())


def with_settings(environment: Environment, found: dict[str, Any]) -> Environment:
    """The environment with other settings. Raises `ConfigError` where it refuses them."""
    values = msgspec.to_builtins(environment)
    for key, value in found.items():
        *path, last = key.split(".")
        section = values
        for step in path:
            section = section[step]
        section[last] = value
    return parse(values)

"""What changes the bill: the same environment with one thing different."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cdk.config import CACHE_MB_PER_SYMBOL, CACHE_NODE_MB, usable_mb
from operations.cost.estimate import Estimate
from operations.cost.inventory import FunctionSize, Inventory
from operations.cost.measured import SHARD_BYTES_PER_S, SHARD_RECORDS_PER_S
from operations.cost.usage import Load, Usage


@dataclass(frozen=True)
class WhatIf:
    """`name` is stable, for it is in the command's JSON."""

    name: str
    what: str
    change: Callable[[Inventory, Load], tuple[Inventory, Load]]

    def of(self, estimate: Estimate) -> Estimate:
        changed, load = self.change(estimate.inventory, estimate.load)
        return replace(estimate, inventory=changed, load=load)


def with_symbols(inventory: Inventory, symbols: int, load: Load) -> Inventory:
    """Of so many symbols, with the shards and the cache that they take at least. Raises ValueError if no
    known cache holds them."""
    changed = replace(inventory, symbols=symbols)
    if changed.shards is not None:
        usage = Usage(changed, load)
        needed = math.ceil(
            max(usage.bytes_per_s / SHARD_BYTES_PER_S, usage.record_rate / SHARD_RECORDS_PER_S)
        )
        changed = replace(changed, shards=max(changed.shards, needed))
    if usable_mb(changed.cache_node_type) < symbols * CACHE_MB_PER_SYMBOL:
        large_enough = [
            node_type for node_type in CACHE_NODE_MB if usable_mb(node_type) >= symbols * CACHE_MB_PER_SYMBOL
        ]
        if not large_enough:
            raise ValueError(f"no cache node that is known holds {symbols} symbols")
        changed = replace(changed, cache_node_type=min(large_enough, key=usable_mb))
    return changed


def _size(**fields: Any) -> Callable[[Inventory, Load], tuple[Inventory, Load]]:
    return lambda inventory, load: (replace(inventory, **fields), load)


def _load(**fields: Any) -> Callable[[Inventory, Load], tuple[Inventory, Load]]:
    return lambda inventory, load: (inventory, replace(load, **fields))


def _symbols(count: int) -> Callable[[Inventory, Load], tuple[Inventory, Load]]:
    return lambda inventory, load: (with_symbols(inventory, count, load), load)


def _cadence(every_ms: int) -> Callable[[Inventory, Load], tuple[Inventory, Load]]:
    """The linger follows: records that come oftener than predictions are made only cost something."""
    return _size(predict_every_ms=every_ms, linger_ms=every_ms)


def _functions_on_arm(inventory: Inventory, load: Load) -> tuple[Inventory, Load]:
    """At the same speed, which nobody has measured here."""
    return _with_functions(inventory, is_arm=True), load


def _tracing(inventory: Inventory, load: Load) -> tuple[Inventory, Load]:
    return replace(_with_functions(inventory, is_traced=True), is_api_traced=True), load


def _with_functions(inventory: Inventory, **fields: bool) -> Inventory:
    functions: dict[str, FunctionSize] = {
        name: replace(size, **fields) for name, size in inventory.functions.items()
    }
    return replace(inventory, functions=functions)


WHAT_IFS = (
    WhatIf("fan_out_off", "fan-out off (polling)", _size(fan_out=False)),
    WhatIf("fan_out_on", "fan-out on", _size(fan_out=True)),
    WhatIf("cadence_100_ms", "a prediction every 100 ms", _cadence(100)),
    WhatIf("cadence_500_ms", "a prediction every 500 ms", _cadence(500)),
    WhatIf("cadence_1000_ms", "a prediction every 1000 ms", _cadence(1000)),
    WhatIf("symbols_1", "1 symbol", _symbols(1)),
    WhatIf("symbols_2", "2 symbols", _symbols(2)),
    WhatIf("symbols_10", "10 symbols", _symbols(10)),
    WhatIf("retention_24_h", "the stream keeps 24 h", _size(retention_h=24)),
    WhatIf("retention_48_h", "the stream keeps 48 h", _size(retention_h=48)),
    WhatIf("on_demand_stream", "a stream on demand", _size(shards=None)),
    WhatIf("ingest_arm", "ingest on arm64", _size(task_is_arm=True)),
    WhatIf("ingest_x86", "ingest on x86_64", _size(task_is_arm=False)),
    WhatIf("ingest_spot", "ingest on Fargate Spot", _size(task_is_spot=True)),
    WhatIf("ingest_on_demand", "ingest not on Fargate Spot", _size(task_is_spot=False)),
    WhatIf("functions_arm", "functions on arm64", _functions_on_arm),
    WhatIf("single_zone", "one zone", _size(tasks=1, cache_nodes=1, database_is_multi_az=False)),
    WhatIf("tracing", "tracing on", _tracing),
    WhatIf("container_insights", "Container Insights on", _size(has_container_insights=True)),
    WhatIf("readers_1_per_s", "one API request a second", _load(requests_per_s=1.0)),
    WhatIf("readers_10_per_s", "ten API requests a second", _load(requests_per_s=10.0)),
    WhatIf("free_tiers", "what is always free taken off", _load(free_tiers=True)),
)

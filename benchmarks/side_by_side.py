"""How things are timed: alternately, in one process, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

ROUNDS = 15
SPAN_S = 0.05  # how long each turn lasts, at the least


def side_by_side(choices: Mapping[str, Callable[[], object]], items: int) -> dict[str, float]:
    """Median nanoseconds an item of each choice, taken in turns; a call of any handles `items` items."""
    calls = {name: _calls_in(run, SPAN_S) for name, run in choices.items()}
    taken: dict[str, list[float]] = {name: [] for name in choices}
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, run in choices.items():
                started = time.perf_counter_ns()
                for _ in range(calls[name]):
                    run()
                taken[name].append((time.perf_counter_ns() - started) / calls[name] / items)
    finally:
        gc.enable()
    return {name: statistics.median(times) for name, times in taken.items()}


def _calls_in(run: Callable[[], object], seconds: float) -> int:
    run()  # caches, allocations
    started = time.perf_counter()
    run()
    return max(1, int(seconds / max(time.perf_counter() - started, 1e-7)))

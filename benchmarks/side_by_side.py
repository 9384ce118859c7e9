"""Timing of alternatives by turns, in one process, so that noise of the machine affects all of them.

Absolute times drift by up to 1.8 times within minutes, so a claim is a ratio, taken in each round between
turns a fraction of a second apart; the median round counts. The clock is the process's CPU time, which stops
while another process has the core.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Work(NamedTuple):
    """One alternative: a call of `run` handles `items`."""

    run: Callable[[], object]
    items: int


@dataclass(frozen=True)
class Effort:
    """How long to measure: `rounds` turns for each choice, each at least `turn_s` long."""

    rounds: int = 15
    turn_s: float = 0.05


QUICK = Effort(rounds=1, turn_s=0.0)


class Times(dict[str, list[float]]):
    """By name, the nanoseconds of CPU time for an item in each round."""

    def ns(self, name: str) -> float:
        return statistics.median(self[name])

    def ratio(self, slow: str, fast: str) -> float:
        """How many times as long `slow` takes as `fast`: the median over the rounds."""
        return statistics.median(a / b for a, b in zip(self[slow], self[fast], strict=True))


def side_by_side(choices: Mapping[str, Work], effort: Effort) -> Times:
    """Time all `choices` in turns, after a warm-up of each."""
    calls = {name: _calls_in(work.run, effort.turn_s) for name, work in choices.items()}
    times = Times({name: [] for name in choices})
    gc.collect()
    gc.disable()
    try:
        for _ in range(effort.rounds):
            for name, work in choices.items():
                started_ns = time.process_time_ns()
                for _ in range(calls[name]):
                    work.run()
                taken_ns = time.process_time_ns() - started_ns
                times[name].append(max(taken_ns, 1) / calls[name] / work.items)
    finally:
        gc.enable()
    return times


def _calls_in(run: Callable[[], object], seconds: float) -> int:
    run()  # caches, allocations
    started_s = time.perf_counter()
    run()
    return max(1, int(seconds / max(time.perf_counter() - started_s, 1e-7)))


class Comparison(NamedTuple):
    """`usual_ns` takes `ratio` times as long as `ours_ns`; `mark` is the ratio to reach, if any."""

    key: str
    usual: str
    ours_ns: float
    usual_ns: float
    ratio: float
    mark: float | None = None

    @property
    def is_short(self) -> bool:
        return self.mark is not None and self.ratio < self.mark


def comparison(times: Times, key: str, ours: str, usual: str, mark: float | None = None) -> Comparison:
    return Comparison(key, usual, times.ns(ours), times.ns(usual), times.ratio(usual, ours), mark)

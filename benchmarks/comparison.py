"""The result of a measurement: one line of the table, one key of the last line."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.side_by_side import Times


class Comparison(NamedTuple):
    """`usual_ns` takes `ratio` times as long as `ours_ns`; `mark` is what the ratio should reach, if any."""

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

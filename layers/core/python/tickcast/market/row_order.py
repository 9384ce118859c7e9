"""Which rows of a series are out of order.

Rows sorted by id should have rising times and trade ids. If they do not, the faulty rows are the fewest whose
removal restores the order: an outlier costs its own row and no other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

DISORDER_US = 5 * 1_000_000  # times may fall back by this much: clocks are set, servers differ


def out_of_order(values: Sequence[int]) -> set[int]:
    """The fewest positions without which `values` never fall.

    >>> out_of_order([1, 2, 90, 3, 4, 0, 5])
    {2, 5}
    """
    if all(one <= following for one, following in pairwise(values)):
        return set()
    # The longest sequence that never falls, by patience sorting: the smallest value that ends one of each
    # length, where it is, and what came before it.
    ends: list[int] = []
    ends_at: list[int] = []
    before: list[int] = []
    for at, value in enumerate(values):
        length = bisect_right(ends, value)
        before.append(ends_at[length - 1] if length else -1)
        ends[length : length + 1] = [value]
        ends_at[length : length + 1] = [at]
    out, at = set(range(len(values))), ends_at[-1]
    while at >= 0:
        out.remove(at)
        at = before[at]
    return out


def times_far_off(times_us: Sequence[int]) -> set[int]:
    """The positions of times that are out of order by more than `DISORDER_US`.

    >>> times_far_off([0, 3_600_000_000, 1_000_000, 500_000, 2_000_000])
    {1}
    """
    out = out_of_order(times_us)
    in_order = [time_us for at, time_us in enumerate(times_us) if at not in out]
    far: set[int] = set()
    passed = 0  # of those in order
    for at, time_us in enumerate(times_us):
        if at not in out:
            passed += 1
            continue
        before_us = in_order[passed - 1] if passed else time_us
        after_us = in_order[passed] if passed < len(in_order) else time_us
        if before_us - time_us > DISORDER_US or time_us - after_us > DISORDER_US:
            far.add(at)
    return far

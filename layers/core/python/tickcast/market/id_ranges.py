"""The ids of a rising sequence that were seen: a short sorted list of closed intervals.

Trade ids of a symbol rise by exactly one, so a whole day is one interval, and ids between two intervals are
lost trades. A high-water mark could not distinguish a hole that fills late from a repeat.
"""

from __future__ import annotations

from bisect import bisect_right

MAX_INTERVALS = 256  # beyond that the oldest holes are closed, so that the state stays small


class IdRanges:
    """Closed intervals `[first, last]`, sorted, never touching.

    >>> seen = IdRanges()
    >>> seen.add(1, 3), seen.add(6, 6), seen.add(2, 2), seen.add(4, 5)
    (False, False, True, False)
    >>> seen.intervals
    [(1, 6)]
    """

    def __init__(self, intervals: list[tuple[int, int]] | None = None) -> None:
        self.intervals = intervals or []

    @classmethod
    def up_to(cls, newest: int, holes: list[tuple[int, int]]) -> IdRanges:
        """All ids up to `newest` but `holes`, which are below it.

        >>> IdRanges.up_to(9, [(3, 4), (7, 7)]).intervals
        [(0, 2), (5, 6), (8, 9)]
        """
        seen, begin = cls(), 0
        for first, last in sorted(holes):
            if begin < first:
                seen.add(begin, first - 1)
            begin = max(begin, last + 1)
        seen.add(begin, newest)
        return seen

    @property
    def newest(self) -> int | None:
        """The highest id seen; None before the first."""
        return self.intervals[-1][1] if self.intervals else None

    def add(self, first: int, last: int) -> bool:
        """Add `[first, last]`; True if all of it was seen before: a duplicate."""
        intervals = self.intervals
        if intervals and intervals[-1][1] + 1 == first:  # the next id in order: nearly always
            intervals[-1] = (intervals[-1][0], last)
            return False
        at = bisect_right(intervals, (first, last))
        left = at - 1 if at and intervals[at - 1][1] + 1 >= first else at
        right = at
        while right < len(intervals) and intervals[right][0] <= last + 1:
            right += 1
        if left < right:
            old_first, old_last = intervals[left]
            if old_first <= first and last <= old_last:
                return True
            first, last = min(first, old_first), max(last, intervals[right - 1][1], old_last)
        intervals[left:right] = [(first, last)]
        if len(intervals) > MAX_INTERVALS:
            intervals[:2] = [(intervals[0][0], intervals[1][1])]
        return False

    def is_missing(self, id_: int) -> bool:
        """Whether ids on both sides of `id_` were seen, but not `id_`."""
        at = bisect_right(self.intervals, id_, key=lambda interval: interval[0])
        return 0 < at < len(self.intervals) and self.intervals[at - 1][1] < id_

    def continues(self, id_: int) -> bool:
        """Whether `id_` was not seen, and is missing or directly follows an id that was."""
        return self.is_missing(id_) or any(last + 1 == id_ for _, last in self.intervals)

    def cut(self, first: int) -> int:
        """Forget the ids from `first` on; returns how many of them had been seen."""
        dropped = sum(last - max(begin, first) + 1 for begin, last in self.intervals if last >= first)
        self.intervals = [(begin, min(last, first - 1)) for begin, last in self.intervals if begin < first]
        return dropped

    def holes(self) -> list[tuple[int, int]]:
        """The ids between the intervals, as closed intervals: missing, with ids seen on both sides."""
        return [(a[1] + 1, b[0] - 1) for a, b in zip(self.intervals, self.intervals[1:], strict=False)]

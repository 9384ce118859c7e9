"""Outliers and restarts in the ids of one symbol's trades or quotes, which rise with time.

Trade ids rise by one, book update ids rise. A jump larger than a market can produce in the time between, or a
lower id at a later time, is suspect: such rows are held back until several of them form a series of their own
(the exchange restarted its ids), or until rows that continue the known series refute them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.market.exchange_clock import BEHIND_US
from tickcast.market.ticks import QUOTE, TRADE, TickArray, TickRow
from tickcast.units import DAY_US, SECOND_US

JUMPED = "an id far ahead of its series"
FELL_BACK = "an id behind its series, at a later time"

_FLOOR_US = 5 * SECOND_US
_MAX_ELAPSED_US = DAY_US
_MAX_SUSPECTS = 256
_EVIDENCE_TIMES = 3

Ints = npt.NDArray[np.int64]
RefusedRow = tuple[TickRow, str]  # with the reason


class Pace(NamedTuple):
    """How the ids of rows of `dtype` rise, and how reliable their times are."""

    dtype: np.dtype[Any]
    first: str  # names of the id fields
    last: str
    spare: int  # the largest jump possible at any time
    per_s: int  # and how much more is possible for each second between
    evidence_us: int  # how long a new series is observed before it is accepted
    is_exact: bool  # whether a lower id cannot have a later time

    def key(self, row: TickRow) -> tuple[int, int, int]:
        """Time (µs), first and last id of `row`."""
        names = self.dtype.names or ()
        return row[names.index("time_us")], row[names.index(self.first)], row[names.index(self.last)]


# Several times the pace of the busiest market. Quote times of the keyless feed are estimates: a connection
# that lags repeats old ids at later times, so only ids from before the last seconds are evidence.
TRADE_PACE = Pace(TRADE, "first_id", "last_id", 10_000, 20_000, 0, is_exact=True)
QUOTE_PACE = Pace(QUOTE, "update_id", "update_id", 100_000, 2_000_000, SECOND_US, is_exact=False)


class Admission(NamedTuple):
    """`runs[0]` continues the known series, each further run starts a new one."""

    runs: list[TickArray]
    refused: list[RefusedRow]


def _never(_: int) -> bool:
    return False


@dataclass
class IdSeries:
    """The series of one symbol's trade or quote ids; suspect rows are held back.

    The field names are part of the stored state.
    """

    pace: Pace
    newest_id: int = -1
    newest_us: int = -1
    floor_id: int = -1  # the newest id of some seconds ago
    checkpoint_id: int = -1
    checkpoint_us: int = -1
    rows: int = 0  # in the series
    suspects: list[TickRow] = field(default_factory=list)  # in the order of time
    suspected_us: int = -1  # the time of the first suspect, which may have been refused since

    def admit(self, rows: TickArray, is_missing: Callable[[int], bool] = _never) -> Admission:
        """Admit `rows` of the pace's dtype, in any order, to the series.

        `is_missing(id)`: whether an id is a known hole. Suspect rows are returned by a later call, admitted
        or refused.
        """
        first, last, time_us = (rows[name].copy() for name in (self.pace.first, self.pace.last, "time_us"))
        if not len(rows):
            return Admission([rows], [])
        if self._is_next(first, last, time_us):
            self.advance(int(last[-1]), int(time_us[-1]), len(rows))
            return Admission([rows], [])
        if not self.suspects and self._is_plain(first, last, time_us):
            self._begin(int(first.min()))
            self.advance(int(last.max()), int(time_us.max()), len(rows))
            return Admission([rows], [])
        return self._admit_each(rows[np.lexsort((first, time_us))].tolist(), is_missing)

    def advance(self, newest_id: int, newest_us: int, rows: int) -> None:
        """The series has reached `newest_id` at `newest_us`, with `rows` more rows."""
        self.rows += rows
        self.newest_id, self.newest_us = max(self.newest_id, newest_id), max(self.newest_us, newest_us)
        if self.newest_us - self.checkpoint_us >= _FLOOR_US:
            if self.checkpoint_us >= 0:
                self.floor_id = self.checkpoint_id
            self.checkpoint_id, self.checkpoint_us = self.newest_id, self.newest_us

    def refuse_suspects(self) -> list[RefusedRow]:
        """Remove and return the suspect rows, with reasons."""
        rows, self.suspects = self.suspects, []
        return self._with_reasons(rows)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pace"}

    @classmethod
    def from_dict(cls, pace: Pace, data: dict[str, Any]) -> IdSeries:
        """The inverse of `as_dict`. Raises TypeError or KeyError on other data."""
        return cls(pace, **data | {"suspects": [tuple(row) for row in data["suspects"]]})

    def _begin(self, first_id: int) -> None:
        if self.newest_id < 0:
            self.floor_id = first_id

    def _is_next(self, first: Ints, last: Ints, time_us: Ints) -> bool:
        """Whether the rows continue the series in order: nearly always, and cheap to check."""
        return bool(
            self.newest_id >= 0
            and not self.suspects
            and self.newest_id < first[0]
            and self.newest_us <= time_us[0]
            and last[-1] - self.newest_id <= self.pace.spare
            and (first[1:] > last[:-1]).all()
            and (time_us[1:] >= time_us[:-1]).all()
        )

    def _is_plain(self, first: Ints, last: Ints, time_us: Ints) -> bool:
        """Whether all rows fit, in any order."""
        start_id, start_us = self.newest_id, self.newest_us
        if start_id < 0:
            start_id, start_us = int(first[0]) - 1, int(time_us[0])
        reached = np.maximum.accumulate(np.concatenate([[start_id], last[:-1]]))
        seen_us = np.maximum.accumulate(np.concatenate([[start_us], time_us[:-1]]))
        return not self._is_odd(first, time_us, reached, seen_us).any()

    def _is_odd(self, first: Any, time_us: Any, reached: Any, seen_us: Any) -> Any:
        """Whether ids at their times do not fit a series that had reached `reached` at `seen_us`."""
        ahead, since_us = first - reached, time_us - seen_us
        odd = ahead > self._max_jump(since_us)
        if self.pace.is_exact:
            return odd | ((ahead <= 0) & (since_us > 0)) | ((ahead > 0) & (since_us < -BEHIND_US))
        return odd | ((first < self.floor_id) & (since_us > 0))

    def _max_jump(self, since_us: Any) -> Any:
        """The largest possible jump of ids after `since_us`."""
        elapsed_us = np.minimum(np.maximum(since_us, 0), _MAX_ELAPSED_US)
        return self.pace.spare + elapsed_us * self.pace.per_s // SECOND_US

    def _admit_each(self, rows: list[TickRow], is_missing: Callable[[int], bool]) -> Admission:
        """`admit` row by row, in the order of time."""
        runs: list[list[TickRow]] = [[]]
        refused: list[RefusedRow] = []
        for row in rows:
            time_us, first, last = self.pace.key(row)
            if self.newest_id < 0 or not self._is_odd(first, time_us, self.newest_id, self.newest_us):
                if self.suspects and first > self.newest_id:  # the known series continues
                    awaited = [each for each in self.suspects if is_missing(self.pace.key(each)[1])]
                    runs[-1] += awaited
                    refused += self._with_reasons(each for each in self.suspects if each not in awaited)
                    self.suspects = []
                self._begin(first)
                self.advance(last, time_us, 1)
                runs[-1].append(row)
            elif time_us <= self.newest_us:  # a new series comes after the old one
                refused += self._with_reasons([row])
            else:
                refused += self._suspect(row)
                if self._is_series():
                    if (
                        self.rows == len(runs[-1]) < _EVIDENCE_TIMES
                    ):  # the rows that this call began with were outliers
                        refused += self._with_reasons(runs.pop())
                    runs.append(self.suspects)
                    self._start_over()
        return Admission([np.array(run, self.pace.dtype) for run in runs], refused)

    def _start_over(self) -> None:
        """The suspects become the series."""
        self.newest_id = self.newest_us = self.checkpoint_us = -1
        self.rows = 0
        self._begin(self.pace.key(self.suspects[0])[1])
        time_us, _, last = self.pace.key(self.suspects[-1])
        self.advance(last, time_us, len(self.suspects))
        self.suspects = []

    def _suspect(self, row: TickRow) -> list[RefusedRow]:
        """Hold `row` back, together with the other suspects or instead of them; returns the rows refused."""
        time_us, first, last = self.pace.key(row)
        if any(known[1] <= first <= known[2] for known in map(self.pace.key, self.suspects)):
            return []  # a repeat by another connection
        refused: list[RefusedRow] = []
        if self.suspects:
            newest_us, _, newest_id = self.pace.key(self.suspects[-1])
            ahead, since_us = first - newest_id, time_us - newest_us
            if not 0 < ahead <= self._max_jump(since_us) or since_us < 0:
                refused = self.refuse_suspects()
        if not self.suspects:
            self.suspected_us = time_us
        self.suspects.append(row)
        if len(self.suspects) > _MAX_SUSPECTS:
            refused += self._with_reasons([self.suspects.pop(0)])
        return refused

    def _with_reasons(self, rows: Iterable[TickRow]) -> list[RefusedRow]:
        return [(row, JUMPED if self.pace.key(row)[1] > self.newest_id else FELL_BACK) for row in rows]

    def _is_series(self) -> bool:
        """Whether there are enough suspects to be a series of their own."""
        times_us = {self.pace.key(row)[0] for row in self.suspects}
        return len(times_us) >= _EVIDENCE_TIMES and max(times_us) - self.suspected_us >= self.pace.evidence_us


def trade_series() -> IdSeries:
    return IdSeries(TRADE_PACE)


def quote_series() -> IdSeries:
    return IdSeries(QUOTE_PACE)

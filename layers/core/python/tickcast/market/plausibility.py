"""Which ticks can be true: books by themselves, times by clocks and neighbours, ids by their series.

A value far off must cost its own row and nothing else, so every judgement here is about rows. Each is made
twice: where ticks come in (`ingest_ecs`, one connection at a time) and again by the consumers, which must
not trust a record.

**Times.** A tick cannot be ahead of the exchange's clock, and ticks of one connection come in its order. How
far the exchange's clock is from the local one is learned (`ExchangeClock`): a host clock that is off by a
constant refuses nothing. A tick that was held up on its way is right, however old it is, as long as it does
not fall behind what came before it.

**Ids.** Trade ids rise by one and book update ids rise, both with time (`IdSeries`). A jump further than a
market can have gone in the time between, or a lower id of a later time, is suspected: the rows are held back
until several of them make a series of their own (the exchange started over), or one that continues the known
series refutes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.market.ticks import TRADE, Quotes, Trades
from tickcast.units import DAY_US

AHEAD_US = 2_000_000  # of the exchange's clock, as well as it is known
BEHIND_US = 5_000_000  # of the ticks that came before, on the same connection
ARRIVAL_AHEAD_US = 5_000_000  # of the arrival at Kinesis, whose clock is another one
OLDEST_US = 1_483_228_800 * 1_000_000  # 2017: no tick of these markets is older
CLAIM_SPARE_US = 250_000  # so much faster than usual a tick may come
MAX_IDS_A_ROW = 100_000
MAX_CLOCK_ERROR_US = DAY_US  # further off a time is in another unit, or damaged
AGREEING_FRAMES = 3  # so many with the same difference, and none with the known one: the clock is off
UNDECIDED_FRAMES = 16  # so many without an agreement are refused

_CLOCK_SAMPLES, _SAMPLE_US = 60, 1_000_000  # a minute of one median a second
_UPPER_QUARTILE = 0.75  # ticks are held up for seconds now and then, and never early

FITS, AHEAD, BEHIND, UNDECIDED = range(4)
REASONS = {AHEAD: "a time ahead of the clock", BEHIND: "a time behind what came before it"}
JUMPED = "an id far ahead of its series"
FELL_BACK = "an id behind its series, at a later time"

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Row = tuple[int, ...]
Rows = npt.NDArray[Any]  # of TRADE or QUOTE


# ---------------------------------------------------------------------------------------------- a row


class Fault(NamedTuple):
    reason: str
    is_faulty: Flags  # shape (rows,)


def trade_faults(trades: Trades) -> list[Fault]:
    """What no trade can be, whatever the others are."""
    ids = trades["last_id"] - trades["first_id"]  # beyond the first; of single trades 0
    return [
        Fault("a trade without a price or quantity", (trades["price"] <= 0) | (trades["qty"] <= 0)),
        Fault("trade ids that cannot be", (trades["first_id"] < 0) | (ids < 0) | (ids > MAX_IDS_A_ROW)),
        Fault("a side that is neither buy nor sell", np.abs(trades["side"]) != 1),
    ]


def quote_faults(quotes: Quotes) -> list[Fault]:
    """What no quote can be. A side may be gone, with price and quantity 0; half a side is none."""
    bid, ask = quotes["bid_price"], quotes["ask_price"]
    bid_qty, ask_qty = quotes["bid_qty"], quotes["ask_qty"]
    is_half = ((bid > 0) != (bid_qty > 0)) | ((ask > 0) != (ask_qty > 0))
    is_negative = (bid < 0) | (bid_qty < 0) | (ask < 0) | (ask_qty < 0)
    return [
        Fault("half a side of the book", is_half | is_negative),
        Fault("a crossed book", (bid > 0) & (ask > 0) & (bid >= ask)),
        Fault("a book update id that cannot be", quotes["update_id"] < 0),
    ]


def time_faults(rows: Rows, arrived_us: int) -> list[Fault]:
    """Times that cannot be, in a record that arrived at `arrived_us`.

    Old ticks are right: a record may have waited for minutes. Ahead is judged by the arrival, and because
    that may be long after, by when each tick was received, where neither the clock of ingest's host (as the
    others in the record show it) nor that of a host that is right explains it.
    """
    time_us, received_us = rows["time_us"], rows["receive_time_us"]
    ahead_us = time_us - received_us
    is_ahead = ahead_us > ARRIVAL_AHEAD_US
    if is_ahead.any():
        usual_us = max(float(np.median(ahead_us)), 0.0) if len(rows) >= AGREEING_FRAMES else np.inf
        is_ahead = ahead_us > usual_us + ARRIVAL_AHEAD_US
    return [
        Fault("a time before 2017", time_us < OLDEST_US),
        Fault("a time ahead of its arrival", time_us > arrived_us + ARRIVAL_AHEAD_US),
        Fault("a time ahead of its receipt", is_ahead),
        Fault("a receipt long after its arrival", received_us > arrived_us + MAX_CLOCK_ERROR_US),
    ]


def are_plain(rows: Rows, arrived_us: int) -> bool:
    """Whether all of `rows`, of TRADE or QUOTE and at least one, are free of faults at a glance. False: they
    are to be looked at more closely, at several times the cost."""
    time_us, received_us = rows["time_us"], rows["receive_time_us"]
    in_time = (
        time_us.min() >= OLDEST_US
        and time_us.max() <= arrived_us + ARRIVAL_AHEAD_US
        and received_us.max() <= arrived_us + MAX_CLOCK_ERROR_US
        and (time_us - received_us).max() <= ARRIVAL_AHEAD_US
    )
    if not in_time:
        return False
    if rows.dtype == TRADE:
        first_id = rows["first_id"]
        return bool(
            min(first_id.min() + 1, rows["price"].min(), rows["qty"].min()) > 0
            and (rows["last_id"] == first_id).all()
            and (np.abs(rows["side"]) == 1).all()
        )
    bid, ask = rows["bid_price"], rows["ask_price"]
    sizes = min(rows["bid_qty"].min(), rows["ask_qty"].min())
    return bool(rows["update_id"].min() >= 0 and sizes > 0 and bid.min() > 0 and (bid < ask).all())


# -------------------------------------------------------------------------------------------- the clock


class ExchangeClock:
    """How far the exchange's clock is ahead of the local one, as the ticks of one connection show it."""

    def __init__(self) -> None:
        self.offset_us = 0.0  # exchange minus local, the usual delay included; 0 before the first tick
        self._samples: deque[float] = deque(maxlen=_CLOCK_SAMPLES)
        self._sampled_us = -1
        self._newest_us: int | None = None  # exchange time of the newest tick that fitted

    def judge(self, time_us: Ints, received_us: Ints) -> npt.NDArray[np.int8]:
        """`FITS`, `AHEAD`, `BEHIND` or `UNDECIDED` for each tick. Shapes (ticks,).

        Undecided ticks are to be shown again together with the next ones: either some of those fit, or
        enough agree that the clock is elsewhere.
        """
        ahead_us = time_us - received_us
        apart_us = ahead_us - self.offset_us
        if ((apart_us <= AHEAD_US) & (apart_us >= -BEHIND_US)).all():
            verdicts = np.zeros(len(time_us), np.int8)
        else:
            verdicts = self._one_by_one(time_us, received_us)
            if not (verdicts == FITS).any():
                self._settle(time_us, received_us, verdicts)
        fits = verdicts == FITS
        if fits.any():
            self._learn(time_us[fits], received_us[fits])
        return verdicts

    def latest_us(self, received_us: int) -> int:
        """What a claim to be caught up may be at the most, when the newest tick was received then: a tick may
        be ahead of that and still pass, but it proves nothing of the others."""
        return received_us + int(self.offset_us) + CLAIM_SPARE_US

    def _one_by_one(self, time_us: Ints, received_us: Ints) -> npt.NDArray[np.int8]:
        """A tick that is late may still continue those before it: the connection stood still."""
        verdicts, newest_us = np.zeros(len(time_us), np.int8), self._newest_us
        order = np.argsort(received_us, kind="stable")
        for row, at_us, came_us in zip(
            order.tolist(), time_us[order].tolist(), received_us[order].tolist(), strict=True
        ):
            apart_us = at_us - came_us - self.offset_us
            continues = newest_us is not None and at_us >= newest_us - BEHIND_US
            if apart_us > AHEAD_US:
                verdicts[row] = AHEAD
            elif apart_us < -BEHIND_US and not continues:
                verdicts[row] = BEHIND
            else:
                newest_us = at_us if newest_us is None else max(newest_us, at_us)
        return verdicts

    def _settle(self, time_us: Ints, received_us: Ints, verdicts: npt.NDArray[np.int8]) -> None:
        """None fitted: enter what is to be made of that."""
        ahead_us = (time_us - received_us).astype(float)
        possible = np.abs(ahead_us) <= MAX_CLOCK_ERROR_US
        if not possible.any():
            return
        offset_us = float(np.median(ahead_us[possible]))
        agrees = possible & (np.abs(ahead_us - offset_us) <= AHEAD_US)
        if _frames(time_us[agrees], received_us[agrees]) >= AGREEING_FRAMES:
            self.offset_us, self._newest_us = offset_us, None
            self._samples.clear()
            self._sampled_us = -1
            verdicts[agrees] = FITS
        elif _frames(time_us[possible], received_us[possible]) < UNDECIDED_FRAMES:
            verdicts[possible] = UNDECIDED

    def _learn(self, time_us: Ints, received_us: Ints) -> None:
        newest_us, came_us = int(time_us.max()), int(received_us.max())
        self._newest_us = newest_us if self._newest_us is None else max(self._newest_us, newest_us)
        if came_us - self._sampled_us >= _SAMPLE_US or self._sampled_us < 0:
            self._sampled_us = came_us
            self._samples.append(float(np.median(time_us - received_us)))
            self.offset_us = float(np.quantile(self._samples, _UPPER_QUARTILE))


def _frames(time_us: Ints, received_us: Ints) -> int:
    """How many frames the ticks came in: those of one frame share both times, and are one witness."""
    return len(set(zip(time_us.tolist(), received_us.tolist(), strict=True)))


# ------------------------------------------------------------------------------------------------- ids

_FLOOR_US = 5_000_000
_MAX_ELAPSED_US = DAY_US
_MAX_SUSPECTS = 256
_EVIDENCE_TIMES = 3


class Pace(NamedTuple):
    """How ids of a kind rise, and how sure their times are."""

    first: str  # names of the fields
    last: str
    spare: int  # a jump of so much is possible at any time
    per_s: int  # and of so much more for each second between
    evidence_us: int  # how long a new series is watched before it is believed
    is_exact: bool  # whether a lower id cannot have a later time


# Several times what the busiest market has shown. Times of quotes on the keyless feed are estimates: there a
# connection that lags repeats old ids at later times, and only ids from before the last seconds are proof.
TRADE_PACE = Pace("first_id", "last_id", 10_000, 20_000, 0, is_exact=True)
QUOTE_PACE = Pace("update_id", "update_id", 100_000, 2_000_000, 1_000_000, is_exact=False)


class Judged(NamedTuple):
    """`runs[0]` continues the known series, each further one starts a new one. `refused` says why."""

    runs: list[Rows]
    refused: list[tuple[Row, str]]


def _never(_: int) -> bool:
    return False


@dataclass
class IdSeries:
    """The ids of one symbol's trades or quotes as they rise with time; rows that do not fit are held back."""

    pace: Pace
    newest_id: int = -1
    newest_us: int = -1
    floor_id: int = -1  # what the series had reached seconds ago
    checkpoint_id: int = -1
    checkpoint_us: int = -1
    rows: int = 0  # so many make it up
    suspects: list[Row] = field(default_factory=list)  # in the order of time
    suspected_us: int = -1  # the time of the first of them, which may have been given up since

    def judge(self, rows: Rows, is_awaited: Callable[[int], bool] = _never) -> Judged:
        """`rows`, in any order, as they continue the series. `is_awaited(id)`: whether it is known to be
        missing. Rows that are suspected come with a later call, kept or refused."""
        first, last, time_us = (rows[name].copy() for name in (self.pace.first, self.pace.last, "time_us"))
        if not len(rows):
            return Judged([rows], [])
        if self._is_next(first, last, time_us):
            self.advance(int(last[-1]), int(time_us[-1]), len(rows))
            return Judged([rows], [])
        if not self.suspects and self._is_plain(first, last, time_us):
            self._begin(int(first.min()))
            self.advance(int(last.max()), int(time_us.max()), len(rows))
            return Judged([rows], [])
        order = np.lexsort((first, time_us))
        runs: list[list[Row]] = [[]]
        refused: list[tuple[Row, str]] = []
        for row in rows[order].tolist():
            self._judge_row(row, rows.dtype.names or (), runs, refused, is_awaited)
        return Judged([np.array(run, rows.dtype) for run in runs], refused)

    def advance(self, newest_id: int, newest_us: int, rows: int) -> None:
        """The series has come so far, by so many rows more."""
        self.rows += rows
        self.newest_id, self.newest_us = max(self.newest_id, newest_id), max(self.newest_us, newest_us)
        if self.newest_us - self.checkpoint_us >= _FLOOR_US:
            if self.checkpoint_us >= 0:
                self.floor_id = self.checkpoint_id
            self.checkpoint_id, self.checkpoint_us = self.newest_id, self.newest_us

    def give_up(self, names: tuple[str, ...]) -> list[tuple[Row, str]]:
        """The rows that are held back, of fields `names`, with what they are suspected of; they are held back
        no longer."""
        rows, self.suspects = self.suspects, []
        return [(row, self._reason(row[names.index(self.pace.first)])) for row in rows]

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pace"}

    @classmethod
    def from_dict(cls, pace: Pace, data: dict[str, Any]) -> IdSeries:
        """The series of `as_dict`. Raises TypeError or KeyError on anything else."""
        return cls(pace, **data | {"suspects": [tuple(row) for row in data["suspects"]]})

    def _begin(self, first_id: int) -> None:
        if self.newest_id < 0:
            self.floor_id = first_id

    def _is_next(self, first: Ints, last: Ints, time_us: Ints) -> bool:
        """Whether the rows continue the series in order: nearly always, and cheap to know."""
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
        """Whether all rows fit, in whatever order they are."""
        start_id, start_us = self.newest_id, self.newest_us
        if start_id < 0:
            start_id, start_us = int(first[0]) - 1, int(time_us[0])
        reached = np.maximum.accumulate(np.concatenate([[start_id], last[:-1]]))
        seen_us = np.maximum.accumulate(np.concatenate([[start_us], time_us[:-1]]))
        return not self._is_odd(first, time_us, reached, seen_us).any()

    def _is_odd(self, first: Any, time_us: Any, reached: Any, seen_us: Any) -> Any:
        """Whether ids at their times do not fit a series that had come to `reached` at `seen_us`."""
        ahead, since_us = first - reached, time_us - seen_us
        odd = ahead > self._furthest(since_us)
        if self.pace.is_exact:
            return odd | ((ahead <= 0) & (since_us > 0)) | ((ahead > 0) & (since_us < -BEHIND_US))
        return odd | ((first < self.floor_id) & (since_us > 0))

    def _furthest(self, since_us: Any) -> Any:
        """The largest jump that there can be after so long."""
        elapsed_us = np.minimum(np.maximum(since_us, 0), _MAX_ELAPSED_US)
        return self.pace.spare + elapsed_us * self.pace.per_s // 1_000_000

    def _judge_row(
        self,
        row: Row,
        names: tuple[str, ...],
        runs: list[list[Row]],
        refused: list[tuple[Row, str]],
        is_awaited: Callable[[int], bool],
    ) -> None:
        at, first, last = (row[names.index(name)] for name in ("time_us", self.pace.first, self.pace.last))
        if self.newest_id < 0 or not self._is_odd(first, at, self.newest_id, self.newest_us):
            if self.suspects and first > self.newest_id:
                self._refute(names, runs, refused, is_awaited)
            self._begin(first)
            self.advance(last, at, 1)
            runs[-1].append(row)
            return
        reason = JUMPED if first > self.newest_id else FELL_BACK
        if at <= self.newest_us:  # a new series comes after the old one
            refused.append((row, reason))
            return
        self._suspect(row, names, refused)
        if self._is_evidence(names):
            if self.rows == len(runs[-1]) < _EVIDENCE_TIMES:  # what this call began with was far off
                refused += [(each, self._reason(each[names.index(self.pace.first)])) for each in runs.pop()]
            runs.append(self.suspects)
            self._start_over(names)

    def _start_over(self, names: tuple[str, ...]) -> None:
        """The suspects are the series from now on."""
        self.newest_id = self.newest_us = self.checkpoint_us = -1
        self.rows = 0
        self._begin(self.suspects[0][names.index(self.pace.first)])
        newest = self.suspects[-1]
        self.advance(newest[names.index(self.pace.last)], newest[names.index("time_us")], len(self.suspects))
        self.suspects = []

    def _refute(
        self,
        names: tuple[str, ...],
        runs: list[list[Row]],
        refused: list[tuple[Row, str]],
        is_awaited: Callable[[int], bool],
    ) -> None:
        """The known series continues: the suspects are far off, but for those that it was waiting for."""
        for row in self.suspects:
            first = row[names.index(self.pace.first)]
            if is_awaited(first):
                runs[-1].append(row)
            else:
                refused.append((row, self._reason(first)))
        self.suspects = []

    def _suspect(self, row: Row, names: tuple[str, ...], refused: list[tuple[Row, str]]) -> None:
        """Hold `row` back, in one series with those held back already or instead of them."""
        at, first, last = (names.index(name) for name in ("time_us", self.pace.first, self.pace.last))
        for known in self.suspects:
            if known[first] <= row[first] <= known[last]:  # by another connection
                return
        if self.suspects:
            newest = self.suspects[-1]
            ahead, since_us = row[first] - newest[last], row[at] - newest[at]
            if not 0 < ahead <= self._furthest(since_us) or since_us < 0:
                refused += [(each, self._reason(each[first])) for each in self.suspects]
                self.suspects = []
        if not self.suspects:
            self.suspected_us = row[at]
        self.suspects.append(row)
        if len(self.suspects) > _MAX_SUSPECTS:
            oldest = self.suspects.pop(0)
            refused.append((oldest, self._reason(oldest[first])))

    def _reason(self, first_id: int) -> str:
        return JUMPED if first_id > self.newest_id else FELL_BACK

    def _is_evidence(self, names: tuple[str, ...]) -> bool:
        times_us = {row[names.index("time_us")] for row in self.suspects}
        return len(times_us) >= _EVIDENCE_TIMES and max(times_us) - self.suspected_us >= self.pace.evidence_us


def trade_series() -> IdSeries:
    return IdSeries(TRADE_PACE)


def quote_series() -> IdSeries:
    return IdSeries(QUOTE_PACE)

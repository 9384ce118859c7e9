"""The trade ids of one symbol: which were seen, which came late, and which are missing.

Trade ids rise by exactly one, so a jump is a hole on whichever connection it was seen: it is entered into the
gap ledger, and removed when its trades arrive late.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tickcast.market.gaps import GapLedger, Restart
from tickcast.market.id_ranges import IdRanges
from tickcast.market.id_series import Admission, IdSeries, RefusedRow, trade_series
from tickcast.market.ticks import Trades, selected

MAX_LATE_IDS = 100
_FEW_IDS = 3  # fewer ids than this above where a series continues were outliers, not a series


@dataclass
class TradeIds:
    seen: IdRanges = field(default_factory=IdRanges)
    series: IdSeries = field(default_factory=trade_series)
    newest_us: int = -1  # of the highest trade id seen
    late_count: int = 0
    late_ids: list[int] = field(default_factory=list)  # the newest that came late or were refused
    refused_count: int = 0

    def admit(self, trades: Trades, gaps: GapLedger) -> tuple[Trades, list[RefusedRow]]:
        """Those of `trades` (one or more, in any order) that were not seen before, and those with impossible
        ids. Holes are entered into `gaps`, and removed from it when they fill."""
        if self._continue_in_order(trades):
            return trades, []
        admission = self.series.admit(trades, self.seen.is_missing)
        self.refused_count += len(admission.refused)
        self._note_late([row[2] for row, _ in admission.refused])
        return self._new_of(admission, gaps), admission.refused

    def in_time(self, trades: Trades, closed_us: int) -> Trades:
        """Those of `trades` whose bars are still open; the others are counted as late."""
        late = trades["time_us"] < closed_us
        if not late.any():
            return trades
        self.late_count += int(late.sum())
        self._note_late(trades["first_id"][late].tolist())
        return selected(trades, ~late)

    def _note_late(self, ids: list[int]) -> None:
        self.late_ids = (self.late_ids + ids)[-MAX_LATE_IDS:]

    def _continue_in_order(self, trades: Trades) -> bool:
        """Add the ids of trades that follow what was seen without a hole, in order; False if they do not.

        This is nearly always true, and `series` and `_new_of` would give the same result.
        """
        # Copies: numpy is slow with unaligned integers, such as those in a row of TRADE.
        first_ids, last_ids = trades["first_id"].copy(), trades["last_id"].copy()
        newest_id = self.seen.newest
        if newest_id is None or first_ids[0] != newest_id + 1 or self.series.suspects:
            return False
        if (first_ids[1:] != last_ids[:-1] + 1).any() or (last_ids < first_ids).any():
            return False
        newest_id, newest_us = int(last_ids[-1]), int(trades["time_us"][-1])
        self.seen.add(int(first_ids[0]), newest_id)
        self.series.advance(newest_id, newest_us, len(trades))
        self.newest_us = newest_us
        return True

    def _new_of(self, admission: Admission, gaps: GapLedger) -> Trades:
        """The trades of all runs that were not seen before, by id within a run."""
        new: list[Trades] = []
        for n, run in enumerate(admission.runs):
            if n:
                self._restart(run, gaps)
            run = selected(run, np.argsort(run["first_id"], kind="stable"))
            is_new = np.ones(len(run), bool)
            for row, (time_us, _, first_id, last_id, *_rest) in enumerate(run.tolist()):
                is_new[row] = self._add(time_us, first_id, last_id, gaps)
            new.append(selected(run, is_new))
        return np.concatenate(new) if len(new) > 1 else new[0]

    def _restart(self, run: Trades, gaps: GapLedger) -> None:
        """`run` starts a new series of ids, or the ids seen last were outliers."""
        first_id, time_us = int(run["first_id"][0]), int(run["time_us"][0])
        before_us, self.newest_us = self.newest_us, time_us
        before_id = self.seen.newest
        if self.seen.continues(first_id):
            dropped = self.seen.cut(first_id)
            gaps.cut((self.seen.newest or 0) + 1)  # the gap is found again with the run
            if dropped < _FEW_IDS:
                self.newest_us = min(before_us, time_us)
                return
        else:
            dropped = self.seen.cut(0)
        if before_id is not None and dropped >= _FEW_IDS:
            gaps.restarted(Restart("trades", before_id, first_id, before_us, time_us))

    def _add(self, time_us: int, first_id: int, last_id: int, gaps: GapLedger) -> bool:
        """Add the ids of one trade; False when all of them were seen before."""
        newest_id = self.seen.newest
        if self.seen.add(first_id, last_id):
            return False
        if newest_id is None or first_id > newest_id:
            if newest_id is not None and first_id > newest_id + 1:
                gaps.missing(newest_id + 1, first_id - 1, self.newest_us, time_us)
            self.newest_us = time_us
        else:
            gaps.arrived(first_id, last_id)
        return True

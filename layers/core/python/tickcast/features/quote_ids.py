"""The book update ids of one symbol's quotes: which series they belong to, and which came late.

Update ids rise with gaps, so they do not show whether quotes are missing; they order quotes and identify
repeats.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tickcast.features.trade_ids import MAX_LATE_IDS
from tickcast.market.gaps import GapLedger, Restart
from tickcast.market.id_series import Admission, IdSeries, quote_series
from tickcast.market.ticks import Quotes, joined, selected


@dataclass
class QuoteIds:
    series: IdSeries = field(default_factory=quote_series)
    newest_us: int = -1
    closed_id: int = 0  # the newest of its series in closed bars
    late_count: int = 0
    late_ids: list[int] = field(default_factory=list)  # the newest that came late or were refused
    refused_count: int = 0

    def admit(self, quotes: Quotes, gaps: GapLedger) -> Admission:
        """`quotes` (one or more, in any order) by series of ids; a new series is entered into `gaps`."""
        before_id, before_us = self.series.newest_id, self.series.newest_us
        admission = self.series.admit(quotes)
        self.refused_count += len(admission.refused)
        self._note_late([row[2] for row, _ in admission.refused])
        if len(admission.runs) > 1:
            newest_run = admission.runs[-1]
            first_id, first_us = int(newest_run["update_id"][0]), int(newest_run["time_us"][0])
            if before_id >= 0:
                gaps.restarted(Restart("quotes", before_id, first_id, before_us, first_us))
            self.closed_id = 0
        return admission

    def merged(self, known: Quotes, quotes: Quotes, closed_us: int, gaps: GapLedger) -> Quotes:
        """`known`, the quotes of open bars, with those of `quotes` (of the same series) that are new and not
        late; sorted by id where they were not."""
        if not len(quotes):
            return known
        first_us, last_us = int(quotes["time_us"].min()), int(quotes["time_us"].max())
        if self.newest_us >= 0:
            gaps.quotes_resumed(self.newest_us, first_us)
        self.newest_us = max(self.newest_us, last_us)
        late = quotes["time_us"] < closed_us
        if late.any():
            # A second connection repeats old quotes: only ids that closed bars had not reached are counted.
            late_ids = quotes["update_id"][late & (quotes["update_id"] > self.closed_id)].tolist()
            self.late_count += len(late_ids)
            self._note_late(late_ids)
            quotes = selected(quotes, ~late)
        if (quotes["update_id"] <= self.closed_id).any():
            # Received on another connection, with another estimate of their time.
            quotes = selected(quotes, quotes["update_id"] > self.closed_id)
        known = joined(known, quotes)
        ids = known["update_id"]
        if (ids[1:] <= ids[:-1]).any():
            known = selected(known, np.unique(ids, return_index=True)[1])
        return known

    def close(self, quotes: Quotes) -> None:
        """The bars of `quotes` were closed."""
        ids = quotes["update_id"]
        of_series = ids[ids <= self.series.newest_id]  # an earlier series may have higher ids
        if len(of_series):
            self.closed_id = max(self.closed_id, int(of_series.max()))

    def _note_late(self, ids: list[int]) -> None:
        self.late_ids = (self.late_ids + ids)[-MAX_LATE_IDS:]

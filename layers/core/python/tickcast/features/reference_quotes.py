"""The reference quotes of one symbol that are not in a closed bar yet.

They are ordered by the exchange's time, then by their update ids, and of each bar only the newest before its
end matters. A late one is counted and its id listed; only its own bar misses it, for the next one has a newer
quote.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tickcast.features.bars import BAR_US
from tickcast.features.trade_ids import MAX_LATE_IDS
from tickcast.market.ticks import Quotes, joined, selected

# About ten seconds of two connections, or a minute of one quote per bar: beyond that the claims of the spot
# stream have stopped, and the state must not grow with what nothing needs.
MAX_OPEN = 600


@dataclass
class ReferenceQuotes:
    newest_us: int = -1
    closed_us: int = -1  # the time of the newest in closed bars
    late_count: int = 0
    late_ids: list[int] = field(default_factory=list)  # the newest that came late

    def merged(self, known: Quotes, quotes: Quotes, bars_closed_us: int) -> Quotes:
        """`known`, those of open bars in order, with those of `quotes` (in any order) that are new and not
        late."""
        times_us = quotes["time_us"]
        self.newest_us = max(self.newest_us, int(times_us.max()))
        late = times_us < bars_closed_us
        if late.any():
            # A second connection repeats old quotes: only those that closed bars had not reached are counted.
            self._note_late(selected(quotes, late & (times_us > self.closed_us)))
            quotes = selected(quotes, ~late)
        known = joined(known, quotes)
        times_us = known["time_us"]
        if (times_us[1:] <= times_us[:-1]).any():
            known = selected(known, np.lexsort((known["update_id"], times_us)))
            known = selected(known, _is_last(known["time_us"], known["update_id"]))
        return known if len(known) <= MAX_OPEN else self._bounded(known)

    def close(self, quotes: Quotes) -> None:
        """The bars of `quotes`, in order, were closed."""
        if len(quotes):
            self.closed_us = max(self.closed_us, int(quotes["time_us"][-1]))

    def _bounded(self, known: Quotes) -> Quotes:
        known = newest_of_bars(known)
        self._note_late(known[:-MAX_OPEN])
        return known[-MAX_OPEN:]

    def _note_late(self, quotes: Quotes) -> None:
        self.late_count += len(quotes)
        self.late_ids = (self.late_ids + quotes["update_id"].tolist())[-MAX_LATE_IDS:]


def newest_of_bars(quotes: Quotes) -> Quotes:
    """The last of `quotes`, which are in order, in each bar."""
    return selected(quotes, _is_last(quotes["time_us"] // BAR_US)) if len(quotes) > 1 else quotes


def _is_last(*keys: np.ndarray) -> np.ndarray:
    """Whether each row is the last of those with its keys, which stand together. Shape (rows,)."""
    is_last = np.ones(len(keys[0]), bool)
    is_last[:-1] = False
    for key in keys:
        is_last[:-1] |= key[1:] != key[:-1]
    return is_last

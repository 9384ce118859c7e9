"""Copy the tallies of whole hours from PostgreSQL, which keeps them for weeks, into the lake.

A day's object is replaced once an hour, and the day before with it for an hour: outcomes may come late. After
an interruption, however long, all days since the newest one are copied, as far as PostgreSQL has them. Hours
that PostgreSQL has lost stay in the lake.
"""

from __future__ import annotations

from collections.abc import Callable

from tickcast.adapters.lake.tally_archive import TallyArchive
from tickcast.adapters.postgres.score_store import ScoreStore
from tickcast.units import DAY_US, HOUR_US, MINUTE_US

_SETTLED_US = MINUTE_US  # after its end an hour has all outcomes, unless the stream has stalled
_ENOUGH_MS = 20_000  # of an invocation are left for what follows


class ArchiveTallies:
    def __init__(self, archive: TallyArchive) -> None:
        self._archive = archive
        self._until_us: dict[str, int] = {}  # by symbol, as far as this process has copied

    def __call__(
        self, store: ScoreStore, symbol: str, now_us: int, remaining_ms: Callable[[], float]
    ) -> None:
        """Copy what is new of `symbol`. Raises what PostgreSQL and S3 raise: the next run tries again."""
        until_us = (now_us - _SETTLED_US) // HOUR_US * HOUR_US
        done_us = self._until_us.get(symbol)
        if done_us == until_us:
            return
        known = store.extent(symbol)
        if known is None or known[0] >= until_us:
            return
        if done_us is None:
            done_us = self._archive.newest_day_us(symbol)
        first_us = known[0] if done_us is None else max(known[0], done_us - HOUR_US)
        for day_us in range(first_us // DAY_US * DAY_US, until_us, DAY_US):
            if remaining_ms() < _ENOUGH_MS:
                return
            end_us = min(day_us + DAY_US, until_us)
            tallies = store.tallies(symbol, day_us, end_us, HOUR_US)
            self._archive.put(symbol, (day_us, end_us), max(day_us, known[0]), tallies)
        self._until_us[symbol] = until_us

"""The gap ledger of a symbol: missing trades, their times, and the cause that ingest reported.

Trade ids rise by exactly one, so a jump is a gap whichever connection it was seen on. A gap that fills late
(the other connection had the trades) leaves the ledger; the others are for REST to repair, which needs the
range of ids and of times. Spans without quotes are listed as well: REST cannot repair those, but a model must
not be trained across them.

`GapLedger` is stored in the state, as JSON under its fields' names; `LedgerRecord` is what readers get.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import asdict, astuple, replace

from tickcast.market.wire import Notice

MAX_GAPS = 200
MAX_NOTICES = 20
MAX_RESTARTS = 20
UNKNOWN = "unknown"
WITHHELD = "withheld by the exchange"
NOT_SERVED = "the symbol was not served"
# Ingest follows a change of the symbols by polls that are further apart: no pause between two is shorter.
_PAUSE_US = 5_000_000
# The clock behind a notice's times agrees with the exchange's to about this. The times of one gap, which may
# be rounded to ms, differ by less; those of two series of ids by far more.
TOLERANCE_US = 1_000_000
# That long without a quote may be a stalled stream: a trade after it shows that it is (`bars.is_quoted`).
QUOTES_MISSING_US = 5_000_000
_LOOK_BACK_US = 61_000_000  # the minute before a prediction that its features cover


class Gap(Struct):
    """Trades `first_id` to `last_id`, which happened between two instants, are missing."""

    first_id: int
    last_id: int
    from_us: int
    to_us: int
    cause: str = UNKNOWN

    @property
    def trades(self) -> int:
        return self.last_id - self.first_id + 1

    @property
    def is_missed(self) -> bool:
        """Whether its trades are missed: not those of a pause in which the symbol was not served."""
        return self.cause != NOT_SERVED


class QuoteGap(Struct):
    """No quote came between two instants."""

    from_us: int
    to_us: int
    cause: str = UNKNOWN


class Restart(Struct):
    """The exchange restarted the ids of its `kind` ("trades" or "quotes") between two instants: after
    `last_id` came `first_id`. The ids of what is missing there are not known."""

    kind: str
    last_id: int
    first_id: int
    from_us: int
    to_us: int


class GapRecord(Gap, kw_only=True):
    """A gap as readers get it, with its number of trades."""

    trades: int


class LedgerRecord(Struct, kw_only=True):
    """The ledger for readers, oldest first (docs/contracts.md)."""

    missing_trades: int
    forgotten_trades: int  # of those, in gaps dropped because the ledger was full
    gaps: list[GapRecord]
    quote_gaps: list[QuoteGap]
    restarts: list[Restart] = []


class Repairs(Struct):
    """Ranges of ids that were missing, each `[first_id, last_id, from_us, to_us]`: trades that are stored
    now, and trades that the exchange withholds."""

    repaired: list[list[int]]
    withheld: list[list[int]]


class GapLedger(Struct):
    gaps: list[Gap] = []
    quote_gaps: list[QuoteGap] = []
    notices: list[Notice] = []
    forgotten: int = 0  # trades in gaps dropped because the ledger was full
    restarts: list[Restart] = []

    def noticed(self, notices: tuple[Notice, ...]) -> None:
        """Add ingest's notices of what it may have missed; they may explain gaps found before or after."""
        self.notices = (self.notices + list(notices))[-MAX_NOTICES:]
        known: list[Gap | QuoteGap] = [*self.gaps, *self.quote_gaps]
        for gap in known:
            if gap.cause == UNKNOWN:
                gap.cause = self._cause(gap.from_us, gap.to_us)

    def missing(self, first_id: int, last_id: int, from_us: int, to_us: int) -> None:
        """A jump in trade ids: the trades before and after it happened at `from_us` and `to_us`."""
        from_us, to_us = min(from_us, to_us), max(from_us, to_us)
        self.gaps.append(Gap(first_id, last_id, from_us, to_us, self._cause(from_us, to_us)))
        while len(self.gaps) > MAX_GAPS:
            oldest = self.gaps.pop(0)
            self.forgotten += oldest.trades if oldest.is_missed else 0

    def arrived(self, first_id: int, last_id: int, times_us: Sequence[int] = ()) -> None:
        """Missing trades arrived after all, or were repaired; `times_us` as in `_is_of_time`."""
        left: list[Gap] = []
        for gap in self.gaps:
            if last_id < gap.first_id or first_id > gap.last_id or not _is_of_time(gap, times_us):
                left.append(gap)
                continue
            if gap.first_id < first_id:
                left.append(Gap(gap.first_id, first_id - 1, gap.from_us, gap.to_us, gap.cause))
            if last_id < gap.last_id:
                left.append(Gap(last_id + 1, gap.last_id, gap.from_us, gap.to_us, gap.cause))
        self.gaps = left

    def cut(self, first_id: int) -> None:
        """The ids from `first_id` on are still to come: the trade that made them seem missing was wrong."""
        self.gaps = [
            replace(gap, last_id=min(gap.last_id, first_id - 1))
            for gap in self.gaps
            if gap.first_id < first_id
        ]

    def restarted(self, restart: Restart) -> None:
        self.restarts = [*self.restarts, restart][-MAX_RESTARTS:]

    def settle(self, repaired: Iterable[Sequence[int]], withheld: Iterable[Sequence[int]]) -> None:
        """Apply the results of repair to ranges of ids, ends included: stored now, or withheld by the
        exchange.

        A range is `[first_id, last_id, from_us, to_us]`. Ids are unique only within a series: after the
        exchange restarts them, another trade has the same id, so a range is applied only to gaps of its
        time. Older versions wrote ranges without times, `[first_id, last_id]`: these apply at any time.

        Idempotent. Raises ValueError or TypeError on ranges of another form.
        """
        for first_id, last_id, *times_us in repaired:
            self.arrived(first_id, last_id, times_us)
        for first_id, last_id, *times_us in withheld:
            for gap in self.gaps:
                is_whole = first_id <= gap.first_id and gap.last_id <= last_id
                if is_whole and _is_of_time(gap, times_us):
                    gap.cause = WITHHELD

    def quotes_resumed(self, from_us: int, to_us: int) -> None:
        """The last quote before and the first after a silence; short ones are the market's own."""
        if to_us - from_us >= QUOTES_MISSING_US:
            gap = QuoteGap(from_us, to_us, self._cause(from_us, to_us))
            self.quote_gaps = [*self.quote_gaps, gap][-MAX_GAPS:]

    @property
    def trades(self) -> int:
        return sum(gap.trades for gap in self.gaps if gap.is_missed) + self.forgotten

    def _cause(self, from_us: int, to_us: int) -> str:
        """That of the notice which covers most of the span; of equal ones the shortest, then the newest.

        A symbol that is served again has the notice of its first tick, which covers nothing: it explains a
        pause that it ends, and no other hole."""
        added = [notice for notice in self.notices if notice.cause == NOT_SERVED]
        if to_us - from_us >= _PAUSE_US and any(from_us < each.to_us <= to_us for each in added):
            return NOT_SERVED
        notices = [notice for notice in self.notices if notice not in added]

        def fit(at: int) -> tuple[int, int, int]:
            notice = notices[at]
            covered_us = min(to_us, notice.to_us) - max(from_us, notice.from_us)
            return covered_us, notice.from_us - notice.to_us, at

        best = max(range(len(notices)), key=fit, default=None)
        if best is None or fit(best)[0] < -TOLERANCE_US:
            return UNKNOWN
        return notices[best].cause

    def record(self) -> LedgerRecord:
        return LedgerRecord(
            missing_trades=self.trades,
            forgotten_trades=self.forgotten,
            gaps=[GapRecord(**asdict(gap), trades=gap.trades) for gap in self.gaps],
            quote_gaps=self.quote_gaps,
            restarts=self.restarts,
        )

    @classmethod
    def from_record(cls, record: LedgerRecord) -> GapLedger:
        """The ledger of `record`, which has no notices."""
        gaps = [Gap(*astuple(gap)[:-1]) for gap in record.gaps]
        return cls(gaps, record.quote_gaps, forgotten=record.forgotten_trades, restarts=record.restarts)


def _is_of_time(gap: Gap, times_us: Sequence[int]) -> bool:
    """Whether a gap is between two instants, or near; without instants, always."""
    if not times_us:
        return True
    from_us, to_us = times_us
    return from_us - TOLERANCE_US <= gap.to_us and gap.from_us <= to_us + TOLERANCE_US


def touched_ms(gap: Gap) -> tuple[int, int]:
    """The predictions affected by a gap: made between two instants (ms), ends included."""
    return gap.from_us // 1000, -(-(gap.to_us + _LOOK_BACK_US) // 1000)

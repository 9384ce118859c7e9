"""One symbol where all connections of the task meet: its ids, claims, and what may be missing and why.

What only ingest knows is sent downstream as notices: between which instants ticks may have been missed, and
why. A jump in trade ids gets its own notice, with the exact times of the trades before and after it: the end
of a connection or a bad frame may be well apart from the trade that reveals the hole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tickcast.market import wire
from tickcast.market.id_series import IdSeries, quote_series, trade_series
from tickcast.market.liveness import Newest
from tickcast.market.ticks import Book, Quotes, Trades, span_us
from tickcast.market.wire import Notice

# A symbol without ticks claims at the pace of predictions: the other streams of its connection prove what has
# arrived. A claim that proves nothing new is repeated as a heartbeat.
CLAIM_EVERY_US = 100_000
REPEAT_CLAIM_US = 1_000_000
MAX_NOTICES = 50  # separate ones; further ones of a cause are merged

# Causes of notices.
STARTED = "ingest was not running"
UNREADABLE = "a frame could not be read"
OVERFLOW = "overflow: Kinesis was out of reach"
SKIPPED = "skipped by the exchange on an open connection"
REFUSED = "a tick that cannot be was refused"
RESTARTED = "the exchange started its ids over"


class Claim(NamedTuple):
    """What a connection claimed, and when (µs, host's clock)."""

    claim_us: int
    at_us: int

    def is_due(self, claim_us: int, now_us: int) -> bool:
        """Whether to claim again, up to `claim_us`, without ticks."""
        every_us = CLAIM_EVERY_US if claim_us > self.claim_us else REPEAT_CLAIM_US
        return not 0 <= now_us - self.at_us < every_us  # negative: the clock was set back


NO_CLAIM = Claim(-1, 0)


@dataclass
class SymbolFeed:
    symbol: str
    trade_series: IdSeries = field(default_factory=trade_series)
    quote_series: IdSeries = field(default_factory=quote_series)
    notices: list[Notice] = field(default_factory=list)  # to go with the next batch
    newest_us: int = 0  # exchange time of the newest tick
    newest_id: int | None = None  # the highest trade id of its series
    newest_trade_us: int = 0  # its exchange time
    book: Book | None = None  # the newest, on any connection
    quiet_us: int = wire.QUIET_UNKNOWN  # when the exchange last had nothing newer, its clock
    claims: dict[str, Claim] = field(default_factory=dict)  # the last of each connection
    outage: str | None = STARTED  # why no connection delivers; the next tick ends it
    hole_cause: str | None = None  # why trades may be missing before the next one

    @property
    def newest(self) -> Newest:
        newest_id = self.trade_series.newest_id
        return Newest(newest_id if newest_id >= 0 else None, self.book)

    def note(self, notice: Notice) -> None:
        """Add `notice`, merged only if there are many."""
        if len(self.notices) < MAX_NOTICES:
            self.notices.append(notice)
        else:
            self.note_merged(notice)

    def note_merged(self, notice: Notice) -> None:
        """Add `notice`, merged with another of the same cause: a flood must not fill a record."""
        for at, known in enumerate(self.notices):
            if known.cause == notice.cause:
                from_us, to_us = min(known.from_us, notice.from_us), max(known.to_us, notice.to_us)
                self.notices[at] = Notice(notice.cause, from_us, to_us)
                return
        self.notices.append(notice)

    def take_notices(self) -> tuple[Notice, ...]:
        notices, self.notices = tuple(self.notices), []
        return notices

    def note_refused(self, cause: str, *, may_be_trades: bool) -> None:
        """Something was refused; its own time is unknown or not trusted."""
        self.note_merged(Notice(cause, self.newest_us, self.newest_us))
        if may_be_trades:
            self.hole_cause = self.hole_cause or cause

    def note_outage(self, cause: str) -> None:
        """No connection delivers any longer."""
        self.outage = self.outage or cause
        self.hole_cause = self.hole_cause or cause

    def advance(self, trades: Trades, quotes: Quotes) -> None:
        """One or more ticks of the symbol arrived."""
        if len(quotes):
            newest = quotes[quotes["update_id"].argmax()]
            if newest["update_id"] >= self.quote_series.newest_id:
                bid_price, bid_qty, ask_price, ask_qty = newest.tolist()[3:]
                self.book = bid_price, bid_qty, ask_price, ask_qty
        span = span_us(trades, quotes)
        assert span is not None  # a symbol without ticks is not packed
        first_us, last_us = span
        if self.outage:
            lost = Notice(self.outage, self.newest_us or first_us, first_us)
            if lost not in self.notices:  # it may have been added as the notice of a hole
                self.notices.append(lost)
            self.outage = None
        self.newest_us = max(self.newest_us, last_us)

    def note_holes(self, runs: list[Trades], *, has_bad_frames: bool) -> None:
        """Add notices of the jumps in the trade ids of `runs`, each but the first of a new series of ids.
        `has_bad_frames`: some of the frames that they came with could not be read."""
        for n, run in enumerate(runs):
            if n:
                self.note(Notice(RESTARTED, self.newest_trade_us, int(run["time_us"][0])))
                self.newest_id = None
            if len(run):
                self._note_holes(run, has_bad_frames=has_bad_frames)

    def _note_holes(self, trades: Trades, *, has_bad_frames: bool) -> None:
        trades = trades[np.argsort(trades["first_id"], kind="stable")]  # buffers return them in any order
        first_id, last_id, time_us = trades["first_id"], trades["last_id"], trades["time_us"]
        before_id = self.newest_id if self.newest_id is not None else int(first_id[0]) - 1
        reached = np.maximum.accumulate(np.concatenate([[before_id], last_id]))
        since_us = np.concatenate([[self.newest_trade_us], time_us])
        for row in np.flatnonzero(first_id > reached[:-1] + 1).tolist():
            cause = self.hole_cause or (UNREADABLE if has_bad_frames else SKIPPED)
            self.note(Notice(cause, int(since_us[row]), int(time_us[row])))
        if reached[-1] > before_id:
            self.newest_id, self.newest_trade_us = int(reached[-1]), int(time_us[last_id.argmax()])
        # Whether a bad frame came before these trades or after them is not known: it may explain later holes.
        self.hole_cause = UNREADABLE if has_bad_frames else None

"""The bar ring: the state of one symbol; features are a pure function of it.

A bar stays *open*, with its ticks, until it is needed and the watermark (`market.watermark`) has passed its
end by the allowed lateness; then it is summarised once. To keep the state small, bars are kept for the five
seconds that need their resolution, whole seconds for the minute.

A *view* shows the bars as of an instant, from what has arrived: the closed ones, then the open ones up to
that instant. Predictions are made of views, so that none waits for a bar to close.

A tick that arrives after its bar was closed is *late*: it is counted and its id listed, but not added to the
closed bar. If the disorder in the stream is below `lateness_us` no tick is late, however the stream is cut
into batches.

Reference quotes (the perpetual's) are kept with the ticks of open bars. They close no bar: only the claims
and the ticks of the spot stream do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tickcast.features.bars import (
    BAR,
    BAR_US,
    BARS_PER_S,
    NO_BAR,
    SECOND,
    SILENCE_US,
    Bars,
    Ints,
    Seconds,
    bar_index,
    summarise,
    whole_seconds,
)
from tickcast.features.quote_ids import QuoteIds
from tickcast.features.reference_quotes import ReferenceQuotes, newest_of_bars
from tickcast.features.trade_ids import TradeIds
from tickcast.market.gaps import GapLedger
from tickcast.market.ticks import QUOTE, TRADE, Quotes, TickArray, TickRow, Trades, joined, selected, span_us
from tickcast.market.watermark import Watermark
from tickcast.market.wire import TickBatch
from tickcast.units import SECOND_US

KEPT_BARS = 5 * BARS_PER_S + 1  # five seconds, and the bar that their returns start from
VIEWED_BARS = KEPT_BARS + 1  # with the bar that is partial
KEPT_SECONDS = 61  # a minute, and the second that its returns start from
MAX_OPEN_TICKS = 500  # beyond that, bars that the watermark has passed are closed before they are needed
MAX_HELD_TICKS = 10_000  # open ones without a watermark; about half a second of a full shard


class Refused(NamedTuple):
    """A tick with an impossible id, as a row of TRADE or QUOTE, and why."""

    dtype: np.dtype[Any]
    row: TickRow
    reason: str


class View(NamedTuple):
    """The bars and seconds as of an instant, from the ticks before it that had arrived.

    `bars` are closed up to `closed_us`; those after it were made from the ticks in `trade_ids` and
    `update_ids` (ascending; trades by their first id) and the reference quotes in `reference_ids` (update ids
    in the order of time, of each bar the newest), and may change until they are closed. The last one ends at
    `as_of_us` and is partial where that is within a bar. Bars and seconds are empty in a silence of more than
    a minute, and before the first tick.
    """

    as_of_us: int
    closed_us: int
    history_from_us: int
    bars: Bars
    seconds: Seconds
    trade_ids: Ints
    update_ids: Ints
    reference_ids: Ints


class _Rows(NamedTuple):
    """The bars and seconds of a segment of history, and where it starts."""

    history_from_us: int
    bars: Bars
    seconds: Seconds


@dataclass
class BarRing:
    """The newest closed bars and seconds of one symbol, the ticks of the open bars, its ids, gaps and
    watermark."""

    lateness_us: int
    next_bar: int = -1  # the first open bar; -1 until the first tick
    history_from_us: int = -1  # start of the segment of `bars` and `seconds`
    bars: Bars = field(default_factory=lambda: np.empty(0, BAR))
    seconds: Seconds = field(default_factory=lambda: np.empty(0, SECOND))
    open_trades: Trades = field(default_factory=lambda: np.empty(0, TRADE))
    open_quotes: Quotes = field(default_factory=lambda: np.empty(0, QUOTE))
    open_reference: Quotes = field(default_factory=lambda: np.empty(0, QUOTE))  # in order
    received_us: int = -1  # when ingest received the newest tick
    watermark: Watermark = field(default_factory=Watermark)
    trade_ids: TradeIds = field(default_factory=TradeIds)
    quote_ids: QuoteIds = field(default_factory=QuoteIds)
    reference: ReferenceQuotes = field(default_factory=ReferenceQuotes)
    gaps: GapLedger = field(default_factory=GapLedger)
    refused: list[Refused] = field(default_factory=list)  # until the caller takes them; not stored

    @property
    def closed_us(self) -> int:
        """The instant up to which bars are closed, µs."""
        return self.next_bar * BAR_US

    @property
    def as_of_us(self) -> int:
        """The instant that bars are known as of, µs: the end of the millisecond of the newest claim, so that
        ticks of its own time count."""
        return max((self.watermark.newest_us // 1000 + 1) * 1000, self.closed_us)

    @property
    def late_count(self) -> int:
        """All trades and quotes of the spot market that arrived late."""
        return self.trade_ids.late_count + self.quote_ids.late_count

    def fold(self, batch: TickBatch, every_us: int) -> Iterator[int]:
        """Add `batch` and close the bars that are due; yields each closed multiple of `every_us`, in order.

        Until the caller resumes after a yielded instant (µs), the newest row of `bars` is the bar that ends
        there. Instants within a silence of a minute or more are not yielded: nothing is computed for them.
        """
        self.gaps.noticed(batch.notices)
        self._take(batch.trades, batch.quotes)
        if len(batch.reference):
            self.open_reference = self.reference.merged(self.open_reference, batch.reference, self.closed_us)
        self.watermark.update(batch.connection, batch.watermark_us, batch.quiet_us)
        due = max(bar_index(self.watermark.reached_us - self.lateness_us), self._due_by_count())
        if self.next_bar < 0:
            return
        step = every_us // BAR_US
        while self.next_bar < due:
            self._skip_silence(due)
            instant = (self.next_bar // step + 1) * step
            if instant > due:
                # Nothing is needed before the next instant, and one pass over its ticks costs as much as one
                # over a tenth of them; but the state must not carry a burst.
                if len(self.open_trades) + len(self.open_quotes) > MAX_OPEN_TICKS:
                    self._close(due)
                return
            self._close(instant)
            yield instant * BAR_US

    def _due_by_count(self) -> int:
        """The bar up to which bars are closed although no watermark has passed them: so far that at most
        `MAX_HELD_TICKS` newer ticks stay open. 0 while there are no more than that.

        Without claims (no connection is known to be caught up) the state would grow without bound. The number
        of ticks decides, not the time of the newest one, which may be an outlier.
        """
        if len(self.open_trades) + len(self.open_quotes) <= MAX_HELD_TICKS:
            return 0
        times_us = np.concatenate([self.open_trades["time_us"], self.open_quotes["time_us"]])
        return bar_index(int(np.partition(times_us, -MAX_HELD_TICKS)[-MAX_HELD_TICKS])) + 1

    def view(self, as_of_us: int | None = None) -> View:
        """The bars as of `as_of_us` (whole ms; by default the newest claim's, `as_of_us` of the ring), from
        the ticks before it, as at a bar's end. What is closed already is part of every view: the earliest is
        as of `closed_us`. The ring stays as it is."""
        as_of_us = max(self.as_of_us if as_of_us is None else as_of_us, self.closed_us)
        if as_of_us % 1000:
            raise ValueError(f"a view as of {as_of_us} µs, which is no whole millisecond")
        trades, quotes = (_before(ticks, as_of_us) for ticks in (self.open_trades, self.open_quotes))
        reference = newest_of_bars(_before(self.open_reference, as_of_us))
        if self.next_bar < 0:
            rows = _Rows(-1, self.bars, self.seconds)
        else:
            rows = self._extended(trades, quotes, reference, as_of_us)
        if rows.history_from_us >= self.closed_us:  # older ones are part of no bar
            trades, quotes, reference = (
                selected(ticks, ticks["time_us"] >= rows.history_from_us)
                for ticks in (trades, quotes, reference)
            )
        ids = np.sort(trades["first_id"]), np.sort(quotes["update_id"]), reference["update_id"].copy()
        return View(as_of_us, self.closed_us, *rows, *ids)

    def _skip_silence(self, due: int) -> None:
        """If more than a minute without a tick is due, continue at the next tick, or at the end."""
        if (due - self.next_bar) * BAR_US <= SILENCE_US:
            return
        open_span = span_us(self.open_trades, self.open_quotes)
        until = min(due, bar_index(open_span[0])) if open_span else due
        if (until - self.next_bar) * BAR_US > SILENCE_US:
            self._start_segment(until)

    def _start_segment(self, bar: int) -> None:
        """Start a segment at `bar`: features use nothing from before it."""
        self.next_bar, self.history_from_us = bar, bar * BAR_US
        self.bars, self.seconds = np.empty(0, BAR), np.empty(0, SECOND)

    def _take(self, trades: Trades, quotes: Quotes) -> None:
        if self.next_bar < 0 and (span := span_us(trades, quotes)):
            # Bars before the first tick are empty; starting below it leaves room for disorder.
            self._start_segment(bar_index(span[0] - self.lateness_us))
        for rows in (trades, quotes):
            if len(rows):
                self.received_us = max(self.received_us, int(rows["receive_time_us"].max()))
        if len(trades):
            self._take_trades(trades)
        if len(quotes):
            self._take_quotes(quotes)

    def _take_trades(self, trades: Trades) -> None:
        new, refused = self.trade_ids.admit(trades, self.gaps)
        self.refused += [Refused(TRADE, row, reason) for row, reason in refused]
        self.open_trades = joined(self.open_trades, self.trade_ids.in_time(new, self.closed_us))

    def _take_quotes(self, quotes: Quotes) -> None:
        (*ended, newest), refused = self.quote_ids.admit(quotes, self.gaps)
        self.refused += [Refused(QUOTE, row, reason) for row, reason in refused]
        if ended:
            # Ids order the quotes of a bar: in the bar that both share, those of the series that ended are
            # dropped.
            earlier = np.concatenate([self.open_quotes, *ended])
            first_us = int(newest["time_us"][0])
            self.open_quotes = earlier[earlier["time_us"] < first_us // BAR_US * BAR_US]
        self.open_quotes = self.quote_ids.merged(self.open_quotes, newest, self.closed_us, self.gaps)

    def _close(self, until_bar: int) -> None:
        """Summarise the open bars before `until_bar` and keep what features need."""
        if until_bar <= self.next_bar:
            return
        end_us = until_bar * BAR_US
        trades_due = self.open_trades["time_us"] < end_us
        quotes_due = self.open_quotes["time_us"] < end_us
        trades, quotes = selected(self.open_trades, trades_due), selected(self.open_quotes, quotes_due)
        reference = _before(self.open_reference, end_us)
        self.history_from_us, bars, self.seconds = self._extended(trades, quotes, reference, end_us)
        self.bars = bars[-KEPT_BARS:]
        self.open_trades = selected(self.open_trades, ~trades_due)
        self.open_quotes = selected(self.open_quotes, ~quotes_due)
        self.open_reference = self.open_reference[len(reference) :]
        self.next_bar = until_bar
        self.quote_ids.close(quotes)
        self.reference.close(reference)

    def _extended(self, trades: Trades, quotes: Quotes, reference: Quotes, until_us: int) -> _Rows:
        """What is closed, followed by the bars up to `until_us`, made from these open ticks and reference
        quotes before it."""
        first, (from_us, bars, seconds) = self.next_bar, _Rows(self.history_from_us, self.bars, self.seconds)
        start = self._segment_start(trades, quotes, until_us)
        if start is not None:
            first, from_us, bars, seconds = start, start * BAR_US, bars[:0], seconds[:0]
            trades, quotes = (selected(ticks, ticks["time_us"] >= from_us) for ticks in (trades, quotes))
        if until_us > first * BAR_US:
            before = bars[-1] if len(bars) else NO_BAR
            rows = summarise(trades, quotes, first, until_us, before, reference)
            bars = joined(bars, rows)
            if until_us // SECOND_US > first // BARS_PER_S:
                # From the start of the second that was open: `KEPT_BARS` reaches back further than that.
                newest = min(len(rows) + first % BARS_PER_S, len(bars))
                seconds = joined(seconds, whole_seconds(bars, newest))[-KEPT_SECONDS:]
        return _Rows(from_us, bars[-VIEWED_BARS:], seconds)

    def _segment_start(self, trades: Trades, quotes: Quotes, until_us: int) -> int | None:
        """The bar with which a segment starts, after the last silence of more than a minute before
        `until_us`; None if there is none since the newest bar."""
        known_us = self.history_from_us
        if len(self.bars):
            newest = self.bars[-1]
            known_us = max(known_us, int(newest["last_trade_us"]), int(newest["last_quote_us"]))
        if until_us - known_us <= SILENCE_US:
            return None
        times_us = np.sort(np.concatenate([[known_us], trades["time_us"], quotes["time_us"]]))
        breaks = np.flatnonzero(np.diff(times_us) > SILENCE_US)
        if len(breaks):
            return bar_index(int(times_us[breaks[-1] + 1]))
        until, has_ticks = bar_index(until_us), len(times_us) > 1
        return until if not has_ticks and (until - self.next_bar) * BAR_US > SILENCE_US else None


def differences(ids: Ints) -> list[int]:
    """Ascending `ids` as receipts list them: the first, then each less the one before."""
    listed: list[int] = np.diff(ids, prepend=0).tolist()
    return listed


def from_differences(listed: list[int]) -> Ints:
    """The ids that were `listed` so."""
    return np.cumsum(np.array(listed, np.int64))


def _before(ticks: TickArray, time_us: int) -> TickArray:
    """Those of `ticks` before `time_us`."""
    if not len(ticks):
        return ticks
    is_before = ticks["time_us"] < time_us
    return ticks if is_before.all() else selected(ticks, is_before)

"""The newest quotes of the perpetuals, waiting to go along with the batches of their spot symbols.

A perpetual's book changes hundreds of times a second. The newest quote of each 50 ms is kept, by the time of
its transaction, and is sent once, on whichever connection of the symbol the next batch is. What does not go
soon is of no use: it is dropped, without a notice, for readers see from the time of the newest how old it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ingest_ecs.feed_buffer import FeedBuffer, RefusedFrame, RefusedTicks
from ingest_ecs.quarantine import Refusals
from tickcast.market.id_series import IdSeries, quote_series
from tickcast.market.perpetuals import perpetual_of
from tickcast.market.ticks import NO_QUOTES, QUOTE, QuoteRow, Quotes, TickError, quotes_array, trades_array

CONFLATED_US = 50_000
KEPT_US = 2_000_000  # of waiting quotes, before the newest: older ones count as absent

_NO_TRADES = trades_array([])
SawQuotes = Callable[[int, str], None]  # connection, perpetual


class ReferenceFeed:
    """`perpetuals` are the streams that the spot `symbols` want. `last_received_us` is when the newest quote
    of a spot symbol's perpetual was received (host's clock, µs)."""

    def __init__(self, symbols: Iterable[str], refusals: Refusals) -> None:
        self._refusals = refusals
        self._series: dict[str, IdSeries] = {}
        self._newest_id: dict[str, int] = {}  # update id of the newest quote kept, by perpetual
        self._waiting: dict[str, dict[int, QuoteRow]] = {}  # by spot symbol: by 50 ms, the newest
        self._buffers: list[FeedBuffer] = []
        self.saw_quotes: SawQuotes = lambda connection, perpetual: None
        self.last_received_us: dict[str, int] = {}
        self.follow(symbols)

    def follow(self, symbols: Iterable[str]) -> None:
        """Keep the quotes of the perpetuals of `symbols` from now on."""
        spot_of: dict[str, list[str]] = {}
        for symbol in symbols:
            if perpetual := perpetual_of(symbol):
                spot_of.setdefault(perpetual, []).append(symbol)
        self._spot_of = spot_of  # at once, for `/health` reads it from another thread
        self._series = {
            perpetual: self._series.get(perpetual) or quote_series() for perpetual in self._spot_of
        }
        self._newest_id = {name: id_ for name, id_ in self._newest_id.items() if name in self._spot_of}
        served = set(self.symbols)
        self._waiting = {symbol: quotes for symbol, quotes in self._waiting.items() if symbol in served}
        self.last_received_us = {s: at_us for s, at_us in self.last_received_us.items() if s in served}

    @property
    def perpetuals(self) -> tuple[str, ...]:
        return tuple(self._spot_of)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The spot symbols that have a perpetual."""
        return tuple(symbol for symbols in self._spot_of.values() for symbol in symbols)

    def attach(self, buffer: FeedBuffer) -> None:
        """Collect the quotes of `buffer` from now on."""
        self._buffers.append(buffer)

    def detach(self, buffer: FeedBuffer) -> None:
        """The connection of `buffer` ended."""
        self._collect_from(buffer)
        buffer.refuse_undecided()
        self._take_refused(buffer)
        self._buffers.remove(buffer)

    def collect(self) -> None:
        """Decode what the connections brought."""
        for buffer in self._buffers:
            self._collect_from(buffer)

    def take(self, symbol: str) -> Quotes:
        """What waits for the spot `symbol`, in the order of time; it waits no longer."""
        waiting = self._waiting.pop(symbol, None)
        return quotes_array(waiting[at] for at in sorted(waiting)) if waiting else NO_QUOTES

    def _collect_from(self, buffer: FeedBuffer) -> None:
        try:
            quotes_of = buffer.drain().quotes
        except Exception as error:  # whatever came, the spot market is packed in the same turn
            quotes_of = {}
            self._refusals.add(RefusedFrame(b"", error), buffer.name)
        self._take_refused(buffer)
        for perpetual, quotes in quotes_of.items():
            self.saw_quotes(buffer.number, perpetual)
            if perpetual in self._spot_of:
                self._keep(perpetual, quotes, buffer.name)

    def _keep(self, perpetual: str, quotes: Quotes, connection: str) -> None:
        series = self._series[perpetual]
        admission = series.admit(quotes)
        for reason in {reason for _, reason in admission.refused}:
            rows = np.array([row for row, why in admission.refused if why == reason], QUOTE)
            error = TickError(f"{perpetual}: {reason}")
            self._refusals.add(RefusedTicks(perpetual, _NO_TRADES, rows, error), connection)
        for number, run in enumerate(admission.runs):
            if number:  # the exchange started its ids over
                self._newest_id.pop(perpetual, None)
            self._conflate(perpetual, run)

    def _conflate(self, perpetual: str, quotes: Quotes) -> None:
        """Let `quotes` wait, of which those that another connection brought before are repeats."""
        is_new = quotes["update_id"] > self._newest_id.get(perpetual, -1)
        rows: list[QuoteRow] = np.sort(quotes[is_new], order="update_id").tolist()
        if not rows:
            return
        self._newest_id[perpetual] = rows[-1][2]
        for symbol in self._spot_of[perpetual]:
            waiting = self._waiting.setdefault(symbol, {})
            waiting.update((row[0] // CONFLATED_US, row) for row in rows)
            oldest = max(waiting) - KEPT_US // CONFLATED_US
            for at in [at for at in waiting if at < oldest]:
                del waiting[at]
            self.last_received_us[symbol] = rows[-1][1]

    def _take_refused(self, buffer: FeedBuffer) -> None:
        refused, buffer.refused = buffer.refused, []
        for each in refused:
            self._refusals.add(each, buffer.name)

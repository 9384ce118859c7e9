"""Ticks into Kinesis: one wire batch per symbol and linger, in order, without losing accepted ticks.

The producer packs the ticks of the connections' buffers into records (`SymbolFeed` knows what may be
missing), and the writer puts them from the outbox, independently: a call to Kinesis may take seconds. When
the outbox is full the oldest batch of the longest queue is dropped, counted, and reported downstream as a
notice, for REST to repair.

The newest quotes of a symbol's perpetual go along with its batches (`ReferenceFeed`).

Ids are checked here, where all connections of the task meet. Refused ticks are counted by reason and put into
quarantine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from aws_lambda_powertools import Logger

from ingest_ecs.feed_buffer import FeedBuffer, RefusedFrame, RefusedTicks
from ingest_ecs.kinesis_writer import Counts, ExchangeNow, KinesisWriter
from ingest_ecs.outbox import Outbox, Record
from ingest_ecs.quarantine import QuarantineSink, Refusals
from ingest_ecs.reference_feed import ReferenceFeed
from ingest_ecs.symbol_feed import (
    NO_CLAIM,
    OVERFLOW,
    REFUSED,
    RESTARTED,
    UNREADABLE,
    Claim,
    SymbolFeed,
)
from tickcast.market import wire
from tickcast.market.gaps import NOT_SERVED
from tickcast.market.id_series import IdSeries, RefusedRow
from tickcast.market.liveness import Newest, Stall
from tickcast.market.sources import Source
from tickcast.market.ticks import (
    TRADE,
    Quotes,
    TickArray,
    TickError,
    Trades,
    quotes_array,
    span_us,
    trades_array,
)
from tickcast.market.wire import Notice

MAX_TICKS_PER_RECORD = 10_000  # 600 KB, within Kinesis' 1 MB a record
NO_CONNECTION = "none"  # of ticks refused after the last connection ended

_NO_TRADES, _NO_QUOTES = trades_array([]), quotes_array([])


class Producer:
    """`run` packs the buffers' ticks into records and puts them, until `drain` was called and all are put.

    `saw_data(connection, symbol, kind)` is called for each stream that delivered, and `quarantine(data,
    reason, connection)` with refused data. The ticks of `busy_symbol`, unless it is one of `symbols`, only
    show that a connection is alive. `exchange_now_us` is the exchange's clock, as far as it is known, and
    `check_claim` gets every claim.
    """

    def __init__(
        self,
        kinesis: Any,
        stream_name: str,
        symbols: tuple[str, ...],
        source: str,
        linger_s: float,
        logger: Logger,
        saw_data: Callable[[int, str, str], None] = lambda connection, symbol, kind: None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        busy_symbol: str | None = None,
        quarantine: QuarantineSink = lambda data, reason, connection: None,
        exchange_now_us: ExchangeNow = lambda: None,
        check_claim: Callable[[int], None] = lambda claim_us: None,
    ) -> None:
        self._source = source
        self._linger_s = linger_s
        self._logger = logger
        self._saw_data = saw_data
        self._now_us = now_us
        self._exchange_now_us = exchange_now_us
        self._check_claim = check_claim
        self._busy_symbol = busy_symbol
        self._feeds = {symbol: SymbolFeed(symbol) for symbol in symbols}
        self._removed: set[str] = set()  # symbols that a connection may still bring
        self._buffers: list[FeedBuffer] = []
        self._refusals = Refusals(source, logger, quarantine)
        # Whose buffers `ReferenceStream` attaches, if the task has one.
        self.reference = ReferenceFeed(symbols, self._refusals.of(Source(source).reference))
        self._draining = asyncio.Event()
        self.counts = Counts()
        self.outbox = Outbox(symbols)
        self.writer = KinesisWriter(kinesis, stream_name, self.outbox, self.counts, logger, exchange_now_us)
        self.bad_frames = self._refusals.counts
        self.last_tick_us: dict[str, int] = {}  # local time, by symbol

    @property
    def symbols(self) -> tuple[str, ...]:
        """Those served now."""
        return tuple(self._feeds)

    def serves(self, symbol: str) -> bool:
        return symbol in self._feeds

    def follow(self, symbols: tuple[str, ...]) -> None:
        """Serve `symbols` from now on: of the others nothing more is packed, what came of them is put."""
        self.pack()
        for symbol, feed in self._feeds.items():
            if symbol not in symbols:
                self._refuse_suspects(feed)
                self.last_tick_us.pop(symbol, None)
        self._removed = (self._removed | self._feeds.keys()) - set(symbols)
        self._feeds = {
            symbol: self._feeds.get(symbol) or SymbolFeed(symbol, outage=NOT_SERVED) for symbol in symbols
        }
        self.reference.follow(symbols)

    # ------------------------------------------------------------------------------------------ events

    def attach(self, buffer: FeedBuffer) -> None:
        """Pack the ticks of `buffer` from now on."""
        self._buffers.append(buffer)

    def detach(self, buffer: FeedBuffer, reason: str) -> None:
        """The connection of `buffer` ended; if no other delivers, an outage begins."""
        for each in self._buffers:  # ticks still in the other buffers count as delivered
            self._pack_buffer(each)
        buffer.refuse_undecided()
        self._take_refused(buffer)
        self._buffers.remove(buffer)
        for feed in self._feeds.values():
            self._withdraw(feed, buffer)
        for symbol, feed in self._feeds.items():
            if not any(other.delivers(symbol) for other in self._buffers):
                feed.note_outage(reason)

    def note_stall(self, stall: Stall) -> None:
        """A stream delivered nothing for so long that ticks were probably missed."""
        feed, now_us = self._feeds[stall.symbol], self._now_us() - self._host_offset_us()
        cause = f"no {stall.kind} came on an open connection"
        feed.notices.append(Notice(cause, now_us - int(stall.seconds * 1e6), now_us))
        if stall.kind == "trades":
            feed.hole_cause = feed.hole_cause or cause

    def newest(self, symbol: str) -> Newest:
        """The newest of `symbol` on any connection."""
        return self._feeds[symbol].newest

    def note_quiet(self, symbol: str, at_us: int) -> None:
        """At the local time `at_us` the exchange had nothing of `symbol` newer than what was received."""
        feed = self._feeds[symbol]
        feed.quiet_us = max(feed.quiet_us, at_us - self._host_offset_us())
        for name, claim in feed.claims.items():  # so that a claim carries it at once
            feed.claims[name] = claim._replace(at_us=0)

    def _host_offset_us(self) -> int:
        """The host's clock less the exchange's; 0 where it is not known."""
        exchange_us = self._exchange_now_us()
        return 0 if exchange_us is None else self._now_us() - exchange_us

    def drain(self) -> None:
        """Put what the buffers hold, then let `run` return."""
        self._draining.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pack_each_linger())
            both.create_task(self.writer.run())

    async def _pack_each_linger(self) -> None:
        while not self._draining.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger_s):
                    await self._draining.wait()
            self.pack()
        self.pack()
        for feed in self._feeds.values():  # nothing more will arrive to confirm suspect ids
            self._refuse_suspects(feed)
        self.writer.finish()

    def count_dropped(self, *lost: list[Record]) -> None:
        """The `lost` records will not be put."""
        self.counts.dropped_records += sum(len(records) for records in lost)
        self.counts.dropped_ticks += sum(record.ticks for records in lost for record in records)

    # ------------------------------------------------------------------------------------------ packing

    def pack(self) -> None:
        """Pack the buffers' ticks into records; a symbol without ticks gets claims alone."""
        self.reference.collect()
        for buffer in self._buffers:
            self._pack_buffer(buffer)
        now_us = self._now_us()
        for symbol, feed in self._feeds.items():
            for buffer in self._buffers:
                claim_us = buffer.claim_us(symbol, now_us)
                if claim_us is None:
                    self._withdraw(feed, buffer)
                elif feed.claims.get(buffer.name, NO_CLAIM).is_due(claim_us, now_us):
                    self._enqueue(feed, buffer, _NO_TRADES, _NO_QUOTES, claim_us)

    def _withdraw(self, feed: SymbolFeed, buffer: FeedBuffer) -> None:
        """Withdraw the claim of `buffer`'s connection, so that bars do not wait for it."""
        if feed.claims.pop(buffer.name, None) is not None:
            self._enqueue(feed, buffer, _NO_TRADES, _NO_QUOTES, wire.WATERMARK_WITHDRAWN)

    def _pack_buffer(self, buffer: FeedBuffer) -> None:
        ticks = buffer.drain()
        self._take_refused(buffer)
        for symbol in {*ticks.trades, *ticks.quotes}:
            trades = ticks.trades.get(symbol, _NO_TRADES)
            quotes = ticks.quotes.get(symbol, _NO_QUOTES)
            feed = self._feeds.get(symbol)
            if feed is None and symbol == self._busy_symbol:
                self._saw_data(buffer.number, symbol, "trades" if len(trades) else "quotes")
            elif symbol in self._removed:
                continue
            elif feed is None:
                error = KeyError(f"symbol {symbol} was not subscribed")
                self._refuse_ticks(buffer.name, RefusedTicks(symbol, trades, quotes, error))
            else:
                self._pack_symbol(buffer, feed, trades, quotes, has_bad_frames=bool(ticks.errors))

    def _pack_symbol(
        self, buffer: FeedBuffer, feed: SymbolFeed, trades: Trades, quotes: Quotes, *, has_bad_frames: bool
    ) -> None:
        for kind, rows in (("trades", trades), ("quotes", quotes)):
            if len(rows):
                self._saw_data(buffer.number, feed.symbol, kind)
        trade_runs = self._admit(buffer, feed, feed.trade_series, trades)
        feed.note_holes(trade_runs, has_bad_frames=has_bad_frames)
        trades = np.concatenate(trade_runs)
        quotes = np.concatenate(self._admit(buffer, feed, feed.quote_series, quotes))
        if not len(trades) and not len(quotes):
            return
        now_us = self._now_us()
        feed.advance(trades, quotes)
        self.counts.ticks_in += len(trades) + len(quotes)
        self.last_tick_us[feed.symbol] = now_us
        self._enqueue_ticks(feed, buffer, trades, quotes, buffer.claim_us(feed.symbol, now_us))

    def _admit(
        self, buffer: FeedBuffer, feed: SymbolFeed, series: IdSeries, rows: TickArray
    ) -> list[TickArray]:
        """The runs of `rows` with possible ids: each but the first starts a new series."""
        before_id = series.newest_id
        admission = series.admit(rows)
        if len(admission.runs) > 1:
            ids = {"symbol": feed.symbol, "before": before_id, "now": series.newest_id}
            self._logger.error(RESTARTED, extra=ids)
        self._refuse_rows(buffer.name, feed, admission.refused, series)
        return admission.runs

    def _enqueue_ticks(
        self, feed: SymbolFeed, buffer: FeedBuffer, trades: Trades, quotes: Quotes, claim_us: int | None
    ) -> None:
        """Queue one record, or several if a burst does not fit; only the last may claim completeness."""
        while len(trades) + len(quotes) > MAX_TICKS_PER_RECORD:
            some = trades[:MAX_TICKS_PER_RECORD]
            rest = MAX_TICKS_PER_RECORD - len(some)
            self._enqueue(feed, buffer, some, quotes[:rest], wire.NO_WATERMARK)
            trades, quotes = trades[len(some) :], quotes[rest:]
        self._enqueue(feed, buffer, trades, quotes, wire.NO_WATERMARK if claim_us is None else claim_us)

    def _enqueue(
        self, feed: SymbolFeed, buffer: FeedBuffer, trades: Trades, quotes: Quotes, watermark_us: int
    ) -> None:
        batch = wire.TickBatch(
            feed.symbol,
            self._source,
            buffer.name,
            watermark_us,
            trades,
            quotes,
            feed.take_notices(),
            feed.quiet_us,
            self._host_offset_us(),
            reference=self.reference.take(feed.symbol),
        )
        self.counts.references_in += len(batch.reference)
        if watermark_us >= 0:
            feed.claims[buffer.name] = Claim(watermark_us, self._now_us())
            self._check_claim(watermark_us)
        for dropped in self.outbox.add(Record(feed.symbol, wire.encode(batch), len(trades) + len(quotes))):
            self._note_dropped(dropped)
        self.writer.wake()

    def _note_dropped(self, record: Record) -> None:
        """Move the notices of a dropped record to the next one, with a notice of its ticks."""
        feed, batch = self._feeds.get(record.symbol), wire.decode(record.data)
        self.count_dropped([record])
        notices = list(batch.notices)
        if span := span_us(batch.trades, batch.quotes):
            notices.append(Notice(OVERFLOW, *span))
        if feed:  # of a removed symbol there is no next record
            for notice in notices:
                feed.note_merged(notice)
        ids = batch.trades["first_id"]
        self._logger.error(
            "ticks dropped: Kinesis has been out of reach for longer than the queue holds",
            extra={
                "symbol": record.symbol,
                "ticks": record.ticks,
                "trade_ids": [int(ids.min()), int(ids.max())] if len(ids) else [],
            },
        )

    # ---------------------------------------------------------------------------------------- refusing

    def _take_refused(self, buffer: FeedBuffer) -> None:
        refused, buffer.refused = buffer.refused, []
        for each in refused:
            if isinstance(each, RefusedFrame):
                self._refusals.add(each, buffer.name)
                for feed in self._feeds.values():  # its symbol is not known
                    feed.note_refused(UNREADABLE, may_be_trades=True)
            else:
                self._refuse_ticks(buffer.name, each)

    def _refuse_suspects(self, feed: SymbolFeed) -> None:
        for series in (feed.trade_series, feed.quote_series):
            self._refuse_rows(NO_CONNECTION, feed, series.refuse_suspects(), series)

    def _refuse_rows(
        self, connection: str, feed: SymbolFeed, refused: list[RefusedRow], series: IdSeries
    ) -> None:
        dtype = series.pace.dtype
        for reason in {reason for _, reason in refused}:
            rows = np.array([row for row, why in refused if why == reason], dtype)
            trades, quotes = (rows, _NO_QUOTES) if dtype == TRADE else (_NO_TRADES, rows)
            error = TickError(f"{feed.symbol}: {reason}")
            self._refuse_ticks(connection, RefusedTicks(feed.symbol, trades, quotes, error))

    def _refuse_ticks(self, connection: str, refused: RefusedTicks) -> None:
        self._refusals.add(refused, connection)
        if feed := self._feeds.get(refused.symbol):
            feed.note_refused(REFUSED, may_be_trades=len(refused.trades) > 0)

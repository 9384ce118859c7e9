"""One symbol's market: what happened so far, what of it was sent, and the pace at which it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from local.exchange.book import Book, synthetic_levels
from local.exchange.encoding import Json, Sbe, stream_name
from local.exchange.events import Event, Feed, Levels, Quote, Sending, Trade
from local.exchange.history import AGG_TRADES_PER_S, MAX_AGG_TRADES, QuoteHistory, TradeHistory

TICK_S = 0.005  # events that fall due within this time go out together
_MAX_BATCH = 500  # then other tasks have their turn, also when there is much to catch up with

Now = Callable[[], int]  # the exchange's clock, µs


async def pace(feed: Feed, now_us: Now, publish: Callable[[Sequence[Sending]], None]) -> None:
    """Publish every event of `feed` when it is due, in order; what is overdue at once, never dropped."""
    following = next(feed)
    while True:
        batch: list[Sending] = []
        now = now_us()
        while following.due_us <= now and len(batch) < _MAX_BATCH:
            batch.append(following)
            following = next(feed)
        if batch:
            publish(batch)
        wait_s = 0.0 if following.due_us <= now else max((following.due_us - now) / 1e6, TICK_S)
        await asyncio.sleep(wait_s)


class Sent:
    """What was published of one symbol: the truth that clients are measured against.

    Trades count from the first that anybody listened for, quotes likewise. From then on all do, also those
    that nobody was connected for or that a misbehaviour kept from every client: whoever listened once
    should find out what it missed. So `trades` is the number of ids between `first_id` and `last_id`,
    which is all of them, unless a replayed recording has holes itself.
    """

    def __init__(self) -> None:
        self.trades = self.quotes = 0
        self.first_id: int | None = None
        self.last_id: int | None = None
        self.first_time_us: int | None = None  # event time
        self.last_time_us: int | None = None

    def add(self, sending: Sending, is_heard: bool) -> None:
        """Count a trade or a quote for which somebody listens, or somebody has listened before."""
        if isinstance(sending.event, Trade):
            if not (is_heard or self.trades):
                return
            self.trades += 1
            self.last_id = sending.event.id
            if self.first_id is None:
                self.first_id = self.last_id
        else:
            if not (is_heard or self.quotes):
                return
            self.quotes += 1
        self.last_time_us = sending.event_time_us
        if self.first_time_us is None:
            self.first_time_us = self.last_time_us


class Market:
    """The state of one symbol. What happened in the last `history_s` and before is remembered if it fits."""

    def __init__(self, symbol: str, is_simulated: bool, history_s: float = 0) -> None:
        self.symbol = symbol
        self.is_simulated = is_simulated
        # From 0 on: that tells the beginning of the market from the edge of what it remembers.
        capacity = max(MAX_AGG_TRADES, int(history_s * AGG_TRADES_PER_S))
        self.trades = TradeHistory(capacity, first_agg_id=0)
        self.quotes = QuoteHistory(symbol)
        self.sent = Sent()
        self.streams_of: dict[type, set[str]] = {  # who listens to one of them gets such events
            kind: {stream_name(symbol, encoding.streams[kind]) for encoding in (Sbe, Json)}
            for kind in (Trade, Quote)
        }
        self.streams = set().union(*self.streams_of.values())
        self._book = Book()
        self._pauses_us = 0  # how long nothing happened because the market was paused
        self._paused_at_us: int | None = None

    def time_us(self, now_us: int) -> int:
        """The market's own clock, which does not run while it is paused."""
        return (now_us if self._paused_at_us is None else self._paused_at_us) - self._pauses_us

    @property
    def is_paused(self) -> bool:
        return self._paused_at_us is not None

    def pause(self, now_us: int) -> None:
        """From now on nothing happens: no trade, no change of the book."""
        self._paused_at_us = now_us

    def resume(self, now_us: int) -> None:
        """What was to happen next happens now."""
        if self._paused_at_us is not None:
            self._pauses_us += now_us - self._paused_at_us
            self._paused_at_us = None

    def as_of_now(self, sending: Sending) -> Sending:
        """An event of the market's own clock, on the exchange's."""
        event, late_us = sending.event, self._pauses_us
        if isinstance(event, Trade | Quote):
            event = event._replace(time_us=event.time_us + late_us)
        return Sending(sending.due_us + late_us, sending.event_time_us + late_us, event)

    def record(self, event: Event) -> None:
        """Add an event to the history."""
        match event:
            case Trade():
                self.trades.append(event)
            case Quote():
                self.quotes.append(event)
            case _:
                self._book.apply(event)

    def depth(self, limit: int) -> tuple[int, Levels, Levels]:
        """Update id, bids and asks; of a replay without depth messages only the best level."""
        if self._book.update_id is not None:
            return self._book.update_id, *self._book.levels(limit)
        quote = self.quotes.last
        if quote is None:
            return 0, (), ()
        return quote.update_id, *synthetic_levels(quote, limit if self.is_simulated else 1)

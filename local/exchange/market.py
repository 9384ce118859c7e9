"""One symbol's market: its history, the counts of what was sent, and its pacing by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from local.exchange.book import Book, synthetic_levels
from local.exchange.encoding import Json, Sbe, Usdm, stream_name
from local.exchange.events import Event, Feed, Levels, Quote, ReferenceQuote, Sending, Trade
from local.exchange.history import AGG_TRADES_PER_S, MAX_AGG_TRADES, QuoteHistory, TradeHistory

TICK_S = 0.005  # events that fall due within this time are sent together
_MAX_BATCH = 500  # then other tasks run

Now = Callable[[], int]  # the exchange's clock, µs


async def pace(feed: Feed, now_us: Now, publish: Callable[[Sequence[Sending]], None]) -> None:
    """Publish every event of `feed` when it is due, in order; overdue ones at once."""
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
    """The counts of what was published of one symbol: the ground truth for clients.

    Trades count from the first that had a listener on, quotes likewise: from then on all of them, even
    without a connected client or if a fault kept them from every client, which has to find out what it
    missed. So `trades` is the number of ids from `first_id` to `last_id`, unless a replayed recording has
    holes itself.
    """

    def __init__(self) -> None:
        self.trades = self.quotes = 0
        self.perpetual_quotes = 0  # published while they had a listener
        self.first_id: int | None = None
        self.last_id: int | None = None
        self.first_time_us: int | None = None  # event time
        self.last_time_us: int | None = None

    def add(self, sending: Sending, is_heard: bool) -> None:
        """Count a trade or a quote that has a listener, or whose kind has had one before."""
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
    """The state of one symbol. Its history holds at least the last `history_s`."""

    def __init__(self, symbol: str, is_simulated: bool, history_s: float = 0) -> None:
        self.symbol = symbol
        self.is_simulated = is_simulated
        self.is_open = False  # one that is only listed has no ticks
        # From 0 on, to distinguish the beginning of the market from the edge of its history.
        capacity = max(MAX_AGG_TRADES, int(history_s * AGG_TRADES_PER_S))
        self.trades = TradeHistory(capacity, first_agg_id=0)
        self.quotes = QuoteHistory(symbol)
        self.sent = Sent()
        self.streams_of: dict[type, set[str]] = {  # the streams that carry such events
            kind: {stream_name(symbol, encoding.streams[kind]) for encoding in (Sbe, Json)}
            for kind in (Trade, Quote)
        }
        self.streams = set().union(*self.streams_of.values())
        self.perpetual_stream = stream_name(symbol, Usdm.streams[ReferenceQuote])
        self._book = Book()
        self._pauses_us = 0  # total duration of past pauses
        self._paused_at_us: int | None = None

    def time_us(self, now_us: int) -> int:
        """The market's own clock, which stops while the market is paused."""
        return (now_us if self._paused_at_us is None else self._paused_at_us) - self._pauses_us

    @property
    def is_paused(self) -> bool:
        return self._paused_at_us is not None

    def pause(self, now_us: int) -> None:
        """Stop the market: no trade, no change of the book."""
        self._paused_at_us = now_us

    def resume(self, now_us: int) -> None:
        """Continue with the event that was due next."""
        if self._paused_at_us is not None:
            self._pauses_us += now_us - self._paused_at_us
            self._paused_at_us = None

    def as_of_now(self, sending: Sending) -> Sending:
        """An event with its times moved from the market's own clock to the exchange's."""
        event, late_us = sending.event, self._pauses_us
        if isinstance(event, Trade | Quote | ReferenceQuote):
            event = event._replace(time_us=event.time_us + late_us)
        return Sending(sending.due_us + late_us, sending.event_time_us + late_us, event)

    def record(self, event: Event) -> None:
        """Add an event to the history."""
        match event:
            case Trade():
                self.trades.append(event)
            case Quote():
                self.quotes.append(event)
            case ReferenceQuote():
                pass  # REST has no history of quotes
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

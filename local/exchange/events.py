"""Events of the exchange. Prices and quantities are integer mantissas at 1e-8, times are µs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

Levels = tuple[tuple[int, int], ...]  # (price, quantity)


class Trade(NamedTuple):
    """One fill. `time_us` is the exchange's transact time; ids of a symbol rise by exactly 1."""

    symbol: str
    time_us: int
    id: int
    price: int
    qty: int
    is_buyer_maker: bool


class Quote(NamedTuple):
    """The best bid and ask from `time_us` on; update ids of a symbol rise, with holes."""

    symbol: str
    time_us: int
    update_id: int
    bid_price: int
    bid_qty: int
    ask_price: int
    ask_qty: int


class ReferenceQuote(NamedTuple):
    """The best bid and ask of the USD-M perpetual of a market's asset, from the transaction at `time_us` on.

    `symbol` is the market's: the perpetual of BTCUSDT is called BTCUSDT as well.
    """

    symbol: str
    time_us: int
    update_id: int
    bid_price: int
    bid_qty: int
    ask_price: int
    ask_qty: int


class BookSnapshot(NamedTuple):
    """The whole order book as of `update_id`."""

    symbol: str
    update_id: int
    bids: Levels
    asks: Levels


class BookDiff(NamedTuple):
    """The levels that changed in updates `first_update_id` to `last_update_id`; quantity 0 deletes one."""

    symbol: str
    first_update_id: int
    last_update_id: int
    bids: Levels
    asks: Levels


Tick = Trade | Quote
MarketData = Tick | ReferenceQuote
Event = MarketData | BookSnapshot | BookDiff


def decimal(mantissa: int) -> str:
    """A mantissa at 1e-8 as Binance writes it.

    >>> decimal(6183763000000), decimal(1)
    ('61837.63000000', '0.00000001')
    """
    return f"{mantissa // 10**8}.{mantissa % 10**8:08d}"


class Sending(NamedTuple):
    """An event with the moment to send it and the event time to state in its frame."""

    due_us: int
    event_time_us: int
    event: Event


Feed = Iterator[Sending]  # in the order of `due_us`

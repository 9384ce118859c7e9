"""Ticks as SBE frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from local.exchange.events import Quote, Sending, Trade
from tickcast.market.ticks import SCALE_EXPONENT
from tickcast.sbe import BestBidAskEvent, SbeTrade, TradesEvent, encode


def frames(sendings: Iterable[Sending]) -> Iterator[tuple[type, bytes]]:
    """The frames of one symbol's ticks in order, each with what it holds: `Trade` or `Quote`.

    Consecutive trades of one transact time and event time share a frame, as the fills of an order do.
    """
    for _, group in groupby(sendings, key=_frame_key):
        ticks = list(group)
        _, event_time_us, first = ticks[0]
        if isinstance(first, Quote):
            yield Quote, encode(_best_bid_ask(first, event_time_us))
        else:
            trades = [tick.event for tick in ticks if isinstance(tick.event, Trade)]
            yield Trade, encode(_trades(trades, event_time_us))


def _frame_key(sending: Sending) -> tuple[str, int, int]:
    if isinstance(sending.event, Trade):
        return "trade", sending.event.time_us, sending.event_time_us
    return "quote", id(sending), 0  # every quote has a frame to itself


def _best_bid_ask(quote: Quote, event_time_us: int) -> BestBidAskEvent:
    symbol, _, update_id, *top = quote
    bid_price, bid_qty, ask_price, ask_qty = top
    return BestBidAskEvent(
        event_time_us,
        update_id,
        SCALE_EXPONENT,
        SCALE_EXPONENT,
        bid_price,
        bid_qty,
        ask_price,
        ask_qty,
        symbol,
    )


def _trades(trades: list[Trade], event_time_us: int) -> TradesEvent:
    symbol, transact_time_us = trades[0].symbol, trades[0].time_us
    fills = tuple(SbeTrade(trade.id, trade.price, trade.qty, trade.is_buyer_maker) for trade in trades)
    return TradesEvent(event_time_us, transact_time_us, SCALE_EXPONENT, SCALE_EXPONENT, fills, symbol)

"""Ticks as the JSON texts of Binance's keyless streams `@trade` and `@bookTicker`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from local.exchange.events import Quote, Sending, Trade, decimal


def texts(sendings: Iterable[Sending], is_micro: bool) -> Iterator[tuple[type, str]]:
    """The payload of each tick, with what it holds: `Trade` or `Quote`. Times in µs or else in ms."""
    for _, event_time_us, event in sendings:
        match event:
            case Trade():
                yield Trade, _text(_trade(event, event_time_us, 1 if is_micro else 1_000))
            case Quote():
                yield Quote, _text(_book_ticker(event))


def _trade(trade: Trade, event_time_us: int, unit_us: int) -> dict[str, Any]:
    return {
        "e": "trade",
        "E": event_time_us // unit_us,
        "s": trade.symbol,
        "t": trade.id,
        "p": decimal(trade.price),
        "q": decimal(trade.qty),
        "T": trade.time_us // unit_us,
        "m": trade.is_buyer_maker,
        "M": True,
    }


def _book_ticker(quote: Quote) -> dict[str, Any]:
    return {
        "u": quote.update_id,
        "s": quote.symbol,
        "b": decimal(quote.bid_price),
        "B": decimal(quote.bid_qty),
        "a": decimal(quote.ask_price),
        "A": decimal(quote.ask_qty),
    }


def _text(payload: dict[str, Any]) -> str:
    return json.dumps(payload, separators=(",", ":"))

"""Ticks: trades and best bid/ask quotes as numpy rows of exact integers.

Prices and quantities are mantissas at 1e-8 (`SCALE`), the finest step Binance quotes, so that sums are
exact and the same in any order. ``mantissa / SCALE`` is the correctly rounded decimal; multiplying by
1e-8 is not (one price in six comes out wrong in the last bit).

A trade's time is the exchange's transaction time, which REST history has too, so that a trade falls into the
same bar from either source. A quote's time is its event time, the only one it has.

A side of the book may be missing: the row then has price 0 and quantity 0 there. After such a quote there is
no mid until one with both sides arrives.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.sbe import NULL_INT8, NULL_INT64, BestBidAskEvent, Event, TradesEvent, decimal_text

SCALE = 10**8
SCALE_EXPONENT = -8

TRADE = np.dtype(
    [
        ("time_us", "<i8"),  # by the exchange's clock
        ("receive_time_us", "<i8"),  # by the local clock
        ("first_id", "<i8"),
        ("last_id", "<i8"),  # differs from the first only for aggregated trades (REST)
        ("price", "<i8"),  # 1e-8
        ("qty", "<i8"),  # 1e-8
        ("side", "i1"),  # the aggressor's: +1 a buyer lifted the ask, -1 a seller hit the bid
    ]
)
QUOTE = np.dtype(
    [
        ("time_us", "<i8"),  # by the exchange's clock; estimated on the keyless feed
        ("receive_time_us", "<i8"),  # by the local clock
        ("update_id", "<i8"),
        ("bid_price", "<i8"),  # 1e-8, as all that follow
        ("bid_qty", "<i8"),
        ("ask_price", "<i8"),
        ("ask_qty", "<i8"),
    ]
)

# Their fields of 64 bits as one, to be compared all at once.
_NUMBERS = {
    TRADE: np.dtype(
        {"names": ["numbers"], "formats": [("<i8", 6)], "offsets": [0], "itemsize": TRADE.itemsize}
    ),
    QUOTE: np.dtype([("numbers", "<i8", 7)]),
}

NO_QUOTES = np.empty(0, QUOTE)
NO_QUOTES.setflags(write=False)

Trades = npt.NDArray[Any]  # of TRADE, shape (trades,)
Quotes = npt.NDArray[Any]  # of QUOTE, shape (quotes,)
TickArray = npt.NDArray[Any]  # of either
TickRow = tuple[int, ...]  # of either, in the order of its dtype
TradeRow = tuple[int, int, int, int, int, int, int]
QuoteRow = tuple[int, int, int, int, int, int, int]
Book = tuple[int, int, int, int]  # bid price and quantity, ask price and quantity


class TickError(ValueError):
    """A tick that exact integers cannot represent, or with impossible values."""


def trades_array(rows: Iterable[TradeRow]) -> Trades:
    return np.array(list(rows), TRADE)


def quotes_array(rows: Iterable[QuoteRow]) -> Quotes:
    return np.array(list(rows), QUOTE)


def raw(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`rows` as plain bytes: numpy copies these in one piece, but rows of fields field by field.

    So `selected` and `joined` are several times as fast as `rows[which]` and `np.concatenate`.
    """
    return rows.view(_bytes(rows.itemsize))


def selected(rows: npt.NDArray[Any], which: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`rows[which]`, with a mask or indices. `rows` is one-dimensional and contiguous."""
    return np.asarray(raw(rows)[which].view(rows.dtype))


def joined(rows: npt.NDArray[Any], more: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`rows` followed by `more`, of the same dtype."""
    return np.concatenate([raw(rows), raw(more)]).view(rows.dtype)


def bounds(rows: TickArray) -> tuple[list[int], list[int]]:
    """The lowest and the highest value of each field of 64 bits in `rows`, of which there is at least one, in
    the order of their fields."""
    numbers = rows.view(_NUMBERS[rows.dtype])["numbers"]
    return numbers.min(axis=0).tolist(), numbers.max(axis=0).tolist()


@functools.cache
def _bytes(size: int) -> np.dtype[np.void]:
    return np.dtype(f"V{size}")


def rescale(mantissa: int, exponent: int) -> int:
    """`mantissa * 10**exponent` as a mantissa at 1e-8. Raises `TickError` where 64 bits cannot hold it, and
    on SBE's null values."""
    if mantissa == NULL_INT64 or exponent == NULL_INT8:
        raise TickError("a price or quantity, or its exponent, is null")
    if exponent == SCALE_EXPONENT:
        return mantissa
    step: int = 10 ** abs(exponent - SCALE_EXPONENT)
    scaled, rest = (mantissa * step, 0) if exponent > SCALE_EXPONENT else divmod(mantissa, step)
    if rest:
        raise TickError(f"{mantissa}e{exponent} needs more than 8 decimals")
    if abs(scaled) >= 2**63:
        raise TickError(f"{mantissa}e{exponent} is too large: at 1e-8 it takes more than 64 bits")
    return scaled


def mantissa(decimal: str) -> int:
    """The plain decimal number at 1e-8, exactly. Raises `TickError`.

    >>> mantissa("61837.63000000"), mantissa("0.00000001"), mantissa("12"), mantissa("1.5")
    (6183763000000, 1, 1200000000, 150000000)
    """
    whole, _, fraction = decimal.partition(".")
    digits = whole + fraction[:8].ljust(8, "0")
    if not (whole and digits.isascii() and digits.isdigit()) or fraction[8:].strip("0"):
        raise TickError(f"{decimal[:40]!r} is not a decimal number of at most 8 places")
    if len(digits) > 19 or int(digits) >= 2**63:  # the length first: int() refuses thousands of digits
        raise TickError(f"{decimal[:40]!r} is too large: at 1e-8 it takes more than 64 bits")
    return int(digits)


def check_trade(symbol: str, trade_id: int, price: int, qty: int) -> None:
    """Raises `TickError` on a price or quantity (1e-8) that is not positive, or an id that is negative."""
    if price <= 0 or qty <= 0:
        raise TickError(f"{symbol} trade {trade_id}: price {_text(price)}, quantity {_text(qty)}")
    if trade_id < 0:
        raise TickError(f"{symbol} trade {trade_id}: a negative id")


def checked_book(symbol: str, update_id: int, bid: int, bid_qty: int, ask: int, ask_qty: int) -> Book:
    """The book (1e-8) as a quote's row has it: a side without price or quantity is missing, both are 0 there.

    Raises `TickError` on a crossed book, and on a price, a quantity or an id that is negative.
    """
    if min(bid, bid_qty, ask, ask_qty, update_id) < 0 or (bid >= ask and bid_qty and ask and ask_qty):
        sides = f"bid {_text(bid)} x {_text(bid_qty)}, ask {_text(ask)} x {_text(ask_qty)}"
        raise TickError(f"{symbol} book {update_id}: {sides}")
    bid_side = (bid, bid_qty) if bid and bid_qty else (0, 0)
    ask_side = (ask, ask_qty) if ask and ask_qty else (0, 0)
    return (*bid_side, *ask_side)


def span_us(*ticks: Trades | Quotes) -> tuple[int, int] | None:
    """The earliest and the latest time in `ticks`; None when all are empty."""
    times_us = [rows["time_us"] for rows in ticks if len(rows)]
    if not times_us:
        return None
    return min(int(t.min()) for t in times_us), max(int(t.max()) for t in times_us)


def trade_rows(event: TradesEvent, receive_time_us: int) -> list[TradeRow]:
    """One row per trade of `event`. Raises `TickError` on impossible values."""
    _check_time(event.symbol, event.transact_time_us)
    rows = []
    for trade in event.trades:
        price = rescale(trade.price, event.price_exponent)
        qty = rescale(trade.qty, event.qty_exponent)
        check_trade(event.symbol, trade.id, price, qty)
        side = -1 if trade.is_buyer_maker else 1
        rows.append((event.transact_time_us, receive_time_us, trade.id, trade.id, price, qty, side))
    return rows


def quote_row(event: BestBidAskEvent, receive_time_us: int) -> QuoteRow:
    """The row of `event`. Raises `TickError` on impossible values."""
    _check_time(event.symbol, event.event_time_us)
    bid_price = rescale(event.bid_price, event.price_exponent)
    bid_qty = rescale(event.bid_qty, event.qty_exponent)
    ask_price = rescale(event.ask_price, event.price_exponent)
    ask_qty = rescale(event.ask_qty, event.qty_exponent)
    book = checked_book(event.symbol, event.book_update_id, bid_price, bid_qty, ask_price, ask_qty)
    return (event.event_time_us, receive_time_us, event.book_update_id, *book)


def tick_rows(event: Event, receive_time_us: int) -> tuple[list[TradeRow], list[QuoteRow]]:
    """Trade and quote rows of a decoded frame; depth events carry neither."""
    match event:
        case TradesEvent():
            return trade_rows(event, receive_time_us), []
        case BestBidAskEvent():
            return [], [quote_row(event, receive_time_us)]
        case _:
            return [], []


def _check_time(symbol: str, time_us: int) -> None:
    if time_us < 0:
        raise TickError(f"{symbol}: the time {time_us} is null or before 1970")


def _text(value: int) -> str:
    return decimal_text(value, SCALE_EXPONENT)

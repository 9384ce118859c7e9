"""Outliers in a record: which rows are refused, and which are not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.market import START_US, batch, random_reference, random_ticks
from tickcast.market import wire
from tickcast.market.plausibility import (
    Screened,
    are_plain,
    quote_faults,
    screen,
    time_faults,
    trade_faults,
)
from tickcast.market.ticks import QUOTE, TRADE, quotes_array

S = 1_000_000
ARRIVED_US = 1_754_000_001_000_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time_us", START_US + 60 * S),
        ("time_us", START_US // 1000),
        ("time_us", START_US * 1000),
        ("time_us", -(2**63)),
        ("price", 0),
        ("qty", -1),
        ("first_id", -1),
        ("last_id", 5),
        ("last_id", 2**62),
        ("receive_time_us", 2**62),
        ("side", 0),
    ],
)
def test_a_record_survives_without_its_impossible_trade(field: str, value: int) -> None:
    trades, quotes = random_ticks(1, 2)
    wild = trades.copy()
    wild[field][7] = value
    good, refused, reason = screen(batch(wild, quotes, START_US), START_US + 3 * S)
    assert good.trades.tolist() == np.delete(trades, 7).tolist()
    assert good.quotes.tolist() == quotes.tolist()
    assert refused is not None
    assert (refused.trades.tolist(), len(refused.quotes)) == ([wild[7].item()], 0)
    assert "(1)" in reason


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"time_us": START_US + 60 * S}, "reference: a time ahead of its"),
        ({"ask_price": 1}, "reference: a crossed book"),
        ({"bid_qty": 0}, "reference: half a side of the book"),
        ({"bid_price": 10**13, "ask_price": 10**13 + 1}, "reference: a price far off spot"),
        ({"bid_price": 10**12, "ask_price": 10**12 + 1}, "reference: a price far off spot"),
        ({"bid_price": 1, "ask_price": 2**63 - 1}, "reference: a price far off spot"),
    ],
)
def test_a_record_survives_without_its_impossible_reference_quote(changed: dict[str, int], why: str) -> None:
    trades, quotes = random_ticks(1, 2)
    wild = random_reference(1, quotes)
    whole = wild.copy()
    for field, value in changed.items():
        wild[field][7] = value
    good, refused, reason = screen(batch(trades, quotes, START_US, reference=wild), START_US + 3 * S)
    assert (good.trades.tolist(), good.quotes.tolist()) == (trades.tolist(), quotes.tolist())
    assert good.reference.tolist() == np.delete(whole, 7).tolist()
    assert refused is not None
    assert (len(refused.trades), len(refused.quotes), refused.reference.tolist()) == (0, 0, [wild[7].item()])
    assert why in reason and "(1)" in reason


def test_a_wrong_price_of_spot_refuses_no_reference_quote() -> None:
    trades, quotes = random_ticks(1, 2)
    reference = random_reference(1, quotes)
    wild = quotes.copy()
    wild["bid_price"][3], wild["ask_price"][3] = 1, 2
    sent = batch(trades, wild, reference=reference)
    assert screen(sent, START_US + 3 * S) == Screened(sent)
    alone = batch(trades[:0], wild[3:4], reference=reference)
    assert screen(alone, START_US + 3 * S) == Screened(alone)


def test_old_ticks_are_valid_and_one_ahead_of_them_is_not() -> None:
    """The record waited for ten minutes: its arrival proves nothing of a tick a minute ahead."""
    trades, quotes = random_ticks(1, 2)
    arrived_us = START_US + 600 * S
    whole = batch(trades, quotes)
    assert screen(whole, arrived_us) == Screened(whole)
    wild = trades.copy()
    wild["time_us"][3] += 60 * S
    good, refused, _ = screen(batch(wild, quotes), arrived_us)
    assert len(good.trades) == len(trades) - 1
    assert refused is not None and len(refused.trades) == 1


def test_ingest_s_clock_may_be_off_if_all_ticks_agree() -> None:
    trades, quotes = random_ticks(1, 2)
    trades["receive_time_us"] -= 3600 * S
    quotes["receive_time_us"] -= 3600 * S
    assert screen(batch(trades, quotes), START_US + 3 * S).refused is None


def test_a_claim_and_a_notice_of_the_future_are_dropped_and_the_ticks_are_not() -> None:
    trades, quotes = random_ticks(1, 2)
    notices = (wire.Notice("lost", START_US, START_US + S), wire.Notice("wild", START_US, 2**62))
    claimed = batch(trades, quotes, START_US + 3600 * S)._replace(notices=notices, quiet_us=2**62)
    good, _, reason = screen(claimed, START_US + 3 * S)
    assert (good.watermark_us, good.notices) == (wire.NO_WATERMARK, notices[:1])
    assert good.quiet_us == wire.QUIET_UNKNOWN
    assert (len(good.trades), len(good.quotes)) == (len(trades), len(quotes))
    assert "is ahead of its arrival" in reason


BID, ASK, GONE = (99, 5), (101, 6), (0, 0)


@pytest.mark.parametrize(
    ("bid", "ask", "reasons"),
    [
        (BID, ASK, []),
        (GONE, ASK, []),
        (BID, GONE, []),
        (GONE, GONE, []),
        ((102, 5), ASK, ["a crossed book"]),
        ((101, 5), ASK, ["a crossed book"]),
        ((99, 0), ASK, ["half a side of the book"]),
        (BID, (0, 6), ["half a side of the book"]),
        ((-1, 5), ASK, ["half a side of the book"]),
    ],
)
def test_which_books_are_possible(bid: tuple[int, int], ask: tuple[int, int], reasons: list[str]) -> None:
    rows = quotes_array([(START_US, START_US, 1, *bid, *ask)])
    assert [fault.reason for fault in quote_faults(rows) if fault.is_faulty.any()] == reasons


def test_an_empty_batch_has_no_faults() -> None:
    empty = batch(np.empty(0, TRADE), np.empty(0, QUOTE), START_US)
    assert screen(empty, START_US) == Screened(empty)


ODD = st.sampled_from(
    [-(2**63), -1, 0, 1, 2, 100, 2**40, 2**62, 2**63 - 1, START_US, START_US - S, START_US + 60 * S]
)


@pytest.mark.parametrize(("dtype", "faults"), [(TRADE, trade_faults), (QUOTE, quote_faults)])
@given(st.data())
def test_rows_that_pass_the_quick_check_are_free_of_faults(
    dtype: Any, faults: Any, data: st.DataObject
) -> None:
    trades, quotes = random_ticks(3, 0.5)
    rows = (trades if dtype == TRADE else quotes)[:4].copy()
    assert are_plain(rows, START_US + S)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(dtype.names))
        value = data.draw(st.integers(-3, 3) if name == "side" else ODD)
        rows[name][data.draw(st.integers(0, 3))] = value
    with np.errstate(all="ignore"):
        found = [*faults(rows), *time_faults(rows, START_US + S)]
        if are_plain(rows, START_US + S):
            assert not any(fault.is_faulty.any() for fault in found)


NAMED = batch(*random_ticks(1, 1.0), watermark_us=ARRIVED_US)


IMPOSSIBLE = {
    "symbol": ["", "B" * 51, "BTC/USDT", "btcusdt", "\x00", "..", "B" * 2000, "A\u030a"],
    "source": ["", "rest/../x", "sbe\n", "ä", "a b", "s" * 33, "s" * 2000],
    "connection": ["c" * 65],
}
REASONS = {
    "symbol": "^symbol .{,250}cannot be a market's$",
    "source": "^source .{,50} is not",
    "connection": "its connection has 65 characters",
}


@pytest.mark.parametrize(("field", "name"), [(field, n) for field in IMPOSSIBLE for n in IMPOSSIBLE[field]])
def test_impossible_names_are_refused(field: str, name: str) -> None:
    with pytest.raises(wire.WireError, match=REASONS[field]):
        screen(NAMED._replace(**dict[str, Any]({field: name})), ARRIVED_US)


@pytest.mark.parametrize("symbol", ["X", "S000USDT", "BTCUSDT", "币安人生USDT"])
@pytest.mark.parametrize("source", ["sbe", "json", "sim", "replay", "rest", "bench"])
@pytest.mark.parametrize("connection", ["a", "c" * 64])
def test_possible_names_are_accepted(symbol: str, source: str, connection: str) -> None:
    batch = NAMED._replace(symbol=symbol, source=source, connection=connection, notices=())
    assert screen(batch, ARRIVED_US) == Screened(batch)

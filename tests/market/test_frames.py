"""Decoding many frames at once gives exactly the same as one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.examples import examples
from tickcast import sbe
from tickcast.market.frames import decode_frames
from tickcast.market.ticks import QuoteRow, TickError, TradeRow, quotes_array, tick_rows, trades_array

price = st.one_of(st.integers(-2, 10**13), st.just(sbe.NULL_INT64))
qty = st.one_of(st.integers(-1, 10**12), st.just(sbe.NULL_INT64))
exponent = st.sampled_from([-8, -8, -8, -2, -9, sbe.NULL_INT8])
symbol = st.sampled_from(["BTCUSDT", "ETHUSDT", "BNBBTC", "DOGEUSDT", "币安USDT", "ETHUSD\0", "\0"])
small = st.one_of(st.integers(0, 2**62), st.sampled_from([-1, sbe.NULL_INT64]))
trade = st.builds(sbe.SbeTrade, small, price, qty, st.booleans())
events = st.one_of(
    st.builds(sbe.BestBidAskEvent, small, small, exponent, exponent, price, qty, price, qty, symbol),
    st.builds(
        sbe.TradesEvent, small, small, exponent, exponent, st.lists(trade, max_size=4).map(tuple), symbol
    ),
    st.builds(sbe.DepthDiffEvent, small, small, small, exponent, exponent, st.just(()), st.just(()), symbol),
)
plain_quotes = st.builds(
    lambda t, u, b, q, s: sbe.BestBidAskEvent(t, u, -8, -8, b, q, b + 10**6, q + 1, s),
    small,
    small,
    st.integers(1, 10**13),
    st.integers(1, 10**12),
    symbol,
)


@st.composite
def frame(draw: st.DrawFn) -> bytes:
    data = bytearray(sbe.encode(draw(st.one_of(events, plain_quotes, plain_quotes))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    if draw(st.booleans()):
        return bytes(data[: draw(st.sampled_from([len(data)] * 9 + [len(data) - 2]))])
    data[6] ^= draw(st.sampled_from([0, 1]))  # a later version, which may append something
    return bytes(data) + draw(st.sampled_from([b"", b"", b"\x03new", b"BTCUSDT"]))


def one_by_one(
    frames: list[bytes], received_us: list[int]
) -> tuple[dict[str, list[TradeRow]], dict[str, list[QuoteRow]], list[int]]:
    trades: dict[str, list[TradeRow]] = {}
    quotes: dict[str, list[QuoteRow]] = {}
    errors = []
    for i, (data, at) in enumerate(zip(frames, received_us, strict=True)):
        try:
            event = sbe.decode(data)
            rows = tick_rows(event, at)
        except (sbe.SbeError, TickError):
            errors.append(i)
            continue
        for row in rows[0]:
            trades.setdefault(event.symbol, []).append(row)
        for quote in rows[1]:
            quotes.setdefault(event.symbol, []).append(quote)
    return trades, quotes, errors


@examples(300)
@given(st.lists(frame(), max_size=30))
def test_equals_one_by_one(frames: list[bytes]) -> None:
    received_us = np.arange(len(frames)) + 7
    got = decode_frames(frames, received_us)
    trades, quotes, errors = one_by_one(frames, received_us.tolist())
    assert sorted(i for i, _ in got.errors) == errors
    for found, expected, array in ((got.trades, trades, trades_array), (got.quotes, quotes, quotes_array)):
        assert found.keys() == expected.keys()
        for name, rows in expected.items():
            assert sorted(found[name].tolist()) == sorted(array(rows).tolist())


@given(st.lists(st.binary(max_size=120), max_size=20))
def test_any_bytes_are_errors_not_exceptions(frames: list[bytes]) -> None:
    got = decode_frames(frames, np.zeros(len(frames), np.int64))
    assert len(got.errors) <= len(frames)


@pytest.mark.parametrize("size", [7, 8])  # read as one number, and as a text
@pytest.mark.parametrize("tail", ["00", "024142", "ff42"])
def test_a_symbol_filled_up_with_nuls_is_an_error(size: int, tail: str) -> None:
    whole = sbe.encode(sbe.BestBidAskEvent(1, 2, -8, -8, 10, 1, 11, 1, "D" * size))
    damaged = whole[:58] + bytes.fromhex(tail).ljust(size + 1, b"\0")
    got = decode_frames([damaged, whole, damaged], np.arange(3))
    assert [i for i, _ in got.errors] == [0, 2]
    assert len(got.quotes["D" * size]) == 1


def test_a_newer_version_of_the_same_layout_is_read() -> None:
    frame = bytearray(sbe.encode(sbe.BestBidAskEvent(1, 2, -8, -8, 10, 1, 11, 1, "BTCUSDT")))
    frame[6] = 3
    assert decode_frames([bytes(frame)], np.array([9])).quotes["BTCUSDT"].tolist() == [
        (1, 9, 2, 10, 1, 11, 1)
    ]


def test_many_odd_frames_are_read_in_order_and_in_one_piece() -> None:
    """A side of the book gone, symbols beyond ASCII, fields at the end: none is the plain case."""
    gone = sbe.BestBidAskEvent(1, 2, -8, -8, 10, 1, 0, 0, "币安人生USDT")
    frames = [sbe.encode(gone._replace(book_update_id=n)) for n in range(500)]
    frames += [frame[:6] + b"\x01\x00" + frame[8:] + b"more" for frame in frames]
    got = decode_frames(frames, np.arange(1000))
    assert (got.errors, list(got.quotes)) == ([], ["币安人生USDT"])
    rows = got.quotes["币安人生USDT"]
    assert sorted(rows["update_id"].tolist()) == sorted([*range(500)] * 2)
    assert not rows["ask_price"].any() and not rows["ask_qty"].any()
    assert (rows["bid_price"] == 10).all()


def test_no_frames() -> None:
    assert decode_frames([], np.zeros(0, np.int64)) == ({}, {}, [], ())

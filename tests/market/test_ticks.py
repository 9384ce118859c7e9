from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickcast import sbe
from tickcast.market.ticks import SCALE, TickError, mantissa, quote_row, rescale, tick_rows, trade_rows

QUOTE = sbe.BestBidAskEvent(7, 70, -2, -5, 6_183_763, 378_826, 6_183_764, 154_698, "BTCUSDT")


@given(st.integers(-(10**15), 10**15), st.integers(-128, 127))
def test_rescale_is_exact_or_refuses(value: int, exponent: int) -> None:
    try:
        scaled = rescale(value, exponent)
    except TickError:
        too_fine = exponent < -8 and value % 10 ** (-8 - exponent)
        assert too_fine or abs(value) * 10 ** (exponent + 8) >= 2**63
    else:
        assert scaled * 10 ** max(0, -8 - exponent) == value * 10 ** max(0, exponent + 8)


@given(st.integers(0, 2**62))
def test_mantissa_is_exact(value: int) -> None:
    text = f"{value // 10**8}.{value % 10**8:08}"
    assert mantissa(text) == mantissa(f"{text}0000") == value
    assert mantissa(text.rstrip("0").rstrip(".")) == value


@pytest.mark.parametrize(
    "text",
    ["", ".", ".5", "-1", "1e5", "1.123456789", "²", "٣", "1.5x", "1_0", "1.2.3", "nan", " 1"]
    + ["9" * 30, "99999999999"],
)
def test_texts_that_are_not_plain_decimals_are_refused(text: str) -> None:
    with pytest.raises(TickError):
        mantissa(text)


def test_mantissa_over_scale_is_the_rounded_decimal() -> None:
    assert 6_183_763_000_000 / SCALE == 61837.63


def test_quote_row_is_at_scale() -> None:
    assert quote_row(QUOTE, 9) == (7, 9, 70, 6183763000000, 378826000, 6183764000000, 154698000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bid_price": 6_183_764},  # locked
        {"bid_price": 6_183_765},
        {"bid_qty": -1},
        {"ask_price": -1},
        {"ask_price": 0, "ask_qty": -1},
    ],
)
def test_crossed_and_negative_books_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TickError, match="BTCUSDT book 70"):
        quote_row(QUOTE._replace(**wrong), 9)


BID, ASK = (6183763000000, 378826000), (6183764000000, 154698000)
GONE = (0, 0)


@pytest.mark.parametrize(
    ("gone", "book"),
    [
        ({"ask_price": 0, "ask_qty": 0}, (*BID, *GONE)),
        ({"ask_price": 0}, (*BID, *GONE)),
        ({"ask_qty": 0}, (*BID, *GONE)),
        ({"bid_price": 0, "bid_qty": 0}, (*GONE, *ASK)),
        ({"bid_qty": 0, "bid_price": 7_000_000}, (*GONE, *ASK)),  # nobody to cross with
        ({"bid_price": 0, "ask_qty": 0}, (*GONE, *GONE)),
    ],
)
def test_a_quote_may_lack_a_side(gone: dict[str, Any], book: tuple[int, ...]) -> None:
    assert quote_row(QUOTE._replace(**gone), 9) == (7, 9, 70, *book)


@pytest.mark.parametrize(
    ("null", "reason"),
    [
        ({"bid_price": sbe.NULL_INT64}, "null"),
        ({"ask_qty": sbe.NULL_INT64}, "null"),
        ({"price_exponent": sbe.NULL_INT8}, "null"),
        ({"event_time_us": sbe.NULL_INT64}, "null"),
        ({"book_update_id": sbe.NULL_INT64}, "book -9223372036854775808"),
    ],
)
def test_null_values_are_named(null: dict[str, Any], reason: str) -> None:
    with pytest.raises(TickError, match=reason):
        quote_row(QUOTE._replace(**null), 9)


def test_trade_rows_use_transact_time_and_the_aggressor_s_side() -> None:
    trades = (sbe.SbeTrade(1, 100, 5, True), sbe.SbeTrade(2, 101, 6, False))
    event = sbe.TradesEvent(20, 10, -8, -8, trades, "BTCUSDT")
    assert trade_rows(event, 30) == [(10, 30, 1, 1, 100, 5, -1), (10, 30, 2, 2, 101, 6, 1)]
    with pytest.raises(TickError, match="trade 1: price 0"):
        trade_rows(event._replace(trades=(sbe.SbeTrade(1, 0, 5, True),)), 30)


def test_depth_carries_no_ticks() -> None:
    assert tick_rows(sbe.DepthDiffEvent(1, 1, 2, -8, -8, ((1, 1),), (), "BTCUSDT"), 3) == ([], [])

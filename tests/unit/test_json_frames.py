import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickcast.json_frames import JsonFrames, mantissa
from tickcast.ticks import TickError

RECEIVED_US = 1_000_000_000


def trade(**changed: object) -> str:
    data = {"e": "trade", "E": 2_000_001, "s": "BTCUSDT", "t": 7, "p": "61837.63000000", "q": "0.02000000"}
    data |= {"T": 2_000_000, "m": True, "M": True} | changed
    return json.dumps({"stream": "btcusdt@trade", "data": data})


def quote(**changed: object) -> str:
    data = {"u": 9, "s": "BTCUSDT", "b": "61837.63", "B": "3.7", "a": "61837.64", "A": "1"} | changed
    return json.dumps({"stream": "btcusdt@bookTicker", "data": data})


def decode(*texts: str, received_us: list[int] | None = None):
    at = received_us or [RECEIVED_US] * len(texts)
    return JsonFrames().decode(texts, np.array(at, np.int64))


@given(st.integers(0, 2**62))
def test_mantissa_is_exact(value: int) -> None:
    text = f"{value // 10**8}.{value % 10**8:08}"
    assert mantissa(text) == value
    assert mantissa(text.rstrip("0").rstrip(".") if "." in text else text) == value


@pytest.mark.parametrize("text", ["", ".", "-1", "1e5", "1.123456789", "²", "1.5x", "9" * 30, "99999999999"])
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(TickError):
        mantissa(text)


def test_trades_and_quotes() -> None:
    ticks = decode(trade(), trade(t=8, m=False), quote())
    assert ticks.errors == []
    assert ticks.trades["BTCUSDT"].tolist() == [
        (2_000_000, RECEIVED_US, 7, 7, 6183763000000, 2000000, -1),
        (2_000_000, RECEIVED_US, 8, 8, 6183763000000, 2000000, 1),
    ]
    assert ticks.quotes["BTCUSDT"].tolist() == [
        (2_000_001, RECEIVED_US, 9, 6183763000000, 370000000, 6183764000000, 100000000)
    ]


def test_a_quote_s_time_is_the_local_clock_moved_by_the_smallest_delay() -> None:
    """Clocks 5 s apart, trades delayed by 30, 10 and 50 ms: the offset is that of the fastest."""
    apart_us = 5_000_000
    texts, received = [], []
    for n, delay_us in enumerate((30_000, 10_000, 50_000)):
        event_us = 10_000_000 + n * 100_000
        texts.append(trade(E=event_us, T=event_us, t=n))
        received.append(event_us + apart_us + delay_us)
    texts.append(quote())
    received.append(11_000_000 + apart_us + 10_000)
    time_us = int(decode(*texts, received_us=received).quotes["BTCUSDT"]["time_us"][0])
    assert abs(time_us - 11_000_000) < 100


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not json", "Expecting value"),
        ("[]", "no object"),
        ("{}", "neither a trade nor a quote"),
        ('{"stream":"btcusdt@kline_1s","data":{"e":"kline","s":"BTCUSDT"}}', "neither a trade nor a quote"),
        ('{"stream":"btcusdt@trade","data":null}', "neither a trade nor a quote"),
        (trade(s=None), "no symbol"),
        (trade(t=-1), "-1 is no whole number"),
        (trade(p="0"), "trade 7: price 0"),
        (trade(p=61837.63), "has no attribute 'partition'"),
        (trade(m=1), "m is 1, neither true nor false"),
        (trade(t=1.7), "1.7 is no whole number"),
        (trade(T=10**30), "is no whole number of 64 bits"),
        (trade(E=float("inf")), "inf is no whole number"),
        ("[" * 100_000, "RecursionError"),
        (trade(t="seven"), "'seven' is no whole number"),
        (quote(a="61837.63"), "book 9: bid 61837.63"),
        (quote(B="-1"), "not a decimal number"),
    ],
)
def test_bad_frames_are_named_and_the_rest_is_read(text: str, reason: str) -> None:
    ticks = decode(trade(), text, quote())
    ((index, error),) = ticks.errors
    assert index == 1
    assert reason in str(error)
    assert (len(ticks.trades["BTCUSDT"]), len(ticks.quotes["BTCUSDT"])) == (1, 1)


@given(st.text())
def test_any_text_is_ticks_or_an_error(text: str) -> None:
    ticks = decode(text)
    assert len(ticks.errors) == 1

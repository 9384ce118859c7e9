import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickcast.market.frames import Ticks
from tickcast.market.json_frames import JsonFrames, decode_references
from tickcast.market.ticks import quotes_array

RECEIVED_US = 1_000_000_000


def trade(**changed: object) -> str:
    data = {"e": "trade", "E": 2_000_001, "s": "BTCUSDT", "t": 7, "p": "61837.63000000", "q": "0.02000000"}
    data |= {"T": 2_000_000, "m": True, "M": True} | changed
    return json.dumps({"stream": "btcusdt@trade", "data": data})


def quote(**changed: object) -> str:
    data = {"u": 9, "s": "BTCUSDT", "b": "61837.63", "B": "3.7", "a": "61837.64", "A": "1"} | changed
    return json.dumps({"stream": "btcusdt@bookTicker", "data": data})


def decode(*texts: str, received_us: list[int] | None = None) -> Ticks:
    at = received_us or [RECEIVED_US] * len(texts)
    return JsonFrames().decode(texts, np.array(at, np.int64))


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
        ("[]", "not an object"),
        ("{}", "neither a trade nor a quote"),
        ('{"stream":"btcusdt@kline_1s","data":{"e":"kline","s":"BTCUSDT"}}', "neither a trade nor a quote"),
        ('{"stream":"btcusdt@trade","data":null}', "neither a trade nor a quote"),
        (trade(s=None), "not a symbol"),
        (trade(t=-1), "-1 is not a whole number"),
        (trade(p="0"), "trade 7: price 0"),
        (trade(p=61837.63), "has no attribute 'partition'"),
        (trade(m=1), "m is 1, neither true nor false"),
        (trade(t=1.7), "1.7 is not a whole number"),
        (trade(T=10**30), "is not a whole number of 64 bits"),
        (trade(E=float("inf")), "inf is not a whole number"),
        ("[" * 100_000, "RecursionError"),
        (trade(t="seven"), "'seven' is not a whole number"),
        (quote(a="61837.63"), "book 9: bid 61837.63"),
        (quote(B="-1"), "not a decimal number"),
    ],
)
def test_bad_frames_are_reported_and_the_others_are_read(text: str, reason: str) -> None:
    ticks = decode(trade(), text, quote())
    ((index, error),) = ticks.errors
    assert index == 1
    assert reason in str(error)
    assert (len(ticks.trades["BTCUSDT"]), len(ticks.quotes["BTCUSDT"])) == (1, 1)


@given(st.text())
def test_any_text_is_ticks_or_an_error(text: str) -> None:
    ticks = decode(text)
    assert len(ticks.errors) == 1


DATA = (trade(), quote())


@pytest.mark.parametrize(
    "written",
    [
        lambda message: json.dumps(dict(reversed(message.items()))),
        lambda message: json.dumps(message, indent=2),
        lambda message: " \n" + json.dumps({"data": dict(reversed(message["data"].items())), "stream": "x"}),
        lambda message: json.dumps(message["data"]),  # a connection to a single stream has no wrapper
        lambda message: json.dumps(message["data"] | {"id": 1, "result": None, "code": 7}),  # members to come
    ],
)
def test_members_in_any_order_wrapped_or_not(written: Callable[[dict[str, Any]], str]) -> None:
    expected = decode(*DATA)
    got = decode(*(written(json.loads(text)) for text in DATA))
    assert (got.errors, list(got.control)) == ([], [])
    assert got.trades["BTCUSDT"].tolist() == expected.trades["BTCUSDT"].tolist()
    assert got.quotes["BTCUSDT"].tolist() == expected.quotes["BTCUSDT"].tolist()


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize(
    "message",
    [
        {"e": "serverShutdown", "E": 1_754_000_000_000},
        {"result": None, "id": 1},
        {"id": 1, "result": ["btcusdt@trade"]},
        {"error": {"code": 2, "msg": "Invalid request"}, "id": 3},
        {"code": 2, "msg": "Invalid request"},
    ],
)
def test_messages_about_the_connection_are_returned(message: dict[str, Any], is_wrapped: bool) -> None:
    text = json.dumps({"data": message, "stream": "btcusdt@trade"} if is_wrapped else message)
    ticks = decode(trade(), text, quote())
    assert (ticks.errors, list(ticks.control)) == ([], [message])
    assert (len(ticks.trades["BTCUSDT"]), len(ticks.quotes["BTCUSDT"])) == (1, 1)


@pytest.mark.parametrize(("bid", "ask"), [(False, True), (True, False), (False, False)])
def test_a_quote_with_a_missing_side(bid: bool, ask: bool) -> None:
    zero = "0.00000000"
    gone = ({} if bid else {"b": zero, "B": zero}) | ({} if ask else {"a": zero, "A": zero})
    (row,) = decode(trade(), quote(**gone)).quotes["BTCUSDT"].tolist()
    assert row[3:5] == ((6183763000000, 370000000) if bid else (0, 0))
    assert row[5:7] == ((6183764000000, 100000000) if ask else (0, 0))


@pytest.mark.parametrize("off_us", [3600 * 10**6, 2**62, -(10**15), 3_000_000])
def test_an_outlier_event_time_moves_no_quote(off_us: int) -> None:
    now_us = 1_754_000_000_000_000
    frames, at = JsonFrames(), np.array([now_us, now_us], np.int64)
    frames.decode([trade(E=max(0, now_us + off_us), T=now_us), quote()], at)
    for second in range(1, 4):
        later = at + second * 1_000_000
        ticks = frames.decode([trade(E=int(later[0]) - 5_000, T=int(later[0])), quote(u=9 + second)], later)
        assert ticks.quotes["BTCUSDT"]["time_us"].max() == later[0] - 5_000


def test_a_host_s_clock_that_is_behind_is_followed() -> None:
    now_us, behind_us = 1_754_000_000_000_000, 60_000_000
    frames, quotes = JsonFrames(), []
    for n in range(5):
        texts = [trade(E=now_us + n, T=now_us + n, t=n), quote(u=n)]
        ticks = frames.decode(texts, np.array([now_us + n - behind_us] * 2, np.int64))
        quotes += ticks.quotes.get("BTCUSDT", quotes_array([]))["time_us"].tolist()
    assert sorted(quotes) == [now_us + n for n in range(5)]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.dictionaries(
            st.sampled_from(
                ["stream", "data", "e", "E", "s", "t", "p", "q", "T", "m", "u", "b", "B", "a", "A", "id"]
            ),
            inner | st.sampled_from(["trade", "serverShutdown", "1.5"]),
        ),
    )
)
def test_any_json_is_ticks_control_or_an_error(message: object) -> None:
    ticks = decode(json.dumps(message))
    held = sum(map(len, ticks.trades.values())) + sum(map(len, ticks.quotes.values()))
    assert len(ticks.errors) + len(ticks.control) + held <= 1


# ------------------------------------------------------------------------------------ the USD-M futures

FUTURES_QUOTE = {
    **{"e": "bookTicker", "u": 9, "s": "BTCUSDT", "T": 1_723_161_256_313, "E": 1_723_161_256_315},
    **{"b": "61800.20", "B": "2.507", "a": "61800.30", "A": "2.510"},
}


def references(*messages: dict[str, Any] | str) -> Ticks:
    texts = [each if isinstance(each, str) else json.dumps(each) for each in messages]
    return decode_references(texts, np.full(len(texts), RECEIVED_US))


@pytest.mark.parametrize("is_combined", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_a_perpetual_s_quote_has_the_time_of_its_transaction(is_combined: bool, reverse: bool) -> None:
    data = dict(sorted(FUTURES_QUOTE.items(), reverse=reverse))
    ticks = references({"data": data, "stream": "btcusdt@bookTicker"} if is_combined else data)
    assert (ticks.errors, ticks.trades) == ([], {})
    assert ticks.quotes["BTCUSDT"].tolist() == [
        (1_723_161_256_313_000, RECEIVED_US, 9, 6180020000000, 250700000, 6180030000000, 251000000)
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"T": None},
        {"T": "1723161256313"},
        {"T": 1_723_161_256_313.5},
        {"T": 1_723_161_256_313_000},  # µs
        {"E": 2**62},
        {"E": -1},
        {"u": -1},
        {"u": True},
        {"s": ""},
        {"s": 7},
        {"b": "61800.40"},  # crossed
        {"b": 61800.2},
        {"b": "1e5"},
        {"B": "-1"},
        {"e": "aggTrade"},
        {"e": None},
    ],
    ids=str,
)
def test_an_impossible_quote_of_a_perpetual_costs_itself(changed: dict[str, Any]) -> None:
    ticks = references(FUTURES_QUOTE, FUTURES_QUOTE | changed, FUTURES_QUOTE)
    assert [index for index, _ in ticks.errors] == [1]
    assert len(ticks.quotes["BTCUSDT"]) == 2


@pytest.mark.parametrize("name", list(FUTURES_QUOTE))
def test_a_perpetual_s_quote_without_a_member_costs_itself(name: str) -> None:
    ticks = references({key: value for key, value in FUTURES_QUOTE.items() if key != name}, FUTURES_QUOTE)
    assert [index for index, _ in ticks.errors] == [0]
    assert len(ticks.quotes["BTCUSDT"]) == 1


def test_garbage_among_a_perpetual_s_quotes_and_messages_about_the_connection() -> None:
    shutdown = {"e": "serverShutdown", "E": 1}
    ticks = references("[]", "{", "[" * 100_000, shutdown, {"result": None, "id": 1}, FUTURES_QUOTE)
    assert [index for index, _ in ticks.errors] == [0, 1, 2]
    assert [message.get("e", "reply") for message in ticks.control] == ["serverShutdown", "reply"]
    assert len(ticks.quotes["BTCUSDT"]) == 1

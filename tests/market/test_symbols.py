"""Names of markets in any script."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickcast.market.symbols import ascii_name, is_symbol, listed, lower, upper

COMPOSED, APART = "\u00c9TUSDT", "E\u0301TUSDT"


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("btcusdt", "BTCUSDT"),
        ("币安人生usdt", "币安人生USDT"),
        ("这是测试币456", "这是测试币456"),
        ("ßusdt", "ßUSDT"),  # SSUSDT is another market
        ("\ufb01usdt", "\ufb01USDT"),  # a ligature of two letters
        (APART, COMPOSED),
        ("e\u0301tusdt", COMPOSED),
        ("ωusdt", "ΩUSDT"),
    ],
)
def test_upper_case_and_composed(text: str, symbol: str) -> None:
    assert upper(text) == symbol
    assert is_symbol(symbol)


@pytest.mark.parametrize("text", ["", "BTC-USDT", "BTC USDT", "btcusdt", APART, "币%USDT", "A" * 51, "BTC\n"])
def test_texts_that_are_not_symbols(text: str) -> None:
    assert not is_symbol(text)


@given(st.text(max_size=20))
def test_upper_case_is_final(text: str) -> None:
    assert upper(upper(text)) == upper(text)


@given(st.text(max_size=20))
def test_lower_case_keeps_the_length(text: str) -> None:
    assert len(lower(text)) == len(text)


@given(
    st.text(st.characters(categories=["L", "N"]), min_size=1), st.text(st.characters(categories=["L", "N"]))
)
def test_ascii_names_are_unique(one: str, other: str) -> None:
    assert ascii_name(one).isascii()
    assert (ascii_name(one) == ascii_name(other)) == (one == other)


def test_a_message_lists_a_few_of_many_symbols() -> None:
    many = [f"S{n}USDT" for n in range(1000)]
    assert listed(many[:10]) == ", ".join(many[:10])
    assert listed(many) == f"{', '.join(many[:10])} and 990 more"

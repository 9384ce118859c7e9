import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.market import START_US, batch, random_ticks
from tickcast import wire
from tickcast.adapters import bronze
from tickcast.ticks import quotes_array, trades_array

CONTRACT = ["symbol", "timestamp", "price", "volume", "bid_price", "ask_price", "source"]


def test_the_contract_s_fields_come_first_and_all_others_have_defaults() -> None:
    fields = bronze.MARKET_DATA["fields"]
    assert [field["name"] for field in fields[:7]] == CONTRACT
    assert all("default" in field for field in fields[7:])


def test_round_trip_is_exact() -> None:
    trades, quotes = random_ticks(1, 20)
    data = bronze.write_file(bronze.market_data(batch(trades, quotes)))
    got_trades, got_quotes = bronze.ticks_from(bronze.read_file(data, "x"))
    assert got_trades.tobytes() == trades.tobytes()
    assert got_quotes.tobytes() == quotes.tobytes()


@given(st.integers(1, 10**15), st.integers(1, 10**15))
def test_prices_and_quantities_come_back_to_the_last_digit(price: int, qty: int) -> None:
    trades = trades_array([(1, 2, 3, 3, price, qty, 1)])
    sent = wire.TickBatch("BTCUSDT", "sbe", "a", 0, trades, quotes_array([]))
    got, _ = bronze.ticks_from(bronze.read_file(bronze.write_file(bronze.market_data(sent)), "x"))
    assert got.tobytes() == trades.tobytes()


def test_what_an_event_does_not_carry_is_nan_or_null() -> None:
    trades, quotes = random_ticks(1, 1)
    rows = list(bronze.market_data(batch(trades[:1], quotes[:1])))
    trade, quote = bronze.read_file(bronze.write_file(rows), "x")
    assert math.isnan(trade["bid_price"]) and math.isnan(trade["ask_price"]) and math.isnan(trade["bid_qty"])
    assert trade["update_id"] is None
    assert math.isnan(quote["price"]) and math.isnan(quote["volume"])
    assert (quote["first_trade_id"], quote["aggressor"]) == (None, "")


def test_same_records_same_bytes() -> None:
    rows = list(bronze.market_data(batch(*random_ticks(2, 1))))
    assert bronze.write_file(rows) == bronze.write_file(rows)


def test_prefix_is_the_hour_in_utc() -> None:
    expected = "bronze/source=sbe/symbol=BTCUSDT/date=2025-07-31/hour=22/"
    assert bronze.prefix("sbe", "BTCUSDT", START_US) == expected


@pytest.mark.parametrize("damage", [b"", b"Obj", b"not avro at all, but long enough to look like something"])
def test_damaged_files_are_named(damage: bytes) -> None:
    with pytest.raises(bronze.BronzeError, match=r"bronze/x.avro is not a whole Avro file of MarketData"):
        list(bronze.read_file(damage, "bronze/x.avro"))


def test_a_truncated_file_is_named() -> None:
    data = bronze.write_file(bronze.market_data(batch(*random_ticks(2, 5))))
    with pytest.raises(bronze.BronzeError, match=r"x.avro"):
        list(bronze.read_file(data[: len(data) // 2], "x.avro"))


def test_any_damaged_byte_is_named_or_harmless() -> None:
    data = bytearray(bronze.write_file(bronze.market_data(batch(*random_ticks(2, 1)))))
    for at in range(0, len(data), 7):
        data[at] ^= 0xFF
        with contextlib.suppress(bronze.BronzeError):
            list(bronze.read_file(bytes(data), "x.avro"))
        data[at] ^= 0xFF

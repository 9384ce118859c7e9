import contextlib
import io
import json
import math
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fixtures.market import START_US, batch, random_ticks
from tickcast.adapters.lake import bronze
from tickcast.market.ticks import SCALE, Quotes, Trades, quotes_array, trades_array

SCHEMA: Any = bronze.MARKET_DATA
CONTRACT = ["symbol", "timestamp", "price", "volume", "bid_price", "ask_price", "source"]


def test_the_contract_s_fields_come_first_and_all_others_have_defaults() -> None:
    fields = SCHEMA["fields"]
    assert [field["name"] for field in fields[:7]] == CONTRACT
    assert all("default" in field for field in fields[7:])


def assert_same(found: tuple[Trades, Quotes], trades: Trades, quotes: Quotes) -> None:
    assert found[0].tobytes() == trades.tobytes()
    assert found[1].tobytes() == quotes.tobytes()


def through_file(trades: Trades, quotes: Quotes, schema: Any = SCHEMA) -> tuple[Trades, Quotes]:
    """What comes back of ticks from a file written by `schema`."""
    file = io.BytesIO()
    rows = bronze.market_data(batch(trades, quotes))
    fastavro.writer(file, schema, rows, codec=bronze.CODEC)
    return bronze.ticks_from(bronze.read_file(file.getvalue(), "x"))[:2]


mantissas = st.one_of(st.integers(1, 2**63 - 1), st.integers(1, 10**15))


@given(mantissas, mantissas, mantissas, mantissas)
@example(1200, 46_116_860_414 * 10**8 + 1, 13_513_223_314_000_000, 2**63 - 1)
@example(2**50 - 1, 2**50, 2**51 - 1, 2**53 + 1)
def test_prices_and_quantities_come_back_to_the_last_digit(a: int, b: int, c: int, d: int) -> None:
    trades, quotes = trades_array([(1, 2, 3, 3, a, b, 1)]), quotes_array([(1, 2, 3, a, b, c, d)])
    assert_same(through_file(trades, quotes), trades, quotes)


@pytest.mark.parametrize("sides", [(0, 0, 7, 5), (7, 5, 0, 0), (0, 0, 0, 0)])
def test_an_empty_side_is_nan_and_comes_back_as_zero(sides: tuple[int, int, int, int]) -> None:
    quotes = quotes_array([(1, 2, 3, *sides)])
    (row,) = bronze.market_data(batch(trades_array([]), quotes))
    names = ("bid_price", "bid_qty", "ask_price", "ask_qty")
    assert [math.isnan(row[name]) for name in names] == [value == 0 for value in sides]
    for schema in (SCHEMA, schema_of_before()):
        assert through_file(trades_array([]), quotes, schema)[1].tobytes() == quotes.tobytes()


def schema_of_before() -> Any:
    """The older schema: quantities of the book are not a union, NaN in the header, no exact integers."""
    plain = json.loads(fastavro.reader(io.BytesIO(bronze.write_file([]))).metadata["avro.schema"])
    plain["fields"] = [
        field | ({"type": "double", "default": math.nan} if field["name"] in ("bid_qty", "ask_qty") else {})
        for field in plain["fields"]
        if field["name"] != "mantissas"
    ]
    return plain


def test_random_ticks_come_back_from_files_of_both_schemas() -> None:
    trades, quotes = random_ticks(1, 20)
    assert b"NaN" in json.dumps(schema_of_before()).encode()
    for schema in (SCHEMA, schema_of_before()):
        assert_same(through_file(trades, quotes, schema), trades, quotes)


def test_readers_of_the_older_schema_read_new_files() -> None:
    trades, quotes = random_ticks(1, 2)
    data = bronze.write_file(bronze.market_data(batch(trades, quotes)))
    read: Any = list(fastavro.reader(io.BytesIO(data), schema_of_before()))
    bid_qty = [row["bid_qty"] for row in read if row["kind"] == "quote"]
    assert bid_qty == (quotes["bid_qty"] / SCALE).tolist()
    assert all(math.isnan(row["bid_qty"]) for row in read if row["kind"] == "trade")


def test_an_edited_double_overrides_its_integer() -> None:
    trades, quotes = random_ticks(1, 2)
    rows = [
        row | {"bid_qty": row["bid_qty"] + 1, "price": row["price"] + 1}
        for row in bronze.market_data(batch(trades, quotes))
    ]
    changed_trades, changed_quotes, _ = bronze.ticks_from(bronze.read_file(bronze.write_file(rows), "x"))
    assert (changed_trades["price"] == trades["price"] + 10**8).all()
    assert (changed_quotes["bid_qty"] == quotes["bid_qty"] + 10**8).all()
    assert (changed_quotes["ask_qty"] == quotes["ask_qty"]).all()


def test_a_trade_without_a_price_is_refused() -> None:
    (row,) = bronze.market_data(batch(trades_array([(1, 2, 3, 3, 7, 5, 1)]), quotes_array([])))
    with pytest.raises(ValueError, match="NaN"):
        bronze.ticks_from(bronze.read_file(bronze.write_file([row | {"price": math.nan}]), "x"))


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def test_the_schema_in_a_file_s_header_is_strict_json() -> None:
    data = bronze.write_file(bronze.market_data(batch(*random_ticks(1, 1))))
    header = json.loads(fastavro.reader(io.BytesIO(data)).metadata["avro.schema"], parse_constant=refuse)
    assert [field["name"] for field in header["fields"][:7]] == CONTRACT


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


WHOLE = bronze.write_file(bronze.market_data(batch(*random_ticks(2, 5))))


@pytest.mark.parametrize(
    "damaged", [b"", b"Obj", b"not Avro, but longer than a header", WHOLE[: len(WHOLE) // 2]]
)
def test_damaged_files_are_named(damaged: bytes) -> None:
    with pytest.raises(bronze.BronzeError, match=r"bronze/x.avro is not a whole Avro file of MarketData"):
        list(bronze.read_file(damaged, "bronze/x.avro"))


def avro(schema: Any, row: Any) -> bytes:
    file = io.BytesIO()
    fastavro.writer(file, schema, [row])
    return file.getvalue()


def market_data_with(types: dict[str, Any]) -> dict[str, Any]:
    """The schema of MarketData with other types of some fields; without those of the type None."""
    fields = [field | {"type": types.get(field["name"], field["type"])} for field in SCHEMA["fields"]]
    kept = [field for field in fields if field["type"] is not None]
    return {"type": "record", "name": "tickcast.MarketData", "fields": kept}


def test_files_of_another_schema_are_named() -> None:
    """Every one of them would otherwise fail the load of its window, each time."""
    (row,) = bronze.market_data(batch(trades_array([(1, 2, 3, 3, 7, 5, 1)]), quotes_array([])))
    files = {
        "same": avro(market_data_with({}), row),
        "lacks-symbol": avro(market_data_with({"symbol": None}), row),
        "a-string": avro("string", "hello"),
        "time-is-text": avro(market_data_with({"timestamp": "string"}), row | {"timestamp": "2025-07-31"}),
        "time-is-null": avro(market_data_with({"timestamp": ["null", "long"]}), row | {"timestamp": None}),
    }
    assert len(list(bronze.read_file(files.pop("same"), "same"))) == 1
    for name, data in files.items():
        with pytest.raises(bronze.BronzeError, match=f"^{name} is not a whole Avro file of MarketData"):
            list(bronze.read_file(data, name))


def test_any_damaged_byte_is_named_or_harmless() -> None:
    data = bytearray(bronze.write_file(bronze.market_data(batch(*random_ticks(2, 1)))))
    for at in range(0, len(data), 7):
        data[at] ^= 0xFF
        with contextlib.suppress(bronze.BronzeError):
            list(bronze.read_file(bytes(data), "x.avro"))
        data[at] ^= 0xFF

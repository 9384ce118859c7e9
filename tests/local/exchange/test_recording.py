from __future__ import annotations

import gzip
import itertools
import json
from decimal import Decimal
from pathlib import Path

import pytest

from local.exchange.book import Book
from local.exchange.events import BookDiff, BookSnapshot, Quote, Trade
from local.exchange.recording import Recording, RecordingError, arrivals, inspect, read
from tests.fixtures.recordings import CAPTURED, OFFSET_US, T0_MS, Line, quote, text, trade, write


def test_times_and_mantissas(tmp_path: Path) -> None:
    lines = [quote(0, 10), trade(5, 1, "61837.63000000"), (7, {"result": None, "id": 1}), trade(9, 2)]
    path = write(tmp_path / "a.gz", text(lines))
    start_us = T0_MS * 1000
    assert list(read([path])) == [
        Quote("BTCUSDT", start_us, 10, 10_000_000_000, 150_000_000, 10_100_000_000, 200_001_000),
        Trade("BTCUSDT", start_us + 4_000, 1, 6_183_763_000_000, 10_000_000, True),
        Trade("BTCUSDT", start_us + 8_000, 2, 10_000_000_000, 10_000_000, True),
    ]
    expected = Recording(path, frozenset({"BTCUSDT"}), OFFSET_US, start_us, start_us + 9_000)
    assert inspect(path) == expected
    # A frame states a trade's event time; nothing is due before its event time or out of order.
    assert [(s.due_us - start_us, s.event_time_us - start_us) for s in arrivals(inspect(path))] == [
        (0, 0),
        (5_000, 5_000),
        (9_000, 9_000),
    ]


def test_symbols_are_merged_by_the_exchange_s_clock(tmp_path: Path) -> None:
    btc = write(tmp_path / "btc.gz", text([trade(0, 1), trade(10, 2), trade(20, 3)], offset_us=2_000_000))
    eth = [trade(5, 7, symbol="ETHUSDT"), trade(15, 8, symbol="ETHUSDT")]
    paths = [write(tmp_path / "eth.gz", text(eth, offset_us=-3_000_000)), btc]
    ticks = list(read(paths))
    assert [tick.symbol[:3] for tick in ticks] == ["BTC", "ETH", "BTC", "ETH", "BTC"]


def test_one_symbol_over_several_files_is_read_once_and_in_order(tmp_path: Path) -> None:
    first = [trade(0, 1), quote(1, 10), trade(2, 2), quote(3, 12), trade(4, 3)]
    second = [trade(2, 2), quote(3, 12), trade(4, 3), quote(5, 15), trade(6, 4)]
    paths = [write(tmp_path / "b.gz", text(second)), write(tmp_path / "a.gz", text(first))]
    ticks = list(read(paths))
    assert [tick.id for tick in ticks if isinstance(tick, Trade)] == [1, 2, 3, 4]
    assert [tick.update_id for tick in ticks if isinstance(tick, Quote)] == [10, 12, 15]


def test_depth_messages_make_a_book(tmp_path: Path) -> None:
    def diff(at_ms: int, first: int, last: int, bids: list[list[str]]) -> Line:
        data = {"E": T0_MS + at_ms, "s": "BTCUSDT", "U": first, "u": last, "b": bids, "a": []}
        return at_ms, {"stream": "btcusdt@depth@100ms", "data": data}

    snapshot = {"lastUpdateId": 12, "bids": [["100.0", "1.0"], ["99.0", "1.0"]], "asks": [["101.0", "1.0"]]}
    lines = [
        diff(0, 5, 10, [["100.0", "9.0"]]),  # older than the snapshot
        diff(1, 11, 14, [["99.0", "0.0"]]),  # reaches past it
        (2, snapshot),
        trade(3, 1),
        diff(4, 15, 15, [["99.5", "2.0"]]),
    ]
    book = Book()
    for sending in arrivals(inspect(write(tmp_path / "a.gz", text(lines)))):
        if isinstance(sending.event, BookSnapshot | BookDiff):
            book.apply(sending.event)
    assert book.update_id == 15
    one = 10**8
    assert book.levels(5) == (((100 * one, one), (99 * one + one // 2, 2 * one)), ((101 * one, one),))
    book.apply(BookDiff("BTCUSDT", 17, 18, (), ()))  # 16 is missing
    assert book.update_id is None


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ("garbage\n", "damaged"),
        ("1 {\n", "damaged"),
        ("x {}\n", "damaged"),
        ('5 {"a":1}\n', "neither a message of a stream nor a depth snapshot"),
        ("5 7\n", "damaged"),
        (text([(0, {"stream": "btcusdt@trade", "data": {"s": "BTCUSDT"}})]), "field 'm' is missing"),
        (text([trade(0, 9)]).replace('"t":9', '"t":"9"'), "field 't' is '9', not an integer"),
        (text([trade(0, 9, price="1e5")]), "'1e5' is not a decimal number"),
        (text([trade(0, 9, price="-1.0")]), "'-1.0' is not a decimal number"),
        (text([trade(0, 9, price="1.000000001")]), "'1.000000001' is not a decimal number"),
        (text([trade(0, 9)]).replace('"p":"100.00000000"', '"p":100'), "damaged"),
        (text([trade(0, 9)]).replace('"m":true', '"m":0'), "neither true nor false"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, damaged: str, reason: str) -> None:
    path = write(tmp_path / "a.gz", text([trade(0, 1), quote(1, 10)]) + damaged)
    with pytest.raises(RecordingError) as caught:
        list(read([path]))
    assert f"{path}, line 3: " in str(caught.value)
    assert reason in str(caught.value)


def test_an_unsupported_file_is_named(tmp_path: Path) -> None:
    plain, other, missing = tmp_path / "plain.txt", tmp_path / "other.gz", tmp_path / "missing.gz"
    plain.write_text(text([trade(0, 1)]))
    with pytest.raises(RecordingError, match=r"plain\.txt: [Nn]ot a gzipped file"):
        inspect(plain)
    with pytest.raises(RecordingError, match=r"other\.gz: no trade with an event time"):
        inspect(write(other, "time,price\n1,2\n"))
    with pytest.raises(RecordingError, match=r"missing\.gz: No such file"):
        inspect(missing)
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(text(trade(n, n) for n in range(5_000)).encode())[:-20])
    with pytest.raises(RecordingError, match=r"cut\.gz, line \d+: .*end-of-stream"):
        inspect(cut)


@pytest.mark.parametrize(
    ("symbol", "trades", "quotes"), [("BTCUSDT", 2_570, 9_985), ("ETHUSDT", 2_016, 9_398)]
)
def test_real_recording(symbol: str, trades: int, quotes: int) -> None:
    path = CAPTURED[symbol]
    assert inspect(path).symbols == {symbol}
    assert 1_250_000 < inspect(path).offset_us < 1_277_000
    ticks = list(read([path]))
    trade_ids = [tick.id for tick in ticks if isinstance(tick, Trade)]
    update_ids = [tick.update_id for tick in ticks if isinstance(tick, Quote)]
    assert (len(trade_ids), len(update_ids)) == (trades, quotes)
    assert all(before + 1 == after for before, after in itertools.pairwise(trade_ids))
    assert all(before < after for before, after in itertools.pairwise(update_ids))
    lines = gzip.decompress(path.read_bytes()).splitlines()
    messages = (json.loads(line.partition(b" ")[2]) for line in lines)
    recorded = (m["data"] for m in messages if m.get("stream", "").endswith("@trade"))
    for tick, data in zip((t for t in ticks if isinstance(t, Trade)), recorded, strict=True):
        assert Decimal(tick.price).scaleb(-8) == Decimal(data["p"])
        assert Decimal(tick.qty).scaleb(-8) == Decimal(data["q"])
        assert tick.time_us == data["T"] * 1000
        assert tick.is_buyer_maker == data["m"]

"""Recordings of perpetuals: what is read of them, and which markets they are a reference of."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.exchange.events import ReferenceQuote
from local.exchange.recording import Recording, RecordingError, inspect, references
from local.exchange.reference import UnusableReference, reference_feed, references_of, refuse_useless
from tests.fixtures.recordings import RECORDINGS, T0_MS, perpetual_quote, quote, text, trade, write

START_US = T0_MS * 1000


def recording(name: str, symbol: str, first_s: int, last_s: int, is_futures: bool = True) -> Recording:
    return Recording(Path(name), frozenset({symbol}), 0, first_s * 10**6, last_s * 10**6, is_futures)


def spot(symbol: str = "BTCUSDT", first_s: int = 0, last_s: int = 100) -> Recording:
    return recording("spot.gz", symbol, first_s, last_s, is_futures=False)


def test_both_times_are_read(tmp_path: Path) -> None:
    lines = [perpetual_quote(0, 10, late_ms=7), trade(1, 1), perpetual_quote(3, 11, late_ms=0)]
    found = inspect(write(tmp_path / "a.gz", text(lines)))
    assert found.is_futures
    one, other = references(found)
    assert (one.due_us, one.event_time_us) == (START_US, START_US)
    price = 10**8
    assert one.event == ReferenceQuote(
        "BTCUSDT", START_US - 7_000, 10, 9_990_000_000, 3 * price // 2, 100 * price, 9 * price // 4
    )
    assert (other.due_us, other.event_time_us) == (START_US + 3_000, START_US + 3_000)


def test_it_needs_no_trades_and_a_spot_recording_is_none(tmp_path: Path) -> None:
    alone = inspect(write(tmp_path / "a.gz", text([perpetual_quote(0, 10)], offset_us=-5_000_000)))
    assert alone.is_futures and alone.offset_us == -5_000_000
    assert not inspect(write(tmp_path / "b.gz", text([quote(0, 10), trade(1, 1)]))).is_futures


def test_a_damaged_quote_is_named(tmp_path: Path) -> None:
    damaged = text([perpetual_quote(0, 10), perpetual_quote(1, 11)]).replace('"u":11', '"u":"11"')
    with pytest.raises(RecordingError, match=r"a\.gz, line 2: damaged: field 'u' is '11'"):
        list(references(inspect(write(tmp_path / "a.gz", damaged))))


def test_it_is_that_of_the_asset_and_the_time() -> None:
    given = [
        recording("now.gz", "BTCUSDT", 50, 150),
        recording("eth.gz", "ETHUSDT", 50, 150),
        recording("later.gz", "BTCUSDT", 101, 200),
    ]
    for symbol in ("BTCUSDT", "BTCFDUSD"):
        assert references_of(symbol, given, [spot(symbol)]) == given[:1]
    assert references_of("BTCUSDT", given, [spot(), spot(first_s=190, last_s=300)]) == [given[0], given[2]]
    assert references_of("BTCUSDT", given, [spot("ETHUSDT")]) == []


def test_quotes_have_the_symbol_of_the_market_and_come_once(tmp_path: Path) -> None:
    one = [perpetual_quote(0, 10), perpetual_quote(2, 11), perpetual_quote(3, 7, symbol="ETHUSDT")]
    other = [perpetual_quote(2, 11), perpetual_quote(5, 12)]
    paths = [write(tmp_path / f"{at}.gz", text(lines)) for at, lines in enumerate((other, one))]
    found = [sending.event for sending in reference_feed("BTCFDUSD", map(inspect, paths))]
    assert [(each.symbol, each.update_id) for each in found if isinstance(each, ReferenceQuote)] == [
        ("BTCFDUSD", 10),
        ("BTCFDUSD", 11),
        ("BTCFDUSD", 12),
    ]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            [recording("a.gz", "BTCUSDT", 101, 200)],
            r"a\.gz matches no recording: it has BTCUSDT from 1970-01-01 ",
        ),
        ([recording("a.gz", "ETHUSDT", 0, 100)], r"a\.gz matches no recording"),
        ([recording("a.gz", "BTCUSDT", 0, 100, is_futures=False)], "its quotes state no time T"),
        ([recording("a.gz", "BTCUSD_PERP", 0, 100)], "COIN-M"),
        ([recording("spot.gz", "BTCUSDT", 0, 100)], "none is its own reference"),
        (
            [recording("a.gz", "BTCUSDT", 0, 100), recording("b.gz", "BTCUSDC", 50, 150)],
            r"a\.gz and b\.gz have different perpetuals of one asset",
        ),
    ],
)
def test_a_reference_that_cannot_be_used_is_named(given: list[Recording], reason: str) -> None:
    with pytest.raises(UnusableReference, match=reason):
        refuse_useless(given, [spot()])


def test_several_that_are_of_use() -> None:
    given = [recording("a.gz", "BTCUSDT", 0, 60), recording("b.gz", "BTCUSDT", 50, 100)]
    refuse_useless([*given, recording("c.gz", "ETHUSDT", 0, 9)], [spot(), spot("ETHUSDT")])


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_real_recording(symbol: str) -> None:
    paths = [RECORDINGS / f"{kind}_{symbol.lower()}_20240808.gz" for kind in ("spot", "usdm")]
    if not all(path.exists() for path in paths):
        pytest.skip(f"no recordings at {RECORDINGS}")
    market, perpetual = map(inspect, paths)
    assert not market.is_futures
    refuse_useless([perpetual], [market])
    found = list(reference_feed(symbol, references_of(symbol, [perpetual], [market])))
    assert len(found) > 40_000
    assert all(isinstance(each.event, ReferenceQuote) for each in found)
    late_us = sorted(
        each.due_us - each.event.time_us for each in found if isinstance(each.event, ReferenceQuote)
    )
    assert late_us[0] >= 0 and late_us[len(late_us) // 2] < 5_000

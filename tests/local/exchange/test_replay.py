from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from local.exchange.events import Quote, ReferenceQuote, Sending, Trade
from local.exchange.recording import inspect
from local.exchange.replay import MAX_PAUSE_US, Replay
from tests.fixtures.recordings import Line, perpetual_quote, quote, text, trade, write

NOW_US = 1_800_000_000_000_000
MAX_PAUSE_MS = MAX_PAUSE_US // 1000
ONE_ROUND = [quote(0, 10), trade(5, 1), quote(5, 14), trade(20, 2)]


def replay(folder: Path, *files: list[Line]) -> Replay:
    paths = [write(folder / f"{number}.gz", text(lines)) for number, lines in enumerate(files)]
    return Replay(inspect(path) for path in paths)


def take(source: Replay, symbol: str, count: int, speed: float = 1.0) -> list[Sending]:
    return list(itertools.islice(source.feed(symbol, NOW_US, speed), count))


def trade_ids(sendings: list[Sending]) -> list[int]:
    return [sending.event.id for sending in sendings if isinstance(sending.event, Trade)]


def test_times_are_moved_to_now_and_ids_stay(tmp_path: Path) -> None:
    sendings = take(replay(tmp_path, ONE_ROUND), "BTCUSDT", 4)
    assert [sending.due_us - NOW_US for sending in sendings] == [0, 5_000, 5_000, 20_000]
    assert [sending.event_time_us - NOW_US for sending in sendings] == [0, 5_000, 5_000, 20_000]
    times = [s.event.time_us - NOW_US for s in sendings if isinstance(s.event, Trade | Quote)]
    assert times == [0, 4_000, 5_000, 19_000]  # trades at their transact time
    assert trade_ids(sendings) == [1, 2]


def test_speed_compresses_time(tmp_path: Path) -> None:
    sendings = take(replay(tmp_path, ONE_ROUND), "BTCUSDT", 4, speed=10)
    assert [sending.due_us - NOW_US for sending in sendings] == [0, 500, 500, 2_000]


def test_rounds_continue_ids_and_time(tmp_path: Path) -> None:
    sendings = take(replay(tmp_path, ONE_ROUND), "BTCUSDT", 40)
    assert trade_ids(sendings) == list(range(1, 21))
    update_ids = [s.event.update_id for s in sendings if isinstance(s.event, Quote)]
    assert all(before < after for before, after in itertools.pairwise(update_ids))
    assert all(before.due_us <= after.due_us for before, after in itertools.pairwise(sendings))
    assert all(sending.event_time_us <= sending.due_us for sending in sendings)


def test_symbols_keep_their_distance_in_every_round(tmp_path: Path) -> None:
    source = replay(tmp_path, ONE_ROUND, [trade(12, 7, symbol="ETHUSDT"), trade(40, 8, symbol="ETHUSDT")])
    assert source.symbols == ["BTCUSDT", "ETHUSDT"]
    btc, eth = take(source, "BTCUSDT", 12), take(source, "ETHUSDT", 6)
    assert [eth[2 * n].due_us - btc[4 * n].due_us for n in range(3)] == [12_000] * 3
    assert trade_ids(eth) == [7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize(("pause_ms", "is_cut"), [(MAX_PAUSE_MS // 2, False), (10 * MAX_PAUSE_MS, True)])
def test_a_long_pause_between_files_is_cut_out_and_its_ids_with_it(
    tmp_path: Path, pause_ms: int, is_cut: bool
) -> None:
    later = [trade(20 + pause_ms, 1_000), trade(25 + pause_ms, 1_001)]
    sendings = take(replay(tmp_path, later, ONE_ROUND), "BTCUSDT", 6)
    gap_us = 0 if is_cut else pause_ms * 1000
    assert [s.due_us - NOW_US - gap_us for s in sendings[4:]] == [20_000, 25_000]
    assert trade_ids(sendings) == ([1, 2, 3, 4] if is_cut else [1, 2, 1_000, 1_001])


def test_nothing_to_replay() -> None:
    with pytest.raises(ValueError, match="nothing to replay"):
        Replay([])


def test_the_perpetual_is_replayed_as_far_from_the_spot_market_as_it_arrived(tmp_path: Path) -> None:
    spot = write(tmp_path / "spot.gz", text(ONE_ROUND, offset_us=1_000_000))
    before_and_after = [perpetual_quote(at_ms, 40 + at_ms, late_ms=3) for at_ms in (-5, 4, 6, 25)]
    perpetual = write(tmp_path / "usdm.gz", text(before_and_after, offset_us=-7_000_000))  # another recorder
    source = Replay([inspect(spot)], [inspect(perpetual)])
    assert source.symbols == ["BTCUSDT"] and source.has_perpetuals
    sendings = take(source, "BTCUSDT", 12)
    assert [s.due_us - NOW_US for s in sendings[:6]] == [0, 4_000, 5_000, 5_000, 6_000, 20_000]
    quotes = [s for s in sendings if isinstance(s.event, ReferenceQuote)]
    assert [s.event.time_us - s.due_us for s in quotes if isinstance(s.event, ReferenceQuote)] == [-3_000] * 4
    ids = [s.event.update_id for s in quotes if isinstance(s.event, ReferenceQuote)]
    assert ids[:2] == [44, 46] and ids[1] < ids[2] < ids[3]
    assert quotes[2].due_us - quotes[0].due_us == sendings[6].due_us - NOW_US  # in the next round too


def test_a_reference_of_another_asset_or_time_is_not_replayed(tmp_path: Path) -> None:
    spot = write(tmp_path / "spot.gz", text(ONE_ROUND))
    other = write(tmp_path / "eth.gz", text([perpetual_quote(4, 44, symbol="ETHUSDT")]))
    late = write(tmp_path / "late.gz", text([perpetual_quote(21, 44)]))
    source = Replay([inspect(spot)], [inspect(other), inspect(late)])
    assert not source.has_perpetuals
    sendings = take(source, "BTCUSDT", 8)
    assert not any(isinstance(sending.event, ReferenceQuote) for sending in sendings)

"""The simulated market is what it claims to be, and what is counted grows with the symbols alone."""

from __future__ import annotations

import hashlib
import statistics
from itertools import pairwise

import pytest

from benchmarks.scale import (
    START_US,
    Feed,
    Market,
    Setting,
    Shards,
    hottest_share,
    measure_at,
    rates_of,
    shard_of,
    shards_for,
    symbols_of,
)
from tickcast import sbe
from tickcast.adapters.kinesis.records import records_in
from tickcast.market import wire
from tickcast.units import SECOND_US


def test_most_of_a_thousand_symbols_are_quiet() -> None:
    rates = rates_of(1000)
    assert rates[0] == 200
    assert sum(rates) == pytest.approx(1497, abs=1)
    assert statistics.median(rates) < 0.5
    assert sum(rate < 1 for rate in rates) == 800


def test_a_market_has_its_rates_and_is_the_same_every_time() -> None:
    symbols, rates = symbols_of(50), rates_of(50)
    markets = [Market(symbols, rates) for _ in range(2)]
    seconds = [markets[0].second() for _ in range(20)]
    assert seconds == [markets[1].second() for _ in range(20)]
    frames = [frame for second in seconds for frame in second]
    assert all(a <= b for (a, _), (b, _) in pairwise(frames))
    assert all(START_US <= at_us < START_US + 20 * SECOND_US for at_us, _ in frames)
    assert len(frames) / 20 == pytest.approx(sum(rates), rel=0.1)
    assert {event.symbol for event in map(sbe.decode, (frame for _, frame in seconds[0]))} == set(symbols)


def test_keys_are_on_the_shard_that_kinesis_puts_them_on() -> None:
    """By the MD5 of the key: that of BTCUSDT begins with the byte below."""
    first = hashlib.md5(b"BTCUSDT", usedforsecurity=False).digest()[0]
    assert shard_of("BTCUSDT", 256) == first
    assert shard_of("BTCUSDT", 1) == 0
    # The two of prod have a shard each (docs/latency.md).
    assert shard_of("BTCUSDT", 2) != shard_of("ETHUSDT", 2)


def test_a_thousand_symbols_spread_over_shards() -> None:
    shards = shards_for(1000)
    assert shards == 15
    assert 1 < hottest_share([1.0] * 1000, shards) < 1 / 0.7  # which `shards_for` leaves room for
    assert hottest_share(rates_of(1000), shards) > 1.5  # the busiest symbol cannot be divided


def test_every_symbol_sends_a_record_a_linger_and_task_whether_it_has_ticks_or_not() -> None:
    """That is what decides about shards: a claim, so that it is predicted as often as a busy one."""
    symbols, setting = symbols_of(40), Setting(tasks=2)
    feed, stream = Feed(symbols, rates_of(40), setting), Shards(4)
    for _ in range(3):
        for at_us, records in feed.second():
            stream.add(at_us, records)
    events = [event for _, event in stream.events(10_000)]
    batches = [wire.decode(record.data) for event in events for record in records_in(event)]
    assert len(batches) == pytest.approx(40 * 2 * 10 * 3, abs=2 * 40)
    assert sum(not batch.tick_count for batch in batches) > len(batches) / 4
    assert {batch.symbol for batch in batches} == set(symbols)


@pytest.mark.server
def test_commands_and_records_of_a_symbol_do_not_grow_with_their_number() -> None:
    setting = Setting(seconds=1, warm_up_s=10)
    few, many = (measure_at(count, setting) for count in (2, 12))
    for a_symbol in (few.per_symbol(), many.per_symbol()):
        assert a_symbol["records"] == pytest.approx(10, abs=0.5)
        assert 100 < a_symbol["redis_commands"] < 200
        assert 10 < a_symbol["redis_mb"] < 40
    # The groups of a round trip: two symbols are one, twelve are three.
    assert many.per_symbol()["redis_commands"] < 1.1 * few.per_symbol()["redis_commands"]
    assert many.event_symbols == 12

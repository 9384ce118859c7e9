"""The perpetuals' quotes on their way into the batches of the spot symbols."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from aws_lambda_powertools import Logger

from ingest_ecs.feed_buffer import FeedBuffer
from ingest_ecs.producer import Producer
from ingest_ecs.quarantine import Refusals
from ingest_ecs.reference_feed import CONFLATED_US, KEPT_US, ReferenceFeed
from tests.fixtures.frames import trade_frame
from tests.fixtures.perpetual_frames import perpetual_frame
from tests.fixtures.put_records import Kinesis
from tests.fixtures.recordings import RECORDINGS
from tickcast.market import wire
from tickcast.market.ticks import Quotes

T0_MS = 1_754_000_000_000
SYMBOLS = ("BTCUSDT", "BTCFDUSD", "ETHUSDT", "ETHBTC")


class Sink:
    """What was put into quarantine."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, str, str]] = []

    def __call__(self, data: bytes, reason: str, connection: str) -> None:
        self.kept.append((data, reason, connection))


def make(sink: Sink | None = None) -> ReferenceFeed:
    return ReferenceFeed(SYMBOLS, Refusals("usdm", Logger(service="test"), sink or Sink()))


def connect(feed: ReferenceFeed, number: int = 1) -> FeedBuffer:
    buffer = FeedBuffer(number, f"u{number}", "usdm")
    feed.attach(buffer)
    return buffer


def bring(buffer: FeedBuffer, *quotes: tuple[int, int], symbol: str = "BTCUSDT") -> None:
    """Quotes of (update id, ms after T0), received 5 ms later."""
    for update_id, at_ms in quotes:
        buffer.take(perpetual_frame(update_id, T0_MS + at_ms, symbol), (T0_MS + at_ms + 5) * 1000)


def ids(quotes: Quotes) -> list[int]:
    return [int(each) for each in quotes["update_id"]]


def test_the_newest_of_each_50_ms_goes_along_once_in_the_order_of_time() -> None:
    feed = make()
    bring(connect(feed), (1, 0), (2, 10), (3, 49), (4, 50), (5, 120), (6, 149))
    feed.collect()
    quotes = feed.take("BTCUSDT")
    assert ids(quotes) == [3, 4, 6]
    assert quotes["time_us"].tolist() == [(T0_MS + at_ms) * 1000 for at_ms in (49, 50, 149)]
    assert quotes["receive_time_us"].tolist() == [(T0_MS + at_ms + 5) * 1000 for at_ms in (49, 50, 149)]
    assert ids(feed.take("BTCUSDT")) == []


def test_all_markets_of_a_base_get_its_perpetual_and_others_none() -> None:
    feed = make()
    assert feed.perpetuals == ("BTCUSDT", "ETHUSDT")
    buffer = connect(feed)
    bring(buffer, (1, 0))
    bring(buffer, (7, 0), symbol="ETHUSDT")
    bring(buffer, (9, 0), symbol="DOGEUSDT")  # of the busy symbol, say
    feed.collect()
    assert [ids(feed.take(symbol)) for symbol in SYMBOLS] == [[1], [1], [7], []]


def test_what_two_connections_bring_goes_along_once() -> None:
    feed = make()
    first, second = connect(feed, 1), connect(feed, 2)
    bring(first, (1, 0), (2, 60))
    bring(second, (1, 0), (2, 60), (3, 110))
    feed.collect()
    assert ids(feed.take("BTCUSDT")) == [1, 2, 3]
    bring(first, (3, 110))  # repeats, after it was sent
    feed.collect()
    assert ids(feed.take("BTCUSDT")) == []


def test_the_quotes_of_a_connection_that_ends_are_not_lost() -> None:
    feed = make()
    buffer = connect(feed)
    bring(buffer, (1, 0))
    feed.detach(buffer)
    assert ids(feed.take("BTCUSDT")) == [1]


def test_what_does_not_go_soon_is_dropped() -> None:
    """The spot market is away: memory does not grow, and what is old does not come later."""
    feed = make()
    buffer = connect(feed)
    for n in range(1000):
        bring(buffer, (n, 50 * n))
        feed.collect()
    quotes = feed.take("BTCUSDT")
    assert ids(quotes)[-1] == 999
    assert len(quotes) == KEPT_US // CONFLATED_US + 1


def test_bad_frames_cost_themselves_and_keep_their_reason() -> None:
    sink = Sink()
    feed = make(sink)
    buffer = connect(feed)
    bring(buffer, (1, 0))
    buffer.take("no json", (T0_MS + 6) * 1000)
    buffer.take(perpetual_frame(2, T0_MS + 60, bid="101"), (T0_MS + 65) * 1000)
    buffer.take(perpetual_frame(3, T0_MS + 90_000), (T0_MS + 66) * 1000)  # ahead of the clock
    bring(buffer, (4, 110))
    feed.collect()
    assert ids(feed.take("BTCUSDT")) == [1, 4]
    assert [(reason.partition(":")[0], connection) for _, reason, connection in sink.kept] == [
        ("JsonFrameError", "u1"),
        ("TickError", "u1"),
        ("TickError", "u1"),
    ]
    batch = wire.decode(sink.kept[-1][0])
    assert (batch.source, ids(batch.quotes)) == ("usdm", [3])


def test_a_turn_of_nothing_but_bad_frames_ends_nothing() -> None:
    sink = Sink()
    feed = make(sink)
    buffer = connect(feed)
    buffer.take(perpetual_frame(1, T0_MS, bid="101"), (T0_MS + 5) * 1000)  # crossed
    feed.collect()
    bring(buffer, (2, 60))
    feed.collect()
    assert ids(feed.take("BTCUSDT")) == [2]
    assert [reason.partition(":")[0] for _, reason, _ in sink.kept] == ["TickError"]


def test_what_cannot_be_decoded_at_all_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Sink()
    feed = make(sink)
    buffer = connect(feed)

    def broken() -> Any:
        raise RuntimeError("a frame")

    with monkeypatch.context() as patched:
        patched.setattr(buffer, "drain", broken)
        feed.collect()
    bring(buffer, (2, 60))
    feed.collect()
    assert ids(feed.take("BTCUSDT")) == [2]
    assert [reason for _, reason, _ in sink.kept] == ["RuntimeError: a frame"]


def test_an_id_far_ahead_costs_itself() -> None:
    sink = Sink()
    feed = make(sink)
    buffer = connect(feed)
    found: list[int] = []
    for n in range(40):
        bring(buffer, (10**12 if n == 20 else n, 50 * n))
        feed.collect()
        found += ids(feed.take("BTCUSDT"))
    assert found == [n for n in range(40) if n != 20]
    assert [reason for _, reason, _ in sink.kept] == ["TickError: BTCUSDT: an id far ahead of its series"]


def test_ids_that_start_over_are_followed() -> None:
    feed = make()
    buffer = connect(feed)
    found: list[int] = []
    for n in range(200):
        bring(buffer, (10**9 + n if n < 100 else n, 50 * n))
        feed.collect()
        found += ids(feed.take("BTCUSDT"))
    assert found[:100] == list(range(10**9, 10**9 + 100))
    assert found[-50:] == list(range(150, 200))


@pytest.mark.parametrize("name", ["usdm_btcusdt_20240808.gz", "usdm_ethusdt_20240718_19.gz"])
def test_nothing_of_a_recording_is_refused(name: str) -> None:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"no {path.name} in {RECORDINGS}")
    sink = Sink()
    feed = make(sink)
    buffer, symbol = connect(feed), name[5:12].upper()
    kept, due_us = 0, 0
    newest: dict[int, tuple[int, int]] = {}
    for received_us, text in _quotes_of(path):
        if received_us >= due_us:
            due_us = received_us + 100_000
            feed.collect()
            kept += len(feed.take(symbol))
        buffer.take(text, received_us)
        newest[received_us // 50_000] = (received_us, 0)
    assert sink.kept == []
    seconds = len(newest) / 20
    assert 10 < kept / seconds < 31  # of some 100 to 200 a second


def _quotes_of(path: Any) -> Iterator[tuple[int, str]]:
    with gzip.open(path, "rt") as file:
        for line in file:
            if "@bookTicker" in line[:60]:
                at_ns, _, text = line.partition(" ")
                yield int(at_ns) // 1000, text


# ------------------------------------------------------------------------------------- with the producer


def produce(happens: Callable[[Producer, FeedBuffer, FeedBuffer], None]) -> tuple[Producer, Kinesis, Sink]:
    """A producer with a connection of either kind: `happens`, then all is put."""
    kinesis, sink = Kinesis(), Sink()

    async def scenario() -> Producer:
        producer = Producer(
            kinesis, "t", SYMBOLS, "sim", 0.01, Logger(service="test"), quarantine=sink,
            now_us=lambda: (T0_MS + 100) * 1000,
        )  # fmt: skip
        spot = FeedBuffer(1, "c1", "sbe")
        producer.attach(spot)
        happens(producer, spot, connect(producer.reference))
        producer.drain()
        await producer.run()
        return producer

    return asyncio.run(scenario()), kinesis, sink


def spot_trade(buffer: FeedBuffer, trade_id: int, symbol: str = "BTCUSDT") -> None:
    time_us = (T0_MS + trade_id) * 1000
    buffer.take(trade_frame(trade_id, symbol, time_us), time_us + 5_000)


def test_they_go_along_with_the_next_batch_of_their_symbol_and_only_once() -> None:
    def happens(producer: Producer, spot: FeedBuffer, usdm: FeedBuffer) -> None:
        other = FeedBuffer(2, "c2", "sbe")
        producer.attach(other)
        bring(usdm, (1, 0), (2, 60))
        for buffer in (spot, other):
            spot_trade(buffer, 1)
            spot_trade(buffer, 1, "ETHUSDT")
        producer.pack()

    producer, kinesis, _ = produce(happens)
    assert {batch.connection for batch in kinesis.of("BTCUSDT")} == {"c1", "c2"}
    assert kinesis.reference_ids("BTCUSDT") == [1, 2]
    assert kinesis.reference_ids("ETHUSDT") == []
    assert all(len(batch.quotes) == 0 for batch in kinesis.batches)
    # BTCFDUSD had no tick: they go along with its claim.
    assert kinesis.reference_ids("BTCFDUSD") == [1, 2]
    assert producer.counts.references_in == 4
    assert producer.counts.ticks_in == producer.counts.ticks_put == 4


def test_bad_frames_of_the_perpetual_are_no_news_of_the_spot_market() -> None:
    def happens(producer: Producer, spot: FeedBuffer, usdm: FeedBuffer) -> None:
        spot_trade(spot, 1)
        producer.pack()
        usdm.take("no json", (T0_MS + 6) * 1000)
        usdm.take(perpetual_frame(2, T0_MS + 90_000), (T0_MS + 66) * 1000)
        producer.pack()
        spot_trade(spot, 2)
        producer.reference.detach(usdm)
        producer.pack()

    producer, kinesis, sink = produce(happens)
    assert kinesis.causes("BTCUSDT") == ["ingest was not running"]
    assert producer.bad_frames.total() == 2
    assert len(sink.kept) == 2
    batch = wire.decode(sink.kept[-1][0])
    assert batch.source == "sim_usdm"


def test_a_batch_larger_than_a_record_carries_them_once() -> None:
    def happens(producer: Producer, spot: FeedBuffer, usdm: FeedBuffer) -> None:
        bring(usdm, (1, 0))
        time_us = T0_MS * 1000
        spot.take(trade_frame(1, time_us=time_us, count=25_000), time_us + 5_000)

    _, kinesis, _ = produce(happens)
    of_btc = [batch for batch in kinesis.of("BTCUSDT") if len(batch.trades)]
    assert [ids(batch.reference) for batch in of_btc] == [[1], [], []]
    assert np.concatenate([batch.trades for batch in of_btc])["first_id"].max() == 25_000

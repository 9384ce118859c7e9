"""The producer against a Kinesis that fails the ways Kinesis fails: order holds, nothing accepted is lost."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from aws_lambda_powertools import Logger
from botocore.exceptions import EndpointConnectionError

from ingest_ecs import producer as producer_module
from ingest_ecs.producer import MAX_TICKS_PER_RECORD, MAX_WAITING_RECORDS, Producer
from tickcast import wire

SYMBOLS = ("BTCUSDT", "ETHUSDT")
Respond = Callable[[int, list[dict[str, Any]]], list[bool]]


class Kinesis:
    """Takes what `respond(call number, records)` says it takes; raises when it raises."""

    def __init__(self, respond: Respond | None = None) -> None:
        self.respond = respond or (lambda _, records: [True] * len(records))
        self.calls: list[list[str]] = []
        self.stored: dict[str, list[wire.TickBatch]] = defaultdict(list)

    def put_records(self, *, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        self.calls.append([record["PartitionKey"] for record in Records])
        taken = self.respond(len(self.calls), Records)
        for record, is_taken in zip(Records, taken, strict=True):
            if is_taken:
                self.stored[record["PartitionKey"]].append(wire.decode(record["Data"]))
        failed = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"}
        return {
            "FailedRecordCount": taken.count(False),
            "Records": [{"SequenceNumber": "1"} if is_taken else failed for is_taken in taken],
        }

    def trade_ids(self, symbol: str) -> list[int]:
        return [int(i) for batch in self.stored[symbol] for i in batch.trades["first_id"]]


class Clock:
    now_us = 1_000_000_000

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture(autouse=True)
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_module, "RETRY_S", 0.001)


def make(kinesis: Kinesis, clock: Clock | None = None) -> Producer:
    return Producer(kinesis, "ticks", SYMBOLS, "sim", "c1", 0.002, Logger(service="test"), clock or Clock())


def trade(trade_id: int, time_us: int = 1_000_000_000) -> tuple[int, ...]:
    return (time_us, time_us, trade_id, trade_id, 100, 5, 1)


async def feed(producer: Producer, count: int) -> None:
    """Accept trades one by one while the producer runs, then drain it."""
    running = asyncio.create_task(producer.run())
    for trade_id in range(count):
        for symbol in SYMBOLS:
            producer.accept(symbol, [trade(trade_id)], [], 1_000_000_000)
        if trade_id % 10 == 0:
            await asyncio.sleep(0.001)
    producer.drain()
    await asyncio.wait_for(running, 20)


def unreachable(call: int, records: list[dict[str, Any]]) -> list[bool]:
    if call < 8:
        raise EndpointConnectionError(endpoint_url="http://kinesis")
    return [True] * len(records)


@pytest.mark.parametrize(
    "respond",
    [
        lambda call, records: [True] * len(records),
        lambda call, records: [(call + n) % 2 == 0 for n in range(len(records))],
        lambda call, records: [call % 5 == 0] * len(records),
        unreachable,
    ],
    ids=["healthy", "every other record fails", "four calls in five fail", "out of reach"],
)
def test_everything_accepted_arrives_once_and_in_order(respond: Respond) -> None:
    kinesis = Kinesis(respond)
    producer = make(kinesis)
    asyncio.run(feed(producer, 300))
    for symbol in SYMBOLS:
        assert kinesis.trade_ids(symbol) == list(range(300))
    assert all(len(call) == len(set(call)) for call in kinesis.calls)  # one record per symbol and call
    assert producer.waiting_records() == 0
    assert producer.counts.ticks_in == 600


def test_ticks_of_a_linger_share_a_record() -> None:
    kinesis = Kinesis()

    async def scenario() -> None:
        producer = make(kinesis)
        producer.accept("BTCUSDT", [trade(n) for n in range(50)], [], 1_000_000_000)
        producer.drain()
        await producer.run()

    asyncio.run(scenario())
    assert len(kinesis.stored["BTCUSDT"]) == 1
    assert kinesis.stored["BTCUSDT"][0].watermark_us == 1_000_000_000
    assert kinesis.stored["BTCUSDT"][0].connection == "c1"


def test_a_burst_is_split_and_only_its_last_record_claims_a_watermark() -> None:
    kinesis = Kinesis()

    async def scenario() -> None:
        producer = make(kinesis)
        producer.accept("BTCUSDT", [trade(n) for n in range(MAX_TICKS_PER_RECORD + 5)], [], 1_000_000_000)
        producer.drain()
        await producer.run()

    asyncio.run(scenario())
    assert [len(batch.trades) for batch in kinesis.stored["BTCUSDT"]] == [MAX_TICKS_PER_RECORD, 5]
    assert [batch.watermark_us for batch in kinesis.stored["BTCUSDT"]] == [wire.NO_WATERMARK, 1_000_000_000]


def test_a_quiet_symbol_gets_a_watermark_a_second_until_the_connection_is_lost() -> None:
    kinesis, clock = Kinesis(), Clock()

    async def scenario() -> None:
        producer = make(kinesis, clock)
        producer.accept("BTCUSDT", [trade(1)], [], clock.now_us)
        for step in range(80):  # eight seconds, the second half of them without a connection
            if step == 40:
                producer.connection_lost()
            clock.now_us += 100_000
            producer._pack()
        producer.drain()
        await producer.run()

    asyncio.run(scenario())
    marks = [batch.watermark_us for batch in kinesis.stored["BTCUSDT"] if not len(batch.trades)]
    assert len(marks) == 3
    assert all(900_000 <= b - a <= 1_100_000 for a, b in zip(marks, marks[1:], strict=False))
    assert kinesis.stored["ETHUSDT"] == []  # nothing was ever seen of it: nothing is claimed


def test_memory_is_bounded_and_what_is_dropped_is_the_oldest_and_counted() -> None:
    def never(call: int, records: list[dict[str, Any]]) -> list[bool]:
        raise EndpointConnectionError(endpoint_url="http://kinesis")

    kinesis = Kinesis(never)

    async def scenario() -> Producer:
        producer = make(kinesis)
        for n in range(MAX_WAITING_RECORDS + 20):
            producer.accept("BTCUSDT", [trade(n)], [], 1_000_000_000)
            producer._pack()
        kinesis.respond = lambda call, records: [True] * len(records)
        producer.drain()
        await producer.run()
        return producer

    producer = asyncio.run(scenario())
    assert producer.counts.dropped_records == 20
    assert kinesis.trade_ids("BTCUSDT") == list(range(20, MAX_WAITING_RECORDS + 20))

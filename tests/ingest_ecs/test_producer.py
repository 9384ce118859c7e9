"""The producer with a Kinesis that fails as Kinesis does: order holds, nothing accepted is lost."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from aws_lambda_powertools import Logger
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_ecs import kinesis_writer, outbox
from ingest_ecs.feed_buffer import FeedBuffer
from ingest_ecs.outbox import Record
from ingest_ecs.producer import MAX_TICKS_PER_RECORD, Producer
from ingest_ecs.symbol_feed import OVERFLOW, RESTARTED, SKIPPED, STARTED, UNREADABLE
from tests.fixtures.asynchronous import run_async
from tests.fixtures.frames import quote_frame, trade_frame
from tickcast import sbe
from tickcast.features.ring import BarRing
from tickcast.market import wire
from tickcast.market.liveness import Stall
from tickcast.market.ticks import quotes_array, trades_array

SYMBOLS = ("BTCUSDT", "ETHUSDT")
RECEIVED_US = 1_000_000_700
Respond = Callable[[int, list[dict[str, Any]]], list[bool]]


class Kinesis:
    """Stores the records for which `respond(call number, records)` is true; raises when it raises."""

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
    monkeypatch.setattr(kinesis_writer, "RETRY_S", 0.001)


def make(
    kinesis: Kinesis, clock: Clock | None = None, symbols: tuple[str, ...] = SYMBOLS, **options: Any
) -> Producer:
    logger = Logger(service="test")
    return Producer(kinesis, "ticks", symbols, "sim", 0.002, logger, now_us=clock or Clock(), **options)


def buffer(producer: Producer, number: int = 1) -> FeedBuffer:
    opened = FeedBuffer(number, f"c{number}", "sbe")
    producer.attach(opened)
    return opened


def run(
    kinesis: Kinesis, happens: Callable[[Producer, FeedBuffer], None], *args: Any, **options: Any
) -> Producer:
    """A producer with one buffer: `happens`, then all is put."""

    async def scenario() -> Producer:
        producer = make(kinesis, *args, **options)
        happens(producer, buffer(producer))
        producer.drain()
        await producer.run()
        return producer

    return asyncio.run(scenario())


async def feed(producer: Producer, count: int) -> None:
    """Take trades one by one while the producer runs, then drain it."""
    running, opened = asyncio.create_task(producer.run()), buffer(producer)
    for trade_id in range(count):
        for symbol in SYMBOLS:
            opened.take(trade_frame(trade_id, symbol), RECEIVED_US)
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
    assert len(producer.outbox) == 0
    assert producer.counts.ticks_in == 600


def test_ticks_of_a_linger_share_a_record() -> None:
    kinesis = Kinesis()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        for n in range(50):
            opened.take(trade_frame(n), RECEIVED_US)

    run(kinesis, happens)
    assert len(kinesis.stored["BTCUSDT"]) == 1
    assert kinesis.stored["BTCUSDT"][0].watermark_us == 1_000_000_000
    assert kinesis.stored["BTCUSDT"][0].connection == "c1"


def test_a_burst_is_split_and_only_its_last_record_claims_a_watermark() -> None:
    kinesis = Kinesis()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        opened.take(trade_frame(0, count=MAX_TICKS_PER_RECORD + 5), RECEIVED_US)

    run(kinesis, happens)
    assert [len(batch.trades) for batch in kinesis.stored["BTCUSDT"]] == [MAX_TICKS_PER_RECORD, 5]
    assert [batch.watermark_us for batch in kinesis.stored["BTCUSDT"]] == [wire.NO_WATERMARK, 1_000_000_000]


def test_packing_does_not_wait_for_a_put_that_hangs() -> None:
    """Otherwise no stream would seem to deliver, and claims would end, because Kinesis is slow."""
    answers, seen = threading.Event(), []

    def hang(call: int, records: list[dict[str, Any]]) -> list[bool]:
        answers.wait(20)
        return [True] * len(records)

    kinesis = Kinesis(hang)

    async def scenario() -> None:
        producer = make(kinesis, saw_data=lambda *stream: seen.append(stream))
        running, opened = asyncio.create_task(producer.run()), buffer(producer)
        for trade_id in range(5):
            opened.take(trade_frame(trade_id), RECEIVED_US)
            while len(seen) <= trade_id:
                await asyncio.sleep(0.001)
        assert kinesis.stored["BTCUSDT"] == []
        answers.set()
        producer.drain()
        await asyncio.wait_for(running, 20)

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert kinesis.trade_ids("BTCUSDT") == list(range(5))


def test_ids_that_are_held_back_at_the_end_are_counted_and_kept() -> None:
    kinesis, kept = Kinesis(), []

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        for n in range(10):
            opened.take(trade_frame(10**9 + n, time_us=1_000_000_000 + n * 1000), RECEIVED_US)
        producer.pack()
        for n in range(2):  # one too few for a new series
            opened.take(trade_frame(n, time_us=1_000_020_000 + n * 1000), RECEIVED_US + 20_000)

    producer = run(kinesis, happens, quarantine=lambda data, reason, connection: kept.append((data, reason)))
    assert kinesis.trade_ids("BTCUSDT") == [10**9 + n for n in range(10)]
    assert producer.bad_frames.total() == 2
    assert sorted(i for data, _ in kept for i in wire.decode(data).trades["first_id"].tolist()) == [0, 1]


def bare(kinesis: Kinesis, symbol: str) -> list[int]:
    """The watermarks of records without ticks."""
    return [b.watermark_us for b in kinesis.stored[symbol] if not b.tick_count]


def run_busy(kinesis: Kinesis, happens: Callable[[int, Producer, FeedBuffer], None], **options: Any) -> None:
    """About four seconds on a connection that carries BTCUSDT's trades ten times a second."""
    clock = Clock()

    async def scenario() -> None:
        producer = make(kinesis, clock, **options)
        opened = buffer(producer)
        for step in range(39):
            happens(step, producer, opened)
            if opened in producer._buffers:
                opened.take(trade_frame(step, time_us=clock.now_us), clock.now_us)
            producer.pack()
            clock.now_us += 100_000
        producer.drain()
        await producer.run()

    asyncio.run(scenario())


def test_a_symbol_without_ticks_claims_at_the_pace_of_predictions_what_the_busy_one_proves() -> None:
    kinesis = Kinesis()
    run_busy(kinesis, lambda step, producer, opened: None)
    marks = bare(kinesis, "ETHUSDT")
    assert len(marks) == 39
    assert {later - earlier for earlier, later in zip(marks, marks[1:], strict=False)} == {100_000}
    assert bare(kinesis, "BTCUSDT") == []


def test_a_claim_that_proves_nothing_new_is_repeated_once_a_second() -> None:
    """Nor does a shorter linger make more claims."""
    kinesis, clock = Kinesis(), Clock()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        opened.take(trade_frame(1, time_us=clock.now_us), clock.now_us)
        for _ in range(60):
            producer.pack()
            clock.now_us += 25_000

    run(kinesis, happens, clock)
    assert [len(kinesis.stored[symbol]) for symbol in SYMBOLS] == [2, 2]


def test_a_clock_that_is_set_back_does_not_stop_the_claims() -> None:
    kinesis, clock = Kinesis(), Clock()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        opened.take(trade_frame(1, time_us=clock.now_us), clock.now_us)
        producer.pack()
        clock.now_us -= 3_000_000
        producer.pack()

    run(kinesis, happens, clock)
    assert len(bare(kinesis, "ETHUSDT")) == 2


def test_each_try_is_stamped_with_its_own_instant_of_the_exchange_s_clock() -> None:
    clock, offset_us = Clock(), 3_000_000  # the host's clock is ahead

    def first_fails(call: int, records: list[dict[str, Any]]) -> list[bool]:
        clock.now_us += 500_000
        return [call > 1] * len(records)

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        opened.take(trade_frame(1, time_us=clock.now_us - offset_us), clock.now_us)

    kinesis = Kinesis(first_fails)
    claims: list[int] = []
    run(kinesis, happens, clock, exchange_now_us=lambda: clock.now_us - offset_us, check_claim=claims.append)
    (batch,) = kinesis.stored["BTCUSDT"]
    assert batch.sent_us == Clock.now_us + 500_000 - offset_us
    assert batch.host_offset_us == offset_us
    assert claims[0] == batch.watermark_us == Clock.now_us - offset_us


def test_without_the_exchange_s_clock_nothing_is_stamped() -> None:
    kinesis = Kinesis()
    run(kinesis, lambda producer, opened: opened.take(trade_frame(1), RECEIVED_US))
    assert [batch.sent_us for batch in kinesis.stored["BTCUSDT"]] == [wire.SENT_UNKNOWN]


def test_a_claim_is_withdrawn_once_when_the_connection_is_lost() -> None:
    def happens(step: int, producer: Producer, opened: FeedBuffer) -> None:
        if step == 20:
            producer.detach(opened, "reset")

    kinesis = Kinesis()
    run_busy(kinesis, happens)
    for symbol in SYMBOLS:
        marks = [batch.watermark_us for batch in kinesis.stored[symbol]]
        assert marks.index(wire.WATERMARK_WITHDRAWN) == len(marks) - 1


def test_a_claim_is_withdrawn_and_renewed() -> None:
    def happens(step: int, producer: Producer, opened: FeedBuffer) -> None:
        opened.withdrawn = {"ETHUSDT"} if 12 <= step < 30 else set()

    kinesis = Kinesis()
    run_busy(kinesis, happens)
    marks = bare(kinesis, "ETHUSDT")
    assert marks.count(wire.WATERMARK_WITHDRAWN) == 1
    at = marks.index(wire.WATERMARK_WITHDRAWN)
    assert (at, len(marks) - at) == (12, 10)
    assert marks[at + 1] - marks[at - 1] == 1_900_000


def test_evidence_of_a_quiet_market_goes_out_at_once_with_a_claim() -> None:
    def happens(producer: Producer, opened: FeedBuffer) -> None:
        opened.take(trade_frame(1, time_us=clock.now_us), clock.now_us)
        producer.pack()
        producer.note_quiet("ETHUSDT", clock.now_us)
        producer.pack()

    kinesis, clock, offset_us = Kinesis(), Clock(), 3_000_000  # the host's clock is ahead
    run(kinesis, happens, clock, exchange_now_us=lambda: clock.now_us - offset_us)
    quiet_us = [batch.quiet_us for batch in kinesis.stored["ETHUSDT"]]
    assert quiet_us == [wire.QUIET_UNKNOWN, clock.now_us - offset_us]
    assert {batch.quiet_us for batch in kinesis.stored["BTCUSDT"]} == {wire.QUIET_UNKNOWN}


def test_the_busy_symbol_shows_that_the_connection_lives_and_is_not_put() -> None:
    kinesis, seen = Kinesis(), []
    clock = Clock()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        opened.take(trade_frame(1, "BUSYUSDT", clock.now_us), clock.now_us)
        producer.pack()
        assert producer.bad_frames.total() == 0

    run(kinesis, happens, clock, busy_symbol="BUSYUSDT", saw_data=lambda *stream: seen.append(stream))
    assert seen == [(1, "BUSYUSDT", "trades")]
    assert kinesis.stored["BUSYUSDT"] == []
    assert [batch.tick_count for batch in kinesis.stored["BTCUSDT"]] == [0]  # claimed by what came of it


def test_memory_is_bounded_and_dropped_ticks_are_reported_downstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING_BYTES", 20_000)

    def never(call: int, records: list[dict[str, Any]]) -> list[bool]:
        raise EndpointConnectionError(endpoint_url="http://kinesis")

    kinesis, accepted = Kinesis(never), 500

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        for n in range(accepted):
            opened.take(trade_frame(n, time_us=1_000_000_000 + n), RECEIVED_US)
            producer.pack()
        kinesis.respond = lambda call, records: [True] * len(records)

    producer = run(kinesis, happens)
    kept = kinesis.trade_ids("BTCUSDT")
    assert kept == list(range(accepted - len(kept), accepted))  # the newest, without a hole
    assert 50 < len(kept) < accepted
    assert producer.counts.dropped_records == producer.counts.dropped_ticks == accepted - len(kept)
    notices = [n for batch in kinesis.stored["BTCUSDT"] for n in batch.notices if n.cause == OVERFLOW]
    assert len(notices) < 200
    assert min(n.from_us for n in notices) == 1_000_000_000
    assert max(n.to_us for n in notices) >= 1_000_000_000 + kept[0] - 2  # the last waits for the next batch


def test_the_first_tick_reports_that_ingest_was_not_running() -> None:
    kinesis = Kinesis()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        opened.take(trade_frame(7, time_us=5_000_000), 5_000_700)

    run(kinesis, happens)
    assert kinesis.stored["BTCUSDT"][0].notices == (wire.Notice(STARTED, 5_000_000, 5_000_000),)


def test_a_lost_connection_is_a_notice_unless_another_delivers() -> None:
    kinesis = Kinesis()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        first, second = opened, buffer(producer, 2)
        first.take(trade_frame(1, time_us=1_000_000), 1_000_700)
        second.take(trade_frame(1, time_us=1_000_000), 1_000_700)
        producer.pack()
        first.take(trade_frame(2, time_us=1_100_000), 1_100_700)
        producer.detach(first, "reset by peer")  # what it had taken is not forgotten
        second.take(trade_frame(3, time_us=2_000_000), 2_000_700)
        producer.pack()
        producer.detach(second, "timed out")
        third = buffer(producer, 3)
        third.take(trade_frame(9, time_us=7_000_000), 7_000_700)

    run(kinesis, happens)
    batches = kinesis.stored["BTCUSDT"]
    assert [n for batch in batches[1:] for n in batch.notices] == [
        wire.Notice("timed out", 2_000_000, 7_000_000)
    ]
    assert [batch.connection for batch in batches] == ["c1", "c2", "c1", "c2", "c3"]
    assert kinesis.trade_ids("BTCUSDT") == [1, 1, 2, 3, 9]


def test_a_bad_frame_is_counted_and_reported_and_the_rest_is_put() -> None:
    kinesis, seen = Kinesis(), []

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        for data in (
            trade_frame(1),
            b"garbage",
            trade_frame(2)[:-3],
            trade_frame(3, "DOGEUSDT"),
            trade_frame(4),
        ):
            opened.take(data, RECEIVED_US)

    producer = run(kinesis, happens, saw_data=lambda *stream: seen.append(stream))
    assert producer.bad_frames.total() == 3
    assert sorted(kinesis.trade_ids("BTCUSDT")) == [1, 4]
    assert seen == [(1, "BTCUSDT", "trades")]
    causes = [n.cause for batch in kinesis.stored["BTCUSDT"] for n in batch.notices]
    assert "a frame could not be read" in causes


HOLE_US = (5_000_000, 9_000_000)  # the trades before and after it


def notices_of(happens: Callable[[Producer, FeedBuffer], None]) -> list[wire.Notice]:
    """The notices of a hole between the trades 1 and 4 of BTCUSDT, when `happens` in between."""
    kinesis = Kinesis()

    def hole(producer: Producer, opened: FeedBuffer) -> None:
        opened.take(trade_frame(1, time_us=HOLE_US[0]), HOLE_US[0])
        producer.pack()
        happens(producer, opened)
        buffer(producer, 2).take(trade_frame(4, time_us=HOLE_US[1]), HOLE_US[1])

    run(kinesis, hole)
    return [n for batch in kinesis.stored["BTCUSDT"] for n in batch.notices if n.cause != STARTED]


def test_a_hole_without_another_cause_is_the_exchange_s() -> None:
    assert notices_of(lambda producer, opened: None) == [wire.Notice(SKIPPED, *HOLE_US)]


def test_a_hole_is_explained_by_the_lost_connection_though_a_quote_came_first() -> None:
    def happens(producer: Producer, opened: FeedBuffer) -> None:
        producer.detach(opened, "reset by peer")
        buffer(producer, 3).take(quote_frame(6_000_000, time_us=6_000_000), 6_000_000)
        producer.pack()

    assert wire.Notice("reset by peer", *HOLE_US) in notices_of(happens)


def test_a_hole_is_explained_by_a_bad_frame_that_came_with_the_trade_before() -> None:
    def happens(producer: Producer, opened: FeedBuffer) -> None:
        for data in (trade_frame(1, time_us=HOLE_US[0]), b"garbage"):
            opened.take(data, HOLE_US[0])
        producer.pack()

    assert notices_of(happens)[-1] == wire.Notice(UNREADABLE, *HOLE_US)


def test_a_bad_frame_explains_nothing_that_is_missing_later() -> None:
    def happens(producer: Producer, opened: FeedBuffer) -> None:
        opened.take(b"garbage", HOLE_US[0])
        producer.pack()
        opened.take(trade_frame(1, time_us=HOLE_US[0]), HOLE_US[0])
        producer.pack()

    assert notices_of(happens)[-1] == wire.Notice(SKIPPED, *HOLE_US)


def test_a_stall_is_reported_at_once_and_explains_the_hole_after_it() -> None:
    def happens(producer: Producer, opened: FeedBuffer) -> None:
        producer.note_stall(Stall("BTCUSDT", "trades", 16.0))

    why, now_us = "no trades came on an open connection", Clock.now_us
    assert notices_of(happens) == [
        wire.Notice(why, now_us - 16_000_000, now_us),
        wire.Notice(why, *HOLE_US),
    ]


def test_connections_that_repeat_each_other_leave_no_hole() -> None:
    def happens(producer: Producer, opened: FeedBuffer) -> None:
        second = buffer(producer, 3)
        for trade_id in (2, 3):
            opened.take(trade_frame(trade_id, time_us=HOLE_US[0] + trade_id), HOLE_US[0])
        for trade_id in (1, 2, 3):
            second.take(trade_frame(trade_id, time_us=HOLE_US[0] + trade_id), HOLE_US[0])
        producer.pack()

    assert notices_of(happens) == []


# ----------------------------------------------------------------------------------- the limits of a call


MANY = tuple(f"S{n:03}USDT" for n in range(700))


def full(producer: Producer, symbol: str, size: int, count: int = 1) -> None:
    """Let records of `size` bytes wait for `symbol`."""
    batch = wire.TickBatch(symbol, "sim", "", 0, trades_array([]), quotes_array([]))
    filler = batch._replace(connection="c" * (size - len(wire.encode(batch)) - 2))
    for _ in range(count):
        producer.outbox.add(Record(symbol, wire.encode(filler), 1))


def limited(call: int, records: list[dict[str, Any]]) -> list[bool]:
    assert len(records) <= 500
    assert sum(len(r["Data"]) + len(r["PartitionKey"].encode()) for r in records) <= 5 * 2**20
    if call in (2, 3):  # nobody knows whether it arrived; the repeat may not be larger
        raise ReadTimeoutError(endpoint_url="http://kinesis")
    return [True] * len(records)


@pytest.mark.parametrize(("size", "count"), [(600, 3), (900_000, 2), (60_000, 2)])
@run_async
async def test_calls_stay_within_kinesis_limits_and_symbols_take_turns(size: int, count: int) -> None:
    kinesis = Kinesis(limited)
    symbols = MANY if size < 10_000 else MANY[:30] if size > 100_000 else MANY[:150]

    producer = make(kinesis, symbols=symbols)
    for symbol in symbols:
        full(producer, symbol, size, count)
    producer.drain()
    await producer.run()
    assert (len(producer.outbox), producer.outbox.size) == (0, 0)
    assert {symbol: len(batches) for symbol, batches in kinesis.stored.items()} == dict.fromkeys(
        symbols, count
    )
    taken = [symbol for n, call in enumerate(kinesis.calls, 1) if n not in (2, 3) for symbol in call]
    first_round = taken[: len(symbols)]
    assert len(set(first_round)) > 0.6 * len(symbols)  # who was in a call that failed lost a turn


@run_async
async def test_no_symbol_waits_while_others_are_put_twice() -> None:
    kinesis = Kinesis()

    producer = make(kinesis, symbols=MANY[:20])
    for symbol in MANY[:20]:
        full(producer, symbol, 900_000, 3)
    await producer.writer.put_waiting()
    order = [symbol for call in kinesis.calls for symbol in call]
    for turn in range(3):
        assert set(order[turn * 20 : turn * 20 + 20]) == set(MANY[:20])


def test_symbols_share_the_memory_and_the_longest_queue_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING_BYTES", 20_000)

    async def scenario() -> Producer:
        producer = make(Kinesis())
        opened = buffer(producer)
        opened.take(trade_frame(1, "ETHUSDT"), RECEIVED_US)
        producer.pack()
        for n in range(500):
            opened.take(trade_frame(n), RECEIVED_US)
            producer.pack()
            assert sum(queue.size for queue in producer.outbox._queues.values()) <= 20_000
        return producer

    producer = asyncio.run(scenario())
    assert producer.counts.dropped_ticks > 0
    assert len(producer.outbox._queues["ETHUSDT"].records) == 1  # the quiet one lost nothing
    assert sum(queue.size for queue in producer.outbox._queues.values()) == producer.outbox.size


# --------------------------------------------------------------------------------------- holes and causes


def of_sizes(first_id: int, time_us: int, sizes: list[int]) -> list[tuple[bytes, int]]:
    """Frames of so many trades each, 3 ms apart, and when they are received."""
    frames = []
    for n, size in enumerate(sizes):
        at_us = time_us + n * 3_000
        frames.append((trade_frame(first_id, time_us=at_us, count=size), at_us + 700))
        first_id += size
    return frames


sizes = st.lists(st.sampled_from([1, 1, 1, 2, 3, 5]), min_size=1, max_size=40)


@settings(max_examples=30, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=5))
def test_frames_of_several_trades_show_no_false_holes(lingers: list[list[int]]) -> None:
    kinesis, next_id, time_us = Kinesis(), 1, 1_000_000_000

    async def scenario() -> None:
        nonlocal next_id, time_us
        producer = make(kinesis)
        opened = buffer(producer)
        for linger in lingers:
            for data, received_us in of_sizes(next_id, time_us, linger):
                opened.take(data, received_us)
            next_id, time_us = next_id + sum(linger), time_us + len(linger) * 3_000
            producer.pack()
        producer.drain()
        await producer.run()

    asyncio.run(scenario())
    assert {n.cause for batch in kinesis.stored["BTCUSDT"] for n in batch.notices} == {STARTED}


@pytest.mark.parametrize("sizes", [[1] * 30, [1, 3, 2, 5, 1] * 6])
@pytest.mark.parametrize("quotes_after", [0, 1, 3])
def test_the_cause_of_a_loss_reaches_the_ledger(sizes: list[int], quotes_after: int) -> None:
    """A connection ends and another begins, with trades at once and quotes some lingers later."""
    kinesis, time_us = Kinesis(), 1_754_000_000_000_000

    def turn(producer: Producer, opened: FeedBuffer, n: int, first_id: int, has_quote: bool) -> None:
        at_us = time_us + n * 100_000
        for data, received_us in of_sizes(first_id, at_us, sizes):
            opened.take(data, received_us)
        if has_quote:
            opened.take(quote_frame(at_us, time_us=at_us), at_us + 700)
        producer.pack()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        first = opened
        for n in range(10):
            turn(producer, first, n, 1 + n * sum(sizes), True)
        producer.detach(first, "ConnectionClosedError: lost")
        second = buffer(producer, 2)
        for n in range(10):
            first_id = 51 + (10 + n) * sum(sizes) + (7 if n > 6 else 0)  # and later the exchange skips some
            turn(producer, second, 80 + n, first_id, n >= quotes_after)

    run(kinesis, happens)
    ring = BarRing(100_000)
    for batch in kinesis.stored["BTCUSDT"]:
        list(ring.fold(batch, 1_000_000))
    assert [(gap.trades, gap.cause) for gap in ring.gaps.gaps] == [
        (50, "ConnectionClosedError: lost"),
        (7, SKIPPED),
    ]
    assert [gap.cause for gap in ring.gaps.quote_gaps] == ["ConnectionClosedError: lost"]


# ------------------------------------------------------------------------------------------ ids far off


def test_an_outlier_id_is_refused_counted_and_kept() -> None:
    kinesis, kept = Kinesis(), []

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        for n, trade_id in enumerate((1, 2, 2**60, 4, 5)):
            opened.take(trade_frame(trade_id, time_us=1_000_000_000 + n), RECEIVED_US)
        opened.take(b"garbage", RECEIVED_US)

    producer = run(kinesis, happens, quarantine=lambda *refused: kept.append(refused))
    assert kinesis.trade_ids("BTCUSDT") == [1, 2, 4, 5]
    assert producer.bad_frames.total() == 2
    hole = wire.Notice(UNREADABLE, 1_000_000_001, 1_000_000_003)
    assert hole in [n for batch in kinesis.stored["BTCUSDT"] for n in batch.notices]
    (garbage, _, _), (ticks, reason, connection) = kept
    assert garbage == b"garbage"
    assert wire.decode(ticks).trades["first_id"].tolist() == [2**60]
    assert ("far ahead of its series" in reason, connection) == (True, "c1")


def test_restarted_ids_are_reported_and_their_holes_noted() -> None:
    kinesis = Kinesis()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        for n, trade_id in enumerate((5_001, 5_002, 5_003, 1, 2, 3, 4, 7, 8)):
            opened.take(trade_frame(trade_id, time_us=1_000_000_000 + n), RECEIVED_US)
            if n == 4:
                producer.pack()

    run(kinesis, happens)
    assert kinesis.trade_ids("BTCUSDT") == [5_001, 5_002, 5_003, 1, 2, 3, 4, 7, 8]
    notices = [n for batch in kinesis.stored["BTCUSDT"] for n in batch.notices]
    assert wire.Notice(RESTARTED, 1_000_000_002, 1_000_000_003) in notices
    assert [n for n in notices if n.cause == SKIPPED] == [wire.Notice(SKIPPED, 1_000_000_006, 1_000_000_007)]


def test_a_flood_of_bad_frames_gives_few_reasons_and_few_notices() -> None:
    kinesis = Kinesis()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        for n in range(2_000):
            crossed = sbe.BestBidAskEvent(1_000_000_000, n, -8, -8, 200 + n, 5, 100, 5, "BTCUSDT")
            opened.take(sbe.encode(crossed), RECEIVED_US)
            opened.take(trade_frame(10 * n, time_us=1_000_000_000 + n), RECEIVED_US)

    producer = run(kinesis, happens)
    assert producer.bad_frames.total() == 2_000
    assert len(producer.bad_frames) == 1
    assert sum(len(batch.notices) for batch in kinesis.stored["BTCUSDT"]) < 100


def test_symbols_that_change_lose_nothing_that_was_received() -> None:
    kinesis, kept = Kinesis(), []

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        for symbol in SYMBOLS:
            opened.take(trade_frame(1, symbol), RECEIVED_US)
        producer.follow(("BTCUSDT", "SOLUSDT"))
        for symbol in (*SYMBOLS, "SOLUSDT", "DOGEUSDT"):
            opened.take(trade_frame(2, symbol), RECEIVED_US)
        producer.pack()
        producer.follow(SYMBOLS)
        for symbol in (*SYMBOLS, "SOLUSDT"):
            opened.take(trade_frame(3, symbol), RECEIVED_US)

    producer = run(kinesis, happens, quarantine=lambda data, reason, connection: kept.append(reason))
    ids = {symbol: kinesis.trade_ids(symbol) for symbol in (*SYMBOLS, "SOLUSDT")}
    assert ids == {"BTCUSDT": [1, 2, 3], "ETHUSDT": [1, 3], "SOLUSDT": [2]}
    assert producer.symbols == SYMBOLS
    assert [reason for reason in kept if "DOGEUSDT was not subscribed" in reason] == kept != []
    causes = {
        symbol: [notice.cause for batch in batches for notice in batch.notices]
        for symbol, batches in kinesis.stored.items()
    }
    assert causes == {
        "BTCUSDT": ["ingest was not running"],
        "ETHUSDT": ["ingest was not running", "the symbol was not served"],
        "SOLUSDT": ["the symbol was not served"],
    }


def test_an_outage_is_that_of_the_symbols_that_no_other_connection_carries() -> None:
    kinesis = Kinesis()

    def happens(producer: Producer, opened: FeedBuffer) -> None:
        newer = FeedBuffer(2, "c2", "sbe", symbols=("BTCUSDT", "SOLUSDT"))
        producer.follow(("BTCUSDT", "SOLUSDT"))
        producer.attach(newer)
        older = FeedBuffer(3, "c3", "sbe", symbols=("BTCUSDT",))
        producer.attach(older)
        producer.detach(opened, "closed by us")
        for connection in (newer, older):
            connection.take(trade_frame(1), RECEIVED_US)
        newer.take(trade_frame(1, "SOLUSDT"), RECEIVED_US)
        producer.detach(newer, "reset by peer")
        newest = FeedBuffer(4, "c4", "sbe")
        producer.attach(newest)
        for symbol in ("BTCUSDT", "SOLUSDT"):
            newest.take(trade_frame(2, symbol), RECEIVED_US)

    run(kinesis, happens)
    causes = {
        symbol: [notice.cause for batch in batches for notice in batch.notices][1:]
        for symbol, batches in kinesis.stored.items()
    }
    assert causes == {"BTCUSDT": [], "SOLUSDT": ["reset by peer"]}


def test_a_removed_symbol_s_records_may_be_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is full: what waits of it has no feed any more to report that to."""
    monkeypatch.setattr(outbox, "MAX_WAITING_BYTES", 1000)
    producer = make(Kinesis())
    opened = buffer(producer)
    opened.take(trade_frame(1, "ETHUSDT", count=30), RECEIVED_US)
    producer.follow(("BTCUSDT",))
    opened.take(trade_frame(1, count=30), RECEIVED_US)
    producer.pack()
    assert producer.counts.dropped_ticks >= 30
    assert "ETHUSDT" not in producer.outbox.waiting()

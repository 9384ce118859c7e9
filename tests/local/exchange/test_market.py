from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from local.exchange.encoding import Json, frames
from local.exchange.events import Quote, Sending, Trade
from local.exchange.market import Sent, pace
from local.exchange.recording import read
from tests.fixtures.recordings import quote, text, trade, write
from tickcast.sbe import SbeTrade, TradesEvent, decode


def sending(due_us: int) -> Sending:
    return Sending(due_us, due_us, Quote("BTCUSDT", due_us, due_us, 1, 1, 2, 1))


def endless(step_us: int) -> Iterator[Sending]:
    due_us = 0
    while True:
        yield sending(due_us)
        due_us += step_us


def test_a_late_scheduler_sends_the_backlog_in_order_and_nothing_early() -> None:
    now_us = 0
    published: list[int] = []

    def clock() -> int:
        """A clock in leaps of up to four seconds: thousands of events are due at once."""
        return now_us

    def publish(batch: Sequence[Sending]) -> None:
        assert all(one.due_us <= now_us for one in batch)
        published.extend(one.due_us for one in batch)

    async def run() -> None:
        nonlocal now_us
        task = asyncio.create_task(pace(endless(1_000), clock, publish))
        for leap_us in (0, 1_500, 4_000_000, 10, 2_000_000):
            now_us += leap_us
            while len(published) < now_us // 1_000 + 1:
                await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(run())
    assert published == [n * 1_000 for n in range(now_us // 1_000 + 1)]


def test_fills_of_one_moment_share_a_frame() -> None:
    def fill(id_: int, time_us: int) -> Sending:
        return Sending(5_000, 4_000, Trade("BTCUSDT", time_us, id_, 7, 8, id_ == 2))

    batch = [fill(1, 3_000), fill(2, 3_000), sending(5_000), fill(3, 3_000), fill(4, 3_500), sending(5_001)]
    found = list(frames(batch))
    assert [kind for kind, _ in found] == [Trade, Quote, Trade, Trade, Quote]
    assert decode(found[0][1]) == TradesEvent(
        4_000, 3_000, -8, -8, (SbeTrade(1, 7, 8, False), SbeTrade(2, 7, 8, True)), "BTCUSDT"
    )


def test_json_texts_equal_the_recorded_bytes(tmp_path: Path) -> None:
    recorded = text([trade(0, 1), quote(1, 10), trade(2, 2, price="61837.63000000")], offset_us=0)
    recorded = recorded.replace('"101"', '"101.00000000"')
    ticks = read([write(tmp_path / "a.gz", recorded)])
    sendings = []
    for tick in ticks:
        # A trade's event time in a recording is a millisecond after its transact time.
        sendings.append(Sending(tick.time_us, tick.time_us + 1_000, tick))
    texts = [message.content for message in Json(True, False).messages("BTCUSDT", sendings)]
    assert texts == [line.partition(" ")[2] for line in recorded.splitlines()]


def test_sent_counts_from_the_first_heard_of_each_kind() -> None:
    def fill(id_: int) -> Sending:
        return Sending(id_, id_, Trade("BTCUSDT", id_, id_, 7, 8, True))

    sent = Sent()
    for one, is_heard in [(fill(1), False), (sending(2), False), (fill(3), True), (sending(4), False)]:
        sent.add(one, is_heard)
    assert (sent.trades, sent.quotes, sent.first_time_us, sent.last_time_us) == (1, 0, 3, 3)
    for one, is_heard in [(fill(4), False), (sending(6), True), (sending(7), False)]:
        sent.add(one, is_heard)
    assert (sent.trades, sent.first_id, sent.last_id, sent.quotes, sent.last_time_us) == (2, 3, 4, 2, 7)

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from local.exchange.events import Quote, Sending, Trade
from local.exchange.frames import frames
from local.exchange.market import pace
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
        """Time passes in leaps of up to four seconds: thousands of events fall due at once."""
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

"""A connection's ticks: impossible ones are refused, and no others."""

import numpy as np
import pytest

from ingest_ecs.feed_buffer import FeedBuffer, RefusedFrame, RefusedTicks
from tests.fixtures.frames import quote_frame, trade_frame
from tickcast import sbe

T0_US, S = 1_754_000_000_000_000, 1_000_000


@pytest.mark.parametrize("off_us", [240 * S, 10 * S, -30 * S, -(T0_US - T0_US // 1000), T0_US])
@pytest.mark.parametrize("host_us", [0, 45 * S])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_outlier_time_costs_its_own_row_and_no_claim(off_us: int, host_us: int, at_once: bool) -> None:
    buffer = FeedBuffer(1, "c1", "sbe")
    kept: list[int] = []
    errors: list[tuple[int, Exception]] = []
    for n in range(60):
        time_us = T0_US + n * 100_000
        buffer.take(quote_frame(n, "ETHUSDT", time_us), time_us + 5_000 + host_us)
        buffer.take(trade_frame(n, time_us=time_us + (off_us if n == 30 else 0)), time_us + 6_000 + host_us)
        if not at_once or n == 59:
            ticks = buffer.drain()
            kept += ticks.trades["BTCUSDT"]["first_id"].tolist() if "BTCUSDT" in ticks.trades else []
            errors += ticks.errors
    assert sorted(kept) == [n for n in range(60) if n != 30]
    assert len(errors) == 1
    (refused,) = buffer.refused
    assert isinstance(refused, RefusedTicks)
    assert refused.trades["first_id"].tolist() == [30]
    claim = buffer.claim_us("BTCUSDT", T0_US + 59 * 100_000 + 7_000 + host_us)
    assert claim == T0_US + 59 * 100_000


def test_a_tick_with_nothing_to_compare_it_with_waits_and_is_refused_when_its_connection_ends() -> None:
    buffer = FeedBuffer(1, "c1", "sbe")
    buffer.take(trade_frame(1, time_us=T0_US + 240 * S), T0_US)
    assert buffer.drain() == ({}, {}, [], ())
    assert buffer.claim_us("BTCUSDT", T0_US) is None
    buffer.refuse_undecided()
    assert [type(each) for each in buffer.refused] == [RefusedTicks]


def test_refused_frames_keep_their_bytes() -> None:
    buffer = FeedBuffer(1, "c1", "sbe")
    for data in (b"garbage", quote_frame(1, "ETHUSDT", T0_US), trade_frame(1, time_us=T0_US)[:-3]):
        buffer.take(data, T0_US)
    ticks = buffer.drain()
    frames = [each.data for each in buffer.refused if isinstance(each, RefusedFrame)]
    assert sorted(frames) == sorted([b"garbage", trade_frame(1, time_us=T0_US)[:-3]])
    assert len(ticks.quotes["ETHUSDT"]) == 1


def test_a_quote_with_a_missing_side_is_not_a_bad_frame() -> None:
    buffer = FeedBuffer(1, "c1", "sbe")
    buffer.take(sbe.encode(sbe.BestBidAskEvent(T0_US, 1, -8, -8, 99, 5, 0, 0, "币安人生USDT")), T0_US)
    ticks = buffer.drain()
    assert ticks.quotes["币安人生USDT"].tolist() == [(T0_US, T0_US, 1, 99, 5, 0, 0)]
    assert (ticks.errors, buffer.refused) == ([], [])


def test_quotes_of_the_keyless_feed_are_no_evidence_of_the_clock() -> None:
    """Their times are estimated from their receipt: after a stall every trade would seem late."""
    buffer, ids = FeedBuffer(1, "c1", "json"), []

    def trade_text(n: int, time_us: int) -> str:
        return f'{{"e":"trade","E":{time_us},"T":{time_us},"s":"A","t":{n},"p":"1","q":"1","m":true}}'

    for n in range(100):
        time_us = T0_US + n * 100_000
        received_us = (
            time_us + 5_000 if n < 50 else T0_US + 30 * S + n
        )  # then all at once, half a minute late
        buffer.take(f'{{"u":{n},"s":"A","b":"1","B":"1","a":"2","A":"1"}}', received_us)
        buffer.take(trade_text(n, time_us), received_us)
        ids += buffer.drain().trades["A"]["first_id"].tolist()
    assert ids == list(np.arange(100))
    assert buffer.refused == []


def test_a_tick_a_little_ahead_passes_and_claims_nothing_for_the_others() -> None:
    buffer = FeedBuffer(1, "c1", "sbe")
    for n in range(20):
        time_us = T0_US + n * 100_000 + (1_500_000 if n == 19 else 0)
        buffer.take(trade_frame(n, time_us=time_us), T0_US + n * 100_000 + 5_000)
    assert len(buffer.drain().trades["BTCUSDT"]) == 20
    claim = buffer.claim_us("BTCUSDT", T0_US + 1_910_000)
    assert claim is not None
    assert claim < T0_US + 1_900_000 + 300_000

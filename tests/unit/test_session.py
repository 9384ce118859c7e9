import random
from itertools import islice

import pytest

from tickcast.session import BACKOFF_CAP_S, Watermark, backoff, refusal, stream_names

S = 1_000_000


def test_backoff_doubles_is_capped_and_jittered() -> None:
    delays = list(islice(backoff(random.Random(1)), 40))
    for n, delay in enumerate(delays):
        full = min(0.25 * 2**n, BACKOFF_CAP_S)
        assert full / 2 <= delay <= full
    assert len(set(delays)) == len(delays)


def test_attempts_stay_far_below_the_exchange_s_limit() -> None:
    """300 attempts in 5 minutes would be refused; a stream that never comes back makes a dozen."""
    spent, attempts = 0.0, 0
    for delay in backoff(random.Random(2)):
        spent, attempts = spent + delay, attempts + 1
        if spent > 300:
            break
    assert attempts < 40


@pytest.mark.parametrize("status", [400, 401, 403, 404, 451])
def test_refusals_that_no_repetition_mends(status: int) -> None:
    assert f"HTTP {status}" in str(refusal(status))


@pytest.mark.parametrize("status", [418, 429, 500, 502, 503])
def test_passing_failures_are_tried_again(status: int) -> None:
    assert refusal(status) is None


def test_stream_names() -> None:
    assert stream_names(("BTCUSDT",)) == ["btcusdt@trade", "btcusdt@bestBidAsk"]


def test_watermark_follows_ticks_then_the_clock_held_back_by_the_delay() -> None:
    watermark = Watermark()
    assert watermark.at(0) is None
    watermark.saw(100 * S, 100 * S + 40_000)
    watermark.saw(101 * S, 101 * S + 250_000)  # a slow one
    watermark.saw(101 * S - 5_000, 101 * S + 260_000)  # out of order
    assert watermark.at(101 * S + 300_000) == 101 * S
    quiet = watermark.at(104 * S)
    assert quiet is not None
    assert 104 * S - 250_000 - 2 * Watermark.MARGIN_US <= quiet <= 104 * S - 250_000


def test_a_quiet_watermark_is_not_ahead_of_a_tick_still_under_way() -> None:
    """A tick every 3 s, delayed by 50 to 300 ms: what is claimed just before one arrives is not past it."""
    watermark = Watermark()
    for n in range(1, 60):
        time_us, delay_us = 3 * S * n, (300_000, 50_000, 120_000)[n % 3]
        if n > 3:
            claimed = watermark.at(time_us + delay_us - 1)
            assert claimed is not None
            assert 3 * S * (n - 1) < claimed <= time_us
        watermark.saw(time_us, time_us + delay_us)


def test_a_lost_connection_withdraws_the_claim() -> None:
    watermark = Watermark()
    watermark.saw(5 * S, 5 * S)
    watermark.withdraw()
    assert watermark.at(60 * S) is None

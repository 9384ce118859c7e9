"""The exchange's clock by REST: the shortest round trip counts, and a claim can refute it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from aws_lambda_powertools import Logger

from ingest_ecs import exchange_time
from ingest_ecs.exchange_time import AGAIN_AFTER_S, EVERY_S, KEPT_S, SAMPLES, ExchangeTime
from tickcast.adapters.rest.binance import BinanceRest, ExchangeUnavailable, RateLimited
from tickcast.market.clock_offset import SPREAD_US

T0_US = 1_754_000_000_000_000
LOGGER = Logger(service="test", level="CRITICAL")


class Rest(BinanceRest):
    """Answers after the next of `delays_s`: there, and back. Its clock and the monotonic one start at 0."""

    def __init__(self, delays_s: Iterator[tuple[float, float]]) -> None:
        self.delays_s = delays_s
        self.now_s = 0.0
        self.ahead_us = 0
        self.error: Exception | None = None

    def time_us(self) -> int:
        if self.error:
            raise self.error
        there_s, back_s = next(self.delays_s)
        self.now_s += there_s
        time_us = self.exchange_us
        self.now_s += back_s
        return time_us

    @property
    def exchange_us(self) -> int:
        return T0_US + self.ahead_us + round(self.now_s * 1e6)


def measured(*delays_s: tuple[float, float]) -> tuple[Rest, ExchangeTime]:
    rest = Rest(iter(delays_s))
    return rest, ExchangeTime(rest, LOGGER, lambda: rest.now_s)


def test_the_shortest_round_trip_of_several_counts() -> None:
    delays_s = [(0.9, 0.1), (0.3, 0.01), (0.004, 0.004), (0.01, 0.5), (0.2, 0.2)]
    assert len(delays_s) == SAMPLES
    rest, time = measured(*delays_s)
    assert time.now_us() is None
    assert time.measure() == EVERY_S
    rest.now_s += 7
    assert time.now_us() == pytest.approx(rest.exchange_us, abs=1)


def test_an_asymmetric_round_trip_errs_by_half_of_it_at_most() -> None:
    rest, time = measured(*[(0.4, 0.0)] * SAMPLES)
    time.measure()
    assert time.now_us() == pytest.approx(rest.exchange_us, abs=200_001)


def test_round_trips_that_are_too_long_leave_it_unknown() -> None:
    _, time = measured(*[(3.0, 0.1)] * SAMPLES)
    assert time.measure() == AGAIN_AFTER_S
    assert time.now_us() is None


def test_a_failure_keeps_the_last_measurement_for_an_hour() -> None:
    rest, time = measured(*[(0.0, 0.0)] * SAMPLES)
    time.measure()
    rest.error = ExchangeUnavailable("does not answer")
    assert time.measure() == AGAIN_AFTER_S
    rest.error = RateLimited("banned", 120)
    assert time.measure() == 120
    rest.now_s += KEPT_S
    assert time.now_us() == rest.exchange_us
    rest.now_s += 1
    assert time.now_us() is None


def test_a_claim_ahead_of_it_refutes_it() -> None:
    rest, time = measured(*[(0.0, 0.0)] * SAMPLES)
    time.measure()
    time.check(rest.exchange_us + SPREAD_US)
    assert time.now_us() == rest.exchange_us
    time.check(rest.exchange_us + SPREAD_US + 1)
    assert time.now_us() is None


def test_a_doubt_is_answered_before_the_minute_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_time, "AGAIN_AFTER_S", 0.0)
    rest, time = measured(*[(0.0, 0.0)] * 2 * SAMPLES)

    async def known() -> None:
        while time.now_us() is None:
            await asyncio.sleep(0.001)

    async def scenario() -> None:
        running = asyncio.create_task(time.run())
        await asyncio.wait_for(known(), 5)
        rest.ahead_us = 3_000_000
        time.check(rest.exchange_us)
        assert time.now_us() is None
        await asyncio.wait_for(known(), 5)
        assert time.now_us() == rest.exchange_us
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(scenario())

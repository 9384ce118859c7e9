"""The exchange's clock, measured by REST: what is sent is stamped with it, whatever the host's clock says.

The exchange's answer lies between request and answer, so half a round trip is the uncertainty; of several the
shortest counts. Between measurements the monotonic clock continues it, so that the host's clock may be set. A
claim is never ahead of the exchange's clock: one that seems to be shows that the measurement is wrong (the
host was suspended, or the exchange's clock was set).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

from aws_lambda_powertools import Logger

from ingest_ecs.threads import in_thread
from tickcast.adapters.redaction import describe
from tickcast.adapters.rest.binance import BinanceRest, RateLimited
from tickcast.market.clock_offset import SPREAD_US

SAMPLES = 5  # requests a measurement
EVERY_S = 60.0
AGAIN_AFTER_S = 5.0  # a failure, or a doubt
KEPT_S = 3600.0  # without another one; a quartz drifts some 100 ms in that time
LONGEST_ROUND_TRIP_S = 2 * SPREAD_US / 1e6


class _Measured(NamedTuple):
    exchange_us: int
    at_s: float  # monotonic
    round_trip_s: float


class ExchangeTime:
    """`run` measures; until it could, and where it cannot, nothing is known."""

    def __init__(
        self, rest: BinanceRest, logger: Logger, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._rest = rest
        self._logger = logger
        self._monotonic_s = monotonic_s
        self._measured: _Measured | None = None
        self._is_doubted = asyncio.Event()
        self._last_error = ""

    def now_us(self) -> int | None:
        """The exchange's time, µs; None where it is not known."""
        measured = self._measured
        if measured is None or (passed_s := self._monotonic_s() - measured.at_s) > KEPT_S:
            return None
        return measured.exchange_us + round(passed_s * 1e6)

    def check(self, claim_us: int) -> None:
        """Forget a measurement that `claim_us` refutes, and measure again."""
        now_us = self.now_us()
        if now_us is not None and claim_us > now_us + SPREAD_US:
            self._logger.warning("the exchange's clock was set, or the host slept: it is measured again")
            self._measured = None
            self._is_doubted.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            wait_s = await in_thread(self.measure)
            self._is_doubted.clear()
            await asyncio.sleep(min(wait_s, AGAIN_AFTER_S))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait_s - AGAIN_AFTER_S)):
                    await self._is_doubted.wait()

    def measure(self) -> float:
        """Ask the exchange. Returns after how many seconds to ask again."""
        try:
            best = min((self._sample() for _ in range(SAMPLES)), key=lambda each: each.round_trip_s)
            if best.round_trip_s > LONGEST_ROUND_TRIP_S:
                raise TimeoutError(f"the shortest of {SAMPLES} round trips took {best.round_trip_s:.1f} s")
        except Exception as error:
            if (problem := describe(error)) != self._last_error:
                self._logger.warning("REST cannot say the exchange's time", extra={"reason": problem})
            self._last_error = problem
            return max(AGAIN_AFTER_S, error.retry_after_s if isinstance(error, RateLimited) else 0.0)
        self._measured, self._last_error = best, ""
        return EVERY_S

    def _sample(self) -> _Measured:
        asked_s = self._monotonic_s()
        exchange_us = self._rest.time_us()
        answered_s = self._monotonic_s()
        return _Measured(exchange_us, (asked_s + answered_s) / 2, answered_s - asked_s)

"""The stream session without its socket: when to connect again, when to give up, how far the stream got.

Nothing here does I/O or reads a clock; the socket loop in `ingest_ecs` passes times in and acts on what
comes out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

BACKOFF_FIRST_S = 0.25
# 300 attempts per 5 minutes and IP are allowed; one attempt every 30 s stays far away from that.
BACKOFF_CAP_S = 30.0

# What the exchange answers that no repetition will mend.
FATAL_STATUS = {
    400: "the exchange refused the request: check the symbols",
    401: "the exchange refused the API key: SBE streams want an Ed25519 key in BINANCE_API_KEY",
    403: "the exchange's firewall refused the connection, or the key's IP list does not name this host",
    404: "no stream at this address: check STREAM_URL",
    451: "the exchange does not serve this region: run ingest elsewhere (ap-northeast-1 is its neighbour)",
}


class FatalSessionError(RuntimeError):
    """The exchange refused for good: trying again would only loop. The message says what to do."""


def refusal(status: int) -> FatalSessionError | None:
    """Whether an HTTP `status` in answer to the handshake is final, and why; None when worth a retry."""
    reason = FATAL_STATUS.get(status)
    return FatalSessionError(f"HTTP {status}: {reason}") if reason else None


def backoff(rng: random.Random) -> Iterator[float]:
    """Delays in seconds before the next attempts, without end: doubling, capped, and jittered down to
    half so that tasks that lost the same exchange do not come back together."""
    delay_s = BACKOFF_FIRST_S
    while True:
        yield delay_s * rng.uniform(0.5, 1.0)
        delay_s = min(delay_s * 2, BACKOFF_CAP_S)


def stream_names(symbols: tuple[str, ...]) -> list[str]:
    """The streams of `symbols`: every trade and every change of the best bid and ask."""
    return [f"{symbol.lower()}@{kind}" for symbol in symbols for kind in ("trade", "bestBidAsk")]


class Watermark:
    """How far one connection's stream of a symbol has come, on the exchange's clock.

    While ticks flow it is the newest tick's time. In a quiet market it goes on with the local clock, held
    back by the largest delay seen lately: a tick still under way cannot be older than that. A connection
    that is lost withdraws it.
    """

    QUIET_US = 1_000_000
    MARGIN_US = 100_000
    # The remembered delay shrinks by an e-fold in a minute, so that one slow second is forgotten.
    FORGET_US = 60_000_000

    def __init__(self) -> None:
        self._newest_us = -1
        self._received_us = -1
        self._delay_us = 0.0

    def saw(self, time_us: int, received_us: int) -> None:
        """A tick of exchange time `time_us` arrived at local time `received_us`."""
        delay_us = received_us - time_us
        if self._received_us >= 0:
            elapsed_us = max(0, received_us - self._received_us)
            self._delay_us -= (self._delay_us - delay_us) * min(1.0, elapsed_us / self.FORGET_US)
        self._delay_us = delay_us if self._received_us < 0 else max(self._delay_us, delay_us)
        self._newest_us = max(self._newest_us, time_us)
        self._received_us = received_us

    def at(self, now_us: int) -> int | None:
        """The claim that holds at local time `now_us`; None before the first tick."""
        if self._newest_us < 0:
            return None
        if now_us - self._received_us < self.QUIET_US:
            return self._newest_us
        return max(self._newest_us, int(now_us - self._delay_us) - self.MARGIN_US)

    def withdraw(self) -> None:
        self._newest_us = self._received_us = -1

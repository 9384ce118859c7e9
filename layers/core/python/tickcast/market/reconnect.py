"""When to reconnect, and when reconnecting is pointless."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

BACKOFF_FIRST_S = 0.25
BACKOFF_CAP_S = 30.0
REPLACEMENT_CAP_S = (
    4.0  # of the backoff while the connection to be replaced still delivers, perhaps not for long
)
# The exchange allows 300 attempts per 5 minutes and IP; half of them leaves room for a second task.
MAX_ATTEMPTS = 150
ATTEMPTS_WINDOW_S = 300.0

# 4xx answers to a handshake that are worth another attempt.
_TRANSIENT_STATUS = {408, 418, 425, 429}
_FATAL_REASONS = {
    401: "the exchange refused the API key: the SBE streams want an Ed25519 key in BINANCE_API_KEY",
    403: "the exchange's firewall refused the connection, or the key's IP list does not name this host",
    404: "no such stream: check its address and SYMBOLS",
    451: "the exchange does not serve this region: run ingest elsewhere (ap-northeast-1 is its neighbour)",
}


class FatalSessionError(RuntimeError):
    """The exchange refused permanently: a retry would be refused again. The message says what to do."""


def fatal_error(status: int | None) -> FatalSessionError | None:
    """Retry or fatal: the error if a handshake answered by HTTP `status` must not be retried; None if it may
    be, or got no answer."""
    if status is None or not 400 <= status < 500 or status in _TRANSIENT_STATUS:
        return None
    reason = _FATAL_REASONS.get(
        status, "the exchange refused the request: check the address, SYMBOLS and key"
    )
    return FatalSessionError(f"HTTP {status}: {reason}")


def backoff(
    rng: random.Random, first_s: float = BACKOFF_FIRST_S, cap_s: float = BACKOFF_CAP_S
) -> Iterator[float]:
    """Endless delays in seconds before the next attempts: doubling, capped, and jittered down to half so that
    tasks that lost the same exchange do not reconnect together."""
    delay_s = first_s
    while True:
        yield delay_s * rng.uniform(0.5, 1.0)
        delay_s = min(delay_s * 2, cap_s)


class AttemptLimiter:
    """When the next connection may be attempted. `is_proven`: the connection that ended, or is retired,
    delivered for so long that the backoff is reset."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._delays = backoff(rng)
        self._next_s = float("-inf")
        self._barred_until_s = float("-inf")  # by the exchange
        self._attempts_s: deque[float] = deque()

    def connection_ended(self, now_s: float, retry_after_s: float, *, is_proven: bool) -> None:
        """`retry_after_s`: how long the exchange asked to wait."""
        if is_proven:
            self._delays = backoff(self._rng)
        self._next_s = now_s + next(self._delays)
        self._barred_until_s = max(self._barred_until_s, now_s + retry_after_s)

    def connection_retired(self, now_s: float, *, is_proven: bool, is_live: bool) -> None:
        """A proven connection is replaced at once; an unproven one after a delay, as the exchange may end
        all."""
        if is_proven:
            self._delays = backoff(self._rng)
            delay_s = 0.0
        else:
            delay_s = next(self._delays)
        self._next_s = now_s + (min(delay_s, REPLACEMENT_CAP_S) if is_live else delay_s)

    def attempt(self, now_s: float) -> bool:
        """Whether a connection may be attempted now; if so, it counts as attempted."""
        while self._attempts_s and now_s - self._attempts_s[0] > ATTEMPTS_WINDOW_S:
            self._attempts_s.popleft()
        if now_s < max(self._next_s, self._barred_until_s) or len(self._attempts_s) >= MAX_ATTEMPTS:
            return False
        self._attempts_s.append(now_s)
        return True

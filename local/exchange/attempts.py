"""The limit of connection attempts per address: 300 within five minutes, successful or not.

Above it the response is 429 with the seconds to wait. An address that continues is banned for a while (418).
Binance does not publish after how many attempts; here it is a tenth of the limit.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from local.exchange.rest import ApiError
from local.exchange.subscriptions import Limits

_BAN_S = 120.0  # Binance's shortest


@dataclass
class _Address:
    attempts_s: deque[float] = field(default_factory=deque)  # of the last five minutes
    banned_until_s: float = -math.inf


class Attempts:
    """The recent attempts of every address. Times are seconds of a monotonic clock."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._addresses: dict[str | None, _Address] = {}

    def add(self, address: str | None, now_s: float) -> None:
        """Count an attempt. Raises `ApiError` (429 or 418) when it is one too many."""
        limit, within_s = self._limits.attempts, self._limits.attempts_within_s
        known = self._addresses.setdefault(address, _Address())
        attempts_s = known.attempts_s
        while attempts_s and attempts_s[0] <= now_s - within_s:
            attempts_s.popleft()
        if now_s < known.banned_until_s:
            raise _banned(known.banned_until_s - now_s)
        attempts_s.append(now_s)
        excess = len(attempts_s) - limit
        if excess <= 0:
            return
        if excess > limit // 10:
            known.banned_until_s = now_s + _BAN_S
            raise _banned(_BAN_S)
        message = f"Too many connection attempts; current limit is {limit} per {within_s:.0f} seconds."
        wait_s = attempts_s[excess] + within_s - now_s if excess < len(attempts_s) else within_s
        raise ApiError(-1003, message, status=429, retry_after_s=wait_s)


def _banned(seconds: float) -> ApiError:
    message = f"Way too many requests; IP banned for {math.ceil(seconds)} seconds."
    return ApiError(-1003, message, status=418, retry_after_s=seconds)

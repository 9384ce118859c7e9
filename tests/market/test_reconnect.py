"""The delays between attempts, and which refusals are fatal."""

import random
from itertools import islice

import pytest

from tickcast.market.reconnect import BACKOFF_CAP_S, backoff, fatal_error


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


@pytest.mark.parametrize("status", [400, 401, 403, 404, 451, 418, 429, 500, 502, 503])
def test_which_refusals_are_fatal(status: int) -> None:
    error = fatal_error(status)
    assert (error is None) == (status in (418, 429) or status >= 500)
    assert error is None or f"HTTP {status}" in str(error)

"""The exchange's clock: which times of ticks fit it, and how it is tracked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.market import START_US
from tickcast.market.exchange_clock import ExchangeClock, Timing

S = 1_000_000


def timings(clock: ExchangeClock, times_us: list[int], received_us: list[int]) -> list[int]:
    found: list[int] = clock.classify(np.array(times_us, np.int64), np.array(received_us, np.int64)).tolist()
    return found


def steady(clock: ExchangeClock, offset_us: int, seconds: int, from_us: int = START_US) -> int:
    """Ten ticks a second, each 5 ms under way; returns when they end, in µs."""
    for k in range(seconds):
        received = [from_us + k * S + j * 100_000 for j in range(10)]
        found = timings(clock, [at + offset_us - 5_000 for at in received], received)
        assert found == [Timing.FITS] * 10
    return from_us + seconds * S


@pytest.mark.parametrize("offset_us", [0, -3600 * S, 61 * S, 20_000])
@pytest.mark.parametrize("off_us", [-240 * S, -7 * S, 3 * S, 240 * S])
def test_an_outlier_is_refused_for_any_offset_of_the_host_s_clock(offset_us: int, off_us: int) -> None:
    clock = ExchangeClock()
    now_us = steady(clock, offset_us, 20)
    times = [now_us + offset_us, now_us + offset_us + off_us, now_us + offset_us]
    assert timings(clock, times, [now_us, now_us, now_us + 1]) == [
        Timing.FITS,
        Timing.AHEAD if off_us > 0 else Timing.BEHIND,
        Timing.FITS,
    ]


@pytest.mark.parametrize("unit", [0.001, 1000])
def test_another_unit_is_refused_even_without_other_ticks(unit: float) -> None:
    clock = ExchangeClock()
    received = [START_US + k * S for k in range(40)]
    assert set(timings(clock, [int(at * unit) for at in received], received)) == {
        Timing.AHEAD if unit > 1 else Timing.BEHIND
    }
    assert timings(clock, [START_US + 50 * S], [START_US + 50 * S]) == [Timing.FITS]


def test_an_outlier_that_comes_first_is_undecided_until_its_neighbours_come() -> None:
    clock = ExchangeClock()
    assert timings(clock, [START_US + 240 * S], [START_US]) == [Timing.UNDECIDED]
    times, received = [START_US + 240 * S, START_US + 100], [START_US, START_US + 200]
    assert timings(clock, times, received) == [Timing.AHEAD, Timing.FITS]


def test_many_trades_of_one_frame_count_once() -> None:
    clock = ExchangeClock()
    assert set(timings(clock, [START_US + 60 * S] * 50, [START_US] * 50)) == {Timing.UNDECIDED}


def test_a_clock_that_steps_is_followed_without_loss() -> None:
    clock = ExchangeClock()
    now_us = steady(clock, 0, 5)
    assert timings(clock, [now_us], [now_us - 90 * S]) == [Timing.UNDECIDED]
    assert timings(clock, [now_us, now_us + S], [now_us - 90 * S, now_us - 89 * S]) == [Timing.UNDECIDED] * 2
    times = [now_us, now_us + S, now_us + 2 * S]
    assert timings(clock, times, [at - 90 * S for at in times]) == [Timing.FITS] * 3
    steady(clock, 90 * S, 3, now_us - 80 * S)


def test_ticks_that_were_delayed_fit() -> None:
    """Nothing comes for half a minute, then all of it at once."""
    clock = ExchangeClock()
    now_us = steady(clock, 0, 10)
    times = [now_us + j * 100_000 for j in range(300)]
    received = [now_us + 30 * S + j for j in range(300)]
    assert timings(clock, times, received) == [Timing.FITS] * 300
    steady(clock, 0, 3, now_us + 31 * S)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40))
def test_any_time_is_classified(times_us: list[int]) -> None:
    received = [START_US + k for k in range(len(times_us))]
    assert len(timings(ExchangeClock(), times_us, received)) == len(times_us)

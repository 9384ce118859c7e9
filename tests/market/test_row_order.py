"""The rows out of order: as few as possible, and one wrong value costs no other."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickcast.market.row_order import DISORDER_US, out_of_order, times_far_off


def is_in_order(values: list[int]) -> bool:
    return all(one <= following for one, following in pairwise(values))


@given(st.lists(st.integers(-5, 5), max_size=9))
def test_the_fewest_rows_are_removed(values: list[int]) -> None:
    out = out_of_order(values)
    assert is_in_order([value for at, value in enumerate(values) if at not in out])
    fewer = combinations(range(len(values)), len(values) - len(out) + 1)
    assert not any(is_in_order([values[at] for at in kept]) for kept in fewer)


@given(
    st.lists(st.integers(0, 10**9), min_size=5, max_size=60).map(sorted),
    st.integers(2, 57),
    st.sampled_from([-(2**62), -2, 2**60, 2**62]),
)
def test_one_wrong_value_costs_only_itself(times_us: list[int], at: int, far_us: int) -> None:
    at = min(at, len(times_us) - 3)
    times_us[at] = far_us * DISORDER_US
    assert times_far_off(times_us) == {at}


@given(st.lists(st.integers(0, 10**9), max_size=60).map(sorted), st.data())
def test_small_disorder_is_accepted(times_us: list[int], data: st.DataObject) -> None:
    half_us = DISORDER_US // 2
    shifts = data.draw(
        st.lists(st.integers(-half_us, half_us), min_size=len(times_us), max_size=len(times_us))
    )
    assert times_far_off([time_us + by for time_us, by in zip(times_us, shifts, strict=True)]) == set()


@pytest.mark.parametrize("values", [[], [1], [1, 1, 1], [1, 2, 2, 3]])
def test_rows_in_order_are_kept(values: list[int]) -> None:
    assert out_of_order(values) == times_far_off(values) == set()

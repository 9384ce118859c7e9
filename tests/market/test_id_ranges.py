"""The interval set against a plain set of integers."""

from hypothesis import given
from hypothesis import strategies as st

from tickcast.market.id_ranges import MAX_INTERVALS, IdRanges

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=40)


@given(ranges)
def test_same_as_a_set(steps: list[tuple[int, int]]) -> None:
    seen = IdRanges()
    oracle: set[int] = set()
    for first, width in steps:
        ids = set(range(first, first + width + 1))
        assert seen.add(first, first + width) == (ids <= oracle)
        oracle |= ids
    assert [i for first, last in seen.intervals for i in range(first, last + 1)] == sorted(oracle)
    missing = {i for i in range(min(oracle, default=0), max(oracle, default=0)) if i not in oracle}
    assert [i for first, last in seen.holes() for i in range(first, last + 1)] == sorted(missing)


def test_the_oldest_holes_are_closed_first() -> None:
    seen = IdRanges()
    for i in range(MAX_INTERVALS + 5):
        seen.add(3 * i, 3 * i)
    assert len(seen.intervals) == MAX_INTERVALS
    assert seen.holes()[-1] == (3 * (MAX_INTERVALS + 3) + 1, 3 * (MAX_INTERVALS + 4) - 1)
    assert seen.add(1, 1)  # inside what was closed up

"""The planner: windows tile exactly what is requested less what is fetched."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tickcast.market.fetch_plan import MAX_WINDOWS, Plan, Window, of_gap, plan, subtract
from tickcast.market.gaps import Gap
from tickcast.units import DAY_US, HOUR_US

STEP_US = DAY_US // 4  # stretches in quarters of a day: small enough to list every quarter
SYMBOLS = ("BTCUSDT", "ETHUSDT")

quarter = st.integers(0, 40)
spans = st.tuples(quarter, quarter).map(lambda ab: (min(ab) * STEP_US, (max(ab) + 1) * STEP_US))
requested = st.lists(
    st.builds(lambda span, symbol: Window(span[0], span[1], symbol), spans, st.sampled_from(SYMBOLS)),
    max_size=5,
)
fetched = st.dictionaries(st.sampled_from(SYMBOLS), st.lists(spans, max_size=5))


def quarters(symbol: str, pieces: list[tuple[int, int]]) -> list[tuple[str, int]]:
    return [(symbol, at) for from_us, to_us in pieces for at in range(from_us, to_us, STEP_US)]


def quarters_of(windows: list[Window]) -> list[tuple[str, int]]:
    return [q for w in windows for q in quarters(w.symbol, [(w.from_us, w.to_us)])]


def chain(requested: list[Window], fetched: dict[str, list[tuple[int, int]]], limit: int) -> list[Plan]:
    """The plans of a chain of executions none of which fetches anything."""
    plans = [plan(requested, fetched, limit)]
    while plans[-1].left:
        plans.append(plan(plans[-1].left, fetched, limit))
    return plans


@given(requested, fetched, st.integers(1, 7))
def test_a_chain_of_plans_tiles_what_is_requested_less_what_is_fetched(
    requested: list[Window], fetched: dict[str, list[tuple[int, int]]], limit: int
) -> None:
    planned = quarters_of([w for p in chain(requested, fetched, limit) for w in p.windows])
    wanted = set(quarters_of(requested)) - {
        q for symbol, pieces in fetched.items() for q in quarters(symbol, pieces)
    }
    assert len(planned) == len(set(planned))  # nothing twice
    assert set(planned) == wanted


@given(requested, fetched, st.integers(1, 7))
def test_windows_are_few_short_and_cut_at_midnight(
    requested: list[Window], fetched: dict[str, list[tuple[int, int]]], limit: int
) -> None:
    edges = {edge for w in requested for edge in (w.from_us, w.to_us)}
    edges |= {edge for pieces in fetched.values() for piece in pieces for edge in piece}
    for each in chain(requested, fetched, limit):
        assert len(each.windows) <= limit
        for window in each.windows:
            assert window.from_us < window.to_us
            assert window.from_us // DAY_US == (window.to_us - 1) // DAY_US
            assert all(edge % DAY_US == 0 or edge in edges for edge in (window.from_us, window.to_us))


@given(requested, fetched)
def test_the_order_of_requested_and_fetched_spans_does_not_matter(
    requested: list[Window], fetched: dict[str, list[tuple[int, int]]]
) -> None:
    assert plan(requested, fetched) == plan(
        requested[::-1], {s: pieces[::-1] for s, pieces in reversed(fetched.items())}
    )


@given(requested, fetched, st.integers(1, 7))
def test_what_was_fetched_is_not_planned_again(
    requested: list[Window], fetched: dict[str, list[tuple[int, int]]], limit: int
) -> None:
    first = plan(requested, fetched, limit)
    after = {symbol: list(pieces) for symbol, pieces in fetched.items()}
    for window in first.windows:
        after.setdefault(window.symbol, []).append((window.from_us, window.to_us))
    again = plan(requested, after)
    assert not set(quarters_of(again.windows)) & set(quarters_of(first.windows))


@given(spans, st.lists(spans, max_size=5))
def test_subtract_leaves_what_is_not_covered(span: tuple[int, int], fetched: list[tuple[int, int]]) -> None:
    left = subtract(span, fetched)
    assert set(quarters("", left)) == set(quarters("", [span])) - set(quarters("", fetched))
    assert all(a[1] < b[0] for a, b in pairwise(left))


def test_five_years_go_through_in_windows_of_a_day() -> None:
    days = 5 * 365
    plans = chain([Window(0, days * DAY_US, symbol) for symbol in SYMBOLS], {}, MAX_WINDOWS)
    assert len(plans) == -(-days * 2 // MAX_WINDOWS)
    assert all(len(p.windows) == MAX_WINDOWS for p in plans[:-1])
    assert all(len(p.left) <= 2 for p in plans)  # a span for each symbol, not a list of days
    assert {w.symbol for w in plans[0].windows} == set(SYMBOLS)  # side by side, so that both can be fetched


def test_a_gap_comes_first_with_the_trades_before_and_after_it() -> None:
    window = of_gap("BTCUSDT", Gap(11, 20, from_us=5_000_123, to_us=5_001_000))
    assert window == Window(5_000_000, 5_002_000, "BTCUSDT", "gap", 11, 20)
    planned = plan([Window(0, DAY_US, "BTCUSDT"), window], {}).windows
    assert planned == [
        window,
        Window(0, 5_000_000, "BTCUSDT"),
        Window(5_002_000, DAY_US, "BTCUSDT"),
    ]


def test_a_gap_over_midnight_keeps_its_ids_in_both_windows() -> None:
    gap = Window(DAY_US - HOUR_US, DAY_US + HOUR_US, "BTCUSDT", "gap", 1, 9)
    assert [(w.to_us - w.from_us, w.first_id, w.last_id) for w in plan([gap], {}).windows] == [
        (HOUR_US, 1, 9)
    ] * 2


def test_windows_that_hold_a_gap_are_planned_as_they_were_fetched() -> None:
    fetched = {"BTCUSDT": [(0, 1000), (1000, 3000), (9000, HOUR_US)], "ETHUSDT": [(0, HOUR_US)]}
    gap = Window(2000, 4000, "BTCUSDT", "gap", 1, 9)
    assert plan([gap], fetched).windows == [
        Window(1000, 3000, "BTCUSDT", "gap", 1, 9),
        Window(3000, 4000, "BTCUSDT", "gap", 1, 9),
    ]

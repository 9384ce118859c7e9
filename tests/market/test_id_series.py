"""Outlier ids: which rows are refused, which are not, and how a new series is recognised."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.market import START_US
from tickcast.market.id_series import (
    FELL_BACK,
    JUMPED,
    QUOTE_PACE,
    TRADE_PACE,
    IdSeries,
    quote_series,
    trade_series,
)
from tickcast.market.ticks import QUOTE, Quotes, Trades, quotes_array, trades_array

S = 1_000_000


def trades_of(*ids: int, from_us: int = START_US) -> Trades:
    return trades_array((from_us + k * 10_000, from_us, i, i, 100, 5, 1) for k, i in enumerate(ids))


def ids_of(rows: Trades) -> list[int]:
    ids: list[int] = rows["first_id"].tolist()
    return ids


@pytest.mark.parametrize("wild", [2**60, 2**62, 5_000_000, 3])
def test_an_outlier_id_costs_its_own_row(wild: int) -> None:
    series = trade_series()
    result = series.admit(trades_of(1001, 1002, wild, 1004, 1005))
    assert [ids_of(run) for run in result.runs] == [[1001, 1002, 1004, 1005]]
    assert [(row[2], why) for row, why in result.refused] == [(wild, JUMPED if wild > 1001 else FELL_BACK)]


def test_an_outlier_at_the_end_of_a_batch_waits_for_the_next() -> None:
    series = trade_series()
    first = series.admit(trades_of(1001, 1002, 2**60))
    assert (ids_of(first.runs[0]), first.refused) == ([1001, 1002], [])
    series = IdSeries.from_dict(TRADE_PACE, series.as_dict())  # as it is stored
    second = series.admit(trades_of(1004, from_us=START_US + S))
    assert ids_of(second.runs[0]) == [1004]
    assert [row[2] for row, _ in second.refused] == [2**60]


@pytest.mark.parametrize("start", [1, 990, 2**60])
@pytest.mark.parametrize("piece", [1, 2, 7])
def test_restarted_ids_are_a_series_of_their_own(start: int, piece: int) -> None:
    series = trade_series()
    series.admit(trades_of(*range(1000, 1100)))
    fresh = trades_of(*range(start, start + 20), from_us=START_US + 60 * S)
    runs = []
    for at in range(0, 20, piece):
        result = series.admit(fresh[at : at + piece])
        assert result.refused == []
        runs += [(n > 0, ids_of(run)) for n, run in enumerate(result.runs) if len(run)]
    assert [i for _, ids in runs for i in ids] == list(range(start, start + 20))
    assert [is_new for is_new, _ in runs].count(True) == 1
    assert series.newest_id == start + 19


def test_repeats_and_late_trades_are_no_new_series() -> None:
    trades = trades_of(*range(1000, 1100))
    series = trade_series()
    series.admit(trades[20:])
    for again in (trades[50:60], trades[:20], trades[30:]):
        result = series.admit(again)
        assert (len(result.runs), result.refused, series.suspects) == (1, [], [])
        assert ids_of(result.runs[0]) == ids_of(again)


def test_an_outlier_at_the_beginning_of_a_series_is_dropped() -> None:
    result = trade_series().admit(trades_of(2**61, 1000, 1001, 1002, 1003))
    assert [row[2] for row, _ in result.refused] == [2**61]
    assert ids_of(result.runs[-1]) == [1000, 1001, 1002, 1003]


def test_the_jump_of_an_outage_is_possible() -> None:
    series = trade_series()
    series.admit(trades_of(1000))
    result = series.admit(trades_of(500_000, from_us=START_US + 3600 * S))
    assert (ids_of(result.runs[0]), result.refused) == ([500_000], [])


def test_a_lagging_connection_s_quotes_at_estimated_times_are_repeats() -> None:
    """It brings the same update ids 300 ms later, and so later in time as well."""
    series, times = quote_series(), [START_US + k * 20_000 for k in range(2000)]
    rows = quotes_array((at, at, 10 * k, 99, 5, 101, 5) for k, at in enumerate(times))
    late = rows.copy()
    late["time_us"] += 300_000
    for at in range(0, 2000, 5):
        for piece in (rows[at : at + 5], late[max(0, at - 10) : max(0, at - 5)]):
            result = series.admit(piece)
            assert (len(result.runs), result.refused, series.suspects) == (1, [], [])


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(-3 * S, 3 * S)), max_size=40))
def test_every_row_is_admitted_refused_or_suspect(steps: list[tuple[int, int]]) -> None:
    series, seen = trade_series(), 0
    for k, (i, moved_us) in enumerate(steps):
        result = series.admit(trades_of(i, from_us=START_US + k * S + moved_us))
        seen += sum(map(len, result.runs)) + len(result.refused)
    assert seen + len(series.suspects) <= len(steps)  # less where a suspect came twice
    assert seen + len(series.suspects) >= len({i for i, _ in steps})


@pytest.mark.parametrize("per_s", [20, 50, 300, 1000])
def test_restarted_quote_ids_are_accepted_after_a_second_at_any_pace(per_s: int) -> None:
    series = quote_series()
    step_us = S // per_s

    def quotes(first_id: int, start_us: int, count: int) -> Quotes:
        rows = np.zeros(count, QUOTE)
        rows["update_id"] = first_id + np.arange(count)
        rows["time_us"] = start_us + np.arange(count) * step_us
        return rows

    for n in range(150):
        series.admit(quotes(10**9 + n * per_s // 10, START_US + n * S // 10, per_s // 10))
    tenth = per_s // 10
    batches = [quotes(1 + n * tenth, START_US + (150 + n) * S // 10, tenth) for n in range(30)]
    results = [series.admit(rows) for rows in batches]
    assert sum(len(each.runs) - 1 for each in results) == 1
    assert series.newest_id == 3 * per_s
    kept = sum(len(rows) for each in results for rows in each.runs)
    assert kept + sum(len(each.refused) for each in results) == 3 * per_s
    assert kept == 3 * per_s or (per_s > 200 and kept >= 2 * per_s)  # more than can be held back for a second
    assert IdSeries.from_dict(QUOTE_PACE, series.as_dict()) == series

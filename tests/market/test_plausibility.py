"""Values far off: which rows are refused, which are not, and what follows them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.market import START_US, batch, random_ticks
from tickcast.market import wire
from tickcast.market.plausibility import (
    AHEAD,
    BEHIND,
    FELL_BACK,
    FITS,
    JUMPED,
    QUOTE_PACE,
    TRADE_PACE,
    UNDECIDED,
    ExchangeClock,
    IdSeries,
    are_plain,
    quote_faults,
    quote_series,
    time_faults,
    trade_faults,
    trade_series,
)
from tickcast.market.ticks import QUOTE, TRADE, Quotes, Trades, quotes_array, trades_array

S = 1_000_000


def judged(clock: ExchangeClock, times_us: list[int], received_us: list[int]) -> list[int]:
    return clock.judge(np.array(times_us, np.int64), np.array(received_us, np.int64)).tolist()


def steady(clock: ExchangeClock, offset_us: int, seconds: int, from_us: int = START_US) -> int:
    """Ten ticks a second, 5 ms on their way; returns where they end."""
    for k in range(seconds):
        received = [from_us + k * S + j * 100_000 for j in range(10)]
        verdicts = judged(clock, [at + offset_us - 5_000 for at in received], received)
        assert verdicts == [FITS] * 10
    return from_us + seconds * S


@pytest.mark.parametrize("offset_us", [0, -3600 * S, 61 * S, 20_000])
@pytest.mark.parametrize("off_us", [-240 * S, -7 * S, 3 * S, 240 * S])
def test_one_tick_off_is_refused_whatever_the_host_s_clock_says(offset_us: int, off_us: int) -> None:
    clock = ExchangeClock()
    now_us = steady(clock, offset_us, 20)
    times = [now_us + offset_us, now_us + offset_us + off_us, now_us + offset_us]
    assert judged(clock, times, [now_us, now_us, now_us + 1]) == [FITS, AHEAD if off_us > 0 else BEHIND, FITS]


@pytest.mark.parametrize("unit", [0.001, 1000])
def test_another_unit_is_refused_even_when_nothing_else_comes(unit: float) -> None:
    clock = ExchangeClock()
    received = [START_US + k * S for k in range(40)]
    assert set(judged(clock, [int(at * unit) for at in received], received)) == {
        AHEAD if unit > 1 else BEHIND
    }
    assert judged(clock, [START_US + 50 * S], [START_US + 50 * S]) == [FITS]


def test_an_outlier_that_comes_first_waits_for_its_neighbours() -> None:
    clock = ExchangeClock()
    assert judged(clock, [START_US + 240 * S], [START_US]) == [UNDECIDED]
    times, received = [START_US + 240 * S, START_US + 100], [START_US, START_US + 200]
    assert judged(clock, times, received) == [AHEAD, FITS]


def test_many_trades_of_one_frame_are_one_witness() -> None:
    clock = ExchangeClock()
    assert set(judged(clock, [START_US + 60 * S] * 50, [START_US] * 50)) == {UNDECIDED}


def test_a_clock_that_steps_is_followed_and_loses_nothing() -> None:
    clock = ExchangeClock()
    now_us = steady(clock, 0, 5)
    assert judged(clock, [now_us], [now_us - 90 * S]) == [UNDECIDED]
    assert judged(clock, [now_us, now_us + S], [now_us - 90 * S, now_us - 89 * S]) == [UNDECIDED] * 2
    times = [now_us, now_us + S, now_us + 2 * S]
    assert judged(clock, times, [at - 90 * S for at in times]) == [FITS] * 3
    steady(clock, 90 * S, 3, now_us - 80 * S)


def test_what_was_held_up_on_its_way_is_right() -> None:
    """Nothing comes for half a minute, then all of it at once."""
    clock = ExchangeClock()
    now_us = steady(clock, 0, 10)
    times = [now_us + j * 100_000 for j in range(300)]
    received = [now_us + 30 * S + j for j in range(300)]
    assert judged(clock, times, received) == [FITS] * 300
    steady(clock, 0, 3, now_us + 31 * S)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40))
def test_any_time_gets_a_verdict(times_us: list[int]) -> None:
    received = [START_US + k for k in range(len(times_us))]
    assert len(judged(ExchangeClock(), times_us, received)) == len(times_us)


# ------------------------------------------------------------------------------------------------- ids


def trades_of(*ids: int, from_us: int = START_US) -> Trades:
    return trades_array((from_us + k * 10_000, from_us, i, i, 100, 5, 1) for k, i in enumerate(ids))


def ids_of(rows: Trades) -> list[int]:
    return rows["first_id"].tolist()


@pytest.mark.parametrize("wild", [2**60, 2**62, 5_000_000, 3])
def test_one_id_off_costs_its_own_row(wild: int) -> None:
    series = trade_series()
    result = series.judge(trades_of(1001, 1002, wild, 1004, 1005))
    assert [ids_of(run) for run in result.runs] == [[1001, 1002, 1004, 1005]]
    assert [(row[2], why) for row, why in result.refused] == [(wild, JUMPED if wild > 1001 else FELL_BACK)]


def test_an_id_off_at_the_end_of_a_batch_waits_for_the_next() -> None:
    series = trade_series()
    first = series.judge(trades_of(1001, 1002, 2**60))
    assert (ids_of(first.runs[0]), first.refused) == ([1001, 1002], [])
    series = IdSeries.from_dict(TRADE_PACE, series.as_dict())  # as it is stored
    second = series.judge(trades_of(1004, from_us=START_US + S))
    assert ids_of(second.runs[0]) == [1004]
    assert [row[2] for row, _ in second.refused] == [2**60]


@pytest.mark.parametrize("start", [1, 990, 2**60])
@pytest.mark.parametrize("piece", [1, 2, 7])
def test_ids_that_start_over_are_a_series_of_their_own(start: int, piece: int) -> None:
    series = trade_series()
    series.judge(trades_of(*range(1000, 1100)))
    fresh = trades_of(*range(start, start + 20), from_us=START_US + 60 * S)
    runs = []
    for at in range(0, 20, piece):
        result = series.judge(fresh[at : at + piece])
        assert result.refused == []
        runs += [(n > 0, ids_of(run)) for n, run in enumerate(result.runs) if len(run)]
    assert [i for _, ids in runs for i in ids] == list(range(start, start + 20))
    assert [is_new for is_new, _ in runs].count(True) == 1
    assert series.newest_id == start + 19


def test_repeats_and_late_trades_are_no_new_series() -> None:
    trades = trades_of(*range(1000, 1100))
    series = trade_series()
    series.judge(trades[20:])
    for again in (trades[50:60], trades[:20], trades[30:]):
        result = series.judge(again)
        assert (len(result.runs), result.refused, series.suspects) == (1, [], [])
        assert ids_of(result.runs[0]) == ids_of(again)


def test_a_series_that_begins_with_an_id_off_drops_it() -> None:
    result = trade_series().judge(trades_of(2**61, 1000, 1001, 1002, 1003))
    assert [row[2] for row, _ in result.refused] == [2**61]
    assert ids_of(result.runs[-1]) == [1000, 1001, 1002, 1003]


def test_an_outage_is_a_jump_that_can_be() -> None:
    series = trade_series()
    series.judge(trades_of(1000))
    result = series.judge(trades_of(500_000, from_us=START_US + 3600 * S))
    assert (ids_of(result.runs[0]), result.refused) == ([500_000], [])


def test_a_lagging_connection_s_quotes_at_estimated_times_are_repeats() -> None:
    """It brings the same update ids 300 ms later, and so later in time as well."""
    series, times = quote_series(), [START_US + k * 20_000 for k in range(2000)]
    rows = quotes_array((at, at, 10 * k, 99, 5, 101, 5) for k, at in enumerate(times))
    late = rows.copy()
    late["time_us"] += 300_000
    for at in range(0, 2000, 5):
        for piece in (rows[at : at + 5], late[max(0, at - 10) : max(0, at - 5)]):
            result = series.judge(piece)
            assert (len(result.runs), result.refused, series.suspects) == (1, [], [])


def test_quotes_that_start_over_are_believed_after_a_second() -> None:
    series = quote_series()
    old = quotes_array((START_US + k * 50_000, 0, 10**9 + k, 99, 5, 101, 5) for k in range(400))
    new = quotes_array((START_US + 60 * S + k * 50_000, 0, 7 + k, 99, 5, 101, 5) for k in range(100))
    series.judge(old)
    kept, runs = 0, 0
    for at in range(0, 100, 4):
        result = series.judge(new[at : at + 4])
        kept, runs = kept + sum(map(len, result.runs)), runs + len(result.runs) - 1
        assert result.refused == []
    assert (kept, runs, series.newest_id) == (100, 1, 106)
    assert IdSeries.from_dict(QUOTE_PACE, series.as_dict()) == series


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(-3 * S, 3 * S)), max_size=40))
def test_no_row_is_lost_without_a_word(steps: list[tuple[int, int]]) -> None:
    series, seen = trade_series(), 0
    for k, (i, moved_us) in enumerate(steps):
        result = series.judge(trades_of(i, from_us=START_US + k * S + moved_us))
        seen += sum(map(len, result.runs)) + len(result.refused)
    assert seen + len(series.suspects) <= len(steps)  # less where a suspect came twice
    assert seen + len(series.suspects) >= len({i for i, _ in steps})


# ------------------------------------------------------------------------------------------- the record


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time_us", START_US + 60 * S),
        ("time_us", START_US // 1000),
        ("time_us", START_US * 1000),
        ("time_us", -(2**63)),
        ("price", 0),
        ("qty", -1),
        ("first_id", -1),
        ("last_id", 5),
        ("last_id", 2**62),
        ("receive_time_us", 2**62),
        ("side", 0),
    ],
)
def test_a_record_lives_without_the_trade_that_cannot_be(field: str, value: int) -> None:
    trades, quotes = random_ticks(1, 2)
    wild = trades.copy()
    wild[field][7] = value
    good, refused, reason = wire.check_times(batch(wild, quotes, START_US), START_US + 3 * S)
    assert good.trades.tolist() == np.delete(trades, 7).tolist()
    assert good.quotes.tolist() == quotes.tolist()
    assert refused is not None
    assert (refused.trades.tolist(), len(refused.quotes)) == ([wild[7].item()], 0)
    assert "(1)" in reason


def test_old_ticks_are_right_and_one_ahead_of_them_is_not() -> None:
    """The record waited for ten minutes: its arrival proves nothing of a tick a minute ahead."""
    trades, quotes = random_ticks(1, 2)
    arrived_us = START_US + 600 * S
    whole = batch(trades, quotes)
    assert wire.check_times(whole, arrived_us) == wire.Checked(whole)
    wild = trades.copy()
    wild["time_us"][3] += 60 * S
    good, refused, _ = wire.check_times(batch(wild, quotes), arrived_us)
    assert len(good.trades) == len(trades) - 1
    assert refused is not None and len(refused.trades) == 1


def test_ingest_s_clock_may_be_off_where_all_ticks_say_so() -> None:
    trades, quotes = random_ticks(1, 2)
    trades["receive_time_us"] -= 3600 * S
    quotes["receive_time_us"] -= 3600 * S
    assert wire.check_times(batch(trades, quotes), START_US + 3 * S).refused is None


def test_a_claim_and_a_notice_of_the_future_are_dropped_and_the_ticks_are_not() -> None:
    trades, quotes = random_ticks(1, 2)
    notices = (wire.Notice("lost", START_US, START_US + S), wire.Notice("wild", START_US, 2**62))
    claimed = batch(trades, quotes, START_US + 3600 * S)._replace(notices=notices, quiet_us=2**62)
    good, _, reason = wire.check_times(claimed, START_US + 3 * S)
    assert (good.watermark_us, good.notices) == (wire.NO_WATERMARK, notices[:1])
    assert good.quiet_us == wire.NEVER_QUIET
    assert (len(good.trades), len(good.quotes)) == (len(trades), len(quotes))
    assert "is ahead of its arrival" in reason


BID, ASK, GONE = (99, 5), (101, 6), (0, 0)


@pytest.mark.parametrize(
    ("bid", "ask", "reasons"),
    [
        (BID, ASK, []),
        (GONE, ASK, []),
        (BID, GONE, []),
        (GONE, GONE, []),
        ((102, 5), ASK, ["a crossed book"]),
        ((101, 5), ASK, ["a crossed book"]),
        ((99, 0), ASK, ["half a side of the book"]),
        (BID, (0, 6), ["half a side of the book"]),
        ((-1, 5), ASK, ["half a side of the book"]),
    ],
)
def test_which_books_can_be(bid: tuple, ask: tuple, reasons: list[str]) -> None:
    rows = quotes_array([(START_US, START_US, 1, *bid, *ask)])
    assert [fault.reason for fault in quote_faults(rows) if fault.is_faulty.any()] == reasons


def test_nothing_is_wrong_with_no_rows() -> None:
    empty = batch(np.empty(0, TRADE), np.empty(0, QUOTE), START_US)
    assert wire.check_times(empty, START_US) == wire.Checked(empty)


@pytest.mark.parametrize("per_s", [50, 300, 1000])
def test_quote_ids_that_start_over_are_believed_after_a_second_at_any_pace(per_s: int) -> None:
    series = quote_series()
    step_us = S // per_s

    def quotes(first_id: int, start_us: int, count: int) -> Quotes:
        rows = np.zeros(count, QUOTE)
        rows["update_id"] = first_id + np.arange(count)
        rows["time_us"] = start_us + np.arange(count) * step_us
        return rows

    for n in range(150):
        series.judge(quotes(10**9 + n * per_s // 10, START_US + n * S // 10, per_s // 10))
    tenth = per_s // 10
    batches = [quotes(1 + n * tenth, START_US + (150 + n) * S // 10, tenth) for n in range(30)]
    runs = [series.judge(rows).runs for rows in batches]
    assert sum(len(each) - 1 for each in runs) == 1
    assert series.newest_id == 3 * per_s
    assert sum(len(rows) for each in runs for rows in each) >= per_s * 2


ODD = st.sampled_from(
    [-(2**63), -1, 0, 1, 2, 100, 2**40, 2**62, 2**63 - 1, START_US, START_US - S, START_US + 60 * S]
)


@pytest.mark.parametrize(("dtype", "faults"), [(TRADE, trade_faults), (QUOTE, quote_faults)])
@given(st.data())
def test_what_is_plain_at_a_glance_is_free_of_faults(dtype: Any, faults: Any, data: st.DataObject) -> None:
    trades, quotes = random_ticks(3, 0.5)
    rows = (trades if dtype == TRADE else quotes)[:4].copy()
    assert are_plain(rows, START_US + S)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(dtype.names))
        value = data.draw(st.integers(-3, 3) if name == "side" else ODD)
        rows[name][data.draw(st.integers(0, 3))] = value
    with np.errstate(all="ignore"):
        found = [*faults(rows), *time_faults(rows, START_US + S)]
        if are_plain(rows, START_US + S):
            assert not any(fault.is_faulty.any() for fault in found)

"""Views of the ring: as of any instant, of what has arrived, whatever the batches were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.test_bars import bars_by_loop, plain
from tests.fixtures.examples import examples
from tests.fixtures.market import START_US, batch, batches, random_ticks
from tickcast.features.bars import (
    BAR,
    BAR_US,
    NO_BAR,
    SILENCE_US,
    Bars,
    bar_index,
    segments,
    summarise,
    whole_seconds,
)
from tickcast.features.ring import KEPT_SECONDS, VIEWED_BARS, BarRing, View, differences, from_differences
from tickcast.market.ticks import Quotes, Trades
from tickcast.market.wire import NO_WATERMARK, TickBatch
from tickcast.units import SECOND_US

LATENESS_US = 100_000
SECONDS = 8


def before(rows: Trades | Quotes, time_us: int) -> Trades | Quotes:
    return rows[rows["time_us"] < time_us]


def from_scratch(trades: Trades, quotes: Quotes, from_us: int, as_of_us: int) -> Bars:
    """All bars of one segment from `from_us` up to `as_of_us`, in one piece."""
    ticks = before(trades, as_of_us), before(quotes, as_of_us)
    return summarise(*ticks, bar_index(from_us), as_of_us, NO_BAR)


def assert_is(view: View, expected: Bars) -> None:
    assert view.bars.tobytes() == expected[-len(view.bars) :].tobytes()
    assert len(view.bars) >= min(VIEWED_BARS - 1, len(expected))
    assert view.seconds.tobytes() == whole_seconds(expected)[-KEPT_SECONDS:].tobytes()


@examples(60)
@given(
    st.integers(0, 5),
    st.lists(st.integers(0, SECONDS * 1000), max_size=40),
    st.sampled_from([(30, 60), (300, 900)]),
    st.sampled_from([BAR_US, SECOND_US]),
    st.integers(0, 2**32),
)
def test_a_view_is_what_its_ticks_give_from_scratch(
    seed: int, cuts_ms: list[int], rates: tuple[float, float], every_us: int, order: int
) -> None:
    rng = np.random.default_rng(order)
    trades, quotes = random_ticks(seed, SECONDS, *rates)
    ring, plain_ring = BarRing(LATENESS_US), BarRing(LATENESS_US)
    for piece in batches(trades, quotes, [START_US + 1000 * ms for ms in cuts_ms]):
        for each in (ring, plain_ring):
            list(each.fold(piece, every_us))
        newest_us = ring.watermark.newest_us
        ends = [
            ring.as_of_us,
            ring.closed_us,
            int(rng.integers(newest_us // 1000 - 300, newest_us // 1000)) * 1000,
        ]
        for as_of_us in ends:
            view = ring.view(as_of_us)
            assert view.as_of_us == max(as_of_us, ring.closed_us)
            assert view.closed_us == ring.closed_us <= ring.as_of_us
            assert_is(view, from_scratch(trades, quotes, view.history_from_us, view.as_of_us))
            open_trades, open_quotes = (
                rows[(rows["time_us"] >= view.closed_us) & (rows["time_us"] < view.as_of_us)]
                for rows in (trades, quotes)
            )
            assert view.trade_ids.tolist() == sorted(open_trades["first_id"].tolist())
            assert view.update_ids.tolist() == sorted(open_quotes["update_id"].tolist())
    assert ring.bars.tobytes() == plain_ring.bars.tobytes()  # views changed nothing
    assert ring.seconds.tobytes() == plain_ring.seconds.tobytes()
    (history,) = segments(trades, quotes)
    closed = history[np.isin(history["end_us"], ring.bars["end_us"])]
    assert (
        len(closed)
        and ring.bars[np.isin(ring.bars["end_us"], closed["end_us"])].tobytes() == closed.tobytes()
    )


@pytest.mark.parametrize("end_us", [1_000, 57_000, 99_000, 100_000])
def test_every_field_of_a_partial_bar_equals_the_loop(end_us: int) -> None:
    trades, quotes = random_ticks(7, 2, 40, 90)
    as_of_us = START_US + 1_500_000 + end_us
    ticks = before(trades, as_of_us), before(quotes, as_of_us)
    bars = summarise(*ticks, bar_index(START_US), as_of_us, NO_BAR)
    expected = bars_by_loop(*ticks, 16, as_of_us)
    assert bars["end_us"][-1] == as_of_us
    for name in BAR.names or ():
        assert plain(bars, name) == [bar[name] for bar in expected], name


def test_a_tick_at_the_instant_itself_is_not_before_it() -> None:
    trades, quotes = random_ticks(3, 2)
    at_us = START_US + 1_250_000
    trades["time_us"][trades["time_us"] < at_us] -= 1  # none at the instant by chance
    index = int(np.searchsorted(trades["time_us"], at_us))
    trades["time_us"][index] = at_us
    ring = BarRing(LATENESS_US)
    list(ring.fold(batch(trades[: index + 1], before(quotes, at_us), at_us), SECOND_US))
    newest_id = int(trades["first_id"][index])
    assert newest_id not in ring.view(at_us).trade_ids
    assert ring.as_of_us == at_us + 1000  # a tick at the time of the newest claim counts
    assert ring.view().trade_ids[-1] == ring.view().bars["last_trade_id"][-1] == newest_id


def test_a_view_knows_the_ticks_that_no_claim_of_all_connections_has_reached() -> None:
    trades, quotes = random_ticks(4, 4)
    ring = BarRing(LATENESS_US)
    list(ring.fold(batch(trades[:0], quotes[:0], START_US + 3 * SECOND_US, "slow"), SECOND_US))
    list(ring.fold(batch(trades, quotes), SECOND_US))
    assert ring.watermark.reached_us == START_US + 3 * SECOND_US
    assert ring.view().bars["last_trade_id"][-1] == trades["last_id"][-1]


@pytest.mark.parametrize("ids", [[], [7], [0, 1, 5], [2**62, 2**62 + 3]])
def test_ids_are_listed_by_their_differences(ids: list[int]) -> None:
    listed = differences(np.array(ids, np.int64))
    assert from_differences(listed).tolist() == ids
    assert sum(listed) == max(ids, default=0)


def test_ticks_without_a_claim_move_no_view() -> None:
    trades, quotes = random_ticks(4, 4)
    first, *others = batches(trades, quotes, [START_US + k * SECOND_US for k in range(1, 4)])
    ring = BarRing(LATENESS_US)
    list(ring.fold(first, SECOND_US))
    view = ring.view()
    for piece in others:
        list(ring.fold(piece._replace(watermark_us=NO_WATERMARK), SECOND_US))
    assert ring.view().as_of_us == view.as_of_us
    assert ring.view().bars.tobytes() == view.bars.tobytes()


def test_before_the_first_tick_a_view_is_empty() -> None:
    trades, quotes = random_ticks(4, 1)
    ring = BarRing(LATENESS_US)
    assert not len(ring.view().bars)
    list(ring.fold(batch(trades[:0], quotes[:0], START_US), SECOND_US))
    view = ring.view()
    assert (len(view.bars), len(view.seconds), view.as_of_us) == (0, 0, START_US + 1000)


def test_an_instant_within_a_millisecond_is_refused() -> None:
    ring = BarRing(LATENESS_US)
    with pytest.raises(ValueError, match="no whole millisecond"):
        ring.view(START_US + 1)


def after_a_silence(quiet_us: int) -> tuple[list[TickBatch], Trades, Quotes]:
    """Twenty seconds of ticks, and the ten after a silence of `quiet_us`."""
    trades, quotes = random_ticks(5, 20)
    later_trades, later_quotes = random_ticks(6, 10)
    for rows, ids in ((later_trades, ("first_id", "last_id")), (later_quotes, ("update_id",))):
        rows["time_us"] += 20 * SECOND_US + quiet_us
        for name in ids:
            rows[name] += 10**6
    return [batch(trades, quotes)], later_trades, later_quotes


@pytest.mark.parametrize("with_claims", [True, False])
@pytest.mark.parametrize("quiet_us", [SILENCE_US - 3 * SECOND_US, SILENCE_US + 7 * SECOND_US])
def test_a_silence_in_the_open_part_starts_a_segment_as_in_history(quiet_us: int, with_claims: bool) -> None:
    """The connection was lost, or the market was quiet."""
    stream, trades, quotes = after_a_silence(quiet_us)
    quiet = range(START_US + 20 * SECOND_US, START_US + 20 * SECOND_US + quiet_us, SECOND_US)
    for at_us in quiet if with_claims else ():
        stream.append(batch(trades[:0], quotes[:0], at_us))
    ring = BarRing(LATENESS_US)
    for piece in stream:
        list(ring.fold(piece, SECOND_US))
    before_us = ring.history_from_us
    first_us = min(int(trades["time_us"][0]), int(quotes["time_us"][0]))
    upto_us = first_us // BAR_US * BAR_US + 3 * BAR_US + 40_000
    ticks = before(trades, upto_us), before(quotes, upto_us)
    list(ring.fold(batch(*ticks, connection="b"), SECOND_US))
    view = ring.view(upto_us)
    if quiet_us > SILENCE_US:
        assert view.history_from_us == first_us // BAR_US * BAR_US
        assert_is(view, from_scratch(trades, quotes, view.history_from_us, upto_us))
        assert len(view.bars) == 4
    else:
        assert view.history_from_us == before_us and len(view.bars) >= VIEWED_BARS - 1


def test_a_view_far_behind_the_newest_tick_has_the_segment_of_its_own_time() -> None:
    """Both sides of a silence are open when nothing has been claimed."""
    (one,), trades, quotes = after_a_silence(SILENCE_US + 7 * SECOND_US)
    ring = BarRing(LATENESS_US)
    list(ring.fold(one._replace(watermark_us=NO_WATERMARK), SECOND_US))
    list(ring.fold(batch(trades, quotes, NO_WATERMARK), SECOND_US))
    assert ring.view(START_US + 10 * SECOND_US).history_from_us == ring.history_from_us
    end_us = START_US + 20 * SECOND_US + SILENCE_US + 12 * SECOND_US
    view = ring.view(end_us)
    assert view.history_from_us > START_US + 20 * SECOND_US + SILENCE_US
    assert_is(view, from_scratch(trades, quotes, view.history_from_us, end_us))

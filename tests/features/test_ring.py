"""The ring: order, repeats and lateness change no bit; late ticks, holes, and outlier ids."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.features.test_bars import plain
from tests.fixtures.examples import examples
from tests.fixtures.market import START_US, batch, batches, random_ticks
from tickcast.features.bars import (
    BAR_US,
    BARS_PER_S,
    SILENCE_US,
    is_quoted,
    mids,
    proxy_mids,
    segments,
    whole_seconds,
)
from tickcast.features.ring import KEPT_BARS, KEPT_SECONDS, MAX_HELD_TICKS, BarRing
from tickcast.market.gaps import QUOTES_MISSING_US
from tickcast.market.ticks import Quotes, Trades
from tickcast.market.wire import NO_WATERMARK, TickBatch
from tickcast.units import SECOND_US

LATENESS_US = 100_000


def folded(stream: list[TickBatch], lateness_us: int = LATENESS_US) -> BarRing:
    ring = BarRing(lateness_us)
    for piece in stream:
        list(ring.fold(piece, 1_000_000))
    return ring


@examples(40)
@given(
    st.integers(0, 5),
    st.lists(st.integers(START_US, START_US + 8_000_000), max_size=60),
    st.sampled_from([(30, 60), (300, 900)]),  # the second is a burst: bars are closed within the second
    st.integers(0, 2**32),  # not `st.randoms`: thousands of ticks would be as many choices to it
)
@example(seed=0, cuts_us=[START_US + 7_800_552], rates=(300, 900), order=0)  # closed a bar earlier
def test_same_bits_for_any_batches_order_and_repeats(
    seed: int, cuts_us: list[int], rates: tuple[float, float], order: int
) -> None:
    rng = np.random.default_rng(order)
    trades, quotes = random_ticks(seed, 8, *rates)
    expected = folded([batch(trades, quotes)])
    stream = []
    for piece in batches(trades, quotes, cuts_us):
        stream.append(
            piece._replace(trades=rng.permutation(piece.trades), quotes=rng.permutation(piece.quotes))
        )
        if rng.random() < 0.5:
            stream.append(stream[rng.integers(len(stream))])  # once more, by another connection
    got = folded(stream)
    assert got.seconds.tobytes() == expected.seconds.tobytes()
    # A burst is closed up to where its batches end, a bar earlier or later: what both hold is compared.
    both = np.intersect1d(got.bars["end_us"], expected.bars["end_us"])
    assert len(both) > KEPT_BARS // 2
    ours, theirs = (ring.bars[np.isin(ring.bars["end_us"], both)] for ring in (got, expected))
    assert ours.tobytes() == theirs.tobytes()
    assert (got.trade_ids.late_count, got.quote_ids.late_count) == (0, 0)


@examples(25)
@given(st.integers(0, 5), st.lists(st.integers(START_US, START_US + 8_000_000), min_size=1, max_size=60))
def test_disorder_below_the_lateness_changes_nothing(seed: int, cuts_us: list[int]) -> None:
    """Each tick is delayed by less than the lateness, so that batches overlap in event time."""
    trades, quotes = random_ticks(seed, 8)
    rng = np.random.default_rng(seed)
    arrive = [rows["time_us"] + rng.integers(0, LATENESS_US, len(rows)) for rows in (trades, quotes)]
    stream, newest_us = [], 0
    edges = [START_US, *sorted(cuts_us), 2**62]
    for start, stop in zip(edges, edges[1:], strict=False):
        t, q = (rows[(at >= start) & (at < stop)] for rows, at in zip((trades, quotes), arrive, strict=True))
        if len(t) + len(q):
            newest_us = max(newest_us, batch(t, q).watermark_us)
            stream.append(batch(t, q, newest_us))
    got, expected = folded(stream), folded([batch(trades, quotes)])
    assert (got.trade_ids.late_count, got.quote_ids.late_count) == (0, 0)
    assert got.bars.tobytes() == expected.bars.tobytes()
    assert got.seconds.tobytes() == expected.seconds.tobytes()


def test_a_late_trade_is_counted_and_listed_not_added() -> None:
    trades, quotes = random_ticks(3, 5)
    victim = trades[10:11]
    rest = np.delete(trades, 10)
    ring = folded([batch(rest, quotes)])
    before = ring.bars.tobytes()
    list(ring.fold(batch(victim, quotes[:0], ring.watermark.reached_us), 1_000_000))
    assert ring.bars.tobytes() == before
    assert (ring.trade_ids.late_count, ring.trade_ids.late_ids) == (1, [int(victim["first_id"][0])])
    list(ring.fold(batch(victim, quotes[:0], ring.watermark.reached_us), 1_000_000))
    assert ring.trade_ids.late_count == 1  # the second time it is a repeat


def test_a_lost_trade_is_a_hole() -> None:
    trades, quotes = random_ticks(3, 5)
    ring = folded([batch(np.delete(trades, [7, 8]), quotes)])
    assert ring.trade_ids.seen.holes() == [(int(trades["first_id"][7]), int(trades["first_id"][8]))]


def test_a_repeated_old_quote_is_not_late() -> None:
    trades, quotes = random_ticks(3, 5)
    ring = folded([batch(trades, quotes)])
    list(ring.fold(batch(trades[:0], quotes[:5], ring.watermark.reached_us), 1_000_000))
    assert ring.quote_ids.late_count == 0


def test_fold_yields_each_second_once_with_its_bar_newest() -> None:
    trades, quotes = random_ticks(4, 6)
    ring, seconds = BarRing(LATENESS_US), []
    for piece in batches(trades, quotes, [START_US + k * 370_000 for k in range(1, 16)]):
        for instant_us in ring.fold(piece, 1_000_000):
            assert int(ring.bars[-1]["end_us"]) == instant_us == ring.closed_us
            seconds.append(instant_us)
    first = -(-START_US // 1_000_000) * 1_000_000
    assert seconds == list(range(first, seconds[-1] + 1, 1_000_000))
    assert len(seconds) >= 5


def test_a_watermark_closes_bars_of_a_quiet_market() -> None:
    trades, quotes = random_ticks(4, 2)
    ring = folded([batch(trades, quotes)])
    end_us = START_US + 9_000_000
    silent = batch(trades[:0], quotes[:0], end_us)
    assert list(ring.fold(silent, 1_000_000))[-1] <= end_us - LATENESS_US
    assert ring.closed_us == (end_us - LATENESS_US) // SECOND_US * SECOND_US  # nobody asks before the next
    assert int(ring.bars[-1]["update_id"]) == int(quotes["update_id"][-1])


def test_seconds_are_the_sums_of_their_bars_for_any_batches() -> None:
    trades, quotes = random_ticks(5, 70, 3, 5)
    (bars,) = segments(trades, quotes)
    ring = folded(list(batches(trades, quotes, [START_US + k * 130_000 for k in range(1, 530)])))
    expected = whole_seconds(bars)
    for at, row in enumerate(expected):
        mine = bars[(bars["end_us"] > row["end_us"] - SECOND_US) & (bars["end_us"] <= row["end_us"])]
        for name in ("trade_count", "buy_qty", "sell_qty", "notional", "quote_count"):
            assert plain(expected, name)[at] == sum(plain(mine, name))
        quoted = [bar for bar in mine if is_quoted(np.array([bar]))[0]]
        assert row["quoted_bars"] == len(quoted)
        assert plain(expected, "depth")[at] == sum(int(bar["bid_qty"] + bar["ask_qty"]) for bar in quoted)
        assert row["mid2"] == (quoted[-1]["bid_price"] + quoted[-1]["ask_price"] if len(quoted) else 0)
    assert len(ring.seconds) == KEPT_SECONDS
    upto = int(ring.seconds[-1]["end_us"])
    kept = expected[expected["end_us"] <= upto][-KEPT_SECONDS:]
    assert ring.seconds.tobytes() == kept.tobytes()
    assert len(ring.bars) == KEPT_BARS


def test_a_long_silence_starts_a_segment_in_the_ring_as_in_history() -> None:
    trades, quotes = random_ticks(5, 20)
    later = SILENCE_US + 7 * SECOND_US
    after_trades, after_quotes = trades.copy(), quotes.copy()
    for rows, ids in ((after_trades, ("first_id", "last_id")), (after_quotes, ("update_id",))):
        rows["time_us"] += 20 * SECOND_US + later
        for name in ids:
            rows[name] += 10**6
    one, two = segments(np.concatenate([trades, after_trades]), np.concatenate([quotes, after_quotes]))
    assert len(one) + len(two) <= 2 * 20 * BARS_PER_S + 2
    assert two[0]["trade_count"] + two[0]["quote_count"] > 0
    quiet = [
        batch(trades[:0], quotes[:0], START_US + (20 + k) * SECOND_US) for k in range(later // SECOND_US)
    ]
    for between in ([], quiet):  # the connection was lost, or the market was quiet
        ring = folded([batch(trades, quotes), *between, batch(after_trades, after_quotes)])
        assert ring.history_from_us == int(two[0]["end_us"]) - BAR_US
        ours = two[two["end_us"] <= ring.closed_us]
        assert ring.bars.tobytes() == ours[-KEPT_BARS:].tobytes()
        assert ring.seconds.tobytes() == whole_seconds(ours).tobytes()


def test_the_instants_of_an_outage_are_not_yielded() -> None:
    trades, quotes = random_ticks(5, 70, 3, 5)
    ring = folded([batch(trades, quotes)])
    later = ring.watermark.reached_us + 3600 * SECOND_US
    seconds = list(ring.fold(batch(trades[:0], quotes[:0], later), SECOND_US))
    assert len(seconds) <= 1  # that of the ticks still open
    assert ring.closed_us == (later - LATENESS_US) // BAR_US * BAR_US
    assert not len(ring.bars)


def test_a_quiet_book_is_known_and_a_stalled_one_is_not() -> None:
    trades, quotes = random_ticks(6, 4)
    silent = [batch(trades[:0], quotes[:0], START_US + k * SECOND_US) for k in range(5, 30)]
    quiet = folded([batch(trades, quotes), *silent])
    assert is_quoted(quiet.bars[-1:])[0]
    assert mids(quiet.bars[-1:])[0] == (quotes["bid_price"][-1] + quotes["ask_price"][-1]) / 2
    on = trades.copy()
    on["time_us"] += QUOTES_MISSING_US + 1_000_000
    on["first_id"] += len(on)
    on["last_id"] += len(on)
    stalled = folded([batch(trades, quotes), batch(on, quotes[:0], int(on["time_us"][-1]) + SECOND_US)])
    newest = stalled.bars[-1:]
    assert not is_quoted(newest)[0]
    assert np.isnan(mids(newest)[0])
    bought, sold = (on["price"][on["side"] == side][-1] for side in (1, -1))
    assert proxy_mids(newest)[0] == (bought + sold) / 2


def test_a_proxy_expires_with_its_trades() -> None:
    trades, quotes = random_ticks(6, 4)
    silent = [batch(trades[:0], quotes[:0], START_US + k * SECOND_US) for k in range(5, 30)]
    ring = folded([batch(trades, quotes[:0]), *silent])
    assert np.isnan(proxy_mids(ring.bars[-1:])[0])


def test_a_batch_before_any_tick_does_nothing() -> None:
    trades, quotes = random_ticks(5, 1)
    ring = folded([batch(trades[:0], quotes[:0], START_US)])
    assert ring.next_bar == -1


def by_second(trades: Trades, quotes: Quotes, seconds: int) -> list[TickBatch]:
    """The stream in batches of a second."""
    pieces = []
    for k in range(seconds):
        edges = (START_US + k * SECOND_US, START_US + (k + 1) * SECOND_US)
        t, q = (r[(r["time_us"] >= edges[0]) & (r["time_us"] < edges[1])] for r in (trades, quotes))
        pieces.append(batch(t, q, edges[1] - 1))
    return pieces


def test_outlier_ids_cost_only_their_rows_and_holes_are_still_found() -> None:
    trades, quotes = random_ticks(11, 60)
    lost = (trades["time_us"] >= START_US + 40 * SECOND_US) & (trades["time_us"] < START_US + 41 * SECOND_US)
    wild_trades, wild_quotes = trades.copy(), quotes.copy()
    wild_trades["first_id"][600] = wild_trades["last_id"][600] = 2**62
    wild_quotes["update_id"][1200] = 2**60
    expected = folded(by_second(np.delete(trades[~lost], 600), np.delete(quotes, 1200), 60))
    ring = folded(by_second(wild_trades[~lost], wild_quotes, 60))
    assert ring.bars.tobytes() == expected.bars.tobytes()
    assert ring.seconds.tobytes() == expected.seconds.tobytes()
    assert ring.gaps.gaps == expected.gaps.gaps
    assert len(ring.gaps.gaps) == 2
    assert ring.trade_ids.seen.intervals == expected.trade_ids.seen.intervals
    assert (ring.trade_ids.refused_count, ring.quote_ids.refused_count, ring.gaps.restarts) == (1, 1, [])
    assert {each.row[2] for each in ring.refused} == {2**60, 2**62}
    assert ring.quote_ids.late_count == 0


@pytest.mark.parametrize("distance", [1, 1200])  # its own ids again, or others
def test_restarted_ids_are_reported_and_their_holes_are_found(distance: int) -> None:
    trades, quotes = random_ticks(12, 60)
    again = trades["time_us"] >= START_US + 30 * SECOND_US
    first = int(np.flatnonzero(again)[0])
    restarted, requoted = trades.copy(), quotes.copy()
    for name in ("first_id", "last_id"):
        restarted[name][again] -= int(trades["first_id"][first]) - distance
    fresh = quotes["time_us"] >= START_US + 30 * SECOND_US
    requoted["update_id"][fresh] -= int(quotes["update_id"][np.flatnonzero(fresh)[0]]) - 3
    rows = np.delete(restarted, [first + 100, first + 101])
    twice = [piece for one in by_second(rows, requoted, 60) for piece in (one, one._replace(connection="b"))]
    ring = folded(twice)
    assert [(r.kind, r.first_id) for r in ring.gaps.restarts] == [("trades", distance), ("quotes", 3)]
    assert [(g.first_id, g.last_id) for g in ring.gaps.gaps] == [(distance + 100, distance + 101)]
    assert ring.gaps.gaps[0].from_us == int(restarted["time_us"][first + 99])
    assert ring.trade_ids.seen.newest == int(restarted["last_id"][-1])
    assert (ring.refused, ring.trade_ids.late_count) == ([], 0)
    assert int(ring.bars[-1]["update_id"]) == int(
        requoted["update_id"][requoted["time_us"] < ring.closed_us][-1]
    )


def test_an_accepted_jump_is_undone_when_the_series_continues() -> None:
    trades, quotes = random_ticks(13, 20)
    trades["first_id"][100] = trades["last_id"][100] = int(trades["first_id"][99]) + 5_000
    ring = folded(by_second(np.delete(trades, [400]), quotes, 20))
    missing = [int(trades["first_id"][99]) + 1, int(trades["first_id"][400])]
    assert [(g.first_id, g.last_id) for g in ring.gaps.gaps] == [(i, i) for i in missing]
    assert ring.gaps.gaps[1].from_us == int(trades["time_us"][399])
    assert ring.gaps.restarts == []


def test_an_outlier_as_first_id_starts_no_series() -> None:
    trades, quotes = random_ticks(15, 10)
    wild = trades.copy()
    wild["first_id"][0] = wild["last_id"][0] = 2**61
    ring = folded([batch(wild[:1], quotes[:0]), *by_second(wild[1:], quotes, 10)])
    assert (ring.gaps.restarts, ring.gaps.gaps) == ([], [])
    assert ring.trade_ids.seen.intervals == [(int(trades["first_id"][1]), int(trades["last_id"][-1]))]


def test_without_a_claim_the_state_stays_bounded() -> None:
    """Bars are closed by the number of ticks; what comes for them later is late, and counted."""
    trades, quotes = random_ticks(1, 120, trades_s=100, quotes_s=200)
    ring, most = BarRing(LATENESS_US), 0
    pieces = list(batches(trades, quotes, [START_US + k * 1_000_000 for k in range(1, 120)]))
    for piece in pieces:
        list(ring.fold(piece._replace(watermark_us=NO_WATERMARK), SECOND_US))
        most = max(most, len(ring.open_trades) + len(ring.open_quotes))
    assert MAX_HELD_TICKS * 0.9 < most <= MAX_HELD_TICKS
    assert ring.closed_us > START_US + 60_000_000
    closed = trades["time_us"] < ring.closed_us
    assert ring.bars[-1]["last_trade_id"] == trades["last_id"][closed][-1]
    assert (ring.trade_ids.late_count, ring.gaps.trades) == (0, 0)
    list(ring.fold(batch(trades[:0], quotes, START_US + 120_000_000), SECOND_US))
    assert ring.closed_us == START_US + 119_000_000


def test_a_tick_far_ahead_does_not_close_bars_that_are_still_filling() -> None:
    trades, quotes = random_ticks(1, 60, trades_s=100, quotes_s=200)
    trades["time_us"][5] += 3600 * 1_000_000
    ring = BarRing(LATENESS_US)
    for piece in batches(trades, quotes, [START_US + k * 1_000_000 for k in range(1, 60)]):
        list(ring.fold(piece._replace(watermark_us=NO_WATERMARK), SECOND_US))
    assert ring.closed_us < START_US + 60_000_000
    assert ring.trade_ids.late_count + ring.quote_ids.late_count == 0


def test_open_ticks_of_one_instant_are_bounded_too() -> None:
    trades, quotes = random_ticks(1, 1, trades_s=MAX_HELD_TICKS * 2)
    trades["time_us"] = START_US
    ring = BarRing(LATENESS_US)
    for at in range(0, len(trades), 3000):
        list(ring.fold(batch(trades[at : at + 3000], quotes[:0], NO_WATERMARK), SECOND_US))
        assert len(ring.open_trades) <= MAX_HELD_TICKS
    assert ring.trade_ids.late_count > 0

"""The ledger: missing trades, their causes, and their repair."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.market import batch, random_ticks
from tickcast.features.ring import BarRing
from tickcast.market.gaps import (
    MAX_GAPS,
    NOT_SERVED,
    UNKNOWN,
    WITHHELD,
    Gap,
    GapLedger,
    QuoteGap,
    Restart,
    touched_ms,
)
from tickcast.market.wire import Notice, TickBatch
from tickcast.serving.records import encode
from tickcast.serving.state import SymbolState, decode_state, encode_state

S = 1_000_000


def ring_of(*batches: TickBatch) -> BarRing:
    ring = BarRing(100_000)
    for piece in batches:
        list(ring.fold(piece, S))
    return ring


def test_a_jump_in_ids_is_a_gap_with_its_times() -> None:
    trades, quotes = random_ticks(1, 5)
    ring = ring_of(batch(np.delete(trades, [20, 21, 22]), quotes))
    (gap,) = ring.gaps.gaps
    assert (gap.first_id, gap.last_id) == (int(trades["first_id"][20]), int(trades["first_id"][22]))
    assert (gap.from_us, gap.to_us) == (int(trades["time_us"][19]), int(trades["time_us"][23]))
    assert gap.cause == UNKNOWN
    assert ring.gaps.trades == 3


def test_late_trades_of_any_connection_leave_the_ledger() -> None:
    trades, quotes = random_ticks(1, 5)
    ring = ring_of(batch(np.delete(trades, [20, 21, 22, 23]), quotes))
    list(ring.fold(batch(trades[21:22], quotes[:0], 0, connection="b"), S))
    assert [(g.first_id, g.last_id) for g in ring.gaps.gaps] == [(1020, 1020), (1022, 1023)]
    list(ring.fold(batch(trades[19:24], quotes[:0], 0, connection="b"), S))
    assert ring.gaps.gaps == []


def test_the_notice_explains_the_gap_whichever_comes_first() -> None:
    trades, quotes = random_ticks(1, 5)
    lost = Notice("reset by peer", int(trades["time_us"][19]), int(trades["time_us"][23]))
    elsewhere = Notice("elsewhere", 0, 1)
    with_gap = batch(np.delete(trades, [20, 21, 22]), quotes)
    before = ring_of(with_gap._replace(notices=(elsewhere, lost)))
    after = ring_of(with_gap, batch(trades[:0], quotes[:0], 0)._replace(notices=(lost, elsewhere)))
    assert before.gaps.gaps[0].cause == after.gaps.gaps[0].cause == "reset by peer"


def test_a_pause_in_which_the_symbol_was_not_served_is_listed_and_not_counted() -> None:
    """The notice is of the first tick; another one, of the connection, covers more of the pause."""
    trades, quotes = random_ticks(1, 30)
    start = int(trades["time_us"][0])
    first = trades[trades["time_us"] < start + 5 * S]
    last = trades[trades["time_us"] >= start + 15 * S]
    after = quotes[quotes["time_us"] >= start + 15 * S]
    again_us = int(min(last["time_us"][0], after["time_us"][0]))
    closed = Notice("closed by the exchange", start + 4 * S, start + 8 * S)
    added = Notice(NOT_SERVED, again_us, again_us)
    before = batch(first, quotes[quotes["time_us"] < start + 5 * S])
    ring = ring_of(before, batch(np.delete(last, [5]), after)._replace(notices=(closed, added)))
    assert [gap.cause == NOT_SERVED for gap in ring.gaps.gaps] == [True, False]
    assert (ring.gaps.trades, ring.gaps.record().missing_trades) == (1, 1)


def test_a_short_hole_when_a_symbol_is_added_is_counted() -> None:
    ledger = GapLedger()
    ledger.noticed((Notice(NOT_SERVED, 11 * S, 11 * S),))
    ledger.missing(1, 5, 10 * S, 12 * S)
    ledger.missing(8, 9, 20 * S, 40 * S)
    assert ledger.trades == 7


def test_a_long_silence_of_quotes_is_kept_and_a_short_one_is_not() -> None:
    trades, quotes = random_ticks(1, 30)
    start = int(quotes["time_us"][0])
    is_silent = (quotes["time_us"] > start + 10 * S) & (quotes["time_us"] < start + 17 * S)
    spoken = quotes[~is_silent]
    edges = np.flatnonzero(np.diff(spoken["time_us"]) > 5 * S)[0]
    pieces = [batch(trades[:0], spoken[: edges + 1]), batch(trades[:0], spoken[edges + 1 :])]
    ring = ring_of(*pieces)
    assert ring.gaps.quote_gaps == [
        QuoteGap(int(spoken["time_us"][edges]), int(spoken["time_us"][edges + 1]))
    ]


@given(st.sets(st.integers(1, 60)), st.permutations(range(1, 61)))
def test_the_ledger_is_the_holes_for_any_order(lost: set[int], order: list[int]) -> None:
    """Trades in any order, some never: the ledger and the interval set agree on what is missing."""
    trades, quotes = random_ticks(1, 10)
    kept = [0, *(i for i in order if i not in lost)]  # nothing is missed from before the first
    ring = BarRing(100_000)
    for i in kept:
        list(ring.fold(batch(trades[i : i + 1], quotes[:0], 0), S))
    missing = {i for gap in ring.gaps.gaps for i in range(gap.first_id, gap.last_id + 1)}
    first_id = int(trades["first_id"][0])
    assert missing == {first_id + i for i in range(max(kept)) if i not in kept}


def test_it_is_bounded_and_counts_forgotten_trades() -> None:
    ledger = GapLedger()
    for n in range(MAX_GAPS + 10):
        ledger.missing(10 * n, 10 * n + 1, n, n + 1)
    assert len(ledger.gaps) == MAX_GAPS
    assert (ledger.forgotten, ledger.trades) == (20, 2 * (MAX_GAPS + 10))


def test_the_ledger_is_part_of_the_state() -> None:
    ring = BarRing(100_000)
    ring.gaps = GapLedger([Gap(1, 2, 3, 4, "why")], [QuoteGap(5, 6)], [Notice("n", 7, 8)], 9)
    ring.gaps.restarted(Restart("quotes", 9, 1, 2, 3))
    stored = encode_state(SymbolState("BTCUSDT", ring))
    assert decode_state("BTCUSDT", 0, stored, 100_000).ring.gaps == ring.gaps


def test_the_record_has_the_public_fields() -> None:
    restarts = [Restart("trades", 500, 1, 9, 10)]
    ledger = GapLedger(
        [Gap(11, 14, 3, 4, "why")], [QuoteGap(5, 6, "stalled")], [Notice("n", 7, 8)], 9, restarts
    )
    assert json.loads(encode(ledger.record())) == {
        "missing_trades": 13,
        "forgotten_trades": 9,
        "gaps": [{"first_id": 11, "last_id": 14, "trades": 4, "from_us": 3, "to_us": 4, "cause": "why"}],
        "quote_gaps": [{"from_us": 5, "to_us": 6, "cause": "stalled"}],
        "restarts": [{"kind": "trades", "last_id": 500, "first_id": 1, "from_us": 9, "to_us": 10}],
    }


def test_predictions_are_affected_for_a_minute_after_the_gap() -> None:
    assert touched_ms(Gap(1, 2, 5_000_999, 6_000_001)) == (5_000, 67_001)


def test_repaired_gaps_leave_the_ledger_and_withheld_ones_are_labelled() -> None:
    ledger = GapLedger()
    ledger.missing(5, 9, 10, 20)
    ledger.missing(30, 31, 40, 50)
    for _ in range(2):
        ledger.settle(repaired=[(5, 7)], withheld=[(30, 31), (8, 8)])
    assert [(gap.first_id, gap.last_id, gap.cause) for gap in ledger.gaps] == [
        (8, 9, UNKNOWN),  # of which one is withheld: not all of it
        (30, 31, WITHHELD),
    ]


def test_repairs_before_a_restart_of_ids_do_not_hide_later_gaps() -> None:
    ledger = GapLedger()
    ledger.missing(150, 158, 500 * S, 501 * S)
    ledger.settle(repaired=[(100, 199, 10 * S, 11 * S)], withheld=[(100, 199, 490 * S, 499 * S - 1)])
    assert ledger.gaps == [Gap(150, 158, 500 * S, 501 * S)]
    ledger.settle(repaired=[], withheld=[(100, 199, 490 * S, 499 * S)])  # as near as clocks agree
    assert ledger.gaps == [Gap(150, 158, 500 * S, 501 * S, WITHHELD)]
    ledger.settle(repaired=[(100, 155, 502 * S + 1, 510 * S)], withheld=[])
    assert ledger.trades == 9
    ledger.settle(repaired=[(100, 155, 502 * S, 510 * S)], withheld=[])
    assert ledger.trades == 3


def test_malformed_ranges_are_refused() -> None:
    ledger = GapLedger()
    ledger.missing(5, 9, 10, 20)
    for ranges in ([[1]], [[1, 9, 10]], [[1, 9, 10, 20, 30]], [["a", "b"]], [7], [[1, None]]):
        with pytest.raises((ValueError, TypeError)):
            ledger.settle(ranges, [])  # type: ignore[arg-type]
    assert ledger.trades == 5

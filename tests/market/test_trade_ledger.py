"""Every trade id is in the ledger once, in whatever order and pieces the trades came."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickcast.market.sources import Origin
from tickcast.market.ticks import TradeRow, trades_array
from tickcast.market.trade_ledger import (
    LEDGER_ROW,
    LedgerRows,
    TradesContradict,
    as_trades,
    changes,
    known_ranges,
    ledger_rows,
    merged,
    settled,
)

NONE = np.empty(0, LEDGER_ROW)
PRICE = 100 * 10**8


def row(first: int, last: int | None = None, qty: int | None = None) -> TradeRow:
    """A trade or aggregate; every single trade n has the quantity n, every aggregate the sum of its own."""
    last = first if last is None else last
    qty = sum(range(first, last + 1)) if qty is None else qty
    return (1_000_000 * first, 1_000_000 * first, first, last, PRICE, qty, 1)


def from_stream(*rows: TradeRow) -> LedgerRows:
    return ledger_rows(trades_array(rows), Origin.STREAM)


def from_rest(*rows: TradeRow) -> LedgerRows:
    return ledger_rows(trades_array(rows), Origin.REST)


def summary(rows: LedgerRows) -> list[tuple[int, int, int, int, str]]:
    names = ("first_id", "last_id", "qty", "trades", "origin")
    return [(a, b, c, d, Origin(e).label) for a, b, c, d, e in rows[list(names)].tolist()]


def test_single_trades_are_kept_and_an_aggregate_fills_what_is_missing() -> None:
    known = from_stream(row(1), row(2), row(7))
    found = merged(known, from_rest(row(1), row(2, 5), row(6, 7)))
    assert summary(found) == [
        (1, 1, 1, 1, "stream"),
        (2, 2, 2, 1, "stream"),
        (3, 5, 12, 3, "rest"),  # of 2..5 what is left
        (6, 6, 6, 1, "rest"),  # of 6..7
        (7, 7, 7, 1, "stream"),
    ]


def test_a_single_trade_inside_an_aggregate_leaves_the_ids_on_both_sides() -> None:
    found = merged(from_rest(row(1, 5)), from_stream(row(3)))
    assert summary(found) == [(1, 5, 12, 4, "rest"), (3, 3, 3, 1, "stream")]
    assert (
        merged(found, from_rest(row(1, 5))).tobytes() == found.tobytes()
    )  # repeated: nothing is subtracted twice


def test_an_aggregate_whose_trades_are_all_known_is_removed() -> None:
    assert summary(merged(from_rest(row(1, 2)), from_stream(row(1), row(2)))) == [
        (1, 1, 1, 1, "stream"),
        (2, 2, 2, 1, "stream"),
    ]


def test_the_stream_wins_over_rest_in_any_order() -> None:
    stream, rest = from_stream(row(1)), from_rest(row(1, qty=9))
    assert summary(merged(stream, rest)) == summary(merged(rest, stream)) == [(1, 1, 1, 1, "stream")]


def test_aggregates_that_overlap_contradict_each_other() -> None:
    with pytest.raises(TradesContradict, match=r"1\.\.3, 3\.\.5 overlap"):
        merged(from_rest(row(1, 3)), from_rest(row(3, 5)))


def test_changes_are_the_rows_that_differ() -> None:
    known = merged(NONE, from_rest(row(1, 2), row(3)))
    wanted = merged(known, from_stream(row(2), row(4)))
    remove, add = changes(known, wanted)
    assert summary(remove) == [(1, 2, 3, 2, "rest")]
    assert summary(add) == [(1, 1, 1, 1, "rest"), (2, 2, 2, 1, "stream"), (4, 4, 4, 1, "stream")]
    assert [len(part) for part in changes(wanted, wanted)] == [0, 0]
    assert summary(changes(NONE, wanted)[1]) == summary(wanted)


def test_known_ranges_join_neighbours_within_the_limits() -> None:
    rows = merged(from_rest(row(1, 3), row(8, 9)), from_stream(row(4), row(6)))
    assert known_ranges(rows, 2, 8) == [(2, 4), (6, 6), (8, 8)]
    assert known_ranges(rows, 5, 5) == []


# Ids 1..40 cut into aggregates as the exchange cuts them; any of them, and any single trades, in any pieces.
_CUTS = [(1, 3), (4, 4), (5, 9), (10, 11), (12, 20), (21, 21), (22, 30), (31, 40)]
_PIECES = st.lists(
    st.one_of(
        st.lists(st.integers(1, 40), max_size=12).map(lambda ids: from_stream(*map(row, ids))),
        st.lists(st.sampled_from(_CUTS), max_size=5).map(lambda cuts: from_rest(*(row(*c) for c in cuts))),
    ),
    max_size=6,
)


@given(_PIECES, st.randoms(use_true_random=False))
def test_the_ledger_is_the_same_for_any_order_and_pieces(pieces: list[LedgerRows], random: object) -> None:
    def fold(parts: list[LedgerRows]) -> LedgerRows:
        found = NONE
        for part in parts:
            found = merged(found, part)
        return found

    found = fold(pieces)
    shuffled = pieces + pieces[:2]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fold(shuffled).tobytes() == found.tobytes()
    assert merged(found, NONE).tobytes() == found.tobytes()

    # Compared with the input: the ids that came, and the quantity n of each id n, once.
    ids = {n for part in pieces for a, b in part[["first_id", "last_id"]].tolist() for n in range(a, b + 1)}
    assert found["trades"].sum() == len(ids)
    assert found["qty"].sum() == sum(ids)
    assert len(np.unique(found["first_id"])) == len(found)
    assert {n for a, b in known_ranges(found, 1, 40) for n in range(a, b + 1)} == ids
    assert (as_trades(found)["qty"] == found["qty"]).all()


def test_one_odd_aggregate_costs_no_more_than_itself() -> None:
    """It overlaps all others; of two that overlap each other the one that ends first is kept."""
    good = [row(n, n + 1) for n in range(1, 41, 2)]
    found = settled(np.concatenate([from_rest(*good), from_rest(row(5, 33))]))
    assert summary(found.rows) == summary(from_rest(*good))
    assert summary(found.refused) == [(5, 33, sum(range(5, 34)), 29, "rest")]
    pair = settled(from_rest(row(1, 4), row(3, 6), row(8)))
    assert [each[:2] for each in summary(pair.rows)] == [(1, 4), (8, 8)]
    assert [each[:2] for each in summary(pair.refused)] == [(3, 6)]


def test_an_aggregate_whose_quantity_its_single_trades_have_already_is_refused() -> None:
    found = settled(np.concatenate([from_rest(row(1, 5, qty=9)), from_stream(row(4), row(5))]))
    assert summary(found.rows) == [(4, 4, 4, 1, "stream"), (5, 5, 5, 1, "stream")]
    assert summary(found.refused) == [(1, 3, 0, 3, "rest")]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6)), max_size=12), st.randoms())
def test_what_is_kept_depends_on_the_set_of_rows_alone(
    spans: list[tuple[int, int]], random: np.random.Generator
) -> None:
    rows = [row(first, first + more) for first, more in spans]
    found = settled(from_rest(*rows))
    again = list(rows)
    random.shuffle(again)
    np.testing.assert_array_equal(settled(from_rest(*again)).rows, found.rows)
    ids = {n for first, last, *_ in summary(found.rows) for n in range(first, last + 1)}
    assert found.rows["trades"].sum() == len(ids)  # each once
    if not len(found.refused):
        np.testing.assert_array_equal(found.rows, merged(NONE, from_rest(*rows)))

"""The ledger of trades: every trade id once, from whichever source and however often it came.

The stream brings single trades, REST history brings aggregates: several trades of one order at one price, as
one row with a range of ids. Where both are known the single trades are kept, and the remainder of the
aggregate: the ids that are not known singly, with the rest of its quantity. The row also keeps the original
aggregate. So the ledger is a function of the set of all trades that came, in whatever order and pieces:
`merged(merged(a, b), c)` equals `merged(a, merged(c, b))`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.market.sources import Origin
from tickcast.market.sums import running, single, split
from tickcast.market.ticks import TRADE, Trades, raw

# A row represents `trades` of the ids from `first_id` to `last_id`. `aggregate_*` is the row as it arrived: a
# single trade, or an aggregate.
LEDGER_ROW = np.dtype(
    [
        ("time_us", "<i8"),
        ("first_id", "<i8"),
        ("last_id", "<i8"),
        ("price", "<i8"),
        ("qty", "<i8"),
        ("side", "<i2"),
        ("origin", "<i2"),  # an Origin
        ("trades", "<i4"),
        ("aggregate_first_id", "<i8"),
        ("aggregate_last_id", "<i8"),
        ("aggregate_qty", "<i8"),
    ]
)

LedgerRows = npt.NDArray[Any]  # of LEDGER_ROW, shape (rows,)
Ints = npt.NDArray[np.int64]


class TradesContradict(ValueError):
    """Aggregates that share some of their trades but not all, so that they cannot both be right; or an
    aggregate of impossibly many trades."""


def ledger_rows(trades: Trades, origin: Origin) -> LedgerRows:
    """`trades` from one origin, not merged yet. Shape (trades,). Raises `TradesContradict`."""
    more = trades["last_id"] - trades["first_id"]  # below 0 where 64 bits cannot hold it either
    if (is_wrong := (more < 0) | (more >= 2**31 - 1)).any():
        first_id, last_id = trades[["first_id", "last_id"]][is_wrong][0].tolist()
        raise TradesContradict(f"trades {first_id}..{last_id} came as one aggregate, which is impossible")
    rows = np.zeros(len(trades), LEDGER_ROW)
    for name in ("time_us", "first_id", "last_id", "price", "qty", "side"):
        rows[name] = trades[name]
    rows["origin"] = origin
    rows["trades"] = more + 1
    rows["aggregate_first_id"], rows["aggregate_last_id"] = trades["first_id"], trades["last_id"]
    rows["aggregate_qty"] = trades["qty"]
    return rows


def as_trades(rows: LedgerRows) -> Trades:
    """`rows` as ticks, for bars. Shape (rows,)."""
    trades = np.zeros(len(rows), TRADE)
    for name in ("time_us", "first_id", "last_id", "price", "qty", "side"):
        trades[name] = rows[name]
    trades["receive_time_us"] = rows["time_us"]
    return trades


def merged(known: LedgerRows, incoming: LedgerRows) -> LedgerRows:
    """All of `known` and `incoming`, every trade id once, by id. Raises `TradesContradict`."""
    rows = np.concatenate([known, incoming])
    is_single = rows["aggregate_first_id"] == rows["aggregate_last_id"]
    singles = _first_of_each(rows[is_single])
    aggregates = _first_of_each(rows[~is_single])
    first, last = aggregates["aggregate_first_id"], aggregates["aggregate_last_id"]
    overlap = np.flatnonzero(first[1:] <= last[:-1])
    if len(overlap):
        pair = ", ".join(f"{first[n]}..{last[n]}" for n in (overlap[0], overlap[0] + 1))
        raise TradesContradict(f"aggregates {pair} overlap, which is impossible")
    rows = np.concatenate([singles, _left_of(aggregates, singles)])
    return np.asarray(rows[np.argsort(rows["first_id"], kind="stable")])


class Settled(NamedTuple):
    """Every trade id once, by id, and the rows that contradict others."""

    rows: LedgerRows
    refused: LedgerRows


def settled(rows: LedgerRows) -> Settled:
    """All of `rows`, each trade id once, without those that contradict the others.

    Of aggregates that overlap as many as possible are kept, so that one odd row costs no more than itself:
    those that end first. An aggregate whose single trades have all of its quantity, or more, though some of
    its ids are not among them, is refused as well. What is kept depends on the set of rows alone.
    """
    whole = _first_of_each(rows)
    is_refused = _overlaps(whole)
    kept = merged(rows[:0], whole[~is_refused])
    is_spent = kept["qty"] <= 0
    refused = np.concatenate([whole[is_refused], kept[is_spent]])
    return Settled(kept[~is_spent], refused)


def changes(known: LedgerRows, wanted: LedgerRows) -> tuple[LedgerRows, LedgerRows]:
    """The rows to remove and the rows to add that turn `known` into `wanted`."""
    if not len(known):
        return known, wanted
    both = raw(np.ascontiguousarray(np.concatenate([known, wanted])))
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    changed = counts[inverse] == 1
    return known[changed[: len(known)]], wanted[changed[len(known) :]]


def known_ranges(rows: LedgerRows, first_id: int, last_id: int) -> list[tuple[int, int]]:
    """The runs of ids between `first_id` and `last_id`, ends included, that are in `rows`, in order."""
    first = np.maximum(rows["aggregate_first_id"], first_id)
    last = np.minimum(rows["aggregate_last_id"], last_id)
    order = np.argsort(first, kind="stable")
    runs: list[tuple[int, int]] = []
    for begin, end in zip(first[order].tolist(), last[order].tolist(), strict=True):
        if end < begin:
            continue
        if runs and begin <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], max(runs[-1][1], end))
        else:
            runs.append((begin, end))
    return runs


def _overlaps(rows: LedgerRows) -> npt.NDArray[np.bool_]:
    """Which aggregates of `rows` (sorted by their ids, each range once) to leave out for the others not to
    overlap. Shape (rows,)."""
    first, last = rows["aggregate_first_id"], rows["aggregate_last_id"]
    at = np.flatnonzero(first < last)
    is_refused = np.zeros(len(rows), bool)
    if not len(at):
        return is_refused
    # Groups that overlap within, if at all: a group begins behind the last id of all before.
    starts = np.append(True, first[at][1:] > np.maximum.accumulate(last[at])[:-1])
    group = np.cumsum(starts) - 1
    for n in np.flatnonzero(np.bincount(group) > 1).tolist():
        end = -1
        members = at[group == n]
        for place in members[np.lexsort([-first[members], last[members]])].tolist():
            is_refused[place] = first[place] <= end
            end = end if is_refused[place] else int(last[place])
    return is_refused


def _first_of_each(rows: LedgerRows) -> LedgerRows:
    """One row for each range of ids that arrived, sorted by it.

    Of several the best origin's; of one origin's the smallest, so that the order of arrival does not matter.
    An aggregate that was cut is whole again.
    """
    rows = rows.copy()
    rows["first_id"], rows["last_id"] = rows["aggregate_first_id"], rows["aggregate_last_id"]
    rows["qty"], rows["trades"] = rows["aggregate_qty"], rows["last_id"] - rows["first_id"] + 1
    keys = ("side", "qty", "price", "time_us", "origin", "last_id", "first_id")
    rows = rows[np.lexsort([rows[key] for key in keys])]
    is_new = np.ones(len(rows), bool)
    is_new[1:] = (rows["first_id"][1:] != rows["first_id"][:-1]) | (
        rows["last_id"][1:] != rows["last_id"][:-1]
    )
    return np.asarray(rows[is_new])


def _left_of(aggregates: LedgerRows, singles: LedgerRows) -> LedgerRows:
    """The remainders of `aggregates` without `singles`; empty ones are left out."""
    ids, first, last = singles["first_id"], aggregates["first_id"], aggregates["last_id"]
    begin, end = np.searchsorted(ids, first), np.searchsorted(ids, last, side="right")
    sums = running(split(singles["qty"]))
    left = aggregates.copy()
    left["trades"] -= end - begin
    left["qty"] = single(split(left["qty"]) - (sums[:, end] - sums[:, begin]))
    # The outermost ids that are not known singly: beyond the runs of known ones at either end.
    is_break = ids[1:] != ids[:-1] + 1
    run_last = ids[_next_true(np.append(is_break, True))] if len(ids) else ids
    run_first = ids[_last_true(np.append(True, is_break))] if len(ids) else ids
    cut = np.flatnonzero(end > begin)
    at_first = cut[ids[begin[cut]] == first[cut]]
    left["first_id"][at_first] = run_last[begin[at_first]] + 1
    at_last = cut[ids[end[cut] - 1] == last[cut]]
    left["last_id"][at_last] = run_first[end[at_last] - 1] - 1
    return np.asarray(left[left["trades"] > 0])


def _last_true(flags: npt.NDArray[np.bool_]) -> Ints:
    """For every position, the nearest one at or before it that is True (the first is)."""
    return np.maximum.accumulate(np.where(flags, np.arange(len(flags)), 0))


def _next_true(flags: npt.NDArray[np.bool_]) -> Ints:
    """For every position, the nearest one at or after it that is True (the last is)."""
    return np.asarray(len(flags) - 1 - _last_true(flags[::-1])[::-1])

"""Aggregate trades as REST returns them, and which rows of a series are impossible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tickcast.market.row_order import out_of_order, times_far_off


class AggTrade(NamedTuple):
    """Trades `first_id` to `last_id` of one taker order at one price. Mantissas at 1e-8.

    A placeholder, of which the exchange keeps nothing but the id, has `first_id` -1. `why` is empty, or the
    reason why the row is impossible; impossible ids are -1 then, and `raw` is what the exchange sent.
    """

    id: int
    first_id: int
    last_id: int
    time_us: int
    price: int
    qty: int
    side: int  # the aggressor's: +1 buyer, -1 seller
    why: str = ""
    raw: str = ""

    @property
    def is_placeholder(self) -> bool:
        return self.first_id < 0 and not self.why


def refused_rows(rows: Sequence[AggTrade]) -> dict[int, str]:
    """The positions of the rows to leave out, and why. Placeholders are not among them."""
    refused = {at: row.why for at, row in enumerate(rows) if row.why}
    series: tuple[tuple[Callable[[Sequence[int]], set[int]], Callable[[AggTrade], int], str], ...] = (
        (out_of_order, lambda row: row.first_id, "its trade ids are out of order"),
        (out_of_order, lambda row: row.last_id, "its trade ids are out of order"),
        (times_far_off, lambda row: row.time_us, "its time is out of order"),
    )
    for wrong_in, value_of, why in series:
        left = [at for at, row in enumerate(rows) if not row.is_placeholder and at not in refused]
        refused |= {left[n]: why for n in wrong_in([value_of(rows[at]) for at in left])}
    return refused


def usable_rows(rows: Sequence[AggTrade]) -> list[tuple[int, AggTrade]]:
    """The rows whose times can be trusted, with their positions."""
    refused = refused_rows(rows)
    return [(at, row) for at, row in enumerate(rows) if not row.is_placeholder and at not in refused]


def rows_in_order(rows: Sequence[AggTrade]) -> list[tuple[int, AggTrade]]:
    """The usable rows, with their positions, without those whose times fall back."""
    usable = usable_rows(rows)
    out = out_of_order([row.time_us for _, row in usable])
    return [each for n, each in enumerate(usable) if n not in out]

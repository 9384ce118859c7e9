"""Which rows a model is fitted on where there are more than it needs: of each market and kind (with quotes,
without) an equal share, drawn at random from the whole span.

A fixed step through rows of several markets in the order of time can meet the same market each time; a step
of the clock can miss the grid that rows lie on. A seeded permutation does neither, and is the same for the
same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tickcast.model.dataset import NO_ROWS, Rows, pool

Markets = Mapping[str, Rows]  # by symbol


class RowsByKind(NamedTuple):
    """Numbers of rows."""

    with_quotes: int
    without_quotes: int


def by_symbol(segments: Iterable[tuple[str, Rows]]) -> Markets:
    """The rows of each symbol together, in the order of time, of segments with their symbols."""
    parts: dict[str, list[Rows]] = {}
    for symbol, rows in segments:
        parts.setdefault(symbol, []).append(rows)
    return {symbol: pool(each) for symbol, each in parts.items()}


class Sample(NamedTuple):
    """Rows of all markets in the order of time, and how many of each."""

    rows: Rows
    by_market: dict[str, RowsByKind]


def sample(markets: Markets, most: int, seed: int) -> Sample:
    """At most `most` rows with quotes and as many without of `markets`, in equal shares: what a market lacks
    of its share goes to the others."""
    counts = {symbol: int(rows.has_quotes.sum()) for symbol, rows in markets.items()}
    others = [len(rows.end_us) - counts[symbol] for symbol, rows in markets.items()]
    limits = zip(equal_shares(list(counts.values()), most), equal_shares(others, most), strict=True)
    by_market = {symbol: RowsByKind(*limit) for symbol, limit in zip(markets, limits, strict=True)}
    parts = [
        drawn_by_kind(rows, *by_market[symbol], seed + crc32(symbol.encode()))
        for symbol, rows in markets.items()
    ]
    return Sample(pool([NO_ROWS, *parts]), by_market)


def equal_shares(counts: Sequence[int], most: int) -> list[int]:
    """How many of each of `counts` to take so that there are at most `most` in all: equal shares, where what
    one lacks goes to the others."""
    shares = [0] * len(counts)
    left = most
    by_size = sorted(range(len(counts)), key=counts.__getitem__)
    for place, at in enumerate(by_size):
        shares[at] = min(counts[at], left // (len(counts) - place))
        left -= shares[at]
    return shares


def drawn_by_kind(rows: Rows, most_quoted: int, most_unquoted: int, seed: int) -> Rows:
    """At most so many of `rows` with quotes and without, drawn at random, in the order of time."""
    places = []
    for has_quotes, most in ((True, most_quoted), (False, most_unquoted)):
        of_kind = np.flatnonzero(rows.has_quotes == has_quotes)
        places.append(of_kind[drawn(len(of_kind), most, [seed, has_quotes])])
    at = np.sort(np.concatenate(places))
    return rows if len(at) == len(rows.end_us) else rows.chosen(at)


def drawn(count: int, most: int, seed: Sequence[int] | int) -> npt.NDArray[np.int64]:
    """The places of `most` of `count` rows, or of all, drawn at random, in their order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])

"""The training row: features as of a bar's end and the moves that followed. One definition for recordings,
bronze and PostgreSQL.

A row starts from the price that a prediction would start from: the mid, or without quotes the proxy mid. Its
label over each horizon is the move to the price that an outcome is resolved by, the mid at the horizon's end.
A row with quotes that has no mid there is left out, as such a prediction has no outcome. A row without quotes
then ends at the proxy mid, for history of trades alone has nothing else. docs/adr/0029 has the evidence.

For PostgreSQL rows are computed by the hour, always from the same ticks: from `BEFORE_US` before the hour,
the look-back of its first row, to `AFTER_US` after it, the reach of its last label and of the silence that
would end its segment. So an hour's rows do not depend on what else is computed, and consecutive hours give
the rows of one computation. Only a price last seen more than `BEFORE_US` earlier is missing, unlike in
serving.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.features.bars import (
    BAR,
    BARS_PER_S,
    SILENCE_US,
    Bars,
    is_quoted,
    mids,
    proxy_mids,
    segments,
    whole_seconds,
)
from tickcast.features.ring import KEPT_SECONDS
from tickcast.features.vector import (
    FEATURE_HASH,
    FEATURE_NAMES,
    QUOTE_FEATURES,
    REFERENCE_FEATURES,
    Floats,
    history_rows,
)
from tickcast.market.ticks import Quotes, Trades
from tickcast.model.forecast import PATH_S
from tickcast.model.network import HAS_QUOTES, places
from tickcast.units import HOUR_US, SECOND_US

LABEL_VERSION = 3  # raised with every change of the meaning of `moves_bp`
# By which stored rows are selected: rows of other features or other labels are never mixed with these.
ROW_HASH = f"{FEATURE_HASH}-{LABEL_VERSION}"

# A minute of look-back, at whose start ages are known that features count up to a minute.
BEFORE_US = KEPT_SECONDS * SECOND_US + SILENCE_US + 10 * SECOND_US
AFTER_US = round(max(PATH_S) * SECOND_US) + SILENCE_US

PATH_BARS = np.rint(np.array(PATH_S) * BARS_PER_S).astype(np.int64)  # (J,)
_LONGEST_BARS = int(PATH_BARS[-1])
_OF_QUOTES = (
    *("quote_count", "ofi", "imbalance_us", "quoted_us", "update_id"),
    *("bid_price", "bid_qty", "ask_price", "ask_qty", "last_quote_us", "mid_change_us"),
)
# Columns of a second besides those of `bars.SECOND`: the state at its end.
_AT_END = ("last_trade_id", "last_trade_price", "update_id", "bid_price", "bid_qty", "ask_price", "ask_qty")
_SUMS = ("trade_count", "buy_qty", "sell_qty", "notional", "quote_count")

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Rows(NamedTuple):
    """Rows of one market: when each was known (N,), its features (N, F), the move up to each
    instant of `PATH_S` in bp (N, J)."""

    end_us: Ints
    features: Floats
    moves_bp: Floats

    def chosen(self, which: npt.NDArray[Any] | slice) -> Rows:
        return Rows(self.end_us[which], self.features[which], self.moves_bp[which])

    @property
    def has_quotes(self) -> Flags:
        return np.asarray(self.features[:, HAS_QUOTES] > 0)


NO_ROWS = Rows(np.empty(0, np.int64), np.empty((0, len(FEATURE_NAMES))), np.empty((0, len(PATH_S))))


def pool(parts: list[Rows]) -> Rows:
    """All rows of `parts` in the order of time; those of one instant in the order of `parts`."""
    rows = Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return rows.chosen(np.argsort(rows.end_us, kind="stable"))


def training_rows(bars: Bars) -> Rows:
    """All rows of a segment that a model can be trained on: as they are, and again without their quotes."""
    return pool([rows_from_bars(bars), rows_without_quotes(bars)])


def rows_from_bars(bars: Bars) -> Rows:
    """Every row of `bars` whose features and moves are known; the longest horizon's tail is left off."""
    at = _with_all_horizons(bars)
    return _rows(bars["end_us"][at], history_rows(bars)[at], moves_bp(bars, at)) if len(at) else NO_ROWS


def rows_without_quotes(bars: Bars) -> Rows:
    """The rows of `bars` as if the quotes had stalled: masked features, the move from the proxy mid to the
    true mid. No rows where there were no quotes in the first place."""
    at = _with_all_horizons(bars)
    if not len(at):
        return NO_ROWS
    masked = bars.copy()
    for name in _OF_QUOTES:
        masked[name] = 0
    return _rows(bars["end_us"][at], history_rows(masked)[at], moves_bp(bars, at, without_quotes=True))


def mask_quotes(rows: Rows) -> Rows:
    """The rows with quotes among `rows`, with their quotes masked, for when their bars are no longer at hand:
    features from quotes are 0. Returns, volatility and the move stay those of the mid, where
    `rows_without_quotes` has those of the proxy mid."""
    quoted = rows.chosen(rows.has_quotes)
    features = quoted.features.copy()
    features[:, [*places((*QUOTE_FEATURES, *REFERENCE_FEATURES, "has_reference")), HAS_QUOTES]] = 0
    return quoted._replace(features=features)


def moves_bp(bars: Bars, at: Ints, *, without_quotes: bool = False) -> Floats:
    """The labels of the rows at positions `at` of `bars`, each followed by `_LONGEST_BARS` bars, in bp;
    NaN where one is unknown. Shape (at, J).

    `without_quotes`, rows start from the proxy mid and end at the true mid alone.
    """
    mid, proxy = mids(bars), proxy_mids(bars)
    ends = at[:, None] + PATH_BARS  # (at, J)
    outcome = mid[ends]
    if without_quotes:
        start = proxy[at]
    else:
        lacks_mid = np.isnan(mid[at])
        start = np.where(lacks_mid, proxy[at], mid[at])
        outcome = np.where(np.isnan(outcome) & lacks_mid[:, None], proxy[ends], outcome)
    return np.asarray((outcome / start[:, None] - 1) * 1e4)


class OneSecondBars(NamedTuple):
    """Columns of shape (bars,): sums over each second, and what was known at its end."""

    columns: dict[str, Ints]  # end_us, then by name; sums of quantities with their limbs, (bars, limbs)
    has_quotes: Flags


class HourRows(NamedTuple):
    bars: OneSecondBars
    rows: Rows
    last_trade_bp: Floats  # (rows,), how far the last trade was from the mid; NaN without either


def affected_hours(first_us: int, last_us: int) -> range:
    """The hours, by their beginnings, whose rows depend on ticks between two instants."""
    return range((first_us - AFTER_US) // HOUR_US * HOUR_US, last_us + BEFORE_US + 1, HOUR_US)


def rows_of_hour(
    trades: Trades, quotes: Quotes, reference: Quotes, hour_us: int, grid_us: int, quoted_grid_us: int
) -> HourRows:
    """The rows that end within the hour from `hour_us` on (its end excluded), of ticks in any order.

    Feature rows are at multiples of `grid_us`, those with quotes of `quoted_grid_us`. Ticks
    beyond `BEFORE_US` and `AFTER_US` of the hour are left out.
    """
    from_us, to_us = hour_us - BEFORE_US, hour_us + HOUR_US + AFTER_US
    inside = [t[(t["time_us"] >= from_us) & (t["time_us"] < to_us)] for t in (trades, quotes, reference)]
    parts = [_of_segment(bars, hour_us, grid_us, quoted_grid_us) for bars in segments(*inside)]
    parts = parts or [_of_segment(np.empty(0, BAR), hour_us, grid_us, quoted_grid_us)]
    names = parts[0].bars.columns
    return HourRows(
        OneSecondBars(
            {name: np.concatenate([part.bars.columns[name] for part in parts]) for name in names},
            np.concatenate([part.bars.has_quotes for part in parts]),
        ),
        pool([part.rows for part in parts]),
        np.concatenate([part.last_trade_bp for part in parts]),
    )


def _of_segment(bars: Bars, hour_us: int, grid_us: int, quoted_grid_us: int) -> HourRows:
    quoted = is_quoted(bars)
    seconds = whole_seconds(bars)
    at_end = np.flatnonzero(bars["end_us"] % SECOND_US == 0)
    of_hour = _is_of_hour(seconds["end_us"], hour_us)
    columns = {name: seconds[name][of_hour] for name in ("end_us", *_SUMS)}
    columns |= {name: bars[name][at_end[of_hour]] for name in _AT_END}
    at = _with_all_horizons(bars)
    end_us = bars["end_us"][at]
    on_grid = end_us % np.where(quoted[at], quoted_grid_us, grid_us) == 0
    at = at[_is_of_hour(end_us, hour_us) & on_grid]
    bars_of_hour = OneSecondBars(columns, quoted[at_end[of_hour]])
    if not len(at):
        return HourRows(bars_of_hour, NO_ROWS, np.empty(0))
    rows = Rows(bars["end_us"][at], history_rows(bars)[at], moves_bp(bars, at))
    known = _is_known(rows)
    return HourRows(bars_of_hour, rows.chosen(known), _last_trade_bp(bars[at[known]]))


def _last_trade_bp(bars: Bars) -> Floats:
    """How far the last trade was from the mid at the end of each bar, bp; NaN without either."""
    price = np.where(bars["last_trade_price"] > 0, bars["last_trade_price"], np.nan)
    return np.asarray((price / mids(bars) - 1) * 1e4)


def _with_all_horizons(bars: Bars) -> Ints:
    """The positions of `bars` that the longest horizon follows."""
    return np.arange(max(len(bars) - _LONGEST_BARS, 0))


def _rows(end_us: Ints, features: Floats, moves: Floats) -> Rows:
    """The rows without an unknown value."""
    rows = Rows(end_us, features, moves)
    return rows.chosen(_is_known(rows))


def _is_known(rows: Rows) -> Flags:
    return np.asarray(~(np.isnan(rows.features).any(axis=1) | np.isnan(rows.moves_bp).any(axis=1)))


def _is_of_hour(end_us: Ints, hour_us: int) -> Flags:
    return np.asarray((end_us >= hour_us) & (end_us < hour_us + HOUR_US))

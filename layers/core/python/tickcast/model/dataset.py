"""History's rows: one-second bars and labelled feature rows of an hour, by the bars and features of live.

An hour's rows are always computed from the same ticks: those from `BEFORE_US` ahead of it, which is as far as
its first row looks back, to `AFTER_US` behind it, as far as its last label and the silence that would end its
stretch. So the rows of an hour do not depend on how much else is computed beside it, and hours join without
a seam. Only a price that was last seen longer ago than `BEFORE_US` is not known there as it would be live.
"""

from __future__ import annotations

from typing import NamedTuple

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
from tickcast.features.vector import FEATURE_NAMES, history_rows
from tickcast.market.ticks import Quotes, Trades
from tickcast.model.forecast import HORIZONS_S
from tickcast.units import HOUR_US, SECOND_US

# A minute of look-back, and the ages that features count up to a minute, from its beginning.
BEFORE_US = KEPT_SECONDS * SECOND_US + SILENCE_US + 10 * SECOND_US
AFTER_US = max(HORIZONS_S) * SECOND_US + SILENCE_US

# Columns of a second beside those of `bars.SECOND`: the state at its end.
_AT_END = ("last_trade_id", "last_trade_price", "update_id", "bid_price", "bid_qty", "ask_price", "ask_qty")
_SUMS = ("trade_count", "buy_qty", "sell_qty", "notional", "quote_count")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class OneSecondBars(NamedTuple):
    """Columns of shape (bars,): sums over each second, and what was known at its end."""

    columns: dict[str, Ints]  # end_us, then by name; sums of quantities with their limbs, (bars, limbs)
    has_quotes: Flags


class FeatureRows(NamedTuple):
    """Rows with all their labels: when each was known (N,), features (N, F), the move over each horizon in bp
    (N, H), and whether mids (True) or, without quotes, proxy mids (False) moved (N,)."""

    end_us: Ints
    features: npt.NDArray[np.float32]
    moves_bp: npt.NDArray[np.float32]
    has_quotes: Flags


class HourRows(NamedTuple):
    bars: OneSecondBars
    rows: FeatureRows


def affected_hours(first_us: int, last_us: int) -> range:
    """The hours, by their beginnings, whose rows ticks between two instants have a part in."""
    return range((first_us - AFTER_US) // HOUR_US * HOUR_US, last_us + BEFORE_US + 1, HOUR_US)


def rows_of_hour(trades: Trades, quotes: Quotes, hour_us: int, grid_us: int, quoted_grid_us: int) -> HourRows:
    """The rows that end within the hour from `hour_us` on (its end excluded), of ticks in any order.

    Feature rows stand on the grid of multiples of `grid_us`, those with quotes of `quoted_grid_us`. Ticks
    beyond `BEFORE_US` and `AFTER_US` of the hour are left out.
    """
    from_us, to_us = hour_us - BEFORE_US, hour_us + HOUR_US + AFTER_US
    inside = [t[(t["time_us"] >= from_us) & (t["time_us"] < to_us)] for t in (trades, quotes)]
    found = [_of_stretch(bars, hour_us, grid_us, quoted_grid_us) for bars in segments(*inside)]
    found = found or [_of_stretch(np.empty(0, BAR), hour_us, grid_us, quoted_grid_us)]
    names = found[0].bars.columns
    return HourRows(
        OneSecondBars(
            {name: np.concatenate([part.bars.columns[name] for part in found]) for name in names},
            np.concatenate([part.bars.has_quotes for part in found]),
        ),
        FeatureRows(*(np.concatenate(parts) for parts in zip(*(part.rows for part in found), strict=True))),
    )


def _of_stretch(bars: Bars, hour_us: int, grid_us: int, quoted_grid_us: int) -> HourRows:
    quoted = is_quoted(bars)
    seconds = whole_seconds(bars)
    at_end = np.flatnonzero(bars["end_us"] % SECOND_US == 0)
    of_hour = _is_of_hour(seconds["end_us"], hour_us)
    columns = {name: seconds[name][of_hour] for name in ("end_us", *_SUMS)}
    columns |= {name: bars[name][at_end[of_hour]] for name in _AT_END}
    return HourRows(
        OneSecondBars(columns, quoted[at_end[of_hour]]),
        _feature_rows(bars, quoted, hour_us, grid_us, quoted_grid_us),
    )


def _feature_rows(bars: Bars, quoted: Flags, hour_us: int, grid_us: int, quoted_grid_us: int) -> FeatureRows:
    end_us = bars["end_us"]
    on_grid = end_us % np.where(quoted, quoted_grid_us, grid_us) == 0
    chosen = np.flatnonzero(_is_of_hour(end_us, hour_us) & on_grid)
    chosen = chosen[chosen < len(bars) - max(HORIZONS_S) * BARS_PER_S]
    if not len(chosen):
        none = np.empty((0, len(FEATURE_NAMES)), np.float32), np.empty((0, len(HORIZONS_S)), np.float32)
        return FeatureRows(np.empty(0, np.int64), *none, np.empty(0, bool))
    features = history_rows(bars)[chosen]
    has_quotes = quoted[chosen]
    # A move is between prices of one kind: half a spread lies between a mid and its stand-in.
    moves_bp = np.where(
        has_quotes[:, None], _moves_bp(mids(bars), chosen), _moves_bp(proxy_mids(bars), chosen)
    )
    known = ~(np.isnan(features).any(axis=1) | np.isnan(moves_bp).any(axis=1))
    return FeatureRows(
        end_us[chosen[known]],
        features[known].astype(np.float32),
        moves_bp[known].astype(np.float32),
        has_quotes[known],
    )


def _moves_bp(price: Floats, rows: Ints) -> Floats:
    """The move of `price` from each of `rows` over each horizon, bp. Shape (rows, horizons)."""
    ends = np.stack([price[rows + h * BARS_PER_S] for h in HORIZONS_S], axis=1)
    return np.asarray((ends / price[rows][:, None] - 1) * 1e4)


def _is_of_hour(end_us: Ints, hour_us: int) -> Flags:
    return np.asarray((end_us >= hour_us) & (end_us < hour_us + HOUR_US))

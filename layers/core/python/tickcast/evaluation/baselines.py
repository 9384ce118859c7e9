"""The baselines: the simple forecasts that every model is compared with.

- *No change*: the mid stays.
- *Last trade*: the mid moves to the price of the last trade.
- *Microprice*: the mid moves to the mean of bid and ask, each weighted by the quantity on the other side.
- *Line*: the remaining move is proportional to book imbalance, by least squares through the origin, for
  each horizon and market.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.dataset import Rows
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, remaining_moves
from tickcast.model.network import SIGMA

NO_CHANGE, LAST_TRADE, MICROPRICE, LINE = "no_change", "last_trade", "microprice", "linear_imbalance"
BASELINES = (NO_CHANGE, LAST_TRADE, MICROPRICE, LINE)
_IMBALANCE = FEATURE_NAMES.index("imbalance")
_MICROPRICE = FEATURE_NAMES.index("microprice")  # in units of σ


def baselines(features: Floats, last_trade_bp: Floats, line: Floats, moved_bp: Floats) -> dict[str, Floats]:
    """The remaining move that each baseline expects of rows with quotes (N, F), in bp, each (N, H).
    `last_trade_bp` (N,) is from the row's mid, NaN where it is not known; `moved_bp` (N,) is how far the mid
    has moved by the delivery, from where the mid is to return to the price named; `line` (H,) as of
    `fit_line`."""
    level = np.ones(len(HORIZONS_S))  # (H,)
    return {
        NO_CHANGE: np.zeros((len(features), len(HORIZONS_S))),
        LAST_TRADE: (last_trade_bp - moved_bp)[:, None] * level,
        MICROPRICE: (features[:, _MICROPRICE] * features[:, SIGMA] - moved_bp)[:, None] * level,
        LINE: features[:, _IMBALANCE, None] * line,
    }


def fit_line(markets: Sequence[Rows], age_s: float = DELIVERY_S) -> Floats:
    """The slopes of the line: bp of remaining move, at the age of `age_s`, per unit of book imbalance, by
    horizon. Shape (H,)."""
    imbalance = np.concatenate([rows.features[:, _IMBALANCE] for rows in markets])  # (N,)
    moves_bp = np.concatenate([remaining_moves(rows.moves_bp, age_s) for rows in markets])  # (N, H)
    return line_slope(imbalance @ moves_bp, float(imbalance @ imbalance))


def line_slope(imbalance_moves: Floats, squared_imbalances: float) -> Floats:
    """The slope from Σ imbalance · move and Σ imbalance²."""
    return np.asarray(imbalance_moves / max(squared_imbalances, 1e-12))


def line_squared_error(
    squared_move: Floats, imbalance_move: Floats, squared_imbalance: Floats, slope: float
) -> Floats:
    """Σ (move - slope · imbalance)² from the sums of its terms, of their shape."""
    error = squared_move - 2 * slope * imbalance_move + slope**2 * squared_imbalance
    return np.asarray(np.maximum(error, 0.0))

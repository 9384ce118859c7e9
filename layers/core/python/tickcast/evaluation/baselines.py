"""The baselines: the simple forecasts that every model is compared with.

- *No change*: the mid stays.
- *Last trade*: the mid moves to the price of the last trade.
- *Microprice*: the mid moves to the mean of bid and ask, each weighted by the quantity on the other side.
- *Line*: the remaining move, in units of the volatility of the moment, is proportional to book imbalance, for
  each horizon and market. Scaled as the network scales its moves, it is a stronger opponent than a line in
  basis points, whose slope is wrong in every hour of another volatility.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.card import ScaledLine
from tickcast.model.dataset import Rows
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, PATH_S, remaining_moves
from tickcast.model.network import DAMPING, SIGMA, damping

NO_CHANGE, LAST_TRADE, MICROPRICE, LINE = "no_change", "last_trade", "microprice", "linear_imbalance"
BASELINES = (NO_CHANGE, LAST_TRADE, MICROPRICE, LINE)
_IMBALANCE = FEATURE_NAMES.index("imbalance")
_MICROPRICE = FEATURE_NAMES.index("microprice")  # in units of σ
_HORIZONS = [PATH_S.index(horizon_s) for horizon_s in HORIZONS_S]
LIVE_DAMPING = {h: float(DAMPING[PATH_S.index(h)]) for h in HORIZONS_S}  # -δ by horizon
_CLIPPED_AT = 6.0  # in units of the scale: one burst must not decide the slope


def baselines(
    features: Floats, last_trade_bp: Floats, line: ScaledLine, moved_bp: Floats
) -> dict[str, Floats]:
    """The remaining move that each baseline expects of rows with quotes (N, F), in bp, each (N, H).
    `last_trade_bp` (N,) is from the row's mid, NaN where it is not known; `moved_bp` (N,) is how far the mid
    has moved by the delivery, from where the mid is to return to the price named; `line` as of
    `fit_scaled_line`."""
    level = np.ones(len(HORIZONS_S))  # (H,)
    return {
        NO_CHANGE: np.zeros((len(features), len(HORIZONS_S))),
        LAST_TRADE: (last_trade_bp - moved_bp)[:, None] * level,
        MICROPRICE: (features[:, _MICROPRICE] * features[:, SIGMA] - moved_bp)[:, None] * level,
        LINE: line_moves(features, line),
    }


def line_moves(features: Floats, line: ScaledLine) -> Floats:
    """What the line expects of rows (N, F), bp. Shape (N, H)."""
    slopes = np.array([line.slopes[h] for h in HORIZONS_S])
    return np.asarray(features[:, _IMBALANCE, None] * slopes * _scale_bp(features, line.usual_sigma))


def fit_scaled_line(markets: Sequence[Rows], age_s: float = DELIVERY_S) -> ScaledLine:
    """The line through book imbalance at the age of `age_s`, by least squares through the origin of the
    remaining moves in units of their scale."""
    features = np.concatenate([rows.features for rows in markets])
    if not len(features):
        return ScaledLine(usual_sigma=1.0, slopes=dict.fromkeys(HORIZONS_S, 0.0))
    moves_bp = np.concatenate([remaining_moves(rows.moves_bp, age_s) for rows in markets])  # (N, H)
    usual_bp = float(np.exp(np.log(features[:, SIGMA]).mean()))
    imbalance = features[:, _IMBALANCE]
    target = np.clip(moves_bp / _scale_bp(features, usual_bp), -_CLIPPED_AT, _CLIPPED_AT)
    slopes = line_slope(imbalance @ target, float(imbalance @ imbalance))
    return ScaledLine(usual_sigma=usual_bp, slopes=dict(zip(HORIZONS_S, slopes.tolist(), strict=True)))


def _scale_bp(features: Floats, usual_bp: float) -> Floats:
    """σ√h·d(σ) of rows (N, F), as in the network. Shape (N, H)."""
    sigma_bp = features[:, SIGMA, None]
    of_path = np.broadcast_to(damping(sigma_bp, np.array([usual_bp])), (len(features), len(PATH_S)))
    return np.asarray(sigma_bp * np.sqrt(np.array(HORIZONS_S, float)) * of_path[:, _HORIZONS])


def fit_line(markets: Sequence[Rows], age_s: float = DELIVERY_S) -> Floats:
    """The slopes of a line in basis points, for people who read a card: bp of remaining move, at the age of
    `age_s`, per unit of book imbalance, by horizon. Shape (H,)."""
    imbalance = np.concatenate([rows.features[:, _IMBALANCE] for rows in markets])  # (N,)
    moves_bp = np.concatenate([remaining_moves(rows.moves_bp, age_s) for rows in markets])  # (N, H)
    return line_slope(imbalance @ moves_bp, float(imbalance @ imbalance))


def live_slope(line: ScaledLine, horizon_s: int) -> float:
    """The slope of `line` against z = imbalance · σ√h · σ^-δ, which is known without the line: what tallies
    of outcomes keep. Within `DAMPED_WITHIN` of the usual volatility slope · z is what the line expects."""
    return float(line.slopes[horizon_s] * line.usual_sigma ** -LIVE_DAMPING[horizon_s])


def line_slope(imbalance_moves: Floats, squared_imbalances: float) -> Floats:
    """The slope from Σ imbalance · move and Σ imbalance²."""
    return np.asarray(imbalance_moves / max(squared_imbalances, 1e-12))


def line_squared_error(
    squared_move: Floats, imbalance_move: Floats, squared_imbalance: Floats, slope: float
) -> Floats:
    """Σ (move - slope · imbalance)² from the sums of its terms, of their shape."""
    error = squared_move - 2 * slope * imbalance_move + slope**2 * squared_imbalance
    return np.asarray(np.maximum(error, 0.0))

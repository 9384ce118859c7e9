"""What the perpetual's quotes add: the same model with them and without, on the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tickcast.evaluation.backtest import BacktestRows, Holdout
from tickcast.evaluation.backtest_figures import block_rows, figures_by_horizon
from tickcast.evaluation.skill import share
from tickcast.features.vector import FEATURE_NAMES, REFERENCE_FEATURES
from tickcast.model.dataset import Rows
from tickcast.model.forecast import HORIZONS_S

ALL = "all"  # the markets together
_HAS_REFERENCE = FEATURE_NAMES.index("has_reference")
_OF_REFERENCE = [*map(FEATURE_NAMES.index, REFERENCE_FEATURES), _HAS_REFERENCE]
_SHOWN_WITHOUT = tuple(
    f"{name}{suffix}"
    for name in ("skill_at_delivery", "skill_vs_linear_at_delivery", "direction_at_delivery", "coverage80")
    for suffix in ("", "_ci")
)


def without_reference(holdout: Holdout) -> Holdout:
    """The same rows as if the perpetual had been away."""
    features = holdout.rows.features.copy()
    features[:, _OF_REFERENCE] = 0
    return holdout._replace(rows=holdout.rows._replace(features=features))


def coverage(markets: Iterable[tuple[str, Rows]]) -> dict[str, float]:
    """By symbol, the share of its rows with quotes that knew a fresh quote of the perpetual."""
    known: dict[str, list[np.ndarray[Any, Any]]] = {}
    for symbol, rows in markets:
        flags = rows.features[rows.has_quotes, _HAS_REFERENCE] > 0
        known.setdefault(symbol, []).append(flags)
    joined = {symbol: np.concatenate(flags) for symbol, flags in known.items()}
    return {symbol: round(float(flags.mean()), 4) if len(flags) else 0.0 for symbol, flags in joined.items()}


def gains(
    rows: BacktestRows, without: BacktestRows, symbols: Sequence[str], latency_ms: int
) -> dict[str, dict[str, Any]]:
    """The skill at delivery that `rows` have above the same rows `without`, by horizon and symbol, and of all
    together (`all`), with 95 % intervals; `symbols` by the number of the segment. And some figures of the
    horizons `without`."""
    of_row = np.array(symbols)[rows.segment]
    found: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, list[float]]] = {}
    delivered, blind = rows.ages[latency_ms], without.ages[latency_ms]
    for at, horizon_s in enumerate(HORIZONS_S):
        outcome = delivered.moves_bp[:, at]
        squares = [(outcome - each.expected_bp[:, at]) ** 2 for each in (blind, delivered)]
        name = str(horizon_s)
        found[name], intervals[name] = {}, {}
        for symbol in (ALL, *sorted(set(symbols))):
            which = (of_row == symbol) | (symbol == ALL)
            moved = outcome[which] ** 2
            if not moved.any():
                continue
            gain, interval = share((squares[0] - squares[1])[which], moved, block_rows(horizon_s))
            found[name][symbol] = round(gain, 4)
            intervals[name][symbol] = [round(each, 4) for each in interval]
    figures = figures_by_horizon(without, latency_ms)
    return {
        "skill_gain_by_reference_at_delivery": found,
        "skill_gain_by_reference_at_delivery_ci": intervals,
        "without": {
            horizon: {name: each[name] for name in _SHOWN_WITHOUT if name in each}
            for horizon, each in figures.items()
        },
    }

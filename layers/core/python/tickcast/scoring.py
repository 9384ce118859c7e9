"""How good predictions were, from their outcomes: skill with its uncertainty, direction, coverage.

Skill is 1 - Σ(move - expected)² / Σ(move - baseline)²: 0 is no better than the baseline, 1 is perfect. Errors
of neighbouring predictions hang together, so its interval comes from a moving-block bootstrap (Künsch 1989):
whole stretches are drawn, not single rows. Fallbacks are counted apart and never enter a figure; neither
does an outcome that a gap kept from being known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.model import HORIZONS_S

Floats = npt.NDArray[np.float64]

RESAMPLES = 500
BLOCK_ROWS = 10
INTERVAL_PERCENT = (2.5, 97.5)


def score(outcomes: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures of each horizon, "1" to "10", over `outcomes` (docs/contracts.md) of one symbol."""
    by_horizon: dict[int, list[dict[str, Any]]] = {horizon_s: [] for horizon_s in HORIZONS_S}
    for outcome in sorted(outcomes, key=lambda each: int(each["timestamp"])):
        if outcome["horizon_s"] in by_horizon:
            by_horizon[outcome["horizon_s"]].append(outcome)
    return {str(horizon_s): score_horizon(horizon_s, found) for horizon_s, found in by_horizon.items()}


def score_horizon(horizon_s: int, outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one horizon, oldest outcome first; each None where nothing can be said.

    `count` model predictions with a known outcome; `moved` of them where the mid moved; `direction` share of
    those that had the sign right; `coverage` share of outcomes inside the interval; `skill` against no change
    and `skill_vs_linear` against the best straight line through book imbalance, fitted in hindsight on the
    very same outcomes (which favours the line). `decided` is the same without what the model abstained from.
    """
    resolved = [each for each in outcomes if each["status"] == "resolved"]
    by_model = [each for each in resolved if each["source"] == "model"]
    decided = [each for each in by_model if not each["abstains"]]
    unresolved = Counter(str(each["why"]) for each in outcomes if each["status"] != "resolved")
    block_rows = max(BLOCK_ROWS, 2 * horizon_s)  # targets of neighbours overlap for as long as the horizon
    inside = [bool(each["inside"]) for each in by_model if each["inside"] is not None]
    return {
        "horizon_s": horizon_s,
        **_figures(by_model, block_rows),
        "coverage": _share(inside),
        "skill_vs_linear": _against_imbalance(by_model, block_rows),
        "abstained": len(by_model) - len(decided),
        "decided": _figures(decided, block_rows),
        "fallbacks": len(resolved) - len(by_model),
        "unresolved": dict(unresolved),
    }


def skill(errors: Floats, baseline_errors: Floats, block_rows: int) -> dict[str, float | None] | None:
    """`value` with its 95 % interval `low`, `high` of two series of errors, each (N,), in time order.

    None when the baseline made no error at all; without an interval when there are fewer than two blocks.
    """
    squares = np.stack([errors, baseline_errors]) ** 2  # (2, N)
    ours, theirs = squares.sum(axis=1)
    if not theirs > 0:
        return None
    value, rows = 1 - ours / theirs, len(errors)
    if rows < 2 * block_rows:
        return {"value": _rounded(value), "low": None, "high": None}
    sums = np.concatenate([np.zeros((2, 1)), np.cumsum(squares, axis=1)], axis=1)
    of_block = sums[:, block_rows:] - sums[:, :-block_rows]  # (2, N - B + 1): every block there is
    starts = np.random.default_rng(0).integers(of_block.shape[1], size=(RESAMPLES, -(-rows // block_rows)))
    drawn = of_block[:, starts].sum(axis=2)  # (2, R)
    drawn = drawn[:, drawn[1] > 0]
    low, high = np.percentile(1 - drawn[0] / drawn[1], INTERVAL_PERCENT)
    return {"value": _rounded(value), "low": _rounded(low), "high": _rounded(high)}


def _figures(outcomes: Sequence[dict[str, Any]], block_rows: int) -> dict[str, Any]:
    moves, expected = _column(outcomes, "move_bp"), _column(outcomes, "expected_move_bp")
    right = [bool(each["right"]) for each in outcomes if each["right"] is not None]
    return {
        "count": len(outcomes),
        "moved": len(right),
        "direction": _share(right),
        "skill": skill(moves - expected, moves, block_rows),
    }


def _against_imbalance(outcomes: Sequence[dict[str, Any]], block_rows: int) -> dict[str, float | None] | None:
    known = [each for each in outcomes if each.get("imbalance") is not None]
    moves, imbalance = _column(known, "move_bp"), _column(known, "imbalance")
    power = float(imbalance @ imbalance)
    if power == 0:
        return None
    line = imbalance * (float(imbalance @ moves) / power)
    return skill(moves - _column(known, "expected_move_bp"), moves - line, block_rows)


def _column(outcomes: Sequence[dict[str, Any]], name: str) -> Floats:
    return np.array([each[name] for each in outcomes], float)


def _share(hits: Sequence[bool]) -> float | None:
    return _rounded(sum(hits) / len(hits)) if hits else None


def _rounded(value: float) -> float:
    return round(float(value), 4)

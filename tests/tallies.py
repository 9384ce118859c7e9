"""Outcomes for tests, and their tallies by plain Python: what PostgreSQL's are held against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tickcast.scoring import BINS, MINUTE_US, SUMS, TALLY, Tallies

BASIS = 50_000.0


def outcome(
    second: int, horizon_s: int = 2, move: float | None = 1.0, expected: float | None = 0.5, **told: Any
) -> dict[str, Any]:
    """An outcome as the hot path writes it, of a prediction made at `second`; moves in bp."""
    moved = move is not None and expected is not None and bool(move and expected)
    return {
        "id": f"BTCUSDT-{second * 1000}",
        "symbol": "BTCUSDT",
        "timestamp": second * 1000,
        "horizon_s": horizon_s,
        "target_time": (second + horizon_s) * 1000,
        "status": "unresolved" if move is None else "resolved",
        "why": "gap" if move is None else None,
        "basis_price": BASIS,
        "outcome_price": None if move is None else BASIS * (1 + move / 1e4),
        "served_price": None if move is None else BASIS * (1 + 0.1 * move / 1e4),
        "move_bp": move,
        "expected_move_bp": expected,
        "scale_bp": None if expected is None else 1.0,
        "lower": None if expected is None else BASIS * (1 + (expected - 2) / 1e4),
        "upper": None if expected is None else BASIS * (1 + (expected + 2) / 1e4),
        "confidence": 0.0 if expected is None else 0.5 + min(abs(expected), 4.9) / 10,
        "p_flat": None if expected is None else 0.1,
        "imbalance": 0.5,
        "abstains": expected is None,
        "source": "fallback" if expected is None else "model",
        "reason": "no_quotes" if expected is None else None,
        "model_id": "m1",
        "latency_ms": 130,
        "inside": None if expected is None or move is None else abs(move - expected) <= 2,
        "right": (move > 0) == (expected > 0) if moved else None,  # type: ignore[operator]
        "challenger": None,
        **told,
    }


def market(seconds: int, seed: int = 1, horizon_s: int = 2, **told: Any) -> list[dict[str, Any]]:
    """Outcomes of a model that knows half of the move, in a market that imbalance tells nothing of."""
    rng = np.random.default_rng(seed)
    known, unknown = rng.normal(size=(2, seconds))
    return [
        outcome(
            s,
            horizon_s,
            move=float(known[s] + unknown[s]),
            expected=float(known[s]),
            **{"imbalance": float(rng.normal())} | told,
        )
        for s in range(seconds)
    ]


def tallies(outcomes: Iterable[dict[str, Any]], block_us: int = MINUTE_US) -> Tallies:
    """What `outcomes` come to, a row for each."""
    rows = []
    for each in outcomes:
        move, expected = each["move_bp"], each["expected_move_bp"]
        imbalance = each["imbalance"] or 0.0
        sums = dict.fromkeys(SUMS, 0.0)
        if each["right"] is not None:
            sums |= {"moved": 1, "rights": each["right"], "confidence": each["confidence"]}
        sums["inside"] = bool(each["inside"])
        if move is not None and expected is not None:
            sums |= {"squared_error": (move - expected) ** 2, "squared_move": move**2}
            sums |= {"squared_imbalance": imbalance**2, "imbalance_move": imbalance * move}
            if each["served_price"] is not None:
                delivered = (each["served_price"] / each["basis_price"] - 1) * 1e4
                sums["served_squared_error"] = sums["squared_error"]
                sums["delivered_squared_error"] = (move - delivered) ** 2
        rows.append(
            (
                each["target_time"] * 1000 // block_us,
                each["horizon_s"],
                each["source"] == "model",
                each["abstains"],
                each["why"] or "",
                min(max(int((each["confidence"] - 0.5) * 2 * BINS), 0), BINS - 1),
                1,
                *sums.values(),
            )
        )
    return np.array(rows, TALLY)

"""A model that was trained elsewhere: how its forecast becomes a path, and the checks that it has to pass
before it may run (docs/model.md, "A model of your own").

It is an ONNX file of one of two forms. The *full* form (`output: path`) answers as our own models do. The
*short* form answers with the moves up to some instants alone; we complete them to a path, with the scale
σ√t and a head for "does not move" that is fitted on held rows. N rows, F features, K instants of the file, J
instants of `PATH_S`, H horizons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tickcast.features.vector import FEATURE_NAMES, ODD_FEATURES, REFERENCE_FEATURES, Floats
from tickcast.model.calibration import fit_calibrations
from tickcast.model.dataset import Rows
from tickcast.model.forecast import (
    DELIVERY_S,
    MAX_WIDTH,
    PATH_S,
    Calibration,
    ModelError,
    RunModel,
    remaining_moves,
    remaining_scales,
)
from tickcast.model.network import HAS_QUOTES, SIGMA

MIN_ROWS = 1000  # with quotes, newer than what the model was trained on
RUN_ROWS = 20  # as many as are forecast at once where twenty symbols are served
MOST_RUN_MS = 5.0  # for these, the median: a fortieth of the time until delivery
SYMMETRIC_BELOW = 0.01  # of the move: what differs by less is rounding
_SAMPLE_ROWS = 200  # for the checks that run each row singly
_RUNS = 50
_CLOSE = 1e-4  # bp, and of the value: single precision, in whatever order it adds

# Exchanging buying and selling: the odd features change sign.
SWAPPED = np.array([-1.0 if name in (*ODD_FEATURES, *REFERENCE_FEATURES) else 1.0 for name in FEATURE_NAMES])


def completion(instants_s: Sequence[float]) -> Floats:
    """The weights (K, J) of moves up to `instants_s` in a path: linear in √t between them and from 0 on, as
    a forecast from the book comes true early; after the last of them nothing more is expected."""
    columns = np.eye(len(instants_s))
    known = np.sqrt(np.array([0.0, *instants_s]))
    return np.array([np.interp(np.sqrt(PATH_S), known, [0.0, *column]) for column in columns])


class Checks(NamedTuple):
    """What the checks measured."""

    run_ms: float  # of `RUN_ROWS` rows, the median
    is_exact: bool  # a row's forecast has the same bits in any batch: else it has to be run on each row alone
    asymmetry: float  # by how much of its size the move differs once buying and selling are exchanged, 0 to 1

    @property
    def is_symmetric(self) -> bool:
        return self.asymmetry < SYMMETRIC_BELOW


def check(run: RunModel, features: Floats, clock_s: Callable[[], float]) -> Checks:
    """Check the model `run` on rows (N, F), with and without quotes. Raises `ModelError` for the first check
    that it does not pass."""
    moves_bp = _sound(run, features, "")[0]
    swapped_bp = _sound(run, features * SWAPPED, " with buying and selling exchanged")[0]
    some = features[np.linspace(0, len(features) - 1, min(len(features), _SAMPLE_ROWS)).astype(int)]
    together, again = _outputs(run, some), _outputs(run, some[::-1])
    singly = [
        np.concatenate(column) for column in zip(*(_outputs(run, row[None]) for row in some), strict=True)
    ]
    is_exact = True
    for name, one, other, alone in zip(_NAMES, together, again, singly, strict=True):
        for found, what in ((other[::-1], "in another order"), (alone, "alone")):
            if not np.allclose(one, found, rtol=_CLOSE, atol=_CLOSE):
                worst = float(np.abs(one - found).max())
                raise ModelError(
                    f"{name} of a row differs by up to {worst:.3g} when it is run {what}: a row's forecast "
                    "must not depend on the rows around it, nor on chance"
                )
            is_exact = is_exact and bool((one == found).all())
    size = float(np.sqrt(np.mean(moves_bp**2) + np.mean(swapped_bp**2)))
    odd_one_out = float(np.sqrt(np.mean((moves_bp + swapped_bp) ** 2) / 2))
    run_ms = _run_ms(run, some, is_exact, clock_s)
    if run_ms > MOST_RUN_MS:
        raise ModelError(
            f"{RUN_ROWS} rows take {run_ms:.1f} ms, it should be {MOST_RUN_MS:g} ms at most: a smaller model"
        )
    return Checks(run_ms, is_exact, odd_one_out / size if size else 0.0)


_NAMES = ("move_bp", "scale_bp", "p_flat")


def _outputs(run: RunModel, features: Floats) -> tuple[Floats, Floats, Floats]:
    """The outputs, each (N, J). Raises `ModelError` where the model does not run or they are of another
    shape."""
    try:
        outputs = run(features)
    except Exception as error:  # onnxruntime raises its own classes, with no common base
        raise ModelError(f"the model does not run on {len(features)} rows: {error}") from None
    for name, values in zip(_NAMES, outputs, strict=True):
        if values.shape != (len(features), len(PATH_S)):
            raise ModelError(
                f"{name} of {len(features)} rows has the shape {values.shape}, it should be "
                f"({len(features)}, {len(PATH_S)})"
            )
    return outputs


def _sound(run: RunModel, features: Floats, what: str) -> tuple[Floats, Floats, Floats]:
    """The outputs, all of them possible. Raises `ModelError` naming the first row that is not."""
    move_bp, scale_bp, p_flat = outputs = _outputs(run, features)
    steps = np.diff(scale_bp, axis=1, prepend=0.0)
    for problem, wrong in (
        ("is not finite", ~np.isfinite(np.stack(outputs)).all(axis=(0, 2))),
        ("has a scale that does not grow from instant to instant", ~(steps > 0).all(axis=1)),
        ("has a p_flat that is not from 0 to 1", ~((p_flat >= 0) & (p_flat <= 1)).all(axis=1)),
        ("moves by 100 % or more", ~(np.abs(move_bp) < 1e4).all(axis=1)),
    ):
        if wrong.any():
            at = int(np.argmax(wrong))
            quotes = "with" if features[at, HAS_QUOTES] > 0 else "without"
            raise ModelError(
                f"the forecast of {int(wrong.sum())} of {len(features)} rows{what} {problem}; the first of "
                f"them is a row {quotes} quotes, of σ {features[at, SIGMA]:.3g}"
            )
    return outputs


def _run_ms(run: RunModel, features: Floats, at_once: bool, clock_s: Callable[[], float]) -> float:
    some = np.resize(features, (RUN_ROWS, features.shape[1]))
    batches = [some] if at_once else list(some[:, None])
    taken_s = []
    for _ in range(_RUNS):
        started_s = clock_s()
        for batch in batches:
            run(batch)
        taken_s.append(clock_s() - started_s)
    return round(1000 * float(np.median(taken_s)), 3)


def calibrations(run: RunModel, rows: Rows) -> dict[int, Calibration]:
    """By horizon, the calibration that fits what the model forecasts of `rows`, which it was not trained on.
    Raises `ModelError` where its moves are of another order than the market's."""
    move_bp, scale_bp, _ = run(rows.features)
    scales = remaining_scales(scale_bp, DELIVERY_S)
    expected, outcomes = (remaining_moves(paths, DELIVERY_S) / scales for paths in (move_bp, rows.moves_bp))
    found = fit_calibrations(expected, outcomes)
    for horizon_s, each in found.items():
        if not (0 < each.interval_width <= MAX_WIDTH and math.isfinite(each.direction_slope)):
            raise ModelError(
                f"its interval over {horizon_s} s would be {each.interval_width:.3g} times the scale, it "
                f"should be above 0 and up to {MAX_WIDTH:g}: are its moves in the unit that its description "
                "names?"
            )
    return found

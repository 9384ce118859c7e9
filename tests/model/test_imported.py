"""Models that were trained elsewhere: how moves become a path, the checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import pytest

from tests.model.test_training import planted
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.dataset import Rows, mask_quotes, pool
from tickcast.model.forecast import HORIZONS_S, PATH_S, ModelError, RunModel
from tickcast.model.imported import (
    MOST_RUN_MS,
    SWAPPED,
    calibrations,
    check,
    completion,
)
from tickcast.model.network import SIGMA

_RANDOM = np.random.default_rng(1)
ROOT_T = np.sqrt(np.array(PATH_S))


def model(strength: float = 0.5, column: int = 0) -> RunModel:
    """A model that expects the moves of `planted` rows."""

    def run(features: Floats) -> tuple[Floats, Floats, Floats]:
        scale_bp = features[:, [SIGMA]] * ROOT_T
        return strength * features[:, [column]] * scale_bp, scale_bp, np.full(scale_bp.shape, 0.3)

    return run


def changed(name: str, by: Callable[[Floats, Floats], Floats]) -> RunModel:
    """`model` with one output replaced by what `by` makes of the output and the features."""

    def run(features: Floats) -> tuple[Floats, Floats, Floats]:
        outputs = dict(zip(("move_bp", "scale_bp", "p_flat"), model()(features), strict=True))
        outputs[name] = by(outputs[name], features)
        return outputs["move_bp"], outputs["scale_bp"], outputs["p_flat"]

    return run


def _by_chance(moves_bp: Floats, features: Floats) -> Floats:
    return moves_bp + _RANDOM.random()


def clock(step_s: float = 1e-4) -> Callable[[], float]:
    ticks: Iterator[int] = count()
    return lambda: next(ticks) * step_s


@pytest.fixture(scope="module")
def rows() -> Rows:
    quoted = planted(1, 4000, 0.5)
    return pool([quoted, mask_quotes(quoted)])


def test_moves_at_the_horizons_are_completed_to_a_path() -> None:
    weights = completion(HORIZONS_S)
    path = np.array([1.0, 2.0, 3.0, 4.0]) @ weights
    assert path[[PATH_S.index(h) for h in HORIZONS_S]] == pytest.approx([1, 2, 3, 4])
    assert path[PATH_S.index(0.5)] == pytest.approx(np.sqrt(0.5))
    assert path[-2:] == pytest.approx([4, 4])  # nothing more is expected
    assert (completion(PATH_S) == np.eye(len(PATH_S))).all()
    # A path of σ√t stays one.
    assert (np.sqrt(HORIZONS_S) @ weights)[:-2] == pytest.approx(ROOT_T[:-2])


def test_a_model_that_does_as_it_should_passes(rows: Rows) -> None:
    found = check(model(), rows.features, clock())
    assert found.is_exact and found.is_symmetric and found.asymmetry == pytest.approx(0, abs=1e-12)
    assert found.run_ms == pytest.approx(0.1)


def test_a_move_by_an_even_feature_is_not_symmetric(rows: Rows) -> None:
    even = FEATURE_NAMES.index("spread")
    assert check(model(column=even), rows.features, clock()).asymmetry == pytest.approx(1)
    some = changed("move_bp", lambda moves_bp, _: moves_bp + 0.02)
    assert not check(some, rows.features, clock()).is_symmetric
    assert (SWAPPED == -1).sum() == 16


@pytest.mark.parametrize(
    ("run", "named"),
    [
        (changed("move_bp", lambda moves, x: np.where(x[:, :1] > 0.5, np.nan, moves)), "is not finite"),
        (changed("scale_bp", lambda scale, _: np.ones_like(scale)), "a scale that does not grow"),
        (changed("p_flat", lambda flat, _: flat + 1), "a p_flat that is not from 0 to 1"),
        (changed("move_bp", lambda moves, _: moves + 2e4), "moves by 100 % or more"),
        (changed("p_flat", lambda flat, _: flat[:, :4]), "p_flat of 8000 rows has the shape (8000, 4)"),
        (changed("move_bp", lambda moves, _: moves + moves.mean()), "when it is run"),
        (changed("move_bp", _by_chance), "nor on chance"),
        (changed("move_bp", lambda moves, _: moves @ moves), "does not run on 8000 rows"),
    ],
)
def test_a_model_that_does_not_pass_is_refused_by_what_is_wrong(
    rows: Rows, run: RunModel, named: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(named)):
        check(run, rows.features, clock())


def test_last_bits_that_depend_on_the_batch_are_noticed(rows: Rows) -> None:
    run = changed("move_bp", lambda moves_bp, _: moves_bp * (1 + 1e-7 * len(moves_bp)))
    found = check(run, rows.features, clock())
    assert not found.is_exact
    # It has to be run on each row alone then, and that is what is timed.
    assert found.run_ms == pytest.approx(0.1)


def test_a_slow_model_is_refused(rows: Rows) -> None:
    with pytest.raises(ModelError, match=f"20 rows take 6.0 ms, it should be {MOST_RUN_MS:g} ms at most"):
        check(model(), rows.features, clock(0.006))


def test_a_row_without_quotes_is_named_as_one(rows: Rows) -> None:
    def wrong(moves_bp: Floats, features: Floats) -> Floats:
        return np.where(features[:, [FEATURE_NAMES.index("has_quotes")]] > 0, moves_bp, np.inf)

    with pytest.raises(
        ModelError, match="of 4000 of 8000 rows is not finite; the first of them is a row without"
    ):
        check(changed("move_bp", wrong), rows.features, clock())


def test_calibration_is_of_what_the_model_answers() -> None:
    rows = planted(2, 8000, 0.5)
    good, blind = (calibrations(model(each), rows) for each in (0.5, 0.0))
    assert all(0.5 < good[h].interval_width < blind[h].interval_width < 2 for h in HORIZONS_S)
    assert good[1].direction_slope > 1
    # By the model's own scale.
    double = changed("scale_bp", lambda scale_bp, _: 2 * scale_bp)
    assert calibrations(double, rows)[1].interval_width == pytest.approx(good[1].interval_width / 2)


def test_moves_in_another_unit_are_refused() -> None:
    with pytest.raises(ModelError, match="are its moves in the unit that its description"):
        calibrations(model(1000.0), planted(2, 2000, 0.5))

"""Models that were trained elsewhere: what their description may say, how moves become a path, the checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest

from tests.fixtures.imported import NOW_US, description, document
from tests.model.test_training import planted
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES, Floats
from tickcast.model.dataset import Rows, mask_quotes, pool
from tickcast.model.forecast import HORIZONS_S, PATH_S, ModelError
from tickcast.model.imported import (
    MOST_RUN_MS,
    SWAPPED,
    RunModel,
    calibrations,
    check,
    completion,
    description_from,
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


def test_a_description_has_defaults_for_a_whole_path() -> None:
    given = {"name": "mine", "learned_to": "2026-01-02T03:00", "feature_hash": FEATURE_HASH}
    found = description_from(given, NOW_US)
    assert (found.output, found.inputs, found.instants_s) == ("path", FEATURE_NAMES, HORIZONS_S)
    assert found.learned_to_us == description(learned_to="2026-01-02T04:00:00+01:00").learned_to_us


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": " "}, "name"),
        ({"name": 5}, "name"),
        ({"learned_to": "yesterday"}, "learned_to is 'yesterday'; it should be a time like"),
        ({"learned_to": "2099-01-01T00:00:00Z"}, "learned_to is '2099-01-01T00:00:00Z', which is to come"),
        ({"feature_hash": "0" * 16}, f"this code computes '{FEATURE_HASH}'"),
        ({"output": "prices"}, "output"),
        ({"inputs": ["imbalance", "moon"]}, "'moon' in inputs is no feature"),
        ({"inputs": ["imbalance", "imbalance"]}, "no feature twice"),
        ({"inputs": []}, "each column"),
        ({"instants_s": [1, 2, 5]}, "instants_s is [1.0, 2.0, 5.0]; it should have 1, 2, 5, 10"),
        ({"instants_s": [1, 2, 4, 5, 10]}, "instants_s"),
        ({"instants_s": [2, 1, 5, 10]}, "in the order of time"),
        ({"output": "path"}, "inputs is for output moves_bp or moves_sigma"),
        ({"author": "me"}, "author"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused_by_its_field(
    fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(named)):
        description_from(document(**fields), NOW_US)


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

"""The leakage check: no skill on labels that mean nothing, and a planted leak is detected."""

import numpy as np
import pytest

from tests.fixtures.holdouts import FAST, holdout_of, later
from tests.model.test_training import planted
from tickcast.evaluation.backtest import BacktestRows, Trained, predict, train_and_fit_line
from tickcast.evaluation.leakage import Relabel, detects_leakage, shifted, shuffled
from tickcast.model.forecast import PATH_S
from tickcast.model.network import SIGMA


def test_true_labels_show_skill(predicted: BacktestRows) -> None:
    assert detects_leakage(predicted)


@pytest.mark.parametrize("relabel", [shuffled, shifted])
def test_meaningless_labels_show_no_skill(relabel: Relabel) -> None:
    rows, session = planted(3, 4000, 0.6), later(planted(4, 3000, 0.6), 1000)
    assert sorted(relabel(rows).moves_bp[:, 0]) == sorted(rows.moves_bp[:, 0])
    np.testing.assert_array_equal(relabel(rows).features, rows.features)
    nothing = predict(
        train_and_fit_line({"BTC": relabel(rows)}, FAST), [holdout_of(session).relabelled(relabel)], 200
    )
    assert not detects_leakage(nothing)


def test_a_leak_is_detected(trained: Trained) -> None:
    """Had the label crept into a feature, relabelled rows would still be predicted: the check must detect
    it."""
    rows = shuffled(later(planted(4, 3000, 0.6), 1000))
    leaked = rows.features.copy()
    leaked[:, 0] = rows.moves_bp[:, PATH_S.index(1.0)] / rows.features[:, SIGMA]
    assert detects_leakage(predict(trained, [holdout_of(rows._replace(features=leaked))], 200))


def test_shifted_moves_are_those_of_a_minute_later() -> None:
    rows = planted(3, 2000, 0.6)
    np.testing.assert_array_equal(shifted(rows).moves_bp[:1400], rows.moves_bp[600:])

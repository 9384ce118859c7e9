"""A model trained on a planted signal, and its predictions of later rows."""

from __future__ import annotations

import pytest

from tests.fixtures.holdouts import FAST, holdout_of, later
from tests.model.test_training import planted
from tickcast.evaluation.backtest import BacktestRows, Trained, predict, train_and_fit_line


@pytest.fixture(scope="session")
def trained() -> Trained:
    return train_and_fit_line({"BTC": planted(3, 6000, 0.6)}, FAST)


@pytest.fixture(scope="session")
def predicted(trained: Trained) -> BacktestRows:
    return predict(trained, [holdout_of(later(planted(4, 3000, 0.6), 1000))], 200)

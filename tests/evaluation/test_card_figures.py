"""What a card says of groups of inputs and of regimes: found where planted, with intervals that hold."""

from dataclasses import replace

import numpy as np
import pytest

from tests.model.test_reference import with_reference
from tests.model.test_training import FAST, planted
from tickcast.adapters.registry.card_markdown import page
from tickcast.evaluation.card_figures import (
    PERPETUAL,
    Errors,
    ablation,
    block_sums,
    regimes,
    skills,
)
from tickcast.evaluation.regimes import HOURS, TERCILES
from tickcast.features.vector import FEATURE_NAMES
from tickcast.model.card import Card, PerpetualGain
from tickcast.model.forecast import HORIZONS_S
from tickcast.model.training import train

SETTINGS = replace(FAST, test_share=0.3)
FLOW = FEATURE_NAMES.index("trade_flow_500ms")


def test_a_group_is_worth_what_it_adds_and_others_nothing() -> None:
    markets = {"BTC": planted(1, 9000, 0.6, FLOW), "ETH": planted(2, 9000, 0.6, FLOW)}
    trained = train(markets, SETTINGS)
    worth = ablation(markets, trained, SETTINGS)
    assert set(worth) == {"book imbalance", "order flow", "trade flow", "return"}
    for horizon_s in HORIZONS_S:
        assert worth["trade flow"][horizon_s].ci[0] > 0.02
        for group in ("order flow", "return"):
            assert abs(worth[group][horizon_s].skill) < 0.01


def test_the_perpetual_is_a_group_where_it_is_used() -> None:
    markets = {"BTC": with_reference(1, 9000, 0.4), "ETH": with_reference(2, 9000, 0.0)}
    trained = train(markets, SETTINGS)
    worth = ablation(markets, trained, SETTINGS)
    assert worth[PERPETUAL][1].ci[0] > 0
    assert worth[PERPETUAL][1].skill > 0.01


def test_skill_is_by_regime() -> None:
    """Only where the spread is wide is there a signal."""
    rows, nothing = planted(1, 12_000, 0.8), planted(1, 12_000, 0.0)
    width = (
        rows.features[:, FEATURE_NAMES.index("spread")] * rows.features[:, FEATURE_NAMES.index("sigma_bp")]
    )
    is_wide = (width > np.quantile(width, 2 / 3))[:, None]
    markets = {"BTC": rows._replace(moves_bp=np.where(is_wide, rows.moves_bp, nothing.moves_bp))}
    found = regimes(train(markets, SETTINGS))
    assert set(found) == {"volatility", "spread", "hour"}
    assert tuple(found["spread"]) == tuple(found["volatility"]) == TERCILES
    assert tuple(found["hour"]) == HOURS[:1]  # the rows are of one hour
    assert found["spread"]["high"][2].ci[0] > found["spread"]["low"][2].ci[1]


def test_without_a_test_block_nothing_is_said() -> None:
    markets = {"BTC": planted(1, 3000, 0.6)}
    settings = replace(FAST, test_share=0)
    trained = train(markets, settings)
    assert (ablation(markets, trained, settings), regimes(trained)) == ({}, {})


def test_markets_of_the_same_minutes_share_a_block() -> None:
    """Twice the same market is no more evidence than once."""
    rng = np.random.default_rng(1)
    end_us = np.arange(6000) * 100_000
    moves = rng.normal(size=(6000, 4))
    once = Errors(end_us, np.empty((6000, 0)), moves, 0.3 * moves + rng.normal(0, 0.3, (6000, 4)))
    twice = Errors(*(np.concatenate([column, column]) for column in once))
    for horizon_s, found in skills(once).items():
        assert skills(twice)[horizon_s].ci == pytest.approx(found.ci, abs=1e-3)
    assert block_sums(end_us[:50], np.ones(50), np.ones(50), 10) is None


def test_a_card_s_page_shows_them() -> None:
    markets = {"BTC": with_reference(1, 9000, 0.4)}
    trained = train(markets, SETTINGS)
    gains = {"BTC": PerpetualGain(gain={1: 0.021}, used=True), "ETH": PerpetualGain(gain={1: -0.004})}
    text = page(
        Card(
            model_id="m",
            ablation=ablation(markets, trained, SETTINGS),
            regimes=regimes(trained),
            reference_gain=gains,
        )
    )
    assert "## What each group of inputs adds" in text and "| perpetual | +" in text
    assert "## By volatility" in text and "## By hour" in text
    assert "| BTC | +0.021 | yes |" in text and "| ETH | -0.004 | no |" in text

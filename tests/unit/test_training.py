"""The trainer: gradients against differences, the planted signal found, nothing found in noise."""

import numpy as np
import pytest

from tests.unit.test_features import market_bars
from tests.unit.test_model import random_features, random_network
from tickcast.features import FEATURE_NAMES, ODD_FEATURES
from tickcast.model import HORIZONS_S
from tickcast.training import (
    Rows,
    Settings,
    TrainingError,
    _pool,
    _split,
    average,
    evaluate,
    initial_network,
    loss_and_gradients,
    rows_from_bars,
    train,
)

FAST = Settings(seeds=2, epochs=15)


def planted(seed: int, rows: int, strength: float) -> Rows:
    """The imbalance foretells the move with `strength`; everything else is noise."""
    rng = np.random.default_rng(seed)
    features = random_features(seed, rows)
    scale = features[:, -1:] * np.sqrt(np.array(HORIZONS_S, float))
    moves = (strength * features[:, :1] + rng.normal(0, 1, (rows, len(HORIZONS_S)))) * scale
    moves[rng.random(moves.shape) < 0.3] = 0.0
    return Rows(np.arange(rows) * 100_000, features, moves)


def test_gradients_equal_differences() -> None:
    network, rows = random_network(1), planted(2, 50, 1.0)
    _, gradients = loss_and_gradients(network, rows, huber=1.0)
    for name, gradient in gradients.items():
        weights = getattr(network, name)
        for at in np.ndindex(weights.shape):
            kept, step = weights[at], 1e-6
            weights[at] = kept + step
            up, _ = loss_and_gradients(network, rows, huber=1.0)
            weights[at] = kept - step
            down, _ = loss_and_gradients(network, rows, huber=1.0)
            weights[at] = kept
            assert gradient[at] == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-8), (name, at)


def test_a_planted_signal_is_found_and_told_honestly() -> None:
    network, figures = train([planted(3, 20_000, 0.6)], FAST)
    fresh = evaluate(network, planted(4, 10_000, 0.6))
    for horizon in map(str, HORIZONS_S):
        assert fresh[horizon]["skill"] > 0.15
        assert fresh[horizon]["skill"] == pytest.approx(figures["test"][horizon]["skill"], abs=0.08)
        assert fresh[horizon]["direction"] > 0.65


def test_noise_teaches_nothing() -> None:
    network, _ = train([planted(5, 6000, 0.0)], FAST)
    for figures in evaluate(network, planted(6, 4000, 0.0)).values():
        assert abs(figures["skill"]) < 0.01


def test_intervals_cover_what_they_claim_and_confidence_is_calibrated() -> None:
    network, figures = train([planted(7, 20_000, 0.6)], FAST)
    rows = planted(8, 10_000, 0.6)
    move, scale, _ = network.forward(rows.features)
    for at, horizon in enumerate(map(str, HORIZONS_S)):
        fitted = figures["calibration"][horizon]
        inside = np.abs(rows.moves_bp[:, at] - move[:, at]) / scale[:, at] <= fitted["interval_width"]
        assert inside.mean() == pytest.approx(0.8, abs=0.025)
        moved = rows.moves_bp[:, at] != 0
        claimed = 1 / (1 + np.exp(-fitted["direction_slope"] * np.abs(move[:, at]) / scale[:, at]))
        right = np.sign(move[:, at]) == np.sign(rows.moves_bp[:, at])
        assert claimed[moved].mean() == pytest.approx(right[moved].mean(), abs=0.03)


def test_same_seed_same_bits() -> None:
    one, other = (train([planted(9, 3000, 0.5)], FAST)[0] for _ in range(2))
    for name, weights in vars(one).items():
        assert weights.tobytes() == getattr(other, name).tobytes()


def test_averaging_networks_averages_their_answers() -> None:
    networks, features = [random_network(seed) for seed in range(3)], random_features(1, 20)
    mean = np.mean([network.forward(features)[0] for network in networks], axis=0)
    np.testing.assert_allclose(average(networks).forward(features)[0], mean, rtol=1e-12)


def test_rows_look_forward_by_exactly_the_horizon() -> None:
    bars = market_bars(1, 60)
    rows = rows_from_bars(bars)
    mid = (bars["bid_price"] + bars["ask_price"]) / 2
    start = len(bars) - 100 - len(rows.features)  # the longest horizon's tail is left off
    for row in (0, 57, len(rows.features) - 1):
        for at, horizon_s in enumerate(HORIZONS_S):
            now, then = mid[start + row], mid[start + row + 10 * horizon_s]
            assert rows.moves_bp[row, at] == pytest.approx((then / now - 1) * 1e4, abs=1e-9)


def test_too_little_data_is_named() -> None:
    rows = planted(1, 500, 1.0)
    with pytest.raises(TrainingError, match="500 usable rows, training needs 2000"):
        train([rows], FAST)
    with pytest.raises(TrainingError, match="0 usable rows"):
        train([rows_from_bars(market_bars(1, 5))], FAST)


def test_an_untrained_network_predicts_no_move() -> None:
    move, _, _ = initial_network(FAST, 1).forward(random_features(1, 5))
    assert not move.any()
    assert len(ODD_FEATURES) < len(FEATURE_NAMES)


def test_blocks_are_cut_at_the_same_instants_for_all_markets_and_do_not_touch() -> None:
    one, other = planted(1, 4000, 1.0), planted(2, 3000, 1.0)
    later = other._replace(end_us=other.end_us + 200_000_000)
    blocks = _split(_pool([one, later]))
    for block, following in zip(blocks, blocks[1:], strict=False):
        assert following.end_us.min() - block.end_us.max() >= max(HORIZONS_S) * 1_000_000
    assert sum(len(block.end_us) for block in blocks) > 6000


def test_rows_at_one_instant_cannot_be_split() -> None:
    rows = planted(1, 3000, 1.0)
    with pytest.raises(TrainingError, match="too close together"):
        train([rows._replace(end_us=rows.end_us * 0)], FAST)

"""Training: the planted signal is found, nothing is found in noise, time runs forward."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from tests.features.test_vector import market_bars
from tests.model.test_network import random_features
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model import training
from tickcast.model.dataset import Rows, pool, rows_from_bars
from tickcast.model.fit import INPUTS, TrainingSettings, epoch_by_epoch, fit
from tickcast.model.forecast import HORIZONS_S, PATH_S, remaining_moves
from tickcast.model.network import SIGMA, Network
from tickcast.model.training import (
    GAP_US,
    TrainingError,
    folds,
    in_sigmas,
    split_newest,
    support,
    train,
)

FAST = TrainingSettings(members=2, epochs=12)
FLOW = FEATURE_NAMES.index("trade_flow_1s")


def skills(network: Network, rows: Rows) -> list[float]:
    """Against no change, at delivery, by horizon."""
    expected, moves = delivered(network, rows)
    left = ((moves - expected) ** 2).sum(axis=0) / (moves**2).sum(axis=0)
    return [float(1 - each) for each in left]


def delivered(network: Network, rows: Rows) -> tuple[Floats, Floats]:
    """The remaining moves at delivery, expected and real, in σ√h. Each (N, H)."""
    expected, moves = (in_sigmas(paths, rows) for paths in (network.forward(rows.features)[0], rows.moves_bp))
    return expected, moves


def planted(seed: int, rows: int, strength: float, column: int = 0, has_quotes: float = 1.0) -> Rows:
    """One feature, by default the imbalance, predicts the path with `strength`; the rest is a random walk. Of
    three in ten rows the mid does not move."""
    rng = np.random.default_rng(seed)
    features = random_features(seed, rows, has_quotes)
    steps = rng.normal(0, 1, (rows, len(PATH_S))) * np.sqrt(np.diff(PATH_S, prepend=0.0))
    paths = strength * features[:, [column]] * np.sqrt(np.array(PATH_S)) + steps.cumsum(axis=1)
    paths[rng.random(rows) < 0.3] = 0.0
    return Rows(np.arange(rows) * 100_000, features, paths * features[:, [SIGMA]])


def test_a_planted_signal_is_learned_as_the_test_block_shows() -> None:
    trained = train({"BTC": planted(3, 20_000, 0.6)}, FAST)
    fresh = planted(4, 10_000, 0.6)
    on_test = skills(trained.network, trained.test["BTC"])
    for skill, expected in zip(skills(trained.network, fresh), on_test, strict=True):
        assert skill > 0.05
        assert skill == pytest.approx(expected, abs=0.08)
    moves_bp, moves = delivered(trained.network, fresh)
    assert (np.sign(moves_bp) == np.sign(moves)).mean(axis=0, where=moves != 0).min() > 0.6


@pytest.mark.parametrize("age_s", [0.0, 0.2, 0.5, 1.0])
def test_a_fitted_path_leaves_at_each_age_what_is_left_of_the_response(age_s: float) -> None:
    """The mid moves with the imbalance, and half of it is over within 0.35 s. Volatility is constant: the
    damping is not what is tested."""
    rows, fresh = planted(11, 12_000, 0.0), planted(12, 4000, 0.0).features
    steps = rows.moves_bp / rows.features[:, [SIGMA]]  # (N, J)
    rows.features[:, SIGMA] = fresh[:, SIGMA] = 1.0
    response = 1 - np.exp(-2 * np.array(PATH_S))  # (J,), bp by unit of imbalance
    answered = rows._replace(moves_bp=steps + rows.features[:, [0]] * response)
    network = fit(answered, replace(FAST, weight_decay=0.0, ridge=0.0), FAST.epochs)
    expected_bp = remaining_moves(network.forward(fresh)[0], age_s)  # (N, H)
    slopes = fresh[:, 0] @ expected_bp / (fresh[:, 0] @ fresh[:, 0])
    error = np.abs(slopes - remaining_moves(response, age_s))
    assert (error < 0.03 * np.sqrt(np.array(HORIZONS_S))).all()  # three standard errors of a regression


def test_no_skill_is_learned_from_noise() -> None:
    network = train({"BTC": planted(5, 6000, 0.0)}, FAST).network
    assert max(map(abs, skills(network, planted(6, 4000, 0.0)))) < 0.01


def test_each_part_learns_from_its_kind_of_rows() -> None:
    markets = {"BTC": planted(3, 6000, 0.6), "ETH": planted(4, 6000, 0.6, FLOW, has_quotes=0.0)}
    trained = train(markets, FAST)
    assert skills(trained.network, planted(5, 3000, 0.6))[1] > 0.08
    assert skills(trained.network, planted(6, 3000, 0.6, FLOW, has_quotes=0.0))[1] > 0.05
    assert (trained.rows, trained.rows_with_quotes) == (12_000, 6000)
    assert trained.calibration[2] != trained.masked_calibration[2]


def test_history_without_quotes_trains_a_model_of_all_rows() -> None:
    trained = train({"BTC": planted(4, 6000, 0.6, FLOW, has_quotes=0.0)}, FAST)
    assert (trained.rows_with_quotes, trained.network.knows_quotes[0]) == (0, 0)
    assert skills(trained.network, planted(5, 3000, 0.6, FLOW))[1] > 0.05
    assert skills(trained.network, trained.test["BTC"])[1] > 0.05
    assert trained.calibration == trained.masked_calibration


def test_intervals_cover_what_they_claim_and_confidence_is_calibrated() -> None:
    trained = train({"BTC": planted(7, 20_000, 0.6)}, FAST)
    rows = planted(8, 10_000, 0.6)
    expected, moves = delivered(trained.network, rows)
    for at, horizon_s in enumerate(HORIZONS_S):
        fitted = trained.calibration[horizon_s]
        inside = np.abs(moves[:, at] - expected[:, at]) <= fitted.interval_width
        assert inside.mean() == pytest.approx(0.8, abs=0.025)
        moved = moves[:, at] != 0
        claimed = 1 / (1 + np.exp(-fitted.direction_slope * np.abs(expected[:, at])))
        right = np.sign(expected[:, at]) == np.sign(moves[:, at])
        assert claimed[moved].mean() == pytest.approx(right[moved].mean(), abs=0.03)


def test_the_same_seed_gives_the_same_bits() -> None:
    one, same, other = (
        train({"BTC": planted(9, 3000, 0.5)}, replace(FAST, seed=s)).network for s in (1, 1, 2)
    )
    for name, weights in one.weights.items():
        assert weights.tobytes() == same.weights[name].tobytes()
    assert one.out.tobytes() != other.out.tobytes()


def test_early_stopping_follows_later_blocks_within_its_minimum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for best, expected in ((2, 5), (7, 7), (12, 12)):
        curve = [abs(epoch - best) for epoch in range(1, 13)]
        monkeypatch.setattr(training, "_losses", lambda *_, curve=curve: curve)
        trained = train({"BTC": planted(9, 3000, 0.5)}, replace(FAST, least_epochs=5, test_share=0))
        rows, settings = planted(9, 3000, 0.5), replace(FAST, least_epochs=5)
        assert trained.epochs == expected
        refitted = next(islice(epoch_by_epoch(rows, settings), expected - 1, None))
        np.testing.assert_array_equal(trained.network.out, refitted.out)


def test_nothing_is_fitted_on_the_newest_block_or_the_gap_before_it() -> None:
    rows = planted(9, 4000, 0.5)
    one = train({"BTC": rows}, FAST)
    newest = rows.end_us >= one.learned_to_us - GAP_US + 100_000
    assert 0.15 < newest.mean() < 0.19
    changed = rows._replace(
        features=np.where(newest[:, None], 1.0, rows.features),
        moves_bp=np.where(newest[:, None], 9.0, rows.moves_bp),
    )
    other = train({"BTC": changed}, FAST)
    for name, weights in one.network.weights.items():
        assert weights.tobytes() == other.network.weights[name].tobytes(), name


def test_without_a_test_block_all_rows_are_fitted_on() -> None:
    rows = planted(9, 3000, 0.5)
    trained = train({"BTC": rows}, replace(FAST, test_share=0))
    assert trained.learned_to_us == rows.end_us[-1] + GAP_US
    assert not len(trained.test["BTC"].end_us)


def test_too_little_data_is_refused_with_its_count() -> None:
    with pytest.raises(TrainingError, match="500 usable rows, training needs 1000"):
        train({"BTC": planted(1, 500, 1.0)}, FAST)
    with pytest.raises(TrainingError, match="0 usable rows"):
        train({"BTC": rows_from_bars(market_bars(1, 5))}, FAST)


def test_rows_at_one_instant_cannot_be_split() -> None:
    seconds = {str(seed): planted(seed, 100, 1.0) for seed in range(20)}  # of twenty markets, the same ten
    with pytest.raises(TrainingError, match="too close together"):
        train(seconds, FAST)


def test_blocks_are_cut_at_the_same_instants_for_all_markets_and_leave_a_gap() -> None:
    one, other = planted(1, 4000, 1.0), planted(2, 3000, 1.0)
    markets = {"BTC": one, "ETH": other._replace(end_us=other.end_us + 200_000_000)}
    pairs = [[pool(list(part.values())).end_us for part in pair] for pair in folds(markets)]
    assert len(pairs) == 3
    for past, block in pairs:
        assert block.min() - past.max() > GAP_US
    assert all(a.max() < b.min() for (_, a), (_, b) in zip(pairs, pairs[1:], strict=False))
    learn, test = (pool(list(part.values())).end_us for part in split_newest(markets, 0.2))
    assert test.min() - learn.max() > GAP_US


@pytest.mark.parametrize(
    ("rows", "step_us", "symbols"),
    [(5000, 15_200_000, 3), (6000, 400_000, 2), (6000, 10_100_000, 2), (6000, 100_000, 4)],
)
def test_the_network_is_fitted_on_every_market(rows: int, step_us: int, symbols: int) -> None:
    """More rows than a fit takes. A step through the rows in the order of time met one market only, so that
    the labels of the others did not count."""
    names = ["BTC", "ETH", "SOL", "XRP"][:symbols]
    markets = {name: planted(seed, rows, 0.6) for seed, name in enumerate(names)}
    markets = {name: each._replace(end_us=np.arange(rows) * step_us) for name, each in markets.items()}
    settings = replace(FAST, epochs=1, max_rows=1200, least_epochs=1)
    one = train(markets, settings)
    assert one.fitted == {name: (1200 // symbols, 0) for name in names}
    for name in names:
        noise = markets[name]._replace(moves_bp=-markets[name].moves_bp)
        other = train(markets | {name: noise}, settings)
        assert np.abs(one.network.skip - other.network.skip).max() > 0.02, name


def test_support_is_wide_but_finite() -> None:
    rows = planted(1, 2000, 1.0)
    rows.features[:, FEATURE_NAMES.index("mid_age")] = 0.5
    ranges = support({"BTC": rows, "ETH": rows.chosen(slice(0, 0))}, INPUTS.names)
    assert list(ranges) == INPUTS.names
    assert ranges["mid_age"] == (-3.5, 4.5)
    imbalance = rows.features[:, 0]
    width = np.ptp(imbalance)
    assert ranges["imbalance"] == pytest.approx((imbalance.min() - 2 * width, imbalance.max() + 2 * width))
    assert ranges["sigma_bp"] == (0.0, 10 * rows.features[:, SIGMA].max())
    assert ranges["has_quotes"][0] <= 0 and ranges["has_quotes"][1] >= 1

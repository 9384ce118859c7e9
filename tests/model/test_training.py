"""The trainer: gradients against differences, the planted signal found, nothing found in noise."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from tests.features.test_vector import market_bars
from tests.model.test_network import random_features, random_network
from tickcast.features.vector import FEATURE_NAMES, ODD_FEATURES
from tickcast.model import training
from tickcast.model.dataset import Rows, pool, rows_from_bars
from tickcast.model.forecast import HORIZONS_S
from tickcast.model.network import HAS_QUOTES, SIGMA
from tickcast.model.training import (
    GAP_US,
    INPUTS,
    Samples,
    Scaler,
    TrainingError,
    TrainingSettings,
    evaluate,
    initial_network,
    loss_and_gradients,
    target,
    train,
)

FAST = TrainingSettings(members=2, epochs=12)
FLOW = FEATURE_NAMES.index("trade_flow_1s")


def planted(seed: int, rows: int, strength: float, column: int = 0, has_quotes: float = 1.0) -> Rows:
    """One feature, by default the imbalance, foretells the move with `strength`; everything else is noise."""
    rng = np.random.default_rng(seed)
    features = random_features(seed, rows, has_quotes)
    scale = features[:, SIGMA:] * np.sqrt(np.array(HORIZONS_S, float))
    moves = (strength * features[:, [column]] + rng.normal(0, 1, (rows, len(HORIZONS_S)))) * scale
    moves[rng.random(moves.shape) < 0.3] = 0.0
    return Rows(np.arange(rows) * 100_000, features, moves)


def test_gradients_equal_differences() -> None:
    network, rng = random_network(1), np.random.default_rng(2)
    samples = Samples(*(rng.normal(0, 1, (50, n)) for n in (len(INPUTS.odd), len(INPUTS.even), 4)))
    _, gradients = loss_and_gradients(network, samples, huber=1.0)
    assert gradients.keys() == set(training._MOVE_WEIGHTS)
    for name, gradient in gradients.items():
        weights = network.weights[name]
        for at in np.ndindex(weights.shape):
            kept, step = weights[at], 1e-6
            weights[at] = kept + step
            up, _ = loss_and_gradients(network, samples, huber=1.0)
            weights[at] = kept - step
            down, _ = loss_and_gradients(network, samples, huber=1.0)
            weights[at] = kept
            assert gradient[at] == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-7), (name, at)


def test_a_planted_signal_is_found_and_told_honestly() -> None:
    network, figures = train([planted(3, 20_000, 0.6)], FAST)
    fresh = evaluate(network, planted(4, 10_000, 0.6))
    for horizon in map(str, HORIZONS_S):
        assert fresh[horizon]["skill"] > 0.12
        assert fresh[horizon]["skill"] == pytest.approx(figures["test"][horizon]["skill"], abs=0.08)
        assert fresh[horizon]["direction"] > 0.65


def test_noise_teaches_nothing() -> None:
    network, _ = train([planted(5, 6000, 0.0)], FAST)
    for figures in evaluate(network, planted(6, 4000, 0.0)).values():
        assert abs(figures["skill"]) < 0.01


def test_the_masked_part_learns_from_rows_without_quotes_and_the_other_from_those_with() -> None:
    markets = [planted(3, 6000, 0.6), planted(4, 6000, 0.6, FLOW, has_quotes=0.0)]
    network, figures = train(markets, FAST)
    assert evaluate(network, planted(5, 3000, 0.6))["2"]["skill"] > 0.12
    assert evaluate(network, planted(6, 3000, 0.6, FLOW, has_quotes=0.0))["2"]["skill"] > 0.05
    assert (figures["rows"], figures["rows_with_quotes"]) == (12_000, 6000)
    assert figures["calibration"]["2"] != figures["masked_calibration"]["2"]


def test_history_without_quotes_trains_a_model_that_answers_all_rows() -> None:
    network, figures = train([planted(4, 6000, 0.6, FLOW, has_quotes=0.0)], FAST)
    assert (figures["rows_with_quotes"], network.knows_quotes[0]) == (0, 0)
    assert evaluate(network, planted(5, 3000, 0.6, FLOW))["2"]["skill"] > 0.05
    assert figures["test"]["2"]["skill"] > 0.05
    assert figures["calibration"] == figures["masked_calibration"]


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


def test_same_seed_same_bits_and_another_seed_others() -> None:
    one, same, other = (train([planted(9, 3000, 0.5)], replace(FAST, seed=s))[0] for s in (1, 1, 2))
    for name, weights in one.weights.items():
        assert weights.tobytes() == same.weights[name].tobytes()
    assert one.out.tobytes() != other.out.tobytes()


def test_every_second_member_sees_the_imbalance_alone() -> None:
    rows = planted(3, 2000, 0.6)
    samples = Scaler.of(rows, INPUTS).samples(rows, INPUTS)
    unseen = [at for at, name in enumerate(INPUTS.odd) if name != "imbalance"]
    for member, sees_all in ((0, True), (1, False)):
        *_, network = training._member(samples, FAST, member)
        assert network.skip[unseen].any() == network.hidden_odd[unseen].any() == sees_all
        assert network.skip[0].all()


def test_folding_the_standard_into_the_weights_changes_no_answer() -> None:
    rows, network = planted(3, 200, 0.6), random_network(4)
    rows.features[:, :14] *= 7
    rows.features[:, 15:20] += 3
    standard = Scaler.of(rows, INPUTS)
    odd, even, _ = standard.samples(rows, INPUTS)
    move_bp, _, _ = standard.folded(network).forward(rows.features)
    in_units = target(rows._replace(moves_bp=move_bp / 100), standard.usual_sigma) * 100
    np.testing.assert_allclose(in_units, network.quoted_move(odd, even), rtol=1e-9)


def test_training_stops_where_later_blocks_say_so_but_not_before_the_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for best, expected in ((2, 5), (7, 7), (12, 12)):
        curve = [abs(epoch - best) for epoch in range(1, 13)]
        monkeypatch.setattr(training, "_losses", lambda *_, curve=curve: curve)
        network, figures = train([planted(9, 3000, 0.5)], replace(FAST, least_epochs=5, test_share=0))
        rows, settings = planted(9, 3000, 0.5), replace(FAST, least_epochs=5)
        assert figures["epochs"] == expected
        refitted = next(islice(training.epoch_by_epoch(rows, settings), expected - 1, None))
        np.testing.assert_array_equal(network.out, refitted.out)


def test_nothing_is_learned_from_the_newest_block_or_the_gap_before_it() -> None:
    rows = planted(9, 4000, 0.5)
    one, figures = train([rows], FAST)
    newest = rows.end_us >= figures["learned_to_us"] - GAP_US + 100_000
    assert 0.15 < newest.mean() < 0.19
    changed = rows._replace(
        features=np.where(newest[:, None], 1.0, rows.features),
        moves_bp=np.where(newest[:, None], 9.0, rows.moves_bp),
    )
    other, _ = train([changed], FAST)
    for name, weights in one.weights.items():
        assert weights.tobytes() == other.weights[name].tobytes(), name


def test_without_a_test_block_all_is_learned_from() -> None:
    rows = planted(9, 3000, 0.5)
    _, figures = train([rows], replace(FAST, test_share=0))
    assert figures["learned_to_us"] == rows.end_us[-1] + GAP_US
    assert figures["test"]["1"] == {"skill": 0.0, "direction": 0.5, "rows": 0.0}


def test_too_little_data_is_named() -> None:
    with pytest.raises(TrainingError, match="500 usable rows, training needs 1000"):
        train([planted(1, 500, 1.0)], FAST)
    with pytest.raises(TrainingError, match="0 usable rows"):
        train([rows_from_bars(market_bars(1, 5))], FAST)


def test_rows_at_one_instant_cannot_be_split() -> None:
    seconds = [planted(seed, 100, 1.0) for seed in range(20)]  # of twenty markets, the same ten
    with pytest.raises(TrainingError, match="too close together"):
        train(seconds, FAST)


def test_an_untrained_member_predicts_no_move() -> None:
    move, _, _ = initial_network(FAST, 1).forward(random_features(1, 5))
    assert not move.any()
    assert len(ODD_FEATURES) < len(FEATURE_NAMES)


def test_blocks_are_cut_at_the_same_instants_for_all_markets_and_leave_a_gap() -> None:
    one, other = planted(1, 4000, 1.0), planted(2, 3000, 1.0)
    rows = pool([one, other._replace(end_us=other.end_us + 200_000_000)])
    assert (np.diff(rows.end_us) >= 0).all()
    folds = list(training._folds(rows))
    assert len(folds) == 3
    for past, block in folds:
        assert block.end_us.min() - past.end_us.max() > GAP_US
    assert all(a.end_us.max() < b.end_us.min() for (_, a), (_, b) in zip(folds, folds[1:], strict=False))
    learn, test = training._newest_apart(rows, 0.2)
    assert test.end_us.min() - learn.end_us.max() > GAP_US


def test_support_holds_another_market_and_refuses_the_absurd() -> None:
    rows = planted(1, 2000, 1.0)
    rows.features[:, FEATURE_NAMES.index("mid_age")] = 0.5
    ranges = training.support(rows, INPUTS)
    assert list(ranges) == INPUTS.names
    assert ranges["mid_age"] == [-3.5, 4.5]
    imbalance = rows.features[:, 0]
    width = np.ptp(imbalance)
    assert ranges["imbalance"] == pytest.approx([imbalance.min() - 2 * width, imbalance.max() + 2 * width])
    assert ranges["sigma_bp"] == [0.0, 10 * rows.features[:, SIGMA].max()]
    assert ranges["has_quotes"][0] <= 0 and ranges["has_quotes"][1] >= 1
    assert HAS_QUOTES != SIGMA

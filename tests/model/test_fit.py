"""The fit: gradients against differences, the members' inputs, the units folded into the weights."""

from dataclasses import replace

import numpy as np
import pytest

from tests.model.test_network import random_features, random_network
from tests.model.test_training import FAST, planted
from tickcast.model import fit
from tickcast.model.fit import (
    INPUTS,
    Samples,
    Scaler,
    epoch_by_epoch,
    initial_network,
    loss_and_gradients,
    ridge,
    target,
    with_ridge,
)
from tickcast.model.forecast import PATH_S
from tickcast.model.network import places


def test_gradients_equal_finite_differences() -> None:
    network, rng = random_network(1), np.random.default_rng(2)
    samples = Samples(*(rng.normal(0, 1, (50, n)) for n in (len(INPUTS.odd), len(INPUTS.even), len(PATH_S))))
    _, gradients = loss_and_gradients(network, samples, huber=1.0)
    assert gradients.keys() == set(fit._MOVE_WEIGHTS)
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


def test_every_second_member_sees_only_the_imbalance() -> None:
    rows = planted(3, 2000, 0.6)
    samples = Scaler.of(rows, INPUTS).samples(rows, INPUTS)
    unseen = [at for at, name in enumerate(INPUTS.odd) if name != "imbalance"]
    for member, sees_all in ((0, True), (1, False)):
        *_, network = fit._fit_member(samples, FAST, member)
        assert network.skip[unseen].any() == network.hidden_odd[unseen].any() == sees_all
        assert network.skip[0].all()


def test_folding_the_scaling_into_the_weights_changes_no_prediction() -> None:
    rows, network = planted(3, 200, 0.6), random_network(4)
    rows.features[:, :14] *= 7
    rows.features[:, 15:20] += 3
    scaler = Scaler.of(rows, INPUTS)
    odd, even, _ = scaler.samples(rows, INPUTS)
    move_bp, _, _ = scaler.folded(network).forward(rows.features)
    in_units = target(rows._replace(moves_bp=move_bp / 100), scaler.usual_sigma) * 100
    np.testing.assert_allclose(in_units, network.quoted_move(odd, even), rtol=1e-9)


def test_a_ridge_is_averaged_in_by_its_weights() -> None:
    rows, network = planted(3, 2000, 0.6), random_network(4)
    skip = np.zeros_like(network.skip)
    skip[[INPUTS.odd.index(name) for name in ("imbalance", "log_imbalance")]] = ridge(
        rows.features[:, places(("imbalance", "log_imbalance"))], target(rows, network.usual_sigma), 0.1
    )
    linear = replace(network, skip=skip, out=0 * network.out)
    mean = 0.25 * network.forward(rows.features)[0] + 0.75 * linear.forward(rows.features)[0]
    np.testing.assert_allclose(with_ridge(network, skip, 0.75).forward(rows.features)[0], mean, rtol=1e-9)
    half, none = (next(epoch_by_epoch(rows, replace(FAST, ridge_share=share))).skip for share in (0.5, 0.0))
    whole = next(epoch_by_epoch(rows, replace(FAST, ridge_share=1.0))).skip
    np.testing.assert_allclose(half, (none + whole) / 2)


def test_ridge_regression_is_that_of_the_scaled_inputs_without_an_intercept() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(0, 3, (500, 1)) * [1.0, 0.0]  # a constant input gets no weight
    weights = ridge(inputs, 2 * inputs[:, :1] + 7, 1e-9)
    assert weights[1, 0] == 0
    assert weights[0, 0] == pytest.approx(2, abs=0.3)
    np.testing.assert_allclose(ridge(inputs, 2 * inputs[:, :1], 1.0)[0], [1.0])
    assert not ridge(np.empty((0, 2)), np.empty((0, 3)), 1.0).any()


def test_an_untrained_member_predicts_no_move() -> None:
    move, _, _ = initial_network(FAST, 1).forward(random_features(1, 5))
    assert not move.any()

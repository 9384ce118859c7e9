"""The fit: gradients against differences, the members' inputs, the units folded into the weights."""

import numpy as np
import pytest

from tests.model.test_network import random_features, random_network
from tests.model.test_training import FAST, planted
from tickcast.model import fit
from tickcast.model.fit import INPUTS, Samples, Scaler, initial_network, loss_and_gradients, target
from tickcast.model.forecast import PATH_S


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


def test_an_untrained_member_predicts_no_move() -> None:
    move, _, _ = initial_network(FAST, 1).forward(random_features(1, 5))
    assert not move.any()

"""The network: antisymmetry by construction, ONNX like numpy, and answers that hold together."""

import numpy as np
import pytest

from tickcast.adapters.onnx_model import OnnxModel, export
from tickcast.features import FEATURE_HASH, FEATURE_NAMES, ODD_FEATURES
from tickcast.model import HORIZONS_S, Calibration, ModelError, calibrations_from, forecast
from tickcast.network import Network
from tickcast.training import Settings, initial_network

CALIBRATIONS = {h: Calibration(direction_slope=3.0, interval_width=1.2) for h in HORIZONS_S}


def random_network(seed: int) -> Network:
    rng = np.random.default_rng(seed)
    network = initial_network(Settings(), seed)
    for name, weights in vars(network).items():
        setattr(network, name, rng.normal(0, 0.4, weights.shape))
    return network


def random_features(seed: int, rows: int) -> np.ndarray:
    features = np.random.default_rng(seed).normal(0, 1, (rows, len(FEATURE_NAMES)))
    features[:, -1] = np.abs(features[:, -1]) + 0.05
    return features


def test_exchanging_buyers_and_sellers_flips_the_move_and_nothing_else() -> None:
    network, features = random_network(1), random_features(2, 200)
    mirrored = features.copy()
    mirrored[:, : len(ODD_FEATURES)] *= -1
    move, scale, p_flat = network.forward(features)
    other_move, other_scale, other_p_flat = network.forward(mirrored)
    np.testing.assert_allclose(other_move, -move, rtol=1e-12)
    np.testing.assert_array_equal(other_scale, scale)
    np.testing.assert_array_equal(other_p_flat, p_flat)


@pytest.mark.parametrize("rows", [1, 64])
def test_onnx_answers_as_the_network(rows: int) -> None:
    network, features = random_network(3), random_features(4, rows)
    model = OnnxModel(export(network))
    for ours, theirs in zip(network.forward(features), model(features), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=2e-5, atol=2e-6)


def test_move_scales_with_volatility() -> None:
    network, features = random_network(5), random_features(6, 10)
    louder = features.copy()
    louder[:, -1] *= 3
    np.testing.assert_allclose(network.forward(louder)[0], 3 * network.forward(features)[0], rtol=1e-12)


def test_forecast_holds_together() -> None:
    move, scale, p_flat = random_network(7).forward(random_features(8, 1))
    answers = forecast(60_000.0, move[0], scale[0], p_flat[0], CALIBRATIONS)
    assert [answer.horizon_s for answer in answers] == list(HORIZONS_S)
    for answer, bp in zip(answers, move[0], strict=True):
        assert answer.lower < answer.predicted_price < answer.upper
        assert answer.predicted_price == pytest.approx(60_000 * (1 + bp / 1e4))
        assert 0.5 <= answer.confidence < 1
        assert 0 < answer.p_flat < 1


def test_no_move_is_no_confidence() -> None:
    zeros = np.zeros(len(HORIZONS_S))
    answer = forecast(100.0, zeros, zeros + 1, zeros, CALIBRATIONS)[0]
    assert (answer.predicted_price, answer.confidence) == (100.0, 0.5)


def test_a_model_for_other_features_is_refused() -> None:
    with pytest.raises(ModelError, match="model m1 was trained on features abc"):
        calibrations_from({"model_id": "m1", "feature_hash": "abc"})
    with pytest.raises(ModelError, match=r"no calibration for horizons \[2, 5, 10\]"):
        calibration = {"1": {"direction_slope": 1.0, "interval_width": 1.0}}
        calibrations_from({"model_id": "m1", "feature_hash": FEATURE_HASH, "calibration": calibration})


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ModelError, match="not a model onnxruntime can load"):
        OnnxModel(b"not a model")

"""The network: antisymmetry by construction, its inputs by name, masking, and ONNX like numpy."""

from dataclasses import replace

import numpy as np
import pytest

from tickcast.adapters.registry.onnx_model import OnnxModel, export
from tickcast.features.vector import FEATURE_NAMES, ODD_FEATURES, QUOTE_FEATURES
from tickcast.model.fit import INPUTS
from tickcast.model.forecast import PATH_S, ModelError
from tickcast.model.network import DAMPING, HAS_QUOTES, SIGMA, Inputs, Network, average, places

QUOTED = np.array([FEATURE_NAMES.index(name) for name in QUOTE_FEATURES])


def random_network(seed: int, inputs: Inputs = INPUTS, hidden: int = 6) -> Network:
    rng = np.random.default_rng(seed)
    network = Network.zeros(inputs, hidden)
    drawn = {name: rng.normal(0, 0.4, weights.shape) for name, weights in network.weights.items()}
    return replace(network, **drawn | {"usual_sigma": np.array([0.8]), "knows_quotes": np.ones(1)})


def random_features(seed: int, rows: int, has_quotes: float = 1.0) -> np.ndarray:
    features = np.random.default_rng(seed).normal(0, 1, (rows, len(FEATURE_NAMES)))
    features[:, SIGMA] = np.abs(features[:, SIGMA]) + 0.05
    features[:, HAS_QUOTES] = has_quotes
    features[:, FEATURE_NAMES.index("has_reference")] = 0.0
    if not has_quotes:
        features[:, QUOTED] = 0
    return features


@pytest.mark.parametrize("has_quotes", [1.0, 0.0])
def test_swapping_buyers_and_sellers_only_flips_the_move(has_quotes: float) -> None:
    network, features = random_network(1), random_features(2, 200, has_quotes)
    mirrored = features.copy()
    mirrored[:, : len(ODD_FEATURES)] *= -1
    move, scale, p_flat = network.forward(features)
    other_move, other_scale, other_p_flat = network.forward(mirrored)
    assert np.abs(move).min() > 0
    np.testing.assert_allclose(other_move, -move, rtol=1e-12)
    np.testing.assert_array_equal(other_scale, scale)
    np.testing.assert_array_equal(other_p_flat, p_flat)


def test_only_its_inputs_affect_the_network() -> None:
    network, features = random_network(3), random_features(4, 50)
    answers = network.forward(features)
    for at, name in enumerate(FEATURE_NAMES):
        other = features.copy()
        other[:, at] += 0.5
        is_same = all(np.array_equal(a, b) for a, b in zip(answers, network.forward(other), strict=True))
        only_masked = name in set(INPUTS.masked) - set(INPUTS.odd)
        assert is_same == (name not in INPUTS.names or only_masked), name


def test_without_quotes_only_masked_inputs_affect_the_move() -> None:
    network, features = random_network(3), random_features(4, 50, has_quotes=0.0)
    expected = features[:, places(INPUTS.masked)] @ network.masked_skip
    move_bp, scale_bp, _ = network.forward(features)
    damped = np.clip(features[:, [SIGMA]] / 0.8, 0.25, 4) ** DAMPING
    np.testing.assert_allclose(move_bp, expected * scale_bp * damped, rtol=1e-12)


def test_a_network_trained_without_quotes_predicts_by_its_masked_part() -> None:
    blind = replace(random_network(3), knows_quotes=np.zeros(1))
    features = random_features(4, 50)
    unquoted = features.copy()
    unquoted[:, HAS_QUOTES] = 0
    np.testing.assert_array_equal(blind.forward(features)[0], blind.forward(unquoted)[0])


def test_moves_are_proportional_to_volatility_except_for_the_damping() -> None:
    network, features = random_network(5), random_features(6, 10)
    features[:, SIGMA] = 0.8
    louder, loudest, far = features.copy(), features.copy(), features.copy()
    louder[:, SIGMA], loudest[:, SIGMA], far[:, SIGMA] = 0.8 * 2, 0.8 * 4, 0.8 * 400
    base = network.forward(features)[0]
    np.testing.assert_allclose(network.forward(louder)[0], 2 ** (1 + DAMPING) * base, rtol=1e-12)
    by_horizon = [DAMPING[PATH_S.index(horizon_s)] for horizon_s in (0.1, 1, 2, 5, 10, 15)]
    assert by_horizon == [-0.25, -0.25, -0.35, -0.5, -0.6, -0.6]
    np.testing.assert_allclose(network.forward(far)[0], 100 * network.forward(loudest)[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("part", "name"),
    [("odd", "spread"), ("even", "imbalance"), ("masked", "imbalance"), ("flat", "sigma_bp"), ("odd", "x")],
)
def test_inputs_that_would_break_the_symmetry_are_refused(part: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be among the network's {part} inputs"):
        replace(INPUTS, **{part: (name,)})


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize("has_quotes", [1.0, 0.0])
def test_onnx_predicts_as_the_network(rows: int, has_quotes: float) -> None:
    network, features = random_network(3), random_features(4, rows, has_quotes)
    model = OnnxModel(export(network))
    for ours, theirs in zip(network.forward(features), model(features), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=2e-5, atol=2e-6)


def test_onnx_picks_the_inputs_of_the_network() -> None:
    inputs = Inputs(odd=("ofi_5s",), even=("spread",), masked=("return_5s",), flat=("trade_age",))
    network, features = random_network(3, inputs, hidden=2), random_features(4, 20)
    for ours, theirs in zip(network.forward(features), OnnxModel(export(network))(features), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=2e-5, atol=2e-6)


def test_an_export_that_predicts_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(3)
    monkeypatch.setattr("tickcast.adapters.registry.onnx_model.PATH_S", (*PATH_S[:-1], 16.0))
    with pytest.raises(ModelError, match="the exported model differs from the trained one by"):
        export(network)


def test_bytes_that_are_not_a_model_are_refused() -> None:
    with pytest.raises(ModelError, match="not a model onnxruntime can load"):
        OnnxModel(b"not a model")


def test_a_model_of_other_instants_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = export(random_network(3))
    monkeypatch.setattr("tickcast.adapters.registry.onnx_model.PATH_S", PATH_S[:4])
    with pytest.raises(ModelError, match="the model forecasts 17 instants, this code 4"):
        OnnxModel(data)


@pytest.mark.parametrize("has_quotes", [1.0, 0.0])
def test_averaging_networks_averages_their_moves(has_quotes: float) -> None:
    networks, features = [random_network(seed) for seed in range(3)], random_features(1, 20, has_quotes)
    mean = np.mean([network.forward(features)[0] for network in networks], axis=0)
    np.testing.assert_allclose(average(networks).forward(features)[0], mean, rtol=1e-12)


def test_a_network_of_zeros_predicts_no_move() -> None:
    move_bp, scale_bp, p_flat = Network.zeros(INPUTS, 3).forward(random_features(1, 5))
    assert not move_bp.any()
    np.testing.assert_allclose(scale_bp[:, -1], scale_bp[:, 0] * np.sqrt(PATH_S[-1] / PATH_S[0]))
    assert (p_flat == 0.5).all()

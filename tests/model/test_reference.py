"""The correction by the perpetual: fitted and decided by market, made in one place, on the card."""

from dataclasses import replace

import numpy as np

from tests.model.test_training import FAST, planted
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.dataset import Rows, mask_quotes
from tickcast.model.forecast import PATH_S
from tickcast.model.network import HAS_QUOTES, SIGMA, damping
from tickcast.model.reference import (
    INPUTS,
    MAX_WEIGHT,
    ReferenceWeights,
    corrected,
    fit_weights,
    has_reference,
)
from tickcast.model.training import paths_bp, train

HAS_REFERENCE = FEATURE_NAMES.index("has_reference")
BASIS = FEATURE_NAMES.index("basis_deviation")
WEIGHTS = ReferenceWeights(0.5, [[0.1] * len(PATH_S), [0.2] * len(PATH_S), [-0.3] * len(PATH_S)])


def with_reference(seed: int, rows: int, strength: float) -> Rows:
    """Rows whose moves the imbalance and, by `strength`, the deviation of the basis predict."""
    found = planted(seed, rows, 0.6)
    found.features[:, HAS_REFERENCE] = 1.0
    units_bp = found.features[:, [SIGMA]] * np.sqrt(np.array(PATH_S))
    units_bp = units_bp * damping(found.features[:, [SIGMA]], np.array([0.5]))
    moves_bp = found.moves_bp + strength * found.features[:, [BASIS]] * units_bp
    return found._replace(moves_bp=np.where(found.moves_bp == 0, 0.0, moves_bp))


def squared_error(expected_bp: Floats, rows: Rows) -> float:
    units_bp = rows.features[:, [SIGMA]] * np.sqrt(np.array(PATH_S))
    return float((((rows.moves_bp - expected_bp) / units_bp) ** 2).mean())


def test_it_is_used_where_it_gains_and_only_there() -> None:
    markets = {
        "BTC": with_reference(1, 9000, 0.4),
        "ETH": with_reference(2, 9000, 0.0),
        "SOL": planted(3, 9000, 0.6),  # has no reference
    }
    trained = train(markets, FAST)
    weights, gains = trained.references
    assert set(weights) == {"BTC"}
    assert set(gains) == {"BTC", "ETH"}
    assert gains["BTC"].is_clear and min(gains["BTC"].gain.values()) > 0.01
    assert not gains["ETH"].is_clear and max(map(abs, gains["ETH"].gain.values())) < 0.01
    fresh = with_reference(4, 4000, 0.4)
    without, btc, eth = (
        squared_error(paths_bp(trained.network, symbol, fresh, used), fresh)
        for symbol, used in (("BTC", {}), ("BTC", weights), ("ETH", weights))
    )
    assert btc < 0.95 * without
    assert eth == without
    by_name = dict(zip(INPUTS, np.array(weights["BTC"].weights), strict=True))
    assert by_name["basis_deviation"].min() > 0.15  # of 0.4: clipped and shrunk
    assert np.abs(by_name["reference_imbalance"]).max() < 0.1


def test_few_rows_with_a_reference_are_no_evidence() -> None:
    rows = with_reference(1, 6000, 0.4)
    rows.features[:, HAS_REFERENCE] = np.arange(6000) >= 5100
    assert train({"BTC": rows}, replace(FAST, test_share=0)).references == ({}, {})


def test_a_correction_is_that_of_the_row_and_its_market_alone() -> None:
    rows = with_reference(1, 60, 0.4)
    rows.features[::3, HAS_REFERENCE] = 0.0
    rows.features[1::3, HAS_QUOTES] = np.arange(20) % 2
    symbols = ["BTC", "ETH", "SOL", "XRP"] * 15
    scale_bp = rows.features[:, [SIGMA]] * np.sqrt(np.array(PATH_S))
    weights = {"BTC": WEIGHTS, "ETH": ReferenceWeights(1.0, WEIGHTS.weights)}
    found = corrected(symbols, rows.features, rows.moves_bp, scale_bp, weights)
    for at, symbol in enumerate(symbols):
        one = slice(at, at + 1)
        alone = corrected([symbol], rows.features[one], rows.moves_bp[one], scale_bp[one], weights)
        np.testing.assert_array_equal(alone, found[one])  # bit for bit
        is_corrected = symbol in weights and bool(has_reference(rows.features[one])[0])
        assert (alone != rows.moves_bp[one]).any() == is_corrected
    assert corrected(symbols, rows.features, rows.moves_bp, scale_bp, {}) is rows.moves_bp


def test_exchanging_buyers_and_sellers_flips_the_correction() -> None:
    rows = with_reference(1, 50, 0.4)
    mirrored = rows.features.copy()
    for name in INPUTS:
        mirrored[:, FEATURE_NAMES.index(name)] *= -1
    scale_bp, none = np.ones((50, len(PATH_S))), np.zeros((50, len(PATH_S)))
    one, other = (
        corrected(["BTC"] * 50, features, none, scale_bp, {"BTC": WEIGHTS})
        for features in (rows.features, mirrored)
    )
    assert np.abs(one).min() > 0
    np.testing.assert_array_equal(one, -other)


def test_without_quotes_there_is_no_basis() -> None:
    masked = mask_quotes(with_reference(1, 50, 0.4))
    assert not masked.features[:, [HAS_REFERENCE, BASIS]].any()
    assert not has_reference(masked.features).any()


def test_an_input_that_hardly_varies_leaves_a_card_that_serves() -> None:
    rows = with_reference(1, 3000, 4.0)
    network = train({"BTC": planted(2, 3000, 0.6)}, FAST).network
    rows.features[:, BASIS] *= 0.01
    weights = np.array(fit_weights({"BTC": rows}, network)["BTC"].weights)
    assert np.abs(weights).max() == MAX_WEIGHT

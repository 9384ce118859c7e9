"""The prediction on a second's features: its numbers, cost and edge, and the reasons for fallbacks."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import asdict

from tests.fixtures.market import START_US, batch, random_ticks
from tests.fixtures.records import known
from tickcast.features.ring import BarRing
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.model.calibration import USUAL_STRENGTH, Calibrator
from tickcast.model.forecast import HORIZONS_S, Calibration, ModelError
from tickcast.serving.outcomes import PendingPredictions
from tickcast.serving.prediction import (
    RunModel,
    ServingModel,
    TradingTerms,
    challenger_record,
    features_record,
    prediction_record,
)
from tickcast.serving.records import Features, Prediction

MOVES_BP = np.array([0.4, -0.8, 1.6, -25.0])
SCALES_BP = np.sqrt(np.array(HORIZONS_S, float))
P_FLAT = np.array([0.6, 0.4, 0.2, 0.1])
CARD = {h: Calibration(direction_slope=1.0, interval_width=1.5) for h in HORIZONS_S}
TERMS = TradingTerms(primary_horizon_s=2, fee_bp=5.0, min_confidence=0.6)


def returning(moves_bp: np.ndarray = MOVES_BP, scales_bp: np.ndarray = SCALES_BP) -> RunModel:
    return lambda rows: (moves_bp[None], scales_bp[None], P_FLAT[None])


def model(**changed: Any) -> ServingModel:
    return replace(ServingModel("m1", False, CARD, returning()), **changed)


def features_of(seconds: float = 15, quotes_until_s: float = 99) -> Features:
    trades, quotes = random_ticks(1, seconds + 1)
    ring = BarRing(100_000)
    quotes = quotes[quotes["time_us"] < START_US + quotes_until_s * 1e6]
    newest = None
    for _ in ring.fold(batch(trades, quotes), 1_000_000):
        newest = features_record("BTCUSDT", ring)
    return known(newest)


def predict(
    features: Features,
    serving: ServingModel | None,
    *,
    refusal: str | None = None,
    pending: PendingPredictions | None = None,
    terms: TradingTerms = TERMS,
) -> Prediction:
    ticking = itertools.count(step=7.0)
    return prediction_record(
        features, serving, refusal, pending or PendingPredictions(), terms, lambda: next(ticking)
    )


def test_a_prediction_has_the_model_s_numbers_and_its_inputs() -> None:
    features = features_of()
    record = predict(features, model())
    assert (record.source, record.reason, record.outside) == ("model", None, [])
    assert record.basis_price == features.mid
    assert record.features == features.features
    assert record.feature_hash == FEATURE_HASH
    assert list(record.horizons) == [1, 2, 5, 10]
    for at, (horizon_s, answer) in enumerate(zip(HORIZONS_S, record.horizons.values(), strict=True)):
        assert answer.expected_move_bp == MOVES_BP[at]
        assert answer.predicted_price == pytest.approx(known(features.mid) * (1 + MOVES_BP[at] / 1e4))
        width = (answer.upper - answer.lower) / known(features.mid) * 1e4
        assert width == pytest.approx(2 * 1.5 * np.sqrt(horizon_s))
        assert answer.p_flat == P_FLAT[at]
    primary = record.horizons[2]
    assert {name: getattr(record, name) for name in asdict(primary)} == asdict(primary)
    assert record.target_time == record.timestamp + 2000
    assert record.inference_ms == 7.0
    assert record.calibrator[2] == Calibrator(1.0, 1.5, outcomes=0, mean_square=USUAL_STRENGTH**2)


def test_the_model_gets_the_vector() -> None:
    given: list[np.ndarray] = []

    def run(rows: np.ndarray) -> Any:
        given.append(rows)
        return returning()(rows)

    features = features_of()
    predict(features, model(run=run))
    (rows,) = given
    assert rows.shape == (1, len(FEATURE_NAMES))
    assert rows[0].tolist() == list(known(features.features).values())


def test_cost_and_edge() -> None:
    features = features_of()
    record = predict(features, model())
    spread_bp = (known(features.ask_price) - known(features.bid_price)) / known(features.mid) * 1e4
    assert record.spread_bp == pytest.approx(spread_bp)
    assert record.fee_bp == 5.0
    assert record.cost_bp == pytest.approx(spread_bp + 10)
    for horizon_s, move_bp in zip(HORIZONS_S, MOVES_BP, strict=True):
        assert record.horizons[horizon_s].edge_bp == pytest.approx(abs(move_bp) - spread_bp - 10)
    assert record.edge_bp == known(record.horizons[2].edge_bp) < 0 < known(record.horizons[10].edge_bp)


def test_a_move_within_the_noise_abstains() -> None:
    record = predict(features_of(), model())
    for horizon_s, answer in zip(HORIZONS_S, record.horizons.values(), strict=True):
        at_noise = CARD[horizon_s].confidence(known(answer.noise_bp), answer.scale_bp)
        assert at_noise == pytest.approx(0.6)
        assert answer.abstains == (answer.confidence < 0.6)
    abstains = [answer.abstains for answer in record.horizons.values()]
    assert abstains == [True, False, False, False]


def test_a_model_without_directional_skill_always_abstains() -> None:
    worthless = model(calibrations={h: Calibration(0.0, 1.0) for h in HORIZONS_S})
    record = predict(features_of(), worthless, terms=TradingTerms(2, 0.0, 0.5))
    for answer in record.horizons.values():
        assert (answer.noise_bp, answer.abstains, answer.confidence) == (None, True, 0.5)


def test_calibration_is_the_current_one() -> None:
    pending = PendingPredictions()
    pending.calibrators_of("m1", CARD)[2].interval_width = 3.0
    record = predict(features_of(), model(), pending=pending)
    assert (known(record.upper) - known(record.lower)) / record.basis_price * 1e4 == pytest.approx(
        6 * np.sqrt(2)
    )
    assert record.calibrator[2].interval_width == 3.0


@pytest.mark.parametrize(
    ("serving", "refusal", "seconds", "quotes_until_s", "reason"),
    [
        (None, None, 15, 99, "no_model"),
        (None, "model_refused", 15, 99, "model_refused"),
        (model(), None, 5, 99, "warming_up"),
        (None, None, 5, 99, "warming_up"),
        (None, None, 15, 0, "no_quotes"),
        (model(support={"sigma_bp": (50.0, 60.0), "spread": (-9.0, 9.0)}), None, 15, 99, "outside_support"),
        (model(run=returning(MOVES_BP * np.nan)), None, 15, 99, "model_refused"),
        (model(run=returning(scales_bp=SCALES_BP * 0)), None, 15, 99, "model_refused"),
    ],
)
def test_each_reason_for_a_fallback(
    serving: ServingModel | None, refusal: str | None, seconds: float, quotes_until_s: float, reason: str
) -> None:
    features = features_of(seconds, quotes_until_s)
    record = predict(features, serving, refusal=refusal)
    assert (record.source, record.reason) == ("fallback", reason)
    assert (record.confidence, record.abstains, record.horizons) == (0.0, True, {})
    assert record.predicted_price == record.basis_price
    assert {getattr(record, name) for name in ("expected_move_bp", "lower", "noise_bp", "edge_bp")} == {None}
    assert record.outside == (["sigma_bp"] if reason == "outside_support" else [])


def test_without_quotes_the_numbers_are_the_masked_model_s() -> None:
    features = features_of(25, quotes_until_s=15)
    assert known(features.features)["has_quotes"] == 0 and features.mid is None
    record = predict(features, model())
    assert (record.source, record.reason, record.model_id) == ("fallback", "no_quotes", "m1")
    assert record.basis_price == features.proxy_mid
    assert record.expected_move_bp == MOVES_BP[1]
    assert known(record.lower) < record.predicted_price < known(record.upper)
    assert (record.spread_bp, record.cost_bp, record.edge_bp) == (None, None, None)
    assert all(answer.abstains for answer in record.horizons.values())


def test_a_model_that_never_saw_masked_rows_gives_no_numbers_without_quotes() -> None:
    record = predict(features_of(25, quotes_until_s=15), model(support={"has_quotes": (1.0, 1.0)}))
    assert (record.reason, record.outside) == ("no_quotes", ["has_quotes"])
    assert record.horizons == {}


def test_without_quotes_the_masked_calibration_applies() -> None:
    masked = {h: Calibration(direction_slope=0.1, interval_width=2.5) for h in HORIZONS_S}
    serving, pending = model(masked_calibrations=masked), PendingPredictions()
    record = predict(features_of(seconds=25, quotes_until_s=12), serving, pending=pending)
    assert record.reason == "no_quotes"
    assert record.calibrator[5].interval_width == 2.5
    assert predict(features_of(), serving, pending=pending).calibrator[5].interval_width == 1.5


def test_the_challenger_forecasts_on_the_same_vector() -> None:
    pending = PendingPredictions()
    record = predict(features_of(), model(), pending=pending)
    shadow = challenger_record(record, model(model_id="m2", run=returning(-MOVES_BP)), pending)
    assert shadow.model_id == "m2"
    assert [answer.expected_move_bp for answer in shadow.horizons.values()] == (-MOVES_BP).tolist()
    assert pending.calibrators.keys() == {"m1", "m2"}
    with pytest.raises(ModelError, match="model m3 answers"):
        challenger_record(record, model(model_id="m3", run=returning(MOVES_BP * np.inf)), pending)


def test_features_of_the_minute() -> None:
    trades, quotes = random_ticks(3, 90)
    ring = BarRing(100_000)
    record = [features_record("BTCUSDT", ring) for _ in ring.fold(batch(trades, quotes), 1_000_000)][-1]
    assert record is not None
    instant_us = record.timestamp * 10**6
    minute = trades[(trades["time_us"] >= instant_us - 60_000_000) & (trades["time_us"] < instant_us)]
    prices, volumes = minute["price"] / 1e8, minute["qty"] / 1e8
    assert (record.price, record.trade_count) == (prices[-1], len(minute))
    assert record.volume == pytest.approx(volumes.sum(), rel=1e-12)
    assert record.vwap == pytest.approx((prices * volumes).sum() / volumes.sum(), rel=1e-9)
    then, now = (quotes[quotes["time_us"] < us][-1] for us in (instant_us - 60_000_000, instant_us))
    change = (now["bid_price"] + now["ask_price"]) / (then["bid_price"] + then["ask_price"]) - 1
    assert record.price_change == pytest.approx(change * 100)
    assert record.features is not None


def test_a_forecast_whose_interval_reaches_no_positive_price_is_refused() -> None:
    """It has no price that a record could have."""
    wide = model(
        run=returning(scales_bp=SCALES_BP * 300),
        calibrations={h: Calibration(direction_slope=1.0, interval_width=50.0) for h in HORIZONS_S},
    )
    record = predict(features_of(), wide)
    assert (record.source, record.reason, record.horizons) == ("fallback", "model_refused", {})
    far_down = replace(wide, run=returning(moves_bp=MOVES_BP - 10_001), calibrations=CARD)
    assert predict(features_of(), far_down).reason == "model_refused"
    with pytest.raises(ModelError, match="model m1 answers"):
        challenger_record(predict(features_of(), model()), wide, PendingPredictions())

"""The forecast on a row, the answer at any age, and the receipt: numbers, cost and edge, and the reasons for
fallbacks."""

import itertools
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import asdict

from tests.fixtures.market import START_US, batch, random_ticks
from tests.fixtures.records import known
from tickcast.features.ring import BarRing
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.model.calibration import USUAL_STRENGTH, Calibrator
from tickcast.model.forecast import HORIZONS_S, PATH_S, Calibration, ModelError, RunModel, remaining
from tickcast.serving.outcomes import PendingPredictions
from tickcast.serving.prediction import (
    Row,
    ServingModel,
    TradingTerms,
    challenger_forecasts,
    evaluated,
    fallback,
    features_record,
    freshness,
    path_forecasts,
    receipt,
    row_of,
)
from tickcast.serving.records import Features, PathForecast, Prediction

TIMES_S = np.array(PATH_S)
MOVES_BP = np.round(1.6 * np.tanh(TIMES_S) - 0.02 * TIMES_S, 5)
SCALES_BP = np.round(np.sqrt(TIMES_S), 5)
P_FLAT = np.round(np.exp(-TIMES_S), 5)
CARD = {h: Calibration(direction_slope=1.0, interval_width=1.5) for h in HORIZONS_S}
TERMS = TradingTerms(primary_horizon_s=2, fee_bp=0.05, min_confidence=0.6)


def returning(moves_bp: np.ndarray = MOVES_BP, scales_bp: np.ndarray = SCALES_BP) -> RunModel:
    return lambda rows: tuple(np.tile(v, (len(rows), 1)) for v in (moves_bp, scales_bp, P_FLAT))  # type: ignore[return-value]


def model(**changed: Any) -> ServingModel:
    return replace(ServingModel("m1", False, CARD, returning()), **changed)


def row_after(seconds: float = 15, quotes_until_s: float = 99, seed: int = 1) -> Row:
    trades, quotes = random_ticks(seed, seconds)
    quotes = quotes[quotes["time_us"] < START_US + quotes_until_s * 1e6]
    ring = BarRing(100_000)
    list(ring.fold(batch(trades, quotes), 1_000_000))
    return known(row_of("BTCUSDT", ring.view(), -1))


def forecast(
    row: Row,
    serving: ServingModel | None,
    *,
    refusal: str | None = None,
    pending: PendingPredictions | None = None,
    terms: TradingTerms = TERMS,
    latency_ms: int = 200,
) -> PathForecast:
    ticking = itertools.count(step=7.0)
    (found,) = path_forecasts(
        [(row, pending or PendingPredictions())], serving, refusal, terms, lambda: next(ticking)
    )
    found.latency_ms = latency_ms
    return found


def predict(row: Row, serving: ServingModel | None, **options: Any) -> Prediction:
    return receipt(forecast(row, serving, **options), row)


def features_of(seconds: float = 15, quotes_until_s: float = 99) -> Features:
    return features_record(row_after(seconds, quotes_until_s))


def test_a_receipt_has_the_forecast_as_it_was_delivered() -> None:
    row = row_after()
    record = predict(row, model(), latency_ms=200)
    assert (record.source, record.reason, record.outside) == ("model", None, [])
    assert record.basis_price == row.mid == features_of().mid
    assert record.features == features_of().features
    assert record.feature_hash == FEATURE_HASH
    path = known(record.path)
    assert (path.move_bp, path.scale_bp, path.p_flat) == tuple(
        v.tolist() for v in (MOVES_BP, SCALES_BP, P_FLAT)
    )
    assert list(record.horizons) == [1, 2, 5, 10]
    for horizon_s, answer in record.horizons.items():
        rest = remaining(path, 0.2, horizon_s)
        found = (answer.expected_move_bp, answer.scale_bp, answer.p_flat)
        assert found == pytest.approx(rest, rel=1e-8)
        # The price at the target has moved by the whole path.
        whole_bp = MOVES_BP[PATH_S.index(0.2)] + rest.move_bp
        assert answer.predicted_price == pytest.approx(known(row.mid) * (1 + whole_bp / 1e4), rel=1e-8)
    primary = record.horizons[2]
    assert {name: getattr(record, name) for name in asdict(primary)} == asdict(primary)
    assert record.target_time == record.timestamp + 200 + 2000
    assert record.inference_ms == 7.0
    assert record.calibrator[2] == Calibrator(1.0, 1.5, outcomes=0, mean_square=USUAL_STRENGTH**2)


def test_a_receipt_lists_the_ticks_of_the_open_bars() -> None:
    row = row_after()
    record = predict(row, model())
    assert record.closed_us == row.view.closed_us < row.view.as_of_us
    assert np.cumsum(record.open_ids).tolist() == row.view.trade_ids.tolist() != []
    assert np.cumsum(record.open_update_ids).tolist() == row.view.update_ids.tolist() != []
    assert record.open_update_ids[1] < 100 < record.open_update_ids[0]
    trades, quotes = random_ticks(1, 15)
    assert record.last_trade_id == trades["last_id"][-1] and record.update_id == quotes["update_id"][-1]
    assert known(record.feature_age_ms) == min(known(record.trade_age_ms), known(record.quote_age_ms))


def test_the_answer_depends_on_the_age_of_its_reader() -> None:
    found = forecast(row_after(), model())
    at_once, later = evaluated(found, 0.0), evaluated(found, 1.0)
    assert at_once[1].expected_move_bp == pytest.approx(MOVES_BP[PATH_S.index(1.0)])
    assert later[1].expected_move_bp == pytest.approx(
        MOVES_BP[PATH_S.index(2.0)] - MOVES_BP[PATH_S.index(1.0)]
    )
    assert 0 < later[1].confidence < at_once[1].confidence


def test_the_model_gets_the_vectors_of_all_rows_at_once() -> None:
    given: list[np.ndarray] = []

    def run(rows: np.ndarray) -> Any:
        given.append(rows)
        return rows[:, :1] * MOVES_BP, np.tile(SCALES_BP, (len(rows), 1)), np.tile(P_FLAT, (len(rows), 1))

    rows = [row_after(seed=seed) for seed in (1, 2, 3)]
    rows.insert(1, row_after(5))  # warming up
    pairs = [(row, PendingPredictions()) for row in rows]
    found = path_forecasts(pairs, model(run=run), None, TERMS, lambda: 0.0)
    (vectors,) = given
    assert vectors.shape == (3, len(FEATURE_NAMES))
    assert vectors.tolist() == [row.vector for row in rows if row.vector]
    assert [each.reason for each in found] == [None, "warming_up", None, None]
    for row, each in zip(rows, found, strict=True):
        assert (each.path is None) == (row.vector is None)
        if row.vector:
            assert known(each.path).move_bp == np.round(row.vector[0] * MOVES_BP, 5).tolist()


def test_a_row_without_a_sound_path_affects_no_other() -> None:
    def run(rows: np.ndarray) -> Any:
        moves, scales, flat = returning()(rows)
        moves[1] = np.nan
        return moves, scales, flat

    def raises(rows: np.ndarray) -> Any:
        if len(rows) > 1 or rows[0].tolist() == second.vector:
            raise RuntimeError("no memory")
        return returning()(rows)

    first, second = row_after(seed=1), row_after(seed=2)
    for serving in (model(run=run), model(run=raises)):
        reports: list[str] = []
        pairs = [(row, PendingPredictions()) for row in (first, second)]
        found = path_forecasts(pairs, serving, None, TERMS, lambda: 0.0, reports.append)
        assert [each.reason for each in found] == [None, "model_refused"]
        assert len(reports) == 1 and "model m1" in reports[0]


def test_cost_and_edge() -> None:
    features = features_of()
    record = predict(row_after(), model())
    spread_bp = (known(features.ask_price) - known(features.bid_price)) / known(features.mid) * 1e4
    assert record.spread_bp == pytest.approx(spread_bp)
    assert record.fee_bp == 0.05
    assert record.cost_bp == pytest.approx(spread_bp + 0.1)
    for answer in record.horizons.values():
        edge_bp = abs(answer.expected_move_bp) - spread_bp - 0.1
        assert answer.edge_bp == pytest.approx(edge_bp)
        assert answer.worth_trading == (edge_bp > 0)
    assert {answer.worth_trading for answer in record.horizons.values()} == {True}
    dear = predict(row_after(), model(), terms=replace(TERMS, fee_bp=5.0))
    assert {answer.worth_trading for answer in dear.horizons.values()} == {False}


def test_a_move_within_the_noise_abstains() -> None:
    record = predict(row_after(), model())
    for horizon_s, answer in record.horizons.items():
        at_noise = CARD[horizon_s].confidence(known(answer.noise_bp), answer.scale_bp)
        assert at_noise == pytest.approx(0.6)
        assert answer.abstains == (answer.confidence < 0.6)
    assert {answer.abstains for answer in record.horizons.values()} == {True, False}


def test_a_model_without_directional_skill_always_abstains() -> None:
    worthless = model(calibrations={h: Calibration(0.0, 1.0) for h in HORIZONS_S})
    record = predict(row_after(), worthless, terms=TradingTerms(2, 0.0, 0.5))
    for answer in record.horizons.values():
        assert (answer.noise_bp, answer.abstains, answer.confidence) == (None, True, 0.5)


def test_calibration_is_the_current_one() -> None:
    pending = PendingPredictions()
    pending.calibrators_of("m1", CARD)[2].interval_width = 3.0
    found = forecast(row_after(), model(), pending=pending)
    answer = evaluated(found, 0.0)[2]
    assert (answer.upper - answer.lower) / found.basis_price * 1e4 == pytest.approx(6 * np.sqrt(2), abs=1e-4)
    assert found.calibrator[2].interval_width == 3.0
    assert found.calibrator[2] is not pending.calibrators["m1"][2]


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
        (model(run=returning(scales_bp=SCALES_BP[::-1])), None, 15, 99, "model_refused"),
        (model(run=returning(MOVES_BP[:4], SCALES_BP[:4])), None, 15, 99, "model_refused"),
    ],
)
def test_each_reason_for_a_fallback(
    serving: ServingModel | None, refusal: str | None, seconds: float, quotes_until_s: float, reason: str
) -> None:
    record = predict(row_after(seconds, quotes_until_s), serving, refusal=refusal)
    assert (record.source, record.reason) == ("fallback", reason)
    assert (record.confidence, record.abstains, record.horizons) == (0.0, True, {})
    assert (record.path, record.calibrator) == (None, {})
    assert record.predicted_price == record.basis_price
    assert {getattr(record, name) for name in ("expected_move_bp", "lower", "noise_bp", "edge_bp")} == {None}
    assert record.outside == (["sigma_bp"] if reason == "outside_support" else [])


def test_without_quotes_the_numbers_are_the_masked_model_s() -> None:
    row = row_after(25, quotes_until_s=15)
    assert known(row.vector)[FEATURE_NAMES.index("has_quotes")] == 0 and row.mid is None
    record = predict(row, model())
    assert (record.source, record.reason, record.model_id) == ("fallback", "no_quotes", "m1")
    assert record.basis_price == row.proxy_mid
    assert record.expected_move_bp == record.horizons[2].expected_move_bp
    assert known(record.lower) < record.predicted_price < known(record.upper)
    assert (record.spread_bp, record.cost_bp, record.edge_bp, record.worth_trading) == (None,) * 4
    assert all(answer.abstains for answer in record.horizons.values())


def test_a_model_that_never_saw_masked_rows_gives_no_numbers_without_quotes() -> None:
    record = predict(row_after(25, quotes_until_s=15), model(support={"has_quotes": (1.0, 1.0)}))
    assert (record.reason, record.outside) == ("no_quotes", ["has_quotes"])
    assert record.horizons == {}


def test_without_quotes_the_masked_calibration_applies() -> None:
    masked = {h: Calibration(direction_slope=0.1, interval_width=2.5) for h in HORIZONS_S}
    serving, pending = model(masked_calibrations=masked), PendingPredictions()
    record = predict(row_after(seconds=25, quotes_until_s=12), serving, pending=pending)
    assert record.reason == "no_quotes"
    assert record.calibrator[5].interval_width == 2.5
    assert predict(row_after(), serving, pending=pending).calibrator[5].interval_width == 1.5


def test_the_challenger_forecasts_on_the_same_vector() -> None:
    row, pending = row_after(), PendingPredictions()
    rows = [(row, pending), (row_after(5), PendingPredictions())]
    found = path_forecasts(rows, model(), None, TERMS, lambda: 0.0)
    found[0].latency_ms = 200
    shadow, none = challenger_forecasts(rows, found, model(model_id="m2", run=returning(-MOVES_BP)))
    assert none is None and shadow is not None and not isinstance(shadow, ModelError)
    assert shadow.model_id == "m2"
    assert known(shadow.path).move_bp == (-MOVES_BP).tolist()
    theirs, ours = shadow.horizons, evaluated(found[0], 0.2)
    expected = [-answer.expected_move_bp for answer in ours.values()]
    assert [answer.expected_move_bp for answer in theirs.values()] == pytest.approx(expected, rel=1e-8)
    assert pending.calibrators.keys() == {"m1", "m2"}
    refused, _ = challenger_forecasts(rows, found, model(model_id="m3", run=returning(MOVES_BP * np.inf)))
    assert isinstance(refused, ModelError) and "model m3 answers" in str(refused)


def test_features_of_the_minute() -> None:
    trades, quotes = random_ticks(3, 90)
    ring = BarRing(100_000)
    list(ring.fold(batch(trades, quotes), 1_000_000))
    at_us = ring.closed_us
    record = features_record(known(row_of("BTCUSDT", ring.view(at_us), START_US)))
    minute = trades[(trades["time_us"] >= at_us - 60_000_000) & (trades["time_us"] < at_us)]
    prices, volumes = minute["price"] / 1e8, minute["qty"] / 1e8
    assert (record.price, record.trade_count) == (prices[-1], len(minute))
    assert (record.timestamp, record.quiet_us) == (at_us // 10**6, START_US)
    assert record.volume == pytest.approx(volumes.sum(), rel=1e-12)
    assert record.vwap == pytest.approx((prices * volumes).sum() / volumes.sum(), rel=1e-9)
    then, now = (quotes[quotes["time_us"] < us][-1] for us in (at_us - 60_000_000, at_us))
    change = (now["bid_price"] + now["ask_price"]) / (then["bid_price"] + then["ask_price"]) - 1
    assert record.price_change == pytest.approx(change * 100)
    assert record.features is not None


def test_nothing_is_known_before_the_first_tick() -> None:
    assert row_of("BTCUSDT", BarRing(100_000).view(0), -1) is None


def test_a_forecast_whose_interval_reaches_no_positive_price_is_refused() -> None:
    """It has no price that a record could have."""
    wide = model(
        run=returning(scales_bp=SCALES_BP * 300),
        calibrations={h: Calibration(direction_slope=1.0, interval_width=50.0) for h in HORIZONS_S},
    )
    far_down = replace(wide, run=returning(moves_bp=MOVES_BP - 10_001), calibrations=CARD)
    for serving in (wide, far_down):
        record = predict(row_after(), serving)
        assert (record.source, record.reason, record.horizons) == ("fallback", "model_refused", {})


def test_a_calibration_that_is_not_finite_gives_no_forecast() -> None:
    pending = PendingPredictions()
    pending.calibrators_of("m1", CARD)[5].direction_slope = np.nan
    found = forecast(row_after(), model(), pending=pending)
    assert (found.reason, found.path, found.calibrator) == ("model_refused", None, {})


@pytest.mark.parametrize(
    ("now_s", "tick_s", "quiet_s", "expected"),
    [
        (1.0, 0.0, None, (False, False)),
        (4.0, -2.0, None, (False, True)),
        (4.0, -2.0, 3.5, (True, False)),
        (5.1, 5.0, 5.0, (False, True)),
    ],
)
def test_freshness(now_s: float, tick_s: float, quiet_s: float | None, expected: tuple[bool, bool]) -> None:
    """As of second 0; ticks and quiet after it."""
    found = forecast(row_after(), model())
    start_us = found.timestamp * 1000
    found = msgspec.structs.replace(
        found,
        last_tick_us=start_us + round(tick_s * 1e6),
        quiet_us=None if quiet_s is None else start_us + round(quiet_s * 1e6),
    )
    fresh = freshness(found, found.timestamp + now_s * 1000, 5.0)
    assert fresh.claim_age_s == pytest.approx(now_s)
    assert (fresh.is_quiet, fresh.is_stale) == expected


def test_a_stale_prediction_becomes_a_fallback() -> None:
    record = fallback(predict(row_after(), model()), 100.0, "stale_features")
    assert (record.source, record.reason, record.predicted_price) == ("fallback", "stale_features", 100.0)
    assert (record.horizons, record.path, record.worth_trading) == ({}, None, None)

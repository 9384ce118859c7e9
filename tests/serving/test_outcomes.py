"""Outcomes of predictions: each once, in order, and never guessed."""

import json
import math
from typing import Any

import pytest
from msgspec.structs import replace

from tests.fixtures import records
from tests.fixtures.market import START_US, batch, random_ticks
from tickcast.features.bars import BAR_US, mids, spreads_bp
from tickcast.features.ring import BarRing
from tickcast.market.ticks import SCALE
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import HORIZONS_S, Calibration
from tickcast.serving.outcomes import PendingPredictions, PriceAt, mid_at, spread_at
from tickcast.serving.records import ChallengerForecast, Outcome, Prediction, decode, encode

T0_MS = 1_754_000_000_000
CARD = {h: Calibration(2.0, 1.0) for h in HORIZONS_S}


def prediction(after_s: int = 0, **changed: Any) -> Prediction:
    """Delivered at once, it expects +1 bp, 3 bp more or less, over every horizon."""
    return records.prediction(T0_MS + after_s * 1000, **{"latency_ms": 0} | changed)


def fallback(after_s: int = 0) -> Prediction:
    return records.without_forecast(T0_MS + after_s * 1000, latency_ms=0)


def at(after_s: float) -> int:
    return round((T0_MS / 1000 + after_s) * 1e6)


def resolve(
    pending: PendingPredictions,
    after_s: float,
    price: float | None = 100.0,
    spread_at: PriceAt = lambda _: 2.0,
) -> list[Outcome]:
    """The mid is 100 until now, and `price` at this instant."""
    now_us = at(after_s)
    return pending.resolve(now_us, lambda us: price if us > now_us - 1_000_000 else 100.0, spread_at)


def test_each_horizon_is_resolved_by_the_mid_at_its_target_and_once() -> None:
    pending, found = PendingPredictions(), []
    pending.expect(prediction())
    assert resolve(pending, 0) == []
    for second in range(1, 15):
        found += resolve(pending, second, 100 + second / 100)
    assert [outcome.horizon_s for outcome in found] == list(HORIZONS_S)
    for outcome, horizon_s in zip(found, HORIZONS_S, strict=True):
        assert (outcome.status, outcome.why) == ("resolved", None)
        assert outcome.target_time == T0_MS + horizon_s * 1000
        assert (outcome.delivered_price, outcome.outcome_price) == (100.0, 100 + horizon_s / 100)
        assert outcome.move_bp == pytest.approx(horizon_s)
        assert outcome.inside == (horizon_s <= 4)
        assert outcome.hindsight_move_bp == outcome.move_bp  # it was delivered at once
        assert outcome.hindsight_expected_bp == horizon_s  # of the path, which rises by 1 bp a second
        assert (outcome.right, outcome.imbalance) == (True, 0.5)
    assert not pending.pending


@pytest.mark.parametrize(
    ("price", "inside", "right"),
    [
        (100.01, True, True),
        (99.99, True, False),
        (99.9, False, False),
        (100.0, True, None),
        (100.05, False, True),
    ],
)
def test_right_and_inside(price: float, inside: bool, right: bool | None) -> None:
    pending = PendingPredictions()
    pending.expect(prediction())
    resolve(pending, 0)
    (outcome,) = resolve(pending, 1, price)
    assert (outcome.inside, outcome.right) == (inside, right)


def test_only_what_was_still_to_come_at_delivery_counts() -> None:
    """By hand: as of 0.037 s, delivered at 0.337 s, when the mid is 100.04 (the bar ends at 0.4 s)."""
    pending = PendingPredictions()
    worth_trading = {h: records.horizon(h, worth_trading=h == 1) for h in HORIZONS_S}
    pending.expect(prediction(timestamp=T0_MS + 37, latency_ms=300, horizons=worth_trading))
    assert resolve(pending, 0.3) == []

    def price_at(instant_us: int) -> float:
        bar_s = -(-(instant_us - at(0)) // 100_000) / 10  # at the end of its bar
        return 100 + bar_s / 10

    def spread_at(instant_us: int) -> float:
        return price_at(instant_us) - 99

    # The target, 1.337 s, is in the bar that ends at 1.4 s.
    assert pending.resolve(at(1.3), price_at, spread_at) == []
    (outcome,) = pending.resolve(at(1.4), price_at, spread_at)
    assert outcome.target_time == T0_MS + 1337
    assert (outcome.delivered_price, outcome.outcome_price) == pytest.approx((100.04, 100.14))
    assert outcome.move_bp == pytest.approx((100.14 / 100.04 - 1) * 1e4)
    assert outcome.hindsight_move_bp == pytest.approx((100.11 / 100 - 1) * 1e4)  # 1.037 s: until 1.1 s
    # Who acts pays half of each spread: 1.04 bp when it was delivered, 1.14 bp at the target.
    assert outcome.spread_paid_bp == pytest.approx((1.04 + 1.14) / 2)
    assert (outcome.fee_bp, outcome.worth_trading) == (10.0, True)


def test_a_batch_that_closes_twelve_seconds_resolves_every_target_once() -> None:
    pending, found = PendingPredictions(), []
    for second in range(3):
        pending.expect(prediction(second, latency_ms=150 + 900 * second))
    for second in range(0, 16):  # as the ring yields them, all within one invocation
        found += resolve(pending, second)
    assert len(found) == 3 * len(HORIZONS_S) and {outcome.status for outcome in found} == {"resolved"}
    entries = [(outcome.target_time, outcome.horizon_s) for outcome in found]
    assert entries == sorted(set(entries))


def test_a_missed_target_is_a_gap_and_a_missing_mid_is_no_quotes() -> None:
    pending = PendingPredictions()
    pending.expect(prediction())
    resolve(pending, 0)
    assert [(o.horizon_s, o.why) for o in resolve(pending, 1, None)] == [(1, "gap")]
    assert [(o.horizon_s, o.why) for o in resolve(pending, 2, math.nan)] == [(2, "no_quotes")]
    left = pending.resolve(at(60), lambda _: None, lambda _: None)
    assert [(o.horizon_s, o.status, o.why) for o in left] == [
        (5, "unresolved", "gap"),
        (10, "unresolved", "gap"),
    ]
    for outcome in left:
        assert {getattr(outcome, name) for name in ("outcome_price", "move_bp", "inside", "right")} == {None}
    assert resolve(pending, 61) == []


@pytest.mark.parametrize(("delivered", "why"), [(None, "gap"), (math.nan, "no_quotes")])
def test_without_a_mid_at_the_delivery_there_is_no_outcome(delivered: float | None, why: str) -> None:
    pending = PendingPredictions()
    pending.expect(prediction(latency_ms=200))
    found = []
    for second in range(12):
        found += pending.resolve(at(second), lambda us: delivered if us == at(0.2) else 100.0, lambda _: 2.0)
    assert [(outcome.status, outcome.why) for outcome in found] == [("unresolved", why)] * len(HORIZONS_S)


@pytest.mark.parametrize("latency_ms", [5001, 3_600_000])
def test_what_was_delivered_too_late_to_be_served_is_not_scored(latency_ms: int) -> None:
    """And is not pending for longer than what was served."""
    pending, found = PendingPredictions(), []
    pending.calibrators_of("m1", CARD)
    pending.expect(prediction(latency_ms=latency_ms))
    for second in range(17):
        found += resolve(pending, second)
    assert [(outcome.status, outcome.why) for outcome in found] == [("unresolved", "stale")] * len(HORIZONS_S)
    assert [outcome.target_time - T0_MS for outcome in found] == [5000 + 1000 * h for h in HORIZONS_S]
    assert pending.calibrators_of("m1", CARD)[1].outcomes == 0


def test_outcomes_come_in_the_order_of_their_entries() -> None:
    pending, found = PendingPredictions(), []
    for second in range(12):
        found += resolve(pending, second) if second != 7 else []
        pending.expect(prediction(second))
    found += resolve(pending, 40)
    entries = [(outcome.target_time, outcome.horizon_s) for outcome in found]
    assert entries == sorted(set(entries))
    assert len(entries) == 12 * len(HORIZONS_S)


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_without_both_spreads_nothing_is_known_of_what_acting_costs(unknown: float | None) -> None:
    for instant_us, is_known in ((at(0), False), (at(1), False), (at(3), True)):
        pending = PendingPredictions()
        pending.expect(prediction())

        def spread_at(us: int, missing: int = instant_us) -> float | None:
            return unknown if us == missing else 2.0

        resolve(pending, 0, spread_at=spread_at)
        (outcome,) = resolve(pending, 1, spread_at=spread_at)
        assert outcome.spread_paid_bp == (2.0 if is_known else None)
        assert outcome.move_bp == 0


def test_a_fallback_without_a_forecast_is_resolved_for_the_count() -> None:
    pending = PendingPredictions()
    pending.calibrators_of("m1", CARD)
    pending.expect(fallback())
    resolve(pending, 0)
    (outcome,) = resolve(pending, 1, 101.0)
    assert (outcome.status, outcome.source) == ("resolved", "fallback")
    assert outcome.move_bp == pytest.approx(100)
    of_forecast = ("expected_move_bp", "half_width_bp", "confidence", "worth_trading")
    names = (*of_forecast, "inside", "right", "imbalance", "challenger")
    assert {getattr(outcome, name) for name in names} == {None}
    assert outcome.abstains is True
    assert pending.calibrators_of("m1", CARD)[1].outcomes == 0


def test_calibrators_are_updated_by_their_own_model_only() -> None:
    pending = PendingPredictions()
    pending.calibrators_of("m1", CARD), pending.calibrators_of("m2", CARD)
    pending.expect(prediction())
    masked = prediction(1, source="fallback", reason="no_quotes")
    pending.expect(masked)
    for second in range(12):
        resolve(pending, second, 100.01)
    counts = {id_: [c.outcomes for c in of.values()] for id_, of in pending.calibrators.items()}
    assert counts == {"m1": [1, 1, 1, 1], "m2": [0, 0, 0, 0]}
    pending.keep_calibrators(["m2", "m3"])
    pending.expect(prediction(12))
    resolve(pending, 12)
    resolve(pending, 13, 100.01)
    assert list(pending.calibrators) == ["m2"]
    assert pending.calibrators_of("m1", CARD)[1].outcomes == 0


def test_a_challenger_is_scored_and_calibrated_separately() -> None:
    shadow = ChallengerForecast(
        model_id="m2",
        horizons={h: records.horizon(h, expected_move_bp=-1.0) for h in HORIZONS_S},
        calibrator={h: Calibrator(direction_slope=2.0, interval_width=1.0) for h in HORIZONS_S},
    )
    pending = PendingPredictions()
    pending.calibrators_of("m1", CARD), pending.calibrators_of("m2", CARD)
    pending.expect(prediction(challenger=shadow))
    resolve(pending, 0)
    (outcome,) = resolve(pending, 1, 100.02)
    assert (outcome.right, outcome.inside) == (True, True)
    challenger = outcome.challenger
    assert challenger is not None
    assert (challenger.model_id, challenger.right, challenger.inside) == ("m2", False, False)
    champion, other = (pending.calibrators_of(id_, CARD)[1] for id_ in ("m1", "m2"))
    assert champion.interval_width < 1 < other.interval_width
    assert other.direction_slope < 2 < champion.direction_slope


def test_pending_predictions_survive_storage() -> None:
    pending = PendingPredictions()
    pending.calibrators_of("m1", CARD)
    pending.expect(prediction(reason="no_quotes", source="fallback"))
    resolve(pending, 1)
    assert decode(PendingPredictions, encode(pending)) == pending


@pytest.mark.parametrize(
    "data", [{"pending": [{}]}, {"pending": [], "reason": None, "calibrators": {"m1": {"1": {"slope": 2}}}}]
)
def test_another_shape_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        decode(PendingPredictions, json.dumps(data))


def test_pending_predictions_are_recalled_from_receipts() -> None:
    kept, receipts = PendingPredictions(), []
    for second in range(20):
        kept.resolve(at(second), lambda _: 100.01, lambda _: 2.0)
        calibrators = kept.calibrators_of("m1", CARD)
        receipt = prediction(second, calibrator=calibrators, latency_ms=300)
        kept.expect(receipt)
        receipts.append(decode(Prediction, encode(receipt)))
    recalled = PendingPredictions.recalled(receipts[:-12:-1])
    for pending in (kept, recalled):
        pending.resolve(at(20), lambda _: 100.01, lambda _: 2.0)  # what was delivered is known by now
    assert recalled == kept


def test_without_receipts_nothing_is_recalled() -> None:
    assert PendingPredictions.recalled([]) == PendingPredictions()


def test_the_same_prediction_is_pending_once() -> None:
    pending = PendingPredictions()
    pending.expect(prediction())
    pending.expect(prediction())
    assert len(pending.pending) == 1


def test_the_mid_near_an_instant_is_that_of_the_bar_it_falls_into() -> None:
    ring = BarRing(100_000)
    list(ring.fold(batch(*random_ticks(1, 4)), 1_000_000))
    bars = ring.bars
    known = (mids(bars) / SCALE).tolist()
    for row in (5, 20, len(bars) - 1):
        end_us = int(bars["end_us"][row])
        assert mid_at(bars, end_us) == mid_at(bars, end_us - BAR_US + 1) == known[row]
        assert spread_at(bars, end_us) == spread_at(bars, end_us - BAR_US + 1) == spreads_bp(bars)[row]
    for found in (mid_at, spread_at):
        assert found(bars, int(bars["end_us"][-1]) + 1) is None
        assert found(bars, int(bars["end_us"][0]) - BAR_US) is None
        assert found(bars[:0], START_US) is None
    bars["bid_price"][-1] = 0
    for found in (mid_at, spread_at):
        assert math.isnan(records.known(found(bars, int(bars["end_us"][-1]))))


def test_receipts_of_another_release_are_recalled_as_far_as_they_go() -> None:
    calibrators = PendingPredictions().calibrators_of("m1", CARD)
    receipts = [
        prediction(2, features={"another": 1.0}, model_id="m2"),
        replace(prediction(1, calibrator=calibrators), horizons={2: "odd"}),
        prediction(0),
    ]
    recalled = PendingPredictions.recalled(receipts)
    assert [(each.timestamp - T0_MS, each.imbalance) for each in recalled.pending] == [(0, 0.5), (2000, None)]
    assert recalled.calibrators["m1"] == calibrators


def test_a_receipt_needs_no_more_than_readers_do() -> None:
    least = {
        "id": f"BTCUSDT-{T0_MS}",
        "symbol": "BTCUSDT",
        "timestamp": T0_MS,
        "horizon_s": 2,
        "target_time": T0_MS + 2000,
        "basis_price": 100.0,
        "predicted_price": 100.0,
        "confidence": 0.0,
        "source": "fallback",
    }
    receipt = decode(Prediction, json.dumps(least))
    assert (receipt.model_id, receipt.abstains, receipt.horizons, receipt.features) == (None, True, {}, None)
    assert [each.id for each in PendingPredictions.recalled([receipt]).pending] == [receipt.id]

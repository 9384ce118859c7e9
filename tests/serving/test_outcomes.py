"""What became of predictions: every outcome once, in order, and never guessed."""

import json
from typing import Any

import pytest

from tests.fixtures.market import START_US, batch, random_ticks
from tickcast.features.bars import BAR_US, mids
from tickcast.features.ring import BarRing
from tickcast.market.ticks import SCALE
from tickcast.model.forecast import HORIZONS_S, Calibration
from tickcast.serving.outcomes import PendingPredictions, mid_at, note_latency

T0_MS = 1_754_000_000_000
CARD = {h: Calibration(2.0, 1.0) for h in HORIZONS_S}


def prediction(after_s: int = 0, **changed: Any) -> dict[str, Any]:
    """One that expects +1 bp of a mid of 100, 99.98 to 100.04, whatever the horizon."""
    forecast = {"expected_move_bp": 1.0, "scale_bp": 2.0, "lower": 99.98, "upper": 100.04}
    forecast |= {"confidence": 0.7, "p_flat": 0.2, "abstains": False}
    timestamp = T0_MS + after_s * 1000
    return {
        "id": f"BTCUSDT-{timestamp}",
        "symbol": "BTCUSDT",
        "timestamp": timestamp,
        "basis_price": 100.0,
        "source": "model",
        "reason": None,
        "model_id": "m1",
        "horizons": {str(h): dict(forecast) for h in HORIZONS_S},
        "challenger": None,
        "features": {"imbalance": 0.5},
    } | changed


def fallback(after_s: int = 0) -> dict[str, Any]:
    return prediction(
        after_s, source="fallback", reason="no_model", model_id=None, horizons={}, features=None
    )


def at(after_s: float) -> int:
    return round((T0_MS / 1000 + after_s) * 1e6)


def resolve(memory: PendingPredictions, after_s: float, price: float | None = 100.0) -> list[dict[str, Any]]:
    return memory.resolve(at(after_s), lambda _: price)


def test_each_horizon_is_resolved_by_the_mid_at_its_target_and_once() -> None:
    memory, found = PendingPredictions(), []
    memory.expect(prediction())
    for second in range(1, 15):
        found += resolve(memory, second, 100 + second / 100)
    assert [outcome["horizon_s"] for outcome in found] == list(HORIZONS_S)
    for outcome, horizon_s in zip(found, HORIZONS_S, strict=True):
        assert (outcome["status"], outcome["why"]) == ("resolved", None)
        assert outcome["target_time"] == T0_MS + horizon_s * 1000
        assert outcome["outcome_price"] == 100 + horizon_s / 100
        assert outcome["move_bp"] == pytest.approx(horizon_s)
        assert outcome["inside"] == (horizon_s <= 4)
        assert (outcome["right"], outcome["imbalance"]) == (True, 0.5)
    assert not memory.pending


@pytest.mark.parametrize(
    ("price", "inside", "right"),
    [(100.01, True, True), (99.99, True, False), (99.9, False, False), (100.0, True, None)],
)
def test_what_was_right_and_what_inside(price: float, inside: bool, right: bool | None) -> None:
    memory = PendingPredictions()
    memory.expect(prediction())
    (outcome,) = resolve(memory, 1, price)
    assert (outcome["inside"], outcome["right"]) == (inside, right)


def test_a_target_that_was_passed_is_a_gap_and_one_without_a_mid_has_no_quotes() -> None:
    memory = PendingPredictions()
    memory.expect(prediction())
    assert [(o["horizon_s"], o["why"]) for o in resolve(memory, 2, None)] == [(1, "gap"), (2, "no_quotes")]
    left = resolve(memory, 60)
    assert [(o["horizon_s"], o["status"], o["why"]) for o in left] == [
        (5, "unresolved", "gap"),
        (10, "unresolved", "gap"),
    ]
    for outcome in left:
        assert {outcome[name] for name in ("outcome_price", "move_bp", "inside", "right")} == {None}
    assert resolve(memory, 61) == []


def test_outcomes_come_in_the_order_of_their_entries() -> None:
    memory, found = PendingPredictions(), []
    for second in range(12):
        found += resolve(memory, second) if second != 7 else []
        memory.expect(prediction(second))
    found += resolve(memory, 40)
    entries = [(outcome["target_time"], outcome["horizon_s"]) for outcome in found]
    assert entries == sorted(set(entries))
    assert len(entries) == 12 * len(HORIZONS_S)


def test_a_fallback_without_a_forecast_is_resolved_for_the_count() -> None:
    memory = PendingPredictions()
    memory.calibrators_of("m1", CARD)
    memory.expect(fallback())
    (outcome,) = resolve(memory, 1, 101.0)
    assert (outcome["status"], outcome["source"]) == ("resolved", "fallback")
    assert outcome["move_bp"] == pytest.approx(100)
    names = ("expected_move_bp", "lower", "confidence", "inside", "right", "imbalance", "challenger")
    assert {outcome[name] for name in names} == {None}
    assert outcome["abstains"] is True
    assert memory.calibrators_of("m1", CARD)[1].outcomes == 0


def test_calibrators_learn_from_their_own_model_alone() -> None:
    memory = PendingPredictions()
    memory.calibrators_of("m1", CARD), memory.calibrators_of("m2", CARD)
    memory.expect(prediction())
    masked = prediction(1, source="fallback", reason="no_quotes")
    memory.expect(masked)
    for second in range(1, 12):
        resolve(memory, second, 100.01)
    learnt = {id_: [c.outcomes for c in of.values()] for id_, of in memory.calibrators.items()}
    assert learnt == {"m1": [1, 1, 1, 1], "m2": [0, 0, 0, 0]}
    memory.keep_calibrators(["m2", "m3"])
    memory.expect(prediction(12))
    resolve(memory, 13, 100.01)
    assert list(memory.calibrators) == ["m2"]
    assert memory.calibrators_of("m1", CARD)[1].outcomes == 0


def test_a_challenger_is_judged_beside_and_learns_for_itself() -> None:
    shadow = {"expected_move_bp": -1.0, "scale_bp": 2.0, "lower": 99.97, "upper": 100.01}
    shadow |= {"confidence": 0.6, "p_flat": 0.1}
    memory = PendingPredictions()
    memory.calibrators_of("m1", CARD), memory.calibrators_of("m2", CARD)
    horizons = {str(h): dict(shadow) for h in HORIZONS_S}
    memory.expect(prediction(challenger={"model_id": "m2", "horizons": horizons}))
    (outcome,) = resolve(memory, 1, 100.02)
    assert (outcome["right"], outcome["inside"]) == (True, True)
    challenger = outcome["challenger"]
    assert (challenger["model_id"], challenger["right"], challenger["inside"]) == ("m2", False, False)
    champion, other = (memory.calibrators_of(id_, CARD)[1] for id_ in ("m1", "m2"))
    assert champion.interval_width < 1 < other.interval_width
    assert other.direction_slope < 2 < champion.direction_slope


@pytest.mark.parametrize(
    ("latency_ms", "horizons_known"), [(300, (1, 2, 5, 10)), (3200, (5, 10)), (20_000, ())]
)
def test_the_price_when_it_was_written_is_what_was_still_to_be_had(
    latency_ms: int, horizons_known: tuple[int, ...]
) -> None:
    memory, found = PendingPredictions(), []
    memory.expect(prediction())
    note_latency(memory.pending, T0_MS + latency_ms)
    note_latency(memory.pending, T0_MS + 99_999)  # written once
    for second in range(1, 12):
        found += memory.resolve(at(second), lambda us: us / 1e9)
    served = {o["horizon_s"]: o["served_price"] for o in found}
    written = (T0_MS + latency_ms) / 1e6
    assert served == {h: written if h in horizons_known else None for h in HORIZONS_S}
    assert {o["latency_ms"] for o in found} == {latency_ms}


def test_it_survives_storage() -> None:
    memory = PendingPredictions()
    memory.calibrators_of("m1", CARD)
    memory.expect(prediction(reason="no_quotes", source="fallback"))
    resolve(memory, 1)
    assert PendingPredictions.from_dict(json.loads(json.dumps(memory.as_dict()))) == memory


@pytest.mark.parametrize(
    "data", [{}, {"pending": [], "reason": None, "calibrators": {"m1": {"1": {"slope": 2}}}}]
)
def test_another_shape_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        PendingPredictions.from_dict(data)


def test_a_lost_memory_is_recalled_from_the_receipts() -> None:
    kept, receipts = PendingPredictions(), []
    for second in range(20):
        resolve(kept, second, 100.01)
        calibrators = kept.calibrators_of("m1", CARD)
        receipt = prediction(second) | {"calibrator": {str(h): c.as_dict() for h, c in calibrators.items()}}
        kept.expect(receipt)
        note_latency(kept.pending, receipt["timestamp"] + 300)
        receipts.append(json.loads(json.dumps(receipt | {"latency_ms": 300})))
    recalled = PendingPredictions.recalled(receipts[:-11:-1])
    for memory in (kept, recalled):
        resolve(memory, 20, 100.01)  # what was served is known by now
    assert recalled == kept


def test_receipts_of_an_older_version_are_no_memory() -> None:
    assert PendingPredictions.recalled([{"id": "BTCUSDT-1", "timestamp": 1}]) == PendingPredictions()
    assert PendingPredictions.recalled([]) == PendingPredictions()


def test_the_same_prediction_is_waited_for_once() -> None:
    memory = PendingPredictions()
    memory.expect(prediction())
    memory.expect(prediction())
    assert len(memory.pending) == 1


def test_the_mid_near_an_instant_is_that_of_the_bar_it_falls_into() -> None:
    ring = BarRing(100_000)
    list(ring.fold(batch(*random_ticks(1, 4)), 1_000_000))
    bars = ring.bars
    known = (mids(bars) / SCALE).tolist()
    for row in (5, 20, len(bars) - 1):
        end_us = int(bars["end_us"][row])
        assert mid_at(bars, end_us) == mid_at(bars, end_us - BAR_US + 1) == known[row]
    assert mid_at(bars, int(bars["end_us"][-1]) + 1) is None
    assert mid_at(bars, int(bars["end_us"][0]) - BAR_US) is None
    assert mid_at(bars[:0], START_US) is None
    bars["bid_price"][-1] = 0
    assert mid_at(bars, int(bars["end_us"][-1])) is None

from __future__ import annotations

from typing import Any

from local.commands.status import Row, Status, line

PREDICTION: dict[str, Any] = {
    "source": "model",
    "basis_price": 60000.0,
    "predicted_price": 60003.0,
    "horizon_s": 2,
    "expected_move_bp": 0.5,
    "confidence": 0.61,
}


def told(prediction: dict[str, Any]) -> str:
    return line(Status([Row("BTCUSDT", prediction, 0.4, {})], 140.2, "connected"))


def test_a_prediction_is_told_with_its_age() -> None:
    assert told(PREDICTION) == (
        "ingest connected, 140 ticks/s · "
        "BTCUSDT 60,000.00 → 60,003.00 in 2 s (+0.50 bp), confidence 61%, 0.4 s ago"
    )


def test_a_fallback_says_why() -> None:
    assert "fallback: warming_up" in told(PREDICTION | {"source": "fallback", "reason": "warming_up"})


def test_before_the_first_bar_there_is_nothing_to_tell() -> None:
    assert told({}).endswith("BTCUSDT waiting for the first bars")


def test_live_skill_is_that_of_the_horizon_shown() -> None:
    def told(**skill: float | None) -> str:
        return Row(
            "BTCUSDT", PREDICTION, 0.4, {"hour": {"horizons": {"2": {"skill": skill or None}}}}
        ).live_skill

    assert told(value=0.1234, low=0.05, high=0.2) == "+0.123 [+0.05, +0.20]"
    assert told(value=-0.01, low=None, high=None) == "-0.010"
    assert told() == "-"
    assert Row("BTCUSDT", {}, 0.4, {}).live_skill == "-"

"""What `make run` prints: where the system is, and its status."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from local.commands.run import Row, Status, how_to_call, line, predictions

PREDICTION: dict[str, Any] = {
    "source": "model",
    "basis_price": 60000.0,
    "predicted_price": 60003.0,
    "horizon_s": 2,
    "expected_move_bp": 0.5,
    "confidence": 0.61,
}


def text_of(prediction: dict[str, Any]) -> str:
    return line(Status([Row("BTCUSDT", prediction, 0.4, {})], 140.2, "connected"))


def test_a_prediction_is_shown_with_its_age() -> None:
    assert text_of(PREDICTION) == (
        "ingest connected, 140 ticks/s · "
        "BTCUSDT 60,000.00 → 60,003.00 in 2 s (+0.50 bp), confidence 61%, age 0.4 s"
    )


def test_a_fallback_says_why() -> None:
    assert "fallback: warming_up" in text_of(PREDICTION | {"source": "fallback", "reason": "warming_up"})


def test_before_the_first_bar_the_status_is_waiting() -> None:
    assert text_of({}).endswith("BTCUSDT waiting for the first bars")


@pytest.mark.parametrize("width", [80, 100, 149, 150, 200])
def test_nothing_is_cut_off_on_a_narrow_terminal(width: int) -> None:
    served = PREDICTION | {
        "lower": 59990.0,
        "upper": 60016.0,
        "model_id": "20260101T000000Z-0123abcd",
        "provisional": True,
        "latency_ms": 12,
    }
    skill = {"value": 0.1234, "low": 0.05, "high": 0.2}
    rows = [
        Row("BTCUSDT", served, 0.4, {"hour": {"horizons": {"2": {"skill": skill}}}}),
        Row("ETHUSDT", {}, 0.0, {}),
    ]
    console = Console(width=width)
    with console.capture() as capture:
        console.print(predictions(rows, width))
    shown = capture.get()
    assert "…" not in shown
    assert "60,000.00" in shown and "+0.50" in shown and "0.4 s" in shown
    assert ("12 ms" in shown) == (width >= 150)


def test_live_skill_is_that_of_the_horizon_shown() -> None:
    def skill_of(**skill: float | None) -> str:
        return Row(
            "BTCUSDT", PREDICTION, 0.4, {"hour": {"horizons": {"2": {"skill": skill or None}}}}
        ).live_skill

    assert skill_of(value=0.1234, low=0.05, high=0.2) == "+0.123 [+0.05, +0.20]"
    assert skill_of(value=-0.01, low=None, high=None) == "-0.010"
    assert skill_of() == "-"
    assert Row("BTCUSDT", {}, 0.4, {}).live_skill == "-"


def test_the_dashboard_gets_the_key_by_the_fragment_which_no_server_sees() -> None:
    text = how_to_call("http://127.0.0.1:4566", "a key+", "BTCUSDT", is_terminal=True)
    assert "  http://127.0.0.1:4566/#key=a%20key%2B\n" in text


def test_a_file_gets_no_link_with_the_key() -> None:
    text = how_to_call("http://127.0.0.1:4566", "secret", "BTCUSDT", is_terminal=False)
    assert "  http://127.0.0.1:4566/  (asks for the key)\n" in text
    assert "#key" not in text

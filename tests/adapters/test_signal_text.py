"""A signal in words, and in each destination's form."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tickcast.adapters.signal_text import Sending, body, in_words, payload
from tickcast.serving.signals import Signal, SignalledAlarm, SignalledDrift, SignalledForecast

NOW_MS = 1_767_225_600_000
SENDING = Sending("dev", "https://api.example.com/v1/", NOW_MS + 900)
FORECAST = SignalledForecast(
    id=f"BTCUSDT-{NOW_MS}",
    horizon_s=2,
    target_time=NOW_MS + 2130,
    basis_price=60_000.0,
    predicted_price=60_150.0,
    lower=60_100.0,
    upper=60_200.0,
    expected_move_bp=25.0,
    confidence=0.81,
    cost_bp=22.0,
    edge_bp=3.0,
    abstains=False,
    model_id="m1",
    provisional=False,
)


def signal(when: Any = "worth_trading", **parts: Any) -> Signal:
    return Signal(id=f"r-BTCUSDT-{NOW_MS}", rule="r", when=when, at_ms=NOW_MS, symbol="BTCUSDT", **parts)


def test_a_forecast_says_what_how_sure_at_what_cost_and_for_when() -> None:
    assert in_words(signal(forecast=FORECAST), SENDING).splitlines() == [
        "BTCUSDT: +25.00 bp expected in 2 s, to 60,150.00, 80 % between 60,100.00 and 60,200.00.",
        "The direction is right with a probability of 81 %, if the price moves.",
        "A round trip costs 22.00 bp: 3.00 bp are left.",
        "For 00:00:02 UTC.",
        f"tickcast dev, rule r: https://api.example.com/v1/#receipt=BTCUSDT-{NOW_MS}",
    ]


def test_a_late_one_says_so() -> None:
    late = Sending("dev", "https://api.example.com/v1/", NOW_MS + 5130)
    assert "LATE: it was for 00:00:02 UTC, 3.0 s before this was sent." in in_words(
        signal(forecast=FORECAST), late
    )
    assert payload(signal(forecast=FORECAST), late)["data"]["late"] is True
    assert payload(signal(forecast=FORECAST), SENDING)["data"]["late"] is False


def test_what_casts_doubt_on_it_is_said() -> None:
    doubtful = replace(FORECAST, provisional=True, abstains=True, edge_bp=-4.0)
    text = in_words(signal("confidence", forecast=doubtful), SENDING)
    assert "provisional" in text
    assert "abstains" in text
    assert "4.00 bp more than the move" in text


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            signal("fallback", forecast=SignalledForecast(
                id="i", horizon_s=2, target_time=NOW_MS, basis_price=0.00012, predicted_price=0.00012,
                reason="no_quotes",
            )),
            "BTCUSDT: no model answers, for there are no quotes. Last known price 0.00012000.",
        ),
        (
            signal("drift", drift=SignalledDrift(model_id="m1", reasons=["sigma_5s is unlike the training"])),
            "BTCUSDT: the model drifts: sigma_5s is unlike the training.",
        ),
        (
            signal("alarm", alarm=SignalledAlarm(alarm="NoModel", state="ALARM", meaning="None.", why="w")),
            "NoModel: raised. None.\nw",
        ),
        (
            signal("alarm", alarm=SignalledAlarm(alarm="NoModel", state="OK", meaning="None.", why="w")),
            "NoModel: over. None.",
        ),
        (signal("drift"), "Rule r: a test of tickcast's signals. Nothing has happened."),
    ],
)  # fmt: skip
def test_other_kinds(found: Signal, said: str) -> None:
    assert in_words(found, SENDING).startswith(said)
    assert in_words(found, SENDING).splitlines()[-1].startswith("tickcast dev, rule r")


def test_the_json_has_what_a_program_acts_on() -> None:
    found = payload(signal(forecast=FORECAST), SENDING)
    assert (found["type"], found["timestamp"]) == ("signal.worth_trading", "2026-01-01T00:00:00Z")
    data = found["data"]
    assert data["forecast"]["edge_bp"] == 3.0
    assert data["expires_ms"] == NOW_MS + 2130
    assert data["environment"] == "dev"
    assert data["links"]["receipt"] == f"https://api.example.com/v1/predictions/BTCUSDT/BTCUSDT-{NOW_MS}"
    assert payload(signal(), SENDING)["type"] == "signal.test"


def test_links_are_ascii() -> None:
    found = replace(signal(forecast=replace(FORECAST, id=f"币USDT-{NOW_MS}")), symbol="币USDT")
    data = payload(found, SENDING)["data"]
    at = f"%E5%B8%81USDT-{NOW_MS}"
    assert data["links"]["receipt"] == f"https://api.example.com/v1/predictions/%E5%B8%81USDT/{at}"
    assert data["text"].endswith(f"#receipt={at}")


def test_slack_s_control_characters_are_escaped() -> None:
    alarm = SignalledAlarm(alarm="NoModel", state="ALARM", meaning="", why="1 < 2 & <!channel>")
    text = body("slack", signal("alarm", alarm=alarm), SENDING)["text"]
    assert "1 &lt; 2 &amp; &lt;!channel&gt;" in text


def test_telegram_gets_the_chat() -> None:
    found = body("telegram", signal(forecast=FORECAST), SENDING, "-42")
    assert found["chat_id"] == "-42"
    assert found["text"] == in_words(signal(forecast=FORECAST), SENDING)


def test_a_text_is_no_longer_than_a_message_may_be() -> None:
    alarm = SignalledAlarm(alarm="NoModel", state="ALARM", meaning="m" * 9000, why="")
    assert len(in_words(signal("alarm", alarm=alarm), SENDING)) < 4096

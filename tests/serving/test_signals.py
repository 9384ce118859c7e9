"""Which predictions match which rules, and what the rules may say."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from tests.fixtures import records
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving import signals
from tickcast.serving.prediction import REASONS, STALE_FEATURES
from tickcast.serving.records import Prediction
from tickcast.serving.signals import (
    Signal,
    SignalledDrift,
    SignalMatcher,
    SignalRule,
    Signals,
    drift_signal,
    object_key,
)

NOW_MS = 1_767_225_600_000
WORTH: dict[str, Any] = {"worth_trading": True, "edge_bp": 3.0, "expected_move_bp": 25.0}


def rule(when: str, **keys: Any) -> SignalRule:
    return msgspec.convert({"name": "a-rule", "when": when, "to": "desk", **keys}, SignalRule)


def predicted(timestamp_ms: int = NOW_MS, horizon_s: int = 2, **answer: Any) -> Prediction:
    """A prediction whose answer at one horizon differs."""
    horizons = {h: records.horizon(h, **(answer if h == horizon_s else {})) for h in HORIZONS_S}
    return records.prediction(timestamp_ms, horizons=horizons)


def matched(rule: SignalRule, *predictions: Prediction) -> list[Signal]:
    matcher = SignalMatcher([rule])
    return [signal for each in predictions for _, signal in matcher.matches(each)]


def test_a_forecast_worth_trading() -> None:
    [signal] = matched(rule("worth_trading"), predicted(**WORTH))
    assert signal.forecast is not None
    assert (signal.symbol, signal.forecast.edge_bp, signal.forecast.cost_bp) == ("BTCUSDT", 3.0, 22.0)
    assert signal.expires_ms == NOW_MS + 130 + 2000


@pytest.mark.parametrize(
    ("keys", "answer", "expected"),
    [
        ({}, {}, 0),
        ({}, {"worth_trading": None, "edge_bp": None}, 0),  # without quotes
        ({"min_edge_bp": 3.5}, WORTH, 0),
        ({"min_edge_bp": 3.0}, WORTH, 1),
        ({}, WORTH | {"abstains": True}, 0),
        ({"abstaining": True}, WORTH | {"abstains": True}, 1),
        ({"symbols": ["ETHUSDT"]}, WORTH, 0),
        ({"horizon_s": 10}, WORTH, 0),
    ],
)
def test_what_restricts_a_rule(keys: dict[str, Any], answer: dict[str, Any], expected: int) -> None:
    assert len(matched(rule("worth_trading", **keys), predicted(**answer))) == expected


def test_a_rule_of_another_horizon_expires_with_it() -> None:
    [signal] = matched(rule("worth_trading", horizon_s=10), predicted(horizon_s=10, **WORTH))
    assert signal.expires_ms == NOW_MS + 130 + 10_000


@pytest.mark.parametrize(("confidence", "expected"), [(0.79, 0), (0.8, 1)])
def test_confidence(confidence: float, expected: int) -> None:
    found = matched(rule("confidence", min_confidence=0.8), predicted(confidence=confidence))
    assert len(found) == expected


def test_no_forecast_matches_no_rule_of_forecasts() -> None:
    fallback = records.without_forecast(NOW_MS)
    assert not matched(rule("worth_trading"), fallback)
    assert not matched(rule("confidence", min_confidence=0.5, abstaining=True), fallback)


def test_a_fallback_that_lasts() -> None:
    fallbacks = [records.without_forecast(NOW_MS + ms) for ms in (0, 1000, 2999, 3000)]
    [signal] = matched(rule("fallback"), *fallbacks)
    assert signal.at_ms == NOW_MS + 3000
    assert signal.expires_ms is None


def test_a_fallback_in_between_starts_over() -> None:
    short = [
        records.without_forecast(NOW_MS),
        predicted(NOW_MS + 1000),
        records.without_forecast(NOW_MS + 3000),
    ]
    assert not matched(rule("fallback"), *short)
    assert matched(rule("fallback", lasting_s=0), short[0])


def test_a_fallback_for_other_reasons() -> None:
    assert not matched(rule("fallback", lasting_s=0, reasons=["no_quotes"]), records.without_forecast(NOW_MS))


def test_the_same_window_has_the_same_name_in_every_process() -> None:
    of_a_minute = [predicted(NOW_MS + ms, **WORTH) for ms in (0, 59_900, 60_000)]
    first, second, third = matched(rule("worth_trading"), *of_a_minute)
    assert object_key(first) == object_key(second) == f"signals/a-rule/BTCUSDT/{NOW_MS}.json"
    assert third.id == f"a-rule-BTCUSDT-{NOW_MS + 60_000}"


def test_ids_are_ascii() -> None:
    drift = SignalledDrift(model_id="m1", reasons=[])
    signal = drift_signal(rule("drift"), "币安USDT", NOW_MS, drift)
    assert signal.id.isascii()
    assert object_key(signal).startswith("signals/a-rule/币安USDT/")


def test_a_signal_is_read_as_it_was_written() -> None:
    [signal] = matched(rule("worth_trading"), predicted(**WORTH))
    assert msgspec.json.decode(msgspec.json.encode(signal), type=Signal) == signal


def test_reasons_are_those_that_the_stream_gives() -> None:
    assert get_args(signals.Reason) == tuple(each for each in REASONS if each != STALE_FEATURES)


def test_every_key_of_a_rule_is_known_to_be_of_some_kind() -> None:
    shared = {"name", "when", "to"}
    assert set(SignalRule.__struct_fields__) == shared | signals._ONLY_FOR.keys()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"when": "confidence"}, "rule a-rule: min_confidence is missing"),
        ({"when": "drift", "horizon_s": 2}, "horizon_s is for rules of worth_trading and confidence"),
        ({"when": "alarm", "pause_s": 5}, "pause_s is for rules of"),
        ({"when": "fallback", "abstaining": True}, "abstaining is for rules of"),
        ({"when": "drift", "late": "drop"}, "late is for rules of"),
        ({"when": "drift", "symbols": ["btc"]}, "'btc' is not a symbol"),
        ({"when": "drift", "symbols": []}, "symbols is an empty list"),
    ],
)
def test_a_rule_that_makes_no_sense_says_which_key(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        rule(**keys)


@pytest.mark.parametrize(
    ("destinations", "rules", "said"),
    [
        ([], ["desk"], "sent to 'desk', which should be there, and there are no destinations"),
        (["team"], ["desk", "team"], "sent to 'desk', which should be one of team"),
        (["desk", "team"], ["desk"], "no rule is sent to team"),
        (["desk", "desk"], ["desk"], "destinations: desk more than once"),
        (["desk"], ["desk", "desk"], "rules: to-desk more than once"),
    ],
)
def test_rules_and_destinations_fit(destinations: list[str], rules: list[str], said: str) -> None:
    values = {
        "destinations": [{"name": name} for name in destinations],
        "rules": [{"name": f"to-{name}", "when": "drift", "to": name} for name in rules],
    }
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(values, Signals)

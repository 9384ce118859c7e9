"""The metrics of score_predictions as CloudWatch gets them: with the dimensions that the alarms use."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from tests.fixtures.paths import load_handler
from tests.fixtures.settings import environment
from tickcast.adapters.settings import ScorePredictionsSettings
from tickcast.evaluation.drift import DriftState
from tickcast.evaluation.live_scores import NO_TALLIES, Skill, SpanAccuracy, score_horizon
from tickcast.functions.score_predictions import Result
from tickcast.market.symbols import ascii_name

ENVIRONMENT = environment(ScorePredictionsSettings, POWERTOOLS_SERVICE_NAME="score_predictions") | {
    "AWS_DEFAULT_REGION": "us-east-1"
}
CONTEXT = SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return load_handler("score_predictions")


def metrics(text: str) -> dict[tuple[str, str], float]:
    """By symbol and name; each under the dimensions symbol and service, in the environment's namespace."""
    found = {}
    for line in text.splitlines():
        logged = json.loads(line)
        if "_aws" in logged:
            [metric] = logged["_aws"]["CloudWatchMetrics"]
            assert metric["Namespace"] == "tickcast/test"
            assert [sorted(each) for each in metric["Dimensions"]] == [["service", "symbol"]]
            assert logged["service"] == "score_predictions"
            [name] = [each["Name"] for each in metric["Metrics"]]
            found[logged["symbol"], name] = logged[name][0]
    return found


def hour(availability: float | None, **figures: Any) -> SpanAccuracy:
    horizons = {2: replace(score_horizon(2, NO_TALLIES), **figures)}
    return SpanAccuracy(from_ms=0, to_ms=1, first_ms=None, availability=availability, horizons=horizons)


def test_metrics_are_named_as_the_alarms_expect(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    skill = Skill(value=0.05, low=None, high=None)
    result = Result(
        hours={
            "BTCUSDT": hour(0.999, count=60, skill=skill, coverage=0.8),
            "ETHUSDT": hour(None),
        },
        drift={"BTCUSDT": DriftState("m", is_drifting=True)},
    )
    module.score_predictions = lambda remaining_ms: result
    answer = module.handler({}, CONTEXT)
    assert (answer["retrain"], answer["execution"]) == (False, None)
    assert metrics(capsys.readouterr().out) == {
        ("BTCUSDT", "Scored"): 60,
        ("BTCUSDT", "Availability"): 99.9,
        ("BTCUSDT", "LiveSkill"): 0.05,
        ("BTCUSDT", "Coverage"): 80,
        ("BTCUSDT", "Drifting"): 1,
        ("ETHUSDT", "Scored"): 0,  # shows that it ran
    }


def test_dimensions_are_ascii_and_values_numbers(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    of_symbol = hour(1.0, count=60, coverage=math.nan)
    module.score_predictions = lambda remaining_ms: Result(hours={"币安人生USDT": of_symbol})
    module.handler({}, CONTEXT)
    name = quote("币安人生USDT")
    assert metrics(capsys.readouterr().out) == {(name, "Scored"): 60, (name, "Availability"): 100}
    assert name == ascii_name("币安人生USDT")  # as the alarms' metrics are named

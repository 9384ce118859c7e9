"""The metrics of score_predictions as CloudWatch reads them: under the dimensions that alarms look for."""

from __future__ import annotations

import importlib.util
import json
import math
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from tests.fixtures.paths import ROOT
from tests.fixtures.settings import environment
from tickcast.adapters.settings import ScorePredictionsSettings
from tickcast.evaluation.drift import DriftState
from tickcast.evaluation.live_scores import NO_TALLIES, Skill, score_horizon
from tickcast.functions.score_predictions import Hour, Result
from tickcast.market.symbols import ascii_name

ENVIRONMENT = environment(ScorePredictionsSettings, POWERTOOLS_SERVICE_NAME="score_predictions") | {
    "AWS_DEFAULT_REGION": "us-east-1"
}
CONTEXT = SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    path = ROOT / "lambdas" / "score_predictions" / "handler.py"
    spec = importlib.util.spec_from_file_location("score_predictions_handler", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metrics(text: str) -> dict[tuple[str, str], float]:
    """By symbol and name; each under the dimensions symbol and service, in the environment's namespace."""
    found = {}
    for line in text.splitlines():
        told = json.loads(line)
        if "_aws" in told:
            [metric] = told["_aws"]["CloudWatchMetrics"]
            assert metric["Namespace"] == "tickcast/test"
            assert [sorted(each) for each in metric["Dimensions"]] == [["service", "symbol"]]
            assert told["service"] == "score_predictions"
            [name] = [each["Name"] for each in metric["Metrics"]]
            found[told["symbol"], name] = told[name][0]
    return found


def test_metrics_are_where_the_alarms_look(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = score_horizon(2, NO_TALLIES)
    skill = Skill(value=0.05, low=None, high=None)
    result = Result(
        hours={
            "BTCUSDT": Hour(replace(nothing, count=60, skill=skill, coverage=0.8), availability=0.999),
            "ETHUSDT": Hour(nothing, availability=None),
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
        ("ETHUSDT", "Scored"): 0,  # that it ran is told all the same
    }


def test_dimensions_are_ascii_and_values_numbers(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hour = Hour(replace(score_horizon(2, NO_TALLIES), count=60, coverage=math.nan), availability=1.0)
    module.score_predictions = lambda remaining_ms: Result(hours={"币安人生USDT": hour})
    module.handler({}, CONTEXT)
    name = quote("币安人生USDT")
    assert metrics(capsys.readouterr().out) == {(name, "Scored"): 60, (name, "Availability"): 100}
    assert name == ascii_name("币安人生USDT")  # as the alarms' metrics are named

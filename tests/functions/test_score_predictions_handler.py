"""The metrics of score_predictions as CloudWatch gets them."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import quote

import pytest

from tests.fixtures.emitted_metrics import CONTEXT, hour, metrics_in
from tests.fixtures.paths import load_handler
from tests.fixtures.settings import environment
from tickcast.adapters.settings import ScorePredictionsSettings
from tickcast.evaluation.drift import DriftState
from tickcast.evaluation.figures import Skill
from tickcast.functions.score_metrics import SYMBOLS_SHOWN
from tickcast.functions.score_predictions import Result

ENVIRONMENT = environment(ScorePredictionsSettings, POWERTOOLS_SERVICE_NAME="score_predictions") | {
    "AWS_DEFAULT_REGION": "us-east-1"
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return load_handler("score_predictions")


def metrics(text: str) -> dict[tuple[str, str], float]:
    """By symbol ("" for all together) and name; each under the service, in the environment's namespace."""
    found = {}
    for metric, values in metrics_in(text).items():
        dimensions = dict(metric.dimensions)
        assert metric.namespace == "tickcast/test"
        assert dimensions.pop("service") == "score_predictions"
        assert not dimensions.keys() - {"symbol"}
        [found[dimensions.get("symbol", ""), metric.name]] = values
    return found


def test_alarms_see_all_symbols_together(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    skill = Skill(value=0.05, low=None, high=None)
    result = Result(
        symbols=("BTCUSDT", "ETHUSDT"),
        hours={"BTCUSDT": hour(count=60, skill=skill, coverage=0.8), "ETHUSDT": hour(0.5)},
        available={"BTCUSDT": 0.999, "ETHUSDT": 0.5},
        drift={"BTCUSDT": DriftState("m", is_drifting=True), "ETHUSDT": DriftState("m")},
    )
    module.score_predictions = lambda remaining_ms: result
    answer = module.handler({}, CONTEXT)
    assert (answer["retrain"], answer["execution"]) == (False, None)
    assert metrics(capsys.readouterr().out) == {
        ("", "Availability"): 50,  # of the symbol that has least
        ("", "Drifting"): 1,
        ("BTCUSDT", "LiveSkill"): 0.05,
        ("BTCUSDT", "Coverage"): 80,
    }


def test_without_a_model_that_is_counted_and_nothing_else(
    module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    module.score_predictions = lambda remaining_ms: Result(hours={"BTCUSDT": hour(0.0)}, has_no_model=True)
    module.handler({}, CONTEXT)
    assert metrics(capsys.readouterr().out) == {("", "NoModel"): 1}


def test_dimensions_are_ascii_and_values_numbers(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    of_symbol = hour(count=60, coverage=math.nan, direction=0.5)
    result = Result(symbols=("币安人生USDT",), hours={"币安人生USDT": of_symbol})
    module.score_predictions = lambda remaining_ms: result
    module.handler({}, CONTEXT)
    assert metrics(capsys.readouterr().out) == {(quote("币安人生USDT"), "Direction"): 50}


def test_the_number_of_metrics_has_a_bound(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """And they are of the same symbols, whichever a run that ran out of time began with."""
    symbols = tuple(f"S{number}USDT" for number in range(SYMBOLS_SHOWN + 5))
    hours = {symbol: hour(coverage=0.8) for symbol in (*symbols[7:], *symbols[:7])}
    result = Result(symbols=symbols, hours=hours, available=dict.fromkeys(hours, 1.0))
    module.score_predictions = lambda remaining_ms: result
    module.handler({}, CONTEXT)
    found = metrics(capsys.readouterr().out)
    assert found.keys() == {("", "Availability"), *((each, "Coverage") for each in symbols[:SYMBOLS_SHOWN])}
    assert found["", "Availability"] == 100

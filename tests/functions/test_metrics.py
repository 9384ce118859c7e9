"""What predict_stream and serve_predictions write for CloudWatch, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from tests.fixtures import records
from tests.fixtures.emitted_metrics import CONTEXT, metrics_in, of_ingest
from tests.fixtures.paths import load_handler
from tests.fixtures.settings import environment
from tickcast.adapters.http.responses import Response
from tickcast.adapters.settings import ServePredictionsSettings
from tickcast.adapters.telemetry import Metrics
from tickcast.functions.predict_stream import Result
from tickcast.functions.prediction_metrics import EVERY_MS, PredictionMetrics
from tickcast.serving.records import Timing

TIMING = Timing(0.0, 80.0, 40.0, 3.0, 1.0, 1.0, 0.0, 1.0)


@pytest.fixture(autouse=True)
def own_metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "tickcast/test")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "predict_stream")
    yield
    Metrics().clear_metrics()  # all instances share what is not written yet


def by_name(text: str) -> dict[str, list[float]]:
    """Values by name, and by the reason where there is one."""
    return {
        f"{metric.name}{dict(metric.dimensions).get('reason', '')}": values
        for metric, values in metrics_in(text).items()
    }


def test_predictions_are_written_a_few_times_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    metrics = PredictionMetrics(Metrics(), lambda: now[0])
    prediction = records.prediction(1_760_000_000_000, timing_ms=TIMING)
    fallback = replace(prediction, source="fallback", reason="no_quotes")
    for second in range(10):
        now[0] = second * 1000.0
        metrics.add(Result(kept=[prediction if second % 2 else fallback], missing_trades={"BTCUSDT": second}))
    assert not capsys.readouterr().out
    now[0] = EVERY_MS
    metrics.add(Result(kept=[prediction]))
    output = capsys.readouterr().out
    assert len(output.splitlines()) == 2
    assert by_name(output) == {
        "Predictions": [1] * 11,
        "LatencyMs": [130] * 11,
        "ToKinesisMs": [80] * 11,
        "ToFunctionMs": [40] * 11,
        "MissingTrades": list(range(10)),
        "Fallbacksno_quotes": [5],
    }
    now[0] += 1000
    metrics.add(Result(kept=[prediction]))
    assert not capsys.readouterr().out


def test_what_fails_is_counted_and_what_does_not_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = PredictionMetrics(Metrics(), lambda: 0.0)
    metrics.add(Result())
    metrics.write()
    assert not capsys.readouterr().out
    metrics.add(Result(failed=["BTCUSDT"], quarantined=["a", "b"], model_refused=True))
    metrics.write()
    assert by_name(capsys.readouterr().out) == {
        "SymbolFailures": [1],
        "Quarantined": [2],
        "ModelRefused": [1],
    }


@pytest.mark.parametrize(
    ("resource", "response", "expected"),
    [
        ("/health", Response(503), {}),
        ("/predictions/{symbol}", Response(503), {"ServerErrors": [1]}),
        ("/predictions/{symbol}", Response(404), {}),
        ("/predictions", Response(200, ages_ms=[90, 120]), {"AgeWhenReadMs": [90, 120]}),
        ("/models", Response(200, {"models": "x" * 7_000_000}), {"ServerErrors": [1]}),
    ],
)
def test_health_s_503_is_an_answer_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    resource: str,
    response: Response,
    expected: dict[str, list[float]],
) -> None:
    given = environment(ServePredictionsSettings, POWERTOOLS_SERVICE_NAME="serve_predictions")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    module = load_handler("serve_predictions")
    module.serve = lambda event: response
    module.handler({"resource": resource, "headers": {}}, CONTEXT)
    assert by_name(capsys.readouterr().out) == expected


def test_metrics_are_written_when_the_handler_raises(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = Metrics()

    @metrics.flushed
    def handler(event: dict[str, Any], context: Any) -> None:
        metrics.count("Quarantined", 1)
        raise RuntimeError("out of reach")

    with pytest.raises(RuntimeError, match="out of reach"):
        handler({}, None)
    assert by_name(capsys.readouterr().out) == {"Quarantined": [1]}


def test_ingest_writes_the_oldest_feed_s_age_and_what_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = {
        "BTCUSDT": {"last_tick_age_s": 0.2, "quiet": False},
        "ETHUSDT": {"last_tick_age_s": 12.0, "quiet": False},
        "DOGEUSDT": {"last_tick_age_s": 90.0, "quiet": True},
        "NEWUSDT": {"last_tick_age_s": None, "quiet": False},
    }
    found = of_ingest(monkeypatch, symbols, dropped_ticks=7)
    assert {metric.name: values for metric, values in found.items()} == {
        "LastTickAgeSeconds": [12.0],
        "DroppedTicks": [7.0],
    }


@pytest.mark.parametrize(("age_s", "written"), [(None, False), (0.1, False), (9.9, False), (11.0, True)])
def test_ingest_writes_the_perpetuals_age_when_it_is_late(
    monkeypatch: pytest.MonkeyPatch, age_s: float | None, written: bool
) -> None:
    symbols = {"BTCUSDT": {"last_tick_age_s": 0.2, "quiet": False}}
    found = {metric.name: values for metric, values in of_ingest(monkeypatch, symbols, age_s).items()}
    assert found.get("ReferenceAgeSeconds") == ([age_s] if written else None)

"""The API's answers against a real Redis, judged by a clock the test sets."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import redis

from tickcast.adapters.hot_store import HotStore, Writes
from tickcast.adapters.redis_connection import connect
from tickcast.adapters.serve_predictions import Answer, ServePredictions
from tickcast.adapters.settings import Settings
from tickcast.bars import BarRing
from tickcast.gaps import Gap, GapLedger
from tickcast.state import SymbolState

SETTINGS = Settings.from_environment({"ENVIRONMENT": "test", "BUCKET": "b", "SYMBOLS": "BTCUSDT,ETHUSDT"})
AT_S = 1_754_000_000
FEATURES = {"symbol": "BTCUSDT", "timestamp": AT_S, "price": 60_001.0, "mid": 60_000.0}
HORIZONS = {
    str(h): {"horizon_s": h, "predicted_price": 60_000.0 + h, "confidence": 0.6, "expected_move_bp": h / 6}
    for h in (1, 2, 5, 10)
}
PREDICTION = {
    "id": f"BTCUSDT-{AT_S * 1000}",
    "symbol": "BTCUSDT",
    "timestamp": AT_S * 1000,
    "source": "model",
    "reason": None,
    "model_id": "m1",
    "basis_price": 60_000.0,
    "target_time": AT_S * 1000 + 2000,
    "horizons": HORIZONS,
    **HORIZONS["2"],
}
HEARTBEAT = {
    "at_ms": AT_S * 1000,
    "watermark_ms": AT_S * 1000,
    "model_problem": None,
    "missing_trades": 0,
    "quote_gaps": 0,
}


class Api:
    """Serves as if the time were `age_s` after the prediction's."""

    def __init__(self, store: HotStore) -> None:
        self.age_s = 0.3
        self.serve = ServePredictions(SETTINGS, store, lambda: (AT_S + self.age_s) * 1000)

    def get(self, symbol: str = "BTCUSDT", **query: str) -> Answer:
        return self.serve(
            {
                "resource": "/predictions/{symbol}",
                "pathParameters": {"symbol": symbol},
                "queryStringParameters": query or None,
            }
        )


@pytest.fixture
def store(redis_client: redis.Redis) -> HotStore:
    return HotStore(redis_client, 100_000)


@pytest.fixture
def api(store: HotStore) -> Api:
    return Api(store)


def put(store: HotStore, *predictions: dict[str, Any], heartbeat: dict[str, Any] | None = None) -> None:
    writes = Writes()
    writes.features(FEATURES, 60)
    for prediction in predictions:
        writes.prediction(prediction)
    for symbol in SETTINGS.symbols:
        writes.heartbeat(f"predict_stream:{symbol}", heartbeat or HEARTBEAT)
    states, _ = store.load(["BTCUSDT"])
    state = states["BTCUSDT"]
    assert store.commit(SymbolState("BTCUSDT", BarRing(0), state.sequence + 1), state.sequence, writes)


def test_a_fresh_prediction_is_the_model_s(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    answer = api.get()
    assert answer.status == 200
    assert answer.body["source"] == "model"
    assert answer.body["predicted_price"] == 60_002.0
    assert (answer.body["age_s"], answer.body["seconds_left"]) == (0.3, 1.7)
    response = answer.as_proxy_response()
    assert response["headers"]["Content-Type"] == "application/json"
    assert json.loads(response["body"]) == answer.body


@pytest.mark.parametrize(("age_s", "source"), [(5.0, "model"), (5.01, "fallback"), (3600, "fallback")])
def test_features_older_than_five_seconds_are_a_fallback(
    store: HotStore, api: Api, age_s: float, source: str
) -> None:
    put(store, PREDICTION)
    api.age_s = age_s
    body = api.get().body
    assert body["source"] == source
    if source == "fallback":
        assert (body["reason"], body["confidence"], body["predicted_price"]) == (
            "stale_features",
            0.0,
            60_000.0,
        )
        assert (body["lower"], body["upper"], body["horizons"]) == (None, None, {})
        assert body["seconds_left"] == 0


@pytest.mark.parametrize("horizon_s", [1, 2, 5, 10])
def test_each_horizon(store: HotStore, api: Api, horizon_s: int) -> None:
    put(store, PREDICTION)
    body = api.get(horizon=str(horizon_s)).body
    assert body["predicted_price"] == 60_000.0 + horizon_s
    assert body["horizon_s"] == horizon_s
    assert body["target_time"] == AT_S * 1000 + horizon_s * 1000


def test_history_is_newest_first(store: HotStore, api: Api) -> None:
    put(store, *(PREDICTION | {"id": f"p{n}"} for n in range(5)))
    body = api.get(history="3", horizon="10").body
    assert [past["id"] for past in body["history"]] == ["p4", "p3", "p2"]
    assert {past["predicted_price"] for past in body["history"]} == {60_010.0}


def test_symbols_in_lower_case_are_understood(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    assert api.get("btcusdt").status == 200


@pytest.mark.parametrize(
    ("symbol", "query", "status", "detail"),
    [
        ("DOGEUSDT", {}, 404, "'DOGEUSDT' is not served; served are BTCUSDT, ETHUSDT"),
        ("ETHUSDT", {}, 404, "no tick of ETHUSDT has arrived so far"),
        ("BTCUSDT", {"horizon": "3"}, 400, "horizon is '3', it should be one of 1, 2, 5, 10 (seconds)"),
        ("BTCUSDT", {"horizon": "two"}, 400, "horizon is 'two'"),
        ("BTCUSDT", {"history": "-1"}, 400, "history is '-1', it should be 0 to 300"),
        ("BTCUSDT", {"history": "301"}, 400, "history is '301'"),
        ("BTCUSDT", {"history": "²"}, 400, "history is '²'"),
        ("BTCUSDT", {"history": "9" * 5000}, 400, "history is '9"),
        ("BTCUSDT", {"horzion": "2"}, 400, "horzion; known are horizon, history"),
    ],
)
def test_errors_are_problems_that_say_what_was_wrong(
    store: HotStore, api: Api, symbol: str, query: dict[str, str], status: int, detail: str
) -> None:
    put(store, PREDICTION)
    answer = api.get(symbol, **query)
    response = answer.as_proxy_response()
    assert (answer.status, response["statusCode"]) == (status, status)
    assert response["headers"]["Content-Type"] == "application/problem+json"
    problem = json.loads(response["body"])
    assert problem["status"] == status
    assert problem["title"]
    assert detail in problem["detail"]


def test_redis_out_of_reach_is_a_503() -> None:
    answer = Api(HotStore(connect(replace(SETTINGS, redis_host="127.0.0.1", redis_port=1)), 0)).get()
    assert (answer.status, answer.body["title"]) == (503, "Store unavailable")


def test_health_names_what_is_wrong(store: HotStore, api: Api) -> None:
    health = {"resource": "/health", "pathParameters": None, "queryStringParameters": None}
    before = api.serve(health)
    assert before.status == 503
    assert before.body["services"]["predict_stream:BTCUSDT"]["why"] == "has not seen a tick yet"
    put(store, PREDICTION)
    assert (api.serve(health).status, api.serve(health).body["status"]) == (200, "ok")
    api.age_s = 9
    stale = api.serve(health)
    assert (stale.status, stale.body["status"]) == (503, "degraded")
    assert "stands still at 9.0 s ago" in stale.body["services"]["predict_stream:ETHUSDT"]["why"]
    api.age_s = 1
    put(store, PREDICTION, heartbeat=HEARTBEAT | {"model_problem": "ModelError: m3 does not fit"})
    assert (
        api.serve(health).body["services"]["predict_stream:BTCUSDT"]["why"] == "ModelError: m3 does not fit"
    )
    assert not math.isnan(api.serve(health).body["services"]["predict_stream:BTCUSDT"]["age_s"])


def test_health_shows_the_newest_gaps(store: HotStore, api: Api) -> None:
    health = {"resource": "/health", "pathParameters": None, "queryStringParameters": None}
    put(store, PREDICTION)
    assert "gaps" not in api.serve(health).body["services"]["predict_stream:BTCUSDT"]
    ledger = GapLedger([Gap(10 * n, 10 * n + 1, n, n + 1, "reset by peer") for n in range(12)])
    writes = Writes()
    writes.gaps("BTCUSDT", ledger.record())
    assert store.commit(SymbolState("BTCUSDT", BarRing(0), 2), 1, writes)
    shown = api.serve(health).body["services"]["predict_stream:BTCUSDT"]["gaps"]
    assert [gap["first_id"] for gap in shown] == list(range(110, 10, -10))
    assert shown[0] == {
        "first_id": 110,
        "last_id": 111,
        "trades": 2,
        "from_us": 11,
        "to_us": 12,
        "cause": "reset by peer",
    }


def test_health_without_redis_is_an_answer_too() -> None:
    health = {"resource": "/health", "pathParameters": None, "queryStringParameters": None}
    answer = Api(HotStore(connect(replace(SETTINGS, redis_host="127.0.0.1", redis_port=1)), 0)).serve(health)
    assert answer.status == 503
    assert "does not answer" in answer.body["services"]["redis"]["why"]

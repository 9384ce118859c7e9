"""The API's responses from a real Redis, at times that the test sets."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec
import numpy as np
import pytest
import redis
from botocore.exceptions import ClientError
from msgspec.structs import asdict, replace

from layers import site_files
from tests.fixtures import records
from tests.fixtures import tallies as planted
from tests.fixtures.aws import BUCKET
from tests.fixtures.conditions import REPORTED_MS, condition_report
from tests.fixtures.hot_path import commit
from tests.fixtures.settings import configured
from tests.fixtures.store_at import StoreAt
from tickcast.adapters.http.bodies import CARDS_SHOWN
from tickcast.adapters.http.responses import Response, as_json, if_none_match
from tickcast.adapters.http.routes import ROUTES
from tickcast.adapters.lake import condition_reports, tally_archive
from tickcast.adapters.lake.condition_reports import ConditionReports
from tickcast.adapters.lake.receipt_archive import Folder, ReceiptArchive
from tickcast.adapters.lake.tally_archive import TallyArchive
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.redis.hot_store import HotStore, Writes
from tickcast.adapters.registry.model_catalog import ModelCatalog
from tickcast.adapters.registry.pointer import POINTER
from tickcast.adapters.settings import ServePredictionsSettings
from tickcast.evaluation.live_scores import NO_TALLIES, AccuracySummary, SpanAccuracy, Tallies, score
from tickcast.features.ring import BarRing
from tickcast.functions.past_predictions import REQUESTS
from tickcast.functions.serve_predictions import (
    STORE_RETRIES,
    STORE_TIMEOUT_S,
    ServePredictions,
)
from tickcast.market.gaps import Gap, GapLedger
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import HORIZONS_S, PATH_S, Path, at, remaining
from tickcast.serving.prediction import timing_of
from tickcast.serving.records import (
    ArchivedReceipt,
    FeedHeartbeat,
    Heartbeat,
    Outcome,
    PathForecast,
    Prediction,
    StreamHeartbeat,
    encode,
)
from tickcast.serving.state import SymbolState

SETTINGS = configured(ServePredictionsSettings)
AT_S = 1_754_000_000
AT_MS = AT_S * 1000
FORECAST = records.path_forecast(AT_MS, basis_price=60_000.0)
PREDICTION = records.prediction(
    AT_MS,
    basis_price=60_000.0,
    latency_ms=130,
    target_time=AT_MS + 130 + 2000,
    horizons={h: records.horizon(h, predicted_price=60_000.0 + h) for h in (1, 2, 5, 10)},
    calibrator={1: Calibrator(direction_slope=1.0, interval_width=1.3)},
    timing_ms=timing_of([*range(9)]),
)
RECEIPT_ONLY = {"features", "calibrator", "path", "sequence"}
STREAM = StreamHeartbeat(at_ms=AT_MS, watermark_ms=AT_MS, received_ms=AT_MS, model_problem=None)
FEED = FeedHeartbeat(at_ms=AT_MS, watermark_ms=AT_MS, received_ms=AT_MS)


class EmptyLake:
    """An S3 without any object."""

    def get_object(self, **_: Any) -> Any:
        raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")

    def get_paginator(self, _: str) -> EmptyLake:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{}]


class Api:
    """Serves as if the time were `age_s` after the prediction's; its own clock is `own_off_s` ahead of that,
    and the store's `store_off_s`."""

    def __init__(
        self, store: HotStore, s3: Any = None, settings: ServePredictionsSettings = SETTINGS
    ) -> None:
        self.age_s, self.own_off_s, self.store_off_s = 0.3, 0.0, 0.0
        if isinstance(store, StoreAt):
            store.at_ms = lambda: (AT_S + self.age_s + self.store_off_s) * 1000
        models = ModelCatalog(lambda: s3, BUCKET, self.clock_ms)
        lake = s3 or EmptyLake()
        archives = ReceiptArchive(lambda: lake, BUCKET), TallyArchive(lambda: lake, BUCKET)
        self.serve = ServePredictions(
            settings,
            store,
            models,
            *archives,
            self.clock_ms,
            lambda name: f"text of {name}",
            reports=ConditionReports(lambda: lake, BUCKET),
        )

    def clock_ms(self) -> float:
        return (AT_S + self.age_s + self.own_off_s) * 1000

    def get(self, symbol: str = "BTCUSDT", **query: str) -> Response:
        return self.ask("/predictions/{symbol}", query, symbol=symbol)

    def health(self) -> Response:
        return self.ask("/health")

    def ask(self, resource: str, query: dict[str, str] | None = None, **path: str) -> Response:
        event = {
            "resource": resource,
            "pathParameters": path or None,
            "queryStringParameters": query or None,
            "multiValueQueryStringParameters": {name: [value] for name, value in (query or {}).items()},
        }
        return self.serve(event)


@pytest.fixture
def store(redis_client: redis.Redis) -> HotStore:
    return StoreAt(redis_client, 100_000)


@pytest.fixture
def api(store: HotStore) -> Api:
    return Api(store)


def test_a_thousand_symbols_fit_into_a_response_of_lambda(store: HotStore) -> None:
    """6 MB at most; and a problem does not list them all."""
    many = tuple(f"S{n}USDT" for n in range(1000))
    forecasts = {keys.latest_prediction(each): encode(replace(FORECAST, symbol=each)) for each in many}
    store._client.mset(forecasts)
    api = Api(store, settings=configured(ServePredictionsSettings, SYMBOLS=",".join(many)))
    several = api.ask("/predictions")
    assert (several.status, len(several.body["predictions"])) == (200, 1000)
    sizes = [len(json.dumps(response.body)) for response in (several, api.health())]
    print("bytes of /predictions and /health of a thousand symbols:", sizes)
    assert max(sizes) < 6_000_000
    assert "S9USDT and 990 more" in api.get("DOGEUSDT").body["detail"]


def put(
    store: HotStore,
    *predictions: Prediction,
    heartbeat: StreamHeartbeat = STREAM,
    forecast: PathForecast = FORECAST,
) -> None:
    writes = Writes()
    for symbol in SETTINGS.symbols:
        writes.heartbeat("predict_stream", symbol, heartbeat)
        writes.heartbeat("ingest_ecs", symbol, FEED)
    for prediction in predictions:
        writes.prediction(prediction)
    writes.put.append(latest(forecast))
    write(store, writes)


def latest(forecast: PathForecast) -> tuple[str, bytes, int]:
    """As the key is written: its name, value and TTL."""
    return keys.latest_prediction(forecast.symbol), encode(forecast), keys.TTL_S


def write(store: HotStore, writes: Writes) -> None:
    states, _ = store.load(["BTCUSDT"])
    sequence = states["BTCUSDT"].sequence
    state = SymbolState("BTCUSDT", BarRing(0), sequence=sequence + 1)
    assert commit(store, state, sequence, writes)


def made_at(offset_s: float, **changed: Any) -> Prediction:
    timestamp = AT_MS + round(offset_s * 1000)
    times: dict[str, Any] = {"timestamp": timestamp, "target_time": timestamp + 130 + 2000}
    return replace(PREDICTION, id=f"BTCUSDT-{timestamp}", **times | changed)


def outcome(horizon_s: int, **changed: Any) -> Outcome:
    return records.outcome(AT_MS, horizon_s, **{"target_time": AT_MS + 130 + 1000 * horizon_s} | changed)


def put_outcomes(store: HotStore, *outcomes: Outcome) -> None:
    writes = Writes()
    for each in sorted(outcomes, key=lambda each: (each.target_time, each.horizon_s)):
        writes.outcome(each)
    write(store, writes)


def test_a_fresh_prediction_is_served_from_the_model(store: HotStore, api: Api) -> None:
    put(store)
    answer = api.get()
    assert (answer.status, answer.ages_ms) == (200, [300])
    assert list(answer.body)[:5] == ["symbol", "timestamp", "predicted_price", "confidence", "latency_ms"]
    assert (answer.body["source"], answer.body["id"]) == ("model", f"BTCUSDT-{AT_MS}")
    # 1 bp a second from the row on: 2.3 s after it, of which 0.3 s are past.
    assert answer.body["predicted_price"] == pytest.approx(60_000.0 * 1.00023)
    assert answer.body["expected_move_bp"] == pytest.approx(2.0)
    assert (answer.body["as_of"], answer.body["target_time"]) == (AT_MS + 300, AT_MS + 2300)
    assert answer.body["age_ms"] == {"tick": 340, "claim": 300}
    assert answer.body["worth_trading"] is True  # of 1.2 bp
    assert answer.body["edge_bp"] == pytest.approx(0.8)
    response = answer.as_proxy_response()
    assert response["headers"]["Content-Type"] == "application/json"
    assert json.loads(response["body"]) == answer.body


def test_no_reading_of_the_newest_is_cached(store: HotStore, api: Api) -> None:
    put(store)
    for answer in (api.get(), api.ask(SEVERAL)):
        headers = answer.as_proxy_response("*")["headers"]
        assert (headers["Cache-Control"], "ETag" in headers) == ("no-store", False)


BENT = replace(
    records.path(),
    move_bp=[3.0 * t / (1 + t) for t in PATH_S],
    scale_bp=[1.7 * t**0.4 for t in PATH_S],
    p_flat=[0.9 / (1 + t) for t in PATH_S],
)


@pytest.mark.parametrize("age_s", [0.0, 0.137, 0.5, 4.9])
@pytest.mark.parametrize("horizon_s", HORIZONS_S)
def test_an_answer_is_what_is_still_to_come(store: HotStore, api: Api, age_s: float, horizon_s: int) -> None:
    put(store, forecast=replace(FORECAST, path=BENT))
    api.age_s = age_s
    body = api.get(horizon=str(horizon_s)).body
    move_bp, scale_bp, p_flat = remaining(BENT, age_s, horizon_s)
    assert body["expected_move_bp"] == pytest.approx(move_bp)
    assert (body["scale_bp"], body["p_flat"]) == pytest.approx((scale_bp, p_flat))
    whole_bp = at(BENT.move_bp, age_s + horizon_s)
    assert body["predicted_price"] == pytest.approx(60_000.0 * (1 + whole_bp / 1e4))
    assert body["lower"] < body["predicted_price"] < body["upper"]
    assert body["target_time"] == body["as_of"] + 1000 * horizon_s == AT_MS + 1000 * (age_s + horizon_s)
    assert body["horizons"].keys() == {"1", "2", "5", "10"}
    of_horizon = body["horizons"][str(horizon_s)]
    assert of_horizon == {name: body[name] for name in of_horizon}


def test_readings_at_three_ages_are_three_answers(store: HotStore, api: Api) -> None:
    put(store, forecast=replace(FORECAST, path=BENT))
    bodies = []
    for api.age_s in (0.1, 0.6, 3.0):
        bodies.append(api.get().body)
    for name in ("predicted_price", "expected_move_bp", "confidence", "p_up", "as_of", "target_time"):
        assert len({body[name] for body in bodies}) == 3, name
    assert len({body["id"] for body in bodies}) == len({body["basis_price"] for body in bodies}) == 1


@pytest.mark.parametrize("bp_per_s", [1.0, -1.0, 0.0])
def test_the_three_chances_sum_to_1(store: HotStore, api: Api, bp_per_s: float) -> None:
    put(store, forecast=replace(FORECAST, path=records.path(bp_per_s)))
    body = api.get().body
    for each in (body, *body["horizons"].values()):
        up, down, flat, confidence = (each[name] for name in ("p_up", "p_down", "p_flat", "confidence"))
        assert up + down + flat == pytest.approx(1)
        assert max(up, down) == pytest.approx((1 - flat) * confidence)
        assert (up > down, up < down) == (bp_per_s > 0, bp_per_s < 0)


@pytest.mark.parametrize(("cost_bp", "worth"), [(1.9, True), (2.1, False), (None, None)])
def test_whether_a_move_covers_its_cost_is_apart_from_noise(
    store: HotStore, api: Api, cost_bp: float | None, worth: bool | None
) -> None:
    put(store, forecast=replace(FORECAST, cost_bp=cost_bp))
    assert (api.get().body["worth_trading"], api.get().body["abstains"]) == (worth, False)
    put(store, forecast=replace(FORECAST, cost_bp=cost_bp, min_confidence=0.95))
    assert (api.get().body["worth_trading"], api.get().body["abstains"]) == (worth, True)


@pytest.mark.parametrize(("age_s", "source"), [(5.0, "model"), (5.01, "fallback"), (3600, "fallback")])
def test_a_forecast_older_than_five_seconds_is_a_fallback(
    store: HotStore, api: Api, age_s: float, source: str
) -> None:
    put(store, forecast=replace(FORECAST, last_tick_us=AT_MS * 1000))
    api.age_s = age_s
    answer = api.get()
    body = answer.body
    assert (body["source"], answer.ages_ms) == (source, [round(age_s * 1000)])
    if source == "fallback":
        assert (body["reason"], body["confidence"]) == ("stale_features", 0.0)
        assert body["predicted_price"] == body["basis_price"] == 60_000.0
        unknown = {
            "expected_move_bp",
            "p_up",
            "p_down",
            "p_flat",
            "lower",
            "upper",
            "edge_bp",
            "worth_trading",
        }
        assert {body[name] for name in unknown} == {None}
        assert (body["abstains"], body["horizons"]) == (True, {})
        assert body["target_time"] == body["as_of"] + 2000


def test_without_a_model_the_answer_is_the_last_known_price(store: HotStore, api: Api) -> None:
    put(store, forecast=replace(FORECAST, path=None, calibrator={}, source="fallback", reason="no_model"))
    body = api.get(horizon="5").body
    assert (body["reason"], body["horizon_s"]) == ("no_model", 5)
    assert (body["predicted_price"], body["confidence"], body["horizons"]) == (60_000.0, 0.0, {})


@pytest.mark.parametrize("offset_s", [-30.0, 30.0])
def test_a_clock_that_is_off_does_not_change_ages(store: HotStore, api: Api, offset_s: float) -> None:
    put(store, forecast=replace(FORECAST, clock_offset_ms=0.0))
    right = api.get().body
    put(store, forecast=replace(FORECAST, clock_offset_ms=offset_s * 1000))
    api.store_off_s = offset_s
    for api.own_off_s in (0.0, offset_s, -offset_s):
        assert api.get().body == right
    health = api.health()
    clock = health.body["services"]["clock"]
    assert (clock["ok"], clock["offset_ms"]) == (True, offset_s * 1000)
    side = "ahead of" if offset_s > 0 else "behind"
    assert f"the hot store's clock is 30.0 s {side} the exchange's; " in clock["why"]
    assert "compensated" in clock["why"]
    assert health.body["services"]["age"] == {"ok": True, "why": None, "age_s": 0.3}


def test_a_forecast_from_the_future_is_read_at_its_own_instant(store: HotStore, api: Api) -> None:
    put(store, forecast=replace(FORECAST, clock_offset_ms=None))
    api.age_s = -30
    body = api.get().body
    assert (body["as_of"], body["age_ms"]) == (AT_MS, {"tick": 40, "claim": 0})
    assert body["source"] == "model"
    health = api.health()
    clock = health.body["services"]["clock"]
    assert (health.status, clock["ok"], clock["offset_ms"]) == (503, False, None)
    assert "the newest forecast is 30.0 s ahead of the clock: ages are wrong" in clock["why"]
    assert "is not known, and counts as 0" in clock["why"]


def test_the_functions_own_clock_is_reported_and_used_for_no_age(store: HotStore, api: Api) -> None:
    put(store)
    api.own_off_s = -7
    health = api.health()
    clock = health.body["services"]["clock"]
    assert (health.status, clock["own_offset_ms"]) == (200, -7000)
    assert clock["why"] == (
        "the API's own clock is 7.0 s behind the hot store's; ages and features are compensated for that"
    )
    api.own_off_s = 0.5
    assert api.health().body["services"]["clock"]["why"] is None


def test_clocks_of_hosts_that_are_off_are_reported(store: HotStore, api: Api) -> None:
    put(store, heartbeat=replace(STREAM, own_offset_ms=-2500.0))
    writes = Writes()
    writes.heartbeat("ingest_ecs", "ETHUSDT", replace(FEED, host_offset_ms=30_000.0))
    write(store, writes)
    health = api.health()
    clock = health.body["services"]["clock"]
    assert (health.status, clock["ok"]) == (200, True)
    assert "ingest's clock is 30.0 s ahead of the exchange's" in clock["why"]
    assert "predict_stream's clock is 2.5 s behind the exchange's" in clock["why"]
    put(store, heartbeat=replace(STREAM, own_offset_ms=-900.0))
    assert api.health().body["services"]["clock"]["why"] is None


def test_the_time_of_reading_is_the_hot_store_s(redis_client: redis.Redis) -> None:
    store = HotStore(redis_client, 0)
    before: Any = redis_client.time()
    values, at_ms = store.values_at(["x"])
    after: Any = redis_client.time()
    assert values == [None]
    assert before[0] * 1000 + before[1] / 1000 <= at_ms <= after[0] * 1000 + after[1] / 1000


def aged(tick_age_s: float, quiet_age_s: float | None = None) -> PathForecast:
    """A forecast with a newest tick, and the newest evidence of a quiet market, so much older than itself."""
    quiet_us = None if quiet_age_s is None else round((AT_S - quiet_age_s) * 1e6)
    return replace(FORECAST, last_tick_us=round((AT_S - tick_age_s) * 1e6), quiet_us=quiet_us)


@pytest.mark.parametrize(
    ("forecast", "age_s", "source", "quiet"),
    [
        (aged(4.6), 0.3, "model", False),
        (aged(4.8), 0.3, "fallback", False),  # complete, but too old
        (aged(600, 1), 0.3, "model", True),
        (aged(600, 1), 4.0, "model", True),
        (aged(600, 1), 4.1, "fallback", False),  # the evidence is too old
        (aged(600, -60), 0.3, "fallback", False),  # or from a wrong clock
        (aged(600, -6), 5.1, "fallback", False),  # the claim is too old
        (aged(3, 0), 0.3, "model", False),  # young enough
    ],
)
def test_a_tick_is_too_old_unless_the_market_is_quiet_and_a_claim_always(
    store: HotStore, api: Api, forecast: PathForecast, age_s: float, source: str, quiet: bool
) -> None:
    put(store, forecast=forecast)
    api.age_s = age_s
    body = api.get().body
    assert (body["source"], body["quiet"]) == (source, quiet)
    assert body["age_ms"]["claim"] == age_s * 1000
    assert body["age_ms"]["tick"] == AT_MS + age_s * 1000 - (forecast.last_tick_us or 0) / 1000


SEVERAL = "/predictions"


def put_ethereum(store: HotStore, **changed: Any) -> None:
    writes = Writes()
    writes.put.append(latest(replace(records.path_forecast(AT_MS, symbol="ETHUSDT"), **changed)))
    write(store, writes)


def test_several_symbols_are_read_at_one_moment(store: HotStore, api: Api) -> None:
    put(store)
    put_ethereum(store, timestamp=AT_MS - 5000, last_tick_us=None)
    answer = api.ask(SEVERAL)
    assert (answer.status, answer.ages_ms, answer.body["problems"]) == (200, [300, 5300], {})
    assert answer.body["as_of"] == AT_MS + 300
    found = answer.body["predictions"]
    assert list(found) == ["BTCUSDT", "ETHUSDT"]
    assert (found["BTCUSDT"]["source"], found["ETHUSDT"]["source"]) == ("model", "fallback")
    assert found["ETHUSDT"]["reason"] == "stale_features"
    assert found == {symbol: api.get(symbol).body for symbol in found}


def test_several_symbols_over_another_horizon(store: HotStore, api: Api) -> None:
    put(store)
    body = api.ask(SEVERAL, {"symbols": "btcusdt,BTCUSDT", "horizon": "10"}).body
    assert list(body["predictions"]) == ["BTCUSDT"]
    assert body["predictions"]["BTCUSDT"] == api.get(horizon="10").body


def test_a_symbol_without_data_has_its_problem(store: HotStore, api: Api, redis_client: redis.Redis) -> None:
    assert api.ask(SEVERAL).status == 200
    put(store)
    for text, status, detail in (
        (None, 404, "no tick of ETHUSDT"),
        ("[]", 503, "records of ETHUSDT in Redis"),
    ):
        if text:
            redis_client.set("prediction:ETHUSDT:latest", text)
        body = api.ask(SEVERAL).body
        assert list(body["predictions"]) == ["BTCUSDT"]
        assert list(body["problems"]) == ["ETHUSDT"]
        assert body["problems"]["ETHUSDT"]["status"] == status
        assert detail in body["problems"]["ETHUSDT"]["detail"]


def test_history_adds_the_newest_predictions(store: HotStore, api: Api) -> None:
    put(store, *(made_at(n) for n in range(5)))
    body = api.get(history="3", horizon="10").body
    assert [past["timestamp"] for past in body["history"]] == [AT_MS + s * 1000 for s in (4, 3, 2)]
    assert {past["predicted_price"] for past in body["history"]} == {60_010.0}


def test_symbols_may_be_in_lower_case(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    assert api.get("btcusdt").status == 200
    receipt = api.ask("/predictions/{symbol}/{id}", symbol="btcusdt", id=f"btcusdt-{AT_MS}")
    assert receipt.status == 200


def test_only_the_receipt_has_the_heavy_parts(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    lists = [api.get(history="1").body, *api.get(history="1").body["history"]]
    lists += api.ask("/predictions/{symbol}/history", {"to": str(AT_MS)}, symbol="BTCUSDT").body[
        "predictions"
    ]
    api.age_s = 60
    lists.append(api.get().body)
    assert len(lists) == 4
    for each in lists:
        assert not each.keys() & RECEIPT_ONLY
    receipt = api.ask("/predictions/{symbol}/{id}", symbol="BTCUSDT", id=f"BTCUSDT-{AT_MS}").body
    assert {name: receipt[name] for name in as_json(PREDICTION)} == as_json(PREDICTION)


RECEIPT = "/predictions/{symbol}/{id}"


def test_a_receipt_is_final_once_all_outcomes_are_known(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)

    def receipt() -> Response:
        return api.ask(RECEIPT, symbol="BTCUSDT", id=f"BTCUSDT-{AT_MS}")

    assert receipt().body["outcomes"] == {}
    put_outcomes(store, outcome(1), outcome(2, status="unresolved", why="gap", inside=None, right=None))
    assert receipt().body["outcomes"].keys() == {"1", "2"}
    assert receipt().body["outcomes"]["2"]["why"] == "gap"
    assert "immutable" not in receipt().cache_control
    put_outcomes(store, outcome(5), outcome(10))
    assert receipt().body["outcomes"].keys() == {"1", "2", "5", "10"}
    assert "immutable" in receipt().cache_control


def test_the_receipt_of_a_prediction_between_seconds(
    store: HotStore, api: Api, redis_client: redis.Redis
) -> None:
    """It may be delivered in the same millisecond as another one, whose outcomes are not its."""
    put(store, PREDICTION)
    between = made_at(0.1, target_time=PREDICTION.target_time)
    entry = f"{between.timestamp}-0"
    redis_client.xadd("predictions:BTCUSDT:recent", {"json": encode(between)}, id=entry)
    put_outcomes(store, outcome(1))
    receipt = api.ask(RECEIPT, symbol="BTCUSDT", id=between.id)
    assert (receipt.status, receipt.body["timestamp"], receipt.body["outcomes"]) == (200, AT_MS + 100, {})
    assert [each["timestamp"] for each in api.get(history="5").body["history"]] == [AT_MS]


def test_lists_are_as_delivered(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    api.age_s = 3
    for horizon_s in HORIZONS_S:
        (listed,) = api.ask(HISTORY, {"horizon": str(horizon_s)}, symbol="BTCUSDT").body["predictions"]
        assert listed["target_time"] == AT_MS + 130 + 1000 * horizon_s
        assert listed["predicted_price"] == 60_000.0 + horizon_s


def test_lists_have_the_timing_of_each(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    (newest,), page = api.get(history="1").body["history"], api.ask(HISTORY, symbol="BTCUSDT").body
    assert newest["timing_ms"] == page["predictions"][0]["timing_ms"] == as_json(PREDICTION)["timing_ms"]


def test_lists_have_outcomes_where_they_are_asked_for(store: HotStore, api: Api) -> None:
    """Each its own, though another prediction was delivered in the same millisecond."""
    put(store, PREDICTION, made_at(1))
    api.age_s = 3
    gap = outcome(
        2, status="unresolved", why="gap", move_bp=None, outcome_price=None, inside=None, right=None
    )
    of_another = outcome(5, id=f"BTCUSDT-{AT_MS + 100}")
    put_outcomes(store, outcome(1), gap, of_another)
    known = {
        "1": {
            "status": "resolved",
            "why": None,
            "move_bp": 1.0,
            "outcome_price": 100.01,
            "delivered_price": 100.0,
            "inside": True,
            "right": True,
        },
        "2": {
            "status": "unresolved",
            "why": "gap",
            "move_bp": None,
            "outcome_price": None,
            "delivered_price": 100.0,
            "inside": None,
            "right": None,
        },
    }
    page = api.ask(HISTORY, {"outcomes": "true"}, symbol="BTCUSDT").body["predictions"]
    newest = api.get(history="2", outcomes="true").body["history"]
    for listed in (page, newest):
        assert [each["outcomes"] for each in listed] == [{}, known]
    for without in (api.get(history="2"), api.get(history="2", outcomes="false")):
        assert all("outcomes" not in each for each in without.body["history"])


def test_archived_predictions_in_lists_have_their_outcomes(store: HotStore, s3: Any) -> None:
    archived(s3, 7200, 7201)
    query = {"from": str(AT_MS - 7_300_000), "to": str(AT_MS), "limit": "1", "outcomes": "true"}
    seen = []
    while query:
        page = Api(store, s3).ask(HISTORY, query, symbol="BTCUSDT").body
        seen += [each["outcomes"] for each in page["predictions"]]
        query = dict(parse_qsl((page["next"] or "").removeprefix("?")))
    assert [each.keys() for each in seen] == [{"1", "2", "5", "10"}] * 2


@pytest.mark.parametrize("query", [{"history": "300"}, {"limit": "300"}])
def test_outcomes_of_a_list_take_few_requests_to_the_store(
    store: HotStore, redis_client: redis.Redis, query: dict[str, str]
) -> None:
    """Predictions and their outcomes: as many round trips as pages."""
    put(store, *(made_at(n) for n in range(300)))
    put_outcomes(
        store,
        *(
            records.outcome(AT_MS + n * 1000, h, target_time=AT_MS + n * 1000 + 130 + 1000 * h)
            for n in range(300)
            for h in HORIZONS_S
        ),
    )
    api = Api(store)
    api.age_s = 320
    before = redis_client.info("commandstats")["cmdstat_xrange"]["calls"]
    resource = HISTORY if "limit" in query else LATEST
    body = api.ask(resource, query | {"outcomes": "true"}, symbol="BTCUSDT").body
    listed = body.get("predictions") or body["history"]
    assert [len(each["outcomes"]) for each in listed] == [4] * 300
    assert redis_client.info("commandstats")["cmdstat_xrange"]["calls"] - before <= 10


LATEST = "/predictions/{symbol}"
HISTORY = "/predictions/{symbol}/history"
ACCURACY = "/accuracy/{symbol}"


def test_history_continues_from_page_to_page_and_shows_gaps(store: HotStore, api: Api) -> None:
    seconds = [0, 1, 2, 5, 6, 7, 9]  # without 3, 4 and 8
    put(store, *(made_at(s) for s in seconds))
    api.age_s = 20
    query, seen, pages = {"from": str(AT_MS + 1000), "to": str(AT_MS + 9000), "limit": "4"}, [], 0
    while query:
        page = api.ask(HISTORY, query, symbol="BTCUSDT").body
        assert page["count"] == len(page["predictions"]) <= 4
        seen += [(each["timestamp"] - AT_MS) // 1000 for each in page["predictions"]]
        query, pages = dict(parse_qsl((page["next"] or "").removeprefix("?"))), pages + 1
    assert seen == [9, 7, 6, 5, 2, 1]
    assert pages == 2


DAY_S = 86_400


def archived(s3: Any, *ages_s: float, between: bool = False) -> None:
    """Receipts in the lake, so many seconds older than AT_S, with all outcomes but in between."""
    archive = ReceiptArchive(lambda: s3, BUCKET)
    for age_s in ages_s:
        at_ms = round(1000 * (AT_S - age_s))
        outcomes = {} if between else {h: records.outcome(at_ms, h) for h in HORIZONS_S}
        receipt = ArchivedReceipt(**asdict(records.prediction(at_ms)), outcomes=outcomes)
        archive.add(Folder.BETWEEN if between else Folder.SECONDS, "BTCUSDT", [receipt])


@pytest.mark.parametrize(("age_s", "between"), [(4000, False), (6 * DAY_S, False), (400.1, True)])
def test_a_receipt_that_the_store_has_dropped_is_in_the_archive(
    store: HotStore, s3: Any, age_s: float, between: bool
) -> None:
    api, at_ms = Api(store, s3), round(1000 * (AT_S - age_s))
    id_ = f"BTCUSDT-{at_ms}"
    assert api.ask(RECEIPT, symbol="BTCUSDT", id=id_).status == 404
    archived(s3, age_s, between=between)
    receipt = api.ask(RECEIPT, symbol="BTCUSDT", id=id_)
    assert (receipt.status, receipt.body["id"], receipt.body["environment"]) == (200, id_, "test")
    assert receipt.body["outcomes"].keys() == (set() if between else {"1", "2", "5", "10"})
    # Those in between have no outcomes; after a day nothing is waited for.
    assert ("immutable" in receipt.cache_control) is not between
    api.age_s = 1.5 * DAY_S
    assert "immutable" in api.ask(RECEIPT, symbol="BTCUSDT", id=id_).cache_control
    api.age_s = 9 * DAY_S  # it may still be there, but nobody pays a request for what is too old
    assert api.ask(RECEIPT, symbol="BTCUSDT", id=id_).status == 404


def test_no_archive_is_asked_for_a_symbol_that_none_can_have(store: HotStore) -> None:
    symbol = "A" * 2000
    unreachable = Api(store, object())
    answer = unreachable.ask(RECEIPT, symbol=symbol, id=f"{symbol}-{1000 * (AT_S - 4000)}")
    assert (answer.status, answer.body["title"]) == (404, "Unknown symbol")


def test_history_reaches_into_the_archive(store: HotStore, s3: Any) -> None:
    """The hour from the store, older ones from the lake, each once, over days without any object."""
    put(store, *(made_at(s) for s in (-3599, -1, 0)))
    ages_s = [3500, 3599, 3601, 3602, 4000, DAY_S, 3 * DAY_S, 3 * DAY_S + 1]
    archived(s3, *ages_s)  # the first two are in the store's hour, in which the lake is not read
    api = Api(store, s3)
    query, seen, pages = {"from": str(1000 * (AT_S - 4 * DAY_S)), "limit": "2"}, [], 0
    while query:
        page = api.ask(HISTORY, query, symbol="BTCUSDT").body
        seen += [AT_S - each["timestamp"] // 1000 for each in page["predictions"]]
        query, pages = dict(parse_qsl((page["next"] or "").removeprefix("?"))), pages + 1
    assert seen == [0, 1, 3599, *ages_s[2:]]
    assert pages == 5


def test_a_page_takes_few_requests_to_the_lake(store: HotStore, s3: Any) -> None:
    """Where there is little, it ends before its limit, and the next one continues."""
    ages_s = [DAY_S + 300 * n for n in range(40)]
    archived(s3, *ages_s)
    api, query, counts = Api(store, s3), {"from": str(1000 * (AT_S - 5 * DAY_S)), "limit": "1000"}, []
    while query:
        page = api.ask(HISTORY, query, symbol="BTCUSDT").body
        counts.append(page["count"])
        query = dict(parse_qsl((page["next"] or "").removeprefix("?")))
    assert sum(counts) == 40
    assert max(counts) < REQUESTS
    assert len(counts) == 3


def test_a_span_before_all_archived_takes_no_listing(store: HotStore) -> None:
    """Nothing is kept for longer, so a page of 1970 is empty at once."""
    query = {"from": "0", "to": str(1000 * (AT_S - 9 * DAY_S))}
    unreachable = Api(store, object())
    page = unreachable.ask(HISTORY, query, symbol="BTCUSDT").body
    assert (page["count"], page["next"]) == (0, None)


@pytest.mark.parametrize("resource", ["/predictions/{symbol}/{id}", "/predictions/{symbol}/history"])
def test_an_archive_that_fails_is_a_503(store: HotStore, s3: Any, resource: str) -> None:
    api = Api(store, s3)
    at_ms = 1000 * (AT_S - 4000)
    query = {"from": str(at_ms)} if resource.endswith("history") else None
    path = {} if query else {"id": f"BTCUSDT-{at_ms}"}
    s3.put_object(Bucket=BUCKET, Key=Folder.SECONDS.key("BTCUSDT", at_ms), Body=b"damaged")
    answer = api.ask(resource, query, symbol="BTCUSDT", **path)
    assert (answer.status, answer.body["title"]) == (503, "Archive unreadable")
    assert "receipts/symbol=BTCUSDT" in answer.body["detail"]
    s3.delete_object(Bucket=BUCKET, Key=Folder.SECONDS.key("BTCUSDT", at_ms))
    s3.delete_bucket(Bucket=BUCKET)
    answer = api.ask(resource, query, symbol="BTCUSDT", **path)
    assert (answer.status, answer.body["title"]) == (503, "Archive unavailable")
    put(store, PREDICTION)  # what the store has needs no archive
    assert api.ask(RECEIPT, symbol="BTCUSDT", id=f"BTCUSDT-{AT_MS}").status == 200


def test_a_page_that_is_just_full_is_the_last(store: HotStore, api: Api) -> None:
    put(store, *(made_at(s) for s in range(3)))
    api.age_s = 20
    assert api.ask(HISTORY, {"limit": "3"}, symbol="BTCUSDT").body["next"] is None
    assert api.ask(HISTORY, {"limit": "2"}, symbol="BTCUSDT").body["next"] is not None


def test_new_predictions_do_not_move_a_page(store: HotStore, api: Api) -> None:
    put(store, *(made_at(s) for s in range(4)))
    api.age_s = 4
    first = api.ask(HISTORY, {"limit": "2"}, symbol="BTCUSDT").body
    put(store, made_at(4), made_at(5))
    api.age_s = 6
    second = api.ask(HISTORY, dict(parse_qsl(first["next"][1:])), symbol="BTCUSDT").body
    stamps = [each["timestamp"] for page in (first, second) for each in page["predictions"]]
    assert stamps == [AT_MS + s * 1000 for s in (3, 2, 1, 0)]


@pytest.mark.parametrize(
    "instant",
    [
        str(AT_MS + 2000),
        "2025-07-31T22:13:22Z",
        "2025-07-31t22:13:22.000z",
        "2025-08-01T00:13:22+02:00",
        "2025-07-31T22:13:22.0000001Z",
    ],
)
def test_an_instant_may_be_a_date_or_milliseconds(store: HotStore, api: Api, instant: str) -> None:
    put(store, *(made_at(s) for s in range(4)))
    api.age_s = 4
    body = api.ask(HISTORY, {"from": instant}, symbol="BTCUSDT").body
    assert body["from"] == AT_MS + 2000
    assert [each["timestamp"] for each in body["predictions"]] == [AT_MS + 3000, AT_MS + 2000]


@pytest.mark.parametrize(
    ("resource", "path", "query", "status", "parameter", "detail"),
    [
        (None, "DOGEUSDT", {}, 404, "symbol", "'DOGEUSDT' is not served; served are BTCUSDT, ETHUSDT"),
        (None, "", {}, 404, "symbol", "'' is not served"),
        (None, "ETHUSDT", {}, 404, "symbol", "no tick of ETHUSDT has arrived so far"),
        (SEVERAL, None, {"symbols": "BTCUSDT,DOGEUSDT"}, 404, "symbols", "'DOGEUSDT' is not served"),
        (
            SEVERAL,
            None,
            {"symbols": ""},
            400,
            "symbols",
            "symbols is '', it should be symbols separated by commas",
        ),
        (SEVERAL, None, {"symbols": "BTCUSDT,"}, 400, "symbols", "symbols is 'BTCUSDT,', it should be"),
        (SEVERAL, None, {"symbols": "BTCUSDT, ETHUSDT"}, 400, "symbols", "without spaces"),
        (SEVERAL, None, {"horizon": "3"}, 400, "horizon", "horizon is '3'"),
        (SEVERAL, None, {"history": "3"}, 400, "history", "history; known are symbols, horizon"),
        (
            None,
            "BTCUSDT",
            {"horizon": "3"},
            400,
            "horizon",
            "horizon is '3', it should be one of 1, 2, 5, 10",
        ),
        (None, "BTCUSDT", {"horizon": "two"}, 400, "horizon", "horizon is 'two'"),
        (None, "BTCUSDT", {"horizon": "9" * 5000}, 400, "horizon", "horizon is '9"),
        (None, "BTCUSDT", {"history": "-1"}, 400, "history", "history is '-1', it should be 0 to 300"),
        (None, "BTCUSDT", {"history": "301"}, 400, "history", "history is '301'"),
        (None, "BTCUSDT", {"history": "²"}, 400, "history", "history is '²'"),
        (None, "BTCUSDT", {"history": "9" * 5000}, 400, "history", "history is '9"),
        (None, "BTCUSDT", {"horzion": "2"}, 400, "horzion", "horzion; known are horizon, history"),
        (HISTORY, "BTCUSDT", {"limit": "0"}, 400, "limit", "limit is '0', it should be 1 to 1000"),
        (HISTORY, "BTCUSDT", {"limit": "1001"}, 400, "limit", "limit is '1001'"),
        (
            HISTORY,
            "BTCUSDT",
            {"from": "yesterday"},
            400,
            "from",
            "from is 'yesterday', it should be an instant",
        ),
        (HISTORY, "BTCUSDT", {"from": "2026-01-01"}, 400, "from", "an instant like 2026-01-31T12:00:00Z"),
        (HISTORY, "BTCUSDT", {"from": "2026-01-01T00:00:00"}, 400, "from", "an instant like"),
        (HISTORY, "BTCUSDT", {"to": "2026-13-01T00:00:00Z"}, 400, "to", "month must be in 1..12"),
        (HISTORY, "BTCUSDT", {"to": "2026-01-01T00:00:00 02:00"}, 400, "to", "a + is written %2B"),
        (HISTORY, "BTCUSDT", {"to": "1" * 14}, 400, "to", "or milliseconds since 1970"),
        (HISTORY, "BTCUSDT", {"from": "2", "to": "1"}, 400, "from", "from (2) is later than to (1)"),
        (ACCURACY, "BTCUSDT", {"to": "1"}, 400, "from", "to is given without from"),
        (ACCURACY, "BTCUSDT", {"from": "2", "to": "1"}, 400, "from", "from (2) is later than to (1"),
        (ACCURACY, "BTCUSDT", {"from": "9999999999999"}, 400, "from", "now at the latest"),
        (ACCURACY, "BTCUSDT", {"from": "0"}, 400, "from", "it should have 100 at most"),
        (HISTORY, "BTCUSDT", {"cursor": "x"}, 400, "cursor", "should be taken from `next`"),
        (ACCURACY, "BTCUSDT", {"horizon": "2"}, 400, "horizon", "horizon; known are from, to"),
        ("/accuracy/{symbol}", "DOGEUSDT", {}, 404, "symbol", "'DOGEUSDT' is not served"),
        ("/data/{symbol}", "BTCUSDT", {"days": "0"}, 400, "days", "'0', it should be 1 to 400 days"),
        ("/data/{symbol}", "DOGEUSDT", {}, 404, "symbol", "'DOGEUSDT' is not served"),
        ("/models", None, {"a": "1"}, 400, "a", "a; this path takes none"),
        ("/health", None, {"a": "1"}, 400, "a", "a; this path takes none"),
    ],
)
def test_errors_are_problems_that_name_the_parameter(
    store: HotStore,
    api: Api,
    resource: str | None,
    path: str | None,
    query: dict[str, str],
    status: int,
    parameter: str,
    detail: str,
) -> None:
    put(store, PREDICTION)
    names = {"symbol": path} if path is not None else {}
    answer = api.ask(resource or "/predictions/{symbol}", query, **names)
    response = answer.as_proxy_response()
    assert (answer.status, response["statusCode"]) == (status, status)
    assert response["headers"]["Content-Type"] == "application/problem+json"
    assert response["headers"]["Cache-Control"] == "no-store"
    assert response["headers"]["Access-Control-Allow-Origin"] == "*"
    problem = json.loads(response["body"])
    assert (problem["status"], problem["parameter"]) == (status, parameter)
    assert problem["title"]
    assert detail in problem["detail"]
    assert len(problem["detail"]) < 200


@pytest.mark.parametrize(
    ("prediction_id", "status", "detail"),
    [
        ("BTCUSDT-1", 404, "no prediction BTCUSDT-1 of BTCUSDT is kept: those of the first"),
        ("BTCUSDT-1", 404, "of each second are for 7 days, all others for about five minutes"),
        (f"ETHUSDT-{AT_MS}", 404, "of BTCUSDT is kept"),
        ("latest", 400, "id is 'LATEST', it should be like BTCUSDT-1767225600000"),
        ("BTCUSDT-" + "1" * 14, 400, "it should be like"),
        ("BTCUSDT-²", 400, "it should be like"),
    ],
)
def test_an_id_without_a_prediction(
    store: HotStore, api: Api, prediction_id: str, status: int, detail: str
) -> None:
    put(store, PREDICTION)
    answer = api.ask("/predictions/{symbol}/{id}", symbol="BTCUSDT", id=prediction_id)
    assert (answer.status, answer.body["parameter"]) == (status, "id")
    assert detail in answer.body["detail"]


def test_a_parameter_given_twice_is_refused(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    answer = api.serve(
        {
            "resource": "/predictions/{symbol}",
            "pathParameters": {"symbol": "BTCUSDT"},
            "queryStringParameters": {"horizon": "2"},
            "multiValueQueryStringParameters": {"horizon": ["1", "2"]},
        }
    )
    assert (answer.status, answer.body["detail"]) == (
        400,
        "horizon is given 2 times, it should be given once",
    )


def scored(scored_ms: int) -> AccuracySummary:
    """Accuracy without any outcome."""
    span = SpanAccuracy(from_ms=1, to_ms=2, first_ms=1, availability=None, horizons=score(NO_TALLIES))
    return AccuracySummary(symbol="BTCUSDT", scored_ms=scored_ms, hour=span, day=span, week=span)


def test_accuracy_is_what_was_scored_last(store: HotStore, api: Api) -> None:
    """test_score_predictions tests the scoring, test_openapi the format."""
    summary = scored(AT_MS - 40_000)
    summary.hour = replace(summary.hour, from_ms=0)
    summary.hour.horizons[2].count = 7
    store.put_accuracy(summary)
    answer = api.ask("/accuracy/{symbol}", symbol="BTCUSDT").body
    assert (answer["from"], answer["to"], answer["horizons"]["2"]["count"]) == (0, 2, 7)
    assert answer["summary"] == as_json(summary)
    assert answer["scored_age_s"] == 40.3


def test_accuracy_before_anything_was_scored(api: Api) -> None:
    answer = api.ask("/accuracy/{symbol}", symbol="BTCUSDT").body
    assert (answer["summary"], answer["scored_age_s"]) == (None, None)
    assert [figures["count"] for figures in answer["horizons"].values()] == [0, 0, 0, 0]


HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
NOW_US = AT_S * 1_000_000
TODAY_US = NOW_US // DAY_US * DAY_US


def tallied(s3: Any, *days: int, until_us: int = 2**62) -> Tallies:
    """Ten outcomes in each hour of so many days ago, until `until_us`, in the lake; all of them."""
    archive, found = TallyArchive(lambda: s3, BUCKET), []
    for day in days:
        from_us = TODAY_US - day * DAY_US
        end_us = min(from_us + DAY_US, until_us)
        seconds = [hour_us // 1_000_000 + s for hour_us in range(from_us, end_us, HOUR_US) for s in range(10)]
        of_day = planted.tallies(planted.at_seconds(seconds, seed=day, horizon_s=1), HOUR_US)
        archive.put("BTCUSDT", (from_us, end_us), from_us + HOUR_US if day == max(days) else from_us, of_day)
        found.append(of_day)
    return np.concatenate(found)


def test_the_accuracy_of_thirty_days_is_that_of_their_outcomes(store: HotStore, s3: Any) -> None:
    last_us = NOW_US // HOUR_US * HOUR_US
    tallies = tallied(s3, *range(30, -1, -1), until_us=last_us)
    store.put_accuracy(scored(AT_MS - 40_000))
    api = Api(store, s3)
    from_us = TODAY_US - 30 * DAY_US
    body = api.ask(ACCURACY, {"from": str(from_us // 1000 + 5)}, symbol="BTCUSDT").body
    assert (body["from"], body["to"]) == (from_us // 1000, last_us // 1000)  # as far as it is archived
    assert body["first"] == (from_us + HOUR_US) // 1000
    assert body["horizons"]["1"]["count"] == len(tallies) == 10 * (30 * 24 + 22)
    tallies["block"] //= 5  # 743 hours in 149 blocks
    assert body["horizons"] == msgspec.to_builtins(score(tallies), str_keys=True)
    assert body["availability"] == round(10 / 3600 * len(tallies) / (len(tallies) - 10), 4)
    assert body["summary"]["scored_ms"] == AT_MS - 40_000  # as without a span
    assert ", of which those up to 2025-07-31T22:00Z are archived. Regimes, earnings" in body["note"]


def test_a_span_is_of_whole_hours(store: HotStore, s3: Any) -> None:
    tallied(s3, 2, 1)
    at_us = TODAY_US - DAY_US + 5 * HOUR_US
    query = {"from": str(at_us // 1000 + 1), "to": str((at_us + HOUR_US) // 1000 + 1)}
    body = Api(store, s3).ask(ACCURACY, query, symbol="BTCUSDT").body
    assert (body["from"], body["to"]) == (at_us // 1000, (at_us + 2 * HOUR_US) // 1000)
    assert (body["horizons"]["1"]["count"], body["first"], body["summary"]) == (20, body["from"], None)
    assert body["note"].startswith(
        "The span is 2025-07-30T05:00Z to 2025-07-30T07:00Z: whole hours. Regimes,"
    )


def test_a_span_without_scores_has_none(store: HotStore, s3: Any) -> None:
    body = Api(store, s3).ask(ACCURACY, {"from": str(AT_MS - 7_200_000)}, symbol="BTCUSDT").body
    assert body["from"] == body["to"]
    assert (body["first"], body["availability"], body["horizons"]["2"]["skill"]) == (None, None, None)
    assert "to 2025-07-31T23:00Z: whole hours. Nothing of it is archived" in body["note"]
    assert "note" not in Api(store).ask(ACCURACY, symbol="BTCUSDT").body


def test_scores_that_cannot_be_read_are_a_503(store: HotStore, s3: Any) -> None:
    api, query = Api(store, s3), {"from": str(AT_MS - 7_200_000)}
    s3.put_object(Bucket=BUCKET, Key=tally_archive.key("BTCUSDT", NOW_US), Body=b"damaged")
    answer = api.ask(ACCURACY, query, symbol="BTCUSDT")
    assert (answer.status, answer.body["title"]) == (503, "Archive unreadable")
    s3.delete_object(Bucket=BUCKET, Key=tally_archive.key("BTCUSDT", NOW_US))
    s3.delete_bucket(Bucket=BUCKET)
    answer = api.ask(ACCURACY, query, symbol="BTCUSDT")
    assert (answer.status, answer.body["title"]) == (503, "Archive unavailable")


def test_every_route_has_a_handler(api: Api) -> None:
    assert list(api.serve.handlers()) == list(ROUTES)


def test_models_are_the_newest_cards_and_the_pointer(store: HotStore, s3: Any) -> None:
    api = Api(store, s3)
    assert api.ask("/models").body == {"current": None, "models": [], "total": 0}
    for n in range(CARDS_SHOWN + 2):
        card = json.dumps({"model_id": f"m{n:02}", "rows": n})
        s3.put_object(Bucket=BUCKET, Key=f"models/m{n:02}/card.json", Body=card)
    s3.put_object(Bucket=BUCKET, Key="models/m99/card.json", Body="no card at all")
    s3.put_object(Bucket=BUCKET, Key=POINTER, Body='{"model_id": "m05"}')
    assert api.ask("/models").body["total"] == 0  # listed a moment ago
    api.age_s += 3
    body = api.ask("/models").body
    assert (body["current"], body["total"]) == ({"model_id": "m05"}, CARDS_SHOWN + 3)
    assert len(body["models"]) == CARDS_SHOWN
    by_id = {card["model_id"]: card for card in body["models"]}
    assert by_id["m21"]["rows"] == 21
    assert "not a card" in by_id["m99"]["problem"]


def test_the_condition_of_the_data_is_that_of_the_newest_report(store: HotStore, s3: Any) -> None:
    api = Api(store, s3)
    answer = api.ask("/data/{symbol}", symbol="BTCUSDT")
    assert (answer.status, answer.body["title"]) == (404, "No data yet")
    condition_reports.put_report(s3, BUCKET, condition_report("BTCUSDT"))
    body = api.ask("/data/{symbol}", symbol="BTCUSDT").body
    assert [(day["day"], day["condition"]) for day in body["days"]] == [
        ("2025-08-01", "degraded"),
        ("2025-07-31", "missing"),
        ("2025-07-30", "repaired"),
    ]
    assert (body["reported"], body["total"]) == (REPORTED_MS, 3)
    (newest,) = api.ask("/data/{symbol}", {"days": "1"}, symbol="BTCUSDT").body["days"]
    assert [(gap["status"], gap["cause"]) for gap in newest["gaps"]] == [
        (status, "reset by peer") for status in ("missing", "withheld", "repaired")
    ]
    s3.put_object(Bucket=BUCKET, Key=condition_reports.report_key("BTCUSDT"), Body=b'{"days": 1}')
    answer = api.ask("/data/{symbol}", symbol="BTCUSDT")
    assert (answer.status, answer.body["title"]) == (503, "Report unreadable")


def test_s3_out_of_reach_is_a_503(store: HotStore, s3: Any) -> None:
    s3.delete_bucket(Bucket=BUCKET)
    answer = Api(store, s3).ask("/models")
    assert (answer.status, answer.body["title"]) == (503, "Models unavailable")
    answer = Api(store, s3).ask("/data/{symbol}", symbol="BTCUSDT")
    assert (answer.status, answer.body["title"]) == (503, "Report unavailable")


def test_known_content_is_a_304(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    answer = api.ask("/predictions/{symbol}/{id}", symbol="BTCUSDT", id=f"BTCUSDT-{AT_MS}")
    tag = answer.as_proxy_response()["headers"]["ETag"]
    for known in (tag, f'"x", W/{tag}', "*"):
        again = answer.as_proxy_response(known)
        assert (again["statusCode"], again["body"]) == (304, "")
        assert again["headers"]["ETag"] == tag
    assert answer.as_proxy_response('"x"')["statusCode"] == 200
    put_outcomes(store, outcome(1))
    changed = api.ask("/predictions/{symbol}/{id}", symbol="BTCUSDT", id=f"BTCUSDT-{AT_MS}")
    assert changed.as_proxy_response(tag)["statusCode"] == 200
    problem = api.get("DOGEUSDT").as_proxy_response("*")
    assert (problem["statusCode"], "ETag" in problem["headers"]) == (404, False)


def seen_again(api: Api, resource: str, query: dict[str, str] | None = None, **path: str) -> bool:
    """Whether a caller who sends the tag of the first response gets a 304 as the second."""
    first = api.ask(resource, query, **path).as_proxy_response()
    api.age_s += 0.7
    second = api.ask(resource, query, **path).as_proxy_response(first["headers"]["ETag"])
    assert second["statusCode"] in (200, 304)
    return bool(second["statusCode"] == 304)


def test_history_without_a_new_prediction_is_a_304(store: HotStore, api: Api) -> None:
    put(store, *(made_at(s) for s in range(3)))
    api.age_s = 3
    assert seen_again(api, HISTORY, {"limit": "2"}, symbol="BTCUSDT")
    assert seen_again(api, HISTORY, {"from": str(AT_MS)}, symbol="BTCUSDT")
    assert seen_again(api, HISTORY, {"to": str(AT_MS + 2000)}, symbol="BTCUSDT")
    tag = api.ask(HISTORY, symbol="BTCUSDT").as_proxy_response()["headers"]["ETag"]
    put(store, made_at(3))
    assert api.ask(HISTORY, symbol="BTCUSDT").as_proxy_response(tag)["statusCode"] == 200


def test_accuracy_is_a_304_until_it_is_scored_again(store: HotStore, api: Api) -> None:
    assert seen_again(api, "/accuracy/{symbol}", symbol="BTCUSDT")
    store.put_accuracy(scored(AT_MS))
    assert seen_again(api, "/accuracy/{symbol}", symbol="BTCUSDT")
    tag = api.ask("/accuracy/{symbol}", symbol="BTCUSDT").as_proxy_response()["headers"]["ETag"]
    store.put_accuracy(scored(AT_MS + 1))
    assert api.ask("/accuracy/{symbol}", symbol="BTCUSDT").as_proxy_response(tag)["statusCode"] == 200


TAG = 'W/"0123"'


@pytest.mark.parametrize(
    ("event", "tags"),
    [
        ({"headers": {"If-None-Match": TAG}}, TAG),
        ({"headers": {"if-none-match": TAG, "Accept": "*/*"}}, TAG),
        ({"headers": {"IF-NONE-MATCH": TAG}, "multiValueHeaders": None}, TAG),
        ({"headers": {"If-None-Match": "b"}, "multiValueHeaders": {"if-None-match": ["a", "b"]}}, "a, b"),
        ({"headers": None}, ""),
        ({"headers": {"If-None-Match": None}}, ""),
        ({}, ""),
    ],
)
def test_if_none_match_in_every_spelling_of_a_gateway(event: dict[str, Any], tags: str) -> None:
    assert if_none_match(event) == tags


def payload_bytes(answer: Response) -> int:
    """The size of the response as Lambda sends it: a string of JSON within JSON."""
    return len(json.dumps(answer.as_proxy_response()).encode())


def test_a_page_too_large_to_send_is_cut_and_the_next_continues(store: HotStore, api: Api) -> None:
    """With strings full of quotation marks and backslashes, which are escaped twice."""
    heavy: dict[str, Any] = {"outside": ['"\\"' * 4000], "late_ids": list(range(10**9, 10**9 + 400))}
    put(store, *(made_at(s, **heavy) for s in range(400)))
    api.age_s = 400
    query, seen, pages = {"from": str(AT_MS), "to": str(AT_MS + 399_000), "limit": "1000"}, [], 0
    while query:
        answer = api.ask(HISTORY, query, symbol="BTCUSDT")
        assert 0 < payload_bytes(answer) <= 6_291_456
        assert answer.body["count"] == len(answer.body["predictions"]) > 0
        seen += [(each["timestamp"] - AT_MS) // 1000 for each in answer.body["predictions"]]
        query, pages = dict(parse_qsl((answer.body["next"] or "").removeprefix("?"))), pages + 1
    assert seen == list(range(399, -1, -1))
    assert 2 < pages < 10


def test_a_list_of_the_newest_too_large_to_send_is_cut(store: HotStore, api: Api) -> None:
    put(store, *(made_at(s, outside=['"' * 10_000]) for s in range(300)))
    api.age_s = 300
    answer = api.get(history="300")
    assert payload_bytes(answer) <= 6_291_456
    assert [past["timestamp"] for past in answer.body["history"][:2]] == [AT_MS + 299_000, AT_MS + 298_000]
    assert 100 < len(answer.body["history"]) < 300


def test_cards_too_large_to_send_are_cut(store: HotStore, s3: Any) -> None:
    for n in range(4):
        card = json.dumps({"model_id": f"m{n}", "reason": '"' * 600_000})
        s3.put_object(Bucket=BUCKET, Key=f"models/m{n}/card.json", Body=card)
    answer = Api(store, s3).ask("/models")
    assert payload_bytes(answer) <= 6_291_456
    assert (len(answer.body["models"]), answer.body["total"]) == (2, 4)


def test_a_response_too_large_to_send_is_a_problem() -> None:
    response = Response(200, {"text": "x" * 6_300_000}).as_proxy_response()
    assert (response["statusCode"], response["headers"]["Content-Type"]) == (500, "application/problem+json")


@pytest.mark.parametrize("to", ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "9" * 13])
def test_a_page_up_to_the_far_future_has_a_next_page(store: HotStore, api: Api, to: str) -> None:
    put(store, *(made_at(s) for s in range(3)))
    first = api.ask(HISTORY, {"from": str(AT_MS), "to": to, "limit": "2"}, symbol="BTCUSDT")
    second = api.ask(HISTORY, dict(parse_qsl(first.body["next"][1:])), symbol="BTCUSDT")
    assert second.status == 200
    assert [each["timestamp"] for each in second.body["predictions"]] == [AT_MS]


CHINESE = "币安人生USDT"


@pytest.mark.parametrize(
    ("symbol", "asked"),
    [
        (CHINESE, CHINESE),
        (CHINESE, CHINESE.lower()),
        (CHINESE, quote(CHINESE)),
        (CHINESE, quote(CHINESE.lower()).lower()),
        ("这是测试币456", "这是测试币456"),
        ("\u00c9TUSDT", "e\u0301tusdt"),
        ("\u00c9TUSDT", quote("E\u0301TUSDT")),
        ("ßUSDT", "ßusdt"),
        ("BTCUSDT", "%42tcusdt"),
    ],
)
def test_symbols_in_any_script_and_encoding(
    store: HotStore, redis_client: redis.Redis, symbol: str, asked: str
) -> None:
    served = configured(ServePredictionsSettings, SYMBOLS=f"ETHUSDT,{symbol}")
    assert served.symbols[1] == symbol
    api, id_ = Api(store, settings=served), f"{symbol}-{AT_MS}"
    writes = Writes()
    writes.prediction(replace(PREDICTION, symbol=symbol, id=id_))
    writes.put.append(latest(replace(FORECAST, symbol=symbol, id=id_)))
    assert commit(store, SymbolState(symbol, BarRing(0), sequence=1), 0, writes)
    assert api.get(asked).body["id"] == id_
    assert api.ask(HISTORY, {"to": str(AT_MS)}, symbol=asked).body["count"] == 1
    assert api.ask("/accuracy/{symbol}", symbol=asked).status == 200
    for parameter in (f"{asked}-{AT_MS}", f"{asked}%2D{AT_MS}"):
        receipt = api.ask("/predictions/{symbol}/{id}", symbol=asked, id=parameter)
        assert (receipt.status, receipt.body["id"]) == (200, id_)
    assert redis_client.exists(f"prediction:{symbol}:latest")


@pytest.mark.parametrize("symbol", ["SSUSDT", "币安人生", "币安人生USDT2", "%E5%B8", "%", "..", "币/USDT"])
def test_any_other_symbol_is_not_found(store: HotStore, symbol: str) -> None:
    api = Api(store, settings=configured(ServePredictionsSettings, SYMBOLS=f"{CHINESE},ßUSDT"))
    for resource in ("/predictions/{symbol}", HISTORY, "/accuracy/{symbol}", "/predictions/{symbol}/{id}"):
        answer = api.ask(resource, symbol=symbol, id=f"{symbol}-{AT_MS}")
        assert (answer.status, answer.body["parameter"]) == (404, "symbol")
    receipt = api.ask("/predictions/{symbol}/{id}", symbol=CHINESE, id=f"{symbol}-{AT_MS}")
    assert (receipt.status, receipt.body["parameter"]) == (404, "id")


def test_the_page_may_run_its_own_script_and_nothing_else(api: Api) -> None:
    api.serve.site = {"index.html": site_files.page()}.__getitem__
    response = api.ask("/").as_proxy_response()
    assert response["headers"]["Content-Type"].startswith("text/html")
    policy = dict(part.split(" ", 1) for part in response["headers"]["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].count("'sha256-") == response["body"].count("<script>") == 2
    assert "unsafe" not in response["headers"]["Content-Security-Policy"]
    for outside in ("src=", "@import", "url(", ' style="', "{{"):
        assert outside not in response["body"].split("<script>")[0]


def test_the_page_contains_every_script_of_its_folder() -> None:
    page = site_files.page()
    scripts = [path.read_text("utf-8") for path in site_files.SITE.glob("*.js")]
    assert len(scripts) > 5
    assert all(script in page for script in scripts)


def test_redis_out_of_reach_is_a_503() -> None:
    answer = Api(HotStore(connect(replace(SETTINGS.redis, port=1)), 0)).get()
    assert (answer.status, answer.body["title"]) == (503, "Store unavailable")


PREDICTED, SCORED = "/predictions/{symbol}", "/accuracy/{symbol}"


@pytest.mark.parametrize(
    ("resource", "key", "text"),
    [
        *((PREDICTED, "prediction:BTCUSDT:latest", text) for text in ("not json", "[]", '{"a": 1}', "7")),
        *((SCORED, "accuracy:BTCUSDT", text) for text in ("not json", "[]", '{"a": 1}', '{"hour": 1}')),
    ],
)
def test_a_damaged_record_is_a_503(
    store: HotStore, api: Api, redis_client: redis.Redis, resource: str, key: str, text: str
) -> None:
    put(store, PREDICTION)
    redis_client.set(key, text)
    answer = api.ask(resource, symbol="BTCUSDT")
    assert (answer.status, answer.body["title"]) == (503, "Store unreadable")
    assert answer.content_type == "application/problem+json"
    assert "records of BTCUSDT in Redis cannot be read" in answer.body["detail"]


def test_a_damaged_entry_of_history_is_a_503(store: HotStore, api: Api, redis_client: redis.Redis) -> None:
    put(store, PREDICTION)
    redis_client.xadd("predictions:BTCUSDT", {"json": "{"}, id=f"{AT_MS + 1}-0")
    assert api.ask(HISTORY, symbol="BTCUSDT").body["title"] == "Store unreadable"


def test_an_entry_without_a_record_is_a_503(store: HotStore, api: Api, redis_client: redis.Redis) -> None:
    put(store, PREDICTION)
    redis_client.xadd("predictions:BTCUSDT", {"text": "{}"}, id=f"{AT_MS + 1}-0")
    for answer in (api.ask(HISTORY, symbol="BTCUSDT"), api.get(history="2")):
        assert (answer.status, answer.body["title"]) == (503, "Store unreadable")


def test_receipts_that_lack_newer_fields_are_served(
    store: HotStore, api: Api, redis_client: redis.Redis
) -> None:
    put(store)
    receipt = as_json(PREDICTION)
    for name in ("noise_bp", "edge_bp", "cost_bp", "abstains", "challenger", "provisional", "update_id"):
        del receipt[name]
    for each in receipt["horizons"].values():
        del each["noise_bp"], each["edge_bp"], each["abstains"]
    redis_client.xadd("predictions:BTCUSDT", {"json": json.dumps(receipt)}, id=f"{AT_MS}-0")
    (found,) = api.ask(HISTORY, symbol="BTCUSDT").body["predictions"]
    assert (found["source"], found["cost_bp"], found["abstains"]) == ("model", None, True)
    assert api.ask(RECEIPT, symbol="BTCUSDT", id=f"BTCUSDT-{AT_MS}").body["update_id"] is None


def test_a_forecast_that_lacks_newer_fields_is_served(
    store: HotStore, api: Api, redis_client: redis.Redis
) -> None:
    forecast = {
        name: value
        for name, value in as_json(FORECAST).items()
        if name not in {"clock_offset_ms", "cost_bp", "quiet_us", "last_tick_us", "provisional"}
    }
    redis_client.set("prediction:BTCUSDT:latest", json.dumps(forecast))
    body = api.get().body
    assert (body["source"], body["cost_bp"], body["worth_trading"]) == ("model", None, None)
    assert body["age_ms"] == {"tick": None, "claim": 300}


def test_a_path_of_other_instants_is_a_503(store: HotStore, api: Api) -> None:
    short = Path(move_bp=[1.0], scale_bp=[1.0], p_flat=[0.5])
    still = replace(records.path(), scale_bp=[0.0] * len(PATH_S))
    for path in (short, still):
        put(store, forecast=replace(FORECAST, path=path))
        assert (api.get().status, api.get().body["title"]) == (503, "Store unreadable")


def test_an_empty_record_counts_as_none(store: HotStore, api: Api, redis_client: redis.Redis) -> None:
    put(store, PREDICTION)
    redis_client.set("prediction:BTCUSDT:latest", "{}")
    redis_client.set("accuracy:BTCUSDT", "{}")
    assert (api.get().status, api.get().body["title"]) == (404, "No data yet")
    assert api.ask(SCORED, symbol="BTCUSDT").body["summary"] is None


def test_health_names_what_is_wrong(store: HotStore, api: Api) -> None:
    before = api.health()
    assert before.status == 503
    unseen = (
        "predict_stream:BTCUSDT",
        "feed:ETHUSDT",
        "model",
        "age",
        "clock",
        "postgres",
        "archive",
        "audit",
    )
    for part in unseen:
        assert (before.body["services"][part]["ok"], before.body["services"][part]["why"]) == (
            None,
            "not seen yet",
        )
    put(store, PREDICTION)
    assert (api.health().status, api.health().body["status"]) == (200, "ok")
    api.age_s = 9
    stale = api.health()
    assert (stale.status, stale.body["status"]) == (503, "degraded")
    services = stale.body["services"]
    assert "stream stalled, last watermark 9.0 s ago" in services["predict_stream:ETHUSDT"]["why"]
    assert "nothing has been sent for 9.0 s" in services["feed:ETHUSDT"]["why"]
    assert "the forecast of BTCUSDT is too old (claim 9.0 s" in services["age"]["why"]
    api.age_s = 1
    put(store, heartbeat=replace(STREAM, model_problem="ModelError: m3 does not fit"))
    services = api.health().body["services"]
    assert services["predict_stream:BTCUSDT"]["why"] == "ModelError: m3 does not fit"
    assert services["model"]["why"] == "ModelError: m3 does not fit"
    assert not math.isnan(services["predict_stream:BTCUSDT"]["age_s"])


def test_without_the_perpetual_health_has_a_note_and_no_fault(store: HotStore, api: Api) -> None:
    def shown(reference_ms: int | None) -> tuple[int, Any, Any]:
        put(store, PREDICTION, heartbeat=replace(STREAM, reference_ms=reference_ms))
        answer = api.health()
        stream = answer.body["services"]["predict_stream:BTCUSDT"]
        assert stream["ok"] is True
        return answer.status, stream["reference_age_s"], stream["note"]

    assert shown(None) == (200, None, "no quote of the perpetual so far: forecasts do without it")
    status, age_s, note = shown(STREAM.watermark_ms)
    assert (status, note) == (200, None) and age_s < 2
    status, age_s, note = shown(STREAM.watermark_ms - 10_000)
    assert (
        status == 200
        and age_s >= 10
        and note == f"no quote of the perpetual for {age_s} s: forecasts do without it"
    )


def test_health_shows_a_feed_that_is_not_connected(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    writes = Writes()
    writes.heartbeat("ingest_ecs", "BTCUSDT", replace(FEED, watermark_ms=AT_MS - 8000))
    write(store, writes)
    services = api.health().body["services"]
    assert "last connected and caught up 8.3 s ago" in services["feed:BTCUSDT"]["why"]
    assert services["feed:ETHUSDT"]["ok"] is True


def test_health_without_an_active_model(store: HotStore, api: Api) -> None:
    put(store, forecast=replace(FORECAST, model_id=None, path=None))
    assert api.health().status == 503
    assert "no active model" in api.health().body["services"]["model"]["why"]


def test_health_of_background_parts(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    store.put_heartbeat("postgres", Heartbeat(at_ms=AT_MS))
    store.put_heartbeat("archive_ticks", Heartbeat(at_ms=AT_MS, ok=False, why="newest object is of 11:40"))
    services = api.health().body["services"]
    assert (services["postgres"]["ok"], services["audit"]["ok"]) == (True, None)
    assert services["archive"]["why"] == "newest object is of 11:40"
    assert api.health().status == 503
    api.age_s = 1000
    assert "no heartbeat for 1000.0 s" in api.health().body["services"]["postgres"]["why"]


def test_health_shows_the_newest_gaps(store: HotStore, api: Api) -> None:
    put(store, PREDICTION)
    assert "gaps" not in api.health().body["services"]["predict_stream:BTCUSDT"]
    ledger = GapLedger([Gap(10 * n, 10 * n + 1, n, n + 1, "reset by peer") for n in range(12)])
    writes = Writes()
    writes.gaps("BTCUSDT", ledger.record())
    write(store, writes)
    shown = api.health().body["services"]["predict_stream:BTCUSDT"]["gaps"]
    assert [gap["first_id"] for gap in shown] == list(range(110, 10, -10))
    assert shown[0] == {
        "first_id": 110,
        "last_id": 111,
        "trades": 2,
        "from_us": 11,
        "to_us": 12,
        "cause": "reset by peer",
    }


@pytest.mark.parametrize("text", ["[]", "not JSON", '{"gaps": 7}'])
def test_an_unreadable_ledger_leaves_the_stream_healthy(
    store: HotStore, api: Api, redis_client: redis.Redis, text: str
) -> None:
    put(store, PREDICTION)
    redis_client.set("gaps:BTCUSDT", text)
    answer = api.health()
    stream = answer.body["services"]["predict_stream:BTCUSDT"]
    assert (answer.status, stream["ok"], "gaps" in stream) == (200, True, False)


def test_health_without_redis_is_a_503() -> None:
    answer = Api(HotStore(connect(replace(SETTINGS.redis, port=1)), 0)).health()
    assert answer.status == 503
    assert "does not answer" in answer.body["services"]["redis"]["why"]
    assert answer.body["services"]["predict_stream:BTCUSDT"]["ok"] is None


@pytest.fixture
def hanging_server() -> Iterator[tuple[int, list[socket.socket]]]:
    """A port that accepts connections and never answers, and the connections so far."""
    taken: list[socket.socket] = []
    with ExitStack() as open_, ThreadPoolExecutor(1) as executor:
        listener = open_.enter_context(socket.create_server(("127.0.0.1", 0)))

        def accept() -> None:
            while True:
                connection, _ = listener.accept()
                taken.append(open_.enter_context(connection))
                if connection.recv(1, socket.MSG_PEEK) == b"\0":  # from the test: the end
                    return

        executor.submit(accept)
        yield listener.getsockname()[1], taken
        with socket.create_connection(listener.getsockname()) as last:
            last.sendall(b"\0")
            executor.shutdown()


def test_a_redis_that_hangs_costs_about_a_second(
    hanging_server: tuple[int, list[socket.socket]],
) -> None:
    port, taken = hanging_server
    client = connect(replace(SETTINGS.redis, port=port), timeout_s=STORE_TIMEOUT_S, retries=STORE_RETRIES)
    answer = Api(HotStore(client, 0)).health()
    client.close()
    assert answer.status == 503
    assert "does not answer (TimeoutError)" in answer.body["services"]["redis"]["why"]
    # Each connection was waited at once, for the time-out: their number is the time it took.
    assert 0 < len(taken) * STORE_TIMEOUT_S <= 1

"""The functions that read the hot store follow the symbols stored there, without a restart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from tests.fixtures import records
from tests.fixtures.aws import BUCKET
from tests.fixtures.settings import configured
from tests.fixtures.store_at import StoreAt
from tickcast.adapters.http.responses import Response
from tickcast.adapters.lake.condition_reports import ConditionReports
from tickcast.adapters.lake.receipt_archive import ReceiptArchive
from tickcast.adapters.lake.tally_archive import TallyArchive
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.registry.model_catalog import ModelCatalog
from tickcast.adapters.registry.served_symbols import ServedSymbols, adding, change_served, hot_text, removing
from tickcast.adapters.settings import ServePredictionsSettings
from tickcast.functions.health import BEGINNING_MS
from tickcast.functions.plan_backfill import PlanBackfill
from tickcast.functions.serve_predictions import SYMBOLS_KNOWN_MS, ServePredictions
from tickcast.serving.records import FeedHeartbeat, StreamHeartbeat, encode

AT_MS = 1_754_000_000_000
SINCE = datetime.fromtimestamp(AT_MS / 1000, UTC).isoformat()
BEAT = StreamHeartbeat(at_ms=AT_MS, watermark_ms=AT_MS, received_ms=AT_MS, model_problem=None)
FEED = FeedHeartbeat(at_ms=AT_MS, watermark_ms=AT_MS, received_ms=AT_MS)


class Api:
    """Serves BTCUSDT and ETHUSDT by configuration, at `at_ms` on all clocks."""

    def __init__(self, client: redis.Redis) -> None:
        self.client, self.at_ms = client, float(AT_MS)
        store = StoreAt(client, 100_000)
        store.at_ms = self.clock_ms
        settings = configured(ServePredictionsSettings, SYMBOLS="BTCUSDT,ETHUSDT")
        models = ModelCatalog(lambda: None, BUCKET, self.clock_ms)
        archives = ReceiptArchive(lambda: None, BUCKET), TallyArchive(lambda: None, BUCKET)
        reports = ConditionReports(lambda: None, BUCKET)
        self._serve = ServePredictions(settings, store, models, *archives, self.clock_ms, reports=reports)

    def clock_ms(self) -> float:
        return self.at_ms

    def store(self, *symbols: str) -> None:
        """As `predict_stream` does it."""
        served = ServedSymbols(symbols=symbols, version=1, since=SINCE, by="make symbols")
        self.client.set(keys.symbols(), hot_text(served))

    def predict(self, *symbols: str) -> None:
        for symbol in symbols:
            forecast = replace(records.path_forecast(AT_MS), symbol=symbol, id=f"{symbol}-{AT_MS}")
            self.client.set(keys.latest_prediction(symbol), encode(forecast))
            self.client.set(keys.heartbeat("predict_stream", symbol), encode(BEAT))
            self.client.set(keys.heartbeat("ingest_ecs", symbol), encode(FEED))

    def ask(self, resource: str, **path: str) -> Response:
        return self._serve({"resource": resource, "pathParameters": path or None})

    def latest(self, symbol: str) -> int:
        return self.ask("/predictions/{symbol}", symbol=symbol).status


@pytest.fixture
def api(redis_client: redis.Redis) -> Api:
    return Api(redis_client)


def test_a_symbol_is_served_once_it_is_stored_and_refused_once_it_is_not(api: Api) -> None:
    api.predict("BTCUSDT", "ETHUSDT", "SOLUSDT")
    assert [api.latest(symbol) for symbol in ("BTCUSDT", "SOLUSDT")] == [200, 404]
    api.store("BTCUSDT", "SOLUSDT")
    assert [api.latest(symbol) for symbol in ("BTCUSDT", "SOLUSDT", "ETHUSDT")] == [200, 200, 404]
    assert sorted(api.ask("/predictions").body["predictions"]) == ["BTCUSDT", "SOLUSDT"]
    refusal = api.ask("/predictions/{symbol}", symbol="ETHUSDT").body["detail"]
    assert refusal == "'ETHUSDT' is not served; served are BTCUSDT, SOLUSDT"


@pytest.mark.parametrize("resource", ["/predictions/{symbol}/history", "/accuracy/{symbol}"])
def test_other_routes_admit_a_symbol_at_once_and_refuse_one_within_seconds(api: Api, resource: str) -> None:
    api.store("BTCUSDT", "ETHUSDT")
    assert api.ask(resource, symbol="ETHUSDT").status == 200
    api.store("BTCUSDT", "SOLUSDT")
    assert api.ask(resource, symbol="SOLUSDT").status == 200  # unknown ones are looked up
    api.store("SOLUSDT")
    api.at_ms += SYMBOLS_KNOWN_MS + 1
    assert api.ask(resource, symbol="BTCUSDT").status == 404


def test_all_are_answered_in_the_request_that_first_sees_a_change(api: Api) -> None:
    api.predict("BTCUSDT", "ETHUSDT", "SOLUSDT")
    assert sorted(api.ask("/predictions").body["predictions"]) == ["BTCUSDT", "ETHUSDT"]
    api.store("SOLUSDT", "BTCUSDT")
    assert list(api.ask("/predictions").body["predictions"]) == ["SOLUSDT", "BTCUSDT"]


def test_the_receipts_of_a_removed_symbol_are_found_as_long_as_they_are_kept(api: Api) -> None:
    receipt = records.prediction(AT_MS)
    entry = {"json": encode(receipt)}
    api.client.xadd(keys.predictions(receipt.symbol), entry, keys.prediction_entry(AT_MS))  # type: ignore[arg-type]
    api.store("SOLUSDT")

    def ask(id_: str, symbol: str = receipt.symbol) -> Response:
        return api.ask("/predictions/{symbol}/{id}", symbol=symbol, id=id_)

    assert ask(receipt.id).status == 200
    assert ask(f"{receipt.symbol}-{AT_MS + 1}").body["detail"].startswith("'BTCUSDT' is not served")
    unknown = ask(f"SOLUSDT-{AT_MS}", "SOLUSDT")
    assert (unknown.status, unknown.body["title"]) == (404, "Unknown prediction")


def feeds(health: Response) -> list[str]:
    return [name for name in health.body["services"] if name.startswith("feed:")]


def test_health_follows_and_gives_a_new_symbol_time_to_begin(api: Api) -> None:
    api.predict("BTCUSDT", "ETHUSDT")
    assert (api.ask("/health").status, feeds(api.ask("/health"))) == (200, ["feed:BTCUSDT", "feed:ETHUSDT"])
    api.store("BTCUSDT", "SOLUSDT")
    health = api.ask("/health")
    assert feeds(health) == ["feed:BTCUSDT", "feed:SOLUSDT"]
    assert health.body["services"]["feed:SOLUSDT"] == {"ok": None, "why": "not seen yet"}
    assert health.status == 200
    api.at_ms += BEGINNING_MS
    assert api.ask("/health").status == 503


def test_a_symbol_without_a_tick_so_far_is_not_predicted(api: Api) -> None:
    """Its first record may have no tick: then there is a heartbeat, and nothing to answer."""
    api.predict("BTCUSDT", "SOLUSDT")
    api.client.delete(keys.latest_prediction("SOLUSDT"))
    api.store("BTCUSDT", "SOLUSDT")
    services = api.ask("/health").body["services"]
    assert api.latest("SOLUSDT") == 404
    assert services["predict_stream:SOLUSDT"]["predicted"] is False
    assert services["predict_stream:BTCUSDT"]["predicted"] is True


@pytest.fixture
def planned(s3: Any, redis_client: redis.Redis) -> Callable[..., list[str]]:
    plan = PlanBackfill(s3, BUCKET, HotStore(redis_client, 0), ("BTCUSDT", "ETHUSDT"))
    return lambda **request: plan(request, "arn:execution", AT_MS * 1000).symbols


def test_history_is_planned_of_what_is_served_unless_a_request_names_symbols(
    planned: Callable[..., list[str]], s3: Any
) -> None:
    assert planned(days=1) == ["BTCUSDT", "ETHUSDT"]
    for change in (adding(["SOLUSDT"]), removing(["BTCUSDT"])):
        change_served(s3, BUCKET, ("BTCUSDT", "ETHUSDT"), change, since=SINCE, by="me")
    assert planned(days=1) == ["ETHUSDT", "SOLUSDT"]
    assert planned(days=1, symbols=["BTCUSDT"]) == ["BTCUSDT"]

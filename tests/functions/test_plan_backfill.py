"""The planner's requests, markers in moto's S3, ledgers in a real Redis."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import redis

from tests.fixtures.aws import BUCKET
from tickcast.adapters.lake import bronze
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.functions.plan_backfill import PlanBackfill
from tickcast.functions.request import RequestError
from tickcast.market.gaps import UNKNOWN, WITHHELD
from tickcast.units import DAY_US, HOUR_US

TODAY_US = 1_722_470_400_000_000  # 2024-08-01
NOW_US = TODAY_US + 5 * HOUR_US + 123
UNTIL_US = TODAY_US + 5 * HOUR_US - 60_000_000
Plan = Callable[..., dict[str, Any]]


@pytest.fixture
def plan(s3: Any, redis_client: redis.Redis) -> Plan:
    planner = PlanBackfill(s3, BUCKET, HotStore(redis_client, 0), ("BTCUSDT", "ETHUSDT"))
    return lambda **request: msgspec.to_builtins(planner(request, "arn:execution", NOW_US))


def windows(planned: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(w["symbol"], w["from_us"], w["to_us"]) for m in planned["markets"] for w in m["windows"]]


def mark_fetched(s3: Any, symbol: str, from_us: int, to_us: int) -> None:
    s3.put_object(Bucket=BUCKET, Key=bronze.window_key(symbol, from_us, to_us), Body=b"{}")


def ledger(client: redis.Redis, symbol: str, from_us: int, to_us: int, cause: str = UNKNOWN) -> None:
    gap = {"first_id": 11, "last_id": 12, "trades": 2, "from_us": from_us, "to_us": to_us, "cause": cause}
    record = {"missing_trades": 2, "forgotten_trades": 0, "gaps": [gap], "quote_gaps": []}
    client.set(f"gaps:{symbol}", json.dumps(record))


def test_from_and_to(plan: Plan) -> None:
    planned = plan(**{"symbols": ["BTCUSDT"], "from": "2024-07-30T12:00", "to": "2024-07-31T02:00:00+02:00"})
    assert windows(planned) == [("BTCUSDT", TODAY_US - 36 * HOUR_US, TODAY_US - DAY_US)]
    assert planned["totals"]["hours_planned"] == 12


@pytest.mark.parametrize("symbol", ["币安人生USDT", "这是测试币456", "ßUSDT"])
def test_a_market_of_any_script_is_planned_and_its_markers_are_found(
    plan: Plan, s3: Any, symbol: str
) -> None:
    request = {"symbols": [symbol], "from": "2024-07-30", "to": "2024-08-01"}
    assert len(windows(plan(**request))) == 2
    mark_fetched(s3, symbol, TODAY_US - DAY_US, TODAY_US)
    assert windows(plan(**request)) == [(symbol, TODAY_US - 2 * DAY_US, TODAY_US - DAY_US)]


@pytest.mark.parametrize("symbol", ["btcusdt", "BTC-USDT", "", "币 USDT", "E\u0301TUSDT", 7, None])
def test_an_invalid_symbol_is_refused(plan: Plan, symbol: Any) -> None:
    with pytest.raises(RequestError, match="symbols should be a list like"):
        plan(symbols=[symbol], days=1)


def test_days_are_today_and_that_many_before_of_all_symbols(plan: Plan) -> None:
    assert windows(plan(days=1)) == [
        (symbol, *span)
        for symbol in ("BTCUSDT", "ETHUSDT")
        for span in ((TODAY_US - DAY_US, TODAY_US), (TODAY_US, UNTIL_US))
    ]


def test_fetched_windows_are_left_out(plan: Plan, s3: Any) -> None:
    mark_fetched(s3, "BTCUSDT", TODAY_US - DAY_US, TODAY_US)
    planned = plan(symbols=["BTCUSDT"], days=1)
    assert windows(planned) == [("BTCUSDT", TODAY_US, UNTIL_US)]
    assert planned["totals"]["hours_held"] == 24
    mark_fetched(s3, "BTCUSDT", TODAY_US, UNTIL_US)
    planned = plan(symbols=["BTCUSDT"], days=1)
    assert (planned["windows"], planned["markets"], planned["more"]) == (0, [], False)


def test_markers_of_several_listing_pages_are_found(plan: Plan, s3: Any) -> None:
    for day in range(1100):
        mark_fetched(s3, "BTCUSDT", TODAY_US - (day + 1) * DAY_US, TODAY_US - day * DAY_US)
    assert windows(plan(symbols=["BTCUSDT"], days=1100)) == [("BTCUSDT", TODAY_US, UNTIL_US)]


def test_gaps_are_planned_with_their_ids(plan: Plan, redis_client: redis.Redis) -> None:
    ledger(redis_client, "ETHUSDT", TODAY_US + 1, TODAY_US + 999)
    planned = plan(repair=True)
    (market,) = planned["markets"]
    assert market["windows"] == [
        {
            "symbol": "ETHUSDT",
            "from_us": TODAY_US,
            "to_us": TODAY_US + 1000,
            "reason": "gap",
            "first_id": 11,
            "last_id": 12,
        }
    ]
    assert planned["totals"]["gaps"] == 1


@pytest.mark.parametrize("text", ["[]", "not JSON", '{"gaps": 7}'])
def test_an_unreadable_ledger_stops_no_other(plan: Plan, redis_client: redis.Redis, text: str) -> None:
    redis_client.set("gaps:BTCUSDT", text)
    ledger(redis_client, "ETHUSDT", TODAY_US + 1, TODAY_US + 999)
    assert [window[0] for window in windows(plan(repair=True))] == ["ETHUSDT"]


def test_withheld_trades_are_not_requested_again(plan: Plan, redis_client: redis.Redis) -> None:
    ledger(redis_client, "BTCUSDT", TODAY_US + 1, TODAY_US + 999, cause=WITHHELD)
    assert windows(plan(repair=True)) == []


def test_a_gap_that_may_still_fill_is_left_alone(plan: Plan, redis_client: redis.Redis) -> None:
    ledger(redis_client, "BTCUSDT", UNTIL_US - 1000, UNTIL_US + 1)
    assert windows(plan(repair=True)) == []


def test_remaining_spans_go_to_a_chained_execution(plan: Plan, redis_client: redis.Redis) -> None:
    ledger(redis_client, "BTCUSDT", TODAY_US + 1, TODAY_US + 999)
    first = plan(days=150, repair=True, train={"days": 7})
    assert (first["windows"], first["more"]) == (200, True)
    assert first["next"]["name"] == plan(days=1)["next"]["name"]  # of the execution, not of what is left
    assert len(first["next"]["name"]) <= 80
    second = plan(**json.loads(json.dumps(first["next"]["input"])))
    assert (second["more"], second["train"]) == (False, {"days": 7})
    assert not set(windows(first)) & set(windows(second))
    assert first["totals"]["hours_left"] == second["totals"]["hours_planned"]
    assert len(json.dumps(first)) < 60_000  # of the state's 256 KiB


def test_a_dry_request_gives_a_dry_plan(plan: Plan) -> None:
    assert (plan(days=1)["dry"], plan(days=1, dry=True)["dry"]) == (False, True)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "nothing is requested"),
        ({"symbols": []}, "nothing is requested"),
        ({"symbols": "BTCUSDT", "days": 1}, "symbols should be a list"),
        ({"symbols": ["btcusdt"], "days": 1}, "symbols should be a list"),
        ({"days": 0}, "days should be a whole number"),
        ({"days": "2"}, "days should be a whole number"),
        ({"days": 1, "from": "2024-07-01", "to": "2024-07-02"}, "one of these alone"),
        ({"from": "2024-07-01"}, "give both"),
        ({"from": "yesterday", "to": "2024-07-02"}, "from should be a time like"),
        ({"from": "2024-07-02", "to": "2024-07-02"}, "is not before"),
        ({"from": "2024-08-01T06:00", "to": "2024-08-02"}, "has not passed yet"),
        ({"spans": [{"symbol": "BTCUSDT"}]}, "spans should be"),
        ({"spans": [{"symbol": "BTCUSDT", "from_us": 2000, "to_us": 1000}]}, "spans should be"),
        ({"spans": [{"symbol": "BTCUSDT", "from_us": -1000, "to_us": 1000}]}, "spans should be"),
        ({"spans": [{"symbol": "BTCUSDT", "from_us": "0", "to_us": 1000}]}, "spans should be"),
        ({"spans": 5}, "spans should be"),
        ({"from": "0001-01-01T00:00+14:00", "to": "2024-07-02"}, "from should be a time|more than"),
        ({"from": "0001-01-01", "to": "2024-07-02"}, "is more than 3650 days"),
        ({"days": float("nan")}, "days should be a whole number"),
        ({"days": 10**12}, "days should be a whole number"),
        ({"day": 2}, "unknown: day;"),
    ],
)
def test_a_wrong_request_is_refused_with_what_it_should_be(
    plan: Plan, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        plan(**request_)

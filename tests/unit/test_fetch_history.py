"""Windows of history from a real socket into moto's S3: whole or not at all, and the same bytes again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.aws import BUCKET
from tests.rest_server import RestServer, agg_trade, rest_server
from tickcast.adapters import bronze
from tickcast.adapters.binance_rest import BinanceRest
from tickcast.adapters.fetch_history import FetchHistory, HistoryIncomplete, WindowError
from tickcast.backfill import HOUR_US

DAY_US = 1_722_470_400_000_000  # 2024-08-01
FROM_US, TO_US = DAY_US + HOUR_US // 2, DAY_US + 3 * HOUR_US
WINDOW = {"symbol": "BTCUSDT", "from_us": FROM_US, "to_us": TO_US, "reason": "asked"}
PLENTY: Callable[[], int] = lambda: 900_000  # noqa: E731


@pytest.fixture
def server() -> Iterator[RestServer]:
    """An hour before the window, the window, and an hour behind it: an aggregate of two trades a second."""
    with rest_server() as running:
        start_us = FROM_US - HOUR_US
        running.rows = [
            agg_trade(
                7000 + i, 50_000 + 2 * i, 50_001 + 2 * i, start_us + i * 1_000_000 + 7, maker=i % 3 == 0
            )
            for i in range(int(4.5 * 3600))
        ]
        running.used_weight = -10_000_000  # not what is tested here
        yield running


def fetcher(server: RestServer, s3: Any, now_us: int = TO_US + HOUR_US) -> FetchHistory:
    return FetchHistory(BinanceRest(server.url, backoff_s=0), s3, BUCKET, lambda: now_us)


def inside(server: RestServer) -> list[dict[str, Any]]:
    return [row for row in server.rows if FROM_US <= row["T"] < TO_US]


def objects(s3: Any) -> dict[str, bytes]:
    found = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {item["Key"]: s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read() for item in found}


def records(s3: Any, document: dict[str, Any]) -> list[dict[str, Any]]:
    held = objects(s3)
    return [r for file in document["keys"] for r in bronze.read_file(held[file["key"]], file["key"])]


def marker(s3: Any) -> dict[str, Any] | None:
    body = objects(s3).get(bronze.window_key("BTCUSDT", FROM_US, TO_US))
    return json.loads(body) if body else None


@pytest.mark.parametrize("gives_last", [False, True], ids=["first of many", "last of many"])
def test_a_window_is_fetched_whole(server: RestServer, s3: Any, gives_last: bool) -> None:
    server.gives_last = gives_last
    document = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert document["status"] == "done"
    rows = records(s3, document)
    assert [(r["timestamp"], r["first_trade_id"], r["last_trade_id"]) for r in rows] == [
        (row["T"], row["f"], row["l"]) for row in inside(server)
    ]
    assert [r["aggressor"] for r in rows[:3]] == ["sell" if r["m"] else "buy" for r in inside(server)[:3]]
    assert (document["rows"], document["trades"]) == (len(rows), 2 * len(rows))
    assert document["withheld_trades"] == 0
    assert [(file["key"].split("/")[3:], file["rows"]) for file in document["keys"]] == [
        (["date=2024-08-01", f"hour={hour:02}", f"aggtrades-{start}-{end}.avro"], (end - start) // 1_000_000)
        for hour, start, end in (
            (0, FROM_US, DAY_US + HOUR_US),
            (1, DAY_US + HOUR_US, DAY_US + 2 * HOUR_US),
            (2, DAY_US + 2 * HOUR_US, TO_US),
        )
    ]
    about = marker(s3)
    assert about is not None
    assert (about["first_id"], about["last_id"]) == (inside(server)[0]["f"], inside(server)[-1]["l"])
    assert about["keys"] == document["keys"]


def test_pages_are_asked_for_once(server: RestServer, s3: Any) -> None:
    fetcher(server, s3)({"window": WINDOW}, PLENTY)
    by_id = [int(query["fromId"]) for query in server.asked if "fromId" in query]
    assert by_id == sorted(set(by_id))
    assert len(server.asked) == 1 + len(inside(server)) // 1000 + 1


def test_a_sparse_market_is_looked_through(server: RestServer, s3: Any) -> None:
    server.rows = [agg_trade(1, 1, 1, FROM_US - 5), agg_trade(2, 2, 2, TO_US - 1), agg_trade(3, 3, 3, TO_US)]
    document = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["trades"]) == ("done", 1)


def test_a_window_with_a_marker_is_not_fetched_again(server: RestServer, s3: Any) -> None:
    first = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    asked = len(server.asked)
    again = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert len(server.asked) == asked
    assert {**again, "used_weight": 0, "requests": 0} == {**first, "used_weight": 0, "requests": 0}


def test_a_repeat_writes_the_same_bytes(server: RestServer, s3: Any) -> None:
    fetcher(server, s3)({"window": WINDOW}, PLENTY)
    first = objects(s3)
    s3.delete_object(Bucket=BUCKET, Key=bronze.window_key("BTCUSDT", FROM_US, TO_US))
    fetcher(server, s3, now_us=TO_US + 9 * HOUR_US)({"window": WINDOW}, PLENTY)
    assert objects(s3) == first


def test_a_call_that_runs_out_of_time_is_gone_on_with(server: RestServer, s3: Any) -> None:
    whole = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    at_once = objects(s3)
    for key in at_once:
        s3.delete_object(Bucket=BUCKET, Key=key)
    fetch, resume, calls = fetcher(server, s3), None, 0
    while True:
        left = iter([900_000] * 4)  # four pages: more than an hour's
        document = fetch({"window": WINDOW, "resume": resume}, lambda left=left: next(left, 0))  # type: ignore[misc]
        calls += 1
        if document["status"] == "done":
            break
        assert document["status"] == "continue"
        assert marker(s3) is None
        resume = json.loads(json.dumps(document["resume"]))  # as it travels
    assert calls == 3
    assert document["keys"] == whole["keys"]
    assert objects(s3) == at_once


def test_a_call_without_time_for_one_file_says_so(server: RestServer, s3: Any) -> None:
    with pytest.raises(HistoryIncomplete, match="not enough for one file"):
        fetcher(server, s3)({"window": WINDOW}, lambda: 0)


@pytest.mark.parametrize("status", [429, 418])
def test_being_told_to_wait_keeps_what_is_done(server: RestServer, s3: Any, status: int) -> None:
    whole = server.answers
    fetch = fetcher(server, s3)
    refused_at = 5  # requests: the first hour is written by then
    answer = server.answer

    def sometimes(path: str, query: dict[str, str]) -> Any:
        if len(server.asked) == refused_at:
            server.answers = [(status, {"Retry-After": "3"}, b"{}")]
        return answer(path, query)

    server.answer = sometimes  # type: ignore[method-assign]
    document = fetch({"window": WINDOW}, PLENTY)
    assert (document["status"], document["retry_after_s"]) == ("rate_limited", 3)
    assert len(document["resume"]["keys"]) == 1
    assert marker(s3) is None
    server.answers, refused_at = whole, -1
    assert fetch({"window": WINDOW, "resume": document["resume"]}, PLENTY)["rows"] == len(inside(server))


def test_a_missing_aggregate_is_never_taken_for_whole(server: RestServer, s3: Any) -> None:
    lost = inside(server)[4000]
    server.rows.remove(lost)
    with pytest.raises(
        HistoryIncomplete, match=f"aggregate {lost['a']} was to come next, not {lost['a'] + 1}"
    ):
        fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert marker(s3) is None


def test_a_window_that_goes_on_is_not_whole(server: RestServer, s3: Any) -> None:
    server.rows = [row for row in server.rows if row["T"] < TO_US - HOUR_US]
    with pytest.raises(HistoryIncomplete, match="has not passed yet"):
        fetcher(server, s3, now_us=TO_US)({"window": WINDOW}, PLENTY)
    assert marker(s3) is None
    assert fetcher(server, s3, now_us=TO_US + HOUR_US)({"window": WINDOW}, PLENTY)["status"] == "done"


def test_ids_the_exchange_withholds_are_told(server: RestServer, s3: Any) -> None:
    rows = inside(server)
    for row in server.rows:  # an order of three trades of which nothing is told
        if row["a"] > rows[100]["a"]:
            row["f"], row["l"] = row["f"] + 3, row["l"] + 3
    document = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    about = marker(s3)
    assert about is not None
    assert about["withheld"] == [[rows[100]["l"] + 1, rows[100]["l"] + 3]]
    assert document["withheld_trades"] == 3


def test_placeholders_are_passed_over(server: RestServer, s3: Any) -> None:
    row = inside(server)[10]
    row |= {"f": -1, "l": -1, "p": "0.00000000", "q": "0.00000000"}
    document = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert (document["rows"], document["withheld_trades"]) == (len(inside(server)) - 1, 2)


def test_overlapping_ids_are_refused(server: RestServer, s3: Any) -> None:
    inside(server)[10]["f"] -= 1
    with pytest.raises(HistoryIncomplete, match="which was in an earlier one"):
        fetcher(server, s3)({"window": WINDOW}, PLENTY)


def test_an_empty_window_is_done_but_not_marked(server: RestServer, s3: Any) -> None:
    server.rows = []
    document = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["keys"]) == ("done", [])
    assert objects(s3) == {}


def test_a_market_may_begin_within_the_window(server: RestServer, s3: Any) -> None:
    server.rows = [row for row in server.rows if row["T"] >= FROM_US + HOUR_US]
    document = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) == ("done", len(inside(server)))


@pytest.mark.parametrize(
    "window",
    [None, {}, {"symbol": "BTCUSDT"}, WINDOW | {"to_us": FROM_US}, WINDOW | {"from_us": FROM_US + 1}, "x"],
)
def test_a_request_without_a_window_says_so(server: RestServer, s3: Any, window: Any) -> None:
    with pytest.raises(WindowError, match="window"):
        fetcher(server, s3)({"window": window}, PLENTY)

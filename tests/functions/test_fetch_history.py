"""Windows of history from a real socket into moto's S3: whole or not at all, and the same bytes again."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import urllib3

from tests.fixtures.aws import BUCKET
from tests.fixtures.rest_server import RestServer, agg_trade, rest_server
from tickcast.adapters.lake import bronze
from tickcast.adapters.rest import window_proof
from tickcast.adapters.rest.binance import BinanceRest, ExchangeUnavailable
from tickcast.adapters.rest.window_proof import HistoryIncomplete
from tickcast.functions import fetch_history
from tickcast.functions.fetch_history import FetchHistory
from tickcast.market.fetch_plan import Window, WindowError
from tickcast.units import HOUR_US

pytestmark = pytest.mark.slow  # all of it together

DAY_US = 1_722_470_400_000_000  # 2024-08-01
FROM_US, TO_US = DAY_US + HOUR_US // 2, DAY_US + 3 * HOUR_US
WINDOW = {"symbol": "BTCUSDT", "from_us": FROM_US, "to_us": TO_US, "reason": "asked"}
Fetch = Callable[[dict[str, Any], Callable[[], int]], dict[str, Any]]
PLENTY: Callable[[], int] = lambda: 900_000  # noqa: E731


@pytest.fixture
def server() -> Iterator[RestServer]:
    """An hour before the window, the window, and an hour behind it: an aggregate of two trades a second."""
    with rest_server() as running:
        running.rows = market(every_s=1)
        running.used_weight = -10_000_000  # not what is tested here
        yield running


@pytest.fixture
def thin(server: RestServer) -> RestServer:
    """The same with an aggregate every nine seconds, in pages of 300."""
    server.rows = market(every_s=9)
    server.most_rows = 300
    return server


def market(every_s: int) -> list[dict[str, Any]]:
    start_us = FROM_US - HOUR_US
    return [
        agg_trade(
            7000 + i, 50_000 + 2 * i, 50_001 + 2 * i, start_us + every_s * i * 1_000_000 + 7, maker=i % 3 == 0
        )
        for i in range(int(4.5 * 3600) // every_s)
    ]


def fetcher(server: RestServer, s3: Any, now_us: int = TO_US + HOUR_US) -> Fetch:
    return as_documents(FetchHistory(BinanceRest(server.url, backoff_s=0), s3, BUCKET, lambda: now_us))


def as_documents(fetch: FetchHistory) -> Fetch:
    """`fetch` with its answers as the state machine gets them, and the `keys` of a complete window."""

    def answer(event: dict[str, Any], remaining_ms: Callable[[], int]) -> dict[str, Any]:
        document: dict[str, Any] = msgspec.to_builtins(fetch(event, remaining_ms))
        if document["status"] != "done":
            return document
        found = fetch._lake.marker(msgspec.convert(event["window"], Window))
        assert found is not None and document["files"] == len(found.keys)
        return document | {"keys": msgspec.to_builtins(found.keys)}

    return answer


def inside(server: RestServer) -> list[dict[str, Any]]:
    return [row for row in server.rows if FROM_US <= row["T"] < TO_US]


def objects(s3: Any) -> dict[str, bytes]:
    """All but the progress, which says when it was made."""
    return {key: body for key, body in everything(s3).items() if key != PROGRESS}


def everything(s3: Any) -> dict[str, bytes]:
    found = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {item["Key"]: s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read() for item in found}


def records(s3: Any, document: dict[str, Any]) -> list[dict[str, Any]]:
    stored = objects(s3)
    return [r for file in document["keys"] for r in bronze.read_file(stored[file["key"]], file["key"])]


PROGRESS = bronze.progress_key("BTCUSDT", FROM_US)
MARKER = bronze.window_key("BTCUSDT", FROM_US, TO_US)


def has_marker(s3: Any) -> bool:
    return MARKER in objects(s3)


def marker(s3: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(objects(s3)[MARKER])
    return found


def put_marker(s3: Any, content: dict[str, Any]) -> None:
    s3.put_object(Bucket=BUCKET, Key=MARKER, Body=json.dumps(content).encode())


def empty(s3: Any) -> None:
    for key in everything(s3):
        s3.delete_object(Bucket=BUCKET, Key=key)


def in_calls(fetch: Fetch, s3: Any) -> tuple[dict[str, Any], int]:
    """The last document of a fetch that has time for four pages a call, and the number of calls."""
    calls = 0
    while True:
        left = iter([900_000] * 4)
        document = fetch({"window": WINDOW}, lambda left=left: next(left, 0))  # type: ignore[misc]
        calls += 1
        if document["status"] == "done":
            return document, calls
        assert document["status"] == "continue" and not has_marker(s3)


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
    assert (about["first_id"], about["last_id"]) == (inside(server)[0]["f"], inside(server)[-1]["l"])
    assert about["keys"] == document["keys"]


def test_pages_are_asked_for_once(server: RestServer, s3: Any) -> None:
    fetcher(server, s3)({"window": WINDOW}, PLENTY)
    by_id = [int(query["fromId"]) for query in server.asked if "fromId" in query]
    assert by_id == sorted(set(by_id))
    assert len(server.asked) == 1 + len(inside(server)) // 1000 + 1


def test_a_sparse_market_is_searched(server: RestServer, s3: Any) -> None:
    server.rows = [agg_trade(1, 1, 1, FROM_US - 5), agg_trade(2, 2, 2, TO_US - 1), agg_trade(3, 3, 3, TO_US)]
    document = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["trades"]) == ("done", 1)


def test_a_window_with_a_marker_is_not_fetched_again(server: RestServer, s3: Any) -> None:
    first = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    asked = len(server.asked)
    again = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert len(server.asked) == asked
    assert {**again, "used_weight": 0, "requests": 0} == {**first, "used_weight": 0, "requests": 0}


def test_a_window_fetched_before_counts_its_refused_rows_no_more(server: RestServer, s3: Any) -> None:
    """Or each repair of a gap in it would fail for a row that cannot be corrected."""
    inside(server)[9]["q"] = "0.0"
    first, again = (fetcher(server, s3)({"window": WINDOW}, PLENTY) for _ in range(2))
    assert [(each["refused_rows"], each["quarantined"]) for each in (first, again)] == [(1, 1), (1, 0)]


def test_a_repeat_writes_the_same_bytes(server: RestServer, s3: Any) -> None:
    fetcher(server, s3)({"window": WINDOW}, PLENTY)
    first = objects(s3)
    s3.delete_object(Bucket=BUCKET, Key=MARKER)
    s3.delete_object(Bucket=BUCKET, Key=PROGRESS)
    fetcher(server, s3, now_us=TO_US + 9 * HOUR_US)({"window": WINDOW}, PLENTY)
    assert objects(s3) == first


def test_a_call_that_runs_out_of_time_is_continued(server: RestServer, s3: Any) -> None:
    whole = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    at_once = objects(s3)
    empty(s3)
    document, calls = in_calls(fetcher(server, s3), s3)  # four pages are more than an hour's
    assert calls == 3
    assert document["keys"] == whole["keys"]
    assert objects(s3) == at_once


def test_a_call_without_time_for_one_file_says_so(server: RestServer, s3: Any) -> None:
    with pytest.raises(HistoryIncomplete, match="not enough for one file"):
        fetcher(server, s3)({"window": WINDOW}, lambda: 0)


@pytest.mark.parametrize("status", [429, 418])
def test_a_rate_limit_keeps_the_progress(server: RestServer, s3: Any, status: int) -> None:
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
    assert document["files"] == 1
    assert not has_marker(s3)
    server.answers, refused_at = whole, -1
    asked = len(server.asked)
    assert fetch({"window": WINDOW}, PLENTY)["rows"] == len(inside(server))
    assert int(server.asked[asked]["fromId"]) > 7000 + 1800 + 3600 - 50  # not the first hour's again


def test_a_missing_aggregate_is_never_accepted(server: RestServer, s3: Any) -> None:
    lost = inside(server)[4000]
    server.rows.remove(lost)
    with pytest.raises(
        HistoryIncomplete, match=f"aggregate {lost['a']} was expected next, not {lost['a'] + 1}"
    ):
        fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert not has_marker(s3)


def refusal(server: RestServer, s3: Any, window: Any = WINDOW, now_us: int = TO_US + HOUR_US) -> str:
    """Why a window is not whole, as the error's name and message; it has no marker then."""
    with pytest.raises(HistoryIncomplete) as raised:
        fetcher(server, s3, now_us)({"window": window}, PLENTY)
    assert objects(s3).keys().isdisjoint([bronze.window_key("BTCUSDT", window["from_us"], window["to_us"])])
    return f"{raised.type.__name__}: {raised.value}"


@pytest.mark.parametrize("behind_us", [HOUR_US, 60_000_000, 0])
def test_a_window_is_whole_only_when_something_newer_is_seen(
    thin: RestServer, s3: Any, behind_us: int
) -> None:
    """A database that lags has not the newest rows yet, however long ago they happened."""
    everything = thin.rows
    thin.rows = [row for row in everything if row["T"] < TO_US - behind_us]
    assert "has not passed yet" in refusal(thin, s3, now_us=TO_US - 1)
    assert "HistoryIncomplete" in (why := refusal(thin, s3, now_us=TO_US + HOUR_US))
    assert "nothing newer than its end is known" in why
    thin.rows = [row for row in everything if row["T"] < TO_US + 10_000_000]
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) == ("done", len(inside(thin)))


def test_a_market_that_does_not_trade_says_so(thin: RestServer, s3: Any) -> None:
    thin.rows = [row for row in thin.rows if row["T"] < TO_US - HOUR_US]
    thin.status = "BREAK"
    assert re.match("MarketHalted: .*the market is in BREAK", refusal(thin, s3))


@pytest.mark.parametrize("most", [1, 7, 49, 51, 500])
def test_short_and_capped_pages_are_no_end(thin: RestServer, s3: Any, most: int) -> None:
    thin.most_rows = most
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) == ("done", len(inside(thin)))
    assert document["withheld_trades"] == 0


@pytest.mark.parametrize("pages", ["the first page again", "nothing"])
def test_pages_without_progress_end_it(thin: RestServer, s3: Any, pages: str) -> None:
    answer, first = thin.answer, iter(range(2))

    def stuck(path: str, query: dict[str, str]) -> Any:
        if "fromId" in query and next(first, None) is None:
            query = query | {"fromId": "0" if pages == "the first page again" else str(2**50)}
        return answer(path, query)

    thin.answer = stuck  # type: ignore[method-assign]
    assert "nothing newer than its end" in refusal(thin, s3)
    assert len(thin.asked) < 10


def test_repeated_and_shuffled_rows_count_once(thin: RestServer, s3: Any) -> None:
    whole = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    at_once = objects(s3)
    empty(s3)
    answer, shuffle = thin.answer, random.Random(3)

    def disorderly(path: str, query: dict[str, str]) -> Any:
        status, headers, body = answer(path, query)
        if "fromId" in query:
            rows = json.loads(body)
            rows += rows[: len(rows) // 3] + thin.rows[:5]  # the last ones are of an earlier page
            shuffle.shuffle(rows)
            body = json.dumps(rows).encode()
        return status, headers, body

    thin.answer = disorderly  # type: ignore[method-assign]
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert document["keys"] == whole["keys"]
    assert objects(s3) == at_once


@pytest.mark.parametrize("other", [{"p": "1.0"}, {"f": 3, "l": 4}, {"q": "0.0"}], ids=str)
def test_an_aggregate_that_is_there_twice_and_not_alike_costs_itself(
    thin: RestServer, s3: Any, other: dict[str, Any]
) -> None:
    """Which of the two is right nobody can say."""
    row = inside(thin)[300]
    thin.rows.insert(thin.rows.index(row), row | other)
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["quarantined"]) == ("done", 1)
    assert row["f"] not in {each["first_trade_id"] for each in records(s3, document)}
    (kept,) = quarantined(s3)
    assert kept["id"] == row["a"]


def test_ids_the_exchange_withholds_are_reported(thin: RestServer, s3: Any) -> None:
    rows = inside(thin)
    for row in thin.rows:  # an order of three trades that the exchange does not give
        if row["a"] > rows[100]["a"]:
            row["f"], row["l"] = row["f"] + 3, row["l"] + 3
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    about = marker(s3)
    assert about["withheld"] == [[rows[100]["l"] + 1, rows[100]["l"] + 3]]
    assert document["withheld_trades"] == 3


def test_every_withheld_range_of_a_gap_is_kept_however_many(thin: RestServer, s3: Any) -> None:
    rows = inside(thin)
    for n, row in enumerate(thin.rows):  # before each, a trade that the exchange does not give
        row["f"], row["l"] = 50_000 + 3 * n, 50_001 + 3 * n
    gap = WINDOW | {"reason": "gap", "first_id": rows[0]["f"], "last_id": rows[-1]["l"]}
    document = fetcher(thin, s3)({"window": gap}, PLENTY)
    about = marker(s3)
    expected = [[row["f"] - 1, row["f"] - 1] for row in rows]
    assert len(expected) > 900
    assert [each for each in about["withheld"] if each in expected] == expected
    assert document["withheld_trades"] == len(about["withheld"])

    # A marker of an older version kept the first 100: the window is fetched again, once.
    put_marker(s3, about | {"withheld": about["withheld"][:100]})
    assert (
        fetcher(thin, s3)({"window": WINDOW}, PLENTY)["requests"] == 0
    )  # a requested window does not need them
    again = fetcher(thin, s3)({"window": gap}, PLENTY)
    assert again["requests"] > 0 and again["keys"] == document["keys"]
    assert marker(s3) == about
    assert fetcher(thin, s3)({"window": gap}, PLENTY)["requests"] == 0


def test_placeholders_are_passed_over(thin: RestServer, s3: Any) -> None:
    row = inside(thin)[10]
    row |= {"f": -1, "l": -1, "p": "0.00000000", "q": "0.00000000"}
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["rows"], document["withheld_trades"]) == (len(inside(thin)) - 1, 2)


def test_a_row_of_placeholders_proves_nothing(thin: RestServer, s3: Any) -> None:
    """At an edge of the window, whatever time they carry: neither its beginning nor its end."""
    rows = inside(thin)
    before, behind = thin.rows.index(rows[0]), thin.rows.index(rows[-1]) + 1
    further = thin.rows[behind + 20 :: 7]  # not this window's
    for row in (*thin.rows[before - 3 : before + 3], *thin.rows[behind - 3 : behind + 3], *further):
        row |= {"f": -1, "l": -1, "p": "0.00000000", "q": "0.00000000", "T": (row["a"] % 2) * TO_US}
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) == ("done", len(rows) - 6)
    assert document["withheld_trades"] == 2 * 12  # those just outside may have been inside
    about = marker(s3)
    assert about["refused"] == []


@pytest.mark.parametrize("at", [0, 400, -1], ids=str)
@pytest.mark.parametrize(
    "values",
    [
        {"T": TO_US + 90 * HOUR_US},
        {"T": FROM_US - 90 * HOUR_US},
        {"T": 1},
        {"T": 2**62},
        {"f": 2**60, "l": 2**60 + 1},
        {"l": 2**60},
        {"f": 1, "l": 2},
        {"q": "0.00000000"},
        {"p": "9" * 30},
        {"p": None},
        {"m": "x"},
        {"f": 2.5},
    ],
    ids=str,
)
def test_a_row_far_off_costs_itself_and_is_reported(
    thin: RestServer, s3: Any, at: int, values: dict[str, Any]
) -> None:
    rows = inside(thin)
    rows[at] |= values
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) == ("done", len(rows) - 1)
    assert (document["withheld_trades"], document["refused_rows"]) == (2, 1)
    about = marker(s3)
    (refused,) = about["refused"]
    assert refused["id"] == rows[at]["a"] and refused["why"]
    assert quarantined(s3) == [refused]
    assert len(records(s3, document)) == len(rows) - 1


def test_many_rows_far_off_are_no_single_mistakes(thin: RestServer, s3: Any) -> None:
    for row in inside(thin)[500:520]:
        row["T"] += 60 * HOUR_US
    assert "rows of a page are wrong" in refusal(thin, s3)


def test_times_that_fall_back_a_little_are_kept(server: RestServer, s3: Any) -> None:
    """Over the edges of hours and of the window as well: every trade is in the file of its own time."""
    shuffle = random.Random(5)
    for row in server.rows:
        row["T"] += shuffle.randrange(-2_000_000, 2_000_000)
    expected = {row["a"]: row for row in inside(server)}
    document = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) == ("done", len(expected))
    assert (document["withheld_trades"], document["refused_rows"]) == (0, 0)
    found = []
    for file in document["keys"]:
        start_us, end_us = map(int, file["key"].removesuffix(".avro").split("-")[-2:])
        rows = list(bronze.read_file(objects(s3)[file["key"]], file["key"]))
        assert all(start_us <= row["timestamp"] < end_us for row in rows)
        found += [row["first_trade_id"] for row in rows]
    assert sorted(found) == [row["f"] for row in expected.values()]
    at_once = objects(s3)
    empty(s3)
    _, calls = in_calls(fetcher(server, s3), s3)
    assert calls > 1 and objects(s3) == at_once


@pytest.mark.parametrize("at", [1, 10, 300, 500, -1], ids=str)
@pytest.mark.parametrize("values", [{"f": -1}, {"f": -2}, {"l": 1}, {"l": 2}], ids=str)
def test_a_row_with_ids_of_another_costs_one_of_them(
    thin: RestServer, s3: Any, at: int, values: dict[str, int]
) -> None:
    row = inside(thin)[at]
    row |= {name: row[name] + off for name, off in values.items()}
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) in [
        ("done", len(inside(thin)) - n) for n in ((0, 1) if at == -1 and "l" in values else (1,))
    ]
    ids = [(r["first_trade_id"], r["last_trade_id"]) for r in records(s3, document)]
    assert all(last < first for (_, last), (first, _) in pairwise(ids))
    assert len(quarantined(s3)) == 1


def test_many_rows_with_ids_of_others_are_no_single_mistakes(thin: RestServer, s3: Any) -> None:
    for row in inside(thin)[500:540]:
        row["f"] -= 1
    assert "rows of a page are wrong" in refusal(thin, s3)


def quarantined(s3: Any) -> list[dict[str, Any]]:
    """The rows in quarantine, where each file has its reason."""
    stored = {key: body for key, body in objects(s3).items() if key.startswith("quarantine/")}
    files = sorted(key for key in stored if key.endswith(".ndjson"))
    assert all(json.loads(stored[key.replace(".ndjson", ".json")])["reason"] for key in files)
    return [json.loads(line) for key in files for line in stored[key].splitlines()]


class Killed(BaseException):
    """The end of a process: nothing catches it."""


@pytest.mark.parametrize("ends_by", [Killed, ExchangeUnavailable, urllib3.exceptions.HTTPError])
@pytest.mark.parametrize("at", range(2, 12), ids=str)
def test_a_fetch_that_is_interrupted_keeps_its_pages(
    server: RestServer, s3: Any, monkeypatch: pytest.MonkeyPatch, at: int, ends_by: type[BaseException]
) -> None:
    """At any request: the next call asks for what is not in the lake, and the lake ends the same."""
    monkeypatch.setattr(window_proof, "FILE_ROWS", 1500)
    whole = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    at_once = objects(s3)
    empty(s3)
    rest = BinanceRest(server.url, backoff_s=0)
    page, asked = rest.agg_trades_from, [0]

    def interrupted(symbol: str, agg_id: int) -> Any:
        asked[0] += 1
        if asked[0] == at:
            raise ends_by("ended")
        return page(symbol, agg_id)

    monkeypatch.setattr(rest, "agg_trades_from", interrupted)
    fetch = as_documents(FetchHistory(rest, s3, BUCKET, lambda: TO_US + HOUR_US))
    del server.asked[:]
    if at > len(inside(server)) // 1000 + 1:
        assert fetch({"window": WINDOW}, PLENTY)["status"] == "done"
        return
    with pytest.raises(ends_by):
        fetch({"window": WINDOW}, PLENTY)
    kept = sum(key.endswith(".avro") for key in objects(s3))
    done = len(server.asked)
    document = fetch({"window": WINDOW}, PLENTY)
    assert document["rows"] == whole["rows"] and objects(s3) == at_once
    if kept:  # no search, and but the pages of one file again
        assert all("fromId" in query for query in server.asked[done:])
        assert len(server.asked) <= whole["requests"] + 3


def test_pages_are_kept_for_a_window_that_ends_elsewhere(
    server: RestServer, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As today's, which ends where the request was made."""
    left = iter([900_000] * 6)
    assert fetcher(server, s3)({"window": WINDOW}, lambda: next(left, 0))["status"] == "continue"
    for to_us in (TO_US + HOUR_US // 4, FROM_US + HOUR_US // 4):
        other = WINDOW | {"to_us": to_us}
        asked = len(server.asked)
        document = fetcher(server, s3)({"window": other}, PLENTY)
        expected = [row["f"] for row in server.rows if FROM_US <= row["T"] < to_us]
        assert [r["first_trade_id"] for r in records(s3, document)] == expected
        assert any("startTime" in query for query in server.asked[asked:]) == (to_us < TO_US)
        about = json.loads(objects(s3)[bronze.window_key("BTCUSDT", FROM_US, to_us)])
        assert about["after_id"] == expected[-1] + 2


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b'{"next_id": "x"}', b"{}"])
def test_progress_that_cannot_be_read_costs_the_pages_only(server: RestServer, s3: Any, body: bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key=PROGRESS, Body=body)
    assert fetcher(server, s3)({"window": WINDOW}, PLENTY)["rows"] == len(inside(server))


def test_old_progress_is_not_continued(server: RestServer, s3: Any) -> None:
    """Its files would expire before the marker: a window that counts as fetched with an hour that is gone."""
    left = iter([900_000] * 6)
    fetcher(server, s3)({"window": WINDOW}, lambda: next(left, 0))
    asked = len(server.asked)
    fetcher(server, s3, now_us=TO_US + 26 * HOUR_US)({"window": WINDOW}, PLENTY)
    assert "startTime" in server.asked[asked]


def test_a_series_that_restarted_is_fetched_from_its_beginning(server: RestServer, s3: Any) -> None:
    """What is kept of the one before fits nothing any more; it must not block the window indefinitely."""
    left = iter([900_000] * 6)
    fetcher(server, s3)({"window": WINDOW}, lambda: next(left, 0))
    for n, row in enumerate(server.rows):
        row |= {"a": row["a"] + 5_000, "f": 2 * n + 7, "l": 2 * n + 8}
    with pytest.raises(HistoryIncomplete):
        fetcher(server, s3)({"window": WINDOW}, PLENTY)
    assert fetcher(server, s3)({"window": WINDOW}, PLENTY)["rows"] == len(inside(server))


def test_a_busy_hour_is_written_in_parts(
    server: RestServer, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_proof, "FILE_ROWS", 1000)
    document = fetcher(server, s3)({"window": WINDOW}, PLENTY)
    spans = [tuple(map(int, f["key"].removesuffix(".avro").split("-")[-2:])) for f in document["keys"]]
    assert len(spans) > 8 and all(end == start for (_, end), (start, _) in pairwise(spans))
    assert (spans[0][0], spans[-1][1]) == (FROM_US, TO_US)
    assert [r["first_trade_id"] for r in records(s3, document)] == [row["f"] for row in inside(server)]
    for file, (start_us, _) in zip(document["keys"], spans, strict=True):
        assert file["key"].startswith(bronze.prefix("rest", "BTCUSDT", start_us))


def without(server: RestServer, from_us: int, to_us: int, *, hole: bool = False) -> None:
    """No trades between two instants: none happened, or else (`hole`) the exchange does not have them."""
    server.rows = [row for row in server.rows if not from_us <= row["T"] < to_us]
    if not hole:
        for n, row in enumerate(server.rows):
            row |= {"a": 7000 + n, "f": 50_000 + 2 * n, "l": 50_001 + 2 * n}


@pytest.mark.parametrize("silence_us", [TO_US - FROM_US, 3 * HOUR_US], ids=["just as long", "longer"])
def test_an_empty_window_is_proven_and_remembered(thin: RestServer, s3: Any, silence_us: int) -> None:
    without(thin, FROM_US, FROM_US + silence_us)
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["keys"], document["withheld_trades"]) == ("done", [], 0)
    about = marker(s3)
    assert about["before_id"] + 1 == about["after_id"]
    assert (about["first_id"], about["last_id"], about["rows"]) == (None, None, 0)
    asked = len(thin.asked)
    assert fetcher(thin, s3)({"window": WINDOW}, PLENTY)["status"] == "done"
    assert len(thin.asked) == asked


def test_a_far_neighbour_proves_an_empty_window(server: RestServer, s3: Any) -> None:
    """Found by ids, in about as many requests as a bisection takes."""
    days_us = 40 * 24 * HOUR_US
    rows = [agg_trade(n, n, n, FROM_US - days_us + 1_000_000 * n) for n in range(30_000)]
    server.rows = rows + [
        agg_trade(30_000 + n, 30_000 + n, 30_000 + n, TO_US + days_us + n) for n in range(3)
    ]
    document = fetcher(server, s3, now_us=TO_US + 2 * days_us)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) == ("done", 0)
    assert len(server.asked) < 30


def test_an_empty_answer_where_ids_prove_trades_is_not_believed(thin: RestServer, s3: Any) -> None:
    """By time there is nothing; by id either the trades, or a hole."""
    everything = thin.rows
    without(thin, FROM_US, TO_US, hole=True)
    assert "was expected next" in refusal(thin, s3)
    thin.rows, answer = everything, thin.answer

    def blind(path: str, query: dict[str, str]) -> Any:
        if "startTime" in query and FROM_US <= int(query["startTime"]) * 1000 < TO_US:
            query = query | {"startTime": "0", "endTime": "1"}
        return answer(path, query)

    thin.answer = blind  # type: ignore[method-assign]
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) == ("done", len(inside(thin)))


def test_trades_withheld_from_an_empty_window_are_reported(thin: RestServer, s3: Any) -> None:
    without(thin, FROM_US, TO_US, hole=True)
    for n, row in enumerate(thin.rows):
        row["a"] = 7000 + n
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) == ("done", 0)
    assert document["withheld_trades"] == 2 * 1000


def test_a_market_without_any_trade_proves_nothing(server: RestServer, s3: Any) -> None:
    server.rows = []
    assert "there are no trades" in refusal(server, s3)
    server.status = "PRE_TRADING"
    assert "MarketHalted" in refusal(server, s3)


def as_from_its_first_trade(server: RestServer, at_us: int) -> None:
    server.rows = [row for row in server.rows if row["T"] >= at_us]
    for n, row in enumerate(server.rows):
        row |= {"a": n, "f": 2 * n, "l": 2 * n + 1}


@pytest.mark.parametrize("at_us", [FROM_US + HOUR_US, TO_US + 60_000_000], ids=["within", "after"])
def test_a_market_may_begin_later(thin: RestServer, s3: Any, at_us: int) -> None:
    as_from_its_first_trade(thin, at_us)
    document = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (document["status"], document["rows"]) == ("done", len(inside(thin)))
    about = marker(s3)
    assert about["before_id"] is None


@pytest.mark.parametrize("at_us", [FROM_US + 5, FROM_US + HOUR_US, TO_US + 60_000_000])
def test_the_edge_of_what_is_kept_is_no_beginning(thin: RestServer, s3: Any, at_us: int) -> None:
    thin.rows = [row for row in thin.rows if row["T"] >= at_us]
    why = refusal(thin, s3)
    assert re.match("HistoryNotKept: .*the exchange keeps trades from 2024-08-01T0", why)


@pytest.mark.parametrize("source", ["rest", "sbe", "json"])
def test_ids_that_restarted_are_no_beginning(thin: RestServer, s3: Any, source: str) -> None:
    as_from_its_first_trade(thin, FROM_US + HOUR_US)
    older = bronze.prefix(source, "BTCUSDT", FROM_US) + "older.avro"
    s3.put_object(Bucket=BUCKET, Key=older, Body=b"")
    assert re.match(f"HistoryNotKept: .*{older} is older: ids restarted", refusal(thin, s3))


class HangingExchange(BinanceRest):
    """Answers until most of the minute's weight is used, then accepts connections and says nothing."""

    def __init__(self, url: str) -> None:
        self.elapsed_s = 0.0
        super().__init__(url, clock_s=lambda: self.elapsed_s, sleep=self.pass_time)
        self.hangs = False

    def pass_time(self, duration_s: float) -> None:
        self.elapsed_s += duration_s

    def _ask(self, path: str, query: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        if not self.hangs:
            return super()._ask(path, query)
        timeout = self._pool.connection_pool_kw["timeout"]
        self.pass_time(timeout.connect_timeout + timeout.read_timeout)
        raise urllib3.exceptions.HTTPError("timed out")


def test_a_page_that_takes_longest_ends_before_the_call_s_time_does(thin: RestServer, s3: Any) -> None:
    rest = HangingExchange(thin.url)
    rest.agg_trades_from("BTCUSDT", 7000)
    rest.used_weight = 10**6
    rest.hangs = True
    left_ms = fetch_history._RESERVE_MS + 1000  # just enough to begin
    kept = {"next_id": 7000, "last_id": 49_999, "until_us": FROM_US, "at_us": TO_US}
    s3.put_object(Bucket=BUCKET, Key=PROGRESS, Body=json.dumps(kept).encode())
    fetch = as_documents(FetchHistory(rest, s3, BUCKET, lambda: TO_US + HOUR_US))
    with pytest.raises(ExchangeUnavailable):
        fetch({"window": WINDOW}, lambda: left_ms - int(rest.elapsed_s * 1000))
    assert rest.elapsed_s > 160  # it waited, and tried as often as it does
    assert rest.elapsed_s < left_ms / 1000 - 20  # what a file may take


def test_a_gap_of_another_series_is_not_filled(thin: RestServer, s3: Any) -> None:
    ids = [row["f"] for row in inside(thin)]
    gap = WINDOW | {"reason": "gap", "first_id": ids[0] + 4, "last_id": ids[0] + 9}
    assert fetcher(thin, s3)({"window": gap}, PLENTY)["status"] == "done"
    s3.delete_object(Bucket=BUCKET, Key=MARKER)
    for first_id in (10**9, 3):
        other = gap | {"first_id": first_id, "last_id": first_id + 5}
        assert "HistoryNotKept" in (why := refusal(thin, s3, other)) and "another series" in why


def test_ids_that_restart_within_the_window_are_refused(thin: RestServer, s3: Any) -> None:
    for n, row in enumerate(inside(thin)[500:]):
        row |= {"f": 2 * n, "l": 2 * n + 1}
    assert "HistoryIncomplete" in refusal(thin, s3)


def test_the_only_newer_row_must_not_be_ahead_of_the_clock(thin: RestServer, s3: Any) -> None:
    thin.rows = [row for row in thin.rows if row["T"] < TO_US - HOUR_US]
    last = thin.rows[-1]
    ahead = agg_trade(last["a"] + 1, last["l"] + 1, last["l"] + 1, TO_US + 9 * HOUR_US)
    thin.rows.append(ahead)
    assert "nothing newer" in refusal(thin, s3)


def test_a_marker_of_an_older_version_is_read(thin: RestServer, s3: Any) -> None:
    """Markers outlive the fields that they were written with."""
    fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    about = marker(s3)
    for name in ("before_id", "after_id", "refused", "refused_rows"):
        del about[name]
    put_marker(s3, about)
    again = fetcher(thin, s3)({"window": WINDOW}, PLENTY)
    assert (again["status"], again["rows"], again["refused_rows"]) == ("done", about["rows"], 0)


@pytest.mark.parametrize(
    "window",
    [None, {}, {"symbol": "BTCUSDT"}, WINDOW | {"to_us": FROM_US}, WINDOW | {"from_us": FROM_US + 1}, "x"]
    + [WINDOW | {"from_us": -1000}, WINDOW | {"from_us": float(FROM_US)}, WINDOW | {"to_us": str(TO_US)}]
    + [WINDOW | {"from_us": True}, WINDOW | {"symbol": 5}, WINDOW | {"first_id": 5}]
    + [WINDOW | {"first_id": 5, "last_id": 4}],
)
def test_a_request_without_a_window_says_so(server: RestServer, s3: Any, window: Any) -> None:
    with pytest.raises(WindowError, match="window"):
        fetcher(server, s3)({"window": window}, PLENTY)


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b'{"keys": null}'])
def test_a_window_with_an_unreadable_marker_is_fetched_again(
    server: RestServer, s3: Any, body: bytes
) -> None:
    fetch = fetcher(server, s3)
    whole = fetch({"window": WINDOW}, PLENTY)
    about = marker(s3)
    s3.put_object(Bucket=BUCKET, Key=MARKER, Body=body)
    assert fetch({"window": WINDOW}, PLENTY)["keys"] == whole["keys"]
    assert marker(s3) == about

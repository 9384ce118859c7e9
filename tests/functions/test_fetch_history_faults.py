"""Windows of history from an exchange that misbehaves: whole, or refused by name, never done with less."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.fixtures.aws import BUCKET
from tests.functions.test_fetch_history import as_documents
from tests.local.exchange.test_server import Running, exchange
from tickcast.adapters.lake import bronze
from tickcast.adapters.rest import binance
from tickcast.adapters.rest.binance import BinanceRest
from tickcast.adapters.rest.window_proof import HistoryIncomplete, HistoryNotKept, MarketHalted
from tickcast.functions.fetch_history import FetchHistory

HISTORY_S = 240
Row = dict[str, Any]


@pytest.fixture(scope="module")
def market() -> Iterator[Running]:
    with exchange("--history-s", str(HISTORY_S), "--seed", "5", "--symbols", "BTCUSDT") as running:
        yield running


@pytest.fixture(scope="module")
def window(market: Running) -> dict[str, Any]:
    """A minute of three minutes ago."""
    from_us = (time.time_ns() // 10**9 - 180) * 1_000_000
    return {"symbol": "BTCUSDT", "from_us": from_us, "to_us": from_us + 60_000_000}


@pytest.fixture(scope="module")
def rows(market: Running, window: dict[str, Any]) -> list[Row]:
    """The aggregates of the window as the exchange tells them when it behaves."""
    answer = market.get(
        "/api/v3/aggTrades",
        {"X-MBX-TIME-UNIT": "MICROSECOND"},
        symbol="BTCUSDT",
        startTime=window["from_us"] // 1000,
        endTime=window["to_us"] // 1000 - 1,
        limit=1000,
    )
    found = list(answer)
    while len(found) % 1000 == 0:
        found += market.get(
            "/api/v3/aggTrades",
            {"X-MBX-TIME-UNIT": "MICROSECOND"},
            symbol="BTCUSDT",
            fromId=found[-1]["a"] + 1,
        )
        found = [row for row in found if row["T"] < window["to_us"]]
    return found


@pytest.fixture
def misbehave(market: Running) -> Iterator[Callable[..., None]]:
    """Orders the exchange to misbehave; afterwards it behaves again."""
    url = f"{market.http}/local/faults"

    def order(kind: str, **fields: Any) -> None:
        answer = requests.post(url, json={"kind": kind, **fields}, timeout=10)
        assert answer.status_code == 200, answer.text

    yield order
    requests.delete(url, timeout=10)


@pytest.fixture
def fetch(market: Running, s3: Any, window: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    rest = BinanceRest(market.http, backoff_s=0)
    fetcher = FetchHistory(rest, s3, BUCKET, lambda: time.time_ns() // 1000)
    return lambda: as_documents(fetcher)({"window": window}, lambda: 900_000)


def fetched_ids(s3: Any, document: dict[str, Any]) -> list[int]:
    bodies = ((f["key"], s3.get_object(Bucket=BUCKET, Key=f["key"])["Body"].read()) for f in document["keys"])
    return [record["first_trade_id"] for key, body in bodies for record in bronze.read_file(body, key)]


@pytest.mark.parametrize(
    "orders",
    [
        [],
        [{"how": "cap", "rows": 7}],
        [{"how": "cap", "rows": 500}],
        [{"how": "empty"}],
        [{"how": "disorder"}],
        [{"how": "lag", "age_s": 60}],
        [{"how": "forget", "age_s": HISTORY_S - 20}],
        [{"how": "cap", "rows": 50}, {"how": "empty"}, {"how": "disorder"}, {"how": "lag", "age_s": 30}],
    ],
    ids=lambda orders: "+".join(order["how"] for order in orders) or "none",
)
def test_what_leaves_the_window_provable_leaves_it_whole(
    s3: Any, fetch: Any, misbehave: Any, rows: list[Row], orders: list[Row]
) -> None:
    for order in orders:
        misbehave("rest_rows", **order)
    document = fetch()
    assert (document["status"], document["withheld_trades"], document["refused_rows"]) == ("done", 0, 0)
    assert fetched_ids(s3, document) == [row["f"] for row in rows]


@pytest.mark.parametrize(
    ("order", "error", "why"),
    [
        ({"how": "lag", "age_s": HISTORY_S - 90}, HistoryIncomplete, "nothing newer than its end"),
        ({"how": "forget", "age_s": 150}, HistoryNotKept, "the exchange keeps trades from"),
        ({"how": "forget", "age_s": 100}, HistoryNotKept, "the exchange keeps trades from"),
        ({"how": "hole", "every": 50}, HistoryIncomplete, "was expected next"),
        ({"how": "repeat"}, HistoryIncomplete, "is not there yet|contradict"),
        ({"how": "placeholder", "every": 1}, HistoryIncomplete, "nothing newer than its end"),
        ({"how": "far_off", "every": 3}, HistoryIncomplete, "rows of a page are wrong"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_proven_is_not_done(
    s3: Any, fetch: Any, misbehave: Any, order: Row, error: type[Exception], why: str
) -> None:
    misbehave("rest_rows", **order)
    with pytest.raises(error, match=why):
        fetch()
    prefix = bronze.windows_prefix("BTCUSDT")
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)


@pytest.mark.parametrize(("how", "refused"), [("placeholder", False), ("far_off", True)])
def test_single_rows_that_are_none_are_reported(
    s3: Any, fetch: Any, misbehave: Any, rows: list[Row], how: str, refused: bool
) -> None:
    edges = [row["a"] + off for row in (rows[0], rows[-1]) for off in range(-3, 4)]
    every = next(n for n in range(150, 400) if all(agg_id % n for agg_id in edges))
    misbehave("rest_rows", how=how, every=every)
    lost = [row for row in rows if row["a"] % every == 0]
    assert lost
    document = fetch()
    assert document["status"] == "done"
    assert fetched_ids(s3, document) == [row["f"] for row in rows if row not in lost]
    assert document["withheld_trades"] == sum(row["l"] - row["f"] + 1 for row in lost)
    assert document["refused_rows"] == (len(lost) if refused else 0)


def test_a_halted_market_says_so(fetch: Any, misbehave: Any) -> None:
    misbehave("rest_rows", how="lag", age_s=150)
    misbehave("market_status", status="HALT")
    with pytest.raises(MarketHalted, match="the market is in HALT"):
        fetch()


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("challenge", binance.Forbidden),
        ("html", binance.ExchangeUnavailable),
        ("redirect", binance.ExchangeUnavailable),
        ("truncate", binance.ExchangeUnavailable),
        ("content_type", binance.ExchangeUnavailable),
        ("nan", binance.ExchangeUnavailable),
        ("empty", binance.ExchangeUnavailable),
        ("huge", binance.ExchangeUnavailable),
    ],
)
def test_what_is_no_answer_of_rest_has_a_name(
    fetch: Any, misbehave: Any, rows: list[Row], how: str, error: type[Exception]
) -> None:
    misbehave("rest_body", how=how, path="/api/v3/aggTrades", count=1)
    with pytest.raises(error) as raised:
        fetch()
    assert len(str(raised.value)) < 700
    assert fetch()["rows"] == len(rows)

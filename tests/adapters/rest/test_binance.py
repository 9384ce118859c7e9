"""The REST client with real sockets, and with the exchange's recorded answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.fixtures.paths import EVENTS
from tests.fixtures.rest_server import RestServer, agg_trade, rest_server
from tickcast.adapters.rest import binance
from tickcast.adapters.rest.agg_trades import AggTrade
from tickcast.adapters.rest.binance import BinanceRest, RequestRefused
from tickcast.market.liveness import Newest
from tickcast.market.ticks import TickError

RECORDED = EVENTS / "rest" / "binance.json"


@pytest.fixture
def server() -> Iterator[RestServer]:
    with rest_server() as running:
        running.rows = [agg_trade(i, 10 * i, 10 * i + 2, 1_700_000_000_000_000 + i) for i in range(5)]
        yield running


class Clock:
    """Seconds that pass only in sleep."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_040.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def client(server: RestServer, clock: Clock | None = None) -> BinanceRest:
    clock = clock or Clock()
    return BinanceRest(server.url, clock_s=lambda: clock.now_s, sleep=clock.sleep, backoff_s=0)


def test_aggregates_are_exact_integers(server: RestServer) -> None:
    rows = client(server).agg_trades_from("BTCUSDT", 3)
    assert rows[0] == AggTrade(3, 30, 32, 1_700_000_000_000_003, 6000301000000, 3000, 1)
    assert [row.id for row in rows] == [3, 4]


def test_a_span_of_time_excludes_its_end(server: RestServer) -> None:
    client(server).agg_trades_between("BTCUSDT", 1_000, 2_000)
    assert (server.asked[0]["startTime"], server.asked[0]["endTime"]) == ("1000", "1999")


@pytest.mark.parametrize("time", [1_700_000_000_123, 1_700_000_000_123_000])
def test_the_exchange_s_time_is_in_microseconds(server: RestServer, time: int) -> None:
    server.time = time
    assert client(server).time_us() == 1_700_000_000_123_000


@pytest.mark.parametrize("time", [None, "now", 0, 2**70])
def test_what_is_no_time_is_refused(server: RestServer, time: Any) -> None:
    server.time = time
    with pytest.raises(binance.ExchangeUnavailable):
        client(server).time_us()


def test_times_in_milliseconds_become_microseconds(server: RestServer) -> None:
    server.rows = [agg_trade(1, 1, 1, 1_700_000_000_123)]
    assert client(server).agg_trades_from("BTCUSDT", 1)[0].time_us == 1_700_000_000_123_000


def test_it_waits_for_the_next_minute_before_the_limit(server: RestServer) -> None:
    clock = Clock()
    rest = client(server, clock)
    rest.agg_trades_from("BTCUSDT", 0)
    assert clock.slept == []
    server.used_weight = 4790
    rest.agg_trades_from("BTCUSDT", 0)  # the answer says 4794
    rest.agg_trades_from("BTCUSDT", 0)  # the answer says 4798
    rest.agg_trades_from("BTCUSDT", 0)  # the answer says 4802: 80 % of 6000
    assert (clock.slept, rest.used_weight) == ([], 4802)
    rest.agg_trades_from("BTCUSDT", 0)
    assert clock.slept == [60 - 1_700_000_040 % 60 + 0.5]


def test_a_new_minute_needs_no_waiting(server: RestServer) -> None:
    clock = Clock()
    rest = client(server, clock)
    server.used_weight = 4777
    rest.agg_trades_from("BTCUSDT", 0)  # the answer says 4801
    clock.now_s += 60
    rest.agg_trades_from("BTCUSDT", 0)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [(429, {"Retry_After": "37"}, 37), (418, {"Retry_After": "37"}, 37), (429, {}, 60)],
)
def test_a_rate_limit_states_the_seconds_to_wait(
    server: RestServer, status: int, headers: dict[str, str], wait_s: int
) -> None:
    server.refuse(status, **headers)
    with pytest.raises(binance.RateLimited, match=f"answers {status}, wait {wait_s} s") as raised:
        client(server).agg_trades_from("BTCUSDT", 0)
    assert raised.value.retry_after_s == wait_s
    assert len(server.asked) == 1  # not repeated


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (451, binance.RegionRefused, "does not serve this country or region"),
        (403, binance.Forbidden, "firewall refuses this address"),
        (400, binance.RequestRefused, "answers 400.*refused by the test"),
    ],
)
def test_permanent_refusals_are_not_retried(
    server: RestServer, status: int, error: type[Exception], said: str
) -> None:
    server.refuse(status)
    with pytest.raises(error, match=said):
        client(server).agg_trades_from("BTCUSDT", 0)
    assert len(server.asked) == 1


def test_a_server_error_is_retried(server: RestServer) -> None:
    for status in (500, 502, 503, 504):
        server.refuse(status)
    assert len(client(server).agg_trades_from("BTCUSDT", 0)) == 5
    assert len(server.asked) == 5


def test_persistent_server_errors_are_reported(server: RestServer) -> None:
    for _ in range(5):
        server.refuse(503)
    with pytest.raises(binance.ExchangeUnavailable, match="503"):
        client(server).agg_trades_from("BTCUSDT", 0)


def test_no_answer_is_reported() -> None:
    with rest_server() as gone:
        pass
    with pytest.raises(binance.ExchangeUnavailable, match="does not answer"):
        client(gone).agg_trades_from("BTCUSDT", 0)


HTML = b"<!DOCTYPE html>\n<html>\n" + b"<p>Checking your browser</p>" * 500
WAF = {"x-amzn-waf-action": "challenge"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "error", "said"),
    [
        (202, WAF, b"", binance.Forbidden, "answers 202: its firewall"),
        (202, {"Content-Type": "text/html"}, HTML, binance.Forbidden, "Checking your browser"),
        (202, {}, b"[]", binance.Forbidden, "answers 202"),
        (200, WAF, b"[]", binance.Forbidden, "firewall"),
        (405, {"x-amzn-waf-action": "captcha"}, HTML, binance.Forbidden, "firewall"),
        (403, {"Content-Type": "text/html"}, HTML, binance.Forbidden, "answers 403"),
        (200, {"Content-Type": "text/html; charset=utf-8"}, HTML, binance.ExchangeUnavailable, "html"),
        (200, {"Content-Type": "text/plain"}, b"[]", binance.ExchangeUnavailable, "text/plain, not JSON"),
        (200, {"Content-Type": "application/json"}, b"", binance.ExchangeUnavailable, "'nothing'"),
        (200, {}, b"<html>", binance.ExchangeUnavailable, "<html>.*not JSON"),
        (200, {}, b'[{"a": 1, "p": "6', binance.ExchangeUnavailable, "not JSON"),
        (200, {}, b'[{"a": NaN}]', binance.ExchangeUnavailable, "not JSON"),
        (200, {}, b'[{"a": -Infinity}]', binance.ExchangeUnavailable, "not JSON"),
        (200, {}, b"[" * 200_000, binance.ExchangeUnavailable, "not JSON"),
        (200, {}, b"1" * 5000, binance.ExchangeUnavailable, "not JSON"),
        (200, {}, b"\xff\xfe\x00", binance.ExchangeUnavailable, "not JSON"),
        (204, {}, b"", binance.ExchangeUnavailable, "answers 204"),
        (301, {"Location": "/elsewhere"}, HTML, binance.ExchangeUnavailable, "points to /elsewhere"),
        (302, {"Location": "http://127.0.0.1:9/"}, b"", binance.ExchangeUnavailable, "points to http"),
        (307, {}, b"", binance.ExchangeUnavailable, "points to nowhere"),
        (404, {}, HTML, binance.RequestRefused, "answers 404"),
    ],
)
def test_answers_that_are_not_the_exchange_s_are_errors(
    server: RestServer,
    status: int,
    headers: dict[str, str],
    body: bytes,
    error: type[Exception],
    said: str,
) -> None:
    server.answers.append((status, headers, body))
    with pytest.raises(error, match=said) as raised:
        client(server).agg_trades_from("BTCUSDT", 0)
    assert len(server.asked) == 1  # neither repeated nor followed
    assert len(str(raised.value)) < 500 and str(raised.value).isprintable()


def test_a_body_that_is_too_long_is_not_read_to_its_end(server: RestServer) -> None:
    server.answers.append((200, {}, b" " * (40 * 2**20)))
    rest = client(server)
    with pytest.raises(binance.ExchangeUnavailable, match="more than 8,388,608 bytes"):
        rest.agg_trades_from("BTCUSDT", 0)
    assert len(rest.agg_trades_from("BTCUSDT", 0)) == 5


def test_a_connection_that_breaks_within_a_body_is_retried() -> None:
    """As often as one that breaks before."""
    served = 0

    class Breaks(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal served
            served += 1
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"[")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Breaks) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}).start()
        rest = BinanceRest(f"http://127.0.0.1:{http.server_port}", backoff_s=0)
        with pytest.raises(binance.ExchangeUnavailable, match="does not answer"):
            rest.agg_trades_from("BTCUSDT", 0)
        http.shutdown()
    assert served == rest.requests == 5


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("37", 37),
        (" 37 ", 37),
        ("0", 1),
        ("Tue, 14 Nov 2023 22:16:00 GMT", 121),  # two minutes from the clock's 22:14
        ("Tue, 14 Nov 2023 20:00:00 GMT", 1),  # has passed
        ("-5", 60),
        ("soon", 60),
        ("", 60),
        ("\u00b2", 60),
        ("1e9", 60),
        ("99999999999999999999", 3 * 86_400),
        ("Tue, 14 Nov 9999 22:16:00 GMT", 3 * 86_400),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_time_to_wait_is_a_number_or_a_date(
    server: RestServer, status: int, text: str, wait_s: int
) -> None:
    server.refuse(status, Retry_After=text)
    with pytest.raises(binance.RateLimited) as raised:
        client(server).agg_trades_from("BTCUSDT", 0)
    assert raised.value.retry_after_s == wait_s
    assert len(server.asked) == 1


@pytest.mark.parametrize("used", ["", "many", "-1", "4, 8", "\u00b2", "9" * 400])
def test_a_weight_that_is_not_a_number_is_ignored(server: RestServer, used: str) -> None:
    body = json.dumps(server.rows).encode()
    server.answers.append((200, {"X-MBX-USED-WEIGHT-1M": used}, body))
    rest = client(server)
    assert len(rest.agg_trades_from("BTCUSDT", 0)) == 5
    assert isinstance(rest.used_weight, int)


@pytest.mark.parametrize(
    "info",
    [None, [], {}, {"rateLimits": None}, {"rateLimits": [5]}, {"rateLimits": "x"}]
    + [
        {"rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE"} | odd]}
        for odd in (
            {},
            {"limit": 0},
            {"limit": -1},
            {"limit": "6000"},
            {"limit": 1e9},
            {"limit": True},
            {"limit": 6000, "intervalNum": 0},
        )
    ],
)
def test_an_invalid_limit_is_replaced_by_the_default(info: Any) -> None:
    assert binance.weight_limit(info) == 6000


def test_the_status_of_a_market_is_the_exchange_s(server: RestServer) -> None:
    assert client(server).market_status("BTCUSDT") is None
    server.status = "BREAK"
    assert client(server).market_status("BTCUSDT") == "BREAK"


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1},
        agg_trade(1, 1, 1, 5) | {"T": None},
        agg_trade(1, 1, 1, 5) | {"a": 1.0},
        agg_trade(1, 1, 1, 5) | {"a": -1},
        agg_trade(1, 1, 1, 5) | {"f": True},
        agg_trade(1, 1, 1, 5) | {"l": 2**63},
        agg_trade(1, 1, 1, 5) | {"p": 60000.01},
        agg_trade(1, 1, 1, 5) | {"m": "true"},
        "trade",
        None,
    ],
)
def test_a_row_of_another_form_costs_itself_if_it_has_an_id(row: Any) -> None:
    with pytest.raises(TickError, match="BTCUSDT"):
        binance.agg_trades("BTCUSDT", [row] * 11)
    rows = [agg_trade(0, 0, 0, 4), row]
    if isinstance(row, dict) and type(row["a"]) is int and row["a"] >= 0:
        sound, odd = binance.agg_trades("BTCUSDT", rows)
        assert (sound.why, odd.id) == ("", 1) and odd.why and odd.raw == str(row)
        return
    with pytest.raises(TickError, match="BTCUSDT"):
        binance.agg_trades("BTCUSDT", rows)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"p": "nan"}, "'nan' is not a decimal"),
        ({"p": "-1.0"}, "not a decimal"),
        ({"p": "9" * 5000}, "too large"),
        ({"q": "0.00000000"}, "quantity 0"),
        ({"l": 0}, "its trade ids"),
        ({"f": -1}, "its trade ids"),
        ({"f": -1, "l": -2}, "its trade ids"),
        ({"T": 0}, "its time"),
        ({"T": -(2**62)}, "its time"),
    ],
)
def test_impossible_values_cost_only_their_row(values: dict[str, Any], why: str) -> None:
    good = agg_trade(1, 1, 1, 5)
    before, refused, after = binance.agg_trades("BTCUSDT", [good, agg_trade(2, 2, 2, 5) | values, good])
    assert why in refused.why and len(refused.why) <= 200
    assert before == after and not before.why


def test_a_placeholder_is_accepted() -> None:
    row = agg_trade(1, 1, 1, 5) | {"f": -1, "l": -1, "p": "0.00000000", "q": "0.00000000"}
    (placeholder,) = binance.agg_trades("BTCUSDT", [row])
    assert (placeholder.id, placeholder.first_id, placeholder.why) == (1, -1, "")


def recorded(path: str) -> list[Any]:
    answers: list[Any] = json.loads(RECORDED.read_text("utf-8"))[path]
    return answers


def test_recorded_answers_are_read() -> None:
    read = mangled = 0
    for rows in recorded("/api/v3/aggTrades"):
        if any("m" not in row for row in rows):  # the recorder lost the name of the aggressor's field
            mangled += 1
            with pytest.raises(TickError, match="missing required field `m`"):
                binance.agg_trades("BTCUSDT", rows * 11)
            continue
        trades = binance.agg_trades("BTCUSDT", rows)
        assert [t.time_us for t in trades] == [row["T"] * 1000 for row in rows]
        assert [t.price / 1e8 for t in trades] == [float(row["p"]) for row in rows]
        assert [t.side for t in trades] == [-1 if row["m"] else 1 for row in rows]
        read += len(trades)
    assert (read, mangled) == (142, 4)


def test_the_recorded_weight_limit_is_found() -> None:
    (answer,) = recorded("/api/v3/exchangeInfo")
    limits = {one["rateLimitType"]: one["limit"] for one in answer["rateLimits"]}
    assert binance.weight_limit(answer) == limits["REQUEST_WEIGHT"]


class Tickers(BinanceRest):
    """The exchange has only `known` symbols, and refuses a request that names another."""

    def __init__(self, known: set[str]) -> None:
        self.now_s = 1_700_000_000.0
        super().__init__("http://nowhere", clock_s=lambda: self.now_s)
        self.known = known
        self.asked: list[list[str]] = []

    def _get(self, path: str, query: Any) -> Any:
        symbols = json.loads(query["symbols"])
        self.asked.append(symbols)
        if set(symbols) - self.known:
            raise RequestRefused("400: Invalid symbol.")
        sides = {"bidPrice": "1.5", "bidQty": "2", "askPrice": "1.6", "askQty": "0.00000000"}
        return [{"symbol": symbol, "lastId": 7, **sides} for symbol in symbols]


def test_an_unknown_symbol_does_not_affect_the_others() -> None:
    symbols = [f"S{n}USDT" for n in range(25)]
    rest = Tickers(set(symbols) - {"S3USDT"})
    found = rest.newest(symbols)
    assert set(found) == set(symbols) - {"S3USDT"}
    assert found["S0USDT"] == Newest(7, (150_000_000, 200_000_000, 160_000_000, 0))
    asked = len(rest.asked)
    rest.newest(symbols)
    assert [len(each) for each in rest.asked[asked:]] == [20, 4]  # it is not asked about again at once
    rest.now_s += 3601
    rest.known.add("S3USDT")
    assert set(rest.newest(symbols)) == set(symbols)


@pytest.mark.parametrize("last_id", [1.5, True, "7", None])
def test_a_ticker_with_an_invalid_id_is_an_error(last_id: Any) -> None:
    row = {"symbol": "X", "lastId": last_id, "bidPrice": "1", "bidQty": "1", "askPrice": "2", "askQty": "1"}
    with pytest.raises(TickError, match="no tickers"):
        binance.newest_of([row])

"""The local exchange as its clients see it: a real process, real WebSocket and HTTP clients."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import ClientSession, WSMsgType
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from local.commands.recorded_mids import mids_of
from local.exchange.events import Quote, Sending, Trade
from local.exchange.recording import read
from local.exchange.server import Exchange
from local.exchange.simulator import LISTED, simulate
from local.exchange.subscriptions import Limits
from tests.fixtures.local_exchange import exchange_in_process
from tests.fixtures.paths import ROOT
from tests.fixtures.recordings import CAPTURED, perpetual_quote, quote, text, trade, write
from tickcast.sbe import BestBidAskEvent, Event, SbeTrade, TradesEvent, decode

pytestmark = pytest.mark.server

KEY = {"X-MBX-APIKEY": "local"}
HISTORY_US = 120_000_000


class Running:
    """An exchange process that listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the exchange ended before it listened"
        self.process = process
        self.listening: dict[str, Any] = json.loads(line)
        self.http = f"http://127.0.0.1:{self.listening['port']}"

    def stream(self, path: str, headers: dict[str, str] = KEY) -> ClientConnection:
        return connect(
            f"ws://127.0.0.1:{self.listening['port']}{path}", additional_headers=headers, max_queue=None
        )

    def get(self, path: str, headers: dict[str, str] | None = None, **parameters: str | int) -> Any:
        answer = requests.get(f"{self.http}{path}", params=parameters, headers=headers, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def exchange(*arguments: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-m", "local.exchange", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "layers/core/python")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield Running(process)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def epoch_us() -> int:
    return time.time_ns() // 1000 - HISTORY_US


@pytest.fixture(scope="module")
def sim(epoch_us: int) -> Iterator[Running]:
    with exchange("--epoch-us", str(epoch_us), "--seed", "3") as running:
        yield running


def events(socket: ClientConnection) -> Iterator[Event]:
    for message in socket:
        assert isinstance(message, bytes)
        yield decode(message)


def first_trades(socket: ClientConnection, count: int) -> list[SbeTrade]:
    trades: list[SbeTrade] = []
    for event in events(socket):
        if isinstance(event, TradesEvent):
            trades.extend(event.trades)
        if len(trades) >= count:
            return trades
    raise AssertionError(f"the stream ended after {len(trades)} trades")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def closed_with(socket: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            socket.recv()
    return None if caught.value.rcvd is None else caught.value.rcvd.code


# -------------------------------------------------------------------------------------------- the stream


def test_listening_line(sim: Running) -> None:
    assert sim.listening["event"] == "listening"
    assert sim.listening["feed"] == "sim"
    assert sim.listening["symbols"] == ["BTCUSDT", "ETHUSDT"]
    assert sim.listening["has_perpetuals"] is True


def test_frames_in_order_and_counted(sim: Running) -> None:
    before = sim.get("/local/sent")["symbols"]["ETHUSDT"]
    assert before["trades"] == before["quotes"] == 0
    trades: list[SbeTrade] = []
    quotes: list[BestBidAskEvent] = []
    with sim.stream("/stream?streams=ethusdt@trade/ethusdt@bestBidAsk") as socket:
        for event in events(socket):
            assert event.symbol == "ETHUSDT"
            assert event.price_exponent == event.qty_exponent == -8
            if isinstance(event, TradesEvent):
                assert event.transact_time_us <= event.event_time_us <= time.time_ns() // 1000
                trades.extend(event.trades)
            elif isinstance(event, BestBidAskEvent):
                quotes.append(event)
            if len(trades) >= 50 and len(quotes) >= 50:
                break
    assert all(first.id + 1 == second.id for first, second in itertools.pairwise(trades))
    assert all(one.book_update_id < two.book_update_id for one, two in itertools.pairwise(quotes))
    sent = sim.get("/local/sent")["symbols"]["ETHUSDT"]
    assert sent["first_id"] == trades[0].id
    assert sent["trades"] == sent["last_id"] - sent["first_id"] + 1 >= len(trades)
    assert sent["quotes"] >= len(quotes)
    assert sent["first_time_us"] <= quotes[0].event_time_us <= sent["last_time_us"]
    first = quotes[0]
    known = sim.get("/local/quote", symbol="ETHUSDT", time_ms=first.event_time_us // 1000)["quote"]
    assert known["time_us"] <= first.event_time_us
    # The mids of spans: a single instant has one, the whole time those of all quotes.
    from_ms, to_ms = quotes[0].event_time_us // 1000 + 1, quotes[-1].event_time_us // 1000 + 1
    recorded = mids_of(sim.http)("ETHUSDT", [(from_ms, to_ms), (to_ms, to_ms), (0, 1)])
    all_mids, last_mid, before = recorded.mids
    within = [one for one in quotes if from_ms * 1000 < one.event_time_us < (to_ms - 1) * 1000]
    assert {(one.bid_price + one.ask_price) / 2e8 for one in within} <= set(all_mids) and len(within) > 20
    assert len(last_mid) == 1 and last_mid[0] in all_mids and before == []
    assert recorded.known_ms is not None and recorded.known_ms >= to_ms - 1
    for wrong in (
        b"",
        b"[]",
        b'{"symbol": "ETHUSDT", "spans_ms": [[1]]}',
        b'{"symbol": "X", "spans_ms": []}',
    ):
        assert requests.post(f"{sim.http}/local/mids", data=wrong, timeout=10).status_code == 400
    # REST has the same trades as the stream.
    until(lambda: bool(sim.get("/api/v3/aggTrades", symbol="ETHUSDT", limit=1)[0]["l"] >= trades[-1].id))
    rows = sim.get("/api/v3/aggTrades", symbol="ETHUSDT", startTime=sent["first_time_us"] // 1000 - 1000)
    covered = {id_: (row["p"], row["m"]) for row in rows for id_ in range(row["f"], row["l"] + 1)}
    for one in trades:
        price, is_buyer_maker = covered[one.id]
        assert (int(price.replace(".", "")), is_buyer_maker) == (one.price, one.is_buyer_maker)


def test_the_keyless_streams_carry_the_same_trades(sim: Running) -> None:
    json_path = "/json/stream?streams=btcusdt@trade/btcusdt@bookTicker&timeUnit=MICROSECOND"
    with sim.stream(json_path, headers={}) as mirror:
        mirror.recv()  # from now on it gets all there is
        with sim.stream("/ws/btcusdt@trade") as socket:
            trades = first_trades(socket, 30)
        common: list[SbeTrade] = []
        for message in mirror:
            payload = json.loads(message)
            data = payload["data"]
            if payload["stream"] == "btcusdt@bookTicker":
                assert set(data) == set("usbBaA") and float(data["b"]) < float(data["a"])
            elif data["t"] >= trades[0].id:
                price, qty = (int(data[field].replace(".", "")) for field in "pq")
                common.append(SbeTrade(data["t"], price, qty, data["m"]))
            if len(common) == len(trades):
                break
    assert common == trades


@pytest.mark.parametrize(("headers", "code"), [({}, -2014), ({"X-MBX-APIKEY": "wrong"}, -2015)])
def test_a_connection_without_the_key_is_refused(sim: Running, headers: dict[str, str], code: int) -> None:
    with pytest.raises(InvalidStatus) as caught:
        sim.stream("/ws/btcusdt@trade", headers)
    assert caught.value.response.status_code == 401
    assert json.loads(caught.value.response.body)["code"] == code


@pytest.mark.parametrize("path", ["/ws/noneusdt@trade", "/stream?streams=btcusdt@trade/btcusdt@kline_1s"])
def test_an_unknown_stream_is_refused(sim: Running, path: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        sim.stream(path)
    assert caught.value.response.status_code == 400
    assert "unknown stream" in json.loads(caught.value.response.body)["msg"]


def test_control_messages(sim: Running) -> None:
    def ask(message: object) -> Any:
        socket.send(message if isinstance(message, str) else json.dumps(message))
        time.sleep(0.25)  # at most 5 messages a second
        return json.loads(next(answer for answer in socket if isinstance(answer, str)))

    with sim.stream("/ws") as socket:
        subscribe = {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@bestBidAsk"], "id": 1}
        assert ask(subscribe) == {"result": None, "id": 1}
        assert ask({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": "a"}) == {
            "result": None,
            "id": "a",
        }
        assert ask({"method": "LIST_SUBSCRIPTIONS", "id": 3}) == {"result": ["btcusdt@bestBidAsk"], "id": 3}
        for wrong, code in [
            ("{", 3),
            ([], 2),
            ({"method": "SUBSCRIBE", "params": ["noneusdt@trade"], "id": 4}, 2),
            ({"method": "SUBSCRIBE", "params": ["btcusdt@trade"] * 1025, "id": 4}, 2),
            ({"method": "DANCE", "id": 4}, 2),
            ({"method": "SUBSCRIBE", "params": "btcusdt@trade", "id": 4}, 2),
            ({"method": "LIST_SUBSCRIPTIONS", "id": [4]}, 2),
        ]:
            assert ask(wrong)["error"]["code"] == code
        event = next(decode(message) for message in socket if isinstance(message, bytes))
        assert event.symbol == "BTCUSDT"


def test_more_than_five_messages_a_second_end_the_connection(sim: Running) -> None:
    with sim.stream("/ws") as socket:
        for _ in range(6):
            socket.send('{"method": "LIST_SUBSCRIPTIONS", "id": 1}')
        assert closed_with(socket) == 1008


def test_a_ping_is_answered(sim: Running) -> None:
    with sim.stream("/ws") as socket:
        assert socket.ping(b"payload").wait(10)


# ---------------------------------------------------------------------------------------------------- REST


def test_history_is_the_simulators(sim: Running, epoch_us: int) -> None:
    ticks = itertools.takewhile(lambda t: t.time_us < epoch_us + 30_000_000, simulate("BTCUSDT", 3, epoch_us))
    expected = [tick for tick in ticks if isinstance(tick, Trade)]
    rows: list[Any] = []
    micro = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    page = sim.get("/api/v3/aggTrades", micro, symbol="BTCUSDT", limit=100, startTime=epoch_us)
    while page and page[0]["f"] <= expected[-1].id:
        rows += page
        following = page[-1]["a"] + 1
        page = sim.get("/api/v3/aggTrades", micro, symbol="BTCUSDT", limit=100, fromId=following)
    assert all(one["a"] + 1 == two["a"] and one["l"] + 1 == two["f"] for one, two in itertools.pairwise(rows))
    by_id = {one.id: one for one in expected}
    whole = [row for row in rows if row["l"] <= expected[-1].id]
    assert whole[0]["f"] == expected[0].id and len(whole) > 50
    for row in whole:
        fills = [by_id[id_] for id_ in range(row["f"], row["l"] + 1)]
        assert sum(fill.qty for fill in fills) == int(row["q"].replace(".", ""))
        assert {(fill.price, fill.time_us, fill.is_buyer_maker) for fill in fills} == {
            (int(row["p"].replace(".", "")), row["T"], row["m"])
        }


def test_times_are_inclusive_milliseconds(sim: Running) -> None:
    rows = sim.get("/api/v3/aggTrades", symbol="BTCUSDT", limit=20)
    start, end = rows[5]["T"], rows[10]["T"]
    found = sim.get("/api/v3/aggTrades", symbol="BTCUSDT", startTime=start, endTime=end)
    assert [row["a"] for row in found] == [row["a"] for row in rows if start <= row["T"] <= end]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("aggTrades", -1102),
        ("aggTrades?symbol=", -1102),
        ("aggTrades?symbol=NONEUSDT", -1121),
        ("aggTrades?symbol=BTCUSDT&limit=0", -1130),
        ("aggTrades?symbol=BTCUSDT&limit=ten", -1100),
        ("aggTrades?symbol=BTCUSDT&fromId=1&startTime=2", -1128),
        ("aggTrades?symbol=BTCUSDT&startTime=2&endTime=1", -1128),
        ("aggTrades?symbol=BTCUSDT&interval=1s", -1104),
        ("depth?symbol=BTCUSDT&limit=-1", -1100),
        ("exchangeInfo?symbol=NONEUSDT", -1121),
        ("exchangeInfo?symbols=BTC", -1100),
        ("time?symbol=BTCUSDT", -1104),
    ],
)
def test_bad_parameters(sim: Running, path: str, code: int) -> None:
    answer = requests.get(f"{sim.http}/api/v3/{path}", timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert answer.json()["msg"]
    assert int(answer.headers["X-MBX-USED-WEIGHT-1M"]) > 0


def test_depth_surrounds_the_quote(sim: Running) -> None:
    book = sim.get("/api/v3/depth", symbol="BTCUSDT", limit=200)
    bids, asks = ([[float(price), float(qty)] for price, qty in book[side]] for side in ("bids", "asks"))
    assert len(bids) == len(asks) == 200
    assert bids == sorted(bids, reverse=True) and asks == sorted(asks) and bids[0] < asks[0]
    assert all(qty > 0 for _, qty in bids + asks)
    assert book["lastUpdateId"] > 0


def test_exchange_info_says_that_the_market_is_simulated(sim: Running) -> None:
    info = sim.get("/api/v3/exchangeInfo")
    assert (info["feed"], info["simulated"]) == ("sim", True)
    assert [symbol["symbol"] for symbol in info["symbols"]] == list(LISTED)
    assert {limit["rateLimitType"]: limit["limit"] for limit in info["rateLimits"]} == {
        "REQUEST_WEIGHT": 6000
    }
    one = sim.get("/api/v3/exchangeInfo", symbols='["ETHUSDT"]')["symbols"]
    assert [(symbol["baseAsset"], symbol["quoteAsset"]) for symbol in one] == [("ETH", "USDT")]


def test_a_listed_market_opens_with_its_first_listener(sim: Running) -> None:
    """With the history that it would have had from the beginning; until then it counts nothing sent."""
    assert sim.get("/local/sent")["symbols"].keys() == {"BTCUSDT", "ETHUSDT"}
    assert sim.get("/api/v3/aggTrades", symbol="SOLUSDT") == []
    with sim.stream("/stream?streams=solusdt@trade/solusdt@bestBidAsk") as socket:
        trades = first_trades(socket, 2)
        sent = sim.get("/local/sent")["symbols"]["SOLUSDT"]
        newest = sim.get("/api/v3/aggTrades", symbol="SOLUSDT", limit=1000)
    assert sent["first_id"] == trades[0].id
    assert trades[1].id == trades[0].id + 1
    assert newest[0]["f"] < trades[0].id <= newest[-1]["l"] + 1


def test_time_in_either_unit(sim: Running) -> None:
    assert sim.get("/api/v3/ping") == {}
    assert len(str(sim.get("/api/v3/time")["serverTime"])) == 13
    micro = sim.get("/api/v3/time", {"X-MBX-TIME-UNIT": "MICROSECOND"})
    assert len(str(micro["serverTime"])) == 16


def test_too_much_weight_is_refused_for_the_minute() -> None:
    with exchange("--history-s", "1", "--symbols", "BTCUSDT") as running:
        url = f"{running.http}/api/v3/depth?symbol=BTCUSDT&limit=5000"
        used = [0]
        for _ in range(60):  # twice the limit and more, should a minute end on the way
            answer = requests.get(url, timeout=10)
            used.append(int(answer.headers["X-MBX-USED-WEIGHT-1M"]))
            if answer.status_code != 200:
                break
            assert used[-1] in (used[-2] + 250, 250)
        assert answer.status_code == 429 and used[-1] > 6000
        assert answer.json()["code"] == -1003
        assert 1 <= int(answer.headers["Retry-After"]) <= 60


# -------------------------------------------------------------------------------------------------- replay


def test_replay_waits_for_a_listener_and_starts_over(tmp_path: Path) -> None:
    lines = [quote(0, 10), trade(5, 1), trade(6, 2), quote(7, 12), trade(30, 3)]
    path = write(tmp_path / "a.gz", text(lines))
    with exchange("--feed", "replay", "--replay", str(path)) as running:
        assert running.listening["symbols"] == ["BTCUSDT"]
        assert running.listening["has_perpetuals"] is False
        assert running.get("/local/sent")["symbols"]["BTCUSDT"]["first_id"] is None
        assert running.get("/api/v3/aggTrades", symbol="BTCUSDT") == []
        with running.stream("/ws/btcusdt@bestBidAsk/btcusdt@trade") as socket:
            assert [one.id for one in first_trades(socket, 12)] == list(range(1, 13))
        assert running.get("/api/v3/exchangeInfo")["simulated"] is False


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_replay_sends_what_was_recorded(symbol: str) -> None:
    path = CAPTURED[symbol]
    recorded = [tick for tick in read([path]) if isinstance(tick, Trade)][:1_500]
    with exchange("--feed", "replay", "--replay", str(path), "--speed", "50") as running:
        with running.stream(f"/ws/{symbol.lower()}@trade") as socket:
            sent = first_trades(socket, 1_500)[:1_500]
        book = running.get("/api/v3/depth", symbol=symbol, limit=10)
    assert sent == [SbeTrade(one.id, one.price, one.qty, one.is_buyer_maker) for one in recorded]
    assert len(book["bids"]) == len(book["asks"]) == 10


def test_the_clock_may_be_off() -> None:
    """Of REST and of the ticks alike."""
    before_ms = time.time_ns() // 1_000_000
    with exchange("--history-s", "60", "--clock-offset-ms", "-3000000") as running:
        assert running.get("/api/v3/time")["serverTime"] == pytest.approx(before_ms - 3_000_000, abs=600_000)
        newest_ms = running.get("/api/v3/aggTrades", symbol="BTCUSDT")[-1]["T"]
        assert newest_ms == pytest.approx(before_ms - 3_000_000, abs=600_000)


def test_a_damaged_recording_ends_the_exchange(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", text([trade(0, 1), trade(1, 2)]) + "garbage\n")
    with exchange("--feed", "replay", "--replay", str(path)) as running:
        with running.stream("/ws/btcusdt@trade") as socket:
            assert closed_with(socket) == 1001
        assert running.process.wait(10) == 1


def test_replay_sends_the_perpetual_with_its_market(tmp_path: Path) -> None:
    spot = write(tmp_path / "a.gz", text([quote(0, 10), trade(5, 1), quote(7, 12), trade(30, 3)]))
    perpetual = write(tmp_path / "b.gz", text([perpetual_quote(1, 5), perpetual_quote(3, 6)]))
    options = ("--feed", "replay", "--replay", str(spot), "--reference", str(perpetual))
    with exchange(*options) as running, running.stream("/usdm/public/ws/btcusdt@bookTicker", {}) as socket:
        assert (
            running.get("/local/sent")["symbols"]["BTCUSDT"]["first_id"] is None
        )  # it waits for the market's
        with running.stream("/ws/btcusdt@trade"):
            assert [json.loads(socket.recv())["u"] for _ in range(2)] == [5, 6]


def test_the_simulated_market_has_a_perpetual(sim: Running) -> None:
    with sim.stream("/usdm/public/stream?streams=btcusdt@bookTicker/ethusdt@bookTicker", {}) as socket:
        seen = [json.loads(socket.recv()) for _ in range(20)]
    assert {each["stream"] for each in seen} == {"btcusdt@bookTicker", "ethusdt@bookTicker"}
    for data in (each["data"] for each in seen):
        assert float(data["b"]) < float(data["a"])
        assert abs(data["E"] - time.time() * 1000) < 60_000


# ------------------------------------------------------------------------------------------------ lifecycle


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_graceful_stop(number: signal.Signals) -> None:
    with exchange("--history-s", "1") as running, running.stream("/ws/btcusdt@bestBidAsk") as socket:
        socket.recv()
        running.process.send_signal(number)
        assert closed_with(socket) == 1001
        assert running.process.wait(10) == 0


Visit = Callable[[Exchange, ClientSession, str], Awaitable[None]]


def visit_exchange(limits: Limits, visit: Visit) -> None:
    async def run() -> None:
        running = exchange_in_process(("BTCUSDT",), limits)
        async with running as (served, port), ClientSession(headers=KEY) as session:
            await visit(served, session, f"http://127.0.0.1:{port}/ws/btcusdt@bestBidAsk")

    asyncio.run(run())


def test_pings_come_and_silence_ends_the_connection() -> None:
    async def visit(served: Exchange, session: ClientSession, url: str) -> None:
        async with session.ws_connect(url, autoping=False) as socket:
            kinds = [(await socket.receive()).type for _ in range(2)]
            assert kinds == [WSMsgType.PING, WSMsgType.PING]
            async for _ in socket:
                pass
            assert socket.close_code == 1008

    visit_exchange(Limits(ping_every_s=0.02, pong_within_s=0.1), visit)


def test_a_client_that_does_not_read_is_disconnected_and_delays_no_other() -> None:
    async def visit(served: Exchange, session: ClientSession, url: str) -> None:
        market = served.markets["BTCUSDT"]
        async with session.ws_connect(url), session.ws_connect(url) as quick:  # the first never reads
            published = 0
            while len(served.subscriptions.to("btcusdt@bestBidAsk")) == 2:
                numbers = range(published, published + 1_000)
                batch = [Sending(n, n, Quote("BTCUSDT", n, n, 1, 1, 2, 1)) for n in numbers]
                served.publish(market, batch)
                published += len(batch)
                for one in batch:
                    event = decode(await quick.receive_bytes())
                    assert isinstance(event, BestBidAskEvent) and event.book_update_id == one.event_time_us
                assert published < 10_000_000
        assert market.sent.quotes == published

    visit_exchange(Limits(max_queued=2_000), visit)

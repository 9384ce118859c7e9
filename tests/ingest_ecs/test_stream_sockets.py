"""The socket loop against a real WebSocket server that behaves badly on purpose."""

import asyncio
import contextlib
import http
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aws_lambda_powertools import Logger
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from ingest_ecs.producer import Producer
from ingest_ecs.settings import NO_KEY, IngestSettings
from ingest_ecs.stream import Stream
from tests.fixtures.asynchronous import run_async
from tests.fixtures.frames import quote_frame, trade_frame
from tests.fixtures.put_records import Kinesis
from tests.fixtures.settings import configured
from tickcast.adapters.rest.binance import BinanceRest, ExchangeUnavailable
from tickcast.market import liveness, wire
from tickcast.market.liveness import Newest
from tickcast.market.reconnect import FatalSessionError
from tickcast.market.session import Session

KEY = "an-ed25519-key"


def trade_now(trade_id: int, symbol: str = "BTCUSDT") -> bytes:
    return trade_frame(trade_id, symbol, time.time_ns() // 1000)


def quote_now(bid: int = 99) -> bytes:
    now_us = time.time_ns() // 1000
    return quote_frame(now_us, time_us=now_us, bid=bid)


Serve = Callable[[int, ServerConnection], Awaitable[object]]


@asynccontextmanager
async def exchange(
    talk: Serve,
    refuse: Callable[[int], int | None] = lambda n: None,
    key: str | None = KEY,
    path: str = "/stream?streams=btcusdt@trade/btcusdt@bestBidAsk",
) -> AsyncIterator[str]:
    """A server whose n-th connection is served by `talk(n, …)`, or refused with the status `refuse(n)`."""
    handshakes = 0

    def check(connection: ServerConnection, request: Request) -> Response | None:
        nonlocal handshakes
        handshakes += 1
        assert request.headers.get("X-MBX-APIKEY") == key
        assert request.path == path
        status = refuse(handshakes)
        return connection.respond(http.HTTPStatus(status), "refused") if status else None

    async def handle(connection: ServerConnection) -> None:
        await talk(handshakes, connection)

    async with serve(handle, "127.0.0.1", 0, process_request=check) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Rest(BinanceRest):
    """Says that `newest` is what the exchange has; without it, it does not answer."""

    def __init__(self, newest: Newest | None = None) -> None:
        super().__init__("http://unused")
        self.found = newest

    def newest(self, symbols: Sequence[str]) -> dict[str, Newest]:
        if self.found is None:
            raise ExchangeUnavailable("no answer")
        return dict.fromkeys(symbols, self.found)


class Ingest:
    """Socket loop, session and producer as the task runs them, against the server at `url`."""

    def __init__(self, url: str, rest: Rest | None = None, **env: str) -> None:
        settings = configured(
            IngestSettings,
            **{"SYMBOLS": "BTCUSDT", "BINANCE_API_KEY": KEY, "STREAM_URL": url, **env},
        ).decided()
        self.kinesis = Kinesis()
        logger = Logger(service="test")
        self.session = Session(
            [("BTCUSDT", "trades"), ("BTCUSDT", "quotes")], random.Random(1), settings.rollover_s
        )

        def saw_data(connection: int, symbol: str, kind: str) -> None:
            self.session.data(connection, symbol, kind, time.monotonic())

        self.producer = Producer(
            self.kinesis,
            "t",
            settings.symbols,
            settings.source,
            0.01,
            logger,
            saw_data,
            busy_symbol=settings.busy_symbol,
        )
        self.stream = Stream(settings, self.session, self.producer, logger, rest or Rest())

    async def run_until(self, is_done: Callable[[], bool]) -> None:
        running = asyncio.create_task(self.stream.run())
        putting = asyncio.create_task(self.producer.run())
        try:
            async with asyncio.timeout(30):
                while not is_done() and not running.done():
                    await asyncio.sleep(0.01)
            if running.done():
                running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.producer.drain()
            await putting


@run_async
async def test_ticks_arrive_and_bad_frames_are_counted_and_skipped() -> None:
    async def talk(n: int, connection: ServerConnection) -> None:
        await connection.send('{"result":null,"id":1}')
        for frame in (
            trade_now(1),
            b"garbage",
            trade_now(2)[:-3],
            trade_now(3, "DOGEUSDT"),
            quote_now(bid=102),
            quote_now(),
        ):
            await connection.send(frame)
        await connection.send("not json")
        await connection.send(trade_now(4))
        await connection.wait_closed()

    async with exchange(talk) as url:
        ingest = Ingest(url)
        await ingest.run_until(lambda: len(ingest.kinesis.trade_ids()) == 2)
        assert sorted(ingest.kinesis.trade_ids()) == [1, 4]
        assert sum(len(batch.quotes) for batch in ingest.kinesis.batches) == 1
        assert ingest.producer.bad_frames.total() == 4


@run_async
async def test_it_reconnects_after_a_drop_a_shutdown_and_an_overloaded_server() -> None:
    async def talk(n: int, connection: ServerConnection) -> None:
        await connection.send(trade_now(n))
        if n == 1:
            connection.transport.abort()
        elif n == 3:
            await connection.send('{"e":"serverShutdown","E":1754000000000}')
            await connection.wait_closed()
        else:
            await connection.wait_closed()

    async with exchange(talk, lambda n: 503 if n == 2 else None) as url:
        ingest = Ingest(url)
        await ingest.run_until(lambda: len(ingest.kinesis.trade_ids()) == 3)
        assert ingest.kinesis.trade_ids() == [1, 3, 4]
        assert ingest.kinesis.causes()[0] == "ingest was not running"
        assert len(ingest.kinesis.causes()) == 2  # the drop; the shutdown was bridged
        assert "ConnectionClosed" in ingest.kinesis.causes()[1]


@run_async
async def test_a_dead_stream_is_replaced_by_a_second_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "PROBE_AFTER_MIN_S", 0.3)
    monkeypatch.setattr(liveness, "IN_FLIGHT_S", 0.2)

    async def talk(n: int, connection: ServerConnection) -> None:
        for trade_id in range(10 * n, 10 * n + 3):
            await connection.send(trade_now(trade_id))
        with contextlib.suppress(ConnectionClosed):
            while True:  # quotes flow all along, and pings are answered
                await connection.send(quote_now())
                await asyncio.sleep(0.05)

    async with exchange(talk) as url:
        ingest = Ingest(url, Rest(Newest(15)))
        await ingest.run_until(lambda: ingest.stream.connections >= 2 and 20 in ingest.kinesis.trade_ids())
        assert "no trades came on an open connection" in ingest.kinesis.causes()


@run_async
async def test_a_market_that_rest_shows_to_be_quiet_is_reported_and_keeps_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(liveness, "PROBE_SYMBOL_AFTER_S", 0.3)
    monkeypatch.setattr(liveness, "PROBE_INTERVAL_S", 0.2)

    async def talk(n: int, connection: ServerConnection) -> None:
        await connection.send(trade_now(1))
        await connection.send(quote_now())
        busy = quote_frame(9, "BUSYUSDT", 2)
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.send(busy)
                await asyncio.sleep(0.05)

    def quiet_us(ingest: Ingest) -> list[int]:
        return [batch.quiet_us for batch in ingest.kinesis.batches if batch.quiet_us != wire.QUIET_UNKNOWN]

    path = "/stream?streams=btcusdt@trade/btcusdt@bestBidAsk/busyusdt@bestBidAsk"

    async with exchange(talk, path=path) as url:
        ingest = Ingest(url, Rest(Newest(1, (99, 5, 101, 5))), BUSY_SYMBOL="BUSYUSDT")
        await ingest.run_until(lambda: len(set(quiet_us(ingest))) > 2)
        assert sorted(quiet_us(ingest)) == quiet_us(ingest)
        assert abs(quiet_us(ingest)[-1] / 1e6 - time.time()) < 30
        assert ingest.stream.connections == 1
        assert {batch.symbol for batch in ingest.kinesis.batches} == {"BTCUSDT"}


@run_async
async def test_rollover_leaves_no_hole() -> None:
    """The server numbers trades by time and sends each to whoever is connected."""
    clients: list[ServerConnection] = []
    sent = 0

    async def publish() -> None:
        nonlocal sent
        while True:
            if clients:
                sent += 1
                trade, quote = trade_now(sent), quote_now()
                for client in list(clients):
                    with contextlib.suppress(ConnectionClosed):
                        await client.send(trade)
                        await client.send(quote)
            await asyncio.sleep(0.005)

    async def talk(n: int, connection: ServerConnection) -> None:
        clients.append(connection)
        await connection.wait_closed()
        clients.remove(connection)

    async with exchange(talk) as url:
        publishing = asyncio.create_task(publish())
        ingest = Ingest(url, ROLLOVER_S="0.5")
        await ingest.run_until(lambda: ingest.stream.connections >= 4)
        publishing.cancel()
        got = ingest.kinesis.trade_ids()
        assert set(got) == set(range(1, max(got) + 1))
        assert len(got) > len(set(got))  # both delivered meanwhile
        assert ingest.kinesis.causes() == ["ingest was not running"]


@pytest.mark.parametrize("protocol", ["json", "auto"])
@run_async
async def test_the_keyless_feed_gives_the_same_ticks(protocol: str) -> None:
    """Also where the task finds at its start that the secret holds no key: it asks no other stream."""
    now_us = time.time_ns() // 1000
    texts = [
        f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{now_us + 1},"s":"BTCUSDT","t":7,'
        f'"p":"61837.63","q":"0.02","T":{now_us},"m":true,"M":true}}}}',
        '{"stream":"btcusdt@bookTicker","data":{"u":9,"s":"BTCUSDT","b":"61837.63","B":"3.7","a":"61837.64","A":"1"}}',
        '{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":8}}',
        '{"result":null,"id":1}',
    ]

    async def talk(n: int, connection: ServerConnection) -> None:
        for text in texts:
            await connection.send(text)
        await connection.wait_closed()

    path = "/stream?streams=btcusdt@trade/btcusdt@bookTicker&timeUnit=MICROSECOND"
    async with exchange(talk, key=None, path=path) as url:
        keyless: dict[str, Any] = (
            {"PROTOCOL": "json", "SOURCE": "json", "BINANCE_API_KEY": ""}
            if protocol == "json"
            else {"PROTOCOL": "auto", "BINANCE_API_KEY": NO_KEY, "PUBLIC_STREAM_URL": url}
        )
        ingest = Ingest("ws://127.0.0.1:1" if protocol == "auto" else url, **keyless)
        await ingest.run_until(lambda: bool(ingest.kinesis.trade_ids()))
        (batch,) = [batch for batch in ingest.kinesis.batches if len(batch.trades)]
        assert batch.source == "json"
        assert batch.trades[["time_us", "first_id", "price", "qty", "side"]].tolist() == [
            (now_us, 7, 6183763000000, 2000000, -1)
        ]
        assert batch.quotes[["update_id", "bid_price", "ask_qty"]].tolist() == [(9, 6183763000000, 10**8)]
        assert ingest.producer.bad_frames.total() == 1


@pytest.mark.parametrize("is_wrapped", [True, False])
@run_async
async def test_the_keyless_feed_s_messages_are_classified_by_content(is_wrapped: bool) -> None:
    """Members in any order and white space; a shutdown within the wrapper; none is counted as bad."""

    def written(name: str, data: dict[str, Any]) -> str:
        return json.dumps({"data": data, "stream": name} if is_wrapped else data, indent=1)

    async def talk(n: int, connection: ServerConnection) -> None:
        now_us = time.time_ns() // 1000
        data = {
            "m": True,
            "T": now_us,
            "q": "0.02",
            "p": "1.5",
            "t": n,
            "s": "BTCUSDT",
            "E": now_us,
            "e": "trade",
        }
        await connection.send('{"error":{"code":2,"msg":"Invalid request"},"id":1}')
        await connection.send(written("btcusdt@trade", data))
        if n == 1:
            await connection.send(written("btcusdt@trade", {"E": 1754000000000, "e": "serverShutdown"}))
        await connection.wait_closed()

    path = "/stream?streams=btcusdt@trade/btcusdt@bookTicker&timeUnit=MICROSECOND"
    async with exchange(talk, key=None, path=path) as url:
        ingest = Ingest(url, PROTOCOL="json", SOURCE="json", BINANCE_API_KEY="")
        await ingest.run_until(lambda: ingest.kinesis.trade_ids() == [1, 2])
        assert ingest.producer.bad_frames.total() == 0


@pytest.mark.parametrize("status", [401, 403, 451])
@run_async
async def test_a_permanent_refusal_ends_the_task(status: int) -> None:
    attempts = 0

    def refuse(n: int) -> int:
        nonlocal attempts
        attempts = n
        return status

    async def talk(n: int, connection: ServerConnection) -> None:
        raise AssertionError("refused connections are not served")

    async with exchange(talk, refuse) as url:
        with pytest.raises(FatalSessionError, match=f"HTTP {status}"):
            await Ingest(url).run_until(lambda: False)
    assert attempts == 1

"""The socket loop against a real WebSocket server that behaves badly on purpose."""

import asyncio
import http
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aws_lambda_powertools import Logger
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from ingest_ecs import stream as stream_module
from ingest_ecs.settings import IngestSettings
from ingest_ecs.stream import Stream
from tickcast import sbe
from tickcast.session import FatalSessionError
from tickcast.ticks import QuoteRow, TradeRow

KEY = "an-ed25519-key"


def trade_frame(trade_id: int, symbol: str = "BTCUSDT") -> bytes:
    return sbe.encode(sbe.TradesEvent(2, 1, -8, -8, (sbe.SbeTrade(trade_id, 100, 5, False),), symbol))


QUOTE_FRAME = sbe.encode(sbe.BestBidAskEvent(2, 9, -8, -8, 100, 5, 101, 6, "BTCUSDT"))


@dataclass
class Collected:
    """Stands in for the producer: what the socket loop handed over."""

    trades: list[TradeRow] = field(default_factory=list)
    quotes: list[QuoteRow] = field(default_factory=list)
    lost: int = 0

    def accept(self, symbol: str, trades: list[TradeRow], quotes: list[QuoteRow], received_us: int) -> None:
        if symbol != "BTCUSDT":
            raise KeyError(symbol)
        self.trades += trades
        self.quotes += quotes

    def connection_lost(self) -> None:
        self.lost += 1


Serve = Callable[[int, ServerConnection], object]


@asynccontextmanager
async def exchange(talk: Serve, refuse: Callable[[int], int | None] = lambda n: None) -> AsyncIterator[str]:
    """A server whose n-th connection is served by `talk(n, …)`, or refused with the status `refuse(n)`."""
    handshakes = 0

    def check(connection: ServerConnection, request: Request) -> Response | None:
        nonlocal handshakes
        handshakes += 1
        assert request.headers["X-MBX-APIKEY"] == KEY
        assert request.path == "/stream?streams=btcusdt@trade/btcusdt@bestBidAsk"
        status = refuse(handshakes)
        return connection.respond(http.HTTPStatus(status), "refused") if status else None

    async def handle(connection: ServerConnection) -> None:
        await talk(handshakes, connection)

    async with serve(handle, "127.0.0.1", 0, process_request=check) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def make(url: str) -> tuple[Stream, Collected]:
    env = {"STREAM_NAME": "t", "SYMBOLS": "BTCUSDT", "BINANCE_API_KEY": KEY, "STREAM_URL": url}
    collected = Collected()
    return Stream(IngestSettings.from_environment(env), collected, Logger(service="test")), collected


async def run_until(stream: Stream, is_done: Callable[[], bool]) -> None:
    running = asyncio.create_task(stream.run())
    try:
        async with asyncio.timeout(20):
            while not is_done() and not running.done():
                await asyncio.sleep(0.01)
        if running.done():
            running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_ticks_arrive_and_bad_frames_are_counted_and_skipped() -> None:
    async def talk(n: int, connection: ServerConnection) -> None:
        await connection.send('{"result":null,"id":1}')
        for frame in (
            trade_frame(1),
            b"garbage",
            trade_frame(2)[:-3],
            trade_frame(3, "DOGEUSDT"),
            sbe.encode(sbe.BestBidAskEvent(2, 9, -8, -8, 101, 5, 100, 6, "BTCUSDT")),
            QUOTE_FRAME,
        ):
            await connection.send(frame)
        await connection.send("not json")
        await connection.send(trade_frame(4))
        await connection.wait_closed()

    async def scenario() -> None:
        async with exchange(talk) as url:
            stream, collected = make(url)
            await run_until(stream, lambda: len(collected.trades) == 2)
            assert [trade[2] for trade in collected.trades] == [1, 4]
            assert len(collected.quotes) == 1
            assert sum(stream.health.bad_frames.values()) == 5
            assert stream.health.bad_frames["impossible tick"] == 1
            assert stream.health.bad_frames["symbol not subscribed"] == 1

    asyncio.run(scenario())


def test_it_connects_again_after_a_drop_a_shutdown_and_an_overloaded_server() -> None:
    async def talk(n: int, connection: ServerConnection) -> None:
        await connection.send(trade_frame(n))
        if n == 1:
            connection.transport.abort()
        elif n == 3:
            await connection.send('{"e":"serverShutdown","E":1754000000000}')
            await connection.wait_closed()
        else:
            await connection.wait_closed()

    async def scenario() -> None:
        async with exchange(talk, lambda n: 503 if n == 2 else None) as url:
            stream, collected = make(url)
            await run_until(stream, lambda: len(collected.trades) == 3)
            assert [trade[2] for trade in collected.trades] == [1, 3, 4]
            assert collected.lost == 3  # each loss withdraws the watermark
            assert stream.health.is_connected

    asyncio.run(scenario())


def test_a_stream_that_sends_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "SILENCE_S", 0.2)

    async def talk(n: int, connection: ServerConnection) -> None:
        if n > 1:
            await connection.send(trade_frame(n))
        await connection.wait_closed()  # pings are answered all along

    async def scenario() -> None:
        async with exchange(talk) as url:
            stream, collected = make(url)
            await run_until(stream, lambda: len(collected.trades) >= 1)
            assert stream.health.connections >= 2

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_refusal_for_good_ends_the_task(status: int) -> None:
    attempts = 0

    def refuse(n: int) -> int:
        nonlocal attempts
        attempts = n
        return status

    async def talk(n: int, connection: ServerConnection) -> None:
        raise AssertionError("refused connections are not served")

    async def scenario() -> None:
        async with exchange(talk, refuse) as url:
            stream, _ = make(url)
            with pytest.raises(FatalSessionError, match=f"HTTP {status}"):
                await run_until(stream, lambda: False)

    asyncio.run(scenario())
    assert attempts == 1

"""The second source, on the local exchange and on servers that refuse: it comes and goes, spot stays."""

from __future__ import annotations

import asyncio
import http
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aws_lambda_powertools import Logger
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from ingest_ecs import reference_stream
from ingest_ecs.producer import Producer
from ingest_ecs.reference_stream import ReferenceStream
from ingest_ecs.settings import IngestSettings
from ingest_ecs.stream import Stream
from local.system.servers import stream_variables
from tests.fixtures.asynchronous import run_async, until
from tests.fixtures.local_exchange import exchange_in_process, simulated_markets
from tests.fixtures.put_records import Kinesis
from tests.fixtures.settings import configured
from tickcast.adapters.rest.binance import BinanceRest
from tickcast.market import session as sessions
from tickcast.market.session import Session

SYMBOL = "BTCUSDT"


class Ingest:
    """Both streams and the producer as the task runs them."""

    def __init__(self, exchange_url: str, **changed: str) -> None:
        variables = stream_variables(exchange_url) | {
            "SYMBOLS": SYMBOL,
            "BUSY_SYMBOL": SYMBOL,
            "SOURCE": "sim",
        }
        self.settings = settings = configured(
            IngestSettings, **variables | {"BINANCE_API_KEY": "local", **changed}
        )
        logger = Logger(service="test", level="CRITICAL")
        session = Session([(SYMBOL, "trades"), (SYMBOL, "quotes")], random.Random(1), settings.rollover_s)
        self.kinesis = Kinesis()
        self.producer = Producer(
            self.kinesis,
            "ticks",
            settings.symbols,
            settings.source,
            0.02,
            logger,
            lambda connection, symbol, kind: session.data(connection, symbol, kind, time.monotonic()),
            busy_symbol=SYMBOL,
        )
        rest = BinanceRest(exchange_url, timeout_s=2.0, tries=1)
        self.stream = Stream(settings, session, self.producer, logger, rest)
        self.reference = ReferenceStream(
            settings.reference_address(),
            settings.rollover_s,
            self.producer.reference,
            logger,
            random.Random(1),
        )

    def report(self) -> dict[str, Any]:
        return self.reference.report(time.time_ns() // 1000)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(each.run()) for each in (self.stream, self.reference)]
        putting = asyncio.create_task(self.producer.run())
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.producer.drain()
            await putting


async def fault(port: int, method: str, **fault: object) -> None:
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, f"http://127.0.0.1:{port}/local/faults", json=fault or None) as answer,
    ):
        assert answer.status == 200, await answer.text()


@pytest.mark.parametrize("how", ["refused", "silent"])
@run_async
async def test_the_perpetual_goes_away_and_comes_back_while_spot_goes_on(how: str) -> None:
    async with exchange_in_process((SYMBOL,)) as (exchange, port), simulated_markets(exchange):
        ingest = Ingest(f"http://127.0.0.1:{port}")
        async with ingest.running():
            await until(
                lambda: len(ingest.kinesis.reference_ids()) > 20 and len(ingest.kinesis.trade_ids()) > 0
            )
            assert ingest.report()["live"]
            assert ingest.report()["age_s"][SYMBOL] < 10

            await fault(port, "POST", kind="perpetual_away", how=how)
            await until(lambda: not ingest.report()["live"])
            assert ingest.report()["why"]
            held, trades = len(ingest.kinesis.reference_ids()), len(ingest.kinesis.trade_ids())
            await until(lambda: len(ingest.kinesis.trade_ids()) > trades + 20)
            assert len(ingest.kinesis.reference_ids()) <= held + 5  # those under way

            await fault(port, "DELETE")
            await until(lambda: len(ingest.kinesis.reference_ids()) > held + 20)
            assert ingest.report()["live"]
            assert ingest.stream.connections == 1
        ids = ingest.kinesis.reference_ids()
        assert ids == sorted(set(ids))
        references = [row for batch in ingest.kinesis.batches for row in batch.reference]
        assert all(row["bid_price"] < row["ask_price"] for row in references)
        assert ingest.kinesis.causes() == ["ingest was not running"]


@run_async
async def test_a_connection_is_replaced_before_the_exchange_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "OVERLAP_S", 0.2)
    async with exchange_in_process((SYMBOL,)) as (exchange, port), simulated_markets(exchange):
        ingest = Ingest(f"http://127.0.0.1:{port}", ROLLOVER_S="1")
        async with ingest.running():
            await until(lambda: ingest.report()["connections"] >= 3)
        ids = ingest.kinesis.reference_ids()
        assert ids == sorted(set(ids))


@asynccontextmanager
async def refusing(*statuses: int | None) -> AsyncIterator[tuple[str, list[str]]]:
    """A server whose n-th handshake gets the n-th status, all further ones the last; None: it is accepted and
    falls silent. Its address, and the paths asked for."""
    paths: list[str] = []

    def check(connection: ServerConnection, request: Request) -> Response | None:
        paths.append(request.path)
        assert "X-MBX-APIKEY" not in request.headers
        status = statuses[min(len(paths), len(statuses)) - 1]
        return connection.respond(http.HTTPStatus(status), "refused") if status else None

    async def handle(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0, process_request=check) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/public", paths


@run_async
async def test_a_permanent_refusal_ends_nothing_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_stream, "AGAIN_AFTER_S", 0.2)
    async with (
        exchange_in_process((SYMBOL,)) as (exchange, port),
        simulated_markets(exchange),
        refusing(451, 404, None) as (url, paths),
    ):
        ingest = Ingest(f"http://127.0.0.1:{port}", REFERENCE_URL=url)
        async with ingest.running():
            await until(lambda: "HTTP 451" in ingest.report()["why"])
            await until(lambda: ingest.report()["connections"] == 1)
            trades = len(ingest.kinesis.trade_ids())
            await until(lambda: len(ingest.kinesis.trade_ids()) > trades)
        assert set(paths) == {"/public/stream?streams=btcusdt@bookTicker"}
        assert ingest.kinesis.reference_ids() == []


@run_async
async def test_a_failure_of_its_own_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_stream, "AGAIN_AFTER_S", 0.2)
    async with exchange_in_process((SYMBOL,)) as (exchange, port), simulated_markets(exchange):
        ingest = Ingest(f"http://127.0.0.1:{port}")
        calls: list[float] = []
        actions = ingest.reference._session.actions

        def failing(now_s: float) -> Any:
            calls.append(now_s)
            if len(calls) < 3:
                raise RuntimeError("a fault of the program")
            return actions(now_s)

        monkeypatch.setattr(ingest.reference._session, "actions", failing)
        async with ingest.running():
            await until(lambda: "a fault of the program" in ingest.report()["why"])
            await until(lambda: bool(ingest.kinesis.reference_ids() and len(ingest.kinesis.trade_ids())))


@pytest.mark.parametrize("changed", [{"REFERENCE_URL": ""}, {"SYMBOLS": "ETHBTC"}], ids=["off", "no dollars"])
@run_async
async def test_where_none_is_wanted_there_is_none(changed: dict[str, str]) -> None:
    ingest = Ingest("http://127.0.0.1:1", **changed)
    running = asyncio.create_task(ingest.reference.run())
    await asyncio.sleep(0.05)
    assert not running.done()
    running.cancel()
    expected = {"wanted": False, "live": False, "why": "", "connections": 0, "age_s": {}}
    assert ingest.report() == expected


# A successor of a healthy connection is opened at once: in the turn that ends the stream.
@pytest.mark.parametrize("healthy_after_s", [sessions.HEALTHY_AFTER_S, 0.0])
@run_async
async def test_it_comes_and_goes_with_the_symbols_that_have_a_perpetual(
    healthy_after_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "HEALTHY_AFTER_S", healthy_after_s)
    async with exchange_in_process((SYMBOL,)) as (exchange, port), simulated_markets(exchange):
        ingest = Ingest(f"http://127.0.0.1:{port}")
        address = ingest.settings.reference_address()

        def follow(*symbols: str) -> None:
            ingest.producer.follow(symbols)
            ingest.reference.follow(address if SYMBOL in symbols else "")

        async with ingest.running():
            await until(lambda: bool(ingest.kinesis.reference_ids()))
            follow("ETHBTC")
            await until(lambda: not exchange._to_perpetuals)
            assert ingest.report()["age_s"] == {}
            before = len(ingest.kinesis.reference_ids())
            follow("ETHBTC", SYMBOL)
            await until(lambda: len(ingest.kinesis.reference_ids()) > before)
        assert ingest.report()["connections"] == 2

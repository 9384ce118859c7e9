"""An exchange whose clock is off by seconds: from its sockets to the offset that ages are read with."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aws_lambda_powertools import Logger

from ingest_ecs.exchange_time import ExchangeTime
from ingest_ecs.producer import Producer
from ingest_ecs.settings import IngestSettings
from ingest_ecs.stream import Stream
from local.exchange.events import Sending
from local.exchange.server import Exchange
from local.exchange.simulator import simulate
from tests.fixtures.asynchronous import run_async, until
from tests.fixtures.local_exchange import exchange_in_process
from tests.fixtures.settings import configured
from tickcast.adapters.rest.binance import BinanceRest
from tickcast.market import wire
from tickcast.market.clock_offset import SPREAD_US, ClockOffset
from tickcast.market.plausibility import screen
from tickcast.market.session import Session

SYMBOL = "BTCUSDT"
SPREAD_MS = SPREAD_US / 1000


def host_us() -> int:
    return time.time_ns() // 1000


class Stored:
    """Kinesis, a consumer and the hot store, all by this host's clock."""

    def __init__(self) -> None:
        self.estimate = ClockOffset()
        self.claims = itertools.count(1)
        self.claimed = 0
        self.batch: wire.TickBatch | None = None  # the newest that claims
        self.read_us = 0  # when it was read

    def put_records(self, *, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        for record in Records:
            arrived_us = host_us()
            batch = screen(wire.decode(record["Data"]), arrived_us).batch
            self.estimate.record(
                batch.symbol, batch.connection, batch.sent_us, batch.watermark_us, arrived_us
            )
            self.estimate.written(arrived_us, host_us(), host_us(), host_us())
            if batch.watermark_us >= 0 and batch.sent_us >= 0:
                self.batch, self.read_us, self.claimed = batch, host_us(), next(self.claims)
        return {"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1"} for _ in Records]}


@asynccontextmanager
async def ingesting(exchange: Exchange, port: int, stored: Stored) -> AsyncIterator[ExchangeTime]:
    """The tasks of ingest on the stream and the REST of `exchange`, which publishes a simulated market."""
    url = f"http://127.0.0.1:{port}"
    settings = configured(
        IngestSettings, SYMBOLS=SYMBOL, BINANCE_API_KEY="local", STREAM_URL=f"ws://127.0.0.1:{port}"
    )
    logger = Logger(service="test", level="CRITICAL")
    session = Session([(SYMBOL, "trades"), (SYMBOL, "quotes")], random.Random(1), settings.rollover_s)
    exchange_time = ExchangeTime(BinanceRest(url, timeout_s=2.0, tries=1), logger)
    producer = Producer(
        stored,
        "ticks",
        settings.symbols,
        settings.source,
        0.02,
        logger,
        lambda connection, symbol, kind: session.data(connection, symbol, kind, time.monotonic()),
        busy_symbol=SYMBOL,
        exchange_now_us=exchange_time.now_us,
        check_claim=exchange_time.check,
    )
    stream = Stream(settings, session, producer, logger, BinanceRest(url, timeout_s=2.0, tries=1))
    ticks = simulate(SYMBOL, 7, exchange.now_us())
    market = exchange.run(
        exchange.markets[SYMBOL], (Sending(tick.time_us, tick.time_us, tick) for tick in ticks)
    )
    tasks = [asyncio.create_task(each) for each in (market, exchange_time.run(), stream.run())]
    putting = asyncio.create_task(producer.run())
    try:
        yield exchange_time
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        producer.drain()
        await putting


@pytest.mark.parametrize("offset_ms", [0, 3_000, -3_000])
@run_async
async def test_it_is_noticed_reported_and_compensated(offset_ms: int) -> None:
    stored = Stored()
    async with (
        exchange_in_process((SYMBOL,), clock_offset_ms=offset_ms) as (exchange, port),
        ingesting(exchange, port, stored) as exchange_time,
    ):
        await until(lambda: stored.claimed >= 10)
        exchange_us = exchange_time.now_us()
        assert exchange_us is not None
    assert stored.batch is not None
    store_ms = stored.estimate.store_ms
    assert store_ms is not None
    assert store_ms == pytest.approx(-offset_ms, abs=SPREAD_MS)
    assert stored.estimate.own_ms == pytest.approx(-offset_ms, abs=SPREAD_MS)
    assert stored.batch.host_offset_us / 1000 == pytest.approx(-offset_ms, abs=SPREAD_MS)
    age_ms = (stored.read_us - stored.batch.watermark_us) / 1000 - store_ms
    assert -SPREAD_MS <= age_ms < 2_000  # without compensation it is off by 3 s

"""The symbols change while the task runs: twenty at once, on the local exchange, with every trade accounted
for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aws_lambda_powertools import Logger
from botocore.exceptions import ReadTimeoutError
from msgspec import structs

from ingest_ecs import __main__ as task
from ingest_ecs.health import HealthServer
from ingest_ecs.settings import IngestSettings
from ingest_ecs.symbol_watch import SymbolWatch
from local.exchange import simulator
from local.system import http_json
from local.system.servers import stream_variables
from tests.fixtures.asynchronous import run_async, until
from tests.fixtures.aws import BUCKET
from tests.fixtures.local_exchange import exchange_in_process, simulated_markets
from tests.fixtures.put_records import Kinesis
from tests.fixtures.settings import configured
from tickcast.adapters.registry.served_symbols import SERVED, adding, change_served, removing
from tickcast.adapters.telemetry import Metrics
from tickcast.market import session as sessions

CONFIGURED = ("BTCUSDT", "ETHUSDT", *(f"COIN{number}USDT" for number in range(18)))
REMOVED, ADDED = "COIN3USDT", ("SOLUSDT", "ADAUSDT")


def ids_of(kinesis: Kinesis, symbol: str) -> list[int]:
    """The ids of the trades that were put, each once."""
    return sorted({*kinesis.trade_ids(symbol)})


def settings(url: str = "http://127.0.0.1:1", symbols: Sequence[str] = CONFIGURED) -> IngestSettings:
    variables = stream_variables(url) | {
        "SYMBOLS": ",".join(symbols),
        "BUSY_SYMBOL": "BTCUSDT",
        "SOURCE": "sim",
        "REST_URL": url,
        "HEALTH_PORT": "0",
        "LINGER_MS": "20",
    }
    return configured(IngestSettings, **variables | {"BINANCE_API_KEY": "local"})


def change(s3: Any, changed: Callable[[tuple[str, ...]], Any]) -> None:
    change_served(s3, BUCKET, CONFIGURED, changed, since="2026-01-02T03:04:05+00:00", by="a test")


@asynccontextmanager
async def running(
    settings: IngestSettings, s3: Any, kinesis: Kinesis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[], dict[str, Any]]]:
    """The whole task, with the address of whose report it is yielded as a function."""
    ports: list[int] = []

    class Health(HealthServer):
        def __enter__(self) -> Any:
            entered = super().__enter__()
            ports.append(self.port)
            return entered

    monkeypatch.setattr(task, "HealthServer", Health)
    monkeypatch.setattr(task, "client", {"kinesis": kinesis, "s3": s3}.__getitem__)
    # On a busy machine a test may see a line of metrics.
    monkeypatch.setattr(task, "metrics", Metrics(service="ingest_ecs", namespace="tickcast/test"))
    watch = SymbolWatch(settings, s3, Logger(service="test", level="CRITICAL"))
    await watch.has_changed()
    stop = asyncio.Event()
    stopping = asyncio.create_task(stop.wait())
    streaming = asyncio.create_task(task.stream_ticks(watch, stopping))
    await until(lambda: bool(ports) or streaming.done())

    def report() -> dict[str, Any]:
        body: dict[str, Any] = http_json.get(f"http://127.0.0.1:{ports[0]}/health", timeout_s=5).body
        return body

    try:
        yield report
    finally:
        stop.set()
        await streaming


@run_async
async def test_twenty_symbols_two_added_and_one_removed_lose_no_trade(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "OVERLAP_S", 0.5)
    # A connection is replaced once its successor brought trades of all symbols.
    monkeypatch.setattr(simulator, "OTHER", replace(simulator.OTHER, orders=5.0))
    stayed = [symbol for symbol in CONFIGURED if symbol != REMOVED]
    kinesis = Kinesis()
    async with exchange_in_process((*CONFIGURED, *ADDED)) as (exchange, port), simulated_markets(exchange):
        url = f"http://127.0.0.1:{port}"
        async with running(settings(url), s3, kinesis, monkeypatch) as report:
            await until(lambda: all(ids_of(kinesis, symbol) for symbol in CONFIGURED))
            change(s3, lambda served: [*removing([REMOVED])(served), *ADDED])
            await until(lambda: all(ids_of(kinesis, symbol) for symbol in ADDED))
            await until(lambda: [len(exchange._connections), len(exchange._to_perpetuals)] == [1, 1])
            removed_ids, of_removed = ids_of(kinesis, REMOVED), len(kinesis.of(REMOVED))
            before = {symbol: len(ids_of(kinesis, symbol)) for symbol in stayed}
            await until(lambda: all(len(ids_of(kinesis, symbol)) > count for symbol, count in before.items()))
            found = await asyncio.to_thread(report)
    for symbol in (*stayed, *ADDED):
        ids = ids_of(kinesis, symbol)
        assert ids == list(range(exchange.markets[symbol].sent.first_id or 0, ids[-1] + 1)), symbol
    assert removed_ids == list(range(removed_ids[0], removed_ids[-1] + 1))
    assert len(kinesis.of(REMOVED)) == of_removed
    for symbol in CONFIGURED:
        assert kinesis.causes(symbol) == ["ingest was not running"]
    for symbol in ADDED:
        assert kinesis.causes(symbol) == ["the symbol was not served"]
        assert any(len(batch.reference) for batch in kinesis.of(symbol))
    assert (found["following"], found["bad_frames"]) == ({"version": 1, "problem": ""}, {})
    assert [found["symbols"].keys(), found["reference"]["age_s"].keys()] == [{*stayed, *ADDED}] * 2
    assert found["counts"]["connections"] == 2


@run_async
async def test_what_cannot_be_followed_is_reported_once_and_changes_nothing(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = SymbolWatch(settings(), s3, Logger(service="test", level="CRITICAL"))
    logged: list[str] = []
    monkeypatch.setattr(watch._logger, "error", lambda text, extra: logged.append(extra["reason"]))
    assert not await watch.has_changed()
    too_many = [f"COIN{number}USDT" for number in range(600)]
    change(s3, adding(too_many))
    for _ in range(2):
        assert not await watch.has_changed()
    assert watch.settings.symbols == CONFIGURED
    assert "version 1 of symbols/current.json cannot be carried: SYMBOLS: 602 symbols are" in logged[0]
    s3.put_object(Bucket=BUCKET, Key=SERVED, Body=b"{}")
    assert not await watch.has_changed()
    assert watch.report()["problem"].startswith("symbols/current.json is damaged (version is None")

    def refused(**request: Any) -> Any:
        raise ReadTimeoutError(endpoint_url="https://s3")

    with monkeypatch.context() as patch:
        patch.setattr(s3, "get_object", refused)
        assert not await watch.has_changed()
    assert [len(logged), "cannot be read: ReadTimeoutError" in logged[-1]] == [3, True]
    s3.delete_object(Bucket=BUCKET, Key=SERVED)
    change(s3, adding(ADDED))
    assert await watch.has_changed()
    assert watch.settings.symbols == (*CONFIGURED, *ADDED)
    assert watch.report() == {"version": 1, "problem": ""}


@run_async
async def test_without_a_bucket_the_configured_symbols_are_carried() -> None:
    chosen = structs.replace(settings(), bucket="")
    watch = SymbolWatch(chosen, None, Logger(service="test"))
    async with asyncio.timeout(10):
        await watch.run(lambda changed: None)
    assert watch.settings is chosen


@run_async
async def test_a_change_that_fails_on_the_way_is_tried_again(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = SymbolWatch(
        structs.replace(settings(), symbols_check_s=1), s3, Logger(service="test", level="CRITICAL")
    )
    change(s3, adding(ADDED))
    seen: list[tuple[IngestSettings, dict[str, Any]]] = []

    def follow(changed: IngestSettings) -> None:
        seen.append((changed, watch.report()))
        if len(seen) == 1:
            raise ValueError("not now")

    following = asyncio.create_task(watch.run(follow))
    try:
        await until(lambda: len(seen) == 1)
        await asyncio.sleep(0.1)
        assert watch.settings.symbols == CONFIGURED
        assert "they could not be followed: ValueError: not now" in watch.report()["problem"]
        await until(lambda: len(seen) == 2)
        assert watch.settings.symbols == (*CONFIGURED, *ADDED)
        assert watch.report() == {"version": 1, "problem": ""}
    finally:
        following.cancel()

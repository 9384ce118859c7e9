"""What the socket loop logs of a connection that failed: never the key."""

from __future__ import annotations

import asyncio
import io
import random
from typing import Any

import pytest
import websockets
from aws_lambda_powertools import Logger
from websockets.exceptions import InvalidHeader

from ingest_ecs.producer import Producer
from ingest_ecs.settings import IngestSettings
from ingest_ecs.stream import Stream
from tests.fixtures.settings import configured
from tickcast.market.session import Session

KEY = "kEyThatNobodyMaySee0123456789"


@pytest.mark.parametrize(
    "error",
    [
        InvalidHeader("X-MBX-APIKEY", KEY),
        OSError(f"cannot send {(KEY + chr(10)).encode()!r}"),
        TimeoutError(f"no answer to x-mbx-apikey: {KEY}"),
    ],
)
def test_library_errors_are_logged_without_the_key(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: Any, **options: Any) -> Any:
        assert options["additional_headers"] == {"X-MBX-APIKEY": KEY}
        raise error

    monkeypatch.setattr(websockets, "connect", refuse)
    settings = configured(IngestSettings, SYMBOLS="BTCUSDT", BINANCE_API_KEY=f"{KEY}\n")
    log = io.StringIO()
    logger = Logger(service=f"ends with {type(error).__name__}", stream=log)
    session = Session([("BTCUSDT", "trades"), ("BTCUSDT", "quotes")], random.Random(1))
    stream = Stream(settings, session, Producer(None, "t", settings.symbols, "sbe", 0.1, logger), logger)

    async def run() -> None:
        running = asyncio.create_task(stream.run())
        while type(error).__name__ not in log.getvalue():
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert KEY not in log.getvalue()
    assert KEY not in str(session.reason)

"""`python -m ingest_ecs`: run the task until SIGTERM; then put what was accepted and leave.

Exit status: 0 after a signal, 1 when the exchange refused for good, 2 when the settings cannot be used.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
import uuid
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config

from ingest_ecs.health import HealthServer
from ingest_ecs.producer import Producer
from ingest_ecs.settings import IngestSettings
from ingest_ecs.stream import Stream
from tickcast.adapters.settings import SettingsError
from tickcast.session import FatalSessionError

DRAIN_S = 20  # within ECS' stop timeout of 30 s
READY_TICK_AGE_S = 10
STUCK_AFTER_S = 30  # a put takes 7 s at the most before it fails

logger = Logger(service="ingest_ecs")


def health_report(stream: Stream, producer: Producer, symbols: tuple[str, ...]) -> dict[str, Any]:
    now_us = time.time_ns() // 1000
    last_tick_us = dict(stream.health.last_tick_us)
    ages = {s: (now_us - last_tick_us[s]) / 1e6 if s in last_tick_us else None for s in symbols}
    why = []
    if not stream.health.is_connected:
        why.append(stream.health.why)
    for symbol, age_s in ages.items():
        if age_s is None or age_s > READY_TICK_AGE_S:
            why.append(f"{symbol}: no tick yet" if age_s is None else f"{symbol}: no tick for {age_s:.0f} s")
    if producer.last_error:
        why.append(f"Kinesis: {producer.last_error}")
    return {
        "live": time.monotonic() - producer.turned_s < STUCK_AFTER_S,
        "ready": not why,
        "why": "; ".join(why),
        "symbols": {symbol: {"last_tick_age_s": age_s} for symbol, age_s in ages.items()},
        "connections": stream.health.connections,
        "frames": stream.health.frames,
        "bad_frames": dict(stream.health.bad_frames),
        "waiting_records": producer.waiting_records(),
        **vars(producer.counts),
    }


async def ingest(settings: IngestSettings) -> None:
    """Hold the stream and put its ticks until a signal. Raises `FatalSessionError`."""
    kinesis = boto3.client(
        "kinesis",
        config=Config(
            connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 1}
        ),
    )
    connection = uuid.uuid4().hex[:8]
    producer = Producer(
        kinesis,
        settings.stream_name,
        settings.symbols,
        settings.source,
        connection,
        settings.linger_s,
        logger,
    )
    stream = Stream(settings, producer, logger)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with HealthServer(
        settings.health_port, lambda: health_report(stream, producer, settings.symbols)
    ) as health:
        logger.info("health_listening", extra={"event": "health_listening", "port": health.port})
        putting, streaming = asyncio.create_task(producer.run()), asyncio.create_task(stream.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({putting, streaming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        streaming.cancel()
        producer.drain()
        await asyncio.wait({putting}, timeout=DRAIN_S)
        logger.info("stopped", extra={"waiting_records": producer.waiting_records(), **vars(producer.counts)})
        results = await asyncio.gather(streaming, return_exceptions=True)
        if putting.done():
            putting.result()
        else:
            putting.cancel()
        if isinstance(results[0], Exception):
            raise results[0]


def main() -> int:
    try:
        asyncio.run(ingest(IngestSettings.from_environment()))
    except SettingsError as error:
        logger.error("cannot start", extra={"reason": str(error)})
        return 2
    except FatalSessionError as error:
        logger.error("the exchange refused for good", extra={"reason": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

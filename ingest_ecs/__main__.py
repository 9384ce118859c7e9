"""`python -m ingest_ecs`: run the task until SIGTERM; then put what was accepted and exit.

Exit status: 0 after a signal, 1 when the exchange refused permanently or accepted records could not be put in
time, 2 when the settings are invalid.

Stopping takes at most `STOP_S` whatever hangs, so that it ends before `docker stop` (10 s) or ECS (30 s) kill
the task: calls under way are abandoned, and what Kinesis has not taken is logged and kept in S3.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ingest_ecs import unsent
from ingest_ecs.exchange_time import ExchangeTime
from ingest_ecs.health import HealthServer
from ingest_ecs.minute_metrics import MinuteMetrics
from ingest_ecs.producer import Producer
from ingest_ecs.quarantine import Quarantine
from ingest_ecs.reference_stream import ReferenceStream
from ingest_ecs.settings import IngestSettings
from ingest_ecs.stream import REST_TIMEOUT_S, Stream, symbol_streams
from ingest_ecs.symbol_watch import SymbolWatch
from ingest_ecs.threads import in_thread
from tickcast.adapters.kinesis import schema_registry
from tickcast.adapters.redaction import describe
from tickcast.adapters.rest.binance import BinanceRest
from tickcast.adapters.telemetry import Metrics, structured_logger
from tickcast.adapters.variables import SettingsError, read
from tickcast.market.reconnect import FatalSessionError
from tickcast.market.session import Session

STOP_S = 8.0  # from the signal to the end, of which:
SOCKETS_S = 2.5  # for closing handshakes
UNSENT_S = 2.5  # the last of it: to keep in S3 what Kinesis did not take, and refused samples
READY_TICK_AGE_S = 10
STUCK_AFTER_S = 30  # a put fails within 7 s

logger = structured_logger("ingest_ecs")
metrics = Metrics(service="ingest_ecs")


def health_report(
    session: Session,
    stream: Stream,
    reference: ReferenceStream,
    producer: Producer,
    exchange_time: ExchangeTime,
    symbol_watch: SymbolWatch,
) -> dict[str, Any]:
    now_us, now_s = time.time_ns() // 1000, time.monotonic()
    exchange_us, symbols = exchange_time.now_us(), symbol_watch.settings.symbols
    last_tick_us = dict(producer.last_tick_us)
    ages = {s: (now_us - last_tick_us[s]) / 1e6 if s in last_tick_us else None for s in symbols}
    quiet_s = {s: session.quiet_s(s) for s in symbols}
    quiet = {s: at_s is not None and now_s - at_s < READY_TICK_AGE_S for s, at_s in quiet_s.items()}
    why = [] if session.is_live else [session.reason]
    for symbol, age_s in ages.items():
        if not quiet[symbol] and (age_s is None or age_s > READY_TICK_AGE_S):
            why.append(f"{symbol}: no tick yet" if age_s is None else f"{symbol}: no tick for {age_s:.0f} s")
    if producer.writer.last_error:
        why.append(f"Kinesis: {producer.writer.last_error}")
    return {
        # A task that never received data must not replace the previous one: ECS would stop that one.
        "live": session.has_delivered and now_s - producer.writer.turned_s < STUCK_AFTER_S,
        "ready": not why,
        "why": "; ".join(why),
        "source": symbol_watch.settings.feed,
        "symbols": {s: {"last_tick_age_s": age_s, "quiet": quiet[s]} for s, age_s in ages.items()},
        "following": symbol_watch.report(),
        "reference": reference.report(now_us),  # without it the task is as live and as ready
        "host_offset_ms": None if exchange_us is None else (now_us - exchange_us) / 1000,
        "waiting_records": len(producer.outbox),
        "bad_frames": dict(producer.bad_frames),
        "counts": {"connections": stream.connections, **vars(producer.counts)},
    }


def publish_schema(settings: IngestSettings) -> None:
    """Publish the schema before the first batch, for readers of other versions."""
    if not settings.bucket:
        return
    try:
        schema_registry.publish(client("s3"), settings.bucket)
    except (BotoCoreError, ClientError) as error:
        # Consumers of the same version need no look-up, so the task can run without.
        logger.error("the wire schema could not be published", extra={"reason": describe(error)})


def client(service: str) -> Any:
    """A client that fails fast: its callers retry."""
    retries = {"mode": "standard", "total_max_attempts": 1}
    return boto3.client(service, config=Config(connect_timeout=2, read_timeout=5, retries=retries))


async def ingest(settings: IngestSettings) -> None:
    """Hold the stream open and put its ticks until a signal. Raises `FatalSessionError` or `TimeoutError`."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    logger.info("starting", extra={"symbols": settings.symbols, "stream": settings.stream_url})
    stopping = asyncio.create_task(stop.wait())
    symbol_watch = SymbolWatch(settings, client("s3") if settings.bucket else None, logger)
    preparing: asyncio.Future[Any] = asyncio.gather(
        in_thread(publish_schema, settings), symbol_watch.has_changed()
    )
    either: set[asyncio.Future[Any]] = {preparing, stopping}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        preparing.cancel()
        return
    preparing.result()
    await stream_ticks(symbol_watch, stopping)


async def stream_ticks(symbol_watch: SymbolWatch, stopping: asyncio.Task[Any]) -> None:
    """The same until `stopping` is done, for the symbols that `symbol_watch` found and follows."""
    settings = symbol_watch.settings
    session = Session(
        symbol_streams(settings.symbols),
        random.Random(),
        settings.rollover_s,
        has_busy_stream=settings.busy_symbol not in settings.symbols,
    )
    quarantine = Quarantine(client("s3") if settings.bucket else None, settings.bucket, logger)
    exchange_time = ExchangeTime(BinanceRest(settings.rest_url, timeout_s=REST_TIMEOUT_S, tries=1), logger)
    producer = Producer(
        client("kinesis"),
        settings.stream_name,
        settings.symbols,
        settings.source,
        settings.linger_s,
        logger,
        lambda connection, symbol, kind: session.data(connection, symbol, kind, time.monotonic()),
        busy_symbol=settings.busy_symbol,
        quarantine=quarantine.keep,
        exchange_now_us=exchange_time.now_us,
        check_claim=exchange_time.check,
    )
    stream = Stream(settings, session, producer, logger)
    reference = ReferenceStream(
        settings.reference_address(), settings.rollover_s, producer.reference, logger, random.Random()
    )

    def report() -> dict[str, Any]:
        return health_report(session, stream, reference, producer, exchange_time, symbol_watch)

    def follow(changed: IngestSettings) -> None:
        producer.follow(changed.symbols)
        stream.follow(changed)
        reference.follow(changed.reference_address())

    minute_metrics = MinuteMetrics(metrics, producer, report)
    with HealthServer(settings.health_port, report, settings.health_host) as health:
        logger.info("health_listening", extra={"event": "health_listening", "port": health.port})
        putting, streaming = asyncio.create_task(producer.run()), asyncio.create_task(stream.run())
        runs = [each.run() for each in (minute_metrics, quarantine, exchange_time, reference)]
        background = [asyncio.create_task(each) for each in (*runs, symbol_watch.run(follow))]
        await asyncio.wait({putting, streaming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, *background):
            task.cancel()
        await finish(streaming, putting, producer, quarantine, minute_metrics)


async def finish(
    streaming: asyncio.Task[None],
    putting: asyncio.Task[None],
    producer: Producer,
    quarantine: Quarantine,
    minute_metrics: MinuteMetrics,
) -> None:
    """Close the sockets and put what was accepted, in `STOP_S` at most. Raises what `streaming` or `putting`
    ended with, and `TimeoutError` when records are left.

    What Kinesis has not taken counts as dropped, and the metrics say so before S3 is tried, which may hang.
    """
    end_s = time.monotonic() + STOP_S
    streaming.cancel()
    await asyncio.wait({streaming}, timeout=SOCKETS_S)
    producer.drain()
    await asyncio.wait({putting}, timeout=end_s - UNSENT_S - time.monotonic())
    waiting = producer.outbox.waiting()
    putting.cancel()
    producer.count_dropped(*waiting.values())
    minute_metrics.write_losses()
    problem = ""
    if waiting:
        problem = f"{len(producer.outbox)} records could not be put in time"
        if producer.writer.last_error:
            problem += f": {producer.writer.last_error}"
        await unsent.keep(waiting, quarantine, logger, problem, end_s - UNSENT_S / 5)
    await quarantine.drain(max(0.0, end_s - time.monotonic()))
    lost = {"samples_left_out": quarantine.left_out, "samples_failed": quarantine.failed}
    logger.info("stopped", extra={"waiting_records": len(producer.outbox), **lost, **vars(producer.counts)})
    for task in (putting, streaming):
        if task.done() and not task.cancelled() and (error := task.exception()):
            raise error
    if problem:
        raise TimeoutError(problem)


def main() -> int:
    try:
        settings = read(IngestSettings).decided()
        logger.info("source", extra={"source": settings.feed})
        asyncio.run(ingest(settings))
    except SettingsError as error:
        logger.error("cannot start", extra={"reason": str(error)})
        return 2
    except (FatalSessionError, TimeoutError) as error:
        logger.error("ended with an error", extra={"reason": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

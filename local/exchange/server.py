"""The exchange as a process: markets paced by the clock, WebSocket and REST on one port.

    feed (simulator or replay) -> pace -> Exchange.publish -> history, counts
                                              -> FaultInjector.deliver -> Connection.offer -> the sockets

Binance has three hosts for streams, here they are paths: SBE frames at `/ws` and `/stream`, for which a key
is needed; the JSON texts of the keyless mirror at `/json/ws` and `/json/stream`; and, keyless too, the quotes
of the USD-M perpetuals at `/usdm/public/ws` and `/usdm/public/stream`, as at fstream.binance.com. A market's
feed has those of its perpetual. `Exchange.connect` decides who may connect. Faults can be injected
(`local.exchange.control`); they affect neither the feeds nor the counts of what was published.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import WSCloseCode, web

from local.exchange.attempts import Attempts
from local.exchange.connection import Connection
from local.exchange.control import Control
from local.exchange.encoding import Encoding, Json, Sbe, Usdm
from local.exchange.events import Feed, Quote, ReferenceQuote, Sending, Trade
from local.exchange.fault_injector import FaultInjector
from local.exchange.log import log
from local.exchange.market import Market, pace
from local.exchange.perpetual import with_perpetual
from local.exchange.recording import RecordingError
from local.exchange.replay import Replay
from local.exchange.rest import ApiError, RestApi, is_microsecond
from local.exchange.simulator import simulate
from local.exchange.subscriptions import USDM_LIMITS, Limits, Subscriptions
from tickcast.adapters import json_text

JSON_PREFIX = "/json"  # of the keyless mirror
USDM_PREFIX = "/usdm/public"  # of the perpetuals
_BEHIND_US = 20_000  # of a market that begins: the rest is sent late
_CLOSING_S = 2.0  # for clients to complete the closing handshake


@dataclass(frozen=True)
class Settings:
    """What to serve. `replay` is None for a simulated market."""

    symbols: tuple[str, ...]
    api_key: str
    listed: tuple[str, ...] = ()  # further markets, each simulated from its first listener on
    port: int = 0  # 0: any free one
    host: str = "127.0.0.1"
    seed: int = 7
    epoch_us: int | None = None  # where the simulated history starts
    history_s: float = 1800.0  # how long ago it starts when `epoch_us` does not say
    replay: Replay | None = None
    speed: float = 1.0
    limits: Limits = Limits()
    clock_offset_ms: int = 0  # the exchange's clock less the host's

    @property
    def feed(self) -> str:
        return "sim" if self.replay is None else "replay"


def now_us() -> int:
    return time.time_ns() // 1_000


class Exchange:
    """The markets, their listeners and their history."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.markets = {
            symbol: Market(symbol, settings.feed == "sim", settings.history_s)
            for symbol in dict.fromkeys((*settings.symbols, *settings.listed))
        }
        for symbol in settings.symbols:
            self.markets[symbol].is_open = True
        streams = [stream for market in self.markets.values() for stream in market.streams]
        self.subscriptions = Subscriptions(streams, settings.limits)
        perpetuals = [market.perpetual_stream for market in self.markets.values()]
        self.perpetual_subscriptions = Subscriptions(perpetuals, USDM_LIMITS)
        self._connections: dict[Connection, None] = {}  # oldest first
        self._to_perpetuals: dict[Connection, None] = {}
        self._attempts, self._attempts_usdm = Attempts(settings.limits), Attempts(USDM_LIMITS)
        self._faults = FaultInjector(
            self.markets,
            self._connections.keys(),
            self._to_perpetuals.keys(),
            settings.limits.max_age_s,
            settings.seed,
            self.now_us,
        )
        self._control = Control(self._faults)
        self._epoch_us = self.now_us()
        self._rest = RestApi(self.markets, settings.feed, self.now_us, self._faults)

    def now_us(self) -> int:
        """The exchange's clock."""
        return now_us() + self.settings.clock_offset_ms * 1_000

    def note_epoch(self, epoch_us: int) -> None:
        """The simulated history starts here."""
        self._rest.epoch_us = self._epoch_us = epoch_us

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._rest.answer, self._control.interfere])
        app.add_routes(self._rest.routes())
        app.add_routes(self._control.routes())
        for prefix in ("", JSON_PREFIX, USDM_PREFIX):
            for path in ("/ws", "/ws/{streams:.+}", "/stream"):
                app.add_routes([web.get(prefix + path, self.connect)])
        return app

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Accept a client and serve it until it has disconnected."""
        encoding = _encoding(request)
        is_usdm = isinstance(encoding, Usdm)
        attempts, subscriptions, connections = (
            (self._attempts_usdm, self.perpetual_subscriptions, self._to_perpetuals)
            if is_usdm
            else (self._attempts, self.subscriptions, self._connections)
        )
        attempts.add(request.remote, time.monotonic())
        self._faults.check_handshake(encoding)
        if encoding.needs_key:
            self._check_key(request.headers)
        names = request.match_info.get("streams") or request.query.get("streams", "")
        streams = names.split("/") if names else []
        try:
            subscriptions.check(streams, encoding)
        except ValueError as error:
            raise ApiError(-1130, f"Data sent for parameter 'streams' is not valid: {error}.") from None
        socket = web.WebSocketResponse(timeout=_CLOSING_S, autoping=False, compress=False)
        await socket.prepare(request)
        connection = Connection(request.transport, socket, subscriptions, encoding)
        connections[connection] = None
        if not is_usdm:
            self._faults.opened(connection)
        subscriptions.add(connection, streams)
        log("connected", path=request.path, streams=streams)
        try:
            await connection.serve()
        finally:
            del connections[connection]
            self._faults.closed(connection)
            log("disconnected", path=request.path, streams=streams, close_code=socket.close_code)
        return socket

    def publish(self, market: Market, batch: Sequence[Sending]) -> None:
        """Add events to the history and the counts, and send them to their listeners."""
        listeners = {
            kind: {one for stream in streams for one in self.subscriptions.to(stream)}
            for kind, streams in market.streams_of.items()
        }
        heard, of_perpetual = [], []
        for sending in map(market.as_of_now, batch):
            market.record(sending.event)
            if isinstance(sending.event, ReferenceQuote):
                of_perpetual.append(sending)
            elif isinstance(sending.event, Trade | Quote):
                is_heard = bool(listeners[type(sending.event)])
                market.sent.add(sending, is_heard)
                if is_heard:
                    heard.append(sending)
        for encoding in {one.encoding for some in listeners.values() for one in some}:
            for message in encoding.messages(market.symbol, heard):
                for connection in self.subscriptions.to(message.stream):
                    if connection.encoding == encoding:
                        self._faults.deliver(connection, message)
        if of_perpetual:
            self._publish_perpetual(market, of_perpetual)

    def _publish_perpetual(self, market: Market, sendings: Sequence[Sending]) -> None:
        listeners = self.perpetual_subscriptions.to(market.perpetual_stream)
        market.sent.perpetual_quotes += len(sendings) if listeners else 0
        for encoding in {one.encoding for one in listeners}:
            for message in encoding.messages(market.symbol, sendings):
                for connection in listeners:
                    if connection.encoding == encoding:
                        self._faults.deliver_perpetual(connection, message)

    async def record_history(self, market: Market, feed: Feed, until_us: int) -> Feed:
        """Add the part of `feed` due by `until_us` to the history; the rest of it."""
        for count, sending in enumerate(feed):
            if sending.due_us > until_us:
                return itertools.chain([sending], feed)
            market.record(sending.event)
            if count % 500 == 0:
                await asyncio.sleep(0)  # a signal may be waiting, or another market due
        return feed

    async def run(self, market: Market, feed: Feed | None) -> None:
        """Publish a market in real time: `feed`, or from its first listener on the replay or simulation."""
        if feed is None:
            await self.subscriptions.first_to(market.streams)
            feed = await self._feed_from_now(market)
        await pace(feed, lambda: market.time_us(self.now_us()), lambda batch: self.publish(market, batch))

    async def _feed_from_now(self, market: Market) -> Feed:
        settings = self.settings
        if settings.replay is None:
            market.is_open = True
            return await self.simulated_feed(market)
        log("replay_starts", symbol=market.symbol, speed=settings.speed)
        return settings.replay.feed(market.symbol, self.now_us(), settings.speed)

    async def simulated_feed(self, market: Market) -> Feed:
        """The market's simulation from now on; earlier ticks, from the epoch on, are added to its history."""
        symbol, seed, epoch_us = market.symbol, self.settings.seed, self._epoch_us
        ticks = simulate(symbol, seed, epoch_us)
        # The perpetual has no history to serve, and simulating it takes as long as the market itself.
        events = with_perpetual(ticks, symbol, seed, self.now_us())
        feed: Feed = (Sending(event.time_us, event.time_us, event) for event in events)
        recorded_us = epoch_us
        while self.now_us() - recorded_us > _BEHIND_US:  # that takes its time
            recorded_us = self.now_us()
            feed = await self.record_history(market, feed, recorded_us)
        log("simulated_history", symbol=symbol, seed=seed, epoch_us=epoch_us)
        return feed

    async def close_connections(self) -> None:
        self._faults.end()
        closing = [
            connection.close(WSCloseCode.GOING_AWAY, "The exchange shuts down")
            for connection in (*self._connections, *self._to_perpetuals)
        ]
        await asyncio.gather(*closing, return_exceptions=True)

    def _check_key(self, headers: Mapping[str, str]) -> None:
        key = headers.get("X-MBX-APIKEY")
        if not key:
            raise ApiError(-2014, "API-key format invalid.", status=401)
        if key != self.settings.api_key:
            raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)


def _encoding(request: web.Request) -> Encoding:
    """The encoding that the path selects. Raises `ApiError`."""
    is_combined = request.path.endswith("/stream")
    if request.path.startswith(USDM_PREFIX):
        return Usdm(is_combined)
    if not request.path.startswith(JSON_PREFIX):
        return Sbe()
    is_micro = is_microsecond(request.query.get("timeUnit", "MILLISECOND"))
    return Json(is_combined, is_micro)


async def serve(settings: Settings) -> int:
    """Run the exchange until SIGTERM or SIGINT, then 0; 1 when a recording cannot be read.

    Prints one JSON line on stdout once it listens.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    exchange = Exchange(settings)
    feeds = await _simulated_feeds(exchange) if settings.replay is None else {}
    runner = web.AppRunner(exchange.app(), access_log=None, shutdown_timeout=_CLOSING_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        port = runner.addresses[0][1]
        line = {
            "event": "listening",
            "port": port,
            "feed": settings.feed,
            "symbols": settings.symbols,
            "has_perpetuals": settings.replay is None or settings.replay.has_perpetuals,
        }
        print(json_text.text(line), flush=True)
        log("listening", port=port, feed=settings.feed, simulated=settings.feed == "sim")
        return await _until(stop, exchange, feeds)
    finally:
        await exchange.close_connections()
        await runner.cleanup()
        log("stopped")


async def _simulated_feeds(exchange: Exchange) -> dict[str, Feed]:
    """The simulation of every market but the listed ones."""
    settings = exchange.settings
    exchange.note_epoch(settings.epoch_us or exchange.now_us() - int(settings.history_s * 1e6))
    return {symbol: await exchange.simulated_feed(exchange.markets[symbol]) for symbol in settings.symbols}


async def _until(stop: asyncio.Event, exchange: Exchange, feeds: Mapping[str, Feed]) -> int:
    """Run all markets until `stop`: 0, or 1 if one of them failed."""
    markets = [
        asyncio.create_task(exchange.run(market, feeds.get(symbol)))
        for symbol, market in exchange.markets.items()
    ]
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait()), *markets]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in markets:
            if task.done():
                task.result()
        return 0
    except RecordingError as error:
        log("recording_unreadable", reason=str(error))
        return 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""Every fault and the JSON streams, over real sockets. Tests publish the market's events themselves."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from local.exchange.events import Quote, ReferenceQuote, Sending, Trade
from local.exchange.server import Exchange
from local.exchange.subscriptions import Limits
from tests.fixtures.local_exchange import exchange_in_process
from tickcast.sbe import SbeError, TradesEvent, decode

BOTH = "/stream?streams=btcusdt@trade/btcusdt@bestBidAsk"
JSON_BOTH = "/json/stream?streams=btcusdt@trade/btcusdt@bookTicker"
PERPETUAL = "/usdm/public/stream?streams=btcusdt@bookTicker"
TIME_US = 1_800_000_000_123_456

Ids = list[tuple[str, int]]  # ("trade", trade id) or ("quote", update id)


class Running:
    """An exchange in this process; a test publishes its events."""

    def __init__(self, exchange: Exchange, session: ClientSession, port: int) -> None:
        self.exchange = exchange
        self.session = session
        self.port = port
        self._number = itertools.count(1)

    @asynccontextmanager
    async def stream(self, path: str = BOTH) -> AsyncIterator[ClientConnection]:
        headers = {} if path.startswith(("/json", "/usdm")) else {"X-MBX-APIKEY": "local"}
        url = f"ws://127.0.0.1:{self.port}{path}"
        before = len(self.exchange.subscriptions.to("btcusdt@trade"))
        async with connect(url, additional_headers=headers, max_queue=None, proxy=None) as socket:
            # The handshake is answered just before the connection is entered.
            while "@trade" in path and len(self.exchange.subscriptions.to("btcusdt@trade")) == before:
                await asyncio.sleep(0)
            yield socket

    @asynccontextmanager
    async def perpetual(self, path: str = PERPETUAL) -> AsyncIterator[ClientConnection]:
        listeners = self.exchange.perpetual_subscriptions.to
        before = len(listeners("btcusdt@bookTicker"))
        async with self.stream(path) as socket:
            while len(listeners("btcusdt@bookTicker")) == before:
                await asyncio.sleep(0)
            yield socket

    def publish_perpetual(self, update_id: int) -> None:
        quote = ReferenceQuote("BTCUSDT", TIME_US - 5_000, update_id, 6, 1, 8, 2)
        sending = Sending(TIME_US, TIME_US - 1_000, quote)
        self.exchange.publish(self.exchange.markets["BTCUSDT"], [sending])

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any, Any]:
        """Status, JSON and headers of the response."""
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, url, json=body) as answer:
            return answer.status, await answer.json(), answer.headers

    async def inject(self, kind: str, **parameters: Any) -> Any:
        status, answer, _ = await self.ask("POST", "/local/faults", {"kind": kind, **parameters})
        assert status == 200, answer
        return answer

    async def end_faults(self) -> Any:
        status, answer, _ = await self.ask("DELETE", "/local/faults")
        assert (status, answer["active"]) == (200, [])
        return answer

    async def until_it_ends(self, but: int = 0) -> Any:
        """Wait until no more than `but` faults are active; those that ended."""
        while len((answer := (await self.ask("GET", "/local/faults"))[1])["active"]) > but:
            await asyncio.sleep(0.01)
        return answer["ended"]

    async def sent(self) -> Any:
        return (await self.ask("GET", "/local/sent"))[1]["symbols"]["BTCUSDT"]

    def publish(self, pairs: int = 1) -> Ids:
        """Publish this many trades, each followed by a quote; their ids."""
        batch: list[Sending] = []
        ids: Ids = []
        for number in itertools.islice(self._number, pairs):
            time_us = TIME_US + number
            batch.append(Sending(time_us, time_us, Trade("BTCUSDT", time_us - 1, number, 7, 5, False)))
            batch.append(Sending(time_us, time_us, Quote("BTCUSDT", time_us, number, 6, 1, 8, 2)))
            ids += [("trade", number), ("quote", number)]
        self.exchange.publish(self.exchange.markets["BTCUSDT"], batch)
        return ids


def on_an_exchange(limits: Limits | None = None) -> Callable[[Callable[..., Awaitable[None]]], Any]:
    """Run an async test on an exchange of its own, which is its first argument."""

    def decorated(test: Callable[..., Awaitable[None]]) -> Any:
        async def run(**arguments: Any) -> None:
            served = exchange_in_process(("BTCUSDT", "ETHUSDT"), limits)
            async with served as (exchange, port), ClientSession() as session:
                await test(Running(exchange, session, port), **arguments)

        def test_on_an_exchange(**arguments: Any) -> None:
            asyncio.run(run(**arguments))

        parameters = list(inspect.signature(test).parameters.values())[1:]
        test_on_an_exchange.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return test_on_an_exchange

    return decorated


def ids_in(message: str | bytes) -> Ids:
    if isinstance(message, bytes):
        event = decode(message)
        if isinstance(event, TradesEvent):
            return [("trade", one.id) for one in event.trades]
        return [("quote", event.book_update_id)]  # type: ignore[union-attr]
    payload = json.loads(message)
    payload = payload.get("data", payload)
    return [("trade", payload["t"])] if payload.get("e") == "trade" else [("quote", payload["u"])]


async def received(socket: ClientConnection, last: tuple[str, int]) -> Ids:
    """The ids received, up to and including `last`."""
    ids: Ids = []
    while last not in ids:
        ids += ids_in(await socket.recv())
    return ids


async def end_of(socket: ClientConnection) -> int | None:
    """The code with which the exchange closes the connection; None without a closing handshake."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            await socket.recv()
    return None if caught.value.rcvd is None else caught.value.rcvd.code


async def refused(running: Running, path: str = BOTH) -> tuple[int, str | None]:
    """Status and Retry-After of a handshake that fails."""
    with pytest.raises(InvalidStatus) as caught:
        async with running.stream(path):
            pass
    response = caught.value.response
    return response.status_code, response.headers.get("Retry-After")


# --------------------------------------------------------------------------------------- control, counting


@on_an_exchange()
async def test_faults_are_listed_and_ended(running: Running) -> None:
    async with running.stream(), running.stream():
        assert (await running.inject("drop", connections="newest"))["connections"] == 1
        await running.inject("stall", seconds=60, stream="trade", connections="oldest")
        answer = await running.inject("rest_status", status=503)
        stall, rest = answer["active"]
        assert (stall["kind"], stall["stream"], rest["status"]) == ("stall", "trade", 503)
        assert 0 < stall["seconds_left"] <= 60 and "seconds_left" not in rest
        status, answer, _ = await running.ask("DELETE", "/local/faults?kind=stall")
        assert status == 200 and [one["kind"] for one in answer["active"]] == ["rest_status"]
        await running.end_faults()
        ended = (await running.ask("GET", "/local/faults"))[1]["ended"]
        assert [one["kind"] for one in ended] == ["drop", "stall", "rest_status"]
    while running.exchange.subscriptions.to("btcusdt@trade"):
        await asyncio.sleep(0)
    answer = await running.inject("stall")  # for those open now: there are none
    assert (answer["active"], answer["connections"]) == ([], 0)


@on_an_exchange()
async def test_a_fault_ends_with_the_last_connection_that_it_affects(running: Running) -> None:
    async with running.stream():
        async with running.stream():
            await running.inject("stall", connections="newest")
            await running.inject("corrupt", count=5)
            running.publish()
        assert (await running.until_it_ends(but=1))[-1]["hits"] == 2
    assert (await running.until_it_ends())[-1]["hits"] == 2  # none of the stalled one


@pytest.mark.parametrize(
    "body", ["drop", {"kind": "explode"}, {"kind": "stall", "symbol": "DOGEUSDT"}, {"kind": "max_age"}]
)
@on_an_exchange()
async def test_an_invalid_fault_gets_400(running: Running, body: Any) -> None:
    status, answer, _ = await running.ask("POST", "/local/faults", body)
    assert status == 400 and answer["msg"]
    assert (await running.ask("GET", "/local/faults"))[1] == {"active": [], "ended": []}


@on_an_exchange()
async def test_sent_counts_everything_from_the_first_listener_on(running: Running) -> None:
    running.publish(3)
    assert (await running.sent())["trades"] == 0
    async with running.stream() as socket:
        (first,) = running.publish()[:1]
        await running.inject("stall")
        running.publish(2)
        await running.inject("drop")
        assert await end_of(socket) is None
    while running.exchange.subscriptions.to("btcusdt@trade"):
        await asyncio.sleep(0)
    last = running.publish(4)[-1]  # nobody is there
    sent = await running.sent()
    assert (sent["first_id"], sent["last_id"]) == (first[1], last[1]) == (4, 10)
    assert sent["trades"] == sent["quotes"] == 7


# ------------------------------------------------------------------------------------------ JSON streams


@on_an_exchange()
async def test_json_frames_are_those_of_the_mirror(running: Running) -> None:
    trade = (
        '{"e":"trade","E":%d,"s":"BTCUSDT","t":1,"p":"0.00000007","q":"0.00000005","T":%d,"m":false,"M":true}'
    )
    quote = '{"u":1,"s":"BTCUSDT","b":"0.00000006","B":"0.00000001","a":"0.00000008","A":"0.00000002"}'
    async with (
        running.stream(JSON_BOTH) as combined,
        running.stream("/json/ws/btcusdt@trade/btcusdt@bookTicker?timeUnit=MICROSECOND") as raw,
        running.stream() as sbe,
    ):
        running.publish()
        in_ms = trade % ((TIME_US + 1) // 1000, TIME_US // 1000)
        assert await combined.recv() == f'{{"stream":"btcusdt@trade","data":{in_ms}}}'
        assert await combined.recv() == f'{{"stream":"btcusdt@bookTicker","data":{quote}}}'
        assert await raw.recv() == trade % (TIME_US + 1, TIME_US)
        assert await raw.recv() == quote
        assert await received(sbe, ("quote", 1)) == [("trade", 1), ("quote", 1)]
        subscribe = {"method": "SUBSCRIBE", "params": ["ethusdt@bookTicker"], "id": 1}
        await raw.send(json.dumps(subscribe))
        assert json.loads(await raw.recv()) == {"result": None, "id": 1}
        subscribe["params"] = ["ethusdt@bestBidAsk"]
        await raw.send(json.dumps(subscribe))
        assert "unknown stream" in json.loads(await raw.recv())["error"]["msg"]
    assert (await refused(running, "/json/ws/btcusdt@bestBidAsk"))[0] == 400
    assert (await refused(running, "/ws/btcusdt@bookTicker"))[0] == 400
    assert (await refused(running, "/json/ws/btcusdt@trade?timeUnit=SECOND"))[0] == 400


# -------------------------------------------------------------------------------------------- connections


@pytest.mark.parametrize("path", [BOTH, JSON_BOTH])
@on_an_exchange()
async def test_drop(running: Running, path: str) -> None:
    async with running.stream(path) as older, running.stream(path) as newer:
        await running.inject("drop", connections="oldest")
        assert await end_of(older) is None
        published = running.publish()
        assert await received(newer, published[-1]) == published
        assert (await running.inject("drop"))["ended"][-1]["hits"] == 1
        assert await end_of(newer) is None


@on_an_exchange()
async def test_server_shutdown_is_announced_and_follows(running: Running) -> None:
    async with running.stream() as old:
        answer = await running.inject("server_shutdown", grace_s=0.2)
        assert answer["active"][0]["seconds_left"] <= 0.2
        message = json.loads(await old.recv())
        assert message.pop("E") > 10**12 and message == {"e": "serverShutdown"}
        async with running.stream() as new:
            published = running.publish()
            assert await received(old, published[-1]) == published  # within the grace
            assert await end_of(old) == 1001
            published += running.publish()
            assert await received(new, published[-1]) == published


@on_an_exchange()
async def test_max_age_ends_old_and_new_connections(running: Running) -> None:
    async with running.stream() as socket:
        await running.inject("max_age", age_s=0.05)
        assert await end_of(socket) == 1001
    async with running.stream() as socket:
        assert await end_of(socket) == 1001
    await running.inject("max_age", age_s=3_000)
    async with running.stream() as socket:
        await running.end_faults()
        published = running.publish()
        assert await received(socket, published[-1]) == published


@on_an_exchange(Limits(max_age_s=0.05))
async def test_every_connection_ends_at_its_maximum_age(running: Running) -> None:
    async with running.stream() as socket:
        assert await end_of(socket) == 1001


# ------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("path", [BOTH, JSON_BOTH])
@on_an_exchange()
async def test_a_stall_discards_frames_while_pings_continue(running: Running, path: str) -> None:
    async with running.stream(path) as stalled:
        await running.inject("stall")
        async with running.stream(path) as other:
            first = running.publish(2)
            assert await received(other, first[-1]) == first
            await (await stalled.ping())  # control frames still pass
            await running.end_faults()
            second = running.publish()
            assert await received(stalled, second[-1]) == second
            await running.inject("stall", stream="trade", connections="newest", seconds=0.05)
            third = running.publish()
            assert await received(stalled, third[-1]) == third
            assert (await running.until_it_ends())[-1]["hits"] == 1
            fourth = running.publish()
            assert await received(other, fourth[-1]) == [*second, third[-1], *fourth]


@on_an_exchange()
async def test_culled_quotes_leave_holes_in_update_ids_and_all_trades(running: Running) -> None:
    async with running.stream() as socket:
        await running.inject("cull_quotes", share=0.5, symbol="BTCUSDT")
        published = running.publish(200)
        culled = (await running.end_faults())["ended"][-1]["hits"]
        published += running.publish()
        got = await received(socket, published[-1])
        assert [one for one in got if one[0] == "trade"] == [p for p in published if p[0] == "trade"]
        assert len(got) == len(published) - culled and 50 < culled < 150
        assert got == [one for one in published if one in set(got)]


@pytest.mark.parametrize("path", [BOTH, JSON_BOTH])
@on_an_exchange()
async def test_duplicate(running: Running, path: str) -> None:
    async with running.stream(path) as socket:
        await running.inject("duplicate", count=3)
        published = running.publish(2)
        twice = [one for one in published[:3] for _ in range(2)]
        assert await received(socket, published[-1]) == [*twice, published[3]]
        assert (await running.until_it_ends())[-1]["hits"] == 3


@pytest.mark.parametrize("path", [BOTH, JSON_BOTH])
@on_an_exchange()
async def test_reordered_streams_keep_their_own_order_and_lose_nothing(running: Running, path: str) -> None:
    async with running.stream(path) as socket:
        await running.inject("reorder", within_ms=5)
        status, answer, _ = await running.ask("POST", "/local/faults", {"kind": "reorder"})
        assert status == 400 and "already" in answer["msg"]
        published, got = Ids(), Ids()
        while got == published[: len(got)]:
            published += running.publish()
            got += ids_in(await socket.recv())
        await running.end_faults()
        await running.inject("reorder", within_ms=60_000)
        published += running.publish(5)
        await running.end_faults()  # hands out what it held back
        while len(got) < len(published):
            got += ids_in(await socket.recv())
        for stream in ("trade", "quote"):
            assert [g for g in got if g[0] == stream] == [p for p in published if p[0] == stream]


@pytest.mark.parametrize("how", ["flip", "truncate", "template"])
@on_an_exchange()
async def test_a_corrupt_trade_frame_never_arrives_readable(running: Running, how: str) -> None:
    async with running.stream() as socket, running.stream(JSON_BOTH) as mirror:
        assert (await running.inject("corrupt", how=how, stream="trade"))["connections"] == 2
        published = running.publish(2)
        for stream in (socket, mirror):
            message = await stream.recv()
            if isinstance(message, bytes):
                with pytest.raises(SbeError):
                    decode(message)
            else:
                with pytest.raises((ValueError, KeyError)):
                    ids_in(message)
            assert await received(stream, published[-1]) == published[1:]
        assert (await running.until_it_ends())[-1]["hits"] == 2


@on_an_exchange()
async def test_a_newer_schema_version_decodes_to_the_same_events(running: Running) -> None:
    async with running.stream() as socket, running.stream(JSON_BOTH) as mirror:
        await running.inject("schema_version", version=3, block_bytes=16, entry_bytes=9)
        published = running.publish(2)
        frames = [await socket.recv(decode=False) for _ in published]
        assert [id_ for frame in frames for id_ in ids_in(frame)] == published
        assert {frame[6:8] for frame in frames} == {b"\x03\x00"}
        assert {len(frame) for frame in frames} == {65 + 16 + 9, 66 + 16}
        assert await received(mirror, published[-1]) == published


@on_an_exchange()
async def test_faults_combine(running: Running) -> None:
    async with running.stream() as socket:
        await running.inject("schema_version")
        await running.inject("duplicate")
        await running.inject("stall", stream="quote", symbol="ETHUSDT")
        await running.inject("reorder", within_ms=1)
        published = running.publish()
        got = [*await received(socket, ("trade", 1)), *ids_in(await socket.recv())]
        while len(got) < 4:
            got += ids_in(await socket.recv())
        assert sorted(got) == sorted(published * 2)


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(("status", "mirror_status"), [(401, None), (403, 403), (451, 451)])
@on_an_exchange()
async def test_permanent_refusal(running: Running, status: int, mirror_status: int | None) -> None:
    async with running.stream() as open_already:
        await running.inject("refuse_key", status=status)
        assert await refused(running) == (status, None)
        if mirror_status is None:
            async with running.stream(JSON_BOTH):
                pass
        else:
            assert await refused(running, JSON_BOTH) == (mirror_status, None)
        published = running.publish()
        assert await received(open_already, published[-1]) == published
        await running.end_faults()
        async with running.stream():
            pass


@pytest.mark.parametrize("status", [429, 503])
@on_an_exchange()
async def test_temporary_refusal(running: Running, status: int) -> None:
    await running.inject("refuse", status=status, seconds=30)
    assert await refused(running) == (status, "30")
    await running.end_faults()
    await running.inject("refuse", status=status, seconds=0.05)
    await running.until_it_ends()
    async with running.stream():
        pass


@on_an_exchange(Limits(attempts=3))
async def test_too_many_attempts(running: Running) -> None:
    for _ in range(2):
        async with running.stream():
            pass
    assert (await refused(running, "/ws/unknown"))[0] == 400  # counts, too
    status, retry_after = await refused(running)
    assert status == 418 and retry_after == "120"


@on_an_exchange()
async def test_rest_refusals_and_failures(running: Running) -> None:
    async def get(path: str) -> tuple[int, str | None]:
        status, answer, headers = await running.ask("GET", path)
        assert status == 200 or {"code", "msg"} == set(answer)
        assert "X-MBX-USED-WEIGHT-1M" in headers
        return status, headers.get("Retry-After")

    trades = "/api/v3/aggTrades?symbol=BTCUSDT"
    await running.inject("rest_status", status=429, count=1, retry_after_s=7)
    assert [await get(trades), await get(trades)] == [(429, "7"), (200, None)]
    await running.inject("rest_status", status=418, seconds=20)
    assert await get(trades) == (418, "20")
    await running.end_faults()
    await running.inject("rest_status", status=503, path="/api/v3/aggTrades")
    assert [await get(trades), await get("/api/v3/ping")] == [(503, None), (200, None)]
    await running.end_faults()
    # Slow: whoever asks later and is not held up is answered first.
    await running.inject("rest_status", delay_s=0.2, count=1)
    slow = asyncio.create_task(get(trades))
    await running.until_it_ends()
    assert await get("/api/v3/ping") == (200, None)
    assert await slow == (200, None)
    await running.inject("rest_status", delay_s=0.05)
    await running.inject("rest_status", status=500, count=1)
    answers = await asyncio.gather(*(get("/api/v3/ping") for _ in range(3)))
    assert sorted(status for status, _ in answers) == [200, 200, 500]


# ------------------------------------------------------------------------------------------- the perpetuals


@pytest.mark.parametrize("path", [PERPETUAL, "/usdm/public/ws/btcusdt@bookTicker"])
@on_an_exchange()
async def test_the_perpetual_has_streams_of_its_own(running: Running, path: str) -> None:
    async with running.stream(JSON_BOTH) as spot, running.perpetual(path) as socket:
        running.publish_perpetual(77)
        published = running.publish()
        message = json.loads(await socket.recv())
        if "stream" in path:
            assert message["stream"] == "btcusdt@bookTicker"
            message = message["data"]
        assert message == {
            **{"e": "bookTicker", "u": 77, "s": "BTCUSDT", "T": (TIME_US - 5_000) // 1000},
            **{"b": "0.00000006", "B": "0.00000001", "a": "0.00000008", "A": "0.00000002"},
            "E": (TIME_US - 1_000) // 1000,
        }
        assert await received(spot, published[-1]) == published
    sent = await running.sent()
    assert (sent["quotes"], sent["perpetual_quotes"]) == (1, 1)


@on_an_exchange()
async def test_the_perpetual_has_no_other_stream(running: Running) -> None:
    for stream in ("btcusdt@trade", "btcusdt@bestBidAsk", "dogeusdt@bookTicker"):
        assert (await refused(running, f"/usdm/public/ws/{stream}"))[0] == 400


@on_an_exchange()
async def test_the_perpetual_goes_away_and_comes_back(running: Running) -> None:
    async with running.stream() as spot, running.perpetual() as socket:
        assert (await running.inject("perpetual_away", seconds=60))["connections"] == 1
        assert await end_of(socket) is None
        status, retry_after = await refused(running, PERPETUAL)
        assert status == 503 and retry_after is not None and 0 < int(retry_after) <= 60
        running.publish_perpetual(1)
        assert (await running.end_faults())["ended"][-1]["hits"] == 2
        async with running.perpetual() as back:
            running.publish_perpetual(2)
            assert json.loads(await back.recv())["data"]["u"] == 2
        published = running.publish()
        assert await received(spot, published[-1]) == published


@on_an_exchange()
async def test_the_perpetual_falls_silent_and_goes_on(running: Running) -> None:
    async with running.perpetual() as socket:
        await running.inject("perpetual_away", how="silent")
        running.publish_perpetual(1)
        async with running.perpetual() as other:  # accepted, and as silent
            running.publish_perpetual(2)
            assert (await running.end_faults())["ended"][-1]["hits"] == 3
            running.publish_perpetual(3)
            assert [json.loads(await each.recv())["data"]["u"] for each in (socket, other)] == [3, 3]


@on_an_exchange()
async def test_faults_of_the_spot_market_leave_the_perpetual_alone(running: Running) -> None:
    async with running.perpetual() as socket, running.stream():
        for kind in ("freeze", "drop", "server_shutdown"):
            await running.inject(kind)
        await running.inject("max_age", age_s=0.001)
        await running.inject("refuse")
        running.publish_perpetual(1)
        assert json.loads(await socket.recv())["data"]["u"] == 1
        async with running.perpetual() as another:
            running.publish_perpetual(2)
            assert json.loads(await another.recv())["data"]["u"] == 2

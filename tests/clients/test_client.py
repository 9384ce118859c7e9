"""Requests, errors and retries of both clients. The API is within the process."""

from __future__ import annotations

import inspect
import pickle
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import anyio
import httpx
import pytest

from tests.fixtures import client_api
from tests.fixtures.client_api import KEY, START_MS, URL, ScriptedApi, problem
from tickcast_client import (
    ApiError,
    AsyncClient,
    BadRequest,
    Client,
    ClientClosed,
    ConnectionFailed,
    Forbidden,
    NotFound,
    TickcastError,
    TooManyRequests,
    Unavailable,
    UnexpectedResponse,
)

LATEST = httpx.Response(200, json=client_api.latest())
Call = Callable[[Any], Any]


def latest_of_btc(client: Any) -> Any:
    return client.latest("BTCUSDT")


def ask(api: ScriptedApi, call: Call = latest_of_btc, **options: Any) -> Any:
    """What both clients answer, which must be the same, of an API that answers both alike."""
    settings: dict[str, Any] = {"url": URL, "key": KEY, "transport": api.transport} | options

    async def asynchronous() -> Any:
        async with AsyncClient(**settings) as client:
            return await call(client)

    try:
        with Client(**settings) as client:
            found = call(client)
    except TickcastError as error:
        with pytest.raises(type(error)) as other:
            anyio.run(asynchronous)
        assert str(other.value) == str(error)
        raise
    assert anyio.run(asynchronous) == found
    return found


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which take no time; without jitter they are the shortest."""
    found: list[float] = []

    async def sleep(_: AsyncClient, seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(Client, "_sleep", lambda _, seconds: found.append(seconds))
    monkeypatch.setattr(AsyncClient, "_sleep", sleep)
    monkeypatch.setattr(random, "uniform", lambda least, _: least)
    return found


REQUESTS: list[tuple[Call, str, httpx.Response]] = [
    (latest_of_btc, "predictions/BTCUSDT", LATEST),
    (
        lambda client: client.latest("btc/usdt", horizon=5, history=3, outcomes=True),
        "predictions/btc%2Fusdt?horizon=5&history=3&outcomes=true",
        LATEST,
    ),
    (lambda client: client.latest_of(), "predictions", client_api.several(client_api.latest())),
    (
        lambda client: client.latest_of("BTCUSDT", "ETHUSDT", horizon=1),
        "predictions?symbols=BTCUSDT%2CETHUSDT&horizon=1",
        client_api.several(client_api.latest(), ETHUSDT="no tick of ETHUSDT has arrived so far"),
    ),
    (
        lambda client: client.receipt(f"BTCUSDT-{START_MS}"),
        f"predictions/BTCUSDT/BTCUSDT-{START_MS}",
        httpx.Response(200, json=client_api.receipt()),
    ),
    (lambda client: client.health(), "health", client_api.health()),
    (
        lambda client: client.models(),
        "models",
        httpx.Response(200, json={"current": None, "models": [{"model_id": "m1", "skill": 1}], "total": 1}),
    ),
]


@pytest.mark.parametrize(("call", "path", "answer"), REQUESTS, ids=[path for _, path, _ in REQUESTS])
def test_a_method_asks_its_path_with_the_key(call: Call, path: str, answer: httpx.Response) -> None:
    api = ScriptedApi([answer])
    found = ask(api, call)
    assert [str(request.url) for request in api.requests] == [f"{URL}/{path}"] * 2
    assert {request.headers["x-api-key"] for request in api.requests} == {KEY}
    assert found.model_dump(mode="json", by_alias=True, exclude_unset=True) == answer.json()


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)


def test_a_span_is_sent_in_ms() -> None:
    body = {"symbol": "BTCUSDT", "environment": "local", "from": 1, "to": 2, "horizons": {}}
    api = ScriptedApi([httpx.Response(200, json=body | {"scored_age_s": None, "summary": None})])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    ask(api, lambda client: client.accuracy("BTCUSDT", from_=begin, to=begin + timedelta(hours=1)))
    ask(api, lambda client: client.accuracy("BTCUSDT", from_="2026-01-01T00:00:00Z", to=START_MS + 3_600_000))
    assert all(query == {"from": str(START_MS), "to": str(START_MS + 3_600_000)} for query in api.queries)


STATUSES = [(400, BadRequest), (403, Forbidden), (404, NotFound), (500, ApiError)]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_an_error_status_is_an_error_of_its_type_and_is_not_retried(
    status: int, kind: type[ApiError]
) -> None:
    api = ScriptedApi([problem(status, "horizon is '3', it should be one of 1, 2, 5, 10")])
    with pytest.raises(kind, match="horizon is '3'") as found:
        ask(api)
    assert (found.value.status, found.value.title, found.value.parameter) == (status, "A title", "symbol")
    assert len(api.requests) == 2, "one of each client"


def test_an_error_survives_another_process() -> None:
    error = TooManyRequests(429, "Too many", "more than the key may", retry_after_s=7)
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.retry_after_s) == ("more than the key may (429 Too many)", 7)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(Forbidden, match="No key was sent: pass key=, or set TICKCAST_KEY"):
        ask(ScriptedApi([problem(403)]), key="")


PASSING = [
    problem(429),
    problem(502),
    problem(503),
    problem(504),
    httpx.ConnectError("refused"),
    httpx.ReadTimeout(""),
]


@pytest.mark.parametrize("failure", PASSING, ids=str)
def test_transient_failures_are_retried_with_growing_pauses(waits: list[float], failure: Any) -> None:
    for client in (Client, AsyncClient):
        waits.clear()
        api = ScriptedApi([failure, failure, failure, LATEST])
        run(client, api)
        assert waits == [0.25, 0.5, 1.0]
        assert len(api.requests) == 4


def run(kind: type, api: ScriptedApi, **options: Any) -> Any:
    """The newest prediction by a client of this type."""
    client = kind(URL, KEY, transport=api.transport, **options)
    if kind is Client:
        return client.latest("BTCUSDT")
    return anyio.run(client.latest, "BTCUSDT")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_pause_that_the_api_asks_for_is_kept(waits: list[float], kind: type) -> None:
    in_a_while = datetime.now(UTC) + timedelta(seconds=9)
    date = in_a_while.strftime("%a, %d %b %Y %H:%M:%S GMT")
    script = [problem(429, **{"Retry-After": "7"}), problem(503, **{"Retry-After": date}), LATEST]
    run(kind, ScriptedApi(script))
    assert waits[0] == 7.25
    assert 0.5 < waits[1] <= 9.5


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_nothing_is_tried_again_after_the_time_limit(waits: list[float], kind: type) -> None:
    """A pause that would last beyond it is not begun."""
    api = ScriptedApi([problem(429, **{"Retry-After": "60"}), LATEST])
    with pytest.raises(TooManyRequests) as found:
        run(kind, api, retry_s=30)
    assert found.value.retry_after_s == 60
    with pytest.raises(Unavailable):
        run(kind, ScriptedApi([problem(503), LATEST]), retry_s=0)
    assert waits == []


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_api_that_cannot_be_reached_is_named(waits: list[float], kind: type) -> None:
    with pytest.raises(
        ConnectionFailed, match="https://api.example/v1/ does not answer: ConnectError refused"
    ):
        run(kind, ScriptedApi([httpx.ConnectError("refused")]), retry_s=0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (httpx.Response(200, text="<html>"), r"is not what tickcast answers \(the whole: Invalid JSON"),
        (
            httpx.Response(200, json={"symbol": "BTCUSDT"}),
            r"not what tickcast answers \(timestamp: Field required",
        ),
        (httpx.Response(301, headers={"Location": "https://elsewhere.example"}), "redirects elsewhere"),
    ],
)
def test_another_server_is_not_taken_for_the_api(answer: httpx.Response, why: str) -> None:
    api = ScriptedApi([answer])
    with pytest.raises(UnexpectedResponse, match=why):
        ask(api)
    assert {request.url.host for request in api.requests} == {"api.example"}, "the key goes nowhere else"


def test_a_report_of_what_is_wrong_is_an_answer(waits: list[float]) -> None:
    wrong = client_api.health("degraded", score={"ok": False, "why": "no heartbeat for 900 s"})
    report = ask(ScriptedApi([wrong]), lambda client: client.health())
    assert (report.status, report.services["score"].why) == ("degraded", "no heartbeat for 900 s")
    assert waits == []
    with pytest.raises(Unavailable):
        ask(ScriptedApi([problem(503)]), lambda client: client.health(), retry_s=0)


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKCAST_API", f" {URL}/ ")
    monkeypatch.setenv("TICKCAST_KEY", f"{KEY}\n")
    api = ScriptedApi([LATEST])
    ask(api, url=None, key=None)
    assert str(api.requests[0].url) == f"{URL}/predictions/BTCUSDT"
    assert api.requests[0].headers["x-api-key"] == KEY


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"url": ""}, "no address of the API is given: pass url=, or set TICKCAST_API"),
        ({"url": "api.example"}, "should be complete, like https://host/path"),
        ({"url": "https://api.example:port"}, "should be complete"),
        ({"url": "https://api.example:99999"}, "should be complete"),
        ({"url": "https://two words"}, "should be complete"),
        ({"url": "https:///v1"}, "should be complete"),
        ({"url": f"{URL}#key=secret"}, "without user, query or fragment; the key is passed as key="),
        ({"url": "https://me:secret@api.example"}, "without user, query or fragment"),
        ({"key": "secret\u00e9"}, "has characters that no key has"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"retry_s": float("nan")}, "retry_s nan"),
    ],
)
def test_wrong_settings_are_refused_without_showing_the_key(options: dict[str, Any], why: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=why) as found:
            kind(**{"url": URL, "key": KEY} | options)
        assert "secret" not in str(found.value)


def test_the_key_is_not_shown() -> None:
    with Client(URL, KEY) as client:
        assert KEY not in f"{client!r} {client.settings!r} {vars(client)}"


WRONG: list[tuple[Call, str]] = [
    (lambda client: client.receipt("BTCUSDT"), "like BTCUSDT-1767225600000"),
    (lambda client: client.latest(" "), "symbol is ''; it should be like BTCUSDT"),
    (lambda client: client.latest(".."), "symbol is '..'; it should be like BTCUSDT"),
    (lambda client: client.accuracy("BTCUSDT", to=cast(int, 1e12)), "to is 1000000000000.0; it should be"),
    (lambda client: client.accuracy("BTCUSDT", from_=datetime(2026, 1, 1)), "without an offset"),
    (lambda client: client.accuracy("BTCUSDT", to="yesterday"), "to is 'yesterday'; it should be like"),
    (lambda client: client.history("BTCUSDT", page_size=1001), "page_size is 1001; it should be 1 to 1000"),
    (lambda client: client.stream(every_s=0.01), "every_s is 0.01; it should be 0.1 or more"),
]


@pytest.mark.parametrize(("call", "why"), WRONG, ids=[why for _, why in WRONG])
def test_wrong_arguments_are_refused_at_once(call: Call, why: str) -> None:
    api = ScriptedApi([LATEST])
    with pytest.raises(ValueError, match=why), Client(URL, KEY, transport=api.transport) as client:
        call(client)
    assert not api.requests


def test_a_closed_client_says_so() -> None:
    client = Client(URL, KEY, transport=ScriptedApi([LATEST]).transport)
    client.close()
    with pytest.raises(ClientClosed):
        client.latest("BTCUSDT")
    other = AsyncClient(URL, KEY, transport=ScriptedApi([LATEST]).transport)

    async def closed() -> None:
        await other.close()
        with pytest.raises(ClientClosed):
            await other.latest("BTCUSDT")

    anyio.run(closed)

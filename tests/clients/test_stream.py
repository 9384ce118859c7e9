"""Streams: what is news, when they say that it is stale, how they are paced, and how they end."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import anyio
import httpx
import pytest

from tests.fixtures.asynchronous import run_async
from tests.fixtures.client_api import KEY, START_MS, URL, Answer, ScriptedApi, latest, problem, several
from tickcast_client import (
    ApiError,
    AsyncClient,
    Client,
    ConnectionFailed,
    Forbidden,
    Unavailable,
    Update,
)
from tickcast_client._following import Following
from tickcast_client.models import Several

STALE: dict[str, Any] = {
    "source": "fallback",
    "reason": "stale_features",
    "abstains": True,
    "age_ms": {"tick": 6200, "claim": 6100},
}
AWAY = ConnectionFailed("the API does not answer")
NEXT_MS = START_MS + 1000


def answer(*predictions: dict[str, Any], **problems: str) -> Several:
    return Several.model_validate_json(several(*predictions, **problems).content)


def said(updates: list[Update]) -> list[tuple[str, int | None, str | None]]:
    return [
        (each.symbol, each.prediction.timestamp if each.prediction else None, each.stale) for each in updates
    ]


@pytest.fixture
def following() -> Following:
    return Following(("BTCUSDT",), None, 1.0)


def test_the_same_forecast_read_later_is_no_news(following: Following) -> None:
    assert said(following.answered(answer(latest()), 0)) == [("BTCUSDT", START_MS, None)]
    assert following.answered(answer(latest(as_of=START_MS + 900, expected_move_bp=0.1)), 1) == []
    assert said(following.answered(answer(latest(NEXT_MS)), 2)) == [("BTCUSDT", NEXT_MS, None)]
    fallback = latest(NEXT_MS, source="fallback", reason="no_quotes")
    assert said(following.answered(answer(fallback), 3)) == [("BTCUSDT", NEXT_MS, None)]


def test_staleness_is_said_once_when_it_begins_and_ends(following: Following) -> None:
    following.answered(answer(latest()), 0)
    [update] = following.answered(answer(latest(**STALE)), 1)
    assert update.stale == "stale_features: the market is known up to 6.1 s ago"
    assert following.answered(answer(latest(**STALE)), 2) == []
    assert said(following.answered(answer(latest()), 3)) == [("BTCUSDT", START_MS, None)]


def test_an_api_that_does_not_answer_makes_all_stale_after_five_seconds() -> None:
    following = Following((), None, 1.0)
    following.answered(answer(latest(), latest(symbol="ETHUSDT")), 100)
    following.failed(AWAY, 103)
    assert following.grown_stale(104.9) == []
    news = said(following.grown_stale(105))
    assert news == [(symbol, START_MS, "the API does not answer") for symbol in ("BTCUSDT", "ETHUSDT")]
    following.failed(AWAY, 130)
    assert following.grown_stale(130) == []
    back = answer(latest(), latest(symbol="ETHUSDT", **STALE))
    assert said(following.answered(back, 140)) == [("BTCUSDT", START_MS, None)], "ETHUSDT stays stale"


def test_an_answer_that_is_waited_for_is_not_stale(following: Following) -> None:
    """At a slow pace nothing has failed."""
    following.answered(answer(latest()), 0)
    assert following.grown_stale(60) == []


def test_a_symbol_without_data_and_one_that_went_are_stale() -> None:
    following = Following((), None, 1.0)
    news = following.answered(answer(latest(), ETHUSDT="no tick of ETHUSDT has arrived so far"), 0)
    assert said(news)[1] == ("ETHUSDT", None, "no tick of ETHUSDT has arrived so far")
    gone = following.answered(answer(latest(symbol="ETHUSDT")), 1)
    assert said(gone) == [("ETHUSDT", START_MS, None), ("BTCUSDT", START_MS, "no longer served")]
    assert following.answered(answer(latest(symbol="ETHUSDT")), 2) == []


def test_errors_that_last_end_a_stream(following: Following) -> None:
    with pytest.raises(ConnectionFailed):
        following.failed(AWAY, 0)  # at the beginning
    following.answered(answer(latest()), 0)
    following.failed(ApiError(500, "Internal error", "a function was throttled"), 1)
    with pytest.raises(Forbidden):
        following.failed(Forbidden(403, "Forbidden", "no key"), 1)


def test_a_stream_is_paced_from_request_to_request(following: Following) -> None:
    following.request(10.0)
    following.answered(answer(latest()), 10.3)
    assert following.wait_s(10.4) == pytest.approx(0.6)
    assert not following.is_due(10.9)
    assert following.is_due(11.0)
    assert following.wait_s(13.0) == 0, "late, and no burst to catch up: the next pause is from that request"


def test_pauses_grow_while_the_api_is_away(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda least, _: least)
    following.request(0)
    following.answered(answer(latest()), 0)
    found = []
    for n in range(9):
        following.request(10.0 + n)
        following.failed(AWAY, 10.0 + n)
        following.grown_stale(10.0 + n)
        found.append(following.wait_s(10.0 + n))
    assert found == [1, 1, 1, 2, 4, 8, 15, 15, 15]
    following.failed(Unavailable(503, "Unavailable", "", retry_after_s=60), 20)
    assert following.wait_s(20) == 75
    following.failed(Unavailable(503, "Unavailable", "", retry_after_s=1e12), 20)
    assert following.wait_s(20) == 3615


def test_staleness_is_said_in_time_however_long_the_pauses_are(following: Following) -> None:
    following.answered(answer(latest()), 0)
    following.failed(Unavailable(503, "Unavailable", "the store is away", retry_after_s=60), 4)
    assert following.wait_s(4) == 1
    assert not following.is_due(5)
    assert said(following.grown_stale(5)) == [("BTCUSDT", START_MS, "the store is away (503 Unavailable)")]
    assert following.wait_s(5) > 55


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pauses."""
    monkeypatch.setattr(Following, "is_due", lambda *_: True)
    monkeypatch.setattr(Following, "wait_s", lambda *_: 0.0)


SCRIPT: list[Answer | Callable[[httpx.Request], Answer]] = [
    several(latest()),
    several(latest()),
    problem(503),
    several(latest(NEXT_MS)),
    several(latest(NEXT_MS, **STALE)),
]
SAID = [
    ("BTCUSDT", START_MS, None),
    ("BTCUSDT", NEXT_MS, None),
    ("BTCUSDT", NEXT_MS, "stale_features: the market is known up to 6.1 s ago"),
]


def test_a_stream_gives_news(at_once: None) -> None:
    api = ScriptedApi(SCRIPT)
    with Client(URL, KEY, transport=api.transport) as client:
        assert said(list(islice(client.stream("BTCUSDT", horizon=5), 3))) == SAID
    assert api.queries == [{"symbols": "BTCUSDT", "horizon": "5"}] * 5


@run_async
async def test_an_asynchronous_stream_gives_the_same(at_once: None) -> None:
    found = []
    async with AsyncClient(URL, KEY, transport=ScriptedApi(SCRIPT).transport) as client:
        async for update in client.stream("BTCUSDT"):
            found.append(update)
            if update.stale:
                break
    assert said(found) == SAID


def closing_within(close: Callable[[], None]) -> Iterator[Answer | Callable[[httpx.Request], Answer]]:
    """Answers, and then one during which the client is closed."""

    def closed(_: httpx.Request) -> Answer:
        close()
        return httpx.ReadError("the connection was closed")

    yield several(latest())
    yield closed


def test_closing_the_client_ends_its_streams() -> None:
    """While it waits, from another thread, and within a request."""
    client = Client(URL, KEY, transport=ScriptedApi([several(latest())]).transport)
    stream = client.stream("BTCUSDT", every_s=3600)
    next(stream)
    closing = threading.Timer(0.1, client.close)
    closing.start()
    assert list(stream) == []
    closing.join()
    api = ScriptedApi(closing_within(lambda: another.close()))
    another = Client(URL, KEY, transport=api.transport)
    assert len(list(another.stream("BTCUSDT", every_s=0.1))) == 1
    assert list(another.stream("BTCUSDT")) == []


@run_async
async def test_closing_the_asynchronous_client_ends_its_streams() -> None:
    client = AsyncClient(URL, KEY, transport=ScriptedApi([several(latest())]).transport)
    found = []

    async def follow() -> None:
        async for update in client.stream("BTCUSDT", every_s=3600):
            found.append(update)
            followed.set()

    followed = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await followed.wait()
        await client.close()
    assert len(found) == 1


def test_a_stream_that_cannot_begin_raises() -> None:
    api = ScriptedApi([httpx.ConnectError("refused")])
    with Client(URL, KEY, transport=api.transport, retry_s=0) as client, pytest.raises(ConnectionFailed):
        next(client.stream("BTCUSDT"))
    assert len(api.requests) == 1

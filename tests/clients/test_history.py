"""Histories: pages are followed when they are needed, in both orders."""

from __future__ import annotations

from itertools import islice
from typing import Any

import httpx
import pytest

from tests.fixtures.asynchronous import run_async
from tests.fixtures.client_api import KEY, START_MS, URL, ScriptedApi, history_api, listed
from tickcast_client import AsyncClient, Client

NOW_MS = START_MS + 60_000
# Of 60 seconds, without those of a hole; not on the second.
KNOWN = [START_MS + second * 1000 + 37 for second in range(60) if not 20 <= second < 33]


@pytest.fixture
def api() -> ScriptedApi:
    return history_api(KNOWN, NOW_MS)


def client_of(api: ScriptedApi) -> Client:
    return Client(URL, KEY, transport=api.transport)


@pytest.mark.parametrize("page_size", [1, 7, 47, 1000])
@pytest.mark.parametrize("oldest_first", [False, True])
def test_all_pages_are_followed(api: ScriptedApi, oldest_first: bool, page_size: int) -> None:
    with client_of(api) as client:
        found = client.history(
            "BTCUSDT", from_=START_MS, to=NOW_MS, oldest_first=oldest_first, page_size=page_size
        )
        times = [each.timestamp for each in found]
    assert times == (KNOWN if oldest_first else KNOWN[::-1])


def test_a_window_with_more_predictions_than_a_page_is_read_in_full() -> None:
    """A window of a second may have the first predictions of two."""
    known = [START_MS + 950, START_MS + 1000, START_MS + 2900, START_MS + 3010]
    with client_of(history_api(known, NOW_MS)) as client:
        span: dict[str, Any] = {"from_": START_MS + 500, "to": START_MS + 4000, "page_size": 1}
        found = [each.timestamp for each in client.history("BTCUSDT", oldest_first=True, **span)]
    assert found == known


@pytest.mark.parametrize("oldest_first", [False, True])
def test_without_a_span_it_is_the_last_hour(api: ScriptedApi, oldest_first: bool) -> None:
    with client_of(api) as client:
        found = list(client.history("BTCUSDT", oldest_first=oldest_first))
    assert sorted(each.timestamp for each in found) == KNOWN
    assert "from" not in api.queries[0]


def test_newest_first_asks_for_a_page_only_when_it_is_needed(api: ScriptedApi) -> None:
    with client_of(api) as client:
        found = client.history("BTCUSDT", from_=START_MS, to=NOW_MS, page_size=10)
        assert not api.requests
        assert [each.timestamp for each in islice(found, 10)] == KNOWN[:-11:-1]
        assert len(api.requests) == 1
        next(found)
        assert len(api.requests) == 2


def test_oldest_first_asks_for_the_beginning_of_the_span_only(api: ScriptedApi) -> None:
    with client_of(api) as client:
        found = client.history("BTCUSDT", from_=START_MS, to=NOW_MS, page_size=10, oldest_first=True)
        assert [each.timestamp for each in islice(found, 10)] == KNOWN[:10]
    assert len(api.requests) == 2, "one for the span, one for its first window"
    assert api.queries[1] == {"from": str(START_MS), "to": str(START_MS + 9_999), "limit": "10"}


@pytest.mark.parametrize("page_size", [1, 10, 1000])
def test_oldest_first_is_quick_where_nothing_is_kept(page_size: int) -> None:
    """Years without a prediction, a lonely one in a hole of a month, and then some."""
    known = [START_MS - 86_400_000 * 30, *KNOWN[:12]]
    api = history_api(known, NOW_MS)
    with client_of(api) as client:
        found = client.history("BTCUSDT", from_="2015-01-01T00:00Z", oldest_first=True, page_size=page_size)
        assert [each.timestamp for each in found] == known
    assert len(api.requests) < 250


def test_options_are_of_every_page(api: ScriptedApi) -> None:
    for oldest_first in (False, True):
        with client_of(api) as client:
            found = list(
                client.history("BTCUSDT", horizon=2, outcomes=True, page_size=20, oldest_first=oldest_first)
            )
        assert found[0].outcomes[2].inside is True
    assert {(query["horizon"], query["outcomes"]) for query in api.queries} == {("2", "true")}


def test_a_page_without_predictions_does_not_end_a_history() -> None:
    """As the API may answer of its archive."""
    page: dict[str, Any] = {"symbol": "BTCUSDT", "horizon_s": 2, "from": START_MS, "to": NOW_MS}
    empty = page | {"count": 0, "next": "?from=1&limit=5&cursor=3", "predictions": []}
    last = page | {"count": 1, "next": None, "predictions": [listed(START_MS)]}
    api = ScriptedApi([httpx.Response(200, json=empty), httpx.Response(200, json=last)])
    with client_of(api) as client:
        assert [each.timestamp for each in client.history("BTCUSDT")] == [START_MS]
    assert api.queries[1] == {"from": "1", "limit": "5", "cursor": "3"}


def test_the_key_does_not_follow_an_address_elsewhere() -> None:
    page: dict[str, Any] = {"symbol": "BTCUSDT", "horizon_s": 2, "from": START_MS, "to": NOW_MS, "count": 0}
    pages = [
        page | {"next": following, "predictions": []}
        for following in ("https://elsewhere.example/?cursor=3", None)
    ]
    api = ScriptedApi([httpx.Response(200, json=each) for each in pages])
    with client_of(api) as client:
        assert list(client.history("BTCUSDT")) == []
    assert {request.url.host for request in api.requests} == {"api.example"}


@run_async
async def test_an_asynchronous_history_is_the_same() -> None:
    for oldest_first in (False, True):
        api = history_api(KNOWN, NOW_MS)
        async with AsyncClient(URL, KEY, transport=api.transport) as client:
            history = client.history(
                "BTCUSDT", from_=START_MS, to=NOW_MS, oldest_first=oldest_first, page_size=7
            )
            found = [each.timestamp async for each in history]
        assert found == (KNOWN if oldest_first else KNOWN[::-1])

"""What the observer notes of a system whose store and API are made up."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from local.commands.observer import Observer
from local.system.http_json import Response
from local.system.system import System
from tickcast.adapters.redis import keys

AGE_MS = 5_000


def stored(symbol: str, number: int, **changes: Any) -> bytes:
    prediction = {
        "id": f"{symbol}-{number}",
        "symbol": symbol,
        "timestamp": number,
        "basis_price": 1.0,
        "source": "model",
        "reason": None,
        "model_id": "m1",
        "inference_ms": 0.5,
        "path": [0.0] * 17,
    }
    return json.dumps(prediction | changes).encode()


class Api:
    """Each answer is `AGE_MS` old when it is asked for."""

    def get(self, path: str) -> Response:
        now_ms = int(time.time() * 1000)
        symbol = path.partition("/")[2]
        body = {"symbol": symbol, "timestamp": now_ms - AGE_MS, "as_of": now_ms, "basis_price": 1.0}
        return Response(200, body | {"source": "model", "horizons": {}})


class Store(dict[str, bytes]):
    """Redis as far as it is needed."""

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def mget(self, names: list[str]) -> list[bytes | None]:
        return [self.get(name) for name in names]


def observed(offset_ms: int = 0) -> tuple[Observer, Store]:
    store = Store()
    system = SimpleNamespace(
        symbols=("A", "B"),
        redis=lambda: store,
        api=Api(),
        options=SimpleNamespace(clock_offset_ms=offset_ms),
    )
    return Observer(cast(System, system)), store


def wait_for(seen: list[Any], count: int) -> None:
    deadline = time.monotonic() + 10
    while len(seen) < count and time.monotonic() < deadline:
        time.sleep(0.005)


def test_each_new_prediction_of_each_symbol_is_one_sighting() -> None:
    observer, store = observed()
    store[keys.latest_prediction("A")] = stored("A", 0)
    with observer:
        wait_for(observer.replies, 2)  # the store was read as well by now
        time.sleep(0.1)
        for number in (100, 200, 300):
            store[keys.latest_prediction("A")] = stored("A", number)
            store[keys.latest_prediction("B")] = stored("B", number)
            wait_for(observer.sightings, number // 50)
            store[keys.latest_prediction("A")] = stored("A", number, inference_ms=0.6)
            time.sleep(0.05)
    assert observer.errors == []
    seen = [(each.prediction["symbol"], each.prediction["timestamp"]) for each in observer.sightings]
    assert sorted(seen) == [(symbol, number) for symbol in "AB" for number in (100, 200, 300)]
    assert "path" not in observer.sightings[0].prediction


@pytest.mark.parametrize("offset_ms", [0, 700])
def test_random_readings_take_the_symbols_in_turn_and_have_the_age_at_receipt(offset_ms: int) -> None:
    observer, _ = observed(offset_ms)
    with observer:
        wait_for(observer.readings, 4)
    assert observer.errors == []
    assert [each.symbol for each in observer.readings[:4]] == ["A", "B", "A", "B"]
    for each in observer.readings:
        assert AGE_MS + offset_ms - 1 <= each.age_ms <= AGE_MS + offset_ms + each.took_ms + 2


def test_an_answer_without_what_is_promised_ends_the_observation() -> None:
    observer, store = observed()
    with observer:
        time.sleep(0.1)
        store[keys.latest_prediction("A")] = b'{"id": "A-1"}'
        wait_for(observer.errors, 1)
    assert len(observer.errors) == 1 and "symbol" in observer.errors[0]

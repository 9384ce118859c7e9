"""Symbols added and removed while predict_stream runs: none of their records is refused, none of the others'
is touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from botocore.exceptions import ReadTimeoutError

from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import SETTINGS, Clock, hot_path, put_model, ticks_in
from tests.fixtures.kinesis_events import event, record
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.registry.polling import POLL_EVERY_MS, inline
from tickcast.adapters.registry.served_symbols import (
    SERVED,
    adding,
    change_served,
    hot_served,
    removing,
)
from tickcast.functions.admitted_symbols import (
    ASK_AFTER_FAILURE_MS,
    ASK_AGAIN_MS,
    WRITE_EVERY_MS,
    AdmittedSymbols,
)
from tickcast.functions.predict_stream import PredictStream, Result
from tickcast.market import wire

ADDED = "SOLUSDT"
FIRST, *_ = SETTINGS.symbols


class Event:
    """Events with the next second of each of their symbols."""

    def __init__(self, predict: PredictStream, clock: Clock) -> None:
        self.predict, self.clock = predict, clock
        self.pieces: Iterator[wire.TickBatch] = iter(ticks_in(30, 1_000_000))
        self.number = 0

    def __call__(self, *symbols: str, later_ms: float = 1000) -> Result:
        self.clock.ms += later_ms
        piece, records = next(self.pieces), []
        for symbol in symbols:
            records.append(record(self.number, wire.encode(piece._replace(symbol=symbol))))
            self.number += 1
        return self.predict(event(*records))


@pytest.fixture
def send(predict: PredictStream, clock: Clock, s3: Any) -> Event:
    put_model(s3)
    return Event(predict, clock)


@pytest.fixture
def cold(send: Event, s3: Any, store: HotStore, clock: Clock) -> Event:
    """A cold start, after a warm function has admitted `ADDED`. The stream continues with the next second."""
    change(s3, adding([ADDED]))
    send(FIRST)
    started = Event(hot_path(store, s3, clock), clock)
    started.number, started.pieces = 100, send.pieces
    return started


class Counted:
    """S3 whose requests for the object are counted, and fail where a test says so."""

    def __init__(self, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests, self.is_down = 0, False
        get = s3.get_object

        def counted(**request: Any) -> Any:
            if request["Key"] == SERVED:
                self.requests += 1
                if self.is_down:
                    raise ReadTimeoutError(endpoint_url="https://s3")
            return get(**request)

        monkeypatch.setattr(s3, "get_object", counted)


def change(s3: Any, changed: Callable[[tuple[str, ...]], Any]) -> None:
    change_served(s3, BUCKET, SETTINGS.symbols, changed, since="2026-01-02T03:04:05+00:00", by="a test")


def predicted(result: Result) -> set[str]:
    return {prediction.symbol for prediction in result.predictions}


def test_a_symbol_is_admitted_with_its_first_record(
    send: Event, s3: Any, redis_client: redis.Redis, predict: PredictStream
) -> None:
    send(FIRST)
    change(s3, adding([ADDED]))
    result = send(FIRST, ADDED, later_ms=1)  # long before the next poll
    assert (predicted(result), result.quarantined) == ({FIRST, ADDED}, [])
    for _ in range(5):
        result = send(FIRST, ADDED)
        assert (predicted(result), result.quarantined) == ({FIRST, ADDED}, [])
    assert predict.symbols.symbols == (*SETTINGS.symbols, ADDED)
    assert json.loads(redis_client.get("symbols") or "") == {
        "version": 1,
        "symbols": [*SETTINGS.symbols, ADDED],
        "since": "2026-01-02T03:04:05+00:00",
    }
    assert 0 < redis_client.ttl("symbols") <= keys.TTL_S


def test_a_symbol_is_retired_without_a_trace_of_its_last_records(
    send: Event, s3: Any, predict: PredictStream
) -> None:
    send(FIRST, "ETHUSDT")
    change(s3, removing(["ETHUSDT"]))
    send(FIRST, later_ms=POLL_EVERY_MS)
    for _ in range(3):
        result = send(FIRST, "ETHUSDT")  # under way when ingest left it
        assert (predicted(result), result.quarantined, result.problems) == ({FIRST}, [], [])
    assert predict.states.keys() == {FIRST}
    change(s3, adding(["ETHUSDT"]))
    result = send(FIRST, "ETHUSDT", later_ms=ASK_AGAIN_MS)
    assert predicted(result) == {FIRST, "ETHUSDT"}


def test_a_stranger_is_refused_and_asked_about_once_in_a_while(
    send: Event, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(FIRST, later_ms=POLL_EVERY_MS)
    counted = Counted(s3, monkeypatch)
    for number in range(4):
        result = send("DOGEUSDT", later_ms=ASK_AGAIN_MS / 2)
        assert result.quarantined == ["symbol 'DOGEUSDT' is not one of BTCUSDT, ETHUSDT"]
        assert counted.requests == 1 + number // 2


def test_without_s3_a_cold_start_knows_what_others_found(
    cold: Event, s3: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(s3, monkeypatch)
    counted.is_down = True
    result = cold(FIRST, ADDED)
    assert (predicted(result), result.quarantined) == ({FIRST, ADDED}, [])
    before = counted.requests
    result = cold("DOGEUSDT", "DOGEUSDT")
    assert len(result.quarantined) == 2
    assert counted.requests == before + 1  # each attempt may take seconds
    clock.ms += ASK_AFTER_FAILURE_MS
    result = cold(FIRST)
    assert any(f"{SERVED} was never read: ReadTimeoutError" in each for each in result.problems)


def test_the_hot_store_is_told_of_a_change_and_every_minute(
    send: Event, s3: Any, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> bool:
        return redis_client.getdel("symbols") is not None

    send(FIRST)
    assert written()
    send(FIRST, later_ms=POLL_EVERY_MS)
    assert not written()
    change(s3, adding([ADDED]))
    send(FIRST, later_ms=POLL_EVERY_MS)
    assert written()
    send(FIRST, later_ms=WRITE_EVERY_MS)
    assert written()
    Counted(s3, monkeypatch).is_down = True
    send(FIRST, later_ms=WRITE_EVERY_MS)
    assert not written()  # others may know of a newer set


def test_a_damaged_object_is_reported_and_changes_nothing(
    send: Event, s3: Any, predict: PredictStream
) -> None:
    s3.put_object(Bucket=BUCKET, Key=SERVED, Body=b'{"version": 1, "symbols": ["btcusdt"]}')
    result = send(*SETTINGS.symbols, ADDED)
    assert predict.symbols.symbols == SETTINGS.symbols
    assert len(result.quarantined) == 1
    assert any("'btcusdt' in it, which is no symbol" in problem for problem in result.problems)


def test_a_write_that_fails_fails_no_event(
    send: Event, store: HotStore, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(key: str, text: str) -> None:
        raise redis.exceptions.OutOfMemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_text", refused)
        assert any("the symbols were not written" in problem for problem in send(FIRST).problems)
    send(FIRST)
    served = hot_served(redis_client.get("symbols"))
    assert served is not None and served.symbols == SETTINGS.symbols


def test_the_store_s_failure_is_the_event_s(
    send: Event, store: HotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of a symbol that nothing is known of is tried again, not refused."""

    def refused(names: list[str]) -> Any:
        raise redis.exceptions.ConnectionError("gone")

    monkeypatch.setattr(store, "values", refused)
    with pytest.raises(redis.exceptions.ConnectionError):
        send(ADDED)


def slow(s3: Any, store: HotStore, clock: Clock, polls: list[Callable[[], None]]) -> AdmittedSymbols:
    """Whose polls are started by the test."""
    return AdmittedSymbols(s3, BUCKET, SETTINGS.symbols, store, clock, polls.append, check_s=10)


def test_an_invocation_that_read_earlier_leaves_newer_symbols(
    s3: Any, store: HotStore, clock: Clock, redis_client: redis.Redis
) -> None:
    """Of two shards, the one that is about to read the object again must not bring back the older set."""
    polls: list[Callable[[], None]] = []
    other = AdmittedSymbols(s3, BUCKET, SETTINGS.symbols, store, clock, inline, check_s=10)
    late = slow(s3, store, clock, polls)
    for number, symbol in enumerate((ADDED, "XRPUSDT")):
        for _ in range(2):  # the second writes what the first read
            clock.ms += WRITE_EVERY_MS
            late.poll()
            polls.pop()()
        change(s3, adding([symbol]))
        clock.ms += WRITE_EVERY_MS
        other.poll()
        late.poll()
        found = hot_served(redis_client.get("symbols"))
        assert found is not None and (found.version, found.symbols[-1]) == (number + 1, symbol)
        polls.pop()()


def test_a_cold_start_on_a_damaged_object_leaves_what_others_know(
    cold: Event, s3: Any, redis_client: redis.Redis
) -> None:
    s3.put_object(Bucket=BUCKET, Key=SERVED, Body=b"{}")
    for _ in range(2):
        result = cold(FIRST, ADDED, later_ms=WRITE_EVERY_MS)
        assert (predicted(result), result.quarantined) == ({FIRST, ADDED}, [])
    cold(FIRST)
    assert redis_client.exists(keys.latest_prediction(ADDED))
    found = hot_served(redis_client.get("symbols"))
    assert found is not None and found.symbols == (*SETTINGS.symbols, ADDED)


def test_an_object_that_is_gone_brings_the_configured_symbols_back(
    send: Event, s3: Any, redis_client: redis.Redis
) -> None:
    change(s3, adding([ADDED]))
    send(FIRST)
    s3.delete_object(Bucket=BUCKET, Key=SERVED)
    send(FIRST, later_ms=WRITE_EVERY_MS)
    found = hot_served(redis_client.get("symbols"))
    assert found is not None and (found.version, found.symbols) == (0, SETTINGS.symbols)


def test_an_object_that_was_created_again_is_no_older_one(
    send: Event, s3: Any, redis_client: redis.Redis
) -> None:
    for symbol in (ADDED, "XRPUSDT"):
        change(s3, adding([symbol]))
    send(FIRST)
    s3.delete_object(Bucket=BUCKET, Key=SERVED)
    change(s3, adding(["ADAUSDT"]))
    send(FIRST, later_ms=WRITE_EVERY_MS)
    found = hot_served(redis_client.get("symbols"))
    assert found is not None and (found.version, found.symbols[-1]) == (1, "ADAUSDT")


def test_once_a_damaged_object_is_removed_a_cold_start_brings_the_configured_symbols_back(
    cold: Event, s3: Any, redis_client: redis.Redis
) -> None:
    s3.put_object(Bucket=BUCKET, Key=SERVED, Body=b"{}")
    cold(FIRST)
    s3.delete_object(Bucket=BUCKET, Key=SERVED)
    cold(FIRST, later_ms=WRITE_EVERY_MS)
    found = hot_served(redis_client.get("symbols"))
    assert found is not None and found.version == 0


def test_a_symbol_that_was_removed_before_a_poll_saw_it_is_retired(
    s3: Any, store: HotStore, clock: Clock
) -> None:
    polls: list[Callable[[], None]] = []
    symbols = slow(s3, store, clock, polls)
    change(s3, adding([ADDED]))
    assert symbols.admits(ADDED)
    change(s3, removing([ADDED]))
    symbols.poll()
    polls.pop()()
    assert symbols.update() == {ADDED}
    clock.ms += ASK_AGAIN_MS
    assert not symbols.admits(ADDED) and symbols.is_retired(ADDED)


def test_the_newest_of_a_removed_symbol_is_forgotten(send: Event, s3: Any, redis_client: redis.Redis) -> None:
    """If it is added again within a day, its old heartbeats do not count."""
    send(FIRST, "ETHUSDT")
    newest = [
        keys.latest_prediction("ETHUSDT"),
        keys.heartbeat("predict_stream", "ETHUSDT"),
        keys.heartbeat("ingest_ecs", "ETHUSDT"),
    ]
    assert redis_client.exists(*newest) == 3
    change(s3, removing(["ETHUSDT"]))
    send(FIRST, later_ms=WRITE_EVERY_MS)
    send(FIRST, "ETHUSDT")
    assert redis_client.exists(*newest) == 0
    assert redis_client.exists(keys.state("ETHUSDT"), keys.latest_prediction(FIRST)) == 2

"""The served symbols: the object changed by conditional write, the watcher, the hot store's text."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.aws import BUCKET
from tickcast.adapters.redis.symbol_set import SymbolSet
from tickcast.adapters.registry.served_symbols import (
    SERVED,
    ServedSymbols,
    SymbolsError,
    SymbolsRace,
    SymbolsWatcher,
    adding,
    change_served,
    hot_text,
    read_served,
    removing,
    served_from,
    served_or,
)

SINCE = "2026-01-02T03:04:05+00:00"
CONFIGURED = ("BTCUSDT", "ETHUSDT")


def put(s3: Any, document: Any) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    s3.put_object(Bucket=BUCKET, Key=SERVED, Body=body)


def change(s3: Any, changed: Callable[[tuple[str, ...]], Any]) -> ServedSymbols:
    return change_served(s3, BUCKET, CONFIGURED, changed, since=SINCE, by="somebody")


class Rival:
    """S3 as others use it as well: before each write of the object somebody else adds a symbol."""

    def __init__(self, s3: Any, added: list[str]) -> None:
        self._s3, self._added = s3, added
        self.exceptions = s3.exceptions

    def get_object(self, **request: Any) -> Any:
        return self._s3.get_object(**request)

    def put_object(self, **request: Any) -> Any:
        if self._added:
            change(self._s3, adding([self._added.pop()]))
        return self._s3.put_object(**request)


class Repeated(Rival):
    """S3 whose response to the first write is lost, so that the client sends the write again."""

    def put_object(self, **request: Any) -> Any:
        if self._added:
            self._added.pop()
            self._s3.put_object(**request)
        return self._s3.put_object(**request)


def test_without_an_object_the_configured_symbols_are_served(s3: Any) -> None:
    assert read_served(s3, BUCKET) is None
    assert served_or(s3, BUCKET, CONFIGURED) == CONFIGURED


def test_each_change_is_a_version(s3: Any) -> None:
    added = change(s3, adding(["SOLUSDT", "ETHUSDT"]))
    assert added == ServedSymbols(symbols=(*CONFIGURED, "SOLUSDT"), version=1, since=SINCE, by="somebody")
    assert read_served(s3, BUCKET) == added
    removed = change(s3, removing(["BTCUSDT"]))
    assert (removed.symbols, removed.version) == (("ETHUSDT", "SOLUSDT"), 2)
    assert served_or(s3, BUCKET, CONFIGURED) == ("ETHUSDT", "SOLUSDT")


def test_a_change_of_nothing_writes_nothing(s3: Any) -> None:
    assert change(s3, adding(["BTCUSDT"])).version == 0
    assert read_served(s3, BUCKET) is None


def test_a_change_is_repeated_on_what_others_made_of_the_object(s3: Any) -> None:
    rival = Rival(s3, ["XRPUSDT", "ADAUSDT"])
    served = change_served(rival, BUCKET, CONFIGURED, adding(["SOLUSDT"]), since=SINCE, by="me")
    assert served.symbols == (*CONFIGURED, "ADAUSDT", "XRPUSDT", "SOLUSDT")
    assert served.version == 3


def test_a_write_that_the_client_sent_twice_is_one_change(s3: Any) -> None:
    served = change_served(
        Repeated(s3, ["once"]), BUCKET, CONFIGURED, adding(["SOLUSDT"]), since=SINCE, by=""
    )
    assert (served.symbols, served.version) == ((*CONFIGURED, "SOLUSDT"), 1)


def test_a_write_that_the_client_sent_twice_is_not_refused_as_done_already(s3: Any) -> None:
    def once(served: tuple[str, ...]) -> tuple[str, ...]:
        assert "SOLUSDT" not in served
        return (*served, "SOLUSDT")

    served = change_served(Repeated(s3, ["once"]), BUCKET, CONFIGURED, once, since=SINCE, by="me")
    assert (served.symbols, served.version) == ((*CONFIGURED, "SOLUSDT"), 1)


def test_five_lost_races_end_it(s3: Any) -> None:
    rival = Rival(s3, [f"X{number}USDT" for number in range(5)])
    with pytest.raises(SymbolsRace, match="5 times in a row: try again"):
        change_served(rival, BUCKET, CONFIGURED, adding(["SOLUSDT"]), since=SINCE, by="me")


def test_what_cannot_be_served_is_not_written(s3: Any) -> None:
    with pytest.raises(SymbolsError, match="a list of at least one symbol"):
        change(s3, removing(CONFIGURED))
    with pytest.raises(SymbolsError, match="'btc/usdt' in it, which is no symbol like BTCUSDT"):
        change(s3, adding(["btc/usdt"]))
    assert read_served(s3, BUCKET) is None


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "it should be a JSON object"),
        ({"symbols": ["BTCUSDT"]}, "version is None"),
        ({"version": True, "symbols": ["BTCUSDT"]}, "version is True"),
        ({"version": -1, "symbols": ["BTCUSDT"]}, "version is -1"),
        ({"version": 1}, "symbols is None"),
        ({"version": 1, "symbols": []}, "at least one symbol"),
        ({"version": 1, "symbols": "BTCUSDT"}, "symbols is BTCUSDT"),
        ({"version": 1, "symbols": ["btcusdt"]}, "'btcusdt' in it"),
        ({"version": 1, "symbols": [1]}, "'1' in it"),
        ({"version": 1, "symbols": ["A", "A"]}, "A in it more than once"),
        (b"{", "Expecting"),
        (b'{"version": NaN}', "not a finite number"),
        (b"\xff", "utf-8"),
    ],
)
def test_a_damaged_object_is_named_and_keeps_what_is_served(s3: Any, document: Any, problem: str) -> None:
    watcher = SymbolsWatcher(s3, BUCKET, CONFIGURED)
    put(s3, {"version": 4, "symbols": ["SOLUSDT"]})
    assert watcher.refresh().symbols == ("SOLUSDT",)
    put(s3, document)
    with pytest.raises(SymbolsError, match=problem):
        read_served(s3, BUCKET)
    for _ in range(2):
        assert watcher.refresh().symbols == ("SOLUSDT",)
        assert problem in str(watcher.problem)
    put(s3, {"version": 5, "symbols": ["ADAUSDT"]})
    assert (watcher.refresh().symbols, watcher.problem) == (("ADAUSDT",), None)


def test_fields_that_nothing_depends_on_may_be_odd() -> None:
    odd = {"version": 1, "symbols": ["BTCUSDT"], "since": 5, "by": [], "more": {}}
    assert served_from(odd) == ServedSymbols(symbols=("BTCUSDT",), version=1)


def test_a_watcher_reads_what_changed_alone(s3: Any) -> None:
    watcher = SymbolsWatcher(s3, BUCKET, CONFIGURED)
    assert watcher.refresh() == ServedSymbols(symbols=CONFIGURED)
    change(s3, adding(["SOLUSDT"]))
    served = watcher.refresh()
    assert served.symbols == (*CONFIGURED, "SOLUSDT")
    assert watcher.refresh() is served  # not read again
    s3.delete_object(Bucket=BUCKET, Key=SERVED)
    assert watcher.refresh() == ServedSymbols(symbols=CONFIGURED)


def test_an_outage_changes_nothing(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = SymbolsWatcher(s3, BUCKET, CONFIGURED)
    change(s3, adding(["SOLUSDT"]))
    served = watcher.refresh()

    def refused(**request: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject")

    monkeypatch.setattr(s3, "get_object", refused)
    with pytest.raises(ClientError):
        watcher.refresh()
    assert (watcher.served, watcher.problem) == (served, None)


def test_the_hot_store_says_which_symbols_are_served() -> None:
    text = hot_text(ServedSymbols(symbols=("BTCUSDT", "币安人生USDT"), version=3, since=SINCE, by="me"))
    assert json.loads(text) == {"version": 3, "symbols": ["BTCUSDT", "币安人生USDT"], "since": SINCE}
    symbols = SymbolSet(CONFIGURED)
    for damaged in (None, b"", b"[]", b'{"version": 1, "symbols": []}'):
        assert not symbols.take(damaged)
        assert symbols.symbols == CONFIGURED
    assert symbols.take(text.encode()) and not symbols.take(text.encode())
    assert symbols.symbols == ("BTCUSDT", "币安人生USDT")
    assert not symbols.take(None)  # a store that lost them
    assert symbols.symbols == ("BTCUSDT", "币安人生USDT")
    since_ms = datetime.fromisoformat(SINCE).timestamp() * 1000
    assert symbols.is_new(since_ms + 59_000, 60_000) and not symbols.is_new(since_ms + 60_000, 60_000)

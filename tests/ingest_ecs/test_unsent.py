"""What Kinesis did not take: in S3 before it is described, whatever there is of it, and within the time."""

from __future__ import annotations

import io
import json
import threading
import time
from typing import Any

import pytest
from aws_lambda_powertools import Logger

from ingest_ecs import unsent
from ingest_ecs.outbox import Record
from ingest_ecs.quarantine import Quarantine
from tests.fixtures.asynchronous import run_async
from tickcast.market import wire
from tickcast.market.ticks import Trades, quotes_array, trades_array

TIME_US = 1_754_000_000_000_000
SYMBOLS = [f"S{n}USDT" for n in range(9)]


class S3:
    """Counts the puts under way; `answers` lets them end, as do `wanted_at_once` together."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.most_at_once = 0
        self.wanted_at_once = 0
        self.answers = threading.Event()
        self.has_begun = threading.Event()
        self._under_way = 0
        self._lock = threading.Lock()

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803
        with self._lock:
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
            if self._under_way == self.wanted_at_once:
                self.answers.set()
        self.has_begun.set()
        self.answers.wait(30)
        with self._lock:
            self._under_way -= 1
            self.objects[Key.rpartition("/")[2]] = Body


def trades(*ids: int) -> Trades:
    return trades_array([(TIME_US + i, TIME_US, i, i, 100_000_000, 100_000_000, 1) for i in ids])


def record(symbol: str, *ids: int) -> Record:
    batch = wire.TickBatch(symbol, "sbe", "c1", wire.NO_WATERMARK, trades(*ids), quotes_array([]))
    return Record(symbol, wire.encode(batch), len(ids))


async def keep(s3: S3, waiting: dict[str, list[Record]], seconds: float = 60.0) -> list[dict[str, Any]]:
    """Keep `waiting`; returns what was logged."""
    log = io.StringIO()
    logger = Logger(service=f"unsent {id(log)}", stream=log)
    deadline_s = time.monotonic() + seconds
    await unsent.keep(waiting, Quarantine(s3, "lake", logger), logger, "hanging", deadline_s)
    return [json.loads(line) for line in log.getvalue().splitlines()]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The records that were decoded."""
    found: list[bytes] = []
    decode = wire.decode

    def noted(data: bytes) -> wire.TickBatch:
        found.append(data)
        return decode(data)

    monkeypatch.setattr(wire, "decode", noted)
    return found


@run_async
async def test_a_full_outbox_is_being_put_before_it_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = S3()
    decode = wire.decode

    def after_a_put_has_begun(data: bytes) -> wire.TickBatch:
        assert s3.has_begun.wait(10)
        return decode(data)

    monkeypatch.setattr(wire, "decode", after_a_put_has_begun)
    s3.answers.set()
    await keep(s3, {"BTCUSDT": [record("BTCUSDT", 11)]})
    assert set(s3.objects) == {"unsent-BTCUSDT.bin", "unsent-BTCUSDT.json"}


@run_async
async def test_a_full_outbox_is_described_by_its_ends(decoded: list[bytes]) -> None:
    records = [record("BTCUSDT", 2 * n, 2 * n + 1) for n in range(1, 1001)]
    s3 = S3()
    s3.answers.set()
    await keep(s3, {"BTCUSDT": records})
    assert len(decoded) <= 2 * unsent.READ_AT_ENDS
    stored = json.loads(s3.objects["unsent-BTCUSDT.json"])
    assert stored["trade_ids"] == [2, 2001]
    assert (stored["records"], stored["ticks"]) == (1000, 2000)
    assert s3.objects["unsent-BTCUSDT.bin"] == unsent.joined(records)


def test_records_of_connections_side_by_side_are_described_together() -> None:
    """The first record need not hold the first id, nor the last one the last id."""
    described = unsent.about(
        "BTCUSDT", [record("BTCUSDT", *ids) for ids in [(7, 8), (5, 6), (20,), (18, 19)]]
    )
    assert described["trade_ids"] == [5, 20]
    assert described["times_us"] == [TIME_US + 5, TIME_US + 20]


def test_the_description_ends_at_the_deadline(decoded: list[bytes]) -> None:
    described = unsent.about("BTCUSDT", [record("BTCUSDT", 11)] * 3, deadline_s=time.monotonic())
    assert decoded == []
    assert (described["records"], described["ticks"], described["trade_ids"]) == (3, 3, [])


@run_async
async def test_few_puts_are_under_way_at_once() -> None:
    s3 = S3()
    s3.wanted_at_once = unsent.PUTS_AT_ONCE
    await keep(s3, {symbol: [record(symbol, 11)] for symbol in SYMBOLS})
    assert s3.most_at_once == unsent.PUTS_AT_ONCE
    assert len(s3.objects) == 2 * len(SYMBOLS)


@run_async
async def test_an_s3_that_hangs_costs_no_symbol_its_line() -> None:
    s3 = S3()
    log = await keep(s3, {symbol: [record(symbol, 11)] for symbol in SYMBOLS}, seconds=0.3)
    s3.answers.set()
    lines = [line for line in log if line["message"] == "ticks not put"]
    assert [(line["symbol"], line["kept"]) for line in lines] == [(symbol, "") for symbol in SYMBOLS]
    assert s3.most_at_once <= unsent.PUTS_AT_ONCE

"""The parts of fault injection without sockets: validation, frames, delays, the limit of attempts."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import re

import pytest

from local.exchange.attempts import Attempts
from local.exchange.delays import Delays
from local.exchange.fault_requests import Corrupt, Stall, parse
from local.exchange.frame_faults import Corruption, corrupted, newer
from local.exchange.rest import ApiError
from local.exchange.subscriptions import Limits
from tickcast.sbe import BestBidAskEvent, Event, SbeError, SbeTrade, TradesEvent, decode, encode

TRADES = TradesEvent(3, 2, -8, -8, (SbeTrade(7, 100, 5, True), SbeTrade(8, 101, 6, False)), "BTCUSDT")
QUOTE = BestBidAskEvent(3, 2, -8, -8, 100, 1, 101, 2, "BTCUSDT")
TEXTS = [
    '{"e":"trade","E":1,"s":"BTCUSDT","t":7}',
    '{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"1.0"}}',
]


# ---------------------------------------------------------------------------------------------------- faults


def test_parameters_have_defaults() -> None:
    assert parse('{"kind": "corrupt"}') == Corrupt(how="flip", count=1)
    assert parse('{"kind": "stall", "seconds": 5, "stream": "trade"}') == Stall(
        seconds=5.0, stream="trade", symbol=None, connections="all"
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "truncated"),
        ("[]", "Expected `object`"),
        ("{}", "missing required field `kind`"),
        ('{"kind": "explode"}', "'explode'"),
        ('{"kind": "stall", "second": 5}', "unknown field `second`"),
        ('{"kind": "stall", "seconds": "5"}', "got `str` - at `$.seconds`"),
        ('{"kind": "stall", "seconds": -1}', "> 0.0 - at `$.seconds`"),
        ('{"kind": "stall", "seconds": NaN}', "JSON is malformed"),
        ('{"kind": "stall", "stream": "depth"}', "Invalid enum value 'depth' - at `$.stream`"),
        ('{"kind": "drop", "connections": "some"}', "Invalid enum value 'some' - at `$.connections`"),
        ('{"kind": "max_age"}', "missing required field `age_s`"),
        ('{"kind": "corrupt", "count": 0}', ">= 1 - at `$.count`"),
        ('{"kind": "refuse_key", "status": 500}', "Invalid enum value 500 - at `$.status`"),
        ('{"kind": "rest_status"}', "a status or a delay_s is needed"),
        ('{"kind": "rest_status", "status": 404}', "status should be one of"),
    ],
)
def test_an_invalid_fault_is_refused_with_the_reason(body: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(body)


# ---------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("event", [TRADES, QUOTE], ids=["trades", "quote"])
@pytest.mark.parametrize("how", ["flip", "truncate", "template"])
def test_a_corrupted_frame_cannot_be_decoded(event: Event, how: Corruption) -> None:
    frame = corrupted(encode(event), how)
    assert isinstance(frame, bytes)
    with pytest.raises(SbeError):
        decode(frame)


@pytest.mark.parametrize("text", TEXTS)
def test_a_corrupted_text_is_no_known_event(text: str) -> None:
    for how in ("flip", "truncate"):
        with pytest.raises(json.JSONDecodeError):
            json.loads(corrupted(text, how))
    message = json.loads(corrupted(text, "template"))
    assert message.get("data", message) == {"e": "unknownEvent", "s": "BTCUSDT"}


@pytest.mark.parametrize("event", [TRADES, QUOTE], ids=["trades", "quote"])
@pytest.mark.parametrize(("block_bytes", "entry_bytes"), [(0, 0), (8, 4), (1, 0), (0, 3)])
def test_a_newer_frame_decodes_to_the_same_event(event: Event, block_bytes: int, entry_bytes: int) -> None:
    frame = newer(encode(event), 9, block_bytes, entry_bytes)
    assert isinstance(frame, bytes) and frame[6:8] == b"\x09\x00"
    entries = len(event.trades) if isinstance(event, TradesEvent) else 0
    assert len(frame) == len(encode(event)) + block_bytes + entries * entry_bytes
    assert decode(frame) == event


@pytest.mark.parametrize("text", TEXTS)
def test_a_newer_text_has_one_more_field(text: str) -> None:
    before, after = json.loads(text), json.loads(newer(text, 2, 8, 4))
    before.get("data", before)["schemaVersion"] = 2
    assert after == before


# ---------------------------------------------------------------------------------------------------- delays


def test_delays_keep_the_order_within_a_queue_and_lose_it_between_queues() -> None:
    delivered: list[int] = []

    async def run() -> None:
        delays = Delays(0.004, random.Random(1))
        held = 0
        while delivered == sorted(delivered):
            for line in ("even", "odd"):
                delays.hold(line, functools.partial(delivered.append, held))
                held += 1
            await asyncio.sleep(0.001)
        delays.flush()
        assert sorted(delivered) == list(range(held))
        for rest in (0, 1):
            assert [n for n in delivered if n % 2 == rest] == list(range(rest, held, 2))

    asyncio.run(run())


# -------------------------------------------------------------------------------------------------- attempts


def test_three_hundred_attempts_in_five_minutes() -> None:
    attempts = Attempts(Limits())
    for second in range(300):
        attempts.add("10.0.0.1", 1_000.0 + second / 10)
    with pytest.raises(ApiError) as caught:
        attempts.add("10.0.0.1", 1_030.0)
    assert caught.value.status == 429
    attempts.add("10.0.0.2", 1_030.0)  # another address
    wait_s = int(caught.value.headers["Retry-After"])
    attempts.add("10.0.0.1", 1_030.0 + wait_s)


def test_continuing_after_429_gets_a_ban() -> None:
    attempts = Attempts(Limits(attempts=20, attempts_within_s=60))
    statuses = []
    for _ in range(24):
        try:
            attempts.add("10.0.0.1", 5.0)
            statuses.append(101)
        except ApiError as error:
            statuses.append(error.status)
    assert statuses == [101] * 20 + [429] * 2 + [418] * 2
    with pytest.raises(ApiError) as caught:
        attempts.add("10.0.0.1", 100.0)
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (418, "25")
    attempts.add("10.0.0.1", 126.0)

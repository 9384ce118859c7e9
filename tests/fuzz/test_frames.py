"""Frames that no exchange would send: each is read or refused by name, and never affects its neighbours.

They are drawn from FUZZ_SEED in batches; a failure names seed and batch, and shows the frames that matter.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.fixtures.examples import FRAMES, SEED
from tests.market.test_frames import one_by_one
from tickcast import sbe
from tickcast.market.frames import Ticks, decode_frames
from tickcast.market.json_frames import JsonFrames
from tickcast.market.ticks import quotes_array, trades_array

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(7200)]

BATCH = 500
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBBTC", "币安USDT", "A", "Z" * 20)
EDGES = (0, 1, -1, 2**15, 2**31, 2**53, 2**62, 2**63 - 1, -(2**63))


def batches() -> Iterator[random.Random]:
    """A random source for each batch, determined by its number and FUZZ_SEED."""
    for number in range(-(-FRAMES // BATCH)):
        source = random.Random(f"{SEED}/{number}")
        try:
            yield source
        except GeneratorExit:  # the test broke off here
            print(f"reproduce: FUZZ_SEED={SEED}, batch {number}")
            raise


def number(source: random.Random) -> int:
    if source.random() < 0.2:
        return source.choice(EDGES)
    return source.randrange(1, 10 ** source.randrange(1, 19))


def event(source: random.Random) -> sbe.Event:
    symbol, exponents = source.choice(SYMBOLS), (source.choice((-8, -8, -8, -2, 3, -20)),) * 2
    bid, qty = number(source) % 10**14, number(source) % 10**13
    match source.randrange(8):
        case 0 | 1 | 2:
            return sbe.BestBidAskEvent(
                number(source),
                number(source),
                *exponents,
                bid,
                qty,
                bid + number(source) % 10**6,
                qty,
                symbol,
            )
        case 3 | 4 | 5:
            trades = tuple(
                sbe.SbeTrade(number(source), bid + n, qty, source.random() < 0.5)
                for n in range(source.choice((0, 1, 1, 2, 9)))
            )
            return sbe.TradesEvent(number(source), number(source), *exponents, trades, symbol)
        case 6:
            levels = tuple((bid - n, qty) for n in range(source.randrange(4)))
            return sbe.DepthSnapshotEvent(number(source), number(source), *exponents, levels, levels, symbol)
        case _:
            ids = number(source), number(source), number(source)
            return sbe.DepthDiffEvent(*ids, *exponents, (), ((bid, qty),), symbol)


def damaged(source: random.Random, data: bytes) -> bytes:
    """The frame, mostly unchanged; or with bytes changed, cut off, doubled or inserted, or replaced as a
    whole."""
    changed = bytearray(data)
    match source.randrange(12):
        case 0:
            for _ in range(source.randrange(1, 4)):
                changed[source.randrange(len(changed))] ^= source.randrange(1, 256)
        case 1:
            at = source.randrange(0, min(len(changed), 40)) // 2 * 2
            changed[at : at + 2] = source.choice((0, 1, 7, 25, 255, 32_768, 65_535)).to_bytes(2, "little")
        case 2:
            del changed[source.randrange(len(changed)) :]
        case 3:
            changed += source.randbytes(source.randrange(1, 9))
        case 4:
            at = source.randrange(len(changed))
            changed[at:at] = changed[: source.randrange(len(changed))]
        case 5:
            changed = bytearray(source.randbytes(source.randrange(150)))
    return bytes(changed)


def assert_same(got: Ticks, frames: list[bytes], received_us: list[int]) -> None:
    trades, quotes, errors = one_by_one(frames, received_us)
    assert sorted(i for i, _ in got.errors) == errors
    for found, expected, array in ((got.trades, trades, trades_array), (got.quotes, quotes, quotes_array)):
        assert found.keys() == expected.keys()
        for name, rows in expected.items():
            assert sorted(found[name].tolist()) == sorted(array(rows).tolist())


def smallest(frames: list[bytes], is_wrong: Callable[[list[bytes]], bool]) -> list[bytes]:
    """A minimal set of frames that still fails: without any of them, it would not."""
    step = len(frames) // 2
    while step:
        for at in range(0, len(frames), step):
            fewer = frames[:at] + frames[at + step :]
            if fewer and is_wrong(fewer):
                frames = fewer
                break
        else:
            step //= 2
    return frames


def test_many_frames_at_once_are_what_they_are_one_by_one() -> None:
    def is_wrong(frames: list[bytes]) -> bool:
        received_us = np.arange(len(frames)) + 7
        try:
            assert_same(decode_frames(frames, received_us), frames, received_us.tolist())
        except Exception:
            return True
        return False

    read = 0
    for source in batches():
        frames = [damaged(source, sbe.encode(event(source))) for _ in range(BATCH)]
        if is_wrong(frames):
            few = smallest(frames, is_wrong)
            received_us = np.arange(len(few)) + 7
            print("frames:", [frame.hex() for frame in few])
            assert_same(decode_frames(few, received_us), few, received_us.tolist())
        read += len(frames)
    assert read >= FRAMES


def test_bytes_of_many_frames_give_events_or_an_error_that_says_where() -> None:
    for source in batches():
        data = damaged(source, b"".join(sbe.encode(event(source)) for _ in range(BATCH)))
        events = sbe.decode_all(data)
        try:
            for found in events:
                assert found.symbol
        except sbe.SbeError as error:
            assert 0 <= error.offset <= len(data)


def text(source: random.Random) -> str:
    """A frame of the keyless feed, valid, or with a value, a name or the text itself changed."""
    values: tuple[Any, ...] = (None, True, "", "x", [], {}, 1.5, 2**80, -1, "1e5", "9" * 400, *EDGES)
    symbol = source.choice(SYMBOLS)
    if source.random() < 0.5:
        kind, data = "trade", {"e": "trade", "E": 2_000_001, "s": symbol, "t": number(source), "p": "1.5"}
        data |= {"q": "0.2", "T": 2_000_000, "m": source.random() < 0.5, "M": True}
    else:
        kind, data = (
            "bookTicker",
            {"u": number(source), "s": symbol, "b": "1.5", "B": "1", "a": "1.6", "A": "2"},
        )
    if source.random() < 0.3:
        data[source.choice(list(data))] = source.choice(values)
    if source.random() < 0.1:
        del data[source.choice(list(data))]
    names = list(data)
    source.shuffle(names)
    message: Any = {"stream": f"{symbol.lower()}@{kind}", "data": {name: data[name] for name in names}}
    if source.random() < 0.05:
        message[source.choice(("stream", "data"))] = source.choice(values)
    written = json.dumps(message, ensure_ascii=source.random() < 0.5)
    if source.random() < 0.1:
        at = source.randrange(len(written))
        written = written[:at] + source.choice(("", "\0", '"', "{", "NaN", "\ud800")) + written[at + 1 :]
    return written


def test_texts_are_read_or_refused_one_by_one() -> None:
    """Valid ones are read whatever is wrong with the others."""
    good = {
        "e": "trade",
        "E": 2_000_001,
        "s": "GOOD",
        "t": 7,
        "p": "1.5",
        "q": "2",
        "T": 2_000_000,
        "m": True,
    }
    right = json.dumps({"stream": "good@trade", "data": good})
    for source in batches():
        texts = [text(source) for _ in range(BATCH)]
        texts.insert(source.randrange(BATCH), right)
        received_us = np.arange(len(texts)) + 2_000_000
        got = JsonFrames().decode(texts, received_us)
        assert len(got.trades["GOOD"]) == 1
        rows = sum(map(len, (*got.trades.values(), *got.quotes.values())))
        assert rows + len(got.errors) == len(texts)

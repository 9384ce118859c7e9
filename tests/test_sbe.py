"""The codec: captured frames to the last byte, refusals, and round trips of arbitrary events."""

import contextlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.paths import EVENTS
from tickcast import sbe

CAPTURED: dict[str, dict[str, Any]] = json.loads((EVENTS / "sbe" / "captured.json").read_text())

QUOTE = sbe.BestBidAskEvent(
    1_743_671_488_514_451, 65_505_155_818, -8, -8, 8_359_600_000_000, 100, 8_359_601_000_000, 7, "BTCUSDT"
)
TRADES = sbe.TradesEvent(
    2, 1, -8, -8, (sbe.SbeTrade(5, 10, 20, True), sbe.SbeTrade(6, 11, 21, False)), "ETHUSDT"
)

int64 = st.integers(-(2**63), 2**63 - 1)
exponent = st.integers(-128, 127)
symbol = st.text(min_size=1, max_size=20)
levels = st.lists(st.tuples(int64, int64), max_size=30).map(tuple)
trade = st.builds(sbe.SbeTrade, int64, int64, int64, st.booleans())
events = st.one_of(
    st.builds(sbe.TradesEvent, int64, int64, exponent, exponent, st.lists(trade).map(tuple), symbol),
    st.builds(sbe.BestBidAskEvent, int64, int64, exponent, exponent, int64, int64, int64, int64, symbol),
    st.builds(sbe.DepthSnapshotEvent, int64, int64, exponent, exponent, levels, levels, symbol),
    st.builds(sbe.DepthDiffEvent, int64, int64, int64, exponent, exponent, levels, levels, symbol),
)


def captured(name: str) -> tuple[bytes, dict[str, Any]]:
    return bytes.fromhex(CAPTURED[name]["hex"]), CAPTURED[name]["decoded"]


@pytest.mark.parametrize("name", ["btcusdt_depthdiff_20250403", "dogeusdt_depth20_20250403"])
def test_captured_depth(name: str) -> None:
    frame, expected = captured(name)
    event = sbe.decode(frame)
    assert isinstance(event, sbe.DepthDiffEvent | sbe.DepthSnapshotEvent)
    for field in (*event._fields[:-3], "symbol"):
        first, *others = field.removesuffix("_us").split("_")
        assert getattr(event, field) == expected[first + "".join(map(str.title, others))]
    assert [list(level) for level in event.bids] == expected["bids"]
    assert [list(level) for level in event.asks] == expected["asks"]
    assert sbe.encode(event) == frame


def test_captured_prefixes_are_refused_as_truncated() -> None:
    prefixes = [
        bytes.fromhex(about["hex"])
        for name, about in CAPTURED.items()
        if name.startswith("partial_btcusdt_b")
    ]
    assert prefixes
    for prefix in prefixes:
        with pytest.raises(sbe.SbeError, match="truncated BestBidAskStreamEvent"):
            sbe.decode(prefix)


@given(events)
def test_encode_then_decode(event: sbe.Event) -> None:
    frame = sbe.encode(event)
    assert sbe.decode(frame) == event


@given(st.binary(max_size=200))
def test_any_bytes_give_events_or_a_typed_error(data: bytes) -> None:
    try:
        list(sbe.decode_all(data))
    except sbe.SbeError as error:
        assert 0 <= error.offset <= len(data)


@given(events, st.data())
def test_every_truncation_is_an_error(event: sbe.Event, data: st.DataObject) -> None:
    frame = sbe.encode(event)
    with pytest.raises(sbe.SbeError):
        sbe.decode(frame[: data.draw(st.integers(0, len(frame) - 1))])


@given(events, st.integers(0, 2**16 - 1))
def test_any_flipped_byte_gives_an_event_or_a_typed_error(event: sbe.Event, at: int) -> None:
    frame = bytearray(sbe.encode(event))
    frame[at % len(frame)] ^= 0xFF
    with contextlib.suppress(sbe.SbeError):
        sbe.decode(bytes(frame))


def test_longer_blocks_of_a_newer_version_are_skipped() -> None:
    """A later schema version may append fields to the block and to each group entry."""
    trades = b"".join(struct.pack("<qqqB", *trade) + b"new!" for trade in TRADES.trades)
    frame = (
        struct.pack("<HHHH", 18 + 3, sbe.TRADES, 1, 7)
        + struct.pack("<qqbb", *TRADES[:4])
        + b"new"
        + struct.pack("<HI", 25 + 4, len(TRADES.trades))
        + trades
        + b"\x07ETHUSDT"
    )
    assert sbe.decode(frame) == TRADES


def newer(event: sbe.Event, version: int, appended: bytes) -> bytes:
    """The frame of `event` as a later version may write it: with groups or texts behind the symbol."""
    frame = sbe.encode(event)
    return frame[:6] + struct.pack("<H", version) + frame[8:] + appended


@given(events, st.integers(1, 2**16 - 1), st.binary(max_size=40))
def test_what_a_newer_version_appends_is_skipped(event: sbe.Event, version: int, appended: bytes) -> None:
    assert sbe.decode(newer(event, version, appended)) == event


@given(events, st.binary(min_size=1, max_size=40))
def test_bytes_after_a_frame_of_version_0_are_an_error(event: sbe.Event, appended: bytes) -> None:
    with pytest.raises(sbe.SbeError, match="after the end of the frame"):
        sbe.decode(newer(event, 0, appended))


def test_newer_frames_end_to_end_are_separated_by_their_headers() -> None:
    added = b"\x03new\x00\x00"
    buffer = (
        newer(QUOTE, 1, added) + newer(TRADES, 1, b"") + newer(TRADES, 1, added * 9) + newer(QUOTE, 1, added)
    )
    assert list(sbe.decode_all(buffer)) == [QUOTE, TRADES, TRADES, QUOTE]
    with pytest.raises(sbe.SbeError, match="truncated"):
        list(sbe.decode_all(buffer + newer(TRADES, 1, b"")[:30]))


def test_an_empty_group_may_state_any_length_of_its_entries() -> None:
    trades = struct.pack("<HHHHqqbbHI", 18, sbe.TRADES, 1, 0, 2, 1, -8, -8, 0, 0) + b"\x07ETHUSDT"
    assert sbe.decode(trades) == TRADES._replace(trades=())
    no_levels = struct.pack("<HH", 0, 0) * 2
    depth = struct.pack("<HHHHqqbb", 18, sbe.DEPTH_SNAPSHOT, 1, 0, 2, 1, -8, -8) + no_levels + b"\x01A"
    assert sbe.decode(depth) == sbe.DepthSnapshotEvent(2, 1, -8, -8, (), (), "A")


def test_frames_end_to_end() -> None:
    assert list(sbe.decode_all(sbe.encode(QUOTE) + sbe.encode(TRADES))) == [QUOTE, TRADES]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "truncated header: 0 of 8 bytes"),
        (struct.pack("<HHHH", 50, 10001, 2, 0), "unknown schema 2"),
        (struct.pack("<HHHH", 50, 10009, 1, 0), "unknown template 10009"),
        (struct.pack("<HHHH", 49, 10001, 1, 0) + bytes(60), "blockLength 49 is shorter"),
        (sbe.encode(QUOTE) + b"xyz", "3 bytes after the end"),
        (sbe.encode(QUOTE)[:-8] + b"\x00", "empty symbol"),
        (sbe.encode(QUOTE)[:-8] + b"\x01\xff", "not UTF-8"),
        (sbe.encode(TRADES)[:32] + bytes(24) + b"\xff" + sbe.encode(TRADES)[57:], "isBuyerMaker is null"),
        (sbe.encode(TRADES)[:32] + bytes(24) + b"\x02" + sbe.encode(TRADES)[57:], "neither 0 nor 1"),
        (struct.pack("<HHHHqqbbHI", 18, 10000, 1, 0, 0, 0, -8, -8, 25, 2**31 - 1), "truncated group"),
        (
            struct.pack("<HHHHqqbbHI", 18, 10000, 1, 0, 0, 0, -8, -8, 0, 3) + b"\x01A",
            "group entry of 0 bytes",
        ),
    ],
)
def test_refusals_name_the_reason(frame: bytes, reason: str) -> None:
    with pytest.raises(sbe.SbeError, match=reason):
        sbe.decode(frame)


@given(events, st.integers(0, 2**16 - 1), st.integers(0, 255), st.binary(max_size=1))
def test_the_fast_path_of_plain_quotes_equals_the_general_one(
    event: sbe.Event, at: int, flip: int, more: bytes
) -> None:
    frame = bytearray(sbe.encode(event) + more)
    frame[at % len(frame)] ^= flip
    data = bytes(frame)
    try:
        expected, end = sbe.decode_from(data, 0)
    except sbe.SbeError as error:
        with pytest.raises(sbe.SbeError, match=re.escape(str(error))):
            sbe.decode(data)
        return
    if end == len(data) or data[6:8] != b"\0\0":
        assert sbe.decode(data) == expected
        assert type(sbe.decode(data)) is type(expected)
    else:
        with pytest.raises(sbe.SbeError, match="after the end"):
            sbe.decode(data)


@given(int64, st.integers(-20, 20))
def test_decimal_text_is_exact(mantissa: int, exponent: int) -> None:
    from decimal import Context

    text = sbe.decimal_text(mantissa, exponent)
    assert Context(prec=60).create_decimal(text) == Context(prec=60).create_decimal(mantissa).scaleb(
        exponent, Context(prec=60)
    )
    assert "." not in text or not text.endswith("0")


def test_command_prints_frames_then_names_the_bad_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "frames.bin"
    file.write_bytes(sbe.encode(TRADES) + sbe.encode(QUOTE) + b"junk")
    assert sbe.main([str(file)]) == 1
    out, err = capsys.readouterr()
    first, second = map(json.loads, out.splitlines())
    assert first == {
        "template": "TradesStreamEvent",
        "templateId": 10000,
        "eventTime": 2,
        "transactTime": 1,
        "trades": [
            {"id": 5, "price": "0.0000001", "qty": "0.0000002", "isBuyerMaker": True},
            {"id": 6, "price": "0.00000011", "qty": "0.00000021", "isBuyerMaker": False},
        ],
        "symbol": "ETHUSDT",
    }
    assert (second["bidPrice"], second["askQty"], second["symbol"]) == ("83596", "0.00000007", "BTCUSDT")
    size = len(sbe.encode(TRADES) + sbe.encode(QUOTE))
    assert err.strip() == f"{file}: offset {size}: truncated header: 4 of 8 bytes"
    assert sbe.main([str(tmp_path / "absent.bin")]) == 1
    assert sbe.main([]) == 2


def test_command_reads_newer_frames_and_shows_null_as_null(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "frames.bin"
    file.write_bytes(newer(QUOTE._replace(ask_price=sbe.NULL_INT64), 2, b"new") + newer(TRADES, 2, b"new"))
    assert sbe.main([str(file)]) == 0
    quote, trades = map(json.loads, capsys.readouterr().out.splitlines())
    assert (quote["askPrice"], quote["bidPrice"]) == (None, "83596")
    assert [trade["id"] for trade in trades["trades"]] == [5, 6]


def test_a_block_that_reaches_beyond_the_data_is_an_error_within_them() -> None:
    frame = sbe.encode(sbe.BestBidAskEvent(1, 2, -8, -8, 3, 4, 5, 6, "BTCUSDT"))
    beyond = (60_000).to_bytes(2, "little") + frame[2:]
    with pytest.raises(sbe.SbeError, match="the symbol is missing") as error:
        sbe.decode(beyond)
    assert error.value.offset == len(beyond)

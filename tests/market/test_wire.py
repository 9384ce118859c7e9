"""The wire batch: the same bytes as fastavro's, any split of blocks, and clear errors for damage."""

import contextlib
import io
from typing import Any

import fastavro
import fastavro.schema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.market import batch, random_ticks
from tickcast.market import wire
from tickcast.market.ticks import NO_QUOTES, QUOTE, TRADE, TickArray

NOTICES = (wire.Notice("reset by peer", 1, 2), wire.Notice("Überlauf", -5, 2**62))
BATCH = batch(*random_ticks(1, 1.0), watermark_us=1_754_000_001_000_000)._replace(
    notices=NOTICES, reference=random_ticks(2, 1.0)[1]
)
ARRIVED_US = 1_754_000_001_000_000
NO_TRADES = np.empty(0, TRADE)


def as_fields(b: wire.TickBatch) -> dict[str, Any]:
    def rows(array: TickArray) -> list[dict[str, bytes]]:
        return [{name: row[name].tobytes() for name in array.dtype.names or ()} for row in array]

    notices = [notice._asdict() for notice in b.notices]
    ticks = {name: rows(getattr(b, name)) for name in ("trades", "quotes", "reference")}
    return {**b._asdict(), **ticks, "notices": notices}


def by_fastavro(b: wire.TickBatch) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(wire.SCHEMA), as_fields(b))
    return b"\xc3\x01" + wire.FINGERPRINT + body.getvalue()


def test_fingerprint_is_the_schema_s() -> None:
    canonical = fastavro.schema.to_parsing_canonical_form(wire.SCHEMA)
    assert fastavro.schema.fingerprint(canonical, "CRC-64-AVRO") == wire.FINGERPRINT.hex()


def test_bytes_are_fastavro_s() -> None:
    assert wire.encode(BATCH) == by_fastavro(BATCH)


@given(
    st.text(min_size=1), st.text(), st.text(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=49 * 3)
)
def test_round_trip(symbol: str, source: str, connection: str, watermark_us: int, data: bytes) -> None:
    trades = np.frombuffer(data[: len(data) // TRADE.itemsize * TRADE.itemsize], TRADE)
    sent = wire.TickBatch(symbol, source, connection, watermark_us, trades, np.empty(0, QUOTE))
    got = wire.decode(wire.encode(sent))
    assert got[:4] == sent[:4]
    assert got.trades.tobytes() == trades.tobytes()
    assert len(got.quotes) == 0


def test_an_array_in_several_blocks_and_with_sizes_is_read() -> None:
    """Avro allows both; another writer may use them."""
    record = wire.encode(BATCH)
    one_block = wire._zigzag(len(BATCH.trades)) + BATCH.trades.tobytes()
    first, second = BATCH.trades[:3], BATCH.trades[3:]
    two_blocks = (
        wire._zigzag(-len(first))
        + wire._zigzag(first.nbytes)
        + first.tobytes()
        + wire._zigzag(len(second))
        + second.tobytes()
    )
    got = wire.decode(record.replace(one_block, two_blocks))
    assert got.trades.tobytes() == BATCH.trades.tobytes()


def test_notices_and_reference_quotes_survive_the_round_trip() -> None:
    got = wire.decode(wire.encode(BATCH))
    assert got.notices == NOTICES
    assert got.reference.tobytes() == BATCH.reference.tobytes()
    assert got.tick_count == len(BATCH.trades) + len(BATCH.quotes) + len(BATCH.reference)


@pytest.mark.parametrize("sent", [BATCH, BATCH._replace(reference=NO_QUOTES), batch(NO_TRADES, NO_QUOTES)])
def test_a_record_is_stamped_as_if_it_had_been_encoded_so(sent: wire.TickBatch) -> None:
    stamped = wire.stamped(wire.encode(sent), ARRIVED_US)
    assert stamped == wire.encode(sent._replace(sent_us=ARRIVED_US))
    assert len(stamped) <= len(wire.encode(sent)) + wire.STAMP_BYTES


def test_every_truncation_is_a_wire_error() -> None:
    record = wire.encode(batch(*random_ticks(1, 0.1))._replace(notices=NOTICES))
    for size in range(len(record)):
        with pytest.raises(wire.WireError):
            wire.decode(record[:size])


@given(st.binary(max_size=100))
def test_any_bytes_give_a_batch_or_a_wire_error(data: bytes) -> None:
    for record in (data, b"\xc3\x01" + wire.FINGERPRINT + data):
        with contextlib.suppress(wire.WireError):
            wire.decode(record)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "starts with nothing"),
        (b"garbage", "not an Avro single object"),
        (b"\xc3\x01" + bytes(8), "unknown schema fingerprint 0000000000000000"),
        (wire.encode(BATCH) + b"!", "1 bytes after the end"),
        (wire.encode(BATCH._replace(symbol="")), "names no symbol"),
    ],
)
def test_refusals_name_the_reason(record: bytes, reason: str) -> None:
    with pytest.raises(wire.WireError, match=reason):
        wire.decode(record)


def test_rows_of_another_dtype_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="the wire carries"):
        wire.encode(BATCH._replace(trades=BATCH.quotes))

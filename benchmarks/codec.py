"""Reading market data: SBE frames against JSON, the wire batch against fastavro."""

from __future__ import annotations

import io
from pathlib import Path

import fastavro
import msgspec
import numpy as np
import orjson
import sbe as pypi_sbe

from benchmarks.side_by_side import side_by_side
from tickcast import sbe, wire
from tickcast.frames import decode_frames
from tickcast.ticks import QUOTE, TRADE

COUNT = 1000
SCHEMA = Path(__file__).parents[2] / "shared" / "data" / "sbe" / "stream_1_0.xml"


class _BookTicker(msgspec.Struct):
    u: int
    s: str
    b: str
    B: str
    a: str
    A: str


class _Combined(msgspec.Struct):
    stream: str
    data: _BookTicker


def quote_events() -> list[sbe.BestBidAskEvent]:
    rng = np.random.default_rng(1)
    events = []
    for n in range(COUNT):
        bid_qty, ask_qty = (int(q) * 1000 for q in rng.integers(1, 10**6, 2))
        bid = 6_183_763_000_000 + int(rng.integers(-500, 500)) * 10**6
        time_us = 1_743_671_488_514_451 + 900 * n
        events.append(
            sbe.BestBidAskEvent(
                time_us, 65_505_155_818 + 3 * n, -8, -8, bid, bid_qty, bid + 10**6, ask_qty, "BTCUSDT"
            )
        )
    return events


def as_json(event: sbe.BestBidAskEvent) -> bytes:
    """The same quote as the exchange's JSON stream sends it."""
    bid, bid_qty, ask, ask_qty = (f"{m // 10**8}.{m % 10**8:08}" for m in event[4:8])
    data = {"u": event.book_update_id, "s": "BTCUSDT", "b": bid, "B": bid_qty, "a": ask, "A": ask_qty}
    return orjson.dumps({"stream": "btcusdt@bookTicker", "data": data})


def decode() -> dict[str, float]:
    """ns a frame: a thousand quotes into an array of numbers, and one quote alone."""
    events = quote_events()
    frames, texts = [sbe.encode(event) for event in events], [as_json(event) for event in events]
    received_us = np.arange(COUNT)
    typed = msgspec.json.Decoder(_Combined)

    def by_orjson() -> object:
        matrix = np.empty((COUNT, 5))
        for row, text in enumerate(texts):
            d = orjson.loads(text)["data"]
            matrix[row] = (d["u"], float(d["b"]), float(d["B"]), float(d["a"]), float(d["A"]))
        return matrix

    def by_msgspec() -> object:
        matrix = np.empty((COUNT, 5))
        for row, text in enumerate(texts):
            d = typed.decode(text).data
            matrix[row] = (d.u, float(d.b), float(d.B), float(d.a), float(d.A))
        return matrix

    def one_by_orjson() -> object:
        for text in texts:
            d = orjson.loads(text)["data"]
            quote = (d["u"], float(d["b"]), float(d["B"]), float(d["a"]), float(d["A"]))
        return quote

    choices = {
        "decode_batch": lambda: decode_frames(frames, received_us),
        "orjson": by_orjson,
        "msgspec": by_msgspec,
        "decode_one": lambda: [sbe.decode(frame) for frame in frames],
        "one_by_orjson": one_by_orjson,
    }
    times = side_by_side(choices, COUNT)
    if SCHEMA.exists():
        with SCHEMA.open() as file:
            schema = pypi_sbe.Schema.parse(file)
        few = frames[:20]
        slow = side_by_side({"sbe": lambda: [schema.decode(frame) for frame in few]}, len(few))
        times |= slow
    return times


def avro() -> dict[str, float]:
    """ns a tick: the wire batch written by its dtype and by fastavro; the bytes are the same."""
    rng = np.random.default_rng(2)
    trades, quotes = np.zeros(200, TRADE), np.zeros(COUNT - 200, QUOTE)
    for rows in (trades, quotes):
        for name in rows.dtype.names or ():
            rows[name] = rng.integers(-1, 2 if name == "side" else 10**15, len(rows))
    batch = wire.TickBatch("BTCUSDT", "sbe", "a1b2c3d4", 1_743_671_488_514_451, trades, quotes)
    schema = fastavro.parse_schema(wire.SCHEMA)

    def records(rows: np.ndarray) -> list[dict[str, bytes]]:
        return [{name: row[name].tobytes() for name in rows.dtype.names or ()} for row in rows]

    fields = {**batch._asdict(), "trades": records(trades), "quotes": records(quotes)}

    def by_fastavro() -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, schema, fields)
        return b"\xc3\x01" + wire.FINGERPRINT + body.getvalue()

    if by_fastavro() != wire.encode(batch):
        raise AssertionError("the wire batch is not what fastavro writes")
    return side_by_side({"avro_write": lambda: wire.encode(batch), "fastavro": by_fastavro}, COUNT)

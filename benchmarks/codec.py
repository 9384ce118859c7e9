"""Reading market data, SBE frames against JSON by the usual libraries; writing batches, against fastavro."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import numpy as np
import numpy.typing as npt
import orjson
import sbe as pypi_sbe

from benchmarks.sample import SYMBOL, quote_events
from benchmarks.side_by_side import Comparison, Effort, Work, comparison, side_by_side
from tickcast import sbe
from tickcast.market import wire
from tickcast.market.frames import decode_frames
from tickcast.market.ticks import QUOTE, SCALE, TRADE

COUNT = 1000
SCHEMA = Path(__file__).parents[2] / "shared" / "data" / "sbe" / "stream_1_0.xml"


class BookTicker(msgspec.Struct):
    """Prices and quantities are JSON strings, and stay strings until float() is called."""

    u: int
    s: str
    b: str
    B: str
    a: str
    A: str


class Combined(msgspec.Struct):
    stream: str
    data: BookTicker


class BookTickerFloats(msgspec.Struct):
    """msgspec at its best: it skips unused fields and reads the strings as numbers itself."""

    u: int
    b: float
    B: float
    a: float
    A: float


class CombinedFloats(msgspec.Struct):
    data: BookTickerFloats


STRINGS = msgspec.json.Decoder(Combined)
FLOATS = msgspec.json.Decoder(CombinedFloats, strict=False)
Row = tuple[int, float, float, float, float]


def as_json(event: sbe.BestBidAskEvent) -> bytes:
    """The same quote as the exchange's JSON stream sends it."""
    bid, bid_qty, ask, ask_qty = (f"{m // 10**8}.{m % 10**8:08}" for m in event[4:8])
    data = {"u": event.book_update_id, "s": "BTCUSDT", "b": bid, "B": bid_qty, "a": ask, "A": ask_qty}
    return orjson.dumps({"stream": "btcusdt@bookTicker", "data": data})


def one_by_orjson(text: bytes) -> Row:
    d = orjson.loads(text)["data"]
    return d["u"], float(d["b"]), float(d["B"]), float(d["a"]), float(d["A"])


def one_by_msgspec(text: bytes) -> Row:
    d = FLOATS.decode(text).data
    return d.u, d.b, d.B, d.a, d.A


# The same in separate loops: a function call for each quote would count against the libraries.


def by_orjson(texts: list[bytes]) -> npt.NDArray[Any]:
    rows = []
    for text in texts:
        d = orjson.loads(text)["data"]
        rows.append((d["u"], float(d["b"]), float(d["B"]), float(d["a"]), float(d["A"])))
    return np.array(rows)


def by_msgspec(texts: list[bytes]) -> npt.NDArray[Any]:
    rows = []
    for text in texts:
        d = STRINGS.decode(text).data
        rows.append((d.u, float(d.b), float(d.B), float(d.a), float(d.A)))
    return np.array(rows)


def by_msgspec_floats(texts: list[bytes]) -> npt.NDArray[Any]:
    rows = []
    for text in texts:
        d = FLOATS.decode(text).data
        rows.append((d.u, d.b, d.B, d.a, d.A))
    return np.array(rows)


def decode(effort: Effort) -> list[Comparison]:
    """A thousand quotes into arrays of numbers, and each by itself.

    Ours are rows of integers with both times, checked and by symbol; the others are five floats a quote.
    """
    events = quote_events(COUNT)
    frames, texts = [sbe.encode(event) for event in events], [as_json(event) for event in events]
    received_us = np.arange(COUNT)
    _check(frames, texts, received_us)
    choices = {
        "decode_frames": Work(lambda: decode_frames(frames, received_us), COUNT),
        "orjson, float()": Work(lambda: by_orjson(texts), COUNT),
        "msgspec typed, float()": Work(lambda: by_msgspec(texts), COUNT),
        "msgspec, numbers from strings": Work(lambda: by_msgspec_floats(texts), COUNT),
        "sbe.decode": Work(lambda: [sbe.decode(frame) for frame in frames], COUNT),
        "orjson, one": Work(lambda: [one_by_orjson(text) for text in texts], COUNT),
        "msgspec, one": Work(lambda: [one_by_msgspec(text) for text in texts], COUNT),
    }
    if SCHEMA.exists():
        with SCHEMA.open() as file:
            schema = pypi_sbe.Schema.parse(file)
        few = frames[:20]
        choices["PyPI sbe"] = Work(lambda: [schema.decode(frame) for frame in few], len(few))
    times = side_by_side(choices, effort)
    found = [
        comparison(times, "decode_batch_vs_orjson", "decode_frames", "orjson, float()", 25),
        comparison(times, "decode_batch_vs_msgspec", "decode_frames", "msgspec typed, float()", 15),
        comparison(times, "decode_batch_vs_msgspec_floats", "decode_frames", "msgspec, numbers from strings"),
        comparison(times, "decode_one_vs_orjson", "sbe.decode", "orjson, one", 1.3),
        comparison(times, "decode_one_vs_msgspec", "sbe.decode", "msgspec, one"),
    ]
    if "PyPI sbe" in times:
        found.append(comparison(times, "decode_batch_vs_sbe", "decode_frames", "PyPI sbe"))
    return found


def _check(frames: list[bytes], texts: list[bytes], received_us: npt.NDArray[Any]) -> None:
    """All read the same numbers."""
    usual = by_orjson(texts)
    if not (usual == by_msgspec(texts)).all() or not (usual == by_msgspec_floats(texts)).all():
        raise AssertionError("the usual libraries read different numbers")
    quotes = decode_frames(frames, received_us).quotes[SYMBOL]
    columns = [quotes["update_id"]]
    columns += [quotes[name] / SCALE for name in ("bid_price", "bid_qty", "ask_price", "ask_qty")]
    if not (usual == np.stack(columns, axis=1)).all():
        raise AssertionError("the frames are not the quotes of the texts")


def avro(effort: Effort) -> list[Comparison]:
    """The wire batch, written by its dtype and by fastavro; the bytes are the same."""
    rng = np.random.default_rng(2)
    trades, quotes = np.zeros(200, TRADE), np.zeros(COUNT - 200, QUOTE)
    for rows in (trades, quotes):
        for name in rows.dtype.names or ():
            rows[name] = rng.integers(-1, 2 if name == "side" else 10**15, len(rows))
    batch = wire.TickBatch("BTCUSDT", "sbe", "a1b2c3d4", 1_743_671_488_514_451, trades, quotes)
    schema = fastavro.parse_schema(wire.SCHEMA)

    def records(rows: npt.NDArray[Any]) -> list[dict[str, bytes]]:
        return [{name: row[name].tobytes() for name in rows.dtype.names or ()} for row in rows]

    fields = {**batch._asdict(), "trades": records(trades), "quotes": records(quotes)}

    def by_fastavro() -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, schema, fields)
        return b"\xc3\x01" + wire.FINGERPRINT + body.getvalue()

    if by_fastavro() != wire.encode(batch):
        raise AssertionError("the wire batch is not what fastavro writes")
    choices = {
        "wire.encode": Work(lambda: wire.encode(batch), COUNT),
        "fastavro": Work(by_fastavro, COUNT),
    }
    times = side_by_side(choices, effort)
    return [comparison(times, "avro_write_vs_fastavro", "wire.encode", "fastavro", 50)]

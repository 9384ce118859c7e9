"""Small random markets for tests: ticks with the shape of the real ones, in any order and number asked."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tickcast import wire
from tickcast.ticks import Quotes, Trades, quotes_array, trades_array

DATA = Path(__file__).parents[2] / "shared" / "data"
START_US = 1_754_000_000_000_000


def random_ticks(
    seed: int, seconds: float, trades_s: float = 30, quotes_s: float = 60
) -> tuple[Trades, Quotes]:
    """Trades and quotes of `seconds` from START_US on, in time order, ids contiguous."""
    rng = np.random.default_rng(seed)
    span_us = int(seconds * 1e6)
    trade_us = np.sort(rng.integers(0, span_us, rng.poisson(trades_s * seconds))) + START_US
    quote_us = np.sort(rng.integers(0, span_us, max(2, rng.poisson(quotes_s * seconds)))) + START_US
    bid = 6_000_000 + np.cumsum(rng.choice([-1, 0, 0, 0, 1], len(quote_us)))  # ticks of 0.01
    spread = rng.choice([1, 1, 1, 2, 5], len(quote_us))
    bid_qty, ask_qty = (np.rint(rng.lognormal(0, 1.5, len(quote_us)) * 1e5).astype(int) + 1 for _ in range(2))
    quotes = quotes_array(
        (int(t), int(t) + 900, 10 * i + 5, int(b) * 10**6, int(bq) * 1000, int(b + s) * 10**6, int(aq) * 1000)
        for i, (t, b, s, bq, aq) in enumerate(zip(quote_us, bid, spread, bid_qty, ask_qty, strict=True))
    )
    at = np.maximum(np.searchsorted(quote_us, trade_us, side="right") - 1, 0)
    side = rng.choice([-1, 1], len(trade_us))
    trades = trades_array(
        (
            int(t),
            int(t) + 700,
            1000 + i,
            1000 + i,
            int(bid[a] + (spread[a] if s > 0 else 0)) * 10**6,
            int(q),
            int(s),
        )
        for i, (t, a, s, q) in enumerate(
            zip(trade_us, at, side, rng.integers(1, 10**9, len(trade_us)), strict=True)
        )
    )
    return trades, quotes


def recorded_ticks(name: str) -> tuple[Trades, Quotes]:
    """Trades and quotes of a recording in the shared data, quote times moved to the exchange's clock."""
    trades, quotes, offset_us = [], [], None
    with gzip.open(DATA / "recordings" / name, "rt") as lines:
        for line in lines:
            local_ns, text = line.split(" ", 1)
            message, local_us = json.loads(text), int(local_ns) // 1000
            data = message.get("data", {})
            if data.get("e") == "trade":
                side = -1 if data["m"] else 1
                price, qty = (round(float(data[key]) * 1e8) for key in "pq")
                trades.append((data["T"] * 1000, local_us, data["t"], data["t"], price, qty, side))
                offset_us = offset_us or data["E"] * 1000 - local_us
            elif "bookTicker" in message.get("stream", ""):
                mantissas = [round(float(data[key]) * 1e8) for key in "bBaA"]
                quotes.append((local_us, local_us, data["u"], *mantissas))
    rows = quotes_array(quotes)
    rows["time_us"] += offset_us or 0
    return trades_array(trades), rows


def batch(
    trades: Trades, quotes: Quotes, watermark_us: int | None = None, connection: str = "a"
) -> wire.TickBatch:
    """A wire batch of BTCUSDT; its watermark is its newest tick unless told otherwise."""
    if watermark_us is None:
        times = [int(rows["time_us"].max()) for rows in (trades, quotes) if len(rows)]
        watermark_us = max(times, default=wire.NO_WATERMARK)
    return wire.TickBatch("BTCUSDT", "sim", connection, watermark_us, trades, quotes)


def batches(
    trades: Trades, quotes: Quotes, cuts_us: list[int], connection: str = "a"
) -> Iterator[wire.TickBatch]:
    """The stream cut at the given times."""
    edges = [-1, *sorted(cuts_us), 2**62]
    for start, stop in zip(edges, edges[1:], strict=False):
        t, q = (rows[(rows["time_us"] >= start) & (rows["time_us"] < stop)] for rows in (trades, quotes))
        if len(t) + len(q):
            yield batch(t, q, connection=connection)

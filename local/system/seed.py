"""History for a first model: ticks of the simulator's past, or of recordings, written to bronze.

REST history carries no quotes, and quotes carry most of the signal; so the first model of a local system
learns from the simulated exchange's own past, or from the recordings that are named for training. The
files stand beside what is archived live but under a name of their own: a model is never trained on what
it is about to be shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from local.exchange.events import Tick, Trade
from local.exchange.recording import read
from local.exchange.simulator import simulate
from tickcast.adapters.lake import bronze
from tickcast.market import wire
from tickcast.market.ticks import quotes_array, trades_array
from tickcast.units import HOUR_US

_FILE_TICKS = 50_000


def seed_bronze(
    s3: Any,
    bucket: str,
    symbols: Iterable[str],
    seed: int,
    epoch_us: int,
    seconds: int,
    recordings: list[Path],
) -> list[str]:
    """Write history to bronze and return the prefixes that hold it, for `train_model`.

    With `recordings` their ticks are the history (source replay), whatever symbols they hold; without,
    the first `seconds` of the market simulated from `epoch_us` (source sim).
    """
    if recordings:
        return _write(s3, bucket, "replay", read(recordings))
    end_us = epoch_us + seconds * 1_000_000
    prefixes: list[str] = []
    for symbol in symbols:
        past = itertools.takewhile(lambda tick: tick.time_us < end_us, simulate(symbol, seed, epoch_us))
        prefixes += _write(s3, bucket, "sim", past)
    return prefixes


def _write(s3: Any, bucket: str, source: str, ticks: Iterator[Tick]) -> list[str]:
    prefixes: dict[str, None] = {}
    for part in range(10**6):
        chunk = list(itertools.islice(ticks, _FILE_TICKS))
        if not chunk:
            break
        for symbol, hour in sorted({(tick.symbol, tick.time_us // HOUR_US) for tick in chunk}):
            mine = [tick for tick in chunk if (tick.symbol, tick.time_us // HOUR_US) == (symbol, hour)]
            folder = bronze.prefix(source, symbol, hour * HOUR_US) + "history-"
            data = bronze.write_file(bronze.market_data(_batch(source, symbol, mine)))
            s3.put_object(Bucket=bucket, Key=f"{folder}{part:06}.avro", Body=data)
            prefixes[folder] = None
    return list(prefixes)


def _batch(source: str, symbol: str, ticks: list[Tick]) -> wire.TickBatch:
    trades, quotes = [], []
    for tick in ticks:
        if isinstance(tick, Trade):
            side = -1 if tick.is_buyer_maker else 1
            trades.append((tick.time_us, tick.time_us, tick.id, tick.id, tick.price, tick.qty, side))
        else:
            quotes.append((tick.time_us, tick.time_us, *tick[2:]))
    return wire.TickBatch(
        symbol, source, "history", wire.NO_WATERMARK, trades_array(trades), quotes_array(quotes)
    )

"""History for a first model: ticks of the simulator's past, or of recordings, written to bronze.

REST history has no quotes, and quotes carry most of the signal; so the first model of a local system is
trained on the simulated exchange's own past, or on the recordings that are named for training. It goes the
way of all history: into bronze, from there into PostgreSQL by `load_history`, where `train_model` reads it.
The quotes of the perpetuals go with it, under a source of their own. Its objects are loaded by name: a model
is never trained on ticks that it will be served.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from local.exchange.events import MarketData, Quote, ReferenceQuote, Sending, Trade
from local.exchange.perpetual import with_perpetual
from local.exchange.recording import inspect, read
from local.exchange.reference import reference_feed, references_of
from local.exchange.simulator import simulate
from tickcast.adapters.lake import bronze
from tickcast.market import wire
from tickcast.market.sources import Source
from tickcast.market.ticks import Quotes, Trades, quotes_array, trades_array
from tickcast.units import HOUR_US

_FILE_TICKS = 50_000


class SeededObject(NamedTuple):
    symbol: str
    hour_us: int
    key: str
    etag: str


def seed_bronze(
    s3: Any,
    bucket: str,
    symbols: Iterable[str],
    seed: int,
    epoch_us: int,
    seconds: int,
    recordings: Sequence[Path],
    references: Sequence[Path] = (),
) -> list[SeededObject]:
    """Write history to bronze and return the objects.

    With `recordings` their ticks are the history (source replay) of all their symbols, with the quotes of
    their perpetuals in `references`; without, the first `seconds` of the market simulated from `epoch_us`
    (source sim) and of its perpetual.
    """
    if recordings:
        return _write(s3, bucket, Source.REPLAY, _recorded(recordings, references))
    end_us = epoch_us + seconds * 1_000_000
    objects: list[SeededObject] = []
    for symbol in symbols:
        market = with_perpetual(simulate(symbol, seed, epoch_us), symbol, seed)
        past = itertools.takewhile(lambda tick: tick.time_us < end_us, market)
        objects += _write(s3, bucket, Source.SIM, past)
    return objects


def _recorded(recordings: Sequence[Path], references: Sequence[Path]) -> Iterator[MarketData]:
    yield from read(recordings)
    markets, given = ([inspect(path) for path in paths] for paths in (recordings, references))
    for symbol in sorted(set().union(*(market.symbols for market in markets))):
        yield from map(as_of_arrival, reference_feed(symbol, references_of(symbol, given, markets)))


def load_requests(objects: Iterable[SeededObject]) -> dict[str, dict[str, Any]]:
    """By symbol, the request to `load_history` that loads `objects` and no others."""
    by_symbol: dict[str, list[SeededObject]] = {}
    for each in objects:
        by_symbol.setdefault(each.symbol, []).append(each)
    return {
        symbol: {
            "window": {
                "symbol": symbol,
                "from_us": min(each.hour_us for each in mine),
                "to_us": max(each.hour_us for each in mine) + HOUR_US,
            },
            "keys": [{"key": each.key, "etag": each.etag} for each in mine],
        }
        for symbol, mine in by_symbol.items()
    }


def _write(s3: Any, bucket: str, source: Source, ticks: Iterator[MarketData]) -> list[SeededObject]:
    objects = []
    for part in range(10**6):
        chunk = list(itertools.islice(ticks, _FILE_TICKS))
        if not chunk:
            break
        for symbol, hour in sorted({(tick.symbol, tick.time_us // HOUR_US) for tick in chunk}):
            mine = [tick for tick in chunk if (tick.symbol, tick.time_us // HOUR_US) == (symbol, hour)]
            trades, quotes = tick_arrays(mine)
            perpetual = reference_array(mine)
            for batch in (
                wire.TickBatch(symbol, source, "history", wire.NO_WATERMARK, trades, quotes),
                wire.TickBatch(symbol, source.reference, "history", wire.NO_WATERMARK, trades[:0], perpetual),
            ):
                if batch.tick_count:
                    key = f"{bronze.prefix(batch.source, symbol, hour * HOUR_US)}history-{part:06}.avro"
                    data = bronze.write_file(bronze.market_data(batch))
                    answer = s3.put_object(Bucket=bucket, Key=key, Body=data)
                    objects.append(SeededObject(symbol, hour * HOUR_US, key, answer["ETag"].strip('"')))
    return objects


def tick_arrays(ticks: Iterable[MarketData]) -> tuple[Trades, Quotes]:
    """The trades and quotes among `ticks`, received when they happened."""
    trades, quotes = [], []
    for tick in ticks:
        match tick:
            case Trade():
                side = -1 if tick.is_buyer_maker else 1
                trades.append((tick.time_us, tick.time_us, tick.id, tick.id, tick.price, tick.qty, side))
            case Quote():
                quotes.append((tick.time_us, tick.time_us, *tick[2:]))
    return trades_array(trades), quotes_array(quotes)


def reference_array(ticks: Iterable[MarketData]) -> Quotes:
    """The perpetual's quotes among `ticks`, received when they happened."""
    quotes = [tick for tick in ticks if isinstance(tick, ReferenceQuote)]
    return quotes_array([(quote.time_us, quote.time_us, *quote[2:]) for quote in quotes])


def as_of_arrival(sending: Sending) -> ReferenceQuote:
    """A recorded reference quote with its arrival as its time, as that of the recorded spot quotes."""
    assert isinstance(sending.event, ReferenceQuote)
    return sending.event._replace(time_us=sending.due_us)

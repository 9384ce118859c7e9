"""`python -m benchmarks.scale`: what a symbol costs when there are 1, 10, 100 or 1000 of them.

No AWS: the frames of a simulated market go through the real ingest (decoding, claims, records, PutRecords up
to the network), are spread over shards by the hash of their partition key, as Kinesis does it, and go to
`predict_stream` with a real Valkey and to `archive_ticks` with a stub of S3. As on Lambda each shard has a
`predict_stream` of its own. The market is made second by second and nothing of it is kept.

The rates are an assumption: Zipf's law, `TOP_TICKS_PER_S / rank ** EXPONENT`, so that of a thousand symbols
eight hundred have less than a tick a second. The first is as busy as the budget of docs/latency.md; in the
recordings of 2024-08-08 BTCUSDT had 109 and ETHUSDT 87 ticks a second. What a quiet symbol costs is not what
its ticks cost: it claims, and is predicted, as often as a busy one.

CPU is that of this process alone, Valkey's is apart; compare the figures of one run with each other.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from aws_lambda_powertools import Logger
from rich.console import Console

from benchmarks import event_to_redis, handler, producer, tick_to_redis
from ingest_ecs.feed_buffer import FeedBuffer
from ingest_ecs.producer import Producer
from tickcast import sbe
from tickcast.adapters import json_text
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.redis import keys
from tickcast.functions import predict_stream
from tickcast.functions.archive_ticks import archive
from tickcast.units import SECOND_US

TOP_TICKS_PER_S, EXPONENT = 200.0, 1.0
TRADE_SHARE = 0.21  # of the recorded ticks
START_US = 1_754_000_000 * SECOND_US
LINGER_MS = 100
WARM_UP_S, WARM_UP_EVENT_S = 70, 10  # a minute of bars, and the quantiles
SECONDS = 2
COUNTS = (1, 10, 100)
BENCH_COUNTS = (1, 30)
# What `cdk/stacks/app.py` asks of Lambda: at most so many records an event, or so long.
PREDICT_RECORDS, ARCHIVE_RECORDS, ARCHIVE_S = 500, 10_000, 60
EVENT_BYTES = 6_000_000  # AWS Lambda Developer Guide, "Lambda quotas"
SHARD_RECORDS_PER_S = 1000  # Kinesis Data Streams Developer Guide, "Quotas and limits"
SHARD_FILL = 0.7  # of that, on average: keys spread unevenly
HASH_KEYS = 2**128
RECORD_BYTES = len(json.dumps(handler.record(0, b"")))  # of an event's, besides its data
SAMPLED_KEYS = 50  # symbols whose keys are asked for their memory


def symbols_of(count: int) -> tuple[str, ...]:
    return ("BTCUSDT", "ETHUSDT", *(f"S{n:04}USDT" for n in range(3, count + 1)))[:count]


def rates_of(count: int, top: float = TOP_TICKS_PER_S, exponent: float = EXPONENT) -> list[float]:
    """Ticks a second of each symbol, by rank."""
    return [top / rank**exponent for rank in range(1, count + 1)]


def shard_of(key: str, shards: int) -> int:
    """The shard of a partition key: Kinesis takes its MD5 as a number of 128 bits, and a stream that was
    created with `shards` divides the numbers evenly."""
    digest = hashlib.md5(key.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest) * shards // HASH_KEYS


def shards_for(count: int, linger_ms: int = LINGER_MS) -> int:
    return max(1, -(-count * 1000 // round(linger_ms * SHARD_RECORDS_PER_S * SHARD_FILL)))


def hottest_share(weights: Sequence[float], shards: int) -> float:
    """How many times the average the busiest shard has, with a weight for each symbol by rank."""
    sums = [0.0] * shards
    for symbol, weight in zip(symbols_of(len(weights)), weights, strict=True):
        sums[shard_of(symbol, shards)] += weight
    return max(sums) * shards / sum(sums)


# ---------------------------------------------------------------------------------- the market and ingest


class Market:
    """The frames of all symbols in the order of time, second by second."""

    def __init__(self, symbols: Sequence[str], rates: Sequence[float], seed: int = 3) -> None:
        self._symbols = symbols
        self._rates = np.array(rates)
        self._rng = np.random.default_rng(seed)
        self._second = 0
        self._ids = [0] * len(symbols)
        self._bids = np.full(len(symbols), 6_000_000)

    def second(self) -> list[tuple[int, bytes]]:
        """The next second: times (µs) and frames. In the first each symbol has a quote at least."""
        counts = self._rng.poisson(self._rates)
        is_first = self._second == 0
        if is_first:
            counts = np.maximum(counts, 1)
        start_us = START_US + self._second * SECOND_US
        self._second += 1
        ranks = np.repeat(np.arange(len(counts)), counts)
        times_us = start_us + self._rng.integers(0, SECOND_US, len(ranks))
        is_trade = self._rng.random(len(ranks)) < TRADE_SHARE
        quantities = self._rng.integers(1, 10**6, len(ranks)) * 1000
        order = np.argsort(times_us, kind="stable")
        columns = ranks[order], times_us[order], is_trade[order] & (not is_first), quantities[order]
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [(time_us, self._frame(rank, time_us, trade, qty)) for rank, time_us, trade, qty in rows]

    def _frame(self, rank: int, time_us: int, is_trade: bool, qty: int) -> bytes:
        self._ids[rank] += 1
        number, symbol, bid = self._ids[rank], self._symbols[rank], int(self._bids[rank]) * 10**6
        if is_trade:
            trade = sbe.SbeTrade(number, bid, qty, bool(number % 2))
            return sbe.encode(sbe.TradesEvent(time_us + 500, time_us, -8, -8, (trade,), symbol))
        self._bids[rank] += number % 3 - 1
        return sbe.encode(sbe.BestBidAskEvent(time_us, number, -8, -8, bid, qty, bid + 10**6, qty, symbol))


class _Kinesis:
    """A real client up to the network, which keeps what is put until `take`."""

    def __init__(self) -> None:
        self._client = producer.StubKinesis().client
        self._records: list[dict[str, Any]] = []
        self.calls = 0

    def put_records(self, **request: Any) -> Any:
        self.calls += 1
        self._records += request["Records"]
        return self._client.put_records(**request)

    def take(self) -> list[dict[str, Any]]:
        records, self._records = self._records, []
        return records


class Ingest:
    """A task with one connection: frames in, the records of a linger out. `cpu_s` is what that took."""

    def __init__(self, symbols: tuple[str, ...], linger_ms: int, task: int = 0) -> None:
        self._now_us = START_US
        self.kinesis = _Kinesis()
        self.cpu_s = 0.0
        self.bytes = self.records = 0
        self._linger_us = linger_ms * 1000
        self._producer = Producer(
            self.kinesis,
            producer.STREAM,
            symbols,
            "sbe",
            linger_ms / 1000,
            Logger(service="bench", level="ERROR"),
            now_us=lambda: self._now_us,
            exchange_now_us=lambda: self._now_us,
        )
        self._buffer = FeedBuffer(1, f"bench{task}-1", "sbe")
        self._producer.attach(self._buffer)

    def second(self, frames: list[tuple[int, bytes]]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """The instant (µs) and the records of each linger of a second."""
        at, end_us = 0, self._now_us + SECOND_US
        while self._now_us < end_us:
            until_us = min(end_us, self._now_us + self._linger_us)
            started_s = time.process_time()
            while at < len(frames) and frames[at][0] < until_us:
                self._buffer.take(frames[at][1], frames[at][0] + 1000)
                at += 1
            self._now_us = until_us
            self._producer.pack()
            asyncio.run(self._producer.writer.put_waiting())
            self.cpu_s += time.process_time() - started_s
            records = self.kinesis.take()
            self.records += len(records)
            self.bytes += sum(len(each["Data"]) + len(each["PartitionKey"].encode()) for each in records)
            yield until_us, records

    def totals(self) -> tuple[float, ...]:
        return self.cpu_s, self.records, self.bytes, self._producer.counts.ticks_put, self.kinesis.calls


class Feed:
    """The market as all tasks of a setting put it."""

    def __init__(self, symbols: tuple[str, ...], rates: Sequence[float], setting: Setting) -> None:
        self._market = Market(symbols, rates)
        self._tasks = [Ingest(symbols, setting.linger_ms, task) for task in range(setting.tasks)]

    def second(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """The instant (µs) and the records of each linger of the next second, task by task."""
        frames = self._market.second()
        for lingers in zip(*(task.second(frames) for task in self._tasks), strict=True):
            yield from lingers

    def totals(self) -> tuple[float, ...]:
        """So far: CPU seconds, records, bytes, ticks and calls put."""
        return tuple(sum(each) for each in zip(*(task.totals() for task in self._tasks), strict=True))


@dataclass
class Shards:
    """Records by shard, as Lambda passes them."""

    count: int
    waiting: list[list[dict[str, Any]]] = field(init=False)
    _number: int = 0

    def __post_init__(self) -> None:
        self.waiting = [[] for _ in range(self.count)]

    def add(self, arrived_us: int, records: list[dict[str, Any]]) -> None:
        for each in records:
            shard = shard_of(each["PartitionKey"], self.count)
            self.waiting[shard].append(
                handler.record(self._number, each["Data"], arrived_us, each["PartitionKey"], shard)
            )
            self._number += 1

    def events(self, most: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The shard and the event of each batch of at most `most` records that wait."""
        for shard, records in enumerate(self.waiting):
            for at in range(0, len(records), most):
                yield shard, {"Records": records[at : at + most]}
            records.clear()


# ------------------------------------------------------------------------------------------- measurements


class Scale(NamedTuple):
    """Measured with `symbols` symbols. A second is one of the market; CPU is of one core."""

    symbols: int
    tasks: int
    linger_ms: int
    shards: int
    ticks_per_s: float  # of the market: each task puts as many
    records_per_s: float
    bytes_per_s: float
    put_calls_per_s: float
    ingest_cpu_ms_per_s: float
    predictions_per_s: float
    model_share: float  # of the predictions: the others are fallbacks
    event_symbols: float  # on average
    predict_cpu_ms_per_s: float
    busiest_cpu_ms_per_s: float  # of a shard's function
    predict_us: float  # CPU for an event and symbol
    slowest_event_ms: float  # CPU
    redis_commands_per_s: float
    redis_cpu_ms_per_s: float
    redis_bytes_per_hour: float  # of a symbol, with streams at their limits
    s3_puts_per_s: float
    s3_bytes_per_s: float
    archive_us_per_tick: float  # CPU
    archive_cpu_ms_per_s: float

    def line(self) -> str:
        count = self.symbols
        return (
            f"{count:>5} symbols, {self.tasks} tasks, {self.shards} shards: {self.ticks_per_s:,.0f} ticks, "
            f"{self.records_per_s:,.0f} records, {self.bytes_per_s / 1e3:,.0f} KB a second; "
            f"an event and symbol {self.predict_us:,.0f} us of CPU "
            f"({self.event_symbols:.1f} symbols an event, slowest {self.slowest_event_ms:.0f} ms); "
            f"CPU ms a second: ingest {self.ingest_cpu_ms_per_s:,.0f}, "
            f"predict {self.predict_cpu_ms_per_s:,.0f} (busiest shard {self.busiest_cpu_ms_per_s:,.0f}), "
            f"archive {self.archive_cpu_ms_per_s:,.0f}, Valkey {self.redis_cpu_ms_per_s:,.0f}; "
            f"{self.redis_commands_per_s:,.0f} Redis commands, {self.s3_puts_per_s:,.2f} S3 PUTs a second; "
            f"{self.redis_bytes_per_hour / 1e6:.1f} MB of Redis a symbol; "
            f"{self.model_share:.0%} of {self.predictions_per_s:,.0f} predictions by the model"
        )

    def per_symbol(self) -> dict[str, float]:
        """What a symbol takes, rounded to four digits; rates are per second of the market."""
        rates = {
            "records": self.records_per_s,
            "kinesis_bytes": self.bytes_per_s,
            "ingest_cpu_ms": self.ingest_cpu_ms_per_s,
            "predict_cpu_ms": self.predict_cpu_ms_per_s,
            "redis_commands": self.redis_commands_per_s,
            "redis_cpu_ms": self.redis_cpu_ms_per_s,
            "s3_puts": self.s3_puts_per_s,
            "s3_bytes": self.s3_bytes_per_s,
            "archive_cpu_ms": self.archive_cpu_ms_per_s,
        }
        each = {name: value / self.symbols for name, value in rates.items()}
        each |= {"predict_us_per_event": self.predict_us, "redis_mb": self.redis_bytes_per_hour / 1e6}
        return {name: float(f"{value:.4g}") for name, value in each.items()}


class _Predicted(NamedTuple):
    cpu_s: list[float]  # of each event
    shards: list[int]
    symbols: list[int]  # in each event
    predictions: int
    by_model: int


@dataclass(frozen=True)
class Setting:
    """What is simulated: so many tasks feed the stream, `seconds` are measured after the warm-up."""

    linger_ms: int = LINGER_MS
    tasks: int = 1
    seconds: int = SECONDS
    warm_up_s: int = WARM_UP_S

    def shards(self, symbols: int) -> int:
        """As many as the records need."""
        return shards_for(symbols * self.tasks, self.linger_ms)


def measure_at(count: int, setting: Setting) -> Scale:
    symbols, rates, seconds = symbols_of(count), rates_of(count), setting.seconds
    stream = Shards(setting.shards(count))
    with tick_to_redis._valkey() as client:
        model = event_to_redis._model()
        functions = [tick_to_redis._ours(client, model, symbols) for _ in range(stream.count)]
        feed = Feed(symbols, rates, setting)
        for second in range(setting.warm_up_s):
            for at_us, records in feed.second():
                stream.add(at_us, records)
            if (second + 1) % WARM_UP_EVENT_S == 0:
                for shard, event in stream.events(sys.maxsize):
                    functions[shard](event)
        predict_stream.settle.__wrapped__()  # as the handler does after its first event
        before, redis_before = feed.totals(), _redis_counts(client)
        found = _predict(functions, feed, stream, seconds)
        after, redis_after = feed.totals(), _redis_counts(client)
        hour_bytes = _bytes_per_hour(client, symbols)
    cpu_s, put_records, size, ticks, calls = ((b - a) / seconds for a, b in zip(before, after, strict=True))
    commands, redis_cpu_s = ((b - a) / seconds for a, b in zip(redis_before, redis_after, strict=True))
    by_shard = [0.0] * stream.count
    for shard, taken_s in zip(found.shards, found.cpu_s, strict=True):
        by_shard[shard] += taken_s
    archived = _archive(symbols, rates, setting, stream.count)
    return Scale(
        symbols=count,
        tasks=setting.tasks,
        linger_ms=setting.linger_ms,
        shards=stream.count,
        ticks_per_s=ticks / setting.tasks,
        records_per_s=put_records,
        bytes_per_s=size,
        put_calls_per_s=calls,
        ingest_cpu_ms_per_s=cpu_s * 1000,
        predictions_per_s=found.predictions / seconds,
        model_share=found.by_model / max(1, found.predictions),
        event_symbols=statistics.mean(found.symbols),
        predict_cpu_ms_per_s=sum(found.cpu_s) / seconds * 1000,
        busiest_cpu_ms_per_s=max(by_shard) / seconds * 1000,
        predict_us=sum(found.cpu_s) / sum(found.symbols) * 1e6,
        slowest_event_ms=max(found.cpu_s) * 1000,
        redis_commands_per_s=commands,
        redis_cpu_ms_per_s=redis_cpu_s * 1000,
        redis_bytes_per_hour=hour_bytes,
        s3_puts_per_s=archived.puts_per_s,
        s3_bytes_per_s=archived.bytes_per_s,
        archive_us_per_tick=archived.us_per_tick,
        archive_cpu_ms_per_s=archived.us_per_tick * ticks / 1000,
    )


def _predict(functions: list[Any], feed: Feed, stream: Shards, seconds: int) -> _Predicted:
    """The measured part: an event for each shard, task and linger, as fan-out delivers them."""
    cpu_s: list[float] = []
    shards: list[int] = []
    symbols: list[int] = []
    predictions = by_model = 0
    for _ in range(seconds):
        for at_us, records in feed.second():
            stream.add(at_us, records)
            for shard, event in stream.events(PREDICT_RECORDS):
                started_s = time.process_time()
                result = functions[shard](event)
                cpu_s.append(time.process_time() - started_s)
                shards.append(shard)
                symbols.append(len({each["kinesis"]["partitionKey"] for each in event["Records"]}))
                if result.failed or result.refused or result.fenced:
                    raise AssertionError(f"the events are not those of a sound market: {result.problems}")
                predictions += len(result.predictions)
                by_model += sum(each.source == "model" for each in result.predictions)
    return _Predicted(cpu_s, shards, symbols, predictions, by_model)


def _redis_counts(client: Any) -> tuple[int, float]:
    """Commands so far, those in scripts included, and CPU seconds."""
    info = client.info()
    return info["total_commands_processed"], info["used_cpu_user"] + info["used_cpu_sys"]


def _bytes_per_hour(client: Any, symbols: Sequence[str]) -> float:
    """The memory of a symbol after an hour, on average: each of its streams at its limit, by the average
    entry so far, and its other keys."""
    chosen = symbols[:: max(1, len(symbols) // SAMPLED_KEYS)]
    limits = (
        (keys.predictions, keys.PREDICTIONS_KEPT),
        (keys.recent_predictions, keys.RECENT_KEPT),
        (keys.outcomes, keys.OUTCOMES_KEPT),
    )
    singles = (keys.state, keys.latest_features, keys.latest_prediction, keys.gaps)
    total = 0.0
    for symbol in chosen:
        for name, limit in limits:
            if entries := client.xlen(name(symbol)):
                total += client.memory_usage(name(symbol), samples=0) / entries * limit
        total += sum(client.memory_usage(name(symbol)) or 0 for name in singles)
    return total / len(chosen)


class _Archived(NamedTuple):
    puts_per_s: float
    bytes_per_s: float
    us_per_tick: float


class _S3:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def put_object(self, *, Body: bytes, **_: Any) -> None:
        self.sizes.append(len(Body))


def _archive(symbols: tuple[str, ...], rates: list[float], setting: Setting, shards: int) -> _Archived:
    """The first event of each shard: as many records as an event takes, or those of a minute."""
    feed, stream, schemas = Feed(symbols, rates, setting), Shards(shards), SchemaRegistry(None, "")
    due = set(range(shards))
    puts_per_s = bytes_per_s = cpu_s = 0.0
    ticks = 0
    for second in range(1, ARCHIVE_S + 1):
        for at_us, records in feed.second():
            stream.add(at_us, records)
        for shard in range(shards):
            waiting = stream.waiting[shard]
            most = _most(waiting)
            if shard in due and (len(waiting) > most or second == ARCHIVE_S):
                s3, taken = _S3(), waiting[:most]
                started_s = time.process_time()
                result = archive({"Records": taken}, s3, "bench", schemas)
                cpu_s += time.process_time() - started_s
                span_s = second * len(taken) / max(1, len(waiting))
                puts_per_s += len(s3.sizes) / span_s
                bytes_per_s += sum(s3.sizes) / span_s
                ticks += result.ticks
                due.remove(shard)
            if shard not in due:
                waiting.clear()
        if not due:
            break
    return _Archived(puts_per_s, bytes_per_s, cpu_s / max(1, ticks) * 1e6)


def _most(records: list[dict[str, Any]]) -> int:
    """How many of `records` an event takes."""
    room = EVENT_BYTES
    for count, each in enumerate(records[:ARCHIVE_RECORDS]):
        room -= RECORD_BYTES + len(each["kinesis"]["data"])
        if room < 0:
            return count
    return ARCHIVE_RECORDS


def summary(found: Sequence[Scale]) -> dict[str, Any]:
    """For the last line of `make bench`: what a symbol takes with the most symbols measured, and how that
    compares with the fewest. A ratio of 1 is a cost that grows with the symbols alone."""
    least, most = found[0], found[-1]
    return {
        "scale_symbols": most.symbols,
        "scale_per_symbol": most.per_symbol(),
        "scale_predict_vs_one_symbol": round(most.predict_us / least.predict_us, 2),
        "scale_hottest_shard_of_1000": round(hottest_share([1.0] * 1000, shards_for(1000)), 2),
    }


def measure(is_quick: bool) -> list[Scale]:
    """In the small form of `make bench`."""
    setting = Setting(seconds=1, warm_up_s=WARM_UP_EVENT_S) if is_quick else Setting()
    return [measure_at(count, setting) for count in (BENCH_COUNTS[:1] if is_quick else BENCH_COUNTS)]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description="the cost of a symbol, by their number"
    )
    parser.add_argument(
        "--counts", default=",".join(map(str, COUNTS)), help="numbers of symbols; 1000 takes some minutes"
    )
    parser.add_argument("--linger-ms", type=int, default=LINGER_MS)
    parser.add_argument("--tasks", type=int, default=1, help="that feed the stream")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of the market, measured after a minute")
    asked = parser.parse_args(arguments)
    setting = Setting(linger_ms=asked.linger_ms, tasks=asked.tasks, seconds=asked.seconds)
    console, found = Console(stderr=True), []
    for count in map(int, asked.counts.split(",")):
        found.append(measure_at(count, setting))
        console.print(found[-1].line(), soft_wrap=True)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"peak of this process: {peak_mb:,.0f} MB")
    measured = {str(each.symbols): each._asdict() | {"per_symbol": each.per_symbol()} for each in found}
    print(json_text.text(summary(found) | {"measured": measured}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The cost of a tick in the producer: our packed records compared with the usual ways to put ticks into
Kinesis.

All go through botocore to its `before-send` event, where a stub answers as Kinesis would. So parameters are
validated, the request is serialised and signed and the answer parsed, but no byte is sent.

A thousand ticks are put, 60 ms of a full shard: one call with one record for us and for KPL's aggregation,
two calls of 500 records with one tick a record. Ours starts with the frame from the socket: buffer, decoding,
checks, packing, PutRecords. The usual ways get every tick as a ready-made dict, so only serialising and
putting are measured.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import boto3
import fastavro
import numpy as np
import orjson
from aws_kinesis_agg.aggregator import RecordAggregator
from aws_lambda_powertools import Logger
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from benchmarks.sample import START_US, SYMBOL, mixed_frames
from benchmarks.side_by_side import Comparison, Effort, Work, comparison, side_by_side
from ingest_ecs.feed_buffer import FeedBuffer
from ingest_ecs.producer import Producer
from tickcast.adapters.lake.bronze import MARKET_DATA, market_data
from tickcast.market import wire
from tickcast.market.frames import decode_frames

COUNT = 1000  # ticks of a linger: 60 ms of a full shard
MOST_RECORDS = 500  # of a PutRecords call
STREAM = "ticks"
SHARD_BYTES_PER_S = 1_000_000  # Kinesis: what a shard takes in

Tick = dict[str, Any]  # a MarketData record
Record = dict[str, Any]  # of PutRecords


class StubKinesis:
    """A real client whose requests end before the network. `records` counts what was put."""

    def __init__(self) -> None:
        self.client = boto3.client(
            "kinesis",
            region_name="us-east-1",
            aws_access_key_id="stub",
            aws_secret_access_key="stub",
            config=Config(retries={"mode": "standard", "total_max_attempts": 1}),
        )
        self.client.meta.events.register("before-send.kinesis.PutRecords", self._answer)
        self.records = 0

    def _answer(self, request: Any, **_: Any) -> AWSResponse:
        count = request.body.count(b'"PartitionKey"')
        self.records += count
        headers = {"content-type": "application/x-amz-json-1.1"}
        return AWSResponse(request.url, 200, headers, _Raw(_answer_body(count)))


class _Raw(io.BytesIO):
    def stream(self) -> Iterator[bytes]:
        yield self.read()


@cache
def _answer_body(count: int) -> bytes:
    record = {"SequenceNumber": f"4959{'0' * 52}", "ShardId": "shardId-000000000000"}
    return json.dumps({"FailedRecordCount": 0, "Records": [record] * count}).encode()


@contextmanager
def our_producer(kinesis: StubKinesis) -> Iterator[tuple[FeedBuffer, Any]]:
    """A buffer for frames, and a function that runs the real producer for one linger."""
    producer = Producer(kinesis.client, STREAM, (SYMBOL,), "sbe", 0.0, Logger(service="bench", level="ERROR"))
    buffer = FeedBuffer(1, "bench-1", "sbe")
    producer.attach(buffer)
    producer.drain()  # `run` then returns as soon as all ticks are put
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        yield buffer, lambda: loop.run_until_complete(producer.run())


def json_records(ticks: list[Tick]) -> list[Record]:
    return [{"Data": orjson.dumps(tick), "PartitionKey": SYMBOL} for tick in ticks]


def avro_records(ticks: list[Tick]) -> list[Record]:
    records = []
    for tick in ticks:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, MARKET_DATA, tick)
        records.append({"Data": body.getvalue(), "PartitionKey": SYMBOL})
    return records


def kpl_records(ticks: list[Tick]) -> list[Record]:
    """All of them in one record, as the Kinesis Producer Library packs them."""
    aggregator = RecordAggregator()
    for tick in ticks:
        aggregator.add_user_record(SYMBOL, orjson.dumps(tick))
    key, _, data = aggregator.clear_and_get().get_contents()
    return [{"Data": data, "PartitionKey": key}]


def measure(effort: Effort) -> tuple[list[Comparison], float]:
    """CPU a tick of each way, and the bytes of a tick in our records."""
    frames = mixed_frames(COUNT)
    ticks = decode_frames(frames, START_US + np.arange(COUNT))
    batch = wire.TickBatch(SYMBOL, "sbe", "bench-1", START_US, ticks.trades[SYMBOL], ticks.quotes[SYMBOL])
    dicts = list(market_data(batch))
    kinesis = StubKinesis()

    def put(records: list[Record]) -> None:
        for start in range(0, len(records), MOST_RECORDS):
            kinesis.client.put_records(StreamName=STREAM, Records=records[start : start + MOST_RECORDS])

    with our_producer(kinesis) as (buffer, linger):

        def ours(some: list[bytes]) -> None:
            for frame in some:
                buffer.take(frame, START_US)
            linger()

        ours(frames)
        if kinesis.records != 1:
            raise AssertionError("the ticks of one linger should go into one record")
        half = frames[: COUNT // 2]
        choices = {
            "packed": Work(lambda: ours(frames), COUNT),
            "packed, half as many": Work(lambda: ours(half), len(half)),
            "JSON, 500 records a call": Work(lambda: put(json_records(dicts)), COUNT),
            "Avro, 500 records a call": Work(lambda: put(avro_records(dicts)), COUNT),
            "KPL aggregation of JSON": Work(lambda: put(kpl_records(dicts)), COUNT),
        }
        times = side_by_side(choices, effort)
    # The claim is about the cheaper of the two usual ways.
    usual = min("JSON, 500 records a call", "Avro, 500 records a call", key=times.ns)
    found = [
        comparison(times, "producer_vs_put_records_500", "packed", usual, 4),
        comparison(times, "producer_of_500_vs_put_records_500", "packed, half as many", usual),
        comparison(times, "producer_vs_kpl", "packed", "KPL aggregation of JSON"),
    ]
    return found, (len(wire.encode(batch)) + len(SYMBOL)) / COUNT  # the shard counts keys too

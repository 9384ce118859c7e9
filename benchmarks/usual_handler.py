"""The handler as most people would write it: one Avro record a tick, BatchProcessor, state in plain
Python."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, cast

import fastavro
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord

from tickcast.adapters.lake.bronze import MARKET_DATA

BAR_US = 100_000

Tick = dict[str, Any]


class PlainBars:
    """Bars of 100 ms, a tick at a time: the sums of `tickcast.features.bars`, in floats.

    It ignores what `BarRing` checks: repeats, disorder, holes in the ids, late ticks.
    """

    def __init__(self) -> None:
        self.closed: list[Tick] = []
        self._end_us = 0
        self._bid = self._bid_qty = self._ask = self._ask_qty = 0.0
        self._level = 0.0  # the book's imbalance
        self._since_us = self._mid_change_us = 0
        self._begin()

    def update(self, tick: Tick) -> None:
        time_us = tick["timestamp"]
        while time_us >= self._end_us:
            self._close(time_us)
        if tick["kind"] == "trade":
            qty = tick["volume"]
            self._trade_count += 1
            self._notional += tick["price"] * qty
            if tick["aggressor"] == "buy":
                self._buy_qty += qty
            else:
                self._sell_qty += qty
        else:
            self._quote(time_us, tick["bid_price"], tick["bid_qty"], tick["ask_price"], tick["ask_qty"])

    def _quote(self, time_us: int, bid: float, bid_qty: float, ask: float, ask_qty: float) -> None:
        self._quote_count += 1
        if self._bid:
            if bid >= self._bid:
                self._ofi += bid_qty
            if bid <= self._bid:
                self._ofi -= self._bid_qty
            if ask <= self._ask:
                self._ofi -= ask_qty
            if ask >= self._ask:
                self._ofi += self._ask_qty
        if bid + ask != self._bid + self._ask:
            self._mid_change_us = time_us
        self._imbalance_us += self._level * (time_us - self._since_us)
        self._level, self._since_us = (bid_qty - ask_qty) / (bid_qty + ask_qty), time_us
        self._bid, self._bid_qty, self._ask, self._ask_qty = bid, bid_qty, ask, ask_qty

    def _begin(self) -> None:
        self._trade_count = self._quote_count = 0
        self._buy_qty = self._sell_qty = self._notional = self._ofi = self._imbalance_us = 0.0

    def _close(self, time_us: int) -> None:
        if not self._end_us:
            self._end_us = (time_us // BAR_US + 1) * BAR_US
            return
        self._imbalance_us += self._level * (self._end_us - self._since_us)
        self._since_us = self._end_us
        bar = {
            "end_us": self._end_us,
            "trade_count": self._trade_count,
            "buy_qty": self._buy_qty,
            "sell_qty": self._sell_qty,
            "notional": self._notional,
            "quote_count": self._quote_count,
            "ofi": self._ofi,
            "imbalance_us": self._imbalance_us,
            "bid_price": self._bid,
            "ask_price": self._ask,
            "mid_change_us": self._mid_change_us,
        }
        self.closed.append(bar)
        self._end_us += BAR_US
        self._begin()


def handle(event: dict[str, Any], take: Callable[[Tick], object]) -> object:
    """Pass every tick of `event` to `take`, as in Powertools' documentation."""

    def record_handler(record: KinesisStreamRecord) -> None:
        body = io.BytesIO(record.kinesis.data_as_bytes())
        take(cast(Tick, fastavro.schemaless_reader(body, MARKET_DATA, None)))

    processor = BatchProcessor(event_type=EventType.KinesisDataStreams)
    return process_partial_response(
        event=event, record_handler=record_handler, processor=processor, context=None
    )

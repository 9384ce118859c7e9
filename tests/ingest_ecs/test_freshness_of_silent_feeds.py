"""Session, feed buffer, producer, bars and the API's rule together, in virtual time: what is served of a feed
that falls silent, for whatever pauses its market has."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from aws_lambda_powertools import Logger

from ingest_ecs.feed_buffer import FeedBuffer
from ingest_ecs.producer import Producer
from tests.fixtures.frames import quote_frame, trade_frame
from tests.fixtures.receipts import TERMS
from tickcast.features.ring import BarRing
from tickcast.market import wire
from tickcast.market.liveness import Newest
from tickcast.market.session import Close, Open, Session
from tickcast.serving.outcomes import PendingPredictions
from tickcast.serving.prediction import Freshness, freshness, path_forecasts, row_of
from tickcast.serving.records import PathForecast
from tickcast.units import SECOND_US

T0_S = 1_754_000_000.0
STEP_S = 0.1
STALE_AFTER_S = 5.0
MARKET, BUSY = "AAAUSDT", "BUSYUSDT"


@dataclass
class Exchange:
    """Two markets with random pauses, REST that knows all of them, and streams that stop at `silent_s`."""

    mean_gap_s: dict[tuple[str, str], float]
    silent_s: float
    dead: set[tuple[str, str]]  # the streams that bring nothing any more, on any connection
    happens: bool = True  # whether trades and quotes continue during the silence
    rng: random.Random = field(default_factory=lambda: random.Random(3))
    next_s: dict[tuple[str, str], float] = field(default_factory=dict)
    count: dict[tuple[str, str], int] = field(default_factory=dict)

    def step(self, now_s: float, buffers: list[FeedBuffer]) -> None:
        for stream, gap_s in self.mean_gap_s.items():
            self.next_s.setdefault(stream, 1.0)
            while self.next_s[stream] <= now_s:
                at_s, is_silent = self.next_s[stream], now_s >= self.silent_s and stream in self.dead
                self.next_s[stream] += self.rng.expovariate(1 / gap_s)
                if is_silent and not self.happens:
                    continue
                self.count[stream] = self.count.get(stream, 0) + 1
                for buffer in buffers if not is_silent else ():
                    buffer.take(self.frame(stream, at_s), round((T0_S + at_s) * 1e6) + 5000)

    def frame(self, stream: tuple[str, str], at_s: float) -> bytes:
        (symbol, kind), us = stream, round((T0_S + at_s) * 1e6)
        n = self.count[stream]
        if kind == "trades":
            return trade_frame(n, symbol, us)
        return quote_frame(n, symbol, us, bid_qty=1 + n % 97)

    def newest(self, symbol: str) -> Newest:
        book = (99, 1 + self.count[symbol, "quotes"] % 97, 101, 5)
        return Newest(self.count[symbol, "trades"], book)


@dataclass
class Read:
    at_s: float
    known_s: float  # up to when what is served is known: the newest tick, or REST's evidence
    fresh: Freshness


class System:
    """All of it between the exchange and a reader of `MARKET`."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.now_s = 0.0
        self.opened = 0
        self.buffers: dict[int, FeedBuffer] = {}
        self.ring = BarRing(100_000)
        self.forecast: PathForecast | None = None
        streams = [stream for stream in exchange.mean_gap_s if stream[0] == MARKET]
        self.session = Session(streams, random.Random(1))
        self.producer = Producer(
            None,
            "s",
            (MARKET,),
            "sim",
            STEP_S,
            Logger(service="t", level="CRITICAL"),
            lambda connection, symbol, kind: self.session.data(connection, symbol, kind, self.now_s),
            self.now_us,
            busy_symbol=BUSY,
        )

    def now_us(self) -> int:
        return round((T0_S + self.now_s) * 1e6)

    def act(self, action: Open | Close) -> None:
        if isinstance(action, Open):
            self.opened += 1
            self.session.opened(action.connection, self.now_s)
            self.buffers[action.connection] = FeedBuffer(action.connection, f"c{action.connection}", "sbe")
            self.producer.attach(self.buffers[action.connection])
        else:
            self.producer.detach(self.buffers.pop(action.connection), action.reason)
            self.session.closed(action.connection, action.reason, None, self.now_s)

    def probe(self) -> None:
        for symbol in self.session.due_probes(self.now_s):
            delivered = {c: buffer.newest.get(symbol, Newest()) for c, buffer in self.buffers.items()}
            exchange, received = self.exchange.newest(symbol), self.producer.newest(symbol)
            if self.session.probed(symbol, exchange, received, delivered, self.now_s):
                self.producer.note_quiet(symbol, self.now_us())

    def step(self) -> None:
        for action in self.session.actions(self.now_s):
            self.act(action)
        self.probe()
        for stall in self.session.take_stalls():
            self.producer.note_stall(stall)
        for connection, buffer in self.buffers.items():
            buffer.withdrawn = self.session.withdrawn(connection)
        self.exchange.step(self.now_s, list(self.buffers.values()))
        self.producer.pack()
        while heads := self.producer.outbox.next_call():
            for record in heads:
                list(self.ring.fold(wire.decode(record.data), SECOND_US))
                self.predict()
                self.producer.outbox.remove(record)

    def predict(self) -> None:
        row = row_of(MARKET, self.ring.view(), self.ring.watermark.quiet_us)
        if row:
            (self.forecast,) = path_forecasts([(row, PendingPredictions())], None, None, TERMS, lambda: 0.0)

    def read(self) -> Read | None:
        if self.forecast is None:
            return None
        fresh = freshness(self.forecast, (T0_S + self.now_s) * 1000, STALE_AFTER_S)
        known_us = self.forecast.quiet_us if fresh.is_quiet else self.forecast.last_tick_us
        assert known_us is not None
        return Read(self.now_s, known_us / 1e6 - T0_S, fresh)


def run(exchange: Exchange, until_s: float) -> tuple[list[Read], int]:
    """What a reader sees from `silent_s` on, and how many connections were made."""
    system, reads = System(exchange), []
    while system.now_s < until_s:
        system.step()
        if system.now_s > exchange.silent_s and (read := system.read()):
            reads.append(read)
        system.now_s = round(system.now_s + STEP_S, 3)
    return reads, system.opened


GAPS_S = (0.1, 0.5, 1.0, 3.0)
OF_MARKET = {(MARKET, "trades"), (MARKET, "quotes")}


def flows(gap_s: float, busy: bool = True) -> dict[tuple[str, str], float]:
    market = {(MARKET, "trades"): gap_s * 4, (MARKET, "quotes"): gap_s}
    return market | ({(BUSY, "quotes"): 0.05} if busy else {})


@pytest.mark.parametrize("gap_s", GAPS_S)
@pytest.mark.parametrize(
    "dead",
    [OF_MARKET | {(BUSY, "quotes")}, OF_MARKET],
    ids=["nothing comes", "one market's streams are dead"],
)
@pytest.mark.parametrize("busy", [True, False], ids=["with a busy stream", "on its own"])
def test_data_of_a_silent_feed_are_fresh_for_five_seconds(
    gap_s: float, dead: set[tuple[str, str]], busy: bool
) -> None:
    exchange = Exchange(flows(gap_s, busy), 90.0, dead)
    reads, opened = run(exchange, 150.0)
    served = [read.at_s - read.known_s for read in reads if not read.fresh.is_stale]
    assert max(served, default=0.0) <= STALE_AFTER_S + 0.5
    late = [read for read in reads if read.at_s > 90 + 10]
    assert all(read.fresh.is_stale for read in late)
    assert opened < 30


@pytest.mark.parametrize("gap_s", GAPS_S)
def test_a_quiet_market_stays_fresh_without_reconnects(gap_s: float) -> None:
    exchange = Exchange(flows(gap_s), 90.0, OF_MARKET, happens=False)
    reads, opened = run(exchange, 150.0)
    late = [read for read in reads if read.at_s > 90 + 10]
    assert all(read.fresh.is_quiet and not read.fresh.is_stale for read in late)
    assert max(read.fresh.claim_age_s for read in late) < 3
    assert opened == 1

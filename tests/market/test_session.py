"""The session, driven by an exchange that fails in every way."""

import random
from itertools import pairwise
from typing import Any

import pytest

from tickcast.market.liveness import IN_FLIGHT_S, PROBE_AFTER_MIN_S, PROBE_INTERVAL_S, Newest, Stall
from tickcast.market.reconnect import (
    BACKOFF_CAP_S,
    MAX_ATTEMPTS,
    REPLACEMENT_CAP_S,
    FatalSessionError,
)
from tickcast.market.session import (
    OVERLAP_S,
    STALLED_AFTER_S,
    Close,
    Event,
    Feed,
    Open,
    Session,
    State,
    Tenure,
    transition,
)

S = 1_000_000


def test_only_what_the_tables_list_changes_a_state() -> None:
    kept, suspended, retired = Tenure.KEPT, Tenure.SUSPENDED, Tenure.RETIRED
    for feed in Feed:
        assert transition(State(feed, kept), Event.FAULT) == State(feed, suspended)
        assert transition(State(feed, suspended), Event.RECOVERY) == State(feed, kept)
        assert transition(State(feed, suspended), Event.EXPIRY) == State(feed, retired)
        assert {transition(State(feed, retired), event).tenure for event in Event} == {retired}
    assert transition(State(Feed.STALLED, suspended), Event.DATA) == State(Feed.LIVE, suspended)
    assert transition(State(Feed.CONNECTING), Event.DATA).feed is Feed.CONNECTING


STREAMS = [("BTCUSDT", "trades"), ("BTCUSDT", "quotes")]


class Driver:
    """Plays the socket loop and the exchange: time passes in steps, in each of them every stream has new
    data, and connections deliver it.

    `paused` streams have no new data. `silent` ones do, but a connection does not deliver them; `lost` ones
    are delivered by none. REST is `rest_lag_s` behind; a handshake takes `handshake_s`.
    """

    def __init__(self, rollover_s: float = 1000, streams: list[tuple[str, str]] = STREAMS) -> None:
        self.session = Session(streams, random.Random(1), rollover_s)
        self.streams = streams
        self.now_s = 0.0
        self.live: list[int] = []
        self.opening: dict[int, float] = {}
        self.log: list[tuple[float, str, int, str]] = []
        self.paused: set[tuple[str, str]] = set()
        self.silent: set[tuple[int, str]] = set()  # (connection, kind)
        self.lost: set[tuple[str, str]] = set()  # (symbol, kind)
        self.refuses: int | None = None  # handshakes are answered with this status
        self.is_frozen = False  # nothing comes on any connection
        self.has_rest = True
        self.rest_lag_s = 0.0
        self.handshake_s = 0.0
        self.probes: list[tuple[float, list[str]]] = []
        self.quiet: list[tuple[float, str]] = []
        self.stalls: list[Stall] = []
        self.happened = dict.fromkeys(streams, 0)
        self.history: list[tuple[float, dict[tuple[str, str], int]]] = []
        self.delivered: dict[int, dict[tuple[str, str], int]] = {}
        self.received: dict[tuple[str, str], int] = {}

    def run(self, seconds: float, step_s: float = 0.5) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.finish_handshakes()
            self.probe()
            for action in self.session.actions(self.now_s):
                self.act(action)
            self.stalls += self.session.take_stalls()
            self.happen()
            self.now_s += step_s

    def happen(self) -> None:
        for stream in self.streams:
            if stream in self.paused:
                continue
            self.happened[stream] += 1
            for connection in self.live if not self.is_frozen and stream not in self.lost else ():
                if (connection, stream[1]) not in self.silent:
                    self.delivered[connection][stream] = self.received[stream] = self.happened[stream]
                    self.session.data(connection, *stream, self.now_s)
        self.history = [*self.history[-40:], (self.now_s, dict(self.happened))]

    def probe(self) -> None:
        symbols = self.session.due_probes(self.now_s)
        if symbols:
            self.probes.append((self.now_s, symbols))
        if symbols and not self.has_rest:
            self.session.probe_failed(self.now_s)
            return
        known = [counts for at_s, counts in self.history if at_s <= self.now_s - self.rest_lag_s]
        for symbol in symbols if known else ():
            self.answer(symbol, newest(known[-1], symbol))

    def answer(self, symbol: str, exchange: Newest) -> None:
        delivered = {c: newest(self.delivered[c], symbol) for c in self.live}
        if self.session.probed(symbol, exchange, newest(self.received, symbol), delivered, self.now_s):
            self.quiet.append((self.now_s, symbol))

    def act(self, action: Open | Close) -> None:
        self.log.append((self.now_s, type(action).__name__, action.connection, action.reason))
        if isinstance(action, Close):
            self.live.remove(action.connection)
            self.session.closed(action.connection, "closed by us", None, self.now_s)
        elif self.refuses:
            self.session.closed(action.connection, f"HTTP {self.refuses}", self.refuses, self.now_s)
        else:
            self.opening[action.connection] = self.now_s + self.handshake_s
            self.finish_handshakes()

    def finish_handshakes(self) -> None:
        for connection in [c for c, at_s in self.opening.items() if at_s <= self.now_s]:
            del self.opening[connection]
            self.session.opened(connection, self.now_s)
            self.live.append(connection)
            self.delivered[connection] = {}

    def lose(self, why: str = "reset by peer") -> None:
        self.session.closed(self.live.pop(), why, None, self.now_s)

    @property
    def steps(self) -> list[tuple[str, int]]:
        return [(kind, connection) for _, kind, connection, _ in self.log]

    @property
    def opens_s(self) -> list[float]:
        return [at_s for at_s, kind, _, _ in self.log if kind == "Open"]


def newest(counts: dict[tuple[str, str], int], symbol: str) -> Newest:
    """What is known of `symbol` once so much has happened on its streams."""
    quotes = counts.get((symbol, "quotes"))
    book = None if quotes is None else (99, 1 + quotes % 97, 101, 5)
    return Newest(counts.get((symbol, "trades")), book)


def started(**options: Any) -> Driver:
    """A driver whose first connection has delivered for a minute, and that never rolls over."""
    driver = Driver(rollover_s=10**6, **options)
    driver.run(60)
    return driver


def test_one_connection_is_opened_and_kept() -> None:
    driver = Driver()
    driver.run(500)
    assert driver.steps == [("Open", 1)]
    assert driver.session.is_live


def test_rollover_opens_the_second_before_it_closes_the_first() -> None:
    driver = Driver(rollover_s=100)
    driver.run(150)
    assert driver.steps == [("Open", 1), ("Open", 2), ("Close", 1)]
    opened_s, closed_s = driver.log[1][0], driver.log[2][0]
    assert 100 < opened_s < 102
    assert opened_s + OVERLAP_S < closed_s < opened_s + OVERLAP_S + 2  # what was under way has arrived
    assert "24 h" in driver.log[2][3]
    driver.run(100)
    assert driver.steps[3:] == [("Open", 3), ("Close", 2)]


def test_the_first_is_kept_until_a_successor_delivers_as_much() -> None:
    """The second brings no trades: the first stays, and a third replaces both."""
    driver = Driver(rollover_s=100)
    driver.silent.add((2, "trades"))
    driver.run(105)
    assert driver.live == [1, 2]
    driver.run(12)
    assert driver.live == [1, 2]  # it is not known yet that the second delivers none
    for _ in range(2):
        driver.answer("BTCUSDT", newest(driver.happened, "BTCUSDT"))
        driver.run(1)
    driver.run(10)
    assert driver.live == [3]


def test_a_delivering_connection_is_kept_while_no_successor_delivers() -> None:
    driver = Driver(rollover_s=100)
    driver.run(90)
    driver.silent |= {(connection, "trades") for connection in range(2, 90)}
    for _ in range(60):
        driver.run(5)
        driver.answer("BTCUSDT", newest(driver.happened, "BTCUSDT"))
    assert 1 in driver.live
    assert len(driver.opens_s) < 8  # and the exchange is not flooded with attempts


def test_an_announced_shutdown_rolls_over_at_once() -> None:
    driver = Driver()
    driver.run(20)
    driver.session.shutdown_announced(1)
    driver.run(4)
    assert driver.steps == [("Open", 1), ("Open", 2), ("Close", 1)]
    assert driver.log[1][0] == 20
    assert "shutdown" in driver.log[1][3]


@pytest.mark.parametrize("kind", ["quotes", "trades"])
def test_a_dead_stream_is_found_by_evidence_and_replaced(kind: str) -> None:
    driver = started()
    driver.silent.add((1, kind))
    driver.run(60)
    assert driver.steps == [("Open", 1), ("Open", 2), ("Close", 1)]
    twice_s = PROBE_INTERVAL_S + 1 if kind == "quotes" else 0  # a book that differs has to be found twice
    assert PROBE_AFTER_MIN_S <= driver.log[1][0] - 60 <= PROBE_AFTER_MIN_S + IN_FLIGHT_S + twice_s + 2
    assert driver.log[1][3].startswith(f"no {kind} of BTCUSDT for")
    (stall,) = driver.stalls
    assert (stall.symbol, stall.kind) == ("BTCUSDT", kind)
    assert stall.seconds >= PROBE_AFTER_MIN_S


def test_without_evidence_nothing_is_dead() -> None:
    driver = Driver(rollover_s=10**6)
    driver.has_rest = False
    driver.run(60)
    driver.paused.add(("BTCUSDT", "trades"))
    driver.run(3600)
    assert driver.steps == [("Open", 1)]
    assert driver.session.withdrawn(1) == set()


def test_data_under_way_during_a_probe_are_no_evidence() -> None:
    driver = started()
    driver.happened = {stream: count + 3 for stream, count in driver.happened.items()}
    driver.answer("BTCUSDT", newest(driver.happened, "BTCUSDT"))
    driver.run(30)  # it came with the next frames
    assert driver.steps == [("Open", 1)]
    assert driver.stalls == []


TWO = [(symbol, kind) for symbol in ("BTCUSDT", "ETHUSDT") for kind in ("trades", "quotes")]


def test_only_the_claim_of_the_affected_symbol_is_withdrawn_and_restored() -> None:
    driver = started(streams=TWO)
    driver.refuses = 503  # no successor helps
    driver.lost.add(("ETHUSDT", "trades"))
    driver.run(10)
    assert driver.session.withdrawn(1) == {"ETHUSDT"}
    driver.lost.clear()
    driver.run(1)
    assert driver.session.withdrawn(1) == set()
    attempts = len(driver.opens_s)
    driver.refuses = None
    driver.run(300)
    assert len(driver.opens_s) == attempts  # what it was retired for is over
    assert driver.live == [1]


def test_a_dead_stream_stays_withdrawn_on_new_connections_until_it_delivers() -> None:
    driver = started(streams=TWO)
    driver.silent |= {(connection, "trades") for connection in range(1, 50)}
    driver.run(60)
    assert driver.live[-1] > 1
    assert driver.session.withdrawn(driver.live[-1]) == {"BTCUSDT", "ETHUSDT"}
    driver.silent.clear()
    driver.run(1)
    assert driver.session.withdrawn(driver.live[-1]) == set()


def test_a_stream_that_no_connection_revives_is_retried_less_and_less_often() -> None:
    driver = started()
    driver.silent |= {(connection, "trades") for connection in range(1, 50)}
    driver.run(7200)
    assert 3 <= len(driver.opens_s) <= 10
    waits = [later - earlier for earlier, later in pairwise(driver.opens_s[1:])]
    assert waits == sorted(waits)


def test_quiet_markets_cause_no_reconnects() -> None:
    """Five busy and twenty quiet markets, a faultless exchange, an hour: one connection."""
    busy = [(f"B{n}", kind) for n in range(5) for kind in ("trades", "quotes")]
    quiet = [(f"Q{n}", kind) for n in range(20) for kind in ("trades", "quotes")]
    driver, rng = Driver(rollover_s=10**6, streams=busy + quiet), random.Random(2)
    for _ in range(7200):
        share = {"trades": 1 / 120, "quotes": 0.15}
        driver.paused = {stream for stream in quiet if rng.random() > share[stream[1]]}
        driver.run(0.5)
    assert driver.steps == [("Open", 1)]
    assert driver.stalls == []
    assert driver.session.withdrawn(1) == set()
    asked_s = [at_s for at_s, _ in driver.probes]
    assert all(later - earlier >= PROBE_INTERVAL_S for earlier, later in pairwise(asked_s))


def test_a_silent_market_is_known_to_be_quiet_before_its_ticks_are_stale() -> None:
    driver = started(streams=TWO)
    driver.paused |= {("ETHUSDT", "trades"), ("ETHUSDT", "quotes")}
    silent_since_s = driver.now_s
    for _ in range(1200):
        driver.run(0.5)
        if driver.now_s - silent_since_s > 4:
            quiet_s = driver.session.quiet_s("ETHUSDT")
            assert quiet_s is not None
            assert driver.now_s - quiet_s < 4
    assert driver.session.quiet_s("BTCUSDT") is None
    assert driver.steps == [("Open", 1)]


def test_rest_that_does_not_answer_is_asked_less_and_less_often() -> None:
    driver = started(streams=TWO)
    driver.has_rest = False
    driver.paused |= {("ETHUSDT", "trades"), ("ETHUSDT", "quotes")}
    driver.run(600)
    assert driver.session.quiet_s("ETHUSDT") is None
    asked_s = [at_s for at_s, _ in driver.probes]
    assert len(asked_s) < 30
    assert asked_s[-1] - asked_s[-2] > 25
    driver.has_rest = True
    driver.run(70)
    assert driver.session.quiet_s("ETHUSDT") is not None


def test_an_open_connection_without_data_is_replaced() -> None:
    driver = Driver()
    driver.has_rest = False  # nothing but the silence
    driver.run(60)
    driver.silent |= {(1, "trades"), (1, "quotes")}
    driver.run(20)
    assert driver.steps == [("Open", 1), ("Open", 2), ("Close", 1)]
    assert STALLED_AFTER_S <= driver.log[1][0] - 59.5 <= STALLED_AFTER_S + 1
    assert driver.log[1][3].startswith("no data for")
    assert {(stall.symbol, stall.kind) for stall in driver.stalls} == set(STREAMS)


def test_a_single_quiet_market_keeps_its_connection() -> None:
    """There is no busy stream to show it; REST does."""
    driver = started()
    driver.paused = set(STREAMS)
    driver.run(600)
    assert driver.steps == [("Open", 1)]
    driver.has_rest = False  # without evidence
    driver.run(30)
    assert len(driver.opens_s) > 1


def test_quiet_markets_do_not_excuse_the_silence_of_a_busy_stream() -> None:
    driver = quiet_driver()
    driver.session = Session(QUIET, random.Random(1), 10**6, has_busy_stream=True)
    run_quietly(driver, 60, share=0.5)
    driver.paused = set(QUIET)
    for _ in range(20):
        driver.session.frame(1, driver.now_s)  # of the busy stream
        driver.run(0.5)
    assert len(driver.opens_s) == 1
    driver.paused |= set(BUSY)
    driver.run(STALLED_AFTER_S + 1)
    assert len(driver.opens_s) == 2


def test_a_frozen_exchange_is_not_live_and_not_flooded_with_attempts() -> None:
    driver = started()
    driver.is_frozen = True
    driver.run(7)
    assert not driver.session.is_live
    driver.run(3600)
    assert len(driver.opens_s) < 3600 / (BACKOFF_CAP_S / 2 + STALLED_AFTER_S)
    assert len(driver.live) <= 2
    driver.is_frozen = False
    driver.run(60)
    assert driver.session.is_live
    assert len(driver.live) == 1


def test_shutdowns_of_every_new_connection_cause_no_flood_of_attempts() -> None:
    driver = Driver(rollover_s=10**6)
    driver.run(60, 0.1)
    opened = 0
    for _ in range(6000):
        driver.run(0.1, 0.1)
        if len(driver.opens_s) > opened:
            opened = len(driver.opens_s)
            driver.session.shutdown_announced(driver.live[-1])
        assert driver.session.is_live  # what has delivered continues to
    assert opened < 600 / REPLACEMENT_CAP_S * 1.6 < MAX_ATTEMPTS * 2  # of ten minutes
    assert len(driver.live) <= 2


def test_a_shutdown_soon_after_an_outage_is_bridged() -> None:
    """The pauses that the outage led to are not waited for while what delivers is about to end."""
    driver = started()
    driver.is_frozen = True
    driver.run(200)
    driver.is_frozen = False
    while not driver.session.is_live:
        driver.run(0.5)
    driver.run(1)
    opened = len(driver.opens_s)
    driver.session.shutdown_announced(driver.live[-1])
    driver.run(REPLACEMENT_CAP_S + 1)
    assert len(driver.opens_s) == opened + 1


def test_an_exchange_that_refuses_only_new_connections_costs_nothing() -> None:
    driver = started(streams=TWO)
    driver.refuses = 503
    driver.session.shutdown_announced(1)
    driver.run(1800, 0.25)
    assert driver.live == [1]
    assert driver.session.withdrawn(1) == set()
    assert len(driver.opens_s) < 90
    driver.refuses = None
    driver.run(60)
    assert len(driver.live) == 1
    assert driver.live != [1]


def test_a_lost_connection_is_replaced_after_a_backoff_that_starts_small() -> None:
    driver = Driver()
    driver.run(20)
    driver.lose()
    driver.run(2, 0.05)
    assert driver.steps == [("Open", 1), ("Open", 2)]
    assert 20 < driver.log[1][0] <= 20.5
    assert driver.log[1][3] == "reset by peer"


def test_an_unavailable_exchange_is_retried_with_growing_pauses_within_its_limit() -> None:
    driver = Driver()
    driver.refuses = 503
    driver.run(600, 0.05)
    opened_s = [at_s for at_s, _, _, _ in driver.log]
    assert opened_s[1] - opened_s[0] < 0.5
    assert 14 <= opened_s[-1] - opened_s[-2] <= 31
    assert sum(at_s < 300 for at_s in opened_s) < MAX_ATTEMPTS
    driver.refuses = None
    driver.run(31)
    assert driver.session.is_live


def test_short_lived_connections_stay_within_the_limit_of_attempts() -> None:
    driver = Driver()
    session = driver.session
    for _ in range(100_000):
        for action in session.actions(driver.now_s):
            driver.act(action)
            session.data(action.connection, "BTCUSDT", "quotes", driver.now_s)
            driver.now_s += 10.1  # long enough to count as healthy
            driver.lose()
        driver.now_s += 0.01
        if driver.now_s > 900:
            break
    opened_s = [at_s for at_s, _, _, _ in driver.log]
    assert all(sum(t <= at_s < t + 300 for at_s in opened_s) <= MAX_ATTEMPTS for t in opened_s)


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_refused_key_is_fatal(status: int) -> None:
    driver = Driver()
    driver.refuses = status
    with pytest.raises(FatalSessionError, match=f"HTTP {status}"):
        driver.run(1)
    assert driver.steps == [("Open", 1)]


def test_a_refusal_does_not_end_a_delivering_connection() -> None:
    driver = Driver(rollover_s=50)
    driver.run(40)
    driver.refuses = 403
    driver.run(100)
    assert driver.live == [1]
    driver.refuses = None
    driver.run(40)
    assert 1 not in driver.live and len(driver.live) == 1


QUIET = [(f"Q{n}", kind) for n in range(5) for kind in ("trades", "quotes")]
BUSY = [("BUSY", "quotes")]


def quiet_driver(**options: float) -> Driver:
    driver = Driver(rollover_s=10**6, streams=BUSY + QUIET)
    for name, value in options.items():
        setattr(driver, name, value)
    return driver


def run_quietly(driver: Driver, seconds: int, share: float = 0.06) -> None:
    """The quiet markets have a quote each eight seconds or so, and hardly a trade."""
    rng = random.Random(5)
    for _ in range(2 * seconds):
        share_of = {"trades": share / 40, "quotes": share}
        driver.paused = {stream for stream in QUIET if rng.random() > share_of[stream[1]]}
        driver.run(0.5)


@pytest.mark.parametrize("lag_s", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_lagging_rest_causes_no_reconnects(lag_s: float) -> None:
    driver = quiet_driver(rest_lag_s=lag_s)
    run_quietly(driver, 1800)
    assert driver.steps == [("Open", 1)]
    assert driver.stalls == []


def test_data_missed_between_two_connections_are_not_missing_on_the_second() -> None:
    driver = quiet_driver(handshake_s=0.5)
    run_quietly(driver, 60, share=0.5)
    driver.lose()
    driver.paused = set()
    driver.happen()  # while nobody is connected
    driver.paused = set(QUIET)
    driver.run(600)
    assert len(driver.opens_s) == 2
    assert driver.session.withdrawn(2) == set()


def test_data_of_the_old_connection_alone_are_not_missing_on_the_new_one() -> None:
    driver = quiet_driver(handshake_s=1.0)
    run_quietly(driver, 60, share=0.5)
    driver.session.shutdown_announced(1)
    driver.paused = set()
    driver.run(0.5)  # the handshake is under way
    driver.paused = set(QUIET)
    driver.run(300)
    assert driver.live == [2]
    assert len(driver.opens_s) == 2
    assert driver.session.withdrawn(2) == set()
    assert driver.quiet[-1][0] > driver.now_s - 4


def test_a_market_without_any_data_is_not_known_to_be_quiet() -> None:
    """What downstream has of it may be from long ago."""
    driver = quiet_driver()
    driver.happened = dict.fromkeys(driver.happened, 100)  # before this task
    driver.paused = set(QUIET)
    driver.run(120)
    assert driver.probes and driver.quiet == []
    driver.paused = {(symbol, kind) for symbol, kind in QUIET if kind == "trades"}
    driver.run(0.5)
    driver.paused = set(QUIET)
    driver.run(10)
    assert {symbol for _, symbol in driver.quiet} == {symbol for symbol, _ in QUIET}
    assert driver.steps == [("Open", 1)]


def test_rest_can_revive_a_dead_stream() -> None:
    driver = quiet_driver()
    run_quietly(driver, 60, share=0.5)
    driver.paused = set(QUIET)
    driver.refuses = 503
    driver.run(10)
    real = newest(driver.happened, "Q0")
    driver.answer("Q0", real._replace(trade_id=(real.trade_id or 0) + 1))
    driver.has_rest = False
    driver.run(2)
    assert driver.session.withdrawn(1) == {"Q0"}
    driver.refuses, driver.has_rest = None, True
    driver.run(3600)
    assert driver.session.withdrawn(driver.live[-1]) == set()
    assert len(driver.opens_s) <= 3


def test_an_announced_shutdown_is_not_forgotten_when_a_silence_ends() -> None:
    driver = quiet_driver()
    driver.run(60)
    driver.refuses = 503
    driver.is_frozen = True
    driver.run(7)
    driver.session.shutdown_announced(1)
    driver.is_frozen = False
    driver.run(2)
    driver.refuses = None
    driver.run(30)
    assert driver.live != [1]


def test_retry_after_is_obeyed() -> None:
    driver = Driver()
    (first,) = driver.session.actions(0.0)
    driver.session.closed(first.connection, "HTTP 429", 429, 0.0, 90.0)
    assert driver.session.actions(89.0) == []
    assert driver.session.actions(90.1)

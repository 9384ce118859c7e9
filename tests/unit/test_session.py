import random
from itertools import islice

import pytest

from tickcast.session import (
    ATTEMPTS,
    BACKOFF_CAP_S,
    Close,
    FatalSessionError,
    Open,
    Session,
    Watermark,
    backoff,
    refusal,
)

S = 1_000_000


def test_backoff_doubles_is_capped_and_jittered() -> None:
    delays = list(islice(backoff(random.Random(1)), 40))
    for n, delay in enumerate(delays):
        full = min(0.25 * 2**n, BACKOFF_CAP_S)
        assert full / 2 <= delay <= full
    assert len(set(delays)) == len(delays)


def test_attempts_stay_far_below_the_exchange_s_limit() -> None:
    """300 attempts in 5 minutes would be refused; a stream that never comes back makes a dozen."""
    spent, attempts = 0.0, 0
    for delay in backoff(random.Random(2)):
        spent, attempts = spent + delay, attempts + 1
        if spent > 300:
            break
    assert attempts < 40


@pytest.mark.parametrize("status", [400, 401, 403, 404, 451])
def test_refusals_that_no_repetition_mends(status: int) -> None:
    assert f"HTTP {status}" in str(refusal(status))


@pytest.mark.parametrize("status", [418, 429, 500, 502, 503])
def test_passing_failures_are_tried_again(status: int) -> None:
    assert refusal(status) is None


STREAMS = [("BTCUSDT", "trades"), ("BTCUSDT", "quotes")]


class Driver:
    """Plays the socket loop: time goes on in steps, streams deliver as they are told to."""

    def __init__(self, rollover_s: float = 1000) -> None:
        self.session = Session(STREAMS, random.Random(1), rollover_s)
        self.now_s = 0.0
        self.live: list[int] = []
        self.log: list[tuple[float, str, int, str]] = []
        self.silent: set[tuple[int, str]] = set()  # (connection, kind) that stopped delivering
        self.refuses: int | None = None  # handshakes are answered with this status

    def run(self, seconds: float, step_s: float = 0.5) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            for action in self.session.actions(self.now_s):
                self.act(action)
            for connection in self.live:
                for _, kind in STREAMS:
                    if (connection, kind) not in self.silent:
                        self.session.data(connection, "BTCUSDT", kind, self.now_s)
            self.now_s += step_s

    def act(self, action: Open | Close) -> None:
        self.log.append((self.now_s, type(action).__name__, action.connection, action.why))
        if isinstance(action, Close):
            self.live.remove(action.connection)
            self.session.closed(action.connection, "closed by us", None, self.now_s)
        elif self.refuses:
            self.session.closed(action.connection, f"HTTP {self.refuses}", self.refuses, self.now_s)
        else:
            self.session.opened(action.connection, self.now_s)
            self.live.append(action.connection)

    def lose(self, why: str = "reset by peer") -> None:
        self.session.closed(self.live.pop(), why, None, self.now_s)

    @property
    def steps(self) -> list[tuple[str, int]]:
        return [(kind, connection) for _, kind, connection, _ in self.log]


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
    assert opened_s < closed_s < opened_s + 2  # as soon as the second delivers
    assert "24 h" in driver.log[2][3]
    driver.run(100)
    assert driver.steps[3:] == [("Open", 3), ("Close", 2)]


def test_the_first_stays_until_a_successor_delivers_as_much() -> None:
    """The second brings no trades: the first goes on, and a third relieves both."""
    driver = Driver(rollover_s=100)
    driver.silent.add((2, "trades"))
    driver.run(110)
    assert driver.live == [1, 2]
    driver.run(30)
    assert driver.live == [3]


def test_what_still_delivers_is_kept_while_no_successor_does() -> None:
    driver = Driver(rollover_s=100)
    driver.run(90)
    driver.silent |= {(connection, "trades") for connection in range(2, 30)}
    driver.run(300)
    assert 1 in driver.live
    assert len(driver.live) == 2
    assert driver.steps.count(("Open", 29)) == 0  # and the exchange is not pestered


def test_an_announced_shutdown_rolls_over_at_once() -> None:
    driver = Driver()
    driver.run(20)
    driver.session.shutdown_announced(1)
    driver.run(3)
    assert driver.steps == [("Open", 1), ("Open", 2), ("Close", 1)]
    assert driver.log[1][0] == 20
    assert "shutdown" in driver.log[1][3]


@pytest.mark.parametrize(("kind", "at_least_s", "at_most_s"), [("quotes", 5, 30), ("trades", 15, 45)])
def test_a_stream_that_stalls_while_the_other_flows_is_noticed(
    kind: str, at_least_s: float, at_most_s: float
) -> None:
    driver = Driver()
    driver.run(60)
    driver.silent.add((1, kind))
    driver.run(60)
    assert driver.steps == [("Open", 1), ("Open", 2), ("Close", 1)]
    assert at_least_s <= driver.log[1][0] - 60 <= at_most_s
    assert driver.log[1][3].startswith(f"no {kind} of BTCUSDT for")


def test_a_stall_is_told_once_with_how_long_it_has_been() -> None:
    driver = Driver()
    driver.run(60)
    driver.silent.add((1, "trades"))
    driver.run(60)
    (stall,) = driver.session.take_stalls()
    assert (stall.symbol, stall.kind) == ("BTCUSDT", "trades")
    assert 15 <= stall.seconds <= 45
    assert driver.session.take_stalls() == []


def test_a_stalled_connection_claims_nothing_any_more() -> None:
    driver = Driver()
    driver.run(60)
    driver.silent |= {(1, "quotes"), (2, "quotes")}
    assert not driver.session.is_stalled(1)
    driver.run(27)
    assert driver.session.is_stalled(1) or 1 not in driver.live


def test_a_market_that_is_really_quiet_is_asked_less_and_less_often() -> None:
    driver = Driver()
    driver.run(60)
    driver.silent |= {(connection, "trades") for connection in range(1, 50)}
    driver.run(3600)
    opened_s = [at_s for at_s, kind, _, _ in driver.log if kind == "Open"]
    assert 3 <= len(opened_s) <= 9
    waits = [later - earlier for earlier, later in zip(opened_s[1:], opened_s[2:], strict=False)]
    assert waits == sorted(waits)


def test_a_lost_connection_is_replaced_after_a_backoff_that_starts_small() -> None:
    driver = Driver()
    driver.run(20)
    driver.lose()
    driver.run(2, 0.05)
    assert driver.steps == [("Open", 1), ("Open", 2)]
    assert 20 < driver.log[1][0] <= 20.5
    assert driver.log[1][3] == "reset by peer"


def test_an_exchange_that_is_away_is_asked_with_growing_pauses_within_its_limit() -> None:
    driver = Driver()
    driver.refuses = 503
    driver.run(600, 0.05)
    opened_s = [at_s for at_s, _, _, _ in driver.log]
    assert opened_s[1] - opened_s[0] < 0.5
    assert 14 <= opened_s[-1] - opened_s[-2] <= 31
    assert sum(at_s < 300 for at_s in opened_s) < ATTEMPTS
    driver.refuses = None
    driver.run(31)
    assert driver.session.is_live


def test_connections_that_die_at_once_stay_within_the_limit_of_attempts() -> None:
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
    assert all(sum(t <= at_s < t + 300 for at_s in opened_s) <= ATTEMPTS for t in opened_s)


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_refused_key_ends_it(status: int) -> None:
    driver = Driver()
    driver.refuses = status
    with pytest.raises(FatalSessionError, match=f"HTTP {status}"):
        driver.run(1)
    assert driver.steps == [("Open", 1)]


def test_a_refusal_does_not_end_what_still_delivers() -> None:
    driver = Driver(rollover_s=50)
    driver.run(40)
    driver.refuses = 403
    driver.run(100)
    assert driver.live == [1]
    driver.refuses = None
    driver.run(40)
    assert 1 not in driver.live and len(driver.live) == 1


def test_watermark_follows_ticks_then_the_clock_held_back_by_the_delay() -> None:
    watermark = Watermark()
    assert watermark.at(0) is None
    watermark.saw(100 * S, 100 * S + 40_000)
    watermark.saw(101 * S, 101 * S + 250_000)  # a slow one
    watermark.saw(101 * S - 5_000, 101 * S + 260_000)  # out of order
    assert watermark.at(101 * S + 300_000) == 101 * S
    quiet = watermark.at(104 * S)
    assert quiet is not None
    assert 104 * S - 250_000 - 2 * Watermark.MARGIN_US <= quiet <= 104 * S - 250_000


def test_a_quiet_watermark_is_not_ahead_of_a_tick_still_under_way() -> None:
    """A tick every 3 s, delayed by 50 to 300 ms: what is claimed just before one arrives is not past it."""
    watermark = Watermark()
    for n in range(1, 60):
        time_us, delay_us = 3 * S * n, (300_000, 50_000, 120_000)[n % 3]
        if n > 3:
            claimed = watermark.at(time_us + delay_us - 1)
            assert claimed is not None
            assert 3 * S * (n - 1) < claimed <= time_us
        watermark.saw(time_us, time_us + delay_us)


def test_retry_after_is_obeyed() -> None:
    driver = Driver()
    (first,) = driver.session.actions(0.0)
    driver.session.closed(first.connection, "HTTP 429", 429, 0.0, 90.0)
    assert driver.session.actions(89.0) == []
    assert driver.session.actions(90.1)

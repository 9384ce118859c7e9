"""Other streams are wanted while the session runs: nothing of those that stay is missed."""

from __future__ import annotations

import random

import pytest

from tests.market.test_session import Driver
from tickcast.market.session import OVERLAP_S, Close, Open
from tickcast.market.watermark import SymbolStream

Streams = list[SymbolStream]


def streams_of(*symbols: str) -> Streams:
    return [(symbol, kind) for symbol in symbols for kind in ("trades", "quotes")]


class Follower(Driver):
    """Connections carry what was wanted when they were opened. `missed` has the streams that were wanted and
    had been delivered, each at a time when no connection delivered it."""

    def __init__(self, *symbols: str) -> None:
        super().__init__(streams=streams_of(*symbols))
        self.carries: dict[int, Streams] = {}
        self.missed: list[tuple[float, SymbolStream]] = []
        self.wanted = self.streams

    def follow(self, *symbols: str) -> None:
        self.wanted = streams_of(*symbols)
        self.streams = [*dict.fromkeys([*self.streams, *self.wanted])]  # the exchange has data of all
        self.happened = dict.fromkeys(self.streams, 0) | self.happened
        self.received = {key: count for key, count in self.received.items() if key in self.wanted}
        self.session.follow(self.wanted, has_busy_stream=False)

    def act(self, action: Open | Close) -> None:
        if isinstance(action, Open):
            self.carries[action.connection] = self.wanted
        super().act(action)

    def happen(self) -> None:
        for stream in self.streams:
            self.happened[stream] += 1
            live = [] if self.is_frozen else self.live
            carried = [connection for connection in live if stream in self.carries[connection]]
            for connection in carried:
                self.delivered[connection][stream] = self.happened[stream]
                if stream in self.wanted:
                    self.received[stream] = self.happened[stream]
                self.session.data(connection, *stream, self.now_s)
            if stream in self.wanted and stream in self.received and not carried:
                self.missed.append((self.now_s, stream))
        self.history = [*self.history[-40:], (self.now_s, dict(self.happened))]


def test_a_change_opens_a_connection_and_closes_the_old_one_when_that_has_caught_up() -> None:
    driver = Follower("A", "B")
    driver.run(20)
    driver.follow("B", "C")
    driver.run(20)
    assert driver.missed == []
    assert [step for _, *step in driver.log] == [
        ["Open", 1, "not connected yet"],
        ["Open", 2, "other symbols are served now"],
        ["Close", 1, "other symbols are served now"],
    ]
    (_, opened_s, closed_s) = (at_s for at_s, *_ in driver.log)
    assert closed_s - opened_s >= OVERLAP_S
    assert driver.received.keys() == set(driver.wanted)


def test_the_same_streams_in_another_order_change_nothing() -> None:
    driver = Follower("A", "B")
    driver.run(10)
    driver.follow("B", "A")
    driver.run(30)
    assert len(driver.log) == 1


def test_a_connection_that_was_under_way_is_replaced_too() -> None:
    driver = Follower("A")
    driver.handshake_s = 3.0
    driver.run(1)
    driver.follow("A", "B")
    driver.run(30)
    assert driver.live == [2]
    assert driver.missed == []


def test_an_old_connection_that_ends_leaves_the_new_one() -> None:
    driver = Follower("A")
    driver.run(10)
    driver.handshake_s = 2.0
    driver.follow("A", "B")
    driver.run(1)
    driver.live.remove(1)
    driver.session.closed(1, "the exchange closed it", None, driver.now_s)
    driver.run(20)
    assert driver.live == [2]


@pytest.mark.parametrize("seed", range(10))
def test_whatever_changes_when_what_stays_is_not_missed(seed: int) -> None:
    rng = random.Random(seed)
    driver = Follower("A", "B", "C")
    for _ in range(30):
        driver.handshake_s = rng.choice([0.0, 0.5, 4.0])
        driver.run(rng.choice([0.5, 2.0, 10.0, 40.0]))
        driver.follow("A", *rng.sample(["B", "C", "D", "E"], rng.randint(0, 4)))
    driver.run(120)
    assert driver.missed == []
    assert len(driver.live) == 1 and set(driver.carries[driver.live[0]]) == set(driver.wanted)
    assert {stall.symbol for stall in driver.stalls} == set()
    assert {symbol for _, symbols in driver.probes for symbol in symbols} == set()


def test_a_removed_symbol_is_neither_asked_about_nor_reported() -> None:
    driver = Follower("A", "B")
    driver.run(10)
    driver.follow("A")
    driver.is_frozen = True  # nothing comes on either connection
    driver.probes.clear()
    driver.run(30)
    assert {symbol for _, symbols in driver.probes for symbol in symbols} == {"A"}
    assert {stall.symbol for stall in driver.stalls} == {"A"}

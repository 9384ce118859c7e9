"""A clock that is off is compensated; a pipeline that is slow never is."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickcast.market.clock_offset import MAX_SENDERS, SPREAD_US, WINDOW_US, ClockOffset

NOW_US = 1_754_000_000_000_000  # of the exchange's clock
LINGER_US = 100_000
MS = 1000


@dataclass
class Pipeline:
    """Records of one symbol through put, delivery and write. Times in µs; offsets are from the exchange."""

    put_us: int = 5 * MS
    acknowledged_us: int = 5 * MS
    delivered_us: int = 100 * MS
    stream_offset_us: int = 0
    store_offset_us: int = 0
    own_offset_us: int = 0
    exchange_us: int = NOW_US
    estimate: ClockOffset = field(default_factory=ClockOffset)
    symbol: str = "BTCUSDT"
    connection: str = "abcd1234-0"

    def run(self, seconds: float, *, jitter: random.Random | None = None, linger_us: int = LINGER_US) -> None:
        end_us = self.exchange_us + int(seconds * 1e6)
        while self.exchange_us < end_us:
            slower = 1 + jitter.expovariate(1) if jitter else 1.0
            sent_us = self.exchange_us
            arrives_us = sent_us + int(self.put_us * slower)
            arrived_us = arrives_us + self.stream_offset_us
            self.estimate.record(self.symbol, self.connection, sent_us, sent_us - 80 * MS, arrived_us)
            asked_us = arrives_us + int(self.delivered_us * slower)
            self.estimate.written(
                arrived_us,
                asked_us + self.own_offset_us,
                asked_us + MS + self.store_offset_us,
                asked_us + 2 * MS + self.own_offset_us,
            )
            self.exchange_us = max(sent_us + linger_us, arrives_us + int(self.acknowledged_us * slower))


def test_nothing_is_known_at_first() -> None:
    estimate = ClockOffset()
    assert (estimate.store_ms, estimate.own_ms) == (None, None)
    estimate.written(NOW_US, NOW_US, NOW_US, NOW_US)
    assert (estimate.store_ms, estimate.own_ms) == (None, None)


@given(
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.integers(0, 60_000),
    st.integers(-SPREAD_US // MS, SPREAD_US // MS),
)
def test_a_slow_pipeline_is_never_a_clock_that_is_off(
    put_ms: int, acknowledged_ms: int, delivered_ms: int, offset_ms: int
) -> None:
    """However slow each part of it is, for however long."""
    pipeline = Pipeline(put_ms * MS, acknowledged_ms * MS, delivered_ms * MS)
    pipeline.stream_offset_us = pipeline.store_offset_us = pipeline.own_offset_us = offset_ms * MS
    pipeline.run(90)
    assert pipeline.estimate.store_ms == 0
    assert pipeline.estimate.own_ms == 0


@given(st.integers(-600_000, 600_000), st.integers(0, 1000))
def test_an_offset_that_all_share_is_found(offset_ms: int, seed: int) -> None:
    """A laptop: stream, function and store are on its clock."""
    pipeline = Pipeline()
    pipeline.stream_offset_us = pipeline.store_offset_us = pipeline.own_offset_us = offset_ms * MS
    pipeline.run(20, jitter=random.Random(seed))
    tolerance_ms = (SPREAD_US + LINGER_US) / MS  # what lies between two records is not known closer
    assert pipeline.estimate.store_ms == pytest.approx(offset_ms, abs=tolerance_ms)
    assert pipeline.estimate.own_ms == pytest.approx(offset_ms, abs=tolerance_ms)


@given(st.integers(1000, 600_000), st.integers(0, 20_000), st.integers(0, 20_000), st.integers(0, 20_000))
def test_ages_are_not_underestimated_by_more_than_the_spread_while_a_clock_is_ahead(
    offset_ms: int, put_ms: int, acknowledged_ms: int, delivered_ms: int
) -> None:
    """An offset that is too large makes a stale answer look fresh."""
    pipeline = Pipeline(put_ms * MS, acknowledged_ms * MS, delivered_ms * MS)
    pipeline.stream_offset_us = pipeline.store_offset_us = offset_ms * MS
    pipeline.run(90)
    assert pipeline.estimate.store_ms is not None
    assert pipeline.estimate.store_ms <= offset_ms + SPREAD_US / MS


@pytest.mark.parametrize("offset_s", [-3, 3])
def test_a_function_whose_clock_is_off_concerns_only_itself(offset_s: int) -> None:
    pipeline = Pipeline(own_offset_us=offset_s * 1_000_000)
    pipeline.run(5)
    assert pipeline.estimate.store_ms == 0
    assert pipeline.estimate.own_ms == pytest.approx(offset_s * 1000, abs=1)


def test_a_store_whose_clock_is_behind_is_found_for_what_it_holds_is_from_the_future() -> None:
    pipeline = Pipeline(store_offset_us=-3_000_000)
    pipeline.run(5)
    assert pipeline.estimate.store_ms == pytest.approx(-3000, abs=SPREAD_US / MS)


def test_a_claim_alone_proves_a_clock_that_is_behind() -> None:
    """REST did not give ingest the time, but no claim is ahead of the exchange."""
    estimate = ClockOffset()
    estimate.record("BTCUSDT", "abcd1234-0", -1, NOW_US, NOW_US - 3_000_000)
    assert estimate.store_ms == -3000


@pytest.mark.parametrize("jump_s", [-3, 3])
def test_a_clock_that_is_set_is_followed_at_once(jump_s: int) -> None:
    pipeline = Pipeline()
    pipeline.run(60)
    pipeline.stream_offset_us = pipeline.store_offset_us = jump_s * 1_000_000
    pipeline.run(1)
    assert pipeline.estimate.store_ms == pytest.approx(jump_s * 1000, abs=SPREAD_US / MS)
    pipeline.stream_offset_us = pipeline.store_offset_us = 0
    pipeline.run(1)
    assert pipeline.estimate.store_ms == 0


def test_a_shard_that_is_far_behind_does_not_cast_doubt_on_what_is_proven() -> None:
    pipeline = Pipeline(stream_offset_us=-3_000_000, store_offset_us=-3_000_000)
    pipeline.run(5)
    known_ms = pipeline.estimate.store_ms
    old_us = pipeline.exchange_us - 2 * WINDOW_US
    for n in range(100):
        pipeline.estimate.record("ETHUSDT", "abcd1234-0", -1, old_us + n * MS, old_us + n * MS + 500 * MS)
    assert pipeline.estimate.store_ms == known_ms == pytest.approx(-3000, abs=SPREAD_US / MS)


def test_a_clock_of_arrivals_that_is_set_back_for_good_is_followed() -> None:
    pipeline = Pipeline(stream_offset_us=600_000_000, store_offset_us=600_000_000)
    pipeline.run(5)
    assert pipeline.estimate.store_ms == pytest.approx(600_000, abs=SPREAD_US / MS)
    pipeline.stream_offset_us = pipeline.store_offset_us = 0
    pipeline.run(120)
    assert pipeline.estimate.store_ms == 0


def test_a_record_that_is_delivered_again_proves_nothing_more() -> None:
    estimate = ClockOffset()
    for sent_us in (NOW_US, NOW_US + LINGER_US, NOW_US):  # the third after the second had arrived
        estimate.record("BTCUSDT", "abcd1234-0", sent_us, -1, sent_us + 5 * MS)
    assert estimate.store_ms == 0


def test_a_thousand_symbols_from_two_tasks_bound_each_their_next_record() -> None:
    """With a stream clock that is behind only the next record of the same sender proves by how much."""
    estimate, behind_us = ClockOffset(), 3_000_000
    for at_us in (NOW_US, NOW_US + LINGER_US):
        for n in range(2000):
            symbol, task = f"S{n // 2}USDT", f"task{n % 2}-0"
            estimate.record(symbol, task, at_us, -1, at_us + 5 * MS + behind_us)
    assert estimate.store_ms == pytest.approx(behind_us / MS, abs=(SPREAD_US + LINGER_US) / MS)


def test_the_senders_heard_last_are_remembered() -> None:
    estimate = ClockOffset()
    for n in range(MAX_SENDERS + 1):
        for connection in ("first-0", f"other{n}-0"):  # the first is heard again and again
            sent_us = NOW_US + n * MS
            estimate.record("BTCUSDT", connection, sent_us, -1, sent_us)
    assert len(estimate._previous) == MAX_SENDERS
    assert ("BTCUSDT", "first") in estimate._previous
    assert ("BTCUSDT", "other0") not in estimate._previous


def test_records_of_two_tasks_do_not_bound_each_other() -> None:
    """Each task waits for its own acknowledgements only."""
    estimate = ClockOffset()
    estimate.record("BTCUSDT", "aaaa1111-0", NOW_US, -1, NOW_US + 3_000_000)  # a slow put
    estimate.record("BTCUSDT", "bbbb2222-0", NOW_US + MS, -1, NOW_US + 3_001_000)
    assert estimate.store_ms == 0


def test_what_is_older_than_the_window_is_forgotten() -> None:
    pipeline = Pipeline(stream_offset_us=-3_000_000, store_offset_us=-3_000_000)
    pipeline.run(2)
    pipeline.exchange_us += 2 * WINDOW_US
    pipeline.stream_offset_us = pipeline.store_offset_us = -3_400_000
    pipeline.run(2)
    assert pipeline.estimate.store_ms == pytest.approx(-3400, abs=60)

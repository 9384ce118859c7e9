"""What a connection claims: only what received data prove."""

from ingest_ecs.feed_buffer import FeedBuffer
from tests.fixtures.frames import quote_frame, trade_frame
from tickcast.market.liveness import Newest
from tickcast.market.watermark import CLAIM_LIFE_US, STREAMS_APART_US

T0, S = 1_754_000_000_000_000, 1_000_000
DELAY_US = 5_000


def take(buffer: FeedBuffer, *frames: bytes, at_us: int) -> None:
    for frame in frames:
        buffer.take(frame, at_us + DELAY_US)
    buffer.drain()


def test_nothing_is_claimed_before_any_data() -> None:
    buffer = FeedBuffer(1, "c1", "sbe")
    assert buffer.claim_us("BTCUSDT", T0) is None
    assert not buffer.delivers("BTCUSDT")


def test_a_connection_claims_nothing_of_a_symbol_that_it_does_not_carry() -> None:
    """Such as of one that was added since: what its other streams prove says nothing about that one."""
    buffer = FeedBuffer(1, "c1", "sbe", symbols=("BTCUSDT",))
    take(buffer, trade_frame(1, "BTCUSDT", T0), at_us=T0)
    assert buffer.claim_us("BTCUSDT", T0 + DELAY_US) == T0
    assert buffer.claim_us("SOLUSDT", T0 + DELAY_US) is None
    assert (buffer.delivers("BTCUSDT"), buffer.delivers("SOLUSDT")) == (True, False)


def test_a_claim_rests_on_the_symbol_s_own_ticks_or_those_of_another_stream() -> None:
    buffer = FeedBuffer(1, "c1", "sbe")
    take(buffer, trade_frame(1, "BTCUSDT", T0), at_us=T0)
    assert buffer.claim_us("BTCUSDT", T0 + DELAY_US) == T0
    take(buffer, quote_frame(1, "ETHUSDT", T0 + S), at_us=T0 + S)
    assert buffer.claim_us("BTCUSDT", T0 + S + DELAY_US) == T0 + S - STREAMS_APART_US
    assert buffer.claim_us("BNBUSDT", T0 + S + DELAY_US) == T0 + S - STREAMS_APART_US  # never came, yet


def test_the_local_clock_proves_nothing() -> None:
    """The claim does not move without data, and is not repeated once the last of them are old."""
    buffer = FeedBuffer(1, "c1", "sbe")
    take(buffer, trade_frame(1, "BTCUSDT", T0), at_us=T0)
    life_us = DELAY_US + CLAIM_LIFE_US
    assert {buffer.claim_us("BTCUSDT", T0 + us) for us in range(0, life_us + 1, 50_000)} == {T0}
    assert buffer.claim_us("BTCUSDT", T0 + life_us + 1) is None
    take(buffer, quote_frame(1, "BTCUSDT", T0 + 9 * S), at_us=T0 + 9 * S)
    assert buffer.claim_us("BTCUSDT", T0 + 9 * S) == T0 + 9 * S


def test_withdrawing_a_claim_leaves_the_other_symbols_theirs() -> None:
    buffer = FeedBuffer(1, "c1", "sbe")
    take(buffer, trade_frame(1, "BTCUSDT", T0), trade_frame(1, "ETHUSDT", T0), at_us=T0)
    buffer.withdrawn = {"ETHUSDT"}
    assert buffer.claim_us("ETHUSDT", T0) is None
    assert buffer.claim_us("BTCUSDT", T0) == T0
    buffer.withdrawn = set()
    assert buffer.claim_us("ETHUSDT", T0) == T0


def test_the_newest_trade_and_book_are_kept_by_symbol() -> None:
    buffer = FeedBuffer(1, "c1", "sbe")
    take(buffer, trade_frame(7, "BTCUSDT", T0), trade_frame(8, "BTCUSDT", T0), at_us=T0)
    assert buffer.newest == {"BTCUSDT": Newest(8)}
    take(buffer, quote_frame(2, "BTCUSDT", T0, bid_qty=7), quote_frame(1, "BTCUSDT", T0), at_us=T0)
    assert buffer.newest == {"BTCUSDT": Newest(8, (99, 7, 101, 5))}


def test_a_clock_offset_that_was_wrong_leaves_no_claim() -> None:
    buffer = FeedBuffer(1, "c1", "sbe")
    for n in range(3):
        take(buffer, trade_frame(n, "BTCUSDT", T0 + 3600 * S + n), at_us=T0 + n)
    for n in range(3, 30):
        take(buffer, trade_frame(n, "BTCUSDT", T0 + n * S // 10), at_us=T0 + n * S // 10)
    claim_us = buffer.claim_us("BTCUSDT", T0 + 3 * S)
    assert claim_us is not None
    assert claim_us <= T0 + 3 * S + S


def test_a_stream_that_lags_behind_the_others_is_late_and_not_refused() -> None:
    buffer, came = FeedBuffer(1, "c1", "sbe"), 0
    for n in range(300):
        now_us = T0 + n * S // 10
        lag_us = 0 if n < 100 else 7 * S
        buffer.take(quote_frame(n, "ETHUSDT", now_us), now_us + DELAY_US)
        if n < 100 or n >= 170:
            buffer.take(trade_frame(n, "BTCUSDT", now_us - lag_us), now_us + DELAY_US)
        came += sum(len(rows) for rows in buffer.drain().trades.values())
    assert came == 100 + 130
    assert buffer.refused == []

import pytest

from tests.market import batch, random_ticks
from tickcast.bars import BarRing
from tickcast.state import StateError, decode_ring, encode_ring


def ring_of(seconds: float) -> BarRing:
    trades, quotes = random_ticks(1, seconds)
    ring = BarRing(100_000)
    list(ring.fold(batch(trades[::2], quotes), 1_000_000))
    return ring


def test_a_ring_survives_storage_and_goes_on() -> None:
    trades, quotes = random_ticks(1, 20)
    early, late = (
        batch(
            trades[(trades["time_us"] < 1_754_000_010_000_000) == is_early],
            quotes[(quotes["time_us"] < 1_754_000_010_000_000) == is_early],
        )
        for is_early in (True, False)
    )
    kept, stored = BarRing(100_000), BarRing(100_000)
    list(kept.fold(early, 1_000_000))
    list(stored.fold(early, 1_000_000))
    stored = decode_ring(encode_ring(stored), 100_000)
    list(kept.fold(late, 1_000_000))
    list(stored.fold(late, 1_000_000))
    assert encode_ring(stored) == encode_ring(kept)


def test_it_stays_small() -> None:
    assert len(encode_ring(ring_of(90))) < 120_000


def test_another_version_is_refused_by_name() -> None:
    data = encode_ring(ring_of(2)).replace(b'"version": 1', b'"version": 9')
    with pytest.raises(StateError, match="state of version 9, this code reads version 1"):
        decode_ring(data, 100_000)


@pytest.mark.parametrize("cut", [0, 3, 20, -1])
def test_damage_is_a_state_error(cut: int) -> None:
    with pytest.raises(StateError, match="damaged state"):
        decode_ring(encode_ring(ring_of(2))[:cut], 100_000)

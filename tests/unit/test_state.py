import pytest

from tests.market import batch, random_ticks
from tickcast.bars import BarRing
from tickcast.calibration import Calibrator
from tickcast.outcomes import Memory
from tickcast.state import VERSION, StateError, SymbolState, decode_state, encode_state


def state_of(seconds: float) -> SymbolState:
    trades, quotes = random_ticks(1, seconds)
    ring = BarRing(100_000)
    list(ring.fold(batch(trades[::2], quotes), 1_000_000))
    memory = Memory([{"id": "BTCUSDT-1", "horizon_s": 2}], {"m1": {2: Calibrator(1.5, 0.8, 3, 0.1)}})
    return SymbolState("BTCUSDT", ring, memory, sequence=7)


def test_a_state_survives_storage_and_goes_on() -> None:
    trades, quotes = random_ticks(1, 20)
    early, late = (
        batch(
            trades[(trades["time_us"] < 1_754_000_010_000_000) == is_early],
            quotes[(quotes["time_us"] < 1_754_000_010_000_000) == is_early],
        )
        for is_early in (True, False)
    )
    kept, stored = (SymbolState("BTCUSDT", BarRing(100_000)) for _ in range(2))
    for state in (kept, stored):
        list(state.ring.fold(early, 1_000_000))
    stored = decode_state("BTCUSDT", 0, encode_state(stored), 100_000)
    for state in (kept, stored):
        list(state.ring.fold(late, 1_000_000))
    assert encode_state(stored) == encode_state(kept)


def test_all_of_it_comes_back() -> None:
    state = state_of(3)
    back = decode_state("BTCUSDT", 7, encode_state(state), 100_000)
    assert (back.symbol, back.sequence, back.memory) == (state.symbol, state.sequence, state.memory)
    assert back.ring.gaps == state.ring.gaps
    assert back.ring.history_from_us == state.ring.history_from_us > 0
    assert back.ring.seconds.tobytes() == state.ring.seconds.tobytes()


def test_it_stays_small() -> None:
    ring = BarRing(100_000)
    list(ring.fold(batch(*random_ticks(1, 90)), 1_000_000))
    assert len(encode_state(SymbolState("BTCUSDT", ring))) < 26_000
    assert len(encode_state(state_of(90))) < 56_000  # every other trade is missing: the ledger is full


def test_another_version_is_refused_by_name() -> None:
    data = encode_state(state_of(2)).replace(b'"version": %d' % VERSION, b'"version": 1')
    with pytest.raises(StateError, match=f"state of version 1, this code reads version {VERSION}"):
        decode_state("BTCUSDT", 0, data, 100_000)


@pytest.mark.parametrize("cut", [0, 3, 20, -1])
def test_damage_is_a_state_error(cut: int) -> None:
    with pytest.raises(StateError, match="damaged state"):
        decode_state("BTCUSDT", 0, encode_state(state_of(2))[:cut], 100_000)

"""Features computed from a stream, batch by batch, equal those from history to the last bit."""

import numpy as np
import pytest

from tests.fixtures.market import batches, random_ticks, recorded_ticks
from tests.fixtures.recordings import CAPTURED
from tickcast.adapters.lake import bronze
from tickcast.features.bars import BAR_US, segments
from tickcast.features.ring import BarRing
from tickcast.features.vector import feature_rows, history_rows
from tickcast.market import wire
from tickcast.market.ticks import Quotes, Trades
from tickcast.serving.state import SymbolState, decode_state, encode_state

LATENESS_US = 100_000


def streamed(trades: Trades, quotes: Quotes, cuts_us: list[int]) -> dict[int, bytes]:
    """Feature bits by instant, of closed bars and of views at the end of open ones, through everything that a
    batch goes through live: wire bytes and Redis bytes."""
    state, rows = SymbolState("BTCUSDT", BarRing(LATENESS_US)), {}
    for piece in batches(trades, quotes, cuts_us):
        ring = state.ring
        for instant_us in ring.fold(wire.decode(wire.encode(piece)), 1_000_000):
            rows[instant_us] = feature_rows(ring.bars, ring.seconds, 1)[0].tobytes()
        view = ring.view(ring.as_of_us // BAR_US * BAR_US)  # pieces are in order: its bars are complete
        if len(view.bars):
            row = feature_rows(view.bars, view.seconds, 1)[0].tobytes()
            assert rows.setdefault(view.as_of_us, row) == row
        state = decode_state("BTCUSDT", 0, encode_state(state), LATENESS_US)
    assert (state.ring.trade_ids.late_count, state.ring.quote_ids.late_count) == (0, 0)
    return rows


def replayed(trades: Trades, quotes: Quotes) -> dict[int, bytes]:
    """The same from history: bronze files read back, all bars at once."""
    archived = bronze.write_file(bronze.market_data(wire.TickBatch("BTCUSDT", "sim", "a", 0, trades, quotes)))
    trades, quotes, _ = bronze.ticks_from(bronze.read_file(archived, "archived"))
    (bars,) = segments(trades, quotes)
    rows = history_rows(bars)
    return {int(end_us): row.tobytes() for end_us, row in zip(bars["end_us"], rows, strict=True)}


def assert_same(trades: Trades, quotes: Quotes, seed: int, at_least: int) -> None:
    rng = np.random.default_rng(seed)
    start_us, end_us = int(quotes["time_us"][0]), int(quotes["time_us"].max())
    live = streamed(trades, quotes, rng.integers(start_us, end_us, 300).tolist())
    history = replayed(trades, quotes)
    both = [instant_us for instant_us in live if instant_us in history]
    assert len(both) >= at_least
    for instant_us in both:
        assert live[instant_us] == history[instant_us], instant_us


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_market(seed: int) -> None:
    assert_same(*random_ticks(seed, 100), seed, at_least=250)


@pytest.mark.parametrize("symbol", CAPTURED)
def test_recording(symbol: str) -> None:
    assert_same(*recorded_ticks(CAPTURED[symbol]), 1, at_least=200)
